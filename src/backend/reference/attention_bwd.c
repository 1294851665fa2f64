/*
 * backend/reference/attention_bwd.c - gradients of attention, P recomputed from q, k and lse
 *
 *     P = exp(S - lse)     dP = dropout(dO V^T)     delta = rowsum(dO * O)     dS = P * (dP - delta + dlse)
 *     dQ = scale dS K      dK = scale dS^T Q        dV = dropout(P)^T dO       dbias = sum dS
 *     dsink = sum exp(sink - lse) * (dlse - delta)
 *
 * softcap multiplies dS by its slope on the way to Q and K. dK and dV sum over the query heads of a group,
 * dbias over the dimensions that it broadcasts. A row that sees no key has gradients 0, whatever its dO.
 */
#include <string.h>

#include "backend/reference/attention.h"
#include "base/error.h"

/* Double sums over rows, heads and sequences; the workspace holds dq | dk | dv | dbias | dsinks. */
typedef struct ref_attention_sums {
    double *dq;       /* [d], of one row                                   */
    double *dk, *dv;  /* [lk, d] [lk, dv], of one head of k and v          */
    double *dsinks;   /* [hq]                                              */
    tsr_tensor dbias; /* dbias's shape in f64, strides of 0 where it is 1  */
} ref_attention_sums;

static int64_t n_dbias(const tsr_attention_bwd_args *args)
{
    return args->dbias.data == NULL ? 0 : tsr_tensor_numel(&args->dbias);
}

size_t ref_attention_bwd_workspace(const void *state, const tsr_attention_bwd_args *args)
{
    (void)state;
    const tsr_attention_fwd_args *fwd = &args->fwd;
    int64_t width, n;
    if (tsr_add_overflows(fwd->d, fwd->dv, &width) || tsr_mul_overflows(fwd->lk, width, &n) ||
        tsr_add_overflows(n, n_dbias(args), &n) || tsr_add_overflows(n, fwd->d + fwd->hq, &n) ||
        n > INT64_MAX / (int64_t)sizeof(double))
        return SIZE_MAX;
    return (size_t)n * sizeof(double);
}

static ref_attention_sums sums_in(double *workspace, const tsr_attention_bwd_args *args)
{
    const tsr_attention_fwd_args *fwd = &args->fwd;
    ref_attention_sums sums = {.dq = workspace, .dbias = args->dbias};
    sums.dk = sums.dq + fwd->d;
    sums.dv = sums.dk + fwd->lk * fwd->d;
    double *dbias = sums.dv + fwd->lk * fwd->dv;
    sums.dsinks = dbias + n_dbias(args);
    memset(dbias, 0, (size_t)(n_dbias(args) + fwd->hq) * sizeof(double));
    if (args->dbias.data == NULL) return sums;
    sums.dbias.data = dbias;
    sums.dbias.dtype = TSR_F64;
    int64_t stride = 1;
    for (int32_t d = 3; d >= 0; d--) {
        sums.dbias.stride[d] = args->dbias.shape[d] == 1 ? 0 : stride;
        stride *= args->dbias.shape[d];
    }
    return sums;
}

static void axpy(double *y, double a, const tsr_tensor *x, int64_t i, int64_t n)
{
    for (int64_t p = 0; p < n; p++) y[p] += a * ref_get(x, ref_at(x, i, p));
}

static void kv_axpy(double *y, double a, ref_kv_row row, int64_t n)
{
    for (int64_t p = 0; p < n; p++) y[p] += a * ref_kv_get(&row, p);
}

static bool sees_any(const ref_attention_head *x, int64_t i)
{
    for (int64_t j = 0; j < x->lk; j++)
        if (ref_sees(x, i, j)) return true;
    return false;
}

/* Adds row i's gradients to the sums; the row's own dq among them. */
static void backward_row(const ref_attention_head *x, const tsr_tensor *dout, double dlse, int64_t i,
                         const ref_attention_sums *sums)
{
    const int64_t d = x->args->d, dv = x->args->dv;
    const double lse = ref_get(&x->lse, i * x->lse.stride[0]);
    if (lse == -INFINITY) return; /* neither a key nor a sink has weight */
    const double delta = sees_any(x, i) ? ref_dot(&x->out, dout, i, dv) : 0;
    sums->dsinks[x->h] += exp(ref_sink(x) - lse) * (dlse - delta);
    const tsr_tensor dbias = ref_rows_of(&sums->dbias, x->b, x->h, 0);
    for (int64_t j = 0; j < x->lk; j++) {
        if (!ref_sees(x, i, j)) continue;
        double slope;
        const double p = exp(ref_score(x, i, j, &slope) - lse);
        const double factor = ref_dropout_factor(x, i, j);
        const double dp = factor * ref_kv_dot(dout, i, ref_v_row(x, j), dv); /* O = dropout(P) V */
        const double ds = p * (dp - delta + dlse);      /* P = softmax(S), lse           */
        const double dqk = x->args->scale * slope * ds; /* S = softcap(scale Q K^T) + .. */
        kv_axpy(sums->dq, dqk, ref_k_row(x, j), d);
        axpy(sums->dk + j * d, dqk, &x->q, i, d);
        axpy(sums->dv + j * dv, factor * p, dout, i, dv);
        if (dbias.data != NULL) ((double *)dbias.data)[ref_at(&dbias, i, j)] += ds;
    }
}

/* Row i of a view [rows, n], if it is wanted. */
static void store_row(const tsr_tensor *t, int64_t i, const double *from, int64_t n)
{
    if (t->data == NULL) return;
    for (int64_t p = 0; p < n; p++) ref_set(t, ref_at(t, i, p), from[p]);
}

/* All rows of one query head: dq is written, the rest summed. */
static void backward_head(const tsr_attention_bwd_args *args, int64_t b, int64_t h,
                          const ref_attention_sums *sums)
{
    const tsr_attention_fwd_args *fwd = &args->fwd;
    const ref_attention_head x = ref_head_of(fwd, b, h);
    const tsr_tensor dout = ref_rows_of(&args->dout, x.batch, h, x.q_row);
    const tsr_tensor dlse = ref_rows_of(&args->dlse, x.batch, h, x.q_row);
    const tsr_tensor dq = ref_rows_of(&args->dq, x.batch, h, x.q_row);
    const bool packed = fwd->cu_seqlens_q.data != NULL;
    const int64_t n_rows = packed ? x.lq : fwd->lq; /* those beyond the used length get 0 */
    for (int64_t i = 0; i < n_rows; i++) {
        memset(sums->dq, 0, (size_t)fwd->d * sizeof(double));
        const double dlse_i = dlse.data != NULL && i < x.lq ? ref_get(&dlse, i * dlse.stride[0]) : 0;
        if (i < x.lq) backward_row(&x, &dout, dlse_i, i, sums);
        store_row(&dq, i, sums->dq, fwd->d);
    }
}

/* The query heads that share one head of k and v. */
static void backward_group(const tsr_attention_bwd_args *args, int64_t b, int64_t h_kv,
                           const ref_attention_sums *sums)
{
    const tsr_attention_fwd_args *fwd = &args->fwd;
    const int64_t group = fwd->hq / fwd->hkv;
    memset(sums->dk, 0, (size_t)(fwd->lk * (fwd->d + fwd->dv)) * sizeof(double));
    for (int64_t h = h_kv * group; h < (h_kv + 1) * group; h++) backward_head(args, b, h, sums);

    const ref_attention_head x = ref_head_of(fwd, b, h_kv * group);
    const tsr_tensor dk = ref_rows_of(&args->dk, x.kv_batch, h_kv, x.k_row);
    const tsr_tensor dv = ref_rows_of(&args->dv, x.kv_batch, h_kv, x.k_row);
    const int64_t n_rows = fwd->cu_seqlens_k.data != NULL ? x.lk : fwd->lk;
    for (int64_t j = 0; j < n_rows; j++) {
        store_row(&dk, j, sums->dk + j * fwd->d, fwd->d);
        store_row(&dv, j, sums->dv + j * fwd->dv, fwd->dv);
    }
}

tsr_status ref_attention_bwd(void *state, const tsr_attention_bwd_args *args, void *workspace)
{
    (void)state;
    TSR_TRY(tsr_check_attention_lengths(&args->fwd));
    const ref_attention_sums sums = sums_in(workspace, args);
    for (int64_t b = 0; b < args->fwd.b; b++)
        for (int64_t h_kv = 0; h_kv < args->fwd.hkv; h_kv++) backward_group(args, b, h_kv, &sums);

    for (int64_t i = 0; i < n_dbias(args); i++)
        ref_set(&args->dbias, ref_offset(&args->dbias, 4, i), ((const double *)sums.dbias.data)[i]);
    for (int64_t h = 0; args->dsinks.data != NULL && h < args->fwd.hq; h++)
        ref_set(&args->dsinks, h * args->dsinks.stride[0], sums.dsinks[h]);
    return TSR_OK;
}
