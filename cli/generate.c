/* cli/generate.c - tessera generate: a model goes on with a text */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "cli.h"
#include "format/npy.h"
#include "format/tokenizer.h"
#include "format/tokenizer_bytes.h"
#include "model/generate.h"

typedef struct generate_flags {
    common_options common;
    const char *directory, *prompt, *logits;
    tsr_generate_options generate;
    int64_t n_tokens, top_k, seed;
    int dtype;
} generate_flags;

static const char *const dtype_names[] = {"f32", "bf16", "f16", NULL};
static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};

static int read_flags(int argc, char **argv, generate_flags *f)
{
    tsr_sample_options *s = &f->generate.sample;
    f->n_tokens = 100;
    s->temperature = 0.8;
    s->top_p = 0.95;
    const option options[] = {
        required_option("-p, --prompt", "TEXT", &f->prompt, "what the text begins with"),
        int_option("-n, --tokens", "N", &f->n_tokens, 0, 1e9, "tokens to write at most (default 100)"),
        real_option("--temperature", "X", &s->temperature, 0, 100,
                    "0 takes the likeliest token (default 0.8)"),
        int_option("--top-k", "K", &f->top_k, 0, 1e9, "choose among the K likeliest, 0 = all (default 0)"),
        real_option("--top-p", "P", &s->top_p, 0, 1, "among the likeliest that sum up to P (default 0.95)"),
        real_option("--min-p", "P", &s->min_p, 0, 1,
                    "among those at least P times the likeliest (default 0)"),
        int_option("--seed", "N", &f->seed, 0, 9e15, "the same seed, the same text (default 0)"),
        choice_option("--dtype", "TYPE", &f->dtype, dtype_names,
                      "hold weights in f32 (default), bf16 or f16"),
        text_option("--logits", "FILE", &f->logits,
                    "store the logits of what follows the prompt, f32 [vocabulary], as .npy"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "generate",
        .usage = "DIR -p TEXT [options]",
        .description = "Goes on with a text. DIR is a Hugging Face directory of a Llama: config.json,\n"
                       "tokenizer.json, model.safetensors (or its index and shards).",
        .example = "tessera generate licences -p \"This License\" -n 200 --temperature 0.7",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
        .arguments = &f->directory,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    f->generate.n_tokens = f->n_tokens;
    f->generate.seed = (uint64_t)f->seed;
    s->top_k = (int32_t)(f->top_k < INT32_MAX ? f->top_k : INT32_MAX);
    return OPTIONS_READ;
}

typedef struct session {
    const generate_flags *flags;
    tsr_tokenizer *tokenizer;
    tsr_weights weights;
    tsr_ids prompt;
    float *logits;
    /* What was generated, for --json. */
    tsr_ids ids;
    char *text;
    size_t n_text, text_capacity;
    tsr_status status; /* of keeping it */
} session;

static tsr_status append_text(session *s, const char *bytes, size_t n)
{
    if (s->n_text + n + 1 > s->text_capacity) {
        const size_t capacity = 2 * (s->n_text + n) + 64;
        char *grown = realloc(s->text, capacity);
        if (grown == NULL) return tsr_fail(TSR_ERR_MEMORY, "out of memory for the text");
        s->text = grown, s->text_capacity = capacity;
    }
    memcpy(s->text + s->n_text, bytes, n);
    s->n_text += n;
    return TSR_OK;
}

static bool print_token(void *user, int32_t id)
{
    session *s = user;
    const char *bytes = "";
    size_t n = 0; /* stays so for an id without a token: models have more rows than tokens */
    if (tsr_tokenizer_token(s->tokenizer, id, &bytes, &n) != TSR_OK) n = 0;
    if (s->flags->common.json) {
        s->status = tsr_ids_append(&s->ids, id);
        if (s->status == TSR_OK) s->status = append_text(s, bytes, n);
        return s->status == TSR_OK;
    }
    fwrite(bytes, 1, n, stdout);
    return fflush(stdout) == 0;
}

static size_t peak_memory_nbytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

/* "a\"b" without the quotes around it; runs of bytes that are no UTF-8 become U+FFFD. */
static void print_json_text(const char *text, size_t n)
{
    while (n > 0) {
        const size_t valid = tsr_utf8_valid(text, n);
        for (size_t i = 0; i < valid; i++) {
            const unsigned char c = (unsigned char)text[i];
            if (c < 0x20 || c == '"' || c == '\\')
                printf("\\u%04x", c);
            else
                putchar(c);
        }
        text += valid, n -= valid;
        if (n == 0) return;
        fputs("\\ufffd", stdout);
        const size_t invalid = tsr_utf8_invalid(text, n);
        text += invalid, n -= invalid;
    }
}

static void print_json_ids(const tsr_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++) printf("%s%d", i == 0 ? "" : ",", (int)ids->id[i]);
}

static void print_figures(const session *s, const tsr_context *ctx, const tsr_generate_figures *g)
{
    const double prompt_rate = g->prompt_s > 0 ? (double)g->n_prompt / g->prompt_s : 0;
    const double rate = g->generate_s > 0 ? (double)g->n_generated / g->generate_s : 0;
    const double mib = (double)peak_memory_nbytes() / 1048576;
    if (s->flags->common.json) {
        printf("{\"prompt_tokens\":%lld,\"prompt_tokens_per_s\":%.1f,\"tokens\":%lld,\"tokens_per_s\":%.1f,"
               "\"peak_memory_mib\":%.1f,\"threads\":%d,\"backend\":\"%s\",\"prompt_ids\":[",
               (long long)g->n_prompt, prompt_rate, (long long)g->n_generated, rate, mib,
               (int)tsr_context_n_threads(ctx), tsr_context_backend(ctx));
        print_json_ids(&s->prompt);
        fputs("],\"ids\":[", stdout);
        print_json_ids(&s->ids);
        fputs("],\"text\":\"", stdout);
        print_json_text(s->text, s->n_text);
        puts("\"}");
        return;
    }
    putchar('\n');
    fflush(stdout);
    char kernels[512];
    snprintf(kernels, sizeof kernels, "%s", tsr_context_kernels(ctx));
    for (char *c = kernels; *c != 0; c++)
        if (*c == '\n') *c = c[1] == 0 ? 0 : ',';
    fprintf(stderr,
            "\nprompt %lld tokens, %.0f tokens/s; generated %lld, %.0f tokens/s; peak memory %.0f MiB; %d "
            "threads; "
            "backend %s: %s\n",
            (long long)g->n_prompt, prompt_rate, (long long)g->n_generated, rate, mib,
            (int)tsr_context_n_threads(ctx), tsr_context_backend(ctx), kernels);
}

static tsr_status open_session(session *s, tsr_context *ctx)
{
    const generate_flags *f = s->flags;
    tsr_llama_config config;
    int64_t parameters;
    TSR_TRY(tsr_weights_check(f->directory, &config, &parameters)); /* all that is cheap to say, first */
    TSR_TRY(tsr_tokenizer_load(f->directory, &s->tokenizer));
    TSR_TRY(tsr_tokenizer_encode(s->tokenizer, f->prompt, strlen(f->prompt), true, &s->prompt));
    /* Nothing to go on from: the end of a text that came before. */
    const int32_t eos = tsr_tokenizer_eos(s->tokenizer);
    if (s->prompt.n == 0 && eos >= 0) TSR_TRY(tsr_ids_append(&s->prompt, eos));
    const int64_t n_positions = (int64_t)s->prompt.n + f->n_tokens;
    TSR_TRY(tsr_weights_load(ctx, f->directory, dtypes[f->dtype], n_positions, &s->weights));
    if (f->logits != NULL) {
        s->logits = malloc((size_t)s->weights.config.vocab_size * sizeof *s->logits);
        if (s->logits == NULL) return tsr_fail(TSR_ERR_MEMORY, "out of memory for the logits");
    }
    return TSR_OK;
}

/* The text as it comes, then the logits' file. */
static tsr_status write_text(session *s, tsr_generate_figures *figures)
{
    const generate_flags *f = s->flags;
    tsr_generate_options options = f->generate;
    options.logits = s->logits;
    TSR_TRY(tsr_generate_check(&s->weights, s->prompt.id, (int64_t)s->prompt.n, &options));
    if (!f->common.json) fwrite(f->prompt, 1, strlen(f->prompt), stdout);
    TSR_TRY(tsr_generate(&s->weights, s->prompt.id, (int64_t)s->prompt.n, &options, print_token, s, figures));
    TSR_TRY(s->status);
    if (s->logits == NULL) return TSR_OK;
    const tsr_tensor logits = tsr_tensor_1d(s->logits, TSR_F32, s->weights.config.vocab_size);
    return tsr_npy_write(f->logits, &logits);
}

static int generate(tsr_context *ctx, const generate_flags *f)
{
    session s = {.flags = f};
    tsr_generate_figures figures = {0};
    tsr_status status = open_session(&s, ctx);
    if (status == TSR_OK) status = write_text(&s, &figures);
    if (status == TSR_OK) print_figures(&s, ctx, &figures);
    const int exit_status = status == TSR_OK ? EXIT_DONE : work_failed("generate");
    tsr_weights_free(&s.weights);
    tsr_tokenizer_free(s.tokenizer);
    tsr_ids_free(&s.prompt);
    tsr_ids_free(&s.ids);
    free(s.logits);
    free(s.text);
    return exit_status;
}

int command_generate(int argc, char **argv)
{
    generate_flags f = {0};
    int status = read_flags(argc, argv, &f);
    if (status != OPTIONS_READ) return status;
    tsr_context *ctx;
    status = open_context("generate", &f.common, &ctx);
    if (status != OPTIONS_READ) return status;
    status = generate(ctx, &f);
    tsr_context_destroy(ctx);
    return status;
}
