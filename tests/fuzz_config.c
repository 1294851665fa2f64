/* fuzz_config.c - any bytes as a config.json: refused with a message, or sizes that a model can have */
#include <stdlib.h>

#include "format/config.h"
#include "kit/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    tsr_llama_config c;
    const tsr_status status = tsr_llama_config_parse("fuzz", data, nbytes, &c);
    if (status == TSR_OK) {
        if (c.vocab_size < 1 || c.hidden_size < 1 || c.intermediate_size < 1 || c.num_hidden_layers < 1)
            abort();
        if (c.num_key_value_heads < 1 || c.num_attention_heads % c.num_key_value_heads != 0) abort();
        if (c.head_dim < 2 || c.head_dim % 2 != 0 || c.max_position_embeddings < 1) abort();
        if (!(c.rms_norm_eps >= 0) || !(c.rope_theta > 0) || c.bos_token_id >= c.vocab_size) abort();
        for (int32_t i = 0; i < c.n_eos; i++)
            if (c.eos_token_id[i] < 0 || c.eos_token_id[i] >= c.vocab_size) abort();
    } else if (status != TSR_ERR_FORMAT || tsr_last_error()[0] == '\0') {
        abort();
    }
    return 0;
}

KIT_FUZZ_MAIN("config");
