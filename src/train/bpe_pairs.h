/*
 * train/bpe_pairs.h - every pair of neighbouring symbols, its count, where it occurs; the most frequent on
 * top
 *
 * A binary heap of pairs that know their place in it, so that a count which changes moves its
 * pair instead of leaving an old entry behind.
 */
#ifndef TSR_TRAIN_BPE_PAIRS_H
#define TSR_TRAIN_BPE_PAIRS_H

#include "format/hash_map.h"

typedef struct tsr_bpe_pair {
    int32_t left, right;
    int64_t count;
    int32_t place; /* in the heap; -1: not in it                            */
    int32_t *at;   /* [n_at] positions of the left symbol, some of the past */
    int32_t n_at, at_capacity;
} tsr_bpe_pair;

typedef struct tsr_bpe_pairs {
    tsr_bpe_pair *pair; /* [n] */
    int32_t n, capacity;
    int32_t *heap; /* [n_heap] of [capacity] indices of pairs */
    int32_t n_heap;
    tsr_map by_symbols;
} tsr_bpe_pairs;

void tsr_bpe_pairs_free(tsr_bpe_pairs *p);

/* `count` more of the pair, at position `at`. */
tsr_status tsr_bpe_pairs_add(tsr_bpe_pairs *p, int32_t left, int32_t right, int64_t count, int32_t at);

/* `count` fewer; a pair that is not in the heap stays as it is. */
void tsr_bpe_pairs_take(tsr_bpe_pairs *p, int32_t left, int32_t right, int64_t count);

/* Removes the most frequent pair from the heap and gives its index; -1 if the heap is empty. */
int32_t tsr_bpe_pairs_pop(tsr_bpe_pairs *p);

#endif
