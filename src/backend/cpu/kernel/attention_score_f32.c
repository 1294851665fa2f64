/*
 * attention_score_f32.c - what attention does to a tile of scores between its products
 *
 * Compiled once per instruction set; VL lanes over the keys of a row.
 *
 *     forward, per row     top = max s;  top > m + 8:  o, l *= 2^(m - top),  m = top    (bf16: for each step
 *                          of two vectors, P of those before likewise)
 *                          p = 2^(s - m);  l += sum p;  p *= keep ? 1 / (1 - dropout) : 0
 *     backward, per row    p = 2^(s - lse);  g = dp * (keep ? 1 / (1 - dropout) : 0)
 *                          dS = p (g - delta) (1 - tanh^2);  p as above
 *
 *     columns   begin        lo             hi          end      [lo, hi): what the window lets the row see
 *               | 0 0 0 0 |. . x x|x x x x|x x . .| 0 0 0 |      . within a vector: -Inf first
 *
 * Plain attention takes the path without features, where a vector costs a maximum in the first pass, and in
 * the second the exponential (about 12 instructions, for bf16 8), a sum and a store.
 */
#include "backend/cpu/kernel/attention_score_f32.h"

#include "backend/cpu/kernel/attention_features.h"
#include "backend/cpu/vec_bf16.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

/* How far a row's maximum may grow in powers of two before the row is scaled anew. */
static const float lag = 8;

/* Elements [from, to) of a row become 0. */
static void fill_zero(void *row, size_t size, int64_t from, int64_t to)
{
    if (from < to) memset((char *)row + (size_t)from * size, 0, (size_t)(to - from) * size);
}

/* Elements that do not lie side by side. */
static void store_apart(void *dst, tsr_dtype dtype, int64_t stride, const float *src, int64_t n, float factor)
{
    for (int64_t j = 0; j < n; j++) {
        const float x = src[j] * factor;
        if (dtype == TSR_F32)
            ((float *)dst)[j * stride] = x;
        else
            ((uint16_t *)dst)[j * stride] = dtype == TSR_BF16 ? tsr_bf16_from_f32(x) : tsr_f16_from_f32(x);
    }
}

static void store(void *dst, tsr_dtype dtype, int64_t stride, const float *src, int64_t n, float factor)
{
    if (stride != 1) {
        store_apart(dst, dtype, stride, src, n, factor);
        return;
    }
    int64_t j = 0;
    for (; dtype == TSR_BF16 && j + 2 * VL <= n; j += 2 * VL)
        bf16_from_two_vf32((uint16_t *)dst + j, vf32_load(src + j) * factor,
                           vf32_load(src + j + VL) * factor);
    for (; j + VL <= n; j += VL) vf32_store_as(dst, dtype, j, vf32_load(src + j) * factor);
    if (j < n) vf32_store_as_n(dst, dtype, j, vf32_load_n(src + j, n - j) * factor, n - j);
}

/* Raises the row's m to `top` and brings what was relative to the old m along: P of the columns before `done`
 * too, if it is of bf16. */
static void raise_maximum(const tsr_attention_rows *t, int64_t r, float top, float *m, float *l, float *o,
                          int64_t dv, int64_t done)
{
    if (*m != never) { /* else l = 0 and o = 0 */
        float factor[VL];
        vf32_store(factor, vf32_exp2(vf32_splat(*m - top)));
        store(l, TSR_F32, 1, l, t->to_bf16 ? VL : 1, factor[0]);
        store(o, TSR_F32, 1, o, dv, factor[0]);
        for (int64_t c = t->begin - t->p_before; t->to_bf16 && c < done; c++) {
            uint16_t *p = t->p + r * t->p_stride + c;
            *p = tsr_bf16_from_f32(tsr_f32_from_bf16(*p) * factor[0]);
        }
    }
    *m = top;
}

/* How much a path of its own may take for granted; the last two give the same bits. */
typedef enum score_path {
    FEATURED, /* nothing */
    PLAIN,    /* only a window hides, and alpha > 0: the largest product is the largest score */
    WHOLE,    /* plain, and every row sees all of [begin, end), which are whole steps */
} score_path;

/* Columns that are worked on together: P in bf16 is made of two vectors. */
TSR_INLINE int64_t step_of(const bool to_bf16) { return to_bf16 ? 2 * VL : VL; }
TSR_INLINE int64_t first_step(columns seen, int64_t step) { return seen.lo & -step; }
TSR_INLINE int64_t last_step(columns seen, int64_t step) { return (seen.hi + step - 1) & -step; }

/*
 * Scores nearer than TSR_ATTENTION_FAR are scaled and set against the maximum in one multiply-add, whose sum
 * the maximum's own rounding can lift above 0 by 2^-19 at most: less than what the product has already lost.
 * Larger ones are rounded as their maximum was, lest that grow without end, and P = 1 come back from lse as
 * something else.
 *
 * Plain products of a row in [first, last) times what they lack, where their maximum is far from 0; what
 * they lack then.
 */
static float scale_far(const tsr_attention_rows *t, float *s, int64_t first, int64_t last, float max)
{
    if (__builtin_fabsf(max) < TSR_ATTENTION_FAR) return t->alpha;
    for (int64_t c = first; c < last; c += VL) vf32_store(s + c, vf32_load(s + c) * t->alpha);
    return 1;
}

static bool is_windowed(const tsr_attention_rows *t, int64_t whole[2])
{
    if (!is_plain(t->features) || t->alpha <= 0) return false;
    const columns first = visible(t, t->row), last = visible(t, t->row + t->n_rows - 1);
    whole[0] = last.lo > first.lo ? last.lo : first.lo;
    whole[1] = last.hi < first.hi ? last.hi : first.hi;
    return true;
}

static void hide(const tsr_attention_rows *t, float *x, int64_t stride, float value)
{
    for (int64_t r = 0; r < t->n_rows; r++, x += stride) {
        const columns seen = visible(t, t->row + r);
        for (int64_t c = t->begin; c < t->end; c += VL)
            vf32_store(x + c, vf32_select(within(c, seen), vf32_load(x + c), vf32_splat(value)));
    }
}

static score_path path_of(const tsr_attention_rows *t)
{
    int64_t whole[2];
    if (!is_windowed(t, whole)) return FEATURED;
    const bool is_whole = whole[0] == t->begin && whole[1] == t->end;
    return is_whole && (t->end - t->begin) % step_of(t->to_bf16) == 0 ? WHOLE : PLAIN;
}

/* First pass: features; the row's maximum. Plain scores stay as they are, not yet times alpha. */
TSR_INLINE float forward_maximum(const tsr_attention_rows *t, int64_t r, columns seen, const score_path path,
                                 const bool to_bf16)
{
    const int64_t row = t->row + r, last = last_step(seen, step_of(to_bf16));
    float *s = t->s + r * t->s_stride;
    vf32 top = vf32_splat(never), unused;
    UNROLL_BY_4
    for (int64_t c = first_step(seen, step_of(to_bf16)); c < last; c += VL) {
        vf32 x = vf32_load(s + c);
        if (path == FEATURED) {
            x = score(t, vf32_rounded(x * t->alpha), row, c, seen, &unused);
            vf32_store(s + c, x);
        } else if (path == PLAIN && (c < seen.lo || c + VL > seen.hi)) {
            x = vf32_select(within(c, seen), x, vf32_splat(never));
            vf32_store(s + c, x);
        }
        top = vf32_max(x, top);
    }
    const float max = vf32_max_lane(top);
    return path == FEATURED ? max : max * t->alpha;
}

/* Second pass: P in `steps`, whole ones, and what it adds to l. */
TSR_INLINE void forward_exponentials(const tsr_attention_rows *t, int64_t r, columns steps,
                                     const score_path path, const bool to_bf16, float m, float *l)
{
    float *s = t->s + r * t->s_stride;
    uint16_t *p_bf16 = to_bf16 ? t->p + r * t->p_stride : NULL; /* in place never ahead of what is read */
    const int64_t step = step_of(to_bf16);
    /* All hidden so far: 2^(-Inf - 0) = 0. A score beyond f32's range: NaN, also where the product is within.
     */
    const float base = m == never ? 0 : m == -never ? __builtin_nanf("") : m;
    const float alpha = path == FEATURED ? 1 : scale_far(t, s, steps.lo, steps.hi, base);
    const float kept = to_bf16 ? 1 : t->features->keep_scale;
    vf32 sum = to_bf16 ? vf32_load(l) : vf32_splat(0);
    vu32 words[4];
    UNROLL_BY_4
    for (int64_t c = steps.lo; c < steps.hi; c += step) {
        vf32 p[2];
        UNROLL for (int i = 0; i < step / VL; i++)
        {
            const vf32 x = vf32_multiply_subtract(vf32_load(s + c + i * VL), vf32_splat(alpha),
                                                  vf32_splat(base));
            p[i] = to_bf16 ? vf32_exp2_for_bf16(x) : vf32_exp2_below_127(x);
            sum += p[i];
        }
        if (path == FEATURED && t->features->dropout) {
            UNROLL for (int i = 0; i < step / VL; i++)
                p[i] *= dropout(t, t->row + r, c + i * VL, steps.lo, kept, words);
        }
        if (to_bf16)
            vu32_store_up_to(p_bf16 + c, vu32_pairs_from_vf32(p[0], p[1]), VL);
        else
            vf32_store(s + c, p[0]);
    }
    if (to_bf16)
        vf32_store(l, sum);
    else
        *l += vf32_sum(sum);
}

/* Second pass over a row whose m is to rise, which it does before the step that asks for it. */
static void forward_rising(const tsr_attention_rows *t, int64_t r, columns steps, const score_path path,
                           float *m, float *l, float *o, int64_t dv)
{
    const float *s = t->s + r * t->s_stride;
    for (int64_t c = steps.lo; c < steps.hi; c += 2 * VL) {
        const float max = vf32_max_lane(vf32_max(vf32_load(s + c), vf32_load(s + c + VL)));
        const float top = path == FEATURED ? max : max * t->alpha;
        if (top > *m + lag) raise_maximum(t, r, top, m, l, o, dv, c);
        forward_exponentials(t, r, (columns){c, c + 2 * VL}, path, true, *m, l);
    }
}

/* Pass by pass over several rows, so that one row's dependent instructions run beside another's. */
TSR_INLINE void forward_rows_as(const tsr_attention_rows *t, const score_path path, const bool to_bf16,
                                float *m, float *l, float *o, int64_t o_stride, int64_t dv)
{
    enum { AT_ONCE = 16 };
    const int64_t step = step_of(to_bf16), l_row = to_bf16 ? VL : 1;
    columns steps[AT_ONCE];
    float top[AT_ONCE];
    for (int64_t r = 0; r < t->n_rows; r += AT_ONCE) {
        const int64_t n = t->n_rows - r < AT_ONCE ? t->n_rows - r : AT_ONCE;
        for (int64_t i = 0; i < n; i++) {
            const columns seen = path == WHOLE ? (columns){t->begin, t->end} : visible(t, t->row + r + i);
            top[i] = forward_maximum(t, r + i, seen, path, to_bf16);
            steps[i] = (columns){first_step(seen, step), last_step(seen, step)};
        }
        for (int64_t i = 0; i < n && !to_bf16; i++)
            if (top[i] > m[r + i] + lag)
                raise_maximum(t, r + i, top[i], m + r + i, l + r + i, o + (r + i) * o_stride, dv, 0);
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = r + i;
            float *sum = l + row * l_row;
            void *p = to_bf16 ? (void *)(t->p + row * t->p_stride) : (void *)(t->s + row * t->s_stride);
            const size_t size = to_bf16 ? sizeof(uint16_t) : sizeof(float);
            fill_zero(p, size, t->begin, steps[i].lo);
            if (to_bf16 && top[i] > m[row] + lag)
                forward_rising(t, row, steps[i], path, m + row, sum, o + row * o_stride, dv);
            else
                forward_exponentials(t, row, steps[i], path, to_bf16, m[row], sum);
            fill_zero(p, size, steps[i].hi, to_bf16 ? (t->end + 31) & -32 : t->end);
        }
    }
}

TSR_INLINE void forward_rows(const tsr_attention_rows *t, const score_path path, float *m, float *l, float *o,
                             int64_t o_stride, int64_t dv)
{
    if (t->to_bf16)
        forward_rows_as(t, path, true, m, l, o, o_stride, dv);
    else
        forward_rows_as(t, path, false, m, l, o, o_stride, dv);
}

static void forward(const tsr_attention_rows *t, float *m, float *l, float *o, int64_t o_stride, int64_t dv)
{
    switch (path_of(t)) {
    case WHOLE: forward_rows(t, WHOLE, m, l, o, o_stride, dv); break;
    case PLAIN: forward_rows(t, PLAIN, m, l, o, o_stride, dv); break;
    case FEATURED: forward_rows(t, FEATURED, m, l, o, o_stride, dv); break;
    }
}

/* l of n rows from r on, VL at most. */
static void sums_of_rows(const tsr_attention_outputs *t, int64_t r, int64_t n, float *sums)
{
    if (t->l_row == 1) {
        memcpy(sums, t->l + r, (size_t)n * sizeof *sums);
        return;
    }
    vf32 lanes[VL];
    for (int64_t i = 0; i < VL; i++) lanes[i] = i < n ? vf32_load(t->l + (r + i) * VL) : vf32_splat(0);
    vf32_store(sums, vf32_sums(lanes));
}

static void finish(const tsr_attention_outputs *t)
{
    const int64_t size = t->dtype == TSR_F32 ? 4 : 2;
    float sums[VL];
    for (int64_t r = 0; r < t->n_rows; r++) {
        if (r % VL == 0) sums_of_rows(t, r, t->n_rows - r < VL ? t->n_rows - r : VL, sums);
        const float l = sums[r % VL];
        char *out = (char *)t->out + r * t->out_row * size;
        if (l != 0)
            store(out, t->dtype, t->out_col, t->o + r * t->o_stride, t->dv, t->kept / l);
        else if (t->out_col == 1)
            memset(out, 0, (size_t)(t->dv * size));
        else
            for (int64_t j = 0; j < t->dv; j++) memset(out + j * t->out_col * size, 0, (size_t)size);
        if (t->lse != NULL)
            t->lse[r * t->lse_row] = l == 0 ? never : t->m[r] * 0.693147181f + __builtin_logf(l);
    }
}

TSR_INLINE void backward_row(const tsr_attention_rows *t, int64_t r, const score_path path,
                             const bool to_bf16, columns seen, float lse, float delta, float *dp,
                             float *dbias)
{
    const tsr_attention_features *f = t->features;
    const int64_t row = t->row + r, step = step_of(to_bf16);
    const int64_t first = first_step(seen, step), last = last_step(seen, step);
    const float base = (float)((double)lse * 1.4426950408889634);
    float *s = t->s + r * t->s_stride;
    const float alpha = path == FEATURED ? t->alpha : scale_far(t, s, first, last, base);
    vu32 words[4];
    UNROLL_BY_4
    for (int64_t c0 = first; c0 < last; c0 += step) {
        vf32 p[2], ds[2];
        UNROLL for (int i = 0; i < step / VL; i++)
        {
            const int64_t c = c0 + i * VL;
            vf32 x = vf32_load(s + c), g = vf32_load(dp + c), tanh = vf32_splat(0);
            const bool edge = path == FEATURED || (path == PLAIN && (c < seen.lo || c + VL > seen.hi));
            vi32 shown = vi32_splat(-1);
            if (path == FEATURED) {
                x = score(t, vf32_rounded(x * alpha), row, c, seen, &tanh);
                shown = x != never; /* a visible score of -Inf has p = 0 as well */
                x = x - base;
            } else {
                x = vf32_multiply_subtract(x, vf32_splat(alpha), vf32_splat(base));
                if (edge) shown = within(c, seen);
            }
            /* lse may be a rounding away from a large score */
            p[i] = to_bf16 ? vf32_exp2_for_bf16(x) : vf32_exp2(x);
            if (edge) p[i] = vf32_select(shown, p[i], vf32_splat(0)); /* where lse is NaN, p is as well */
            vf32 kept = vf32_splat(1);
            if (path == FEATURED && f->dropout) {
                kept = dropout(t, row, c, first, f->keep_scale, words);
                g *= kept;
            }
            ds[i] = p[i] * (g - delta);
            if (edge) ds[i] = vf32_select(shown, ds[i], vf32_splat(0));
            if (dbias != NULL) vf32_store(dbias + c, ds[i]);
            if (path == FEATURED && f->cap != 0)
                ds[i] = vf32_select(shown, ds[i] * (1 - tanh * tanh), vf32_splat(0));
            if (path == FEATURED && f->dropout)
                p[i] *= to_bf16 ? vf32_select(kept != 0, vf32_splat(1), kept) : kept;
        }
        if (to_bf16) {
            vu32_store_up_to((uint16_t *)(void *)s + c0, vu32_pairs_from_vf32(p[0], p[1]), VL);
            vu32_store_up_to((uint16_t *)(void *)dp + c0, vu32_pairs_from_vf32(ds[0], ds[1]), VL);
        } else {
            vf32_store(s + c0, p[0]);
            if (dbias != dp) vf32_store(dp + c0, ds[0]);
        }
    }
}

TSR_INLINE void backward_rows_as(const tsr_attention_rows *t, const score_path path, const bool to_bf16,
                                 int64_t width, const float *lse, const float *delta, float *dp, float *dbias,
                                 int64_t dp_stride)
{
    const size_t size = to_bf16 ? sizeof(uint16_t) : sizeof(float);
    for (int64_t r = 0; r < t->n_rows; r++) {
        columns seen = visible(t, t->row + r);
        if (lse[r] == never) seen = (columns){t->begin, t->begin};
        float *s = t->s + r * t->s_stride, *g = dp + r * dp_stride;
        float *const db = dbias == NULL ? NULL : dbias + r * dp_stride;
        backward_row(t, r, path, to_bf16, seen, lse[r], delta[r], g, db);
        const int64_t from = first_step(seen, step_of(to_bf16)), to = last_step(seen, step_of(to_bf16));
        float *const tiles[3] = {s, g, db};
        for (int i = 0; i < 3; i++) {
            if (tiles[i] == NULL) continue;
            fill_zero(tiles[i], size, 0, from);
            fill_zero(tiles[i], size, to, width);
        }
    }
}

TSR_INLINE void backward_rows(const tsr_attention_rows *t, const score_path path, int64_t width,
                              const float *lse, const float *delta, float *dp, float *dbias,
                              int64_t dp_stride)
{
    if (t->to_bf16)
        backward_rows_as(t, path, true, width, lse, delta, dp, dbias, dp_stride);
    else
        backward_rows_as(t, path, false, width, lse, delta, dp, dbias, dp_stride);
}

static void backward(const tsr_attention_rows *t, int64_t width, const float *lse, const float *delta,
                     float *dp, float *dbias, int64_t dp_stride)
{
    const score_path path = dbias == NULL ? path_of(t) : FEATURED;
    switch (path) {
    case WHOLE: backward_rows(t, WHOLE, width, lse, delta, dp, NULL, dp_stride); break;
    case PLAIN: backward_rows(t, PLAIN, width, lse, delta, dp, NULL, dp_stride); break;
    case FEATURED: backward_rows(t, FEATURED, width, lse, delta, dp, dbias, dp_stride); break;
    }
}

static float dot(const float *a, const float *b, int64_t n)
{
    vf32 sum = vf32_splat(0);
    int64_t j = 0;
    for (; j + VL <= n; j += VL) sum += vf32_load(a + j) * vf32_load(b + j);
    if (j < n) sum += vf32_load_n(a + j, n - j) * vf32_load_n(b + j, n - j);
    return vf32_sum(sum);
}

static bool finite(const float *x, int64_t stride, int64_t n_rows, int64_t n)
{
    vf32 sum = vf32_splat(0); /* 0 times Inf or NaN is NaN, which stays */
    for (int64_t i = 0; i < n_rows; i++, x += stride) {
        int64_t j = 0;
        for (; j + VL <= n; j += VL) sum += vf32_load(x + j) * 0.0f;
        if (j < n) sum += vf32_load_n(x + j, n - j) * 0.0f;
    }
    return vf32_sum(sum) == 0;
}

static bool finite_bf16(const void *x, int64_t n)
{
    vf32 sum = vf32_splat(0);
    for (int64_t j = 0; j < n; j += VL) {
        const vu32 pairs = vu32_load_up_to((const uint32_t *)x + j, n - j);
        sum += vf32_bf16_even(pairs) * 0.0f + vf32_bf16_odd(pairs) * 0.0f;
    }
    return vf32_sum(sum) == 0;
}

const tsr_attention_score_f32_kernel TSR_NAME(tsr_attention_score_f32) = {
    .name = "attention_score_f32_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .forward = forward,
    .backward = backward,
    .finish = finish,
    .store = store,
    .dot = dot,
    .finite = finite,
    .finite_bf16 = finite_bf16,
    .is_windowed = is_windowed,
    .hide = hide,
};
