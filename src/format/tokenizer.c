/* format/tokenizer.c - a tokenizer put together, looked up and decoded */
#include "format/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/printable.h"
#include "format/tokenizer_bytes.h"
#include "format/tokenizer_impl.h"
#include "format/tokenizer_normalize.h"

tsr_status tsr_tokenizer_new(int32_t n_ids, int32_t n_merges, int32_t n_added, tsr_tokenizer **out)
{
    tsr_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    t->n_ids = n_ids;
    t->bos = t->eos = -1;
    t->token = calloc((size_t)n_ids + 1, sizeof *t->token);
    t->merges.rule = malloc(((size_t)n_merges + 1) * sizeof *t->merges.rule);
    t->added = malloc(((size_t)n_added + 1) * sizeof *t->added);
    if (t->token == NULL || t->merges.rule == NULL || t->added == NULL) {
        tsr_tokenizer_free(t);
        return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory for %d tokens", (int)n_ids);
    }
    *out = t;
    return TSR_OK;
}

void tsr_tokenizer_free(tsr_tokenizer *t)
{
    if (t == NULL) return;
    for (int i = 0; i < t->n_patterns; i++) tsr_pattern_free(&t->pattern[i]);
    tsr_added_set_free(&t->raw);
    tsr_added_set_free(&t->normalized);
    tsr_map_free(&t->by_bytes);
    tsr_map_free(&t->merges.rank);
    free(t->merges.rule);
    free(t->added);
    free(t->token);
    free(t->blob);
    free(t);
}

static tsr_status put(tsr_tokenizer *t, int32_t id, const char *bytes, size_t n, tsr_token kind)
{
    if (id < 0 || id >= t->n_ids)
        return tsr_fail(TSR_ERR_FORMAT, "the id %d of token \"%s\" is not below %d", (int)id,
                        tsr_printable_n(bytes, n).text, (int)t->n_ids);
    if (t->token[id].exists)
        return tsr_fail(TSR_ERR_FORMAT, "the id %d is given to two tokens, \"%s\" and \"%s\"", (int)id,
                        tsr_printable_n(tsr_token_bytes(t, id), (size_t)t->token[id].nbytes).text,
                        tsr_printable_n(bytes, n).text);
    if (n == 0 || n > INT32_MAX)
        return tsr_fail(TSR_ERR_FORMAT, "the token with id %d has %zu bytes", (int)id, n);
    if (n > t->blob_capacity - t->n_blob) {
        const size_t capacity = 2 * t->blob_capacity + n + 1024;
        char *blob = realloc(t->blob, capacity);
        if (blob == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
        t->blob = blob;
        t->blob_capacity = capacity;
    }
    TSR_TRY(tsr_map_put(&t->by_bytes, tsr_hash_bytes(bytes, n), id));
    memcpy(t->blob + t->n_blob, bytes, n);
    kind.exists = true;
    kind.offset = t->n_blob;
    kind.nbytes = (int32_t)n;
    t->token[id] = kind;
    t->n_blob += n;
    return TSR_OK;
}

tsr_status tsr_tokenizer_put_bytes(tsr_tokenizer *t, int32_t id, const char *bytes, size_t n)
{
    const int32_t other = tsr_tokenizer_find_spelled(t, bytes, n);
    if (other >= 0)
        return tsr_fail(TSR_ERR_FORMAT, "the token \"%s\" has two ids, %d and %d",
                        tsr_printable_n(bytes, n).text, (int)other, (int)id);
    return put(t, id, bytes, n, (tsr_token){.in_vocab = true, .spelled = true});
}

tsr_status tsr_tokenizer_put_key(tsr_tokenizer *t, int32_t id, const char *key, size_t n)
{
    char *bytes = malloc(n + 1);
    if (bytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    size_t n_bytes;
    const tsr_status status = tsr_bytes_unspell(key, n, bytes, &n_bytes)
                                  ? tsr_tokenizer_put_bytes(t, id, bytes, n_bytes)
                                  : put(t, id, key, n, (tsr_token){.in_vocab = true});
    free(bytes);
    return status;
}

static bool has_bytes(const tsr_tokenizer *t, int32_t id, const char *bytes, size_t n)
{
    return (size_t)t->token[id].nbytes == n && memcmp(tsr_token_bytes(t, id), bytes, n) == 0;
}

/* The token of the vocabulary with these bytes, in letters or as they are. */
static int32_t find_in_vocab(const tsr_tokenizer *t, const char *bytes, size_t n, bool spelled)
{
    const uint64_t key = tsr_hash_bytes(bytes, n);
    int32_t id;
    for (uint32_t at = tsr_map_start(&t->by_bytes, key); (id = tsr_map_next(&t->by_bytes, key, &at)) >= 0;)
        if (t->token[id].in_vocab && t->token[id].spelled == spelled && has_bytes(t, id, bytes, n)) return id;
    return -1;
}

int32_t tsr_tokenizer_find_spelled(const tsr_tokenizer *t, const char *bytes, size_t n)
{
    return find_in_vocab(t, bytes, n, true);
}

int32_t tsr_tokenizer_find(const tsr_tokenizer *t, const char *bytes, size_t n)
{
    for (int32_t i = 0; i < t->n_added; i++)
        if (has_bytes(t, t->added[i].id, bytes, n)) return t->added[i].id;
    return tsr_tokenizer_find_spelled(t, bytes, n);
}

tsr_status tsr_tokenizer_put_merge(tsr_tokenizer *t, int32_t left, int32_t right, int32_t new_id)
{
    const int32_t rank = t->merges.n, pair[2] = {left, right};
    for (int i = 0; i < 2; i++)
        if (pair[i] < 0 || pair[i] >= t->n_ids || !t->token[pair[i]].spelled)
            return tsr_fail(TSR_ERR_FORMAT,
                            "merge %d has the id %d, which is not a token of the vocabulary in letters",
                            (int)rank, (int)pair[i]);
    if (tsr_map_find(&t->merges.rank, tsr_pair_key(left, right)) >= 0)
        return tsr_fail(TSR_ERR_FORMAT, "merge %d, of the ids %d and %d, is listed twice", (int)rank,
                        (int)left, (int)right);
    const size_t n_left = (size_t)t->token[left].nbytes, n_right = (size_t)t->token[right].nbytes;
    char *bytes = malloc(n_left + n_right);
    if (bytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    memcpy(bytes, tsr_token_bytes(t, left), n_left);
    memcpy(bytes + n_left, tsr_token_bytes(t, right), n_right);
    int32_t result = tsr_tokenizer_find_spelled(t, bytes, n_left + n_right);
    tsr_status status = TSR_OK;
    if (result < 0 && new_id >= 0)
        status = tsr_tokenizer_put_bytes(t, result = new_id, bytes, n_left + n_right);
    else if (result < 0)
        status = tsr_fail(TSR_ERR_FORMAT, "merge %d gives \"%s\", which is not in the vocabulary", (int)rank,
                          tsr_printable_n(bytes, n_left + n_right).text);
    free(bytes);
    TSR_TRY(status);
    TSR_TRY(tsr_map_put(&t->merges.rank, tsr_pair_key(left, right), rank));
    t->merges.rule[t->merges.n++] = (tsr_merge_rule){.left = left, .right = right, .result = result};
    return TSR_OK;
}

tsr_status tsr_tokenizer_put_added(tsr_tokenizer *t, tsr_added_entry entry, const char *content, size_t n)
{
    const int32_t id = entry.id;
    if (n == 0) return tsr_fail(TSR_ERR_FORMAT, "the added token with id %d is empty", (int)id);
    if (tsr_utf8_valid(content, n) != n)
        return tsr_fail(TSR_ERR_FORMAT, "the added token with id %d is not UTF-8", (int)id);
    if (id >= 0 && id < t->n_ids && t->token[id].added)
        return tsr_fail(TSR_ERR_FORMAT, "the id %d is given to two added tokens", (int)id);
    char *bytes = malloc(n);
    if (bytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    size_t n_bytes;
    const int32_t same = tsr_bytes_unspell(content, n, bytes, &n_bytes)
                             ? tsr_tokenizer_find_spelled(t, bytes, n_bytes)
                             : find_in_vocab(t, content, n, false);
    const bool letters_differ = same >= 0 && !has_bytes(t, same, content, n);
    free(bytes);
    if (letters_differ)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "the added token \"%s\" is also how the vocabulary spells other bytes",
                        tsr_printable_n(content, n).text);
    if (same >= 0 && same != id)
        return tsr_fail(TSR_ERR_FORMAT, "the added token \"%s\" has the id %d, but %d in the vocabulary",
                        tsr_printable_n(content, n).text, (int)id, (int)same);
    const bool known = id >= 0 && id < t->n_ids && t->token[id].exists && has_bytes(t, id, content, n);
    if (!known) TSR_TRY(put(t, id, content, n, (tsr_token){0}));
    t->token[id].added = true;
    t->token[id].special = entry.special;
    t->added[t->n_added++] = entry;
    return TSR_OK;
}

tsr_status tsr_tokenizer_put_pattern(tsr_tokenizer *t, const char *source, bool literal)
{
    if (t->n_patterns == TSR_MAX_PATTERNS)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "the pre-tokenizer has more than %d patterns", TSR_MAX_PATTERNS);
    TSR_TRY(tsr_pattern_compile(source, literal, &t->pattern[t->n_patterns]));
    t->n_patterns++;
    return TSR_OK;
}

/* With a normalizer, what is matched is the normalized content. */
static tsr_status put_in_set(tsr_tokenizer *t, const tsr_added_entry *entry)
{
    const tsr_token *token = &t->token[entry->id];
    tsr_added_token added = {.bytes = t->blob + token->offset,
                             .n = (size_t)token->nbytes,
                             .id = entry->id,
                             .lstrip = entry->lstrip,
                             .rstrip = entry->rstrip};
    if (!entry->normalized) return tsr_added_set_put(&t->raw, &added);
    if (!t->nfc) return tsr_added_set_put(&t->normalized, &added);
    TSR_TRY(tsr_nfc(added.bytes, added.n, &added.bytes, &added.n));
    const tsr_status status = tsr_added_set_put(&t->normalized, &added);
    free(added.bytes);
    return status;
}

tsr_status tsr_tokenizer_finish(tsr_tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        const char byte = (char)b;
        t->byte_id[b] = tsr_tokenizer_find_spelled(t, &byte, 1);
        if (t->byte_id[b] < 0)
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                            "the byte 0x%02X has no token; the vocabulary must hold all 256", b);
    }
    for (int32_t i = 0; i < t->n_added; i++) TSR_TRY(put_in_set(t, &t->added[i]));
    TSR_TRY(tsr_added_set_sort(&t->raw));
    return tsr_added_set_sort(&t->normalized);
}

int32_t tsr_tokenizer_vocab_size(const tsr_tokenizer *t) { return t->n_ids; }

int32_t tsr_tokenizer_bos(const tsr_tokenizer *t) { return t->bos; }

int32_t tsr_tokenizer_eos(const tsr_tokenizer *t) { return t->eos; }

bool tsr_tokenizer_is_special(const tsr_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_ids && t->token[id].special;
}

tsr_status tsr_tokenizer_token(const tsr_tokenizer *t, int32_t id, const char **bytes, size_t *n)
{
    if (id < 0 || id >= t->n_ids || !t->token[id].exists)
        return tsr_fail(TSR_ERR_INDEX, "tokenizer: no token has the id %d (there are %d)", (int)id,
                        (int)t->n_ids);
    *bytes = tsr_token_bytes(t, id);
    *n = (size_t)t->token[id].nbytes;
    return TSR_OK;
}

tsr_status tsr_tokenizer_decode(const tsr_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                                char **bytes, size_t *n)
{
    const char *piece;
    size_t n_piece = 0, total = 0;
    for (size_t i = 0; i < n_ids; i++) {
        TSR_TRY(tsr_tokenizer_token(t, ids[i], &piece, &n_piece));
        if (skip_special && t->token[ids[i]].special) continue;
        if (n_piece > SIZE_MAX - 1 - total)
            return tsr_fail(TSR_ERR_OVERFLOW, "tokenizer: the text overflows size_t");
        total += n_piece;
    }
    char *out = malloc(total + 1), *o = out;
    if (out == NULL) return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory for %zu bytes of text", total);
    for (size_t i = 0; i < n_ids; i++) {
        const tsr_token *token = &t->token[ids[i]];
        if (skip_special && token->special) continue;
        memcpy(o, t->blob + token->offset, (size_t)token->nbytes);
        o += token->nbytes;
    }
    *o = 0;
    *bytes = out;
    *n = total;
    return TSR_OK;
}

tsr_status tsr_tokenizer_create(const char *const *special, int32_t n_special, const tsr_merge *merges,
                                int32_t n_merges, tsr_tokenizer **out)
{
    if (n_special < 0 || n_merges < 0 || (int64_t)n_special + 256 + n_merges > TSR_MAX_IDS)
        return tsr_fail(TSR_ERR_ARGUMENT,
                        "tokenizer: %d special tokens, 256 bytes and %d merges must be %d ids at most",
                        (int)n_special, (int)n_merges, TSR_MAX_IDS);
    tsr_tokenizer *t;
    TSR_TRY(tsr_tokenizer_new(n_special + 256 + n_merges, n_merges, n_special, &t));
    tsr_status status = TSR_OK;
    for (int32_t i = 0; status == TSR_OK && i < n_special; i++)
        status = tsr_tokenizer_put_key(t, i, special[i], strlen(special[i]));
    int32_t next = n_special;
    for (int i = 0; status == TSR_OK && i < 256; i++) {
        const char byte = (char)tsr_byte_order(i);
        status = tsr_tokenizer_put_bytes(t, next++, &byte, 1);
    }
    for (int32_t i = 0; status == TSR_OK && i < n_merges; i++) {
        status = tsr_tokenizer_put_merge(t, merges[i].left, merges[i].right, next);
        if (status == TSR_OK && t->token[next].exists) next++;
    }
    t->n_ids = next; /* two merges may have one result */
    for (int32_t i = 0; status == TSR_OK && i < n_special; i++) {
        const tsr_added_entry entry = {.id = i, .special = true};
        status = tsr_tokenizer_put_added(t, entry, special[i], strlen(special[i]));
    }
    if (status == TSR_OK) status = tsr_tokenizer_put_pattern(t, tsr_gpt2_pattern, false);
    if (status == TSR_OK) status = tsr_tokenizer_finish(t);
    if (status != TSR_OK) {
        tsr_tokenizer_free(t);
        return status;
    }
    t->eos = n_special - 1; /* -1 without any */
    *out = t;
    return TSR_OK;
}
