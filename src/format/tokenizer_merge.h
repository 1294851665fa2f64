/* format/tokenizer_merge.h - the merges of one piece: the pair of lowest rank, leftmost first, until none is
 * left */
#ifndef TSR_FORMAT_TOKENIZER_MERGE_H
#define TSR_FORMAT_TOKENIZER_MERGE_H

#include "format/hash_map.h"
#include "format/tokenizer.h"

typedef struct tsr_merge_rule {
    int32_t left, right, result;
} tsr_merge_rule;

typedef struct tsr_merge_table {
    tsr_merge_rule *rule; /* [n], by rank            */
    int32_t n;
    tsr_map rank; /* tsr_pair_key(left, right) -> rank */
} tsr_merge_table;

/* Room for `more` further ids. */
tsr_status tsr_ids_reserve(tsr_ids *ids, size_t more);

/* What merging long pieces needs; {0} at first, kept from piece to piece. */
typedef struct tsr_merge_space {
    int32_t *next, *before, *rank;
    uint64_t *heap;
    size_t capacity;
} tsr_merge_space;

void tsr_merge_space_free(tsr_merge_space *s);

/* Merges the `n` ids (below 2^31) in place; *n_left of them remain. */
tsr_status tsr_merge_piece(const tsr_merge_table *table, tsr_merge_space *space, int32_t *id, size_t n,
                           size_t *n_left);

#endif
