/*
 * backend/reference/rope.c - pairs (u, w) turned by an angle: u' = u cos - w sin, w' = u sin + w cos
 *
 * Pair p of D / 2 at position t has the angle t * theta^(-2p / D) and is (x[p], x[p + D/2]), or
 * (x[2p], x[2p + 1]) interleaved. The inverse turns by the opposite angle.
 */
#include <math.h>

#include "backend/indices.h"
#include "backend/reference/reference.h"
#include "base/error.h"

tsr_status ref_rope_table(void *state, const tsr_rope_table_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *cos_t = &args->cos, *sin_t = &args->sin;
    const int64_t half = cos_t->shape[1], n_rows = ref_n_rows(cos_t);
    for (int64_t t = 0; t < n_rows; t++)
        for (int64_t p = 0; p < half; p++) {
            const double angle = (double)t * pow(args->theta, -(double)p / (double)half);
            ref_set(cos_t, t * cos_t->stride[0] + p * cos_t->stride[1], cos(angle));
            ref_set(sin_t, t * sin_t->stride[0] + p * sin_t->stride[1], sin(angle));
        }
    return TSR_OK;
}

/* One row: x and y at their first elements, the table's row `position`. */
static void turn_row(const tsr_rope_args *args, int64_t x_at, int64_t y_at, int64_t position)
{
    const tsr_tensor *x = &args->x, *y = &args->y;
    const int64_t half = x->shape[3] / 2;
    for (int64_t p = 0; p < half; p++) {
        const int64_t first = args->interleaved ? 2 * p : p,
                      second = args->interleaved ? first + 1 : p + half;
        const double c = ref_get(&args->cos, position * args->cos.stride[0] + p * args->cos.stride[1]);
        const double s = (args->inverse ? -1 : 1) *
                         ref_get(&args->sin, position * args->sin.stride[0] + p * args->sin.stride[1]);
        const double u = ref_get(x, x_at + first * x->stride[3]);
        const double w = ref_get(x, x_at + second * x->stride[3]);
        ref_set(y, y_at + first * y->stride[3], u * c - w * s);
        ref_set(y, y_at + second * y->stride[3], u * s + w * c);
    }
}

tsr_status ref_rope(void *state, const tsr_rope_args *args, void *workspace)
{
    (void)state, (void)workspace;
    if (args->positions.data != NULL)
        TSR_TRY(tsr_check_ids(&args->positions, args->cos.shape[0], NULL, "positions"));
    const int64_t n_rows = ref_n_rows(&args->x), l = args->x.shape[2], rows_of_batch = args->x.shape[1] * l;
    for (int64_t row = 0; row < n_rows; row++) {
        const int64_t b = row / rows_of_batch, i = row % l;
        const tsr_tensor *positions = &args->positions;
        const int64_t position = positions->data != NULL
                                     ? ((const int32_t *)positions
                                            ->data)[b * positions->stride[0] + i * positions->stride[1]]
                                     : args->start + i;
        turn_row(args, ref_offset(&args->x, 3, row), ref_offset(&args->y, 3, row), position);
    }
    return TSR_OK;
}
