/*
 * cli/info_model.c - tessera info DIR_OR_FILE: all that loading would check, then what is in it
 *
 * A folder is a model: config.json, tokenizer.json and every tensor that the configuration asks for, with
 * its shape. A .safetensors file (or an index) is tensors, listed one by one.
 */
#define _POSIX_C_SOURCE 200809L
#include "info_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "format/printable.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"
#include "model/weights.h"

/* What was opened; config and tokenizer belong to folders only. */
typedef struct model_files {
    bool is_folder;
    tsr_llama_config config;
    int32_t vocab_size; /* the tokenizer's */
    tsr_safetensors *tensors;
} model_files;

static tsr_status open_folder(const char *path, model_files *m)
{
    int64_t parameters;
    TSR_TRY(tsr_weights_check(path, &m->config, &parameters));
    tsr_tokenizer *tokenizer;
    TSR_TRY(tsr_tokenizer_load(path, &tokenizer));
    m->vocab_size = tsr_tokenizer_vocab_size(tokenizer);
    tsr_tokenizer_free(tokenizer);
    if (m->vocab_size > m->config.vocab_size)
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: tokenizer.json has %d tokens, config.json's vocab_size is %" PRId64,
                        tsr_printable(path).text, (int)m->vocab_size, m->config.vocab_size);
    return tsr_safetensors_open(path, &m->tensors);
}

static tsr_status open_model(const char *path, model_files *m)
{
    struct stat status;
    m->is_folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    return m->is_folder ? open_folder(path, m) : tsr_safetensors_open(path, &m->tensors);
}

static json_t *describe_tensor(const tsr_stored *t)
{
    json_t *shape = json_array();
    for (int32_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "dtype", tsr_safetensors_dtype_name(t->dtype),
                     "shape", shape, "bytes", (json_int_t)t->nbytes);
}

static json_t *describe_config(const model_files *m)
{
    const tsr_llama_config *c = &m->config;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:i}", "architecture",
                     "LlamaForCausalLM", "layers", (json_int_t)c->num_hidden_layers, "hidden_size",
                     (json_int_t)c->hidden_size, "heads", (json_int_t)c->num_attention_heads, "kv_heads",
                     (json_int_t)c->num_key_value_heads, "head_dim", (json_int_t)c->head_dim,
                     "intermediate_size", (json_int_t)c->intermediate_size, "vocab_size",
                     (json_int_t)c->vocab_size, "context", (json_int_t)c->max_position_embeddings, "dtype",
                     tsr_dtype_name(c->dtype), "tied", c->tie_word_embeddings, "tokens", (int)m->vocab_size);
}

static json_t *describe(const char *path, const model_files *m)
{
    size_t n;
    const tsr_stored *list = tsr_safetensors_list(m->tensors, &n);
    json_t *tensors = json_array();
    json_int_t parameters = 0, nbytes = 0;
    for (size_t i = 0; i < n; i++) {
        const tsr_stored *t = &list[i];
        nbytes += (json_int_t)t->nbytes;
        parameters += (json_int_t)(t->nbytes / tsr_dtype_nbytes(t->dtype));
        json_array_append_new(tensors, describe_tensor(t));
    }
    json_t *report = json_pack("{s:o, s:I, s:I, s:o}", "path", json_path(path), "parameters", parameters,
                               "bytes", nbytes, "tensors", tensors);
    if (m->is_folder) json_object_set_new(report, "model", describe_config(m));
    return report;
}

static void print_config(const model_files *m)
{
    const tsr_llama_config *c = &m->config;
    printf("  LlamaForCausalLM, stored in %s%s\n", tsr_dtype_name(c->dtype),
           c->tie_word_embeddings ? ", embedding and output projection shared" : "");
    printf("  %-14s %" PRId64 ", hidden size %" PRId64 ", feed-forward %" PRId64 "\n", "layers",
           c->num_hidden_layers, c->hidden_size, c->intermediate_size);
    printf("  %-14s %" PRId64 ", key and value heads %" PRId64 ", head size %" PRId64 "\n", "heads",
           c->num_attention_heads, c->num_key_value_heads, c->head_dim);
    printf("  %-14s %" PRId64 ", of which the tokenizer has %d\n", "vocabulary", c->vocab_size,
           (int)m->vocab_size);
    printf("  %-14s %" PRId64 "\n", "context", c->max_position_embeddings);
}

static void print_tensors(const json_t *report)
{
    size_t i;
    json_t *t;
    json_array_foreach(json_object_get(report, "tensors"), i, t)
    {
        char *shape = json_dumps(json_object_get(t, "shape"), 0);
        printf("  %-6s %-18s %s\n", json_string_value(json_object_get(t, "dtype")),
               shape != NULL ? shape : "", tsr_printable(json_string_value(json_object_get(t, "name"))).text);
        free(shape);
    }
}

static void print_report(const char *path, const model_files *m, const json_t *report)
{
    printf("%s\n", tsr_printable(path).text);
    if (m->is_folder)
        print_config(m);
    else
        print_tensors(report);
    printf("  %-14s %zu\n", "tensors", json_array_size(json_object_get(report, "tensors")));
    printf("  %-14s %" JSON_INTEGER_FORMAT "\n", "parameters",
           json_integer_value(json_object_get(report, "parameters")));
    printf("  %-14s %" JSON_INTEGER_FORMAT "\n", "bytes",
           json_integer_value(json_object_get(report, "bytes")));
}

int show_model(const char *path, const common_options *common)
{
    model_files m = {.is_folder = false};
    int status = EXIT_DONE;
    if (open_model(path, &m) != TSR_OK) {
        status = work_failed("info");
    } else {
        json_t *report = describe(path, &m);
        if (common->json) {
            json_dumpf(report, stdout, JSON_COMPACT);
            putchar('\n');
        } else {
            print_report(path, &m, report);
        }
        json_decref(report);
    }
    tsr_safetensors_close(m.tensors);
    return status;
}
