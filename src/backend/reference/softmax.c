/* backend/reference/softmax.c - softmax over the last dimension: maximum, sum, division */
#include <math.h>

#include "backend/reference/reference.h"

/* The largest of a row; NaN if any is, -inf if the row is empty. */
static double max_of_row(const tsr_tensor *x, int64_t at, int64_t n, int64_t step)
{
    double max = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        const double value = ref_get(x, at + j * step);
        if (value > max || isnan(value)) max = value;
    }
    return max;
}

tsr_status ref_softmax_fwd(void *state, const tsr_softmax_fwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *x = &args->x, *y = &args->y;
    const int32_t last = x->rank - 1;
    const int64_t n = x->shape[last], sx = x->stride[last], sy = y->stride[last];
    const int64_t n_rows = ref_n_rows(x);
    for (int64_t row = 0; row < n_rows; row++) {
        const int64_t at = ref_offset(x, last, row), to = ref_offset(y, last, row);
        const double max = max_of_row(x, at, n, sx);
        const double shift = max == -INFINITY ? 0 : max; /* exp(-inf - 0) = 0: zeros, not NaN */
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += exp(ref_get(x, at + j * sx) - shift);
        const double scale = sum == 0 ? 0 : 1 / sum;
        for (int64_t j = 0; j < n; j++) ref_set(y, to + j * sy, exp(ref_get(x, at + j * sx) - shift) * scale);
    }
    return TSR_OK;
}

tsr_status ref_softmax_bwd(void *state, const tsr_softmax_bwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *y = &args->y, *dy = &args->dy, *dx = &args->dx;
    const int32_t last = y->rank - 1;
    const int64_t n = y->shape[last], sy = y->stride[last], sdy = dy->stride[last], sdx = dx->stride[last];
    const int64_t n_rows = ref_n_rows(y);
    for (int64_t row = 0; row < n_rows; row++) {
        const int64_t at = ref_offset(y, last, row), from = ref_offset(dy, last, row);
        const int64_t to = ref_offset(dx, last, row);
        double dot = 0;
        for (int64_t j = 0; j < n; j++) dot += ref_get(dy, from + j * sdy) * ref_get(y, at + j * sy);
        for (int64_t j = 0; j < n; j++)
            ref_set(dx, to + j * sdx, ref_get(y, at + j * sy) * (ref_get(dy, from + j * sdy) - dot));
    }
    return TSR_OK;
}
