/*
 * cli/info_model.c - tessera info DIR_OR_FILE: all that loading would check, then what is in it
 *
 * A folder is a model: config.json, tokenizer.json and every tensor that the configuration asks for, with
 * its shape. A .safetensors file (or an index) is tensors, listed one by one.
 */
#define _POSIX_C_SOURCE 200809L
#include "info_model.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "format/config.h"
#include "format/printable.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"

/* What was opened; config and tokenizer belong to folders only. */
typedef struct model_files {
    bool is_folder;
    tsr_llama_config config;
    int32_t vocab_size; /* the tokenizer's */
    tsr_safetensors *tensors;
} model_files;

static tsr_status expect(const model_files *m, const char *name, int64_t n0, int64_t n1)
{
    const int64_t shape[] = {n0, n1};
    const tsr_stored *stored;
    return tsr_safetensors_expect(m->tensors, name, n1 == 0 ? 1 : 2, shape, &stored);
}

static tsr_status expect_layer(const model_files *m, int64_t layer)
{
    const tsr_llama_config *c = &m->config;
    const int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    const struct {
        const char *name;
        int64_t n0, n1; /* n1 = 0: a vector */
    } parts[] = {
        {"input_layernorm", c->hidden_size, 0},
        {"self_attn.q_proj", q, c->hidden_size},
        {"self_attn.k_proj", kv, c->hidden_size},
        {"self_attn.v_proj", kv, c->hidden_size},
        {"self_attn.o_proj", c->hidden_size, q},
        {"post_attention_layernorm", c->hidden_size, 0},
        {"mlp.gate_proj", c->intermediate_size, c->hidden_size},
        {"mlp.up_proj", c->intermediate_size, c->hidden_size},
        {"mlp.down_proj", c->hidden_size, c->intermediate_size},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s.weight", layer, parts[i].name);
        TSR_TRY(expect(m, name, parts[i].n0, parts[i].n1));
    }
    return TSR_OK;
}

static tsr_status check_model(const model_files *m)
{
    const tsr_llama_config *c = &m->config;
    TSR_TRY(expect(m, "model.embed_tokens.weight", c->vocab_size, c->hidden_size));
    for (int64_t i = 0; i < c->num_hidden_layers; i++) TSR_TRY(expect_layer(m, i));
    TSR_TRY(expect(m, "model.norm.weight", c->hidden_size, 0));
    if (!c->tie_word_embeddings) TSR_TRY(expect(m, "lm_head.weight", c->vocab_size, c->hidden_size));
    if (m->vocab_size > c->vocab_size)
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json has %d tokens, config.json's vocab_size is %" PRId64,
                        (int)m->vocab_size, c->vocab_size);
    return TSR_OK;
}

static tsr_status open_folder(const char *path, model_files *m)
{
    char config[4096];
    if (snprintf(config, sizeof config, "%s/config.json", path) >= (int)sizeof config)
        return tsr_fail(TSR_ERR_IO, "%s: the path is too long", tsr_printable(path).text);
    TSR_TRY(tsr_llama_config_read(config, &m->config));
    tsr_tokenizer *tokenizer;
    TSR_TRY(tsr_tokenizer_load(path, &tokenizer));
    m->vocab_size = tsr_tokenizer_vocab_size(tokenizer);
    tsr_tokenizer_free(tokenizer);
    TSR_TRY(tsr_safetensors_open(path, &m->tensors));
    return check_model(m);
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
    json_t *report = json_pack("{s:s, s:I, s:I, s:o}", "path", path, "parameters", parameters, "bytes",
                               nbytes, "tensors", tensors);
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
