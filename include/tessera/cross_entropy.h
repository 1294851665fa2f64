/*
 * tessera/cross_entropy.h - cross-entropy fused with the vocabulary projection
 *
 *     logits = x @ w^T     loss = mean over rows with target != ignore_index of  lse(logits) - logits[target]
 *
 * Rows are taken in chunks, so that logits of a whole batch are never stored; backward recomputes them:
 * dlogits = (softmax(logits) - onehot) * dloss / n_valid.   (Milakov; Wijmans et al., 2024, "Cut your
 * losses")
 */
#ifndef TESSERA_CROSS_ENTROPY_H
#define TESSERA_CROSS_ENTROPY_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * x [N, n], w [V, n] of one dtype (f32, bf16, f16), targets [N] i32: in [0, V) or ignore_index, else
 * TSR_ERR_INDEX. loss: one element f32, the mean (0 where every target is ignored); lse [N] f32.
 * (f64: all of them, reference backend.)
 */
TSR_API tsr_status tsr_linear_cross_entropy_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                                const tsr_tensor *targets, int32_t ignore_index,
                                                const tsr_tensor *loss, const tsr_tensor *lse,
                                                const tsr_workspace *ws);
TSR_API tsr_status tsr_linear_cross_entropy_fwd_workspace(tsr_context *ctx, const tsr_tensor *x,
                                                          const tsr_tensor *w, size_t *out);

/* dloss: one element. dx [N, n] of x's dtype, overwritten; dw [V, n] f32 (or x's dtype), added to if
 * accumulate. */
TSR_API tsr_status tsr_linear_cross_entropy_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                                const tsr_tensor *targets, int32_t ignore_index,
                                                const tsr_tensor *lse, const tsr_tensor *dloss,
                                                int accumulate, const tsr_tensor *dx, const tsr_tensor *dw,
                                                const tsr_workspace *ws);
TSR_API tsr_status tsr_linear_cross_entropy_bwd_workspace(tsr_context *ctx, const tsr_tensor *x,
                                                          const tsr_tensor *w, size_t *out);

#ifdef __cplusplus
}
#endif
#endif
