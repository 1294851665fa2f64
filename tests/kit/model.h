/* tests/kit/model.h - a tiny Llama, and its row of values on the host; for tests that use src/model */
#ifndef TSR_KIT_MODEL_H
#define TSR_KIT_MODEL_H

#include <stdlib.h>

#include "kit/kit.h"
#include "model/weights.h"

static inline tsr_llama_config kit_config(tsr_dtype dtype, bool tied)
{
    return (tsr_llama_config){.vocab_size = 37,
                              .hidden_size = 16,
                              .intermediate_size = 24,
                              .num_hidden_layers = 2,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .head_dim = 6,
                              .max_position_embeddings = 12,
                              .rms_norm_eps = 1e-5,
                              .rope_theta = 10000,
                              .tie_word_embeddings = tied,
                              .dtype = dtype,
                              .bos_token_id = -1,
                              .n_eos = 1,
                              .eos_token_id = {36}};
}

/* The row as it is on the device; free it. */
static inline void *kit_row(const tsr_weights *w)
{
    const size_t nbytes = (size_t)w->row_n * tsr_dtype_nbytes(w->dtype);
    void *row = malloc(nbytes);
    assert_non_null(row);
    KIT_OK(tsr_download(w->ctx, row, w->values.data, nbytes));
    return row;
}

static inline void kit_expect_same_rows(const tsr_weights *a, const tsr_weights *b)
{
    assert_int_equal(a->row_n, b->row_n);
    assert_int_equal(a->dtype, b->dtype);
    void *x = kit_row(a), *y = kit_row(b);
    assert_memory_equal(x, y, (size_t)a->row_n * tsr_dtype_nbytes(a->dtype));
    free(x);
    free(y);
}

#endif
