/*
 * kernel/gemm_amx.h - the part that GEMM kernels on AMX share: C[32, 32] = A[32, k] B[k, 32] in tiles
 *
 * Include once, behind definitions of TILE_ADD(c, a, b), the product in the family's type, and
 * ELEMENT_NBYTES.
 *
 * The tiles are drawn in amx_tiles.h. A: row m is a row of memory, 16 words of k for each step; B: a tile is
 * 16 word rows of the panel, half of each. A step is 16 words of k: four products of 16 cycles each, and 4
 * KiB of loads, 64 bytes a cycle, of which the second cache gives 48. So A is to stay in the first one, as
 * the chunk's length sees to, while its 32 rows are used for panel after panel, and B is loaded with the hint
 * that nobody needs it again: 0.88 of the peak, which is 0.71 with chunks of twice the length. (Measured on
 * an Emerald Rapids, as what follows.)
 *
 * The processor renames tiles: a step's loads overtake the last one's products, if all four come before its
 * own; with a product behind each load a step takes 72 cycles. What it cannot hide is the end of a tile,
 * since all four sums are stored 52 cycles after the last product begins, unless they stay until the next
 * run's first products are under way (5 % of a chunk, a fifth of 4 steps); nor C, where it is read from the
 * second cache before the first product: with the next run's C fetched by the last steps, and each quarter
 * loaded just before its product, 0.73 became 0.82.
 *
 * Fewer rows or columns leave out tiles, and rows of tiles: what is left is the same instructions, so that no
 * bit depends on them.
 */
#ifndef TSR_KERNEL_GEMM_AMX_H
#define TSR_KERNEL_GEMM_AMX_H

#include "backend/cpu/kernel/amx_tiles.h"
#include "backend/cpu/kernel/gemm.h"
#include "backend/cpu/vec_lanes.h"

enum {
    K_ALIGN = 16,        /* words: the depth of a tile */
    CHUNK_WORDS = 256,   /* 32 rows of A take 32 KiB of the first cache's 48 */
    BLOCK_ROWS = 512,    /* the sums of a block take half of the second cache, ... */
    BLOCK_COLUMNS = 512, /* ... a chunk's panels a quarter                         */
    FETCH_STEPS = 8      /* the last ones, with which what C is next is fetched */
};

/*
 * What a product reads and writes. Strides in bytes. Handed on by its address: a copy is made of loads wider
 * than the stores before them, which wait until those have left the processor, behind the last run's tiles:
 * 300 cycles of a run's 1300.
 */
typedef struct tile_product {
    const char *a, *b;
    char *c;
    int64_t a_stride, b_stride, c_stride, n_steps;
    bool has_columns; /* B's as they lie, b_stride apart; else a panel, its word rows so far apart */
    bool adds;        /* to C */
    bool may_stay;    /* its sums, in tiles */
    const char *ahead, *ahead_c, *ahead_store; /* as in tsr_gemm_tile */
    int64_t ahead_step;                        /* bytes with each step */
    int64_t ahead_store_row, ahead_store_nbytes;
} tile_product;

/* C = A B, or C += A B where beta is not 0. */
static tile_product product_of(const tsr_gemm_tile *t, int64_t b_stride, bool has_columns)
{
    return (tile_product){.a = t->a,
                          .a_stride = t->a_row * ELEMENT_NBYTES,
                          .b = t->b,
                          .b_stride = b_stride,
                          .has_columns = has_columns,
                          .c = t->c,
                          .c_stride = t->c_row * 4,
                          .n_steps = t->k / K_ALIGN,
                          .adds = t->beta != 0,
                          .may_stay = t->sums_may_stay,
                          .ahead = t->ahead,
                          .ahead_c = t->ahead_c,
                          .ahead_store = t->ahead_store,
                          .ahead_step = t->ahead_step * K_ALIGN,
                          .ahead_store_row = t->ahead_store_row,
                          .ahead_store_nbytes = t->ahead_store_nbytes};
}

/* A tile's first sums: what is in it goes where it belongs, then it is C, or zero. All constants. */
#define BEGIN_TILE(tile, c, held_c, adds, holds)                                                             \
    do {                                                                                                     \
        if (holds) TILE_STORE(tile, held_c, held.c_stride);                                                  \
        if (adds)                                                                                            \
            TILE_LOAD_ONCE(tile, c, p->c_stride);                                                            \
        else                                                                                                 \
            TILE_ZERO(tile);                                                                                 \
    } while (0)

/*
 * 16 words of k, at a and b: the first ones of a run, `begins`, which finds or does not find sums `held`.
 * All loads first: with a product behind each load, steps take 72 cycles, not 64.
 */
TSR_INLINE void step(const tile_product *p, const char *a, const char *b, const bool lower, const bool right,
                     const bool begins, const bool adds, const bool holds)
{
    char *const c = p->c, *const c_lower = c + TILE_ROWS * p->c_stride;
    char *const h = holds ? held.c : NULL, *const h_lower = holds ? h + TILE_ROWS * held.c_stride : NULL;
    TILE_LOAD(A0, a, p->a_stride);
    TILE_LOAD_ONCE(B0, b, p->b_stride);
    if (right) TILE_LOAD_ONCE(B1, b + TILE_NBYTES, p->b_stride);
    if (lower) TILE_LOAD(A1, a + TILE_ROWS * p->a_stride, p->a_stride);
    if (begins) BEGIN_TILE(C00, c, h, adds, holds);
    TILE_ADD(C00, A0, B0);
    if (right && begins) BEGIN_TILE(C01, c + TILE_NBYTES, h + TILE_NBYTES, adds, holds);
    if (right) TILE_ADD(C01, A0, B1);
    if (lower && begins) BEGIN_TILE(C10, c_lower, h_lower, adds, holds);
    if (lower) TILE_ADD(C10, A1, B0);
    if (lower && right && begins) BEGIN_TILE(C11, c_lower + TILE_NBYTES, h_lower + TILE_NBYTES, adds, holds);
    if (lower && right) TILE_ADD(C11, A1, B1);
}

TSR_INLINE void begin(const tile_product *p, const char *a, const char *b, const bool lower, const bool right)
{
    if (lower && right && held.c != NULL) {
        if (p->adds)
            step(p, a, b, lower, right, true, true, true);
        else
            step(p, a, b, lower, right, true, false, true);
        held.c = NULL;
    } else if (p->adds) {
        step(p, a, b, lower, right, true, true, false);
    } else {
        step(p, a, b, lower, right, true, false, false);
    }
}

TSR_INLINE const char *fetch_lines(const char *at, int64_t nbytes)
{
    for (int64_t i = 0; i < nbytes; i += TILE_NBYTES) __builtin_prefetch(at + i, 0, 2);
    return at + nbytes;
}

/* The rows of ahead_store from `at` on, as many as each step fetches. */
TSR_INLINE const char *fetch_rows(const tile_product *p, const char *at, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++, at += p->ahead_store_row) fetch_lines(at, p->ahead_store_nbytes);
    return at;
}

/* lower and right are constants at every call. */
TSR_INLINE void multiply(const tile_product *p, const bool lower, const bool right)
{
    const int64_t b_step = TILE_ROWS * p->b_stride;
    const char *a = p->a, *b = p->b, *ahead = p->ahead, *ahead_c = p->ahead_c, *ahead_store = p->ahead_store;
    int64_t left = p->n_steps - 1;
    const int64_t c_rows = MR / (left < 1 ? 1 : left > FETCH_STEPS ? FETCH_STEPS : left);
    const int64_t store_rows = ahead_store != NULL ? (MR + left) / (left + 1) : 0;
    ahead = fetch_lines(ahead, p->ahead_step);
    ahead_store = fetch_rows(p, ahead_store, store_rows);
    begin(p, a, b, lower, right);
    for (; left > 0; left--) {
        a += TILE_NBYTES, b += b_step;
        ahead = fetch_lines(ahead, p->ahead_step);
        ahead_store = fetch_rows(p, ahead_store, store_rows);
        if (ahead_c != NULL && left <= FETCH_STEPS)
            for (int64_t i = 0; i < c_rows; i++, ahead_c += p->c_stride) {
                __builtin_prefetch(ahead_c);
                __builtin_prefetch(ahead_c + TILE_NBYTES);
            }
        step(p, a, b, lower, right, false, false, false);
    }
    if (lower && right && p->may_stay)
        held.c = p->c, held.c_stride = p->c_stride;
    else
        store_tiles(p->c, p->c_stride, lower, right);
}

/* k = 0 */
static void clear(const tile_product *p, int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        memset(p->c + i * p->c_stride, 0, (size_t)(n > TILE_ROWS ? 2 : 1) * TILE_NBYTES);
}

static void multiply_tiles(const tile_product *p, int64_t m, int64_t n)
{
    const bool lower = m > TILE_ROWS, right = n > TILE_ROWS;
    if (p->n_steps == 0) {
        if (!p->adds) clear(p, m, n);
        return;
    }
    configure(m, TILE_ROWS, K_ALIGN);
    if (!(lower && right)) finish();
    if (lower && right)
        multiply(p, true, true);
    else if (lower)
        multiply(p, true, false);
    else if (right)
        multiply(p, false, true);
    else
        multiply(p, false, false);
}

/* --- B's columns as they lie: rows of a tile, as A's are, so that the tiles give C turned --- */

enum { COLUMNS_MR = TILE_ROWS, COLUMNS_AHEAD = 512 /* bytes along each column that are fetched ahead */ };

/* m rows of 16 words, turned into 16 rows of m words and zeros. */
TSR_INLINE void turn_rows(char *to, const char *from, int64_t stride, int64_t m)
{
    vf32 block[TILE_ROWS];
    UNROLL for (int64_t i = 0; i < TILE_ROWS; i++)
        block[i] = i < m ? vf32_load((const void *)(from + i * stride)) : vf32_splat(0);
    vf32_transpose(block);
    UNROLL for (int64_t i = 0; i < TILE_ROWS; i++) vf32_store((void *)(to + i * TILE_NBYTES), block[i]);
}

/* m <= COLUMNS_MR */
static void multiply_columns(const tile_product *p, int64_t m, int64_t n)
{
    _Alignas(64) char turned[NR * TILE_NBYTES], words[2][TILE_ROWS * TILE_NBYTES];
    const bool lower = n > TILE_ROWS;
    const char *a = p->a, *b = p->b;
    char *turned_lower = turned + TILE_ROWS * TILE_NBYTES;
    finish(); /* it may be this C */
    if (p->adds) {
        turn_rows(turned, p->c, p->c_stride, m);
        turn_rows(turned_lower, p->c + TILE_NBYTES, p->c_stride, m);
    } else {
        memset(turned, 0, sizeof turned);
    }
    configure(n, m, K_ALIGN);
    TILE_LOAD(C00, turned, TILE_NBYTES);
    if (lower) TILE_LOAD(C10, turned_lower, TILE_NBYTES);
    for (int64_t s = 0; s < p->n_steps; s++, a += TILE_NBYTES, b += TILE_NBYTES) {
        for (int64_t j = 0; j < n; j++) __builtin_prefetch(b + j * p->b_stride + COLUMNS_AHEAD);
        if (m == 1) {
            TILE_LOAD(B0, a, 4);
        } else {
            turn_rows(words[s % 2], a, p->a_stride, m);
            TILE_LOAD(B0, words[s % 2], TILE_NBYTES);
        }
        TILE_LOAD_ONCE(A0, b, p->b_stride);
        TILE_ADD(C00, A0, B0);
        if (lower) TILE_LOAD_ONCE(A1, b + TILE_ROWS * p->b_stride, p->b_stride);
        if (lower) TILE_ADD(C10, A1, B0);
    }
    TILE_STORE(C00, turned, TILE_NBYTES);
    if (lower) TILE_STORE(C10, turned_lower, TILE_NBYTES);
    _Alignas(64) char rows[TILE_ROWS * TILE_NBYTES];
    for (int64_t j = 0; j < NR; j += TILE_ROWS) {
        turn_rows(rows, turned + j * TILE_NBYTES, TILE_NBYTES, TILE_ROWS);
        for (int64_t i = 0; i < m; i++)
            memcpy(p->c + i * p->c_stride + j * 4, rows + i * TILE_NBYTES, TILE_NBYTES);
    }
}

/* --- runs --- */

/* m rows and n columns; of each row of C, 16 or 32 words are written, and read where C is added to. */
static void multiply_any(const tile_product *p, int64_t m, int64_t n)
{
    if (p->has_columns)
        multiply_columns(p, m, n);
    else
        multiply_tiles(p, m, n);
}

/* The same for any C, of which n words of a row are touched. */
static void multiply_exactly(const tile_product *p, int64_t m, int64_t n)
{
    if (n == NR && !p->has_columns) {
        multiply_tiles(p, m, n);
        return;
    }
    _Alignas(64) uint32_t sums[MR][NR];
    finish(); /* it may be this C */
    for (int64_t i = 0; i < m && p->adds; i++)
        for (int64_t j = 0; j < NR; j += VL) {
            const char *c = p->c + i * p->c_stride + 4 * j;
            vu32_store_up_to(sums[i] + j, j < n ? vu32_load_up_to(c, n - j) : vu32_splat(0), VL);
        }
    tile_product into_sums = *p;
    into_sums.c = (char *)sums, into_sums.c_stride = sizeof sums[0], into_sums.may_stay = false;
    multiply_any(&into_sums, m, n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j += VL)
            vu32_store_up_to(p->c + i * p->c_stride + 4 * j, vu32_load_up_to(sums[i] + j, VL), n - j);
}

#endif
