/*
 * format/tokenizer_added.h - added tokens found in a text, leftmost first, then longest
 *
 * The contents are sorted, so those that begin with what has been read so far are neighbours:
 * each further byte narrows the range, and the text is looked at no further than it agrees.
 */
#ifndef TSR_FORMAT_TOKENIZER_ADDED_H
#define TSR_FORMAT_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tessera/status.h"

typedef struct tsr_added_token {
    char *bytes; /* what is matched; malloc-ed */
    size_t n;
    int32_t id;
    bool lstrip, rstrip; /* the white space before, after it belongs to it */
} tsr_added_token;

typedef struct tsr_added_set {
    tsr_added_token *token; /* [n] sorted */
    int32_t n;
    bool begins[256]; /* some token begins with this byte */
} tsr_added_set;

/* Takes a copy of the bytes. After the last one, tsr_added_set_sort. */
tsr_status tsr_added_set_put(tsr_added_set *set, const tsr_added_token *token);
tsr_status tsr_added_set_sort(tsr_added_set *set);
void tsr_added_set_free(tsr_added_set *set);

/* Calls `between` for each stretch of text that is no token (never an empty one), `found` for each that is.
 */
typedef struct tsr_added_visitor {
    tsr_status (*between)(void *arg, const char *text, size_t n);
    tsr_status (*found)(void *arg, int32_t id);
    void *arg;
} tsr_added_visitor;

tsr_status tsr_added_set_cut(const tsr_added_set *set, const char *text, size_t n,
                             const tsr_added_visitor *visitor);

#endif
