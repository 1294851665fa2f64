/*
 * backend/cpu/gemm_fetch.h - parts of matrices that are wanted next, fetched while tiles are multiplied
 *
 * Lines come into the second cache a few at a time, between tiles: packing then waits less for memory, and so
 * does the first tile of another product, or a tile's last store. More than some lines at a time would take
 * all misses that a core can have under way, and hold up the tile's own.
 */
#ifndef TSR_CPU_GEMM_FETCH_H
#define TSR_CPU_GEMM_FETCH_H

#include "backend/cpu/gemm_block.h"

typedef struct gemm_fetch {
    const char *next, *row_end, *end; /* end: past the last row's beginning */
    int64_t row_nbytes, stride;
    int64_t lines; /* at a time */
} gemm_fetch;

gemm_fetch gemm_fetch_nothing(void);

/* What a group of chunks, from `chunk` on, of n columns from j is packed from, in n_times parts. */
gemm_fetch gemm_fetch_of_b(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, int64_t n_times);
/* The same of the next block's first group. */
gemm_fetch gemm_fetch_of_next_b(const gemm_next *next, int64_t n_times);
/* The next block's rows of A, their first chunk, if they are read in place and the second cache has room. */
gemm_fetch gemm_fetch_of_a(const gemm_next *next, int64_t n_times);
/* One part. */
void gemm_fetch_some(gemm_fetch *f);

#endif
