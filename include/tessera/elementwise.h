/*
 * tessera/elementwise.h - copies, sums, residuals, dropout
 */
#ifndef TESSERA_ELEMENTWISE_H
#define TESSERA_ELEMENTWISE_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = x, converted to y's dtype (nearest even; integers are clamped); same shape, any strides; x may
 * broadcast. */
TSR_API tsr_status tsr_copy(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y);

/* y = value everywhere. */
TSR_API tsr_status tsr_fill(tsr_context *ctx, double value, const tsr_tensor *y);

/*
 * y = alpha * a + beta * b: a residual; a bias, where b is a view with strides of 0. Same shape; dtypes may
 * differ (f32, bf16, f16); y may be a or b.
 */
TSR_API tsr_status tsr_add(tsr_context *ctx, float alpha, const tsr_tensor *a, float beta,
                           const tsr_tensor *b, const tsr_tensor *y);

/* out (one element, f32; f64 for f64) = sum of x, or of x^2; added to what out holds if accumulate. */
TSR_API tsr_status tsr_sum(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out);
TSR_API tsr_status tsr_sum_squares(tsr_context *ctx, const tsr_tensor *x, int accumulate,
                                   const tsr_tensor *out);

/* out [n] f32 (f64 for f64) = sum of the rows of x [..., n]: the gradient of a bias. */
TSR_API tsr_status tsr_sum_rows(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out);

typedef struct tsr_dropout {
    float p; /* [0, 1): the share dropped; what is kept is scaled by 1 / (1 - p) */
    uint64_t seed;
    uint32_t offset;
} tsr_dropout;

/*
 * y = residual + dropout(x); residual NULL = 0, which is also the backward of x. Same shape, y may be x or
 * residual. Element (row, column) of x seen as [rows, n] is kept iff tsr_dropout_keep(seed, offset, 0, row,
 * column, p).
 */
TSR_API tsr_status tsr_dropout_add(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *residual,
                                   const tsr_dropout *dropout, const tsr_tensor *y);

#ifdef __cplusplus
}
#endif
#endif
