/*
 * format/tokenizer_split.h - text cut into pieces by patterns, before any merge
 *
 * Each pattern cuts what the one before left: a match is a piece ("Isolated"), and so is what
 * lies between two matches. Patterns are Oniguruma's in tokenizer.json and PCRE2's here; the few
 * words that the two read differently are translated or refused.
 */
#ifndef TSR_FORMAT_TOKENIZER_SPLIT_H
#define TSR_FORMAT_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "tessera/status.h"

typedef struct tsr_pattern {
    char *source; /* as the file has it; malloc-ed */
    bool literal; /* a plain string                */
    void *code;   /* pcre2_code                    */
} tsr_pattern;

/* The pattern of ByteLevel with use_regex: GPT-2's. */
extern const char tsr_gpt2_pattern[];

/* `source` ends in 0. What messages call it is the caller's matter. */
tsr_status tsr_pattern_compile(const char *source, bool literal, tsr_pattern *out);
void tsr_pattern_free(tsr_pattern *p);

typedef tsr_status tsr_piece_fn(void *arg, const char *bytes, size_t n);

/* Calls `piece` for every piece of the text in order; together they are the text. Runs of bytes that are not
 * UTF-8 are pieces. Stops at the first status that is not TSR_OK. */
tsr_status tsr_split(const tsr_pattern *patterns, int n_patterns, const char *text, size_t n,
                     tsr_piece_fn *piece, void *arg);

#endif
