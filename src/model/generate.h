/*
 * model/generate.h - text from a model: read the prompt, then one token after another
 *
 * Where the text grows beyond what the model can look back on (the weights' n_positions), its later half is
 * read again from position 0 and goes on from there.
 */
#ifndef TSR_MODEL_GENERATE_H
#define TSR_MODEL_GENERATE_H

#include "model/llama.h"
#include "model/sample.h"

typedef struct tsr_generate_options {
    int64_t n_tokens; /* at most; fewer if the model ends the text */
    tsr_sample_options sample;
    uint64_t seed;
    float *logits; /* [vocab], host memory: gets the logits of what follows the prompt; NULL = not wanted */
} tsr_generate_options;

typedef struct tsr_generate_figures {
    int64_t n_prompt, n_generated;
    double prompt_s, generate_s; /* reading the prompt; everything after it */
} tsr_generate_figures;

/* Called for each new token; false ends the text. */
typedef bool (*tsr_token_hook)(void *user, int32_t id);

/*
 * prompt [n], n > 0, all in the vocabulary. TSR_ERR_ARGUMENT: an empty prompt, one longer than the model
 * reads, an option out of range; TSR_ERR_INDEX: an id outside the vocabulary.
 */
tsr_status tsr_generate_check(const tsr_weights *weights, const int32_t *prompt, int64_t n,
                              const tsr_generate_options *options);

/* Checks the same before anything is read. */
tsr_status tsr_generate(const tsr_weights *weights, const int32_t *prompt, int64_t n,
                        const tsr_generate_options *options, tsr_token_hook hook, void *user,
                        tsr_generate_figures *figures);

#endif
