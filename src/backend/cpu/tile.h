/*
 * backend/cpu/tile.h - the words of AMX: eight tiles of up to 16 rows of 64 bytes, and products of them
 *
 * A thread's configuration says how many rows and bytes each tile has. Configuring zeroes all tiles.
 *
 *     word                             what it does                                          row m, word n
 *     TILE_ZERO(t)                     t = 0
 *     TILE_LOAD(t, base, stride)       row m from base + m stride, in bytes; zeros beyond its rows and bytes
 *     TILE_LOAD_ONCE(t, base, stride)  the same; the first cache need not keep what is read
 *     TILE_STORE(t, base, stride)      row m to base + m stride
 *     TILE_ADD_BF16(c, a, b)           c += a b, a of bf16 pairs, b of pairs, c of f32
 *     TILE_ADD_S8(c, a, b)             c += a b, each of four s8, c of s32, wrapping
 *
 * b holds words: its row k is what word k of a's rows meets. A tile's number is a literal from 0 to 7, or a
 * macro for one, since the instructions have it in their encoding.
 *
 * The plain-C form computes what the manual's pseudo-code says (Intel SDM volume 2, TDPBF16PS, TDPBSSD), and
 * leaves the tiles' state in memory, one for each thread and file. For bf16 that is: even and odd elements
 * are summed apart, from zero, in ascending k, by multiply-adds of one rounding; the two sums are added, then
 * their sum to c. To nearest even; subnormals are zeros, in the operands and in every result.
 *
 * The instruction forms are asm, because gcc 12's intrinsics do not tell it that they read memory: it may
 * store what a load is to find only after it.
 */
#ifndef TSR_BACKEND_CPU_TILE_H
#define TSR_BACKEND_CPU_TILE_H

#include <assert.h>

#include "backend/cpu/vec_bf16.h"

/* What LDTILECFG reads. A tile that is not used has neither rows nor bytes. All zero: no tiles in use. */
typedef struct tile_config {
    uint8_t palette; /* 1: eight tiles of up to 16 rows of 64 bytes */
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_nbytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "as the instruction reads it");

/* clang 14 spells them so. */
#if (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)) ||                             \
    (defined(__AMXTILE__) && defined(__AMXBF16__) && defined(__AMXINT8__))

TSR_INLINE void tile_configure(const tile_config *config) { __asm__ volatile("ldtilecfg %0" ::"m"(*config)); }
TSR_INLINE void tile_configuration(tile_config *config) { __asm__ volatile("sttilecfg %0" : "=m"(*config)); }
TSR_INLINE void tile_release(void) { __asm__ volatile("tilerelease"); }

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" TSR_QUOTE(t)::)
#define TILE_LOAD(t, base, stride)                                                                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" TSR_QUOTE(t)::"r"((const void *)(base)),                   \
                     "r"((int64_t)(stride))                                                                  \
                     : "memory")
#define TILE_LOAD_ONCE(t, base, stride)                                                                      \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" TSR_QUOTE(t)::"r"((const void *)(base)),                 \
                     "r"((int64_t)(stride))                                                                  \
                     : "memory")
#define TILE_STORE(t, base, stride)                                                                          \
    __asm__ volatile("tilestored %%tmm" TSR_QUOTE(t) ", (%0,%1,1)" ::"r"((void *)(base)),                    \
                     "r"((int64_t)(stride))                                                                  \
                     : "memory")
#define TILE_ADD_BF16(c, a, b)                                                                               \
    __asm__ volatile("tdpbf16ps %%tmm" TSR_QUOTE(b) ", %%tmm" TSR_QUOTE(a) ", %%tmm" TSR_QUOTE(c)::)
#define TILE_ADD_S8(c, a, b)                                                                                 \
    __asm__ volatile("tdpbssd %%tmm" TSR_QUOTE(b) ", %%tmm" TSR_QUOTE(a) ", %%tmm" TSR_QUOTE(c)::)

#else

static _Thread_local struct {
    tile_config config;
    uint32_t word[8][16][16];
} tiles;

TSR_INLINE void tile_configure(const tile_config *config)
{
    memset(&tiles, 0, sizeof tiles);
    tiles.config = *config;
}
TSR_INLINE void tile_configuration(tile_config *config) { *config = tiles.config; }
TSR_INLINE void tile_release(void) { memset(&tiles, 0, sizeof tiles); }

/* Where the instruction would fault. */
TSR_INLINE void assert_in_use(int t)
{
    assert(tiles.config.palette == 1 && tiles.config.rows[t] > 0);
    (void)t;
}

TSR_INLINE void tile_zero(int t)
{
    assert_in_use(t);
    memset(tiles.word[t], 0, sizeof tiles.word[t]);
}
TSR_INLINE void tile_load(int t, const char *base, int64_t stride)
{
    tile_zero(t);
    for (int m = 0; m < tiles.config.rows[t]; m++)
        memcpy(tiles.word[t][m], base + m * stride, tiles.config.row_nbytes[t]);
}
TSR_INLINE void tile_store(int t, char *base, int64_t stride)
{
    assert_in_use(t);
    for (int m = 0; m < tiles.config.rows[t]; m++)
        memcpy(base + m * stride, tiles.word[t][m], tiles.config.row_nbytes[t]);
}

TSR_INLINE void assert_product(int c, int a, int b)
{
    assert_in_use(c), assert_in_use(a), assert_in_use(b);
    assert(tiles.config.rows[a] == tiles.config.rows[c]);
    assert(tiles.config.rows[b] * 4 == tiles.config.row_nbytes[a]);
    assert(tiles.config.row_nbytes[b] == tiles.config.row_nbytes[c]);
    (void)c, (void)a, (void)b;
}

TSR_INLINE void tile_add_bf16(int c, int a, int b)
{
    const int n_rows = tiles.config.rows[c], n_k = tiles.config.row_nbytes[a] / 4;
    assert_product(c, a, b);
    for (int m = 0; m < n_rows; m++)
        for (int n = 0; n < tiles.config.row_nbytes[c] / 4; n++) {
            float even = 0, odd = 0;
            for (int k = 0; k < n_k; k++) {
                const uint32_t x = tiles.word[a][m][k], y = tiles.word[b][k][n];
                even = bf16_multiply_add(even, bf16_even(x), bf16_even(y));
                odd = bf16_multiply_add(odd, bf16_odd(x), bf16_odd(y));
            }
            const float sum = flushed(even + odd), before = tsr_f32_from_bits(tiles.word[c][m][n]);
            tiles.word[c][m][n] = tsr_f32_bits(flushed(flushed(before) + sum));
        }
}

TSR_INLINE void tile_add_s8(int c, int a, int b)
{
    const int n_rows = tiles.config.rows[c], n_k = tiles.config.row_nbytes[a] / 4;
    assert_product(c, a, b);
    for (int m = 0; m < n_rows; m++)
        for (int n = 0; n < tiles.config.row_nbytes[c] / 4; n++)
            for (int k = 0; k < n_k; k++)
                for (int i = 0; i < 32; i += 8) {
                    const int8_t x = (int8_t)(tiles.word[a][m][k] >> i);
                    const int8_t y = (int8_t)(tiles.word[b][k][n] >> i);
                    tiles.word[c][m][n] += (uint32_t)(x * y);
                }
}

#define TILE_ZERO(t)                    tile_zero(t)
#define TILE_LOAD(t, base, stride)      tile_load(t, (const char *)(base), stride)
#define TILE_LOAD_ONCE(t, base, stride) tile_load(t, (const char *)(base), stride)
#define TILE_STORE(t, base, stride)     tile_store(t, (char *)(base), stride)
#define TILE_ADD_BF16(c, a, b)          tile_add_bf16(c, a, b)
#define TILE_ADD_S8(c, a, b)            tile_add_s8(c, a, b)

#endif

#endif
