/*
 * backend/cpu/gemm_block.h - one block of a product's C: chunks of k, panels of columns, tiles of rows
 *
 *     for each group of chunks of k           one chunk, or some where the second cache is large
 *       B: panels of the block's columns      packed for these chunks, unless they lie packed
 *       for each tile of rows                 A: in place, or packed, all of it, before
 *         for each chunk                      a chunk sums from zero, or goes on where tiles hold sums
 *           for each panel
 *             the micro-kernel                C += A B, in C or in a block of sums beside it
 *             the last chunk's store          where C is not what the micro-kernel writes
 *
 * The length of a chunk alone decides the order of a sum; blocks may follow the machine and the shape. With
 * few rows the panels are the outer loop: a weight is then read from its first byte to its last.
 */
#ifndef TSR_CPU_GEMM_BLOCK_H
#define TSR_CPU_GEMM_BLOCK_H

#include "backend/cpu/gemm_operands.h"

/*
 * A block's extent. Its columns' panels of a chunk, or of a group of chunks, stay in the second cache; the
 * more rows they meet, the less it costs to pack them, or to bring them from memory: up to MOST_ROWS, where
 * there are blocks enough for the threads and no sums of so many rows are kept beside C. A group has
 * MOST_CHUNKS chunks, whose panels are MOST_PANELS together, at most.
 */
enum { GEMM_MOST_ROWS = 4096, GEMM_MOST_CHUNKS = 4, GEMM_MOST_PANELS = 64 };

/* What a chunk of a block's rows of A may take of the second cache beside its panels. */
enum { GEMM_ROOM_NBYTES = 512 << 10 };

/* Rows of so many tiles are few: their panels are the outer loop. */
enum { GEMM_FEW_TILES = 2 };

/*
 * The chunks whose panels, for a block of `rows` rows at most, take a quarter of the second cache: one at
 * least and where rows are few, all at most.
 */
int32_t gemm_group_chunks(const gemm_product *p, int64_t rows, int64_t l2_nbytes);

/* What one thread needs beside it: panels for a group of chunks, and sums. */
typedef struct gemm_scratch {
    char *panels;
    uint32_t *sums;
} gemm_scratch;

/* For blocks of `rows` rows at most. */
gemm_scratch gemm_take_scratch(const gemm_product *p, int64_t rows, tsr_arena *memory);

/* The block that the thread probably works on next, so that its operands can be fetched. p NULL: none. */
typedef struct gemm_next {
    const gemm_product *p;
    int64_t i, m, j;
    bool new_rows; /* of A, not those at work */
} gemm_next;

/* Rows [i, i + m), columns [j, j + n) of sums, all of k, block by block; j is a multiple of the kernel's nr.
 */
void gemm_run_blocks(const gemm_product *p, int64_t i, int64_t m, int64_t j, int64_t n, const gemm_next *next,
                     const gemm_scratch *scratch);

#endif
