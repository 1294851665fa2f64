/*
 * tessera/optimizer.h - AdamW
 *
 *     m = b1 m + (1 - b1) g     v = b2 v + (1 - b2) g^2
 *     p = p - lr * (weight_decay * p + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps))
 *
 * (Loshchilov and Hutter, 2019, "Decoupled weight decay regularization")
 */
#ifndef TESSERA_OPTIMIZER_H
#define TESSERA_OPTIMIZER_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_adamw_options {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /* g is multiplied by it first (clipping); 0 means 1 */
    int64_t step;     /* t, from 1                                         */
} tsr_adamw_options;

/*
 * p [..] f32, or bf16 / f16 with master [..] f32 (NULL for f32), which is updated and rounded into p;
 * g, m, v f32 of p's shape, all contiguous. (f64 in the reference backend: all of them.)
 */
TSR_API tsr_status tsr_adamw(tsr_context *ctx, const tsr_adamw_options *options, const tsr_tensor *p,
                             const tsr_tensor *master, const tsr_tensor *g, const tsr_tensor *m,
                             const tsr_tensor *v);

#ifdef __cplusplus
}
#endif
#endif
