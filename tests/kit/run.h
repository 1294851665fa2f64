/* tests/kit/run.h - short training runs in folders of the test's own; for tests that use src/train */
#ifndef TSR_KIT_RUN_H
#define TSR_KIT_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit/files.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "train/trainer.h"

/* A path in the test's folder that stays. */
static inline const char *kit_name(const char *name)
{
    static char kept[64][256];
    static int n;
    assert_true(n < 64);
    snprintf(kept[n], sizeof kept[n], "%s", kit_path(name));
    return kept[n++];
}

/* Sentences of a few words in random order: enough that there is something to learn. */
static inline void kit_write_text(const char *path, int n_words, uint64_t seed)
{
    static const char *const words[] = {"the",  "model", "reads",  "a",      "short",
                                        "text", "and",   "writes", "another"};
    tsr_random random = {.seed = seed};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < n_words; i++)
        fprintf(f, "%s%s", words[tsr_random_below(&random, 9)], i % 8 == 7 ? ".\n" : " ");
    assert_int_equal(fclose(f), 0);
}

static inline tsr_train_options kit_run_options(const char *data, const char *out)
{
    tsr_train_options o = tsr_train_defaults();
    o.data = data, o.out = out;
    o.vocab = 300, o.dim = 32, o.layers = 2, o.heads = 4, o.kv_heads = 2, o.ffn = 64, o.context = 32,
    o.batch = 2;
    o.steps = 12, o.warmup = 4, o.n_evaluations = 4, o.dropout = 0.1, o.lr = 5e-3;
    return o;
}

/* Sets its flag after step `at`, or kills the process there. */
typedef struct kit_stop {
    int64_t at; /* -1: never; 0: before the first step */
    bool kill;
    volatile sig_atomic_t flag;
} kit_stop;

static inline void kit_stop_hook(void *user, const tsr_train_progress *p)
{
    kit_stop *stop = user;
    if (p->trainer->state.step != stop->at) return;
    if (stop->kill) raise(SIGKILL);
    stop->flag = 1;
}

/* Until the end or the stop; true at the end. The trainer stays open. */
static inline bool kit_continue(tsr_trainer *t, kit_stop *stop)
{
    bool finished = false;
    const tsr_train_hooks hooks = {.progress = kit_stop_hook, .user = stop, .stop = &stop->flag};
    stop->flag = stop->at == 0;
    KIT_OK(tsr_trainer_run(t, &hooks, &finished));
    return finished;
}

/* A run by itself, with a context of its own. */
static inline bool kit_run(const tsr_train_options *o, int32_t n_threads, int64_t stop_at)
{
    tsr_context *ctx = kit_cpu_with_threads(n_threads);
    kit_stop stop = {.at = stop_at};
    tsr_trainer t;
    KIT_OK(tsr_trainer_open(ctx, o, &t));
    const bool finished = kit_continue(&t, &stop);
    tsr_trainer_close(&t);
    tsr_context_destroy(ctx);
    return finished;
}

static inline bool kit_same_file(const char *folder, const char *other, const char *name)
{
    size_t n[2];
    char *data[2] = {kit_read_file(kit_path_in(folder, name), &n[0]),
                     kit_read_file(kit_path_in(other, name), &n[1])};
    const bool same = n[0] == n[1] && memcmp(data[0], data[1], n[0]) == 0;
    free(data[0]);
    free(data[1]);
    return same;
}

/* Two runs came to the same, to the bit. */
static inline void kit_expect_same_run(const char *folder, const char *other)
{
    static const char *const names[] = {"model.safetensors", "checkpoint.safetensors", "config.json",
                                        "tokenizer.json"};
    for (int i = 0; i < 4; i++)
        if (!kit_same_file(folder, other, names[i]))
            fail_msg("%s: not the same in %s and %s", names[i], folder, other);
}

#endif
