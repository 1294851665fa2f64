/* bench/memory.h - memory for operands, and how much of it the process holds */
#ifndef TSR_BENCH_MEMORY_H
#define TSR_BENCH_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* On large pages where the system has them; NULL if there is not enough memory. */
void *bench_map(size_t nbytes);
/* NULL is allowed. */
void bench_unmap(void *memory, size_t nbytes);
/* Gives the pages back; what they held is lost, and the next touch makes new ones. */
void bench_drop_pages(void *memory, size_t nbytes);

/* What the system could give without swapping; 0 if it does not say. */
size_t bench_available_nbytes(void);

/* Bytes of this process in memory: now, and at most since the last reset. 0 if the system does not say. */
size_t bench_resident_nbytes(void);
void bench_reset_peak_resident(void);
size_t bench_peak_resident_nbytes(void);

/* A mixing of the bits of x in which each depends on all. (Steele et al., 2014: SplitMix64) */
uint64_t bench_mixed(uint64_t x);

#endif
