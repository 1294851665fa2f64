/*
 * backend/reference/attention.h - what forward and backward ask alike: one head of one sequence
 *
 * Order on a score: scale, softcap, ALiBi and bias. Visibility is asked first, so that a masked key's
 * k, v and bias are never read.
 */
#ifndef TSR_REFERENCE_ATTENTION_H
#define TSR_REFERENCE_ATTENTION_H

#include <math.h>

#include "backend/indices.h"
#include "backend/reference/reference.h"
#include "tessera/random.h"

/* Head h of sequence b, lq queries and lk keys, their rows counted from where the sequence starts. */
typedef struct ref_attention_head {
    const tsr_attention_fwd_args *args;
    int64_t b, h, lq, lk;
    int64_t batch, kv_batch; /* b; packed: 0                                        */
    int64_t h_kv;            /* of k and v                                          */
    int64_t q_row, k_row;    /* the sequence's first row; not 0 only if it is packed  */
    tsr_tensor q;            /* [lq, d]                                               */
    tsr_tensor out, lse;     /* [lq, dv] [lq]                                         */
    tsr_tensor bias, mask;   /* [lq, lk]                                             */
} ref_attention_head;

/* Entry (b, h) of a view [b, h, rows ...], from `row` on; an absent view stays absent. */
static inline tsr_tensor ref_rows_of(const tsr_tensor *t, int64_t b, int64_t h, int64_t row)
{
    tsr_tensor rows = *t;
    if (t->data == NULL) return rows;
    rows.data = tsr_tensor_at(t, b * t->stride[0] + h * t->stride[1] + row * t->stride[2]);
    rows.rank = t->rank - 2;
    for (int32_t d = 0; d < rows.rank; d++)
        rows.shape[d] = t->shape[d + 2], rows.stride[d] = t->stride[d + 2];
    return rows;
}

static inline ref_attention_head ref_head_of(const tsr_attention_fwd_args *args, int64_t b, int64_t h)
{
    ref_attention_head x = {
        .args = args, .b = b, .h = h, .lq = args->lq, .lk = args->lk, .batch = b, .kv_batch = b};
    if (args->cu_seqlens_q.data != NULL) {
        x.batch = 0;
        x.q_row = tsr_index_at(&args->cu_seqlens_q, b);
        x.lq = tsr_index_at(&args->cu_seqlens_q, b + 1) - x.q_row;
    }
    if (args->cu_seqlens_k.data != NULL) {
        x.kv_batch = 0;
        x.k_row = tsr_index_at(&args->cu_seqlens_k, b);
        x.lk = tsr_index_at(&args->cu_seqlens_k, b + 1) - x.k_row;
    }
    if (args->seqlens_q.data != NULL) x.lq = tsr_index_at(&args->seqlens_q, b);
    if (args->seqlens_k.data != NULL) x.lk = tsr_index_at(&args->seqlens_k, b);
    x.h_kv = args->hq > 0 ? h / (args->hq / args->hkv) : h; /* k may have heads where q has none */
    x.q = ref_rows_of(&args->q, x.batch, h, x.q_row);
    x.out = ref_rows_of(&args->out, x.batch, h, x.q_row);
    x.lse = ref_rows_of(&args->lse, x.batch, h, x.q_row);
    x.bias = ref_rows_of(&args->bias, b, h, 0);
    x.mask = ref_rows_of(&args->mask, b, h, 0);
    return x;
}

/* Row j of k or v. */
typedef struct ref_kv_row {
    const tsr_tensor *t;
    int64_t at;    /* of its first element */
    double factor; /* of every element: 1, or int8's scale */
} ref_kv_row;

static inline ref_kv_row ref_kv_row_of(const ref_attention_head *x, const tsr_tensor *t,
                                       const tsr_tensor *scale, int64_t j)
{
    const tsr_tensor *table = &x->args->block_table;
    int64_t at[3] = {x->kv_batch, x->h_kv, x->k_row + j};
    if (table->data != NULL) {
        const int64_t page = t->shape[2];
        at[0] = tsr_page_at(table, x->b, j / page);
        at[2] = j % page;
    }
    ref_kv_row row = {.t = t, .factor = 1};
    for (int i = 0; i < 3; i++) row.at += at[i] * t->stride[i];
    if (scale->data == NULL) return row;
    row.factor = ref_get(scale,
                         at[0] * scale->stride[0] + at[1] * scale->stride[1] + at[2] * scale->stride[2]);
    return row;
}

static inline ref_kv_row ref_k_row(const ref_attention_head *x, int64_t j)
{
    return ref_kv_row_of(x, &x->args->k, &x->args->k_scale, j);
}
static inline ref_kv_row ref_v_row(const ref_attention_head *x, int64_t j)
{
    return ref_kv_row_of(x, &x->args->v, &x->args->v_scale, j);
}

static inline double ref_kv_get(const ref_kv_row *row, int64_t p)
{
    return row->factor * ref_get(row->t, row->at + p * row->t->stride[3]);
}

static inline int64_t ref_at(const tsr_tensor *t, int64_t i, int64_t j)
{
    return i * t->stride[0] + j * t->stride[1];
}

/* Row i of x times row i of y. */
static inline double ref_dot(const tsr_tensor *x, const tsr_tensor *y, int64_t i, int64_t n)
{
    double sum = 0;
    for (int64_t p = 0; p < n; p++) sum += ref_get(x, ref_at(x, i, p)) * ref_get(y, ref_at(y, i, p));
    return sum;
}

/* Row i of x times a row of k or v. */
static inline double ref_kv_dot(const tsr_tensor *x, int64_t i, ref_kv_row row, int64_t n)
{
    double sum = 0;
    for (int64_t p = 0; p < n; p++) sum += ref_get(x, ref_at(x, i, p)) * ref_kv_get(&row, p);
    return sum;
}

/* Is key j visible to query i? */
static inline bool ref_sees(const ref_attention_head *x, int64_t i, int64_t j)
{
    const int64_t ahead = j - (i + x->lk - x->lq); /* of the diagonal */
    if (x->args->window_left >= 0 && ahead < -x->args->window_left) return false;
    if (x->args->window_right >= 0 && ahead > x->args->window_right) return false;
    return x->mask.data == NULL || ref_get(&x->mask, ref_at(&x->mask, i, j)) != 0;
}

/* The score of a visible key; *slope is its derivative by scale * q . k (softcap's). */
static inline double ref_score(const ref_attention_head *x, int64_t i, int64_t j, double *slope)
{
    const tsr_attention_fwd_args *args = x->args;
    double s = args->scale * ref_kv_dot(&x->q, i, ref_k_row(x, j), args->d);
    *slope = 1;
    if (args->softcap > 0) {
        const double t = tanh(s / args->softcap);
        s = args->softcap * t;
        *slope = 1 - t * t;
    }
    if (args->alibi.data != NULL)
        s -= ref_get(&args->alibi, x->h * args->alibi.stride[0]) * fabs((double)(i + x->lk - x->lq - j));
    if (x->bias.data != NULL) s += ref_get(&x->bias, ref_at(&x->bias, i, j));
    return s;
}

/* What dropout multiplies the probability by. */
static inline double ref_dropout_factor(const ref_attention_head *x, int64_t i, int64_t j)
{
    const tsr_attention_fwd_args *args = x->args;
    if (args->dropout_p == 0) return 1;
    const int keep = tsr_dropout_keep(args->dropout_seed, args->dropout_offset,
                                      (uint32_t)(x->b * args->hq + x->h), (uint32_t)i, (uint32_t)j,
                                      args->dropout_p);
    return keep ? 1 / (1 - (double)args->dropout_p) : 0;
}

/* The head's sink; -inf, which weighs nothing, if there is none. */
static inline double ref_sink(const ref_attention_head *x)
{
    const tsr_tensor *sinks = &x->args->sinks;
    return sinks->data == NULL ? -INFINITY : ref_get(sinks, x->h * sinks->stride[0]);
}

#endif
