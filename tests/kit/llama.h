/*
 * tests/kit/llama.h - a small language model of the public layers, for tests of gradients, memory, generation
 *
 *     ids [B, L] -> embedding -> blocks -> norm -> cross-entropy against targets
 *
 * Everything lies in the context's memory, written by uploads alone, so that it runs on any backend.
 */
#ifndef TSR_KIT_LLAMA_H
#define TSR_KIT_LLAMA_H

#include "kit/kit.h"
#include "tessera/nn.h"

enum { KIT_LLAMA_MAX_LAYERS = 4, KIT_LLAMA_MAX_PARAMETERS = 64 };

typedef struct kit_llama_sizes {
    tsr_dtype dtype;
    int64_t vocabulary, dim, n_layers, n_heads, n_kv_heads, head_dim, feed_forward, n_positions;
    int tied; /* one table for the embedding and the projection */
} kit_llama_sizes;

typedef struct kit_llama {
    tsr_context *ctx;
    kit_llama_sizes sizes;
    tsr_parameter embedding, head; /* [vocabulary, dim] */
    tsr_block blocks[KIT_LLAMA_MAX_LAYERS];
    tsr_norm norm;
    tsr_tensor cos, sin;
    tsr_dropout dropout; /* of the residuals */
    /* Every parameter once, in the order in which they were made. */
    int32_t n_parameters;
    tsr_parameter parameters[KIT_LLAMA_MAX_PARAMETERS];
} kit_llama;

/* Random parameters with gradients of 0, if they are wanted. */
void kit_llama_make(kit_llama *m, tsr_context *ctx, const kit_llama_sizes *sizes, int wants_grad);
void kit_llama_free(kit_llama *m);
void kit_llama_clear_grads(const kit_llama *m);

/* A tensor in the context's memory. */
tsr_tensor kit_device_i32(tsr_context *ctx, const int32_t *values, int32_t rank, const int64_t *shape);
/* Random ids in [0, n). */
tsr_tensor kit_device_ids(tsr_context *ctx, int64_t n, int32_t rank, const int64_t *shape);
/* Element i of a row-major tensor, as double; reads all that was queued before. */
double kit_device_get(tsr_context *ctx, const tsr_tensor *t, int64_t i);
void kit_device_set(tsr_context *ctx, const tsr_tensor *t, int64_t i, double value);

/* Hidden states [B, L, dim] after the final norm; cache NULL: positions from 0. */
tsr_status kit_llama_hidden(const kit_llama *m, tsr_tape *tape, const tsr_tensor *ids,
                            const tsr_kv_cache *cache, tsr_var *hidden);
tsr_status kit_llama_loss(const kit_llama *m, tsr_tape *tape, const tsr_tensor *ids,
                          const tsr_tensor *targets, tsr_var *loss);

/*
 * What a step of n = B * L rows must keep between forward and backward, every piece rounded up to 64 bytes:
 *     a block      x, norm, q, k, v, out, h, norm, gate, up, gated; rstd twice, lse of every head
 *     the end      x, norm, rstd; lse; the loss
 * The embedding keeps nothing, rope turns q and k where they lie, a residual sum lies where its branch lay.
 */
size_t kit_llama_saved_nbytes(const kit_llama_sizes *s, int64_t n);

/*
 * The most at once, early in the backward: either the gradients of the last norm's result and of the loss
 * beside all that; or, with x, norm and statistics of the end read and gone, the gradients of the last
 * block's result and of its gated product. Later gradients fit into what has been read by then.
 */
size_t kit_llama_peak_nbytes(const kit_llama_sizes *s, int64_t n);

#endif
