/*
 * bench/train.c - whole training steps, as useful work
 *
 * Useful FLOP of a token: 6 for each parameter (2 forward, 4 backward), and 6 * layers * dim * context for
 * causal attention's two products, which see half of the context on average. What a step does besides
 * (softmax, norms, recomputation, the optimiser) is time, not work.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "bench.h"
#include "train/trainer.h"

static tsr_status run_step(void *arg)
{
    double loss;
    return tsr_trainer_step(arg, &loss);
}

static tsr_status measure_dtype(bench *b, const char *data, tsr_dtype dtype)
{
    char directory[] = "/tmp/tessera-bench-XXXXXX", file[64];
    if (mkdtemp(directory) == NULL) return tsr_fail(TSR_ERR_IO, "%s: cannot be made", directory);
    tsr_train_options options = tsr_train_defaults();
    options.data = data, options.out = directory, options.dtype = dtype;
    options.steps = 1000000; /* the learning rate's schedule: never reached */
    tsr_trainer t;
    tsr_status status = tsr_trainer_open(bench_context(b), &options, &t);
    if (status == TSR_OK) {
        const double n = (double)tsr_weights_numel(&t.weights), tokens = (double)tsr_trainer_step_tokens(&t);
        const double attention = 6.0 * (double)(options.layers * options.dim * options.context);
        bench_row row = {.op = "train", .flop = tokens * (6 * n + attention), .run = run_step, .arg = &t};
        snprintf(row.shape, sizeof row.shape, "%s dim %d layers %d context %d batch %d",
                 tsr_dtype_name(dtype), (int)options.dim, (int)options.layers, (int)options.context,
                 (int)options.batch);
        snprintf(
            row.json, sizeof row.json,
            "\"dtype\":\"%s\",\"dim\":%d,\"layers\":%d,\"heads\":%d,\"kv_heads\":%d,\"ffn\":%d,\"vocab\":%d,"
            "\"context\":%d,\"batch\":%d,\"tokens\":%.0f",
            tsr_dtype_name(dtype), (int)options.dim, (int)options.layers, (int)options.heads,
            (int)options.kv_heads, (int)options.ffn, (int)t.weights.config.vocab_size, (int)options.context,
            (int)options.batch, tokens);
        status = bench_measure(b, &row, NULL);
        tsr_trainer_close(&t);
    }
    static const char *const made[] = {"tokenizer.json", "tokenizer_config.json"};
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", directory, made[i]);
        unlink(file);
    }
    rmdir(directory);
    return status;
}

tsr_status bench_check_train(const char *data)
{
    tsr_corpus corpus;
    TSR_TRY(tsr_corpus_load(data, &corpus));
    const size_t nbytes = corpus.train_nbytes, least = (size_t)tsr_train_defaults().context + 1;
    tsr_corpus_free(&corpus);
    if (nbytes >= least) return TSR_OK; /* a token has a byte at least */
    return tsr_fail(TSR_ERR_ARGUMENT, "%zu bytes to learn from, must be %zu or more", nbytes, least);
}

tsr_status bench_train(bench *b, const char *data)
{
    TSR_TRY(measure_dtype(b, data, TSR_F32));
    return measure_dtype(b, data, TSR_BF16);
}
