/*
 * tessera/rope.h - rotary position embedding
 *
 *     pairs (u, w) of the last dimension, pair p of D / 2 at position t turned by the angle t * theta^(-2p /
 * D): u' = u cos - w sin     w' = u sin + w cos
 *
 * Pairs are (x[p], x[p + D/2]) as Llama checkpoints of Hugging Face have them, or (x[2p], x[2p + 1])
 * interleaved. The backward is the turn by the opposite angle. (Su et al., 2021, "RoFormer")
 */
#ifndef TESSERA_ROPE_H
#define TESSERA_ROPE_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cos, sin [n_positions, D / 2] f32 (or f64): angles computed in double. D even. */
TSR_API tsr_status tsr_rope_table(tsr_context *ctx, double theta, const tsr_tensor *cos,
                                  const tsr_tensor *sin);

typedef struct tsr_rope_options {
    int interleaved;             /* pairs of neighbours instead of halves                        */
    int inverse;                 /* turn back: the backward                                      */
    int64_t start;               /* position of row 0 where positions is NULL                    */
    const tsr_tensor *positions; /* [B, L] i32 per row, NULL = start + row; TSR_ERR_INDEX outside the table */
} tsr_rope_options;

/* x, y [B, H, L, D], any strides, y may be x; options NULL = all zero. */
TSR_API tsr_status tsr_rope(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *cos,
                            const tsr_tensor *sin, const tsr_rope_options *options, const tsr_tensor *y);

#ifdef __cplusplus
}
#endif
#endif
