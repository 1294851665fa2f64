/*
 * format/tokenizer_read.c - tokenizer.json read, or refused by name
 *
 *     { "added_tokens": [{"id", "content", "special", ...}],
 *       "normalizer", "pre_tokenizer", "post_processor", "decoder": {"type": ...} or null,
 *       "model": {"type": "BPE", "vocab": {"letters": id}, "merges": ["a b"] or [["a", "b"]]} }
 *
 * The ids are counted first, since they size everything; then the parts are read in the order in
 * which they need each other.
 */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "format/file.h"
#include "format/json.h"
#include "format/printable.h"
#include "format/tokenizer_impl.h"
#include "format/tokenizer_normalize.h"

enum { MAX_FILE_NBYTES = 256 << 20, MAX_CONFIG_NBYTES = 16 << 20 };

static tsr_status refuse(const char *what, const char *value)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what, tsr_printable(value).text);
}

/* A field that may be missing or null, which leaves *out as it is. */
static tsr_status optional_bool(const json_t *object, const char *name, const char *key, bool *out)
{
    return tsr_json_has(object, key) ? tsr_json_bool(object, name, key, out) : TSR_OK;
}

static tsr_status type_of(const json_t *object, const char *name, const char **out)
{
    if (!json_is_object(object))
        return tsr_fail(TSR_ERR_FORMAT, "%s is %s, must be an object", name, tsr_json_kind(object));
    return tsr_json_string(object, name, "type", out);
}

/* --- the model --- */

static tsr_status read_vocab(tsr_tokenizer *t, json_t *vocab)
{
    const char *key;
    json_t *id;
    json_object_foreach(vocab, key, id)
    {
        if (!json_is_integer(id))
            return tsr_fail(TSR_ERR_FORMAT, "vocab: the id of \"%s\" is %s, must be an integer",
                            tsr_printable(key).text, tsr_json_kind(id));
        const json_int_t value = json_integer_value(id);
        if (value < 0)
            return tsr_fail(TSR_ERR_FORMAT, "vocab: the id of \"%s\" is %lld, must not be negative",
                            tsr_printable(key).text, (long long)value);
        TSR_TRY(tsr_tokenizer_put_key(t, (int32_t)value, key, strlen(key)));
    }
    return TSR_OK;
}

/* The id of one side of a merge, by its key of `n` bytes. */
static tsr_status side_of_merge(json_t *vocab, size_t rank, const char *side, size_t n, int32_t *out)
{
    char *key = strndup(side, n);
    if (key == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    const json_t *id = json_object_get(vocab, key);
    free(key);
    if (id == NULL)
        return tsr_fail(TSR_ERR_FORMAT, "merges: number %zu has \"%s\", which is not in the vocabulary", rank,
                        tsr_printable_n(side, n).text);
    *out = (int32_t)json_integer_value(id);
    return TSR_OK;
}

static tsr_status read_merge(tsr_tokenizer *t, json_t *vocab, size_t rank, const json_t *merge)
{
    const char *left = NULL, *right = NULL;
    size_t n_left = 0;
    if (json_is_string(merge)) {
        left = json_string_value(merge);
        n_left = strcspn(left, " ");
        right = left[n_left] == ' ' && strchr(left + n_left + 1, ' ') == NULL ? left + n_left + 1 : NULL;
    } else if (json_array_size(merge) == 2) {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        n_left = left == NULL ? 0 : strlen(left);
    }
    if (left == NULL || right == NULL)
        return tsr_fail(TSR_ERR_FORMAT, "merges: number %zu must be \"a b\" or [\"a\", \"b\"]", rank);
    int32_t ids[2];
    TSR_TRY(side_of_merge(vocab, rank, left, n_left, &ids[0]));
    TSR_TRY(side_of_merge(vocab, rank, right, strlen(right), &ids[1]));
    return tsr_tokenizer_put_merge(t, ids[0], ids[1], -1);
}

static tsr_status check_model(const json_t *model)
{
    const char *type;
    TSR_TRY(tsr_json_string(model, "model", "type", &type));
    if (strcmp(type, "BPE") != 0) return refuse("the model type", type);
    if (json_number_value(json_object_get(model, "dropout")) != 0) return refuse("model", "dropout");
    if (json_is_true(json_object_get(model, "byte_fallback"))) return refuse("model", "byte_fallback");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *affix = json_string_value(json_object_get(model, affixes[i]));
        if (affix != NULL && *affix != 0) return refuse("model", affixes[i]);
    }
    return TSR_OK; /* unk_token and fuse_unk never apply: every byte has a token */
}

static tsr_status read_model(tsr_tokenizer *t, const json_t *model, json_t *vocab, const json_t *merges)
{
    TSR_TRY(optional_bool(model, "model", "ignore_merges", &t->ignore_merges));
    TSR_TRY(read_vocab(t, vocab));
    size_t rank;
    json_t *merge;
    json_array_foreach(merges, rank, merge) TSR_TRY(read_merge(t, vocab, rank, merge));
    return TSR_OK;
}

/* --- added tokens --- */

static tsr_status read_added(tsr_tokenizer *t, const json_t *list)
{
    size_t i;
    json_t *token;
    json_array_foreach(list, i, token)
    {
        const char *content;
        int64_t id;
        bool single_word = false;
        tsr_added_entry entry = {0};
        TSR_TRY(tsr_json_string(token, "added_tokens", "content", &content));
        TSR_TRY(tsr_json_integer(token, "added_tokens", "id", 0, t->n_ids - 1, &id));
        TSR_TRY(optional_bool(token, "added_tokens", "single_word", &single_word));
        TSR_TRY(optional_bool(token, "added_tokens", "lstrip", &entry.lstrip));
        TSR_TRY(optional_bool(token, "added_tokens", "rstrip", &entry.rstrip));
        TSR_TRY(optional_bool(token, "added_tokens", "special", &entry.special));
        entry.normalized = !entry.special;
        TSR_TRY(optional_bool(token, "added_tokens", "normalized", &entry.normalized));
        if (single_word) return refuse("single_word of the added token", content);
        entry.id = (int32_t)id;
        TSR_TRY(tsr_tokenizer_put_added(t, entry, content, strlen(content)));
    }
    return TSR_OK;
}

/* --- normalizer and pre-tokenizer --- */

static tsr_status read_normalizer(tsr_tokenizer *t, const json_t *normalizer)
{
    if (normalizer == NULL || json_is_null(normalizer)) return TSR_OK;
    const char *type;
    TSR_TRY(type_of(normalizer, "normalizer", &type));
    if (strcmp(type, "NFC") != 0) return refuse("the normalizer", type);
    if (!tsr_has_nfc())
        return tsr_fail(TSR_ERR_UNSUPPORTED, "the normalizer \"NFC\" needs a build with utf8proc");
    t->nfc = true;
    return TSR_OK;
}

static tsr_status read_split(tsr_tokenizer *t, const json_t *split)
{
    const char *behavior, *source;
    bool invert = false;
    json_t *pattern;
    TSR_TRY(tsr_json_string(split, "Split", "behavior", &behavior));
    if (strcmp(behavior, "Isolated") != 0) return refuse("the behavior of Split", behavior);
    TSR_TRY(optional_bool(split, "Split", "invert", &invert));
    if (invert) return refuse("Split", "invert");
    TSR_TRY(tsr_json_object(split, "Split", "pattern", &pattern));
    const bool literal = tsr_json_has(pattern, "String");
    TSR_TRY(tsr_json_string(pattern, "Split: pattern", literal ? "String" : "Regex", &source));
    return tsr_tokenizer_put_pattern(t, source, literal);
}

/* The last pre-tokenizer, the one that turns bytes into letters. */
static tsr_status read_byte_level(tsr_tokenizer *t, const json_t *byte_level)
{
    bool use_regex = true;
    TSR_TRY(tsr_json_bool(byte_level, "ByteLevel", "add_prefix_space", &t->add_prefix_space));
    if (t->add_prefix_space && t->n_patterns > 0)
        return refuse("ByteLevel after another one", "add_prefix_space");
    TSR_TRY(optional_bool(byte_level, "ByteLevel", "use_regex", &use_regex));
    return use_regex ? tsr_tokenizer_put_pattern(t, tsr_gpt2_pattern, false) : TSR_OK;
}

static tsr_status read_pre_tokenizer(tsr_tokenizer *t, const json_t *pre, bool last)
{
    const char *type;
    TSR_TRY(type_of(pre, "pre_tokenizer", &type));
    if (last != (strcmp(type, "ByteLevel") == 0))
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "pre_tokenizer: %s is \"%s\"; \"ByteLevel\" must be the last, once",
                        last ? "the last" : "one before the last", tsr_printable(type).text);
    if (last) return read_byte_level(t, pre);
    if (strcmp(type, "Split") == 0) return read_split(t, pre);
    if (strcmp(type, "Digits") != 0) return refuse("the pre-tokenizer", type);
    bool individual;
    TSR_TRY(tsr_json_bool(pre, "Digits", "individual_digits", &individual));
    return tsr_tokenizer_put_pattern(t, individual ? "\\p{N}" : "\\p{N}+", false);
}

static tsr_status read_pre_tokenizers(tsr_tokenizer *t, const json_t *pre)
{
    const char *type;
    TSR_TRY(type_of(pre, "pre_tokenizer", &type));
    if (strcmp(type, "Sequence") != 0) return read_pre_tokenizer(t, pre, true);
    json_t *list, *item;
    TSR_TRY(tsr_json_array(pre, "pre_tokenizer", "pretokenizers", &list));
    size_t i;
    const size_t n = json_array_size(list);
    if (n == 0)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "pre_tokenizer: the sequence is empty, must end in ByteLevel");
    json_array_foreach(list, i, item) TSR_TRY(read_pre_tokenizer(t, item, i + 1 == n));
    return TSR_OK;
}

/* --- post-processor and decoder --- */

static tsr_status put_template_id(tsr_tokenizer *t, const json_t *id)
{
    if (!json_is_integer(id))
        return tsr_fail(TSR_ERR_FORMAT, "post_processor: an id is %s, must be an integer", tsr_json_kind(id));
    const json_int_t value = json_integer_value(id);
    if (value < 0 || value >= t->n_ids || !t->token[value].added)
        return tsr_fail(TSR_ERR_FORMAT, "post_processor: no added token has the id %lld", (long long)value);
    if (t->n_template == TSR_MAX_TEMPLATE)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "post_processor: the template has more than %d tokens",
                        TSR_MAX_TEMPLATE);
    t->template_id[t->n_template++] = (int32_t)value;
    return TSR_OK;
}

/* {"SpecialToken": {"id": name}}: the ids that special_tokens lists under this name. */
static tsr_status read_template_token(tsr_tokenizer *t, const json_t *special_tokens, const json_t *item)
{
    const char *name;
    json_t *ids, *id;
    size_t i;
    TSR_TRY(
        tsr_json_string(json_object_get(item, "SpecialToken"), "post_processor: SpecialToken", "id", &name));
    TSR_TRY(
        tsr_json_array(json_object_get(special_tokens, name), "post_processor: special_tokens", "ids", &ids));
    json_array_foreach(ids, i, id) TSR_TRY(put_template_id(t, id));
    return TSR_OK;
}

static tsr_status read_template(tsr_tokenizer *t, const json_t *processor)
{
    json_t *single, *item;
    size_t i;
    bool text_seen = false;
    if (t->n_template > 0) return refuse("post_processor: a second", "TemplateProcessing");
    TSR_TRY(tsr_json_array(processor, "post_processor", "single", &single));
    json_array_foreach(single, i, item)
    {
        if (json_object_get(item, "Sequence") == NULL) {
            TSR_TRY(read_template_token(t, json_object_get(processor, "special_tokens"), item));
            continue;
        }
        const char *which;
        TSR_TRY(tsr_json_string(json_object_get(item, "Sequence"), "post_processor: Sequence", "id", &which));
        if (text_seen || strcmp(which, "A") != 0) return refuse("post_processor: a second sequence", which);
        text_seen = true;
        t->n_before = t->n_template;
    }
    return text_seen ? TSR_OK : tsr_fail(TSR_ERR_FORMAT, "post_processor: the template leaves out the text");
}

static tsr_status read_post_processor(tsr_tokenizer *t, const json_t *processor, bool nested)
{
    if (processor == NULL || json_is_null(processor)) return TSR_OK;
    const char *type;
    TSR_TRY(type_of(processor, "post_processor", &type));
    if (strcmp(type, "ByteLevel") == 0) return TSR_OK; /* moves offsets, not ids */
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(t, processor);
    if (strcmp(type, "Sequence") != 0 || nested) return refuse("the post-processor", type);
    json_t *list, *item;
    size_t i;
    TSR_TRY(tsr_json_array(processor, "post_processor", "processors", &list));
    json_array_foreach(list, i, item) TSR_TRY(read_post_processor(t, item, true));
    return TSR_OK;
}

static tsr_status check_decoder(const json_t *decoder)
{
    const char *type;
    TSR_TRY(type_of(decoder, "decoder", &type));
    return strcmp(type, "ByteLevel") == 0 ? TSR_OK : refuse("the decoder", type);
}

/* --- the whole --- */

/* Where the file itself says what begins and ends a text; a directory's tokenizer_config.json says it better.
 */
static void guess_ends(tsr_tokenizer *t)
{
    static const char *const usual[] = {"<|endoftext|>", "<|end_of_text|>", "</s>"};
    if (t->n_before > 0) t->bos = t->template_id[0];
    if (t->n_template > t->n_before) t->eos = t->template_id[t->n_template - 1];
    for (size_t i = 0; t->eos < 0 && i < sizeof usual / sizeof *usual; i++) {
        const int32_t id = tsr_tokenizer_find(t, usual[i], strlen(usual[i]));
        if (tsr_tokenizer_is_special(t, id)) t->eos = id;
    }
}

/* At most half of the ids may be gaps in the numbering, so that the file's length bears out what is
 * allocated. */
static tsr_status count_ids(json_t *vocab, const json_t *added, int32_t *out)
{
    const size_t n = json_object_size(vocab) + json_array_size(added);
    if (n > TSR_MAX_IDS)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "there are %zu tokens, more than %d", n, TSR_MAX_IDS);
    json_int_t largest = -1;
    const char *key;
    json_t *id;
    size_t i;
    json_object_foreach(vocab, key, id) if (json_integer_value(id) > largest)
        largest = json_integer_value(id);
    json_array_foreach(added, i, id)
    {
        const json_int_t value = json_integer_value(json_object_get(id, "id"));
        if (value > largest) largest = value;
    }
    if (largest >= 2 * (json_int_t)n)
        return tsr_fail(TSR_ERR_FORMAT, "the largest id is %lld, must be below twice the %zu tokens",
                        (long long)largest, n);
    *out = (int32_t)largest + 1;
    return TSR_OK;
}

static tsr_status read_parts(tsr_tokenizer *t, const json_t *root, const json_t *model, json_t *vocab,
                             const json_t *merges, const json_t *added)
{
    TSR_TRY(read_model(t, model, vocab, merges));
    TSR_TRY(read_added(t, added));
    TSR_TRY(read_normalizer(t, json_object_get(root, "normalizer")));
    TSR_TRY(read_pre_tokenizers(t, json_object_get(root, "pre_tokenizer")));
    TSR_TRY(read_post_processor(t, json_object_get(root, "post_processor"), false));
    TSR_TRY(check_decoder(json_object_get(root, "decoder")));
    TSR_TRY(tsr_tokenizer_finish(t));
    guess_ends(t);
    return TSR_OK;
}

static tsr_status read_root(const json_t *root, tsr_tokenizer **out)
{
    json_t *model, *vocab, *merges, *added = NULL;
    int32_t n_ids = 0;
    if (!json_is_object(root))
        return tsr_fail(TSR_ERR_FORMAT, "is %s, must be an object", tsr_json_kind(root));
    if (tsr_json_has(root, "truncation")) return refuse("tokenizer", "truncation");
    if (tsr_json_has(root, "padding")) return refuse("tokenizer", "padding");
    TSR_TRY(tsr_json_object(root, "tokenizer", "model", &model));
    TSR_TRY(check_model(model));
    TSR_TRY(tsr_json_object(model, "model", "vocab", &vocab));
    TSR_TRY(tsr_json_array(model, "model", "merges", &merges));
    if (tsr_json_has(root, "added_tokens"))
        TSR_TRY(tsr_json_array(root, "tokenizer", "added_tokens", &added));
    if (json_array_size(merges) > TSR_MAX_IDS)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "there are %zu merges, more than %d", json_array_size(merges),
                        TSR_MAX_IDS);
    TSR_TRY(count_ids(vocab, added, &n_ids));
    tsr_tokenizer *t;
    TSR_TRY(tsr_tokenizer_new(n_ids, (int32_t)json_array_size(merges), (int32_t)json_array_size(added), &t));
    const tsr_status status = read_parts(t, root, model, vocab, merges, added);
    if (status != TSR_OK)
        tsr_tokenizer_free(t);
    else
        *out = t;
    return status;
}

tsr_status tsr_tokenizer_parse(const char *text, size_t n, const char *name, tsr_tokenizer **out)
{
    json_t *root;
    TSR_TRY(tsr_json_parse(name, text, n, &root));
    tsr_status status = read_root(root, out);
    if (status != TSR_OK) status = tsr_fail_within(status, "%s", name);
    json_decref(root);
    return status;
}

/* bos_token and eos_token of tokenizer_config.json: a string, or an object with its content. */
static tsr_status read_end(const tsr_tokenizer *t, const json_t *config, const char *name, const char *key,
                           int32_t *id)
{
    if (!tsr_json_has(config, key)) return TSR_OK;
    const json_t *token = json_object_get(config, key);
    const char *content = json_string_value(json_is_object(token) ? json_object_get(token, "content")
                                                                  : token);
    if (content == NULL)
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s must be a string or have a content", name, key);
    const int32_t found = tsr_tokenizer_find(t, content, strlen(content));
    if (found < 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s is \"%s\", which is not a token", name, key,
                        tsr_printable(content).text);
    *id = found;
    return TSR_OK;
}

static tsr_status read_config(tsr_tokenizer *t, const char *path)
{
    json_t *config;
    TSR_TRY(tsr_json_read(path, MAX_CONFIG_NBYTES, &config));
    tsr_status status = json_is_object(config) ? TSR_OK
                                               : tsr_fail(TSR_ERR_FORMAT, "%s must be an object", path);
    if (status == TSR_OK) status = read_end(t, config, path, "bos_token", &t->bos);
    if (status == TSR_OK) status = read_end(t, config, path, "eos_token", &t->eos);
    json_decref(config);
    return status;
}

tsr_status tsr_tokenizer_load(const char *path, tsr_tokenizer **out)
{
    struct stat info;
    const bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    static const char config_name[] = "/tokenizer_config.json";
    char *name = malloc(strlen(path) + sizeof config_name);
    if (name == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    sprintf(name, "%s%s", path, directory ? "/tokenizer.json" : "");
    tsr_file file = {0};
    tsr_tokenizer *t = NULL;
    tsr_status status = tsr_file_read(name, MAX_FILE_NBYTES, &file);
    if (status == TSR_OK) status = tsr_tokenizer_parse((const char *)file.data, file.nbytes, name, &t);
    tsr_file_release(&file);
    if (directory && status == TSR_OK) {
        sprintf(name, "%s%s", path, config_name);
        if (lstat(name, &info) == 0) status = read_config(t, name);
    }
    free(name);
    if (status != TSR_OK)
        tsr_tokenizer_free(t);
    else
        *out = t;
    return status;
}
