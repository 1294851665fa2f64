/*
 * tessera/softmax.h - softmax over the last dimension
 *
 *     y[..., j] = exp(x[..., j] - max_j x) / sum_j exp(x[..., j] - max_j x)
 *
 * The reference makes three passes: maximum, sum, division. The cpu backend reads x twice: one reading
 * finds max and sum together, as the sum so far shrinks by exp(m - m') when the running max rises to m'.
 * (Milakov and Gimelshein, 2018, "Online normalizer calculation for softmax")
 */
#ifndef TESSERA_SOFTMAX_H
#define TESSERA_SOFTMAX_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * x, y   [..., n], any strides, f32 / bf16 / f16, same shape; y may be x.
 * A row that is -inf throughout gives zeros, not NaN.
 * TSR_ERR_SHAPE, TSR_ERR_DTYPE, TSR_ERR_OVERLAP: y untouched.
 */
TSR_API tsr_status tsr_softmax_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y);

/* dx = y * (dy - sum_j dy * y). All of y's shape; dx may be dy. */
TSR_API tsr_status tsr_softmax_bwd(tsr_context *ctx, const tsr_tensor *y, const tsr_tensor *dy,
                                   const tsr_tensor *dx);

#ifdef __cplusplus
}
#endif
#endif
