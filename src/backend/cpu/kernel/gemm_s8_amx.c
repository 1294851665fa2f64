/*
 * gemm_s8_amx.c - s8 GEMM micro-kernel in AMX tiles: C[32, 32] (+)= A[32, 4 k] B[4 k, 32] in s32
 *
 * The tiles, what they cost and what bounds them are in gemm_amx.h. Both A and B are s8, so that the sums are
 * the product's: rows of A are multiplied as they lie, 16 of 64 are a tile. All sums wrap around modulo 2^32,
 * so only the last one needs to fit.
 */
#include "backend/cpu/tile.h"

#define ELEMENT_NBYTES    1
#define TILE_ADD(c, a, b) TILE_ADD_S8(c, a, b)
#include "backend/cpu/kernel/gemm_amx.h"

enum { K_WORD = 4 };

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    const tile_product p = product_of(t, NR * 4, false);
    multiply_exactly(&p, m, n);
}

static void run_columns(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    const tile_product p = product_of(t, t->b_row * ELEMENT_NBYTES, true);
    multiply_exactly(&p, m, n);
}

static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }
static int64_t padded_words(int64_t k) { return (k + K_WORD * K_ALIGN - 1) / (K_WORD * K_ALIGN) * K_ALIGN; }

/* --- B: word (p, j) of the panel is column j's elements 4 p .. 4 p + 3 --- */

static uint32_t quad_at(const int8_t *x, int64_t k_stride, int64_t steps)
{
    uint32_t quad = 0;
    for (int64_t i = 0; i < at_most(steps, K_WORD); i++) quad |= (uint32_t)(uint8_t)x[i * k_stride] << 8 * i;
    return quad;
}

/* Rows of x are contiguous: four at a time are interleaved. */
static void pack_rows(uint32_t *panel, const int8_t *x, int64_t k_stride, int64_t k, int64_t n)
{
    for (int64_t p = 0; p < k; p += K_WORD, panel += NR) {
        uint8_t row[K_WORD][NR] = {{0}};
        for (int64_t i = 0; i < at_most(k - p, K_WORD); i++)
            memcpy(row[i], x + (p + i) * k_stride, (size_t)n);
        for (int j = 0; j < NR; j++)
            panel[j] = row[0][j] | (uint32_t)row[1][j] << 8 | (uint32_t)row[2][j] << 16 |
                       (uint32_t)row[3][j] << 24;
    }
}

/* Columns of x are contiguous: VL words of VL columns are read as they lie, and turned. */
static void pack_columns(uint32_t *panel, const int8_t *x, int64_t n_stride, int64_t k, int64_t n)
{
    enum { BLOCK = K_WORD * VL };
    for (int64_t p = 0; p < k; p += BLOCK)
        for (int64_t j = 0; j < NR; j += VL) {
            vf32 block[VL];
            for (int64_t i = 0; i < VL; i++) {
                const int64_t steps = j + i < n ? at_most(k - p, BLOCK) : 0;
                const int8_t *column = x + (j + i) * n_stride + p;
                if (steps == BLOCK) {
                    memcpy(&block[i], column, BLOCK);
                } else {
                    block[i] = vf32_splat(0);
                    if (steps > 0) memcpy(&block[i], column, (size_t)steps);
                }
            }
            vf32_transpose(block);
            for (int64_t i = 0; i < at_most((k - p + K_WORD - 1) / K_WORD, VL); i++)
                vu32_store_up_to(panel + (p / K_WORD + i) * NR + j, (vu32)block[i], VL);
        }
}

static void pack_b(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n)
{
    (void)dtype; /* s8 */
    const int64_t words = (k + K_WORD - 1) / K_WORD;
    uint32_t *to = panel;
    if (k_stride == 1)
        pack_columns(to, x, n_stride, k, n);
    else if (n_stride == 1)
        pack_rows(to, x, k_stride, k, n);
    else
        for (int64_t p = 0; p < words; p++)
            for (int64_t j = 0; j < NR; j++)
                to[p * NR + j] = j < n ? quad_at((const int8_t *)x + p * K_WORD * k_stride + j * n_stride,
                                                 k_stride, k - p * K_WORD)
                                       : 0;
    memset(to + words * NR, 0, (size_t)((padded_words(k) - words) * NR) * sizeof *to);
}

/* --- A: rows as they are --- */

static void pack_a(void *dst, int64_t ld, const void *x, int64_t row_stride, int64_t k_stride, int64_t m,
                   int64_t k, int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    (void)sum_every, (void)sums, (void)n_sums;
    const int64_t padded = padded_words(k) * K_WORD;
    for (int64_t i = 0; i < m; i++) {
        const int8_t *from = (const int8_t *)x + i * row_stride;
        int8_t *row = (int8_t *)dst + i * ld * K_WORD;
        if (k_stride == 1)
            memcpy(row, from, (size_t)k);
        else
            for (int64_t p = 0; p < k; p++) row[p] = from[p * k_stride];
        memset(row + k, 0, (size_t)(padded - k));
    }
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_s8) = {
    .name = "gemm_s8_" TSR_SET_NAME "_32x32",
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = K_WORD,
    .k_align = K_ALIGN,
    .chunk_words = CHUNK_WORDS,
    .block_rows = BLOCK_ROWS,
    .block_columns = BLOCK_COLUMNS,
    .a_words = 1,
    .run = run,
    .columns_mr = COLUMNS_MR,
    .run_columns = run_columns,
    .pack_b = pack_b,
    .pack_a = pack_a,
    .keeps_sums = true,
    .multiplies_rows = true,
    .enter = enter,
    .leave = leave,
    .finish = finish,
};
