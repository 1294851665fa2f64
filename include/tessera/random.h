/*
 * tessera/random.h - counter-based random bits: any element's bits without its predecessors'
 *
 * Philox4x32-10 maps a 128-bit counter and a 64-bit key to 128 random bits.
 * (Salmon, Moraes, Dror, Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3")
 */
#ifndef TESSERA_RANDOM_H
#define TESSERA_RANDOM_H

#include <stdint.h>

#include "tessera/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_philox_words {
    uint32_t word[4];
} tsr_philox_words;

/* The four words of one counter. counter[0] is the least significant word; key = seed. */
TSR_API tsr_philox_words tsr_philox(uint64_t seed, const uint32_t counter[4]);

/*
 * 1 if dropout keeps an element, 0 if it drops it: the bit that every backend, tile size and
 * thread count uses. Counter (column >> 2, row, head, offset), word column & 3; kept iff
 * word >= floor(p * 2^32), with 0 <= p < 1. For attention head is b * Hq + h, row the query
 * and column the key within their sequence; for elementwise dropout head is 0, column the
 * index in the last dimension, row the index of that row.
 */
TSR_API int tsr_dropout_keep(uint64_t seed, uint32_t offset, uint32_t head, uint32_t row, uint32_t column,
                             float p);

#ifdef __cplusplus
}
#endif
#endif
