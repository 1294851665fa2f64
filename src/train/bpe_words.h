/*
 * train/bpe_words.h - the different pieces of a text, how often each occurs, and all of them in a row
 *
 * Every byte of every different piece is one position. Positions never move: when two neighbours
 * merge, the left one takes the new symbol and the right one leaves the list.
 *
 *     symbol   t  h  e | _  t  h  e | _  a        piece    0  0  0  1  1  1  1  2  2
 *     next     1  2 -1   4  5  6 -1   8 -1        count    [12, 40, 7]
 */
#ifndef TSR_TRAIN_BPE_WORDS_H
#define TSR_TRAIN_BPE_WORDS_H

#include "format/hash_map.h"
#include "train/bpe_trainer.h"

typedef struct tsr_bpe_words {
    int32_t *symbol;          /* [n] an id; -1: merged away           */
    int32_t *next, *previous; /* [n] position of the neighbour, or -1 */
    int32_t *piece;           /* [n] which piece it belongs to        */
    int32_t n;
    int64_t *count; /* [n_pieces] occurrences in the text           */
    int32_t n_pieces;
} tsr_bpe_words;

/* `byte_id` gives the symbol of each byte. */
tsr_status tsr_bpe_words_collect(const tsr_text *texts, size_t n_texts, const int32_t byte_id[256],
                                 tsr_bpe_words *out);
void tsr_bpe_words_free(tsr_bpe_words *w);

#endif
