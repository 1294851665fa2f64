/* backend/reference/elementwise.c - copy, fill, add, sums, and dropout onto a residual */
#include <string.h>

#include "backend/reference/reference.h"
#include "tessera/random.h"

tsr_status ref_copy(void *state, const tsr_copy_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *x = &args->x, *y = &args->y;
    const size_t nbytes = tsr_dtype_nbytes(x->dtype);
    const int64_t n = tsr_tensor_numel(x);
    for (int64_t i = 0; i < n; i++) {
        if (x->dtype != y->dtype)
            ref_set_nth(y, i, ref_get_nth(x, i));
        else /* bit for bit: an i64 may not fit in a double, a NaN keeps its payload */
            memcpy(tsr_tensor_at(y, ref_offset(y, y->rank, i)), tsr_tensor_at(x, ref_offset(x, x->rank, i)),
                   nbytes);
    }
    return TSR_OK;
}

tsr_status ref_fill(void *state, const tsr_fill_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->y);
    for (int64_t i = 0; i < n; i++) ref_set_nth(&args->y, i, args->value);
    return TSR_OK;
}

tsr_status ref_add(void *state, const tsr_add_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->y);
    for (int64_t i = 0; i < n; i++)
        ref_set_nth(&args->y, i,
                    args->alpha * ref_get_nth(&args->a, i) + args->beta * ref_get_nth(&args->b, i));
    return TSR_OK;
}

tsr_status ref_sum(void *state, const tsr_sum_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->x);
    double sum = args->accumulate ? ref_get(&args->out, 0) : 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = ref_get_nth(&args->x, i);
        sum += args->squares ? x * x : x;
    }
    ref_set(&args->out, 0, sum);
    return TSR_OK;
}

tsr_status ref_sum_rows(void *state, const tsr_sum_rows_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *x = &args->x;
    const int32_t last = x->rank - 1;
    const int64_t n = x->shape[last], n_rows = ref_n_rows(x);
    for (int64_t j = 0; j < n; j++) {
        double sum = args->accumulate ? ref_get_nth(&args->out, j) : 0;
        for (int64_t row = 0; row < n_rows; row++)
            sum += ref_get(x, ref_offset(x, last, row) + j * x->stride[last]);
        ref_set_nth(&args->out, j, sum);
    }
    return TSR_OK;
}

tsr_status ref_dropout_add(void *state, const tsr_dropout_add_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *x = &args->x;
    const tsr_dropout *dropout = &args->dropout;
    const int64_t n = tsr_tensor_numel(x), width = x->rank == 0 ? 1 : x->shape[x->rank - 1];
    for (int64_t i = 0; i < n; i++) {
        const int keep = tsr_dropout_keep(dropout->seed, dropout->offset, 0, (uint32_t)(i / width),
                                          (uint32_t)(i % width), dropout->p);
        const double kept = keep ? ref_get_nth(x, i) / (1 - (double)dropout->p) : 0;
        ref_set_nth(&args->y, i, (args->residual.data != NULL ? ref_get_nth(&args->residual, i) : 0) + kept);
    }
    return TSR_OK;
}
