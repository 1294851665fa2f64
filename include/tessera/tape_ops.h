/*
 * tessera/tape_ops.h - tessera's operators on variables: run now, recorded where a gradient is wanted
 *
 * Each makes a variable in the tape's memory and follows the header of its operator (shapes, dtypes, errors).
 * An optional variable is all-zero (none). in_place: the result takes the place of the input named, which
 * cannot be used afterwards; TSR_ERR_OVERLAP if a recorded backward reads that input.
 */
#ifndef TESSERA_TAPE_OPS_H
#define TESSERA_TAPE_OPS_H

#include "tessera/activation.h"
#include "tessera/elementwise.h"
#include "tessera/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

/* c = a @ b, of a's dtype: [m, k] [k, n], or [batch, m, k] [batch, k, n]. */
TSR_API tsr_status tsr_tape_matmul2d(tsr_tape *tape, tsr_var a, tsr_var b, tsr_var *c);
TSR_API tsr_status tsr_tape_bmm(tsr_tape *tape, tsr_var a, tsr_var b, tsr_var *c);

/* y [..., n] = x [..., k] @ w^T + bias, w [n, k], bias [n] or none; rows of x evenly spaced. */
TSR_API tsr_status tsr_tape_linear(tsr_tape *tape, tsr_var x, tsr_var w, tsr_var bias, tsr_var *y);

/* y = a + b, of one shape and dtype; in_place: of a. */
TSR_API tsr_status tsr_tape_add(tsr_tape *tape, tsr_var a, tsr_var b, int in_place, tsr_var *y);
/* y = dropout(x) + residual (or none); in_place: of x. Which elements are kept is computed again backwards.
 */
TSR_API tsr_status tsr_tape_dropout_add(tsr_tape *tape, tsr_var x, tsr_var residual,
                                        const tsr_dropout *dropout, int in_place, tsr_var *y);
/* y = x in row-major order, converted to dtype. */
TSR_API tsr_status tsr_tape_copy(tsr_tape *tape, tsr_var x, tsr_dtype dtype, tsr_var *y);
/* y = sum of x: one element, f32 (f64 for f64). */
TSR_API tsr_status tsr_tape_sum(tsr_tape *tape, tsr_var x, tsr_var *y);

TSR_API tsr_status tsr_tape_activation(tsr_tape *tape, tsr_activation activation, tsr_var x, tsr_var *y);
/* y = silu(gate) * up */
TSR_API tsr_status tsr_tape_swiglu(tsr_tape *tape, tsr_var gate, tsr_var up, tsr_var *y);
TSR_API tsr_status tsr_tape_softmax(tsr_tape *tape, tsr_var x, tsr_var *y);

TSR_API tsr_status tsr_tape_rms_norm(tsr_tape *tape, tsr_var x, tsr_var weight, float eps, tsr_var *y);
/* bias: or none. */
TSR_API tsr_status tsr_tape_layer_norm(tsr_tape *tape, tsr_var x, tsr_var weight, tsr_var bias, float eps,
                                       tsr_var *y);

typedef struct tsr_tape_rope_options {
    int interleaved;
    int64_t start;     /* position of row 0 where positions is none */
    tsr_var positions; /* [B, L] i32, or none                       */
    int in_place;
} tsr_tape_rope_options;

/* x [B, H, L, D]; options NULL = all zero. */
TSR_API tsr_status tsr_tape_rope(tsr_tape *tape, tsr_var x, tsr_var cos, tsr_var sin,
                                 const tsr_tape_rope_options *options, tsr_var *y);

/* As tsr_attention_options; gradients flow to q, k, v, bias (extent 1 where it broadcasts) and sinks. */
typedef struct tsr_tape_attention_options {
    float scale;
    int causal;
    int window_on;
    int64_t window_left, window_right;
    float softcap;
    tsr_dropout dropout;
    tsr_var alibi, bias, mask, sinks;
    tsr_var seqlens_q, seqlens_k;
    tsr_var cu_seqlens_q, cu_seqlens_k;
    int64_t max_lq, max_lk;
} tsr_tape_attention_options;

/*
 * out [B, Hq, Lq, Dv], in memory [B, Lq, Hq, Dv]: transposed and reshaped it is [B, Lq, Hq * Dv]. Packed: out
 * [total_q, Hq, Dv]. options NULL = all zero.
 */
TSR_API tsr_status tsr_tape_attention(tsr_tape *tape, tsr_var q, tsr_var k, tsr_var v,
                                      const tsr_tape_attention_options *options, tsr_var *out);

/* out [..., n] = table[ids], ids [...] i32. */
TSR_API tsr_status tsr_tape_embedding(tsr_tape *tape, tsr_var table, tsr_var ids, tsr_var *out);

/* loss: one element f32, the mean over targets that are not ignore_index; x [..., n], targets [...] i32. */
TSR_API tsr_status tsr_tape_linear_cross_entropy(tsr_tape *tape, tsr_var x, tsr_var w, tsr_var targets,
                                                 int32_t ignore_index, tsr_var *loss);

/* cache[b, :, start[b] + i, :] = x[b, :, i, :]; it has no backward. lengths: or none. */
TSR_API tsr_status tsr_tape_kv_append(tsr_tape *tape, tsr_var x, tsr_var start, tsr_var lengths,
                                      tsr_var cache);

#ifdef __cplusplus
}
#endif
#endif
