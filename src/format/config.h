/*
 * format/config.h - config.json of a LlamaForCausalLM, as Hugging Face writes it
 *
 * Fields keep the names that they have in the file. A model that needs what this one does not
 * do (another architecture, scaled RoPE, biases, quantised weights, another activation) is
 * refused by the name of that thing, never read as something else.
 */
#ifndef TSR_FORMAT_CONFIG_H
#define TSR_FORMAT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "tessera/tensor.h"

enum { TSR_MAX_EOS = 16 };

typedef struct tsr_llama_config {
    int64_t vocab_size;
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_key_value_heads; /* divides num_attention_heads; absent: the same     */
    int64_t head_dim;            /* even; absent: hidden_size / num_attention_heads   */
    int64_t max_position_embeddings;
    double rms_norm_eps;
    double rope_theta;
    bool tie_word_embeddings;
    tsr_dtype dtype;      /* f32, bf16 or f16: what the weights are stored in                */
    int64_t bos_token_id; /* -1: none                                                        */
    int32_t n_eos;
    int64_t eos_token_id[TSR_MAX_EOS];
} tsr_llama_config;

/* TSR_ERR_FORMAT names the field, what it was and what it must be; *out is then untouched. */
tsr_status tsr_llama_config_read(const char *path, tsr_llama_config *out);
tsr_status tsr_llama_config_parse(const char *name, const void *text, size_t nbytes, tsr_llama_config *out);

/* Replaces the file as a whole. A config that could not be read back is refused before anything is written.
 */
tsr_status tsr_llama_config_write(const char *path, const tsr_llama_config *config);

#endif
