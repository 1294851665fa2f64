/*
 * model/llama.h - the Llama architecture: its loss for training, its next logits for generation
 *
 *     x = embed(ids)
 *     for each layer:  x = x + attention(rms_norm(x))     RoPE, grouped heads, causal
 *                      x = x + swiglu(rms_norm(x))
 *     logits = rms_norm(x) @ lm_head^T
 *
 * (Touvron et al., 2023, "LLaMA: open and efficient foundation language models")
 */
#ifndef TSR_MODEL_LLAMA_H
#define TSR_MODEL_LLAMA_H

#include "model/weights.h"
#include "tessera/nn.h"

/*
 * The mean cross-entropy of ids [B, L] i32 against targets [B, L] i32 (those that are ignore_index apart),
 * one element f32. residual_dropout: NULL or p = 0 for none; its offset is advanced for each layer's two.
 */
tsr_status tsr_llama_loss(const tsr_weights *weights, tsr_tape *tape, const tsr_tensor *ids,
                          const tsr_tensor *targets, int32_t ignore_index,
                          const tsr_dropout *residual_dropout, tsr_var *loss);

/* An empty cache for `batch` texts of up to `capacity` tokens each; at most the weights' n_positions. */
tsr_status tsr_llama_cache_create(const tsr_weights *weights, int64_t batch, int64_t capacity,
                                  tsr_kv_cache **out);

/*
 * Reads n more tokens of each of the cache's texts (ids [batch, n], in host memory) and gives the logits of
 * what follows the last one: logits [batch, vocab] f32 in host memory. TSR_ERR_ARGUMENT if the cache is full.
 * After any other error the cache's texts are undefined: shorten them to 0.
 */
tsr_status tsr_llama_read(const tsr_weights *weights, tsr_tape *tape, tsr_kv_cache *cache, int64_t batch,
                          const int32_t *ids, int64_t n, float *logits);

#endif
