/*
 * kernel/amx_tiles.h - the eight tiles of GEMM kernels on AMX: their roles, and a thread's configuration
 *
 *                     B0       B1          C is 32 x 32 words, A 32 rows of up to 16 words along k,
 *                  +--------+--------+     B up to 16 rows of 32 words
 *           A0     |  C00   |  C01   |
 *                  +--------+--------+
 *           A1     |  C10   |  C11   |
 *                  +--------+--------+
 *
 * With fewer rows of A, fewer words in B's rows or fewer words along k, tiles are configured smaller: rows,
 * words, depth.
 */
#ifndef TSR_KERNEL_AMX_TILES_H
#define TSR_KERNEL_AMX_TILES_H

#include <assert.h>
#include <stdbool.h>

#include "backend/cpu/tile.h"

enum { TILE_ROWS = 16, TILE_NBYTES = 64, MR = 2 * TILE_ROWS, NR = 2 * TILE_ROWS };

#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0  4
#define A1  5
#define B0  6
#define B1  7

/*
 * C whose sums are still in this thread's tiles, 32 x 32 of them: each tile is stored just before the next
 * run's product takes its tile, so that the products of a run go on behind those of the last. c NULL: none.
 */
static _Thread_local struct {
    char *c;
    int64_t c_stride;
} held;

TSR_INLINE void store_tiles(char *c, int64_t stride, const bool lower, const bool right)
{
    TILE_STORE(C00, c, stride);
    if (right) TILE_STORE(C01, c + TILE_NBYTES, stride);
    if (lower) TILE_STORE(C10, c + TILE_ROWS * stride, stride);
    if (lower && right) TILE_STORE(C11, c + TILE_ROWS * stride + TILE_NBYTES, stride);
}

static void finish(void)
{
    if (held.c == NULL) return;
    store_tiles(held.c, held.c_stride, true, true);
    held.c = NULL;
}

/* What this thread's tiles are configured for: rows of A (0: something else), words of a row of B, and words
 * along k. */
static _Thread_local struct {
    int32_t rows, words, depth;
} configured;

static void configure(int64_t m, int64_t words, int64_t depth)
{
    if (configured.rows == m && configured.words == words && configured.depth == depth) return;
    finish();
    const int64_t upper = m < TILE_ROWS ? m : TILE_ROWS, lower = m - upper;
    const int64_t rows[8] = {[C00] = upper, [C01] = upper, [C10] = lower, [C11] = lower,
                             [A0] = upper,  [A1] = lower,  [B0] = depth,  [B1] = depth};
    tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = (uint8_t)rows[t];
        config.row_nbytes[t] = (uint16_t)(rows[t] == 0 ? 0 : t == A0 || t == A1 ? 4 * depth : 4 * words);
    }
    tile_configure(&config);
    configured.rows = (int32_t)m, configured.words = (int32_t)words, configured.depth = (int32_t)depth;
}

static void enter(void *saved)
{
    tile_config config;
    assert(held.c == NULL);
    tile_configuration(&config);
    memcpy(saved, &config, sizeof config);
    configured.rows = 0;
}

static void leave(const void *saved)
{
    tile_config config;
    assert(held.c == NULL);
    memcpy(&config, saved, sizeof config);
    if (config.palette == 0)
        tile_release(); /* back to tiles that a switch of threads need not save */
    else
        tile_configure(&config);
    configured.rows = 0;
}

#endif
