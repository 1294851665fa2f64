/*
 * backend/reference/cross_entropy.c - cross-entropy of x @ w^T
 *
 *     loss = mean over rows with target != ignore_index of  lse(logits) - logits[target]
 *     dlogits = (softmax(logits) - onehot) * dloss / n_valid      dx = dlogits @ w      dw = dlogits^T @ x
 *
 * Shapes: x [N, n]  w [V, n]  targets [N]  lse [N]. An ignored row has an lse too, and gradient 0.
 */
#include <math.h>
#include <string.h>

#include "backend/indices.h"
#include "backend/reference/reference.h"
#include "base/error.h"

static double logit_of(const tsr_tensor *x, int64_t row, const tsr_tensor *w, int64_t v)
{
    double sum = 0;
    for (int64_t j = 0; j < x->shape[1]; j++)
        sum += ref_get(x, row * x->stride[0] + j * x->stride[1]) *
               ref_get(w, v * w->stride[0] + j * w->stride[1]);
    return sum;
}

/* The workspace: the logits of one row. */
size_t ref_linear_cross_entropy_fwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_fwd_args *args)
{
    (void)state;
    const size_t n = (size_t)args->w.shape[0];
    return n > SIZE_MAX / sizeof(double) ? SIZE_MAX : n * sizeof(double);
}

static double lse_of_row(const tsr_tensor *x, int64_t row, const tsr_tensor *w, double *logits)
{
    const int64_t n_words = w->shape[0];
    double max = -INFINITY, sum = 0;
    for (int64_t v = 0; v < n_words; v++) {
        logits[v] = logit_of(x, row, w, v);
        if (logits[v] > max || isnan(logits[v])) max = logits[v];
    }
    const double shift = max == -INFINITY ? 0 : max;
    for (int64_t v = 0; v < n_words; v++) sum += exp(logits[v] - shift);
    return shift + log(sum);
}

tsr_status ref_linear_cross_entropy_fwd(void *state, const tsr_linear_cross_entropy_fwd_args *args,
                                        void *workspace)
{
    (void)state;
    const tsr_tensor *x = &args->x, *w = &args->w, *lse_t = &args->lse;
    double *logits = workspace, sum = 0;
    int64_t n_valid = 0;
    TSR_TRY(tsr_check_ids(&args->targets, w->shape[0], &args->ignore_index, "targets"));
    for (int64_t row = 0; row < x->shape[0]; row++) {
        const double lse = lse_of_row(x, row, w, logits);
        if (lse_t->data != NULL) ref_set(lse_t, row * lse_t->stride[0], lse);
        const int32_t target = tsr_index_at(&args->targets, row);
        if (target == args->ignore_index) continue;
        sum += lse - logits[target];
        n_valid++;
    }
    ref_set(&args->loss, 0, n_valid == 0 ? 0 : sum / (double)n_valid);
    return TSR_OK;
}

/* The workspace: one row of dx or of dw. */
size_t ref_linear_cross_entropy_bwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_bwd_args *args)
{
    (void)state;
    const size_t n = (size_t)args->x.shape[1];
    return n > SIZE_MAX / sizeof(double) ? SIZE_MAX : n * sizeof(double);
}

static int64_t count_valid(const tsr_linear_cross_entropy_bwd_args *args)
{
    int64_t n = 0;
    for (int64_t row = 0; row < args->x.shape[0]; row++)
        n += tsr_index_at(&args->targets, row) != args->ignore_index;
    return n;
}

/* dlogits[row, v] of a row that is not ignored; scale = dloss / n_valid. */
static double dlogit_of(const tsr_linear_cross_entropy_bwd_args *args, int64_t row, int64_t v, double scale)
{
    const double lse = ref_get(&args->lse, row * args->lse.stride[0]);
    const double p = exp(logit_of(&args->x, row, &args->w, v) - lse);
    return (p - (v == tsr_index_at(&args->targets, row))) * scale;
}

static void axpy(double *y, double a, const tsr_tensor *x, int64_t row)
{
    for (int64_t j = 0; j < x->shape[1]; j++) y[j] += a * ref_get(x, row * x->stride[0] + j * x->stride[1]);
}

static void write_dx(const tsr_linear_cross_entropy_bwd_args *args, double scale, double *sum)
{
    const tsr_tensor *dx = &args->dx;
    for (int64_t row = 0; row < dx->shape[0]; row++) {
        memset(sum, 0, (size_t)dx->shape[1] * sizeof(double));
        const bool ignored = tsr_index_at(&args->targets, row) == args->ignore_index;
        for (int64_t v = 0; v < args->w.shape[0] && !ignored; v++)
            axpy(sum, dlogit_of(args, row, v, scale), &args->w, v);
        for (int64_t j = 0; j < dx->shape[1]; j++)
            ref_set(dx, row * dx->stride[0] + j * dx->stride[1], sum[j]);
    }
}

static void write_dw(const tsr_linear_cross_entropy_bwd_args *args, double scale, double *sum)
{
    const tsr_tensor *dw = &args->dw;
    for (int64_t v = 0; v < dw->shape[0]; v++) {
        const int64_t to = v * dw->stride[0];
        for (int64_t j = 0; j < dw->shape[1]; j++)
            sum[j] = args->accumulate ? ref_get(dw, to + j * dw->stride[1]) : 0;
        for (int64_t row = 0; row < args->x.shape[0]; row++)
            if (tsr_index_at(&args->targets, row) != args->ignore_index)
                axpy(sum, dlogit_of(args, row, v, scale), &args->x, row);
        for (int64_t j = 0; j < dw->shape[1]; j++) ref_set(dw, to + j * dw->stride[1], sum[j]);
    }
}

tsr_status ref_linear_cross_entropy_bwd(void *state, const tsr_linear_cross_entropy_bwd_args *args,
                                        void *workspace)
{
    (void)state;
    TSR_TRY(tsr_check_ids(&args->targets, args->w.shape[0], &args->ignore_index, "targets"));
    const int64_t n_valid = count_valid(args);
    const double scale = n_valid == 0 ? 0 : ref_get(&args->dloss, 0) / (double)n_valid;
    if (args->dx.data != NULL) write_dx(args, scale, workspace);
    if (args->dw.data != NULL) write_dw(args, scale, workspace);
    return TSR_OK;
}
