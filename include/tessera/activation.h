/*
 * tessera/activation.h - relu, gelu, silu, and the gated product
 *
 *     relu       max(x, 0)
 *     gelu       x / 2 * (1 + erf(x / sqrt 2))                                      (Hendrycks and Gimpel,
 * 2016) gelu_tanh  x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))              (the same) silu       x
 * / (1 + exp(-x)) swiglu     silu(gate) * up                                                    (Shazeer,
 * 2020, "GLU variants")
 */
#ifndef TESSERA_ACTIVATION_H
#define TESSERA_ACTIVATION_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_activation {
    TSR_ACTIVATION_NONE = 0,
    TSR_ACTIVATION_RELU,
    TSR_ACTIVATION_GELU,
    TSR_ACTIVATION_GELU_TANH,
    TSR_ACTIVATION_SILU
} tsr_activation;

/* x, y same shape and dtype, any strides; y may be x. */
TSR_API tsr_status tsr_activation_fwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                                      const tsr_tensor *y);
/* dx = dy * f'(x); dx may be dy. The derivative of relu at 0 is 0. */
TSR_API tsr_status tsr_activation_bwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                                      const tsr_tensor *dy, const tsr_tensor *dx);

/* y = silu(gate) * up; all of one shape and dtype; y may be gate or up. */
TSR_API tsr_status tsr_swiglu_fwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up,
                                  const tsr_tensor *y);
/* dgate may be gate, dup may be up (each is written after its last use). */
TSR_API tsr_status tsr_swiglu_bwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up,
                                  const tsr_tensor *dy, const tsr_tensor *dgate, const tsr_tensor *dup);

#ifdef __cplusplus
}
#endif
#endif
