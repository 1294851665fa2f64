/* model/generate.c - the loop that reads logits and chooses tokens */
#define _POSIX_C_SOURCE 200809L
#include "model/generate.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

typedef struct generation {
    const tsr_weights *weights;
    tsr_tape *tape;
    tsr_kv_cache *cache;
    int64_t capacity;
    int32_t *text; /* [capacity] tokens the cache holds, or is about to read */
    int64_t n_text;
    float *logits;             /* [vocab] */
    tsr_candidate *candidates; /* [vocab] */
} generation;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

tsr_status tsr_generate_check(const tsr_weights *w, const int32_t *prompt, int64_t n,
                              const tsr_generate_options *options)
{
    TSR_TRY(tsr_sample_check(&options->sample));
    if (options->n_tokens < 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "n_tokens is %lld, must be 0 or more",
                        (long long)options->n_tokens);
    if (n < 1) return tsr_fail(TSR_ERR_ARGUMENT, "the prompt is empty");
    if (n > w->n_positions)
        return tsr_fail(TSR_ERR_ARGUMENT, "the prompt has %lld tokens, the model reads at most %lld",
                        (long long)n, (long long)w->n_positions);
    for (int64_t i = 0; i < n; i++)
        if (prompt[i] < 0 || prompt[i] >= w->config.vocab_size)
            return tsr_fail(TSR_ERR_INDEX, "token %lld of the prompt is %d, the vocabulary has %lld",
                            (long long)i, (int)prompt[i], (long long)w->config.vocab_size);
    return TSR_OK;
}

static void close_generation(generation *g)
{
    tsr_tape_destroy(g->tape);
    tsr_kv_cache_destroy(g->cache);
    free(g->text);
    free(g->logits);
    free(g->candidates);
}

static tsr_status open_generation(generation *g, const tsr_weights *w, const int32_t *prompt, int64_t n,
                                  int64_t n_tokens)
{
    const int64_t most = w->n_positions;
    const int64_t capacity = n_tokens < most - n ? n + n_tokens : most;
    const size_t vocab = (size_t)w->config.vocab_size;
    *g = (generation){.weights = w, .capacity = capacity, .n_text = n};
    TSR_TRY(tsr_tape_create(w->ctx, &g->tape));
    tsr_tape_set_recording(g->tape, 0);
    g->text = malloc((size_t)capacity * sizeof *g->text);
    g->logits = malloc(vocab * sizeof *g->logits);
    g->candidates = malloc(vocab * sizeof *g->candidates);
    if (g->text == NULL || g->logits == NULL || g->candidates == NULL)
        return tsr_fail(TSR_ERR_MEMORY, "generation: out of memory");
    memcpy(g->text, prompt, (size_t)n * sizeof *prompt);
    return tsr_llama_cache_create(w, 1, capacity, &g->cache);
}

/* The logits after one more token; where it does not fit, the later half of the text is read anew. */
static tsr_status read_next(generation *g, int32_t id)
{
    if (g->n_text < g->capacity) {
        g->text[g->n_text++] = id;
        return tsr_llama_read(g->weights, g->tape, g->cache, 1, &id, 1, g->logits);
    }
    const int64_t kept = g->capacity / 2;
    memmove(g->text, g->text + g->n_text - kept, (size_t)kept * sizeof *g->text);
    g->text[kept] = id;
    g->n_text = kept + 1;
    TSR_TRY(tsr_kv_cache_shorten(g->cache, 0, 0));
    return tsr_llama_read(g->weights, g->tape, g->cache, 1, g->text, g->n_text, g->logits);
}

static bool ends_text(const tsr_weights *w, int32_t id)
{
    for (int32_t i = 0; i < w->config.n_eos; i++)
        if (w->config.eos_token_id[i] == id) return true;
    return false;
}

static tsr_status generate(generation *g, const tsr_generate_options *o, tsr_token_hook hook, void *user,
                           tsr_generate_figures *figures)
{
    const double start = seconds();
    tsr_random random = {.seed = o->seed};
    TSR_TRY(tsr_llama_read(g->weights, g->tape, g->cache, 1, g->text, g->n_text, g->logits));
    const double prompt_read = seconds();
    figures->prompt_s = prompt_read - start;
    if (o->logits != NULL)
        memcpy(o->logits, g->logits, (size_t)g->weights->config.vocab_size * sizeof *o->logits);
    for (int64_t i = 0; i < o->n_tokens; i++) {
        int32_t id;
        TSR_TRY(tsr_sample(g->logits, (int32_t)g->weights->config.vocab_size, &o->sample, &random,
                           g->candidates, &id));
        figures->n_generated++;
        figures->generate_s = seconds() - prompt_read;
        if (ends_text(g->weights, id) || !hook(user, id)) break;
        if (i + 1 < o->n_tokens) TSR_TRY(read_next(g, id));
    }
    return TSR_OK;
}

tsr_status tsr_generate(const tsr_weights *w, const int32_t *prompt, int64_t n,
                        const tsr_generate_options *options, tsr_token_hook hook, void *user,
                        tsr_generate_figures *figures)
{
    *figures = (tsr_generate_figures){.n_prompt = n};
    TSR_TRY(tsr_generate_check(w, prompt, n, options));
    generation g;
    tsr_status status = open_generation(&g, w, prompt, n, options->n_tokens);
    if (status == TSR_OK) status = generate(&g, options, hook, user, figures);
    close_generation(&g);
    return status;
}
