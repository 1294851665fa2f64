/*
 * backend/reference/attention_fwd.c - O = dropout(P) V,  P = softmax(S),  lse = log sum_j exp(S_j)
 *
 * S = features(scale Q K^T). Shapes of one head: q [lq, d]  k [lk, d]  v [lk, dv]  out [lq, dv]  lse [lq].
 * Rows beyond a sequence's used length get out = 0 and lse = -inf.
 */
#include "backend/reference/attention.h"
#include "base/error.h"

/* The workspace: one row of S, then of P. */
size_t ref_attention_fwd_workspace(const void *state, const tsr_attention_fwd_args *args)
{
    (void)state;
    const size_t lk = (size_t)args->lk;
    return lk > SIZE_MAX / sizeof(double) ? SIZE_MAX : lk * sizeof(double);
}

/* One row of P before dropout, entries of masked keys left as they were; returns its lse. */
static double softmax_row(const ref_attention_head *x, int64_t i, double *p)
{
    const double sink = ref_sink(x);
    double max = sink, slope;
    for (int64_t j = 0; j < x->lk; j++) {
        if (!ref_sees(x, i, j)) continue;
        p[j] = ref_score(x, i, j, &slope);
        if (p[j] > max || isnan(p[j])) max = p[j];
    }
    const double shift = max == -INFINITY ? 0 : max; /* exp(-inf - 0) = 0: an empty row, not NaN */
    double sum = exp(sink - shift);
    for (int64_t j = 0; j < x->lk; j++)
        if (ref_sees(x, i, j)) sum += p[j] = exp(p[j] - shift);
    const double norm = sum == 0 ? 0 : 1 / sum;
    for (int64_t j = 0; j < x->lk; j++)
        if (ref_sees(x, i, j)) p[j] *= norm;
    return shift + log(sum);
}

static void forward_row(const ref_attention_head *x, int64_t i, double *p)
{
    const double lse = softmax_row(x, i, p);
    if (x->lse.data != NULL) ref_set(&x->lse, i * x->lse.stride[0], lse);
    for (int64_t j = 0; j < x->lk; j++)
        if (ref_sees(x, i, j)) p[j] *= ref_dropout_factor(x, i, j);
    for (int64_t c = 0; c < x->args->dv; c++) {
        double sum = 0;
        for (int64_t j = 0; j < x->lk; j++)
            if (ref_sees(x, i, j)) {
                const ref_kv_row v = ref_v_row(x, j);
                sum += p[j] * ref_kv_get(&v, c);
            }
        ref_set(&x->out, ref_at(&x->out, i, c), sum);
    }
}

static void unused_row(const ref_attention_head *x, int64_t i)
{
    if (x->lse.data != NULL) ref_set(&x->lse, i * x->lse.stride[0], -INFINITY);
    for (int64_t c = 0; c < x->args->dv; c++) ref_set(&x->out, ref_at(&x->out, i, c), 0);
}

tsr_status ref_attention_fwd(void *state, const tsr_attention_fwd_args *args, void *workspace)
{
    (void)state;
    TSR_TRY(tsr_check_attention_lengths(args));
    const bool packed = args->cu_seqlens_q.data != NULL;
    for (int64_t b = 0; b < args->b; b++)
        for (int64_t h = 0; h < args->hq; h++) {
            const ref_attention_head x = ref_head_of(args, b, h);
            for (int64_t i = 0; i < x.lq; i++) forward_row(&x, i, workspace);
            for (int64_t i = x.lq; !packed && i < args->lq; i++) unused_row(&x, i);
        }
    return TSR_OK;
}
