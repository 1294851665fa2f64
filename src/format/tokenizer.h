/*
 * format/tokenizer.h - byte-level BPE in the Hugging Face tokenizer.json format
 *
 * Text becomes ids in four steps:
 *
 *     "<|im_start|>I'll go"                     added tokens, longest first, are cut out,
 *      <|im_start|> | I'll go                   what lies between is split by patterns,
 *      <|im_start|> | I | 'll | _go             each piece starts as one id per byte,
 *      151644         40  3278  728             and the pair of lowest rank merges until none is left
 *
 * (Sennrich et al., 2016, "Neural machine translation of rare words with subword units";
 * bytes as the alphabet: Radford et al., 2019, GPT-2.)
 *
 * Any bytes may be encoded. Bytes that are not UTF-8 are pieces of their own, one per longest
 * such run, and the text on either side is split as if it ended there. Without a prefix space
 * and a normalizer, decode gives back exactly the bytes that were encoded.
 *
 * Read: model BPE (byte-level vocabulary, all 256 bytes present, ignore_merges, merges as "a b" or
 * ["a", "b"]); added tokens with lstrip, rstrip, normalized, special; normalizer null or NFC (with
 * utf8proc); pre-tokenizers ByteLevel, Digits, and Split by an isolated pattern, in sequence;
 * post-processors ByteLevel and TemplateProcessing; decoder ByteLevel. Anything else is refused by
 * name. An added token decodes to its content as it is, also where that spells byte-level letters.
 *
 * A tokenizer does not change once made: threads may share it.
 */
#ifndef TSR_FORMAT_TOKENIZER_H
#define TSR_FORMAT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tessera/status.h"

enum { TSR_MAX_IDS = 1 << 22 }; /* tokens, and merges, that a tokenizer may have */

typedef struct tsr_tokenizer tsr_tokenizer;

/* A growing list of ids; {0} is empty. */
typedef struct tsr_ids {
    int32_t *id;
    size_t n, capacity;
} tsr_ids;

tsr_status tsr_ids_append(tsr_ids *ids, int32_t id);
void tsr_ids_free(tsr_ids *ids);

/* `path` is a tokenizer.json, or a directory that holds one; in a directory tokenizer_config.json, where
 * there is one, names the bos and eos tokens. */
tsr_status tsr_tokenizer_load(const char *path, tsr_tokenizer **out);

/* The text of a tokenizer.json; `name` is what messages call it. */
tsr_status tsr_tokenizer_parse(const char *text, size_t n, const char *name, tsr_tokenizer **out);

/* Two ids that become one; a merge's place in the list is its rank. */
typedef struct tsr_merge {
    int32_t left, right;
} tsr_merge;

/*
 * The ids that training gives: special tokens first, then the 256 bytes in the order of their
 * letters (tsr_byte_order), then the results of the merges that are not yet in the vocabulary.
 * Splits with GPT-2's pattern. The last special token is eos.
 */
tsr_status tsr_tokenizer_create(const char *const *special, int32_t n_special, const tsr_merge *merges,
                                int32_t n_merges, tsr_tokenizer **out);

void tsr_tokenizer_free(tsr_tokenizer *t);

/* Writes tokenizer.json and tokenizer_config.json into the directory, each complete or not at all. */
tsr_status tsr_tokenizer_save(const tsr_tokenizer *t, const char *directory);

/* One past the largest id. */
int32_t tsr_tokenizer_vocab_size(const tsr_tokenizer *t);

/* The id whose bytes these are (an added token's first), or -1. */
int32_t tsr_tokenizer_find(const tsr_tokenizer *t, const char *bytes, size_t n);

/* The token that begins, or ends, a text; -1 where the file names none. */
int32_t tsr_tokenizer_bos(const tsr_tokenizer *t);
int32_t tsr_tokenizer_eos(const tsr_tokenizer *t);

/* Appends the ids of `n` bytes of text (below 2^31); `with_template` puts the post-processor's tokens (a bos)
 * around them. On an error `ids` holds what it held. */
tsr_status tsr_tokenizer_encode(const tsr_tokenizer *t, const char *text, size_t n, bool with_template,
                                tsr_ids *ids);

/* A token's bytes, which live as long as the tokenizer and may be a part of a UTF-8 character.
 * TSR_ERR_INDEX: no token has this id. */
tsr_status tsr_tokenizer_token(const tsr_tokenizer *t, int32_t id, const char **bytes, size_t *n);

bool tsr_tokenizer_is_special(const tsr_tokenizer *t, int32_t id);

/* The bytes of all ids in a row, as one malloc-ed block with a 0 after it that *n does not count. */
tsr_status tsr_tokenizer_decode(const tsr_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                                char **bytes, size_t *n);

#endif
