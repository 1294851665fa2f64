/*
 * format/tokenizer_write.c - tokenizer.json and tokenizer_config.json written
 *
 * What was read is written in its plainest equal: patterns as a Sequence of Splits before
 * ByteLevel (GPT-2's alone as ByteLevel's own), merges as "a b", which every reader knows.
 */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/file.h"
#include "format/json.h"
#include "format/tokenizer_bytes.h"
#include "format/tokenizer_impl.h"

static tsr_status out_of_memory(void)
{
    return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory while writing");
}

/* A token as the vocabulary's key, ended by 0 and malloc-ed. */
static char *key_of(const tsr_tokenizer *t, int32_t id)
{
    const tsr_token *token = &t->token[id];
    const size_t n = (size_t)token->nbytes;
    char *key = malloc(2 * n + 1);
    if (key == NULL) return NULL;
    if (token->spelled)
        key[tsr_bytes_spell(tsr_token_bytes(t, id), n, key)] = 0;
    else
        memcpy(key, tsr_token_bytes(t, id), n), key[n] = 0;
    return key;
}

static json_t *vocab_of(const tsr_tokenizer *t)
{
    json_t *vocab = json_object();
    for (int32_t id = 0; vocab != NULL && id < t->n_ids; id++) {
        if (!t->token[id].in_vocab) continue;
        char *key = key_of(t, id);
        if (key == NULL || json_object_set_new(vocab, key, json_integer(id)) != 0) {
            json_decref(vocab);
            vocab = NULL;
        }
        free(key);
    }
    return vocab;
}

static json_t *merges_of(const tsr_tokenizer *t)
{
    json_t *merges = json_array();
    for (int32_t i = 0; merges != NULL && i < t->merges.n; i++) {
        char *left = key_of(t, t->merges.rule[i].left), *right = key_of(t, t->merges.rule[i].right);
        if (left == NULL || right == NULL ||
            json_array_append_new(merges, json_sprintf("%s %s", left, right)) != 0) {
            json_decref(merges);
            merges = NULL;
        }
        free(left), free(right);
    }
    return merges;
}

static json_t *content_of(const tsr_tokenizer *t, int32_t id)
{
    return json_stringn(tsr_token_bytes(t, id), (size_t)t->token[id].nbytes);
}

static int by_id(const void *a, const void *b)
{
    const tsr_added_entry *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* By id, as readers that number added tokens themselves count on. */
static json_t *added_of(const tsr_tokenizer *t)
{
    json_t *list = json_array();
    tsr_added_entry *sorted = malloc(((size_t)t->n_added + 1) * sizeof *sorted);
    bool failed = list == NULL || sorted == NULL;
    for (int32_t i = 0; !failed && i < t->n_added; i++) sorted[i] = t->added[i];
    if (!failed) qsort(sorted, (size_t)t->n_added, sizeof *sorted, by_id);
    for (int32_t i = 0; !failed && i < t->n_added; i++) {
        const tsr_added_entry *e = &sorted[i];
        failed = json_array_append_new(list,
                                       json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (int)e->id,
                                                 "content", content_of(t, e->id), "single_word", 0, "lstrip",
                                                 (int)e->lstrip, "rstrip", (int)e->rstrip, "normalized",
                                                 (int)e->normalized, "special", (int)e->special)) != 0;
    }
    free(sorted);
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

static json_t *byte_level(bool add_prefix_space, bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", (int)add_prefix_space,
                     "trim_offsets", 1, "use_regex", (int)use_regex);
}

static json_t *pre_tokenizer_of(const tsr_tokenizer *t)
{
    if (t->n_patterns == 0) return byte_level(t->add_prefix_space, false);
    const tsr_pattern *last = &t->pattern[t->n_patterns - 1];
    const bool gpt2 = !last->literal && strcmp(last->source, tsr_gpt2_pattern) == 0;
    const int n_splits = t->n_patterns - (gpt2 ? 1 : 0);
    if (n_splits == 0) return byte_level(t->add_prefix_space, true);
    json_t *list = json_array();
    for (int i = 0; i < n_splits; i++) {
        const tsr_pattern *p = &t->pattern[i];
        if (json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                                                  p->literal ? "String" : "Regex", p->source, "behavior",
                                                  "Isolated", "invert", 0)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    if (json_array_append_new(list, byte_level(false, gpt2)) != 0) {
        json_decref(list);
        return NULL;
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static int put_template_token(const tsr_tokenizer *t, int32_t id, json_t *order, json_t *tokens)
{
    json_t *content = content_of(t, id);
    const char *name = json_string_value(content);
    int failed = name == NULL;
    if (!failed)
        failed = json_array_append_new(
                     order, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0)) ||
                 json_object_set_new(
                     tokens, name,
                     json_pack("{s:s, s:[i], s:[s]}", "id", name, "ids", (int)id, "tokens", name));
    json_decref(content);
    return failed;
}

static json_t *post_processor_of(const tsr_tokenizer *t)
{
    if (t->n_template == 0) return json_null();
    json_t *order = json_array(), *tokens = json_object(), *pair = NULL;
    int failed = 0;
    for (int i = 0; i < t->n_before; i++) failed |= put_template_token(t, t->template_id[i], order, tokens);
    failed |= json_array_append_new(order, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    for (int i = t->n_before; i < t->n_template; i++)
        failed |= put_template_token(t, t->template_id[i], order, tokens);
    /* A pair of texts is one after the other, which tessera never makes; readers want the field. */
    pair = json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}]", "Sequence", "id", "A", "type_id", 0, "Sequence",
                     "id", "B", "type_id", 1);
    if (!failed && pair != NULL)
        return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", order, "pair", pair,
                         "special_tokens", tokens);
    json_decref(order), json_decref(tokens), json_decref(pair);
    return NULL;
}

static json_t *document_of(const tsr_tokenizer *t)
{
    json_t *normalizer = t->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", (int)t->ignore_merges, "vocab",
                              vocab_of(t), "merges", merges_of(t));
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_of(t), "normalizer", normalizer, "pre_tokenizer",
                     pre_tokenizer_of(t), "post_processor", post_processor_of(t), "decoder",
                     byte_level(true, true), "model", model);
}

/* What transformers needs to know besides tokenizer.json: the class that reads it, and the ends of a text. */
static json_t *config_of(const tsr_tokenizer *t)
{
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "clean_up_tokenization_spaces", 0);
    if (t->bos >= 0 && json_object_set_new(config, "bos_token", content_of(t, t->bos)) != 0) goto failed;
    if (t->eos >= 0 && json_object_set_new(config, "eos_token", content_of(t, t->eos)) != 0) goto failed;
    return config;
failed:
    json_decref(config);
    return NULL;
}

static int write_chunk(const char *text, size_t n, void *writer)
{
    return tsr_writer_write(writer, text, n) == TSR_OK ? 0 : -1;
}

/* Takes the document over. */
static tsr_status write_document(json_t *document, const char *directory, const char *name)
{
    if (document == NULL) return out_of_memory();
    tsr_writer *writer = NULL;
    char *path = malloc(strlen(directory) + strlen(name) + 2);
    tsr_status status = path == NULL ? out_of_memory() : TSR_OK;
    if (status == TSR_OK) {
        sprintf(path, "%s/%s", directory, name);
        status = tsr_writer_open(path, &writer);
    }
    if (status == TSR_OK) {
        if (json_dump_callback(document, write_chunk, writer, JSON_INDENT(2)) != 0) {
            status = tsr_writer_write(writer, "", 0); /* says again why, if it was the file */
            if (status == TSR_OK) status = out_of_memory();
            tsr_writer_discard(writer);
        } else {
            status = tsr_writer_commit(writer);
        }
    }
    free(path);
    json_decref(document);
    return status;
}

tsr_status tsr_tokenizer_save(const tsr_tokenizer *t, const char *directory)
{
    TSR_TRY(write_document(document_of(t), directory, "tokenizer.json"));
    return write_document(config_of(t), directory, "tokenizer_config.json");
}
