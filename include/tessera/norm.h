/*
 * tessera/norm.h - RMSNorm and LayerNorm over the last dimension
 *
 *     RMSNorm     y = x * rstd * weight                   rstd = 1 / sqrt(mean(x^2) + eps)
 *     LayerNorm   y = (x - mean) * rstd * weight + bias   rstd = 1 / sqrt(mean((x - mean)^2) + eps)
 *
 * (Zhang and Sennrich, 2019, "Root mean square layer normalization"; Ba, Kiros, Hinton, 2016, "Layer
 * normalization")
 */
#ifndef TESSERA_NORM_H
#define TESSERA_NORM_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * x, y [..., n] f32 / bf16 / f16, same shape, any strides, y may be x; weight [n] of x's dtype or f32;
 * rstd [...] f32 (x's leading extents), NULL if not wanted.
 */
TSR_API tsr_status tsr_rms_norm_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                                    float eps, const tsr_tensor *y, const tsr_tensor *rstd);

/*
 * dx as x (may be dy); if accumulate, dx += its gradient, else dx = it. dweight [n] f32 (f64 with f64
 * inputs), overwritten; either may be NULL.
 */
TSR_API tsr_status tsr_rms_norm_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                                    const tsr_tensor *rstd, const tsr_tensor *dy, int accumulate,
                                    const tsr_tensor *dx, const tsr_tensor *dweight, const tsr_workspace *ws);
TSR_API tsr_status tsr_rms_norm_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, size_t *out);

/* bias [n] as weight, NULL = 0; mean, rstd [...] f32, both NULL if not wanted. */
TSR_API tsr_status tsr_layer_norm_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                                      const tsr_tensor *bias, float eps, const tsr_tensor *y,
                                      const tsr_tensor *mean, const tsr_tensor *rstd);
TSR_API tsr_status tsr_layer_norm_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                                      const tsr_tensor *mean, const tsr_tensor *rstd, const tsr_tensor *dy,
                                      int accumulate, const tsr_tensor *dx, const tsr_tensor *dweight,
                                      const tsr_tensor *dbias, const tsr_workspace *ws);
TSR_API tsr_status tsr_layer_norm_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, size_t *out);

#ifdef __cplusplus
}
#endif
#endif
