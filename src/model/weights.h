/*
 * model/weights.h - a Llama's parameters: one row of device memory, named as Hugging Face names them
 *
 *     | embed_tokens | layer 0: q k v o gate up down | layer 1 ... | lm_head |  norms ...  |
 *       matrices, which weight decay applies to                                vectors, which it spares
 *
 * Each parameter starts at a multiple of 64 bytes; what lies between stays zero. So the optimiser, the norm
 * of the gradient and a checkpoint see one long tensor, the layers see views of it. Gradients, where wanted,
 * are a second row of the same plan in f32.
 */
#ifndef TSR_MODEL_WEIGHTS_H
#define TSR_MODEL_WEIGHTS_H

#include "format/config.h"
#include "tessera/tape.h"

typedef enum tsr_llama_part {
    TSR_LLAMA_INPUT_NORM,
    TSR_LLAMA_Q,
    TSR_LLAMA_K,
    TSR_LLAMA_V,
    TSR_LLAMA_O,
    TSR_LLAMA_POST_NORM,
    TSR_LLAMA_GATE,
    TSR_LLAMA_UP,
    TSR_LLAMA_DOWN,
    TSR_LLAMA_LAYER_PARTS
} tsr_llama_part;

/* One parameter's place. */
typedef struct tsr_weight {
    char name[64]; /* "model.layers.3.self_attn.q_proj.weight"                     */
    int32_t rank;
    int64_t shape[2];
    int64_t at; /* first element in the row                                        */
} tsr_weight;

typedef struct tsr_weights {
    tsr_context *ctx;
    tsr_llama_config config;
    tsr_dtype dtype;  /* of the values on the device                        */
    tsr_weight *list; /* embed_tokens, the layers' parts, norm, and lm_head if it is not tied */
    int32_t n;
    int64_t row_n, n_decayed;      /* elements of the row, and of its matrices           */
    tsr_tensor values, grads;      /* [row_n]; grads.data NULL where none are wanted     */
    int64_t n_positions;           /* that texts may reach: max_position_embeddings at most   */
    tsr_tensor rope_cos, rope_sin; /* [n_positions, head_dim / 2] f32               */
} tsr_weights;

/* Allocates for a config (which is copied); values are not set, gradients are cleared. */
tsr_status tsr_weights_create(tsr_context *ctx, const tsr_llama_config *config, tsr_dtype dtype,
                              bool with_grads, tsr_weights *out);
/* A zeroed one is allowed. */
void tsr_weights_free(tsr_weights *weights);

/*
 * Normal values of standard deviation 0.02, those that write to the residual stream divided by
 * sqrt(2 layers); norms 1. (Radford et al., 2019, GPT-2)
 */
tsr_status tsr_weights_init(tsr_weights *weights, uint64_t seed);

/* The sum of all extents' products: padding does not count. */
int64_t tsr_weights_numel(const tsr_weights *weights);

tsr_parameter tsr_weights_embedding(const tsr_weights *weights);
tsr_parameter tsr_weights_layer(const tsr_weights *weights, int64_t layer, tsr_llama_part part);
tsr_parameter tsr_weights_norm(const tsr_weights *weights);
tsr_parameter tsr_weights_head(const tsr_weights *weights); /* the embedding, if tied */

/*
 * A Hugging Face directory: config.json and model.safetensors (or its index and shards), every tensor present
 * with its shape, none left over but lm_head where it is tied. dtype: what to hold them in. n_positions: how
 * far texts will reach, so that a model that could read millions of tokens makes tables for no more; 0 or
 * beyond max_position_embeddings: as far as it reads.
 */
tsr_status tsr_weights_load(tsr_context *ctx, const char *directory, tsr_dtype dtype, int64_t n_positions,
                            tsr_weights *out);

/* Checks all that loading would check and reads nothing into memory; *numel: parameters. */
tsr_status tsr_weights_check(const char *directory, tsr_llama_config *config, int64_t *numel);

/* config.json and model.safetensors, each complete or not at all, with values converted to config.dtype. */
tsr_status tsr_weights_save(const tsr_weights *weights, const char *directory);

#endif
