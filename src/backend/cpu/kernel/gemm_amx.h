/*
 * kernel/gemm_amx.h - the part that GEMM kernels on AMX share: C[32, 32] = A[32, k] B[k, 32] in tiles
 *
 * Include once, behind a definition of TILE_ADD(c, a, b), the product in the family's type.
 *
 *     tiles (8)            B0       B1          A: row m is a row of memory, 16 words of k for each step
 *                      +--------+--------+      B: a tile is 16 word rows of the panel, half of each
 *               A0     |  C00   |  C01   |
 *                      +--------+--------+
 *               A1     |  C10   |  C11   |
 *                      +--------+--------+
 *
 * A step is 16 words of k: four products of 16 cycles each, and 4 KiB of loads, 64 bytes a cycle. Two of the
 * four tiles loaded are to come from the first-level cache, as A does while its 32 rows are used for panel
 * after panel: the second level alone cannot give that much. Each product waits for the same C's last one, 64
 * cycles before, which takes 52. (Cycles as in Intel's Optimization Reference Manual, "Intel AMX"; none of
 * it, nor how far ahead to prefetch, has been measured here yet.)
 *
 * All eight tiles are taken, so the next step's loads have no tiles of their own: each follows the last use
 * of its tile, a product or two before the next use. Fewer rows or columns leave out tiles, and rows of
 * tiles: what is left is the same instructions, so that no bit depends on them.
 */
#ifndef TSR_KERNEL_GEMM_AMX_H
#define TSR_KERNEL_GEMM_AMX_H

#include <stdbool.h>

#include "backend/cpu/kernel/gemm.h"
#include "backend/cpu/tile.h"

enum {
    TILE_ROWS = 16,
    TILE_NBYTES = 64,
    MR = 2 * TILE_ROWS,
    NR = 2 * TILE_ROWS,
    K_ALIGN = 16,      /* words: the depth of a tile */
    STEP_LINES = 32,   /* cache lines of a step of B, where its word rows follow one another as in a panel */
    PREFETCH_STEPS = 2 /* so far ahead is B prefetched: two steps of 2 KiB, 128 cycles */
};

#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0  4
#define A1  5
#define B0  6
#define B1  7

/* The m that this thread's tiles are configured for, 0 if something else. */
static _Thread_local int32_t configured_rows;

static void configure(int64_t m)
{
    const int64_t upper = m < TILE_ROWS ? m : TILE_ROWS, lower = m - upper;
    const int64_t rows[8] = {[C00] = upper, [C01] = upper, [C10] = lower,    [C11] = lower,
                             [A0] = upper,  [A1] = lower,  [B0] = TILE_ROWS, [B1] = TILE_ROWS};
    tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = (uint8_t)rows[t];
        config.row_nbytes[t] = rows[t] > 0 ? TILE_NBYTES : 0;
    }
    tile_configure(&config);
    configured_rows = (int32_t)m;
}

static void enter(void *saved)
{
    tile_config config;
    tile_configuration(&config);
    memcpy(saved, &config, sizeof config);
    configured_rows = 0;
}

static void leave(const void *saved)
{
    tile_config config;
    memcpy(&config, saved, sizeof config);
    if (config.palette == 0)
        tile_release(); /* back to tiles that a switch of threads need not save */
    else
        tile_configure(&config);
    configured_rows = 0;
}

/* lower and right are constants at every call. Strides in bytes. */
TSR_INLINE void multiply(const char *a, int64_t a_stride, const char *b, int64_t b_stride, int64_t n_steps,
                         const bool lower, const bool right)
{
    TILE_ZERO(C00);
    if (right) TILE_ZERO(C01);
    if (lower) TILE_ZERO(C10);
    if (lower && right) TILE_ZERO(C11);
    if (n_steps == 0) return;
    const char *a_lower = a + TILE_ROWS * a_stride;
    TILE_LOAD(A0, a, a_stride);
    TILE_LOAD(B0, b, b_stride);
    if (right) TILE_LOAD(B1, b + TILE_NBYTES, b_stride);
    if (lower) TILE_LOAD(A1, a_lower, a_stride);
    for (; n_steps > 1; n_steps--) {
        a += TILE_NBYTES, a_lower += TILE_NBYTES, b += TILE_ROWS * b_stride;
        const char *ahead = b + PREFETCH_STEPS * TILE_ROWS * b_stride;
        __asm__("" : "+r"(ahead)); /* or gcc keeps a register for each line */
        UNROLL for (int line = 0; line < STEP_LINES; line++) __builtin_prefetch(ahead + line * TILE_NBYTES);
        TILE_ADD(C00, A0, B0);
        if (right) TILE_ADD(C01, A0, B1);
        TILE_LOAD(A0, a, a_stride);
        if (lower) TILE_ADD(C10, A1, B0);
        TILE_LOAD(B0, b, b_stride);
        if (lower && right) TILE_ADD(C11, A1, B1);
        if (right) TILE_LOAD(B1, b + TILE_NBYTES, b_stride);
        if (lower) TILE_LOAD(A1, a_lower, a_stride);
    }
    TILE_ADD(C00, A0, B0);
    if (right) TILE_ADD(C01, A0, B1);
    if (lower) TILE_ADD(C10, A1, B0);
    if (lower && right) TILE_ADD(C11, A1, B1);
}

/* The product's m rows and n columns in tiles, then at c, whose rows are c_stride bytes apart; all of a row's
 * 16 or 32 words are written. */
static void multiply_into(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b,
                          int64_t b_stride, int64_t n_steps, int64_t m, int64_t n)
{
    const bool lower = m > TILE_ROWS, right = n > TILE_ROWS;
    if (configured_rows != m) configure(m);
    if (lower && right)
        multiply(a, a_stride, b, b_stride, n_steps, true, true);
    else if (lower)
        multiply(a, a_stride, b, b_stride, n_steps, true, false);
    else if (right)
        multiply(a, a_stride, b, b_stride, n_steps, false, true);
    else
        multiply(a, a_stride, b, b_stride, n_steps, false, false);
    char *c_lower = (char *)c + TILE_ROWS * c_stride;
    TILE_STORE(C00, c, c_stride);
    if (right) TILE_STORE(C01, (char *)c + TILE_NBYTES, c_stride);
    if (lower) TILE_STORE(C10, c_lower, c_stride);
    if (lower && right) TILE_STORE(C11, c_lower + TILE_NBYTES, c_stride);
}

#endif
