/* cli/generate.c - tessera generate: a model goes on with a text */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "cli.h"
#include "format/tokenizer.h"
#include "model/generate.h"

typedef struct generate_flags {
    common_options common;
    const char *directory, *prompt;
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
    char *text; /* what was generated, for --json */
    size_t n_text, text_capacity;
} session;

static tsr_status append_text(session *s, const char *bytes, size_t n)
{
    if (s->n_text + n + 1 > s->text_capacity) {
        const size_t capacity = 2 * (s->n_text + n) + 64;
        char *grown = realloc(s->text, capacity);
        if (grown == NULL) return tsr_fail(TSR_ERR_MEMORY, "generate: out of memory");
        s->text = grown, s->text_capacity = capacity;
    }
    memcpy(s->text + s->n_text, bytes, n);
    s->n_text += n;
    return TSR_OK;
}

static bool print_token(void *user, int32_t id)
{
    session *s = user;
    const char *bytes;
    size_t n;
    if (tsr_tokenizer_token(s->tokenizer, id, &bytes, &n) != TSR_OK) return true; /* an id without a token */
    if (s->flags->common.json) return append_text(s, bytes, n) == TSR_OK;
    fwrite(bytes, 1, n, stdout);
    return fflush(stdout) == 0;
}

static size_t peak_memory_nbytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

/* "a\"b" without the quotes around it; bytes that are no UTF-8 would break the JSON, so they become U+FFFD.
 */
static void print_json_text(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const unsigned char c = (unsigned char)text[i];
        const int length = c < 0x80                ? 1
                           : c >= 0xc2 && c < 0xe0 ? 2
                           : c >= 0xe0 && c < 0xf0 ? 3
                           : c >= 0xf0 && c < 0xf5 ? 4
                                                   : 0;
        bool whole = length > 0 && i + (size_t)length <= n;
        for (int k = 1; whole && k < length; k++) whole = ((unsigned char)text[i + (size_t)k] & 0xc0) == 0x80;
        if (!whole) {
            fputs("\\ufffd", stdout);
            i++;
            continue;
        }
        if (c < 0x20 || c == '"' || c == '\\')
            printf("\\u%04x", c);
        else
            fwrite(text + i, 1, (size_t)length, stdout);
        i += (size_t)length;
    }
}

static void print_figures(const session *s, const tsr_context *ctx, const tsr_generate_figures *g)
{
    const double prompt_rate = g->prompt_s > 0 ? (double)g->n_prompt / g->prompt_s : 0;
    const double rate = g->generate_s > 0 ? (double)g->n_generated / g->generate_s : 0;
    const double mib = (double)peak_memory_nbytes() / 1048576;
    if (s->flags->common.json) {
        printf("{\"prompt_tokens\":%lld,\"prompt_tokens_per_s\":%.1f,\"tokens\":%lld,\"tokens_per_s\":%.1f,"
               "\"peak_memory_mib\":%.1f,\"threads\":%d,\"backend\":\"%s\",\"text\":\"",
               (long long)g->n_prompt, prompt_rate, (long long)g->n_generated, rate, mib,
               (int)tsr_context_n_threads(ctx), tsr_context_backend(ctx));
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
    TSR_TRY(tsr_tokenizer_load(f->directory, &s->tokenizer));
    TSR_TRY(tsr_weights_load(ctx, f->directory, dtypes[f->dtype], &s->weights));
    TSR_TRY(tsr_tokenizer_encode(s->tokenizer, f->prompt, strlen(f->prompt), true, &s->prompt));
    /* Nothing to go on from: the end of a text that came before. */
    if (s->prompt.n == 0 && tsr_tokenizer_eos(s->tokenizer) >= 0) {
        s->prompt.id = malloc(sizeof *s->prompt.id);
        if (s->prompt.id == NULL) return tsr_fail(TSR_ERR_MEMORY, "generate: out of memory");
        s->prompt.id[s->prompt.n++] = tsr_tokenizer_eos(s->tokenizer);
        s->prompt.capacity = 1;
    }
    return TSR_OK;
}

static int generate(tsr_context *ctx, const generate_flags *f)
{
    session s = {.flags = f};
    tsr_generate_figures figures = {0};
    tsr_status status = open_session(&s, ctx);
    if (status == TSR_OK) {
        if (!f->common.json) fwrite(f->prompt, 1, strlen(f->prompt), stdout);
        status = tsr_generate(&s.weights, s.prompt.id, (int64_t)s.prompt.n, &f->generate, print_token, &s,
                              &figures);
    }
    if (status == TSR_OK) print_figures(&s, ctx, &figures);
    const int exit_status = status == TSR_OK ? EXIT_DONE : work_failed("generate");
    tsr_weights_free(&s.weights);
    tsr_tokenizer_free(s.tokenizer);
    tsr_ids_free(&s.prompt);
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
