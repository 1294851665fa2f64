/*
 * format/tokenizer_impl.h - what a tokenizer is made of, and how one is put together
 *
 * Reading a file and training end in the same calls, which check whatever either could get wrong:
 *
 *     new -> put every token -> merge every pair -> add every added token -> pattern ... -> finish
 */
#ifndef TSR_FORMAT_TOKENIZER_IMPL_H
#define TSR_FORMAT_TOKENIZER_IMPL_H

#include "format/tokenizer.h"
#include "format/tokenizer_added.h"
#include "format/tokenizer_merge.h"
#include "format/tokenizer_split.h"

enum {
    TSR_MAX_PATTERNS = 8,
    TSR_MAX_TEMPLATE = 8 /* tokens before and after the text, together */
};

typedef struct tsr_token {
    size_t offset; /* its bytes in the blob                                         */
    int32_t nbytes;
    bool exists;   /* an id in a gap of the numbering has no token                  */
    bool in_vocab; /* of the model; an added token need not be                      */
    bool spelled;  /* the vocabulary has it in letters: the bytes of a piece can become it */
    bool added;    /* found in the text before it is split                          */
    bool special;  /* skipped by decoding on request                                */
} tsr_token;

/* An added token as the file lists it; its content is its token's bytes. */
typedef struct tsr_added_entry {
    int32_t id;
    bool lstrip, rstrip, normalized, special;
} tsr_added_entry;

struct tsr_tokenizer {
    tsr_token *token; /* [n_ids] */
    int32_t n_ids;
    char *blob; /* the bytes of all tokens */
    size_t n_blob, blob_capacity;
    tsr_map by_bytes; /* tsr_hash_bytes -> id */

    tsr_merge_table merges;
    int32_t byte_id[256];
    bool ignore_merges; /* a piece that is a token stays whole */

    tsr_pattern pattern[TSR_MAX_PATTERNS];
    int n_patterns;
    bool add_prefix_space;
    bool nfc;

    tsr_added_entry *added; /* [n_added], as listed */
    int32_t n_added;
    tsr_added_set raw, normalized; /* matched before and after the normalizer */

    int32_t template_id[TSR_MAX_TEMPLATE]; /* n_before of them, the text, the rest */
    int n_before, n_template;
    int32_t bos, eos;
};

/* Room for ids below n_ids and for so many merges and added tokens. */
tsr_status tsr_tokenizer_new(int32_t n_ids, int32_t n_merges, int32_t n_added, tsr_tokenizer **out);

/* A token of the vocabulary, by its key there: letters, or bytes as they are where those are none. */
tsr_status tsr_tokenizer_put_key(tsr_tokenizer *t, int32_t id, const char *key, size_t n);

/* A token of the vocabulary, by the bytes that its letters spell. */
tsr_status tsr_tokenizer_put_bytes(tsr_tokenizer *t, int32_t id, const char *bytes, size_t n);

/* The token that a piece of these bytes can become, or -1. */
int32_t tsr_tokenizer_find_spelled(const tsr_tokenizer *t, const char *bytes, size_t n);

/* The next merge by rank. Its result must be in the vocabulary, unless new_id >= 0 says where to put it. */
tsr_status tsr_tokenizer_put_merge(tsr_tokenizer *t, int32_t left, int32_t right, int32_t new_id);

/* An added token, new or in the vocabulary under the same id. */
tsr_status tsr_tokenizer_put_added(tsr_tokenizer *t, tsr_added_entry entry, const char *content, size_t n);

tsr_status tsr_tokenizer_put_pattern(tsr_tokenizer *t, const char *source, bool literal);

/* After the last of these: the alphabet is complete, added tokens are ready to be matched. */
tsr_status tsr_tokenizer_finish(tsr_tokenizer *t);

static inline const char *tsr_token_bytes(const tsr_tokenizer *t, int32_t id)
{
    return t->blob + t->token[id].offset;
}

#endif
