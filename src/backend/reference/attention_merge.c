/*
 * backend/reference/attention_merge.c - attention over all keys from parts over some of them
 *
 *     out = sum_i w_i out_i     w_i = exp(lse_i - lse)     lse = log sum_i exp(lse_i)
 */
#include "backend/reference/attention.h"

static int64_t at(const tsr_tensor *t, const int64_t row[3])
{
    return row[0] * t->stride[0] + row[1] * t->stride[1] + row[2] * t->stride[2];
}

static void merge_row(const tsr_attention_merge_args *args, const int64_t row[3])
{
    double weight[TSR_ATTENTION_MAX_PARTS], max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < args->n_parts; i++) {
        weight[i] = ref_get(&args->part[i].lse, at(&args->part[i].lse, row));
        if (weight[i] > max || isnan(weight[i])) max = weight[i];
    }
    const double shift = max == -INFINITY ? 0 : max;
    for (int64_t i = 0; i < args->n_parts; i++) sum += weight[i] = exp(weight[i] - shift);
    const int64_t dv = args->out.shape[3];
    for (int64_t c = 0; c < dv; c++) {
        double x = 0;
        for (int64_t i = 0; i < args->n_parts; i++) {
            const tsr_tensor *out = &args->part[i].out;
            const bool empty = ref_get(&args->part[i].lse, at(&args->part[i].lse, row)) == -INFINITY;
            if (!empty) x += weight[i] / sum * ref_get(out, at(out, row) + c * out->stride[3]);
        }
        ref_set(&args->out, at(&args->out, row) + c * args->out.stride[3], x);
    }
    if (args->lse.data != NULL) ref_set(&args->lse, at(&args->lse, row), shift + log(sum));
}

tsr_status ref_attention_merge(void *state, const tsr_attention_merge_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t *shape = args->out.shape;
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t h = 0; h < shape[1]; h++)
            for (int64_t i = 0; i < shape[2]; i++) merge_row(args, (const int64_t[]){b, h, i});
    return TSR_OK;
}
