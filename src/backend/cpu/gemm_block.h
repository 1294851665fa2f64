/*
 * backend/cpu/gemm_block.h - one product as the loops see it, and one block of its C
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

#include "backend/cpu/cpu.h"
#include "base/arena.h"

/* What a product multiplies in. */
typedef enum gemm_type { GEMM_F32, GEMM_BF16, GEMM_S8, GEMM_S4 } gemm_type;

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

/* A matrix as it lies. */
typedef struct gemm_operand {
    const char *data;
    tsr_dtype dtype;
    int64_t row, col;
} gemm_operand;

typedef struct gemm_product {
    gemm_type type;
    const tsr_gemm_kernel *kernel;
    const tsr_gemm_store_kernel *store_kernel;
    const tsr_row_f32_kernel *row_kernel;
    int64_t m, n, k;
    int64_t c_columns; /* n, but half of the panels' columns where C is gated */
    gemm_operand a, b;

    /*
     * A packed: | chunk 0: m rows of ld words | chunk 1: ... |, ld a little longer than the chunk, so that
     * rows do not fall into the same sets of a cache. NULL: A is read in place.
     */
    uint32_t *a_packed;
    int32_t *a_sums;     /* s8: [chunk][m]; s4: [chunk][m][groups of a chunk] */
    int8_t *a_quantised; /* s8, s4 where A is of floats: its rows [m][k] as integers ...  */
    float *a_scales;     /* ... and what 1 of each row stands for                         */

    const char *b_packed; /* all panels, each over all of k; NULL: b is packed as it is needed */
    int64_t b_panel_nbytes;
    bool packs_b;      /* into b_packed, before the blocks */
    tsr_dtype b_dtype; /* f32 products: what panels of b_packed hold */
    bool b_in_place;
    bool b_columns_in_place;  /* through run_columns */
    int32_t group_chunks;     /* whose panels are held at a time, where rows are many */
    int32_t group, has_zeros; /* s4 */

    float alpha, beta;
    bool c_in_place;           /* the micro-kernel writes C */
    tsr_gemm_store_args store; /* pointers at element (0, 0); what C is, in either case */
} gemm_product;

/* Elements of k in a whole chunk, how many chunks there are (at least one), and elements of one of them. */
int64_t gemm_chunk_k(const gemm_product *p);
int64_t gemm_n_chunks(const gemm_product *p);
int64_t gemm_chunk_elements(const gemm_product *p, int64_t chunk);

/*
 * The chunks whose panels, for a block of `rows` rows at most, take a quarter of the second cache: one at
 * least and where rows are few, all at most.
 */
int32_t gemm_group_chunks(const gemm_product *p, int64_t rows, int64_t l2_nbytes);

/* Bytes of one panel over k elements, of which chunks are whole but for the last. */
int64_t gemm_panel_nbytes(const gemm_product *p, int64_t k);

/* True if so few rows of A meet contiguous columns of B that they are multiplied where they lie. */
bool gemm_b_columns_in_place(const gemm_product *p);

/* True if the micro-kernel can read A where it lies. */
bool gemm_a_in_place(const gemm_product *p);
/* Takes memory for a_packed, a_sums and the quantised rows. */
void gemm_take_a(gemm_product *p, tsr_arena *memory);
/* Packs rows [i, i + m) of A, quantised first where they are floats that meet integers. */
void gemm_pack_a(const gemm_product *p, int64_t i, int64_t m);

/* Packs panel `index` of B where it belongs among all panels. */
void gemm_pack_panel(const gemm_product *p, int64_t index, char *panels);

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

static inline int64_t gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t gemm_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t gemm_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

#endif
