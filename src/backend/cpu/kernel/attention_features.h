/*
 * kernel/attention_features.h - what a head's features do to the scores of a row: windows, softcap, ALiBi,
 * bias, mask, dropout
 *
 * For attention_score_f32.c, compiled with it; VL lanes over the keys of a row.
 */
#ifndef TSR_KERNEL_ATTENTION_FEATURES_H
#define TSR_KERNEL_ATTENTION_FEATURES_H

#include "backend/cpu/kernel/attention_score_f32.h"
#include "backend/cpu/vec_dropout.h"
#include "backend/cpu/vec_math.h"

static const float log2_e = 1.44269504f;
static const float never = -__builtin_inff();

typedef struct columns {
    int64_t lo, hi;
} columns;

/* The columns that row `row` sees through its window, empty as lo = hi. */
TSR_INLINE columns visible(const tsr_attention_rows *t, int64_t row)
{
    const tsr_attention_features *f = t->features;
    const int64_t at = row + f->lk - f->lq - t->key; /* the diagonal's column */
    int64_t lo = at - f->left, hi = at + f->right + 1;
    if (hi > f->lk - t->key) hi = f->lk - t->key;
    if (lo < t->begin) lo = t->begin;
    if (hi > t->end) hi = t->end;
    return lo < hi ? (columns){lo, hi} : (columns){t->begin, t->begin};
}

/* Lanes whose column, c + lane, lies in [lo, hi). */
TSR_INLINE vi32 within(int64_t c, columns seen)
{
    const int64_t before = seen.lo - c, after = seen.hi - c;
    const vi32 lane = vi32_iota();
    return (lane >= vi32_splat((int32_t)(before > 0 ? before : 0))) &
           (lane < vi32_splat((int32_t)(after < VL ? after : VL)));
}

/* n lanes of a row of bias or mask, those beyond as 0; n is all that may be read. */
TSR_INLINE vf32 load_bias(const tsr_attention_features *f, int64_t at, int64_t n)
{
    if (f->bias_col == 1 && n == VL) return vf32_load_as(f->bias, f->bias_dtype, at);
    if (f->bias_col == 1) return vf32_load_as_n(f->bias, f->bias_dtype, at, n);
    float t[VL] = {0};
    for (int64_t i = 0; i < n; i++) {
        const int64_t k = at + i * f->bias_col;
        t[i] = f->bias_dtype == TSR_F32    ? ((const float *)f->bias)[k]
               : f->bias_dtype == TSR_BF16 ? tsr_f32_from_bf16(((const uint16_t *)f->bias)[k])
                                           : tsr_f32_from_f16(((const uint16_t *)f->bias)[k]);
    }
    return vf32_load(t);
}

TSR_INLINE vi32 load_mask(const tsr_attention_features *f, int64_t at, int64_t n)
{
    vi32 seen = {0};
    int32_t t[VL] = {0};
    if (n == VL && f->mask_col == 1)
        for (int i = 0; i < VL; i++) t[i] = f->mask[at + i];
    else
        for (int64_t i = 0; i < n; i++) t[i] = f->mask[at + i * f->mask_col];
    memcpy(&seen, t, sizeof seen);
    return seen != 0;
}

/*
 * Scores of columns c .. c + VL of a row, from products times alpha; -Inf where hidden. tanh is left for the
 * backward.
 */
TSR_INLINE vf32 score(const tsr_attention_rows *t, vf32 x, int64_t row, int64_t c, columns seen, vf32 *tanh)
{
    const tsr_attention_features *f = t->features;
    const int64_t key = t->key + c;
    const int64_t left = seen.hi - c, n = left < 0 ? 0 : left < VL ? left : VL;
    if (f->cap != 0) {
        *tanh = vf32_tanh(x);
        x = *tanh * f->cap;
    }
    if (f->slope != 0) {
        const vi32 distance = vi32_splat((int32_t)(row + f->lk - f->lq - key)) - vi32_iota();
        x -= vf32_abs(__builtin_convertvector(distance, vf32)) * f->slope;
    }
    if (f->bias != NULL) x += load_bias(f, row * f->bias_row + key * f->bias_col, n) * log2_e;
    vi32 shown = within(c, seen);
    if (f->mask != NULL) shown &= load_mask(f, row * f->mask_row + key * f->mask_col, n);
    return vf32_select(shown, x, vf32_splat(never));
}

/*
 * What dropout multiplies columns c .. c + VL by, `kept` those that stay; `words` are those of 4 VL columns,
 * made at first use.
 */
TSR_INLINE vf32 dropout(const tsr_attention_rows *t, int64_t row, int64_t c, int64_t first, float kept,
                        vu32 words[4])
{
    const tsr_attention_features *f = t->features;
    if (c == first || c % (4 * VL) == 0)
        vu32_dropout_words(words, f->seed, f->offset, f->head, (uint32_t)row,
                           (uint32_t)(t->key + c / (4 * VL) * (4 * VL)));
    const vi32 keep = (vi32)(words[c / VL % 4] >= vu32_splat(f->drop_below));
    return vf32_select(keep, vf32_splat(kept), vf32_splat(0));
}

/* True if nothing but a window and a factor is asked for. */
TSR_INLINE bool is_plain(const tsr_attention_features *f)
{
    return f->cap == 0 && f->slope == 0 && f->bias == NULL && f->mask == NULL && !f->dropout;
}

#endif
