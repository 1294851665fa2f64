/*
 * gemm_s8.c - s8 GEMM micro-kernel: C[MR, NR] = A[MR, k] B[k, NR] + beta C, s32 and exact
 *
 * Compiled once per instruction set; VL lanes, NR = 2 VL. A word along k is four elements. B's are u8, 128
 * too large, so that C starts from -128 times the sum of A's row.
 *
 *                  b   p-th word row of the panel            registers     AVX2    AVX-512   with VNNI
 *          +------------------+                              C             6 x 2   12 x 2    6 or 14 x 2
 *     a    | C  MR x 2 vectors|  one word a[i] is broadcast  b             2       2         2
 *     MR   |                  |  against both of them        a             1       1         1
 *          +------------------+                              product       1       1
 *
 * With VNNI one instruction adds a word's four products: bound by its port. Without it, B's bytes are split
 * into even and odd ones, widened to 16 bits, once for all rows; A is packed so; and a word takes two
 * multiplications of pairs and two additions, which share the ports of the multiplier. (The multiplication of
 * bytes that AVX2 has saturates: 255 * 127 * 2 does not fit 16 bits.)
 */
#include "backend/cpu/kernel/gemm.h"

#include "backend/cpu/kernel/pack_s8.h"
#include "backend/cpu/vec_lanes.h"

#define FLIP 0x80808080u /* adds 128 to each byte */

#if TSR_LANES == 16 && TSR_HAS_DOT_QUADS
enum { MR = 14 };
#define TILE_NAME "14x32"
#elif TSR_LANES == 16
enum { MR = 12 };
#define TILE_NAME "12x32"
#elif TSR_LANES == 8
enum { MR = 6 };
#define TILE_NAME "6x16"
#else
enum { MR = 6 };
#define TILE_NAME "6x8"
#endif
enum { NV = 2, NR = NV * TSR_LANES, A_WORDS = TSR_HAS_DOT_QUADS ? 1 : 2 };

#if TSR_HAS_DOT_QUADS

/* acc += one word of each row of A times one word row of B */
TSR_INLINE void multiply_add(vi32 acc[MR][NV], const int rows, const packed_a *a, const uint32_t *b)
{
    vu32 bp[NV];
    UNROLL for (int j = 0; j < NV; j++) bp[j] = vu32_load(b + j * VL);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
        acc[i][j] = vi32_dot_quads(acc[i][j], bp[j], packed_a_splat(a, i, 0));
}

#else

/* The same for one pair of the word's two. */
TSR_INLINE void multiply_add_pair(vi32 acc[MR][NV], const int rows, const packed_a *a, const int pair,
                                  const vi16x2 bp[NV])
{
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
        acc[i][j] = vi32_added(vi32_dot_pairs(acc[i][j], bp[j], (vi16x2)packed_a_splat(a, i, pair)));
}

TSR_INLINE void multiply_add(vi32 acc[MR][NV], const int rows, const packed_a *a, const uint32_t *b)
{
    vi16x2 bp[NV];
    UNROLL for (int j = 0; j < NV; j++) bp[j] = even_u8(vu32_load(b + j * VL));
    multiply_add_pair(acc, rows, a, 0, bp);
    UNROLL for (int j = 0; j < NV; j++) bp[j] = odd_u8(vu32_load(b + j * VL));
    multiply_add_pair(acc, rows, a, 1, bp);
}

#endif

/* rows is a constant at every call, so that acc lives in registers. */
TSR_INLINE void run_rows(const tsr_gemm_tile *t, const int rows, int64_t n)
{
    vi32 acc[MR][NV];
    UNROLL for (int i = 0; i < rows; i++)
    {
        const vi32 start = vi32_splat(t->a_sums != NULL ? -128 * t->a_sums[i] : 0);
        UNROLL for (int j = 0; j < NV; j++) acc[i][j] = start;
    }

    packed_a a = packed_a_of(t->a, t->a_row);
    const uint32_t *b = t->b;
    const char *ahead = t->ahead;
    for (int64_t p = t->k; p > 0; p--, packed_a_move(&a, A_WORDS), b += NR) {
        ahead = fetch_step(ahead, t->ahead_step);
        multiply_add(acc, rows, &a, b);
    }

    const int add = t->beta != 0;
    int32_t *c = t->c;
    UNROLL for (int i = 0; i < rows; i++, c += t->c_row)
    {
        UNROLL for (int j = 0; j < NV; j++)
        {
            const int64_t left = n - j * VL;
            vu32 v = (vu32)acc[i][j];
            if (left >= VL) {
                if (add) v += vu32_load(c + j * VL);
                vu32_store(c + j * VL, v);
            } else if (left > 0) {
                if (add) v += vu32_load_n(c + j * VL, left);
                vu32_store_n(c + j * VL, v, left);
            }
        }
    }
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    switch (m) {
    case 1: run_rows(t, 1, n); break;
    case 2: run_rows(t, 2, n); break;
    case 3: run_rows(t, 3, n); break;
    case 4: run_rows(t, 4, n); break;
    case 5: run_rows(t, 5, n); break;
    case 6: run_rows(t, 6, n); break;
#if TSR_LANES == 16
    case 7: run_rows(t, 7, n); break;
    case 8: run_rows(t, 8, n); break;
    case 9: run_rows(t, 9, n); break;
    case 10: run_rows(t, 10, n); break;
    case 11: run_rows(t, 11, n); break;
    case 12: run_rows(t, 12, n); break;
#if TSR_HAS_DOT_QUADS
    case 13: run_rows(t, 13, n); break;
    case 14: run_rows(t, 14, n); break;
#endif
#endif
    default: __builtin_unreachable();
    }
}

/* What turns the s8 of a word into u8, of which `elements` are still in k: padding stays 0. */
TSR_INLINE uint32_t flip_of(int64_t elements) { return elements >= 4 ? FLIP : FLIP >> (8 * (4 - elements)); }

/* All bits in the first n words. */
TSR_INLINE vu32 first_words(int64_t n) { return (vu32)(vi32_iota() < (int32_t)n); }

/* Columns j .. j + VL of a word row, from `rows` rows of x; n columns are left. */
TSR_INLINE vu32 interleaved(const int8_t *x, int64_t k_stride, const int64_t rows, int64_t n)
{
    vu32 words = {0};
    UNROLL for (int64_t r = 0; r < rows; r++)
    {
        uint8_t t[VL] = {0};
        const uint8_t *row = (const uint8_t *)(x + r * k_stride);
        if (n < VL) row = memcpy(t, row, (size_t)n);
        words |= vu32_from_u8(row) << (8 * (uint32_t)r);
    }
    return n < VL ? words ^ (flip_of(rows) & first_words(n)) : words ^ flip_of(rows);
}

/* Rows of x are contiguous: bytes of four are put side by side. */
static void pack_rows(uint32_t *panel, const int8_t *x, int64_t k_stride, int64_t k, int64_t n)
{
    for (int64_t p = 0; p < k; p += 4, panel += NR, x += 4 * k_stride)
        for (int64_t j = 0; j < NR; j += VL) {
            vu32 words = {0};
            if (j + VL <= n && p + 4 <= k)
                words = interleaved(x + j, k_stride, 4, VL);
            else if (j < n)
                switch (k - p) {
                case 1: words = interleaved(x + j, k_stride, 1, n - j); break;
                case 2: words = interleaved(x + j, k_stride, 2, n - j); break;
                case 3: words = interleaved(x + j, k_stride, 3, n - j); break;
                default: words = interleaved(x + j, k_stride, 4, n - j); break;
                }
            vu32_store(panel + j, words);
        }
}

/* Columns of x are contiguous: blocks of VL x VL words are read down VL columns and turned. */
static void pack_columns(uint32_t *panel, const int8_t *x, int64_t n_stride, int64_t k, int64_t n)
{
    enum { STEP = 4 * VL };
    for (int64_t j = 0; j < NR; j += VL) {
        const int64_t columns = n - j < 0 ? 0 : n - j < VL ? n - j : VL;
        const vu32 used = first_words(columns);
        for (int64_t p = 0; p < k; p += STEP) {
            vf32 block[VL];
            UNROLL for (int i = 0; i < VL; i++)
            {
                const int8_t *column = x + (j + i) * n_stride + p;
                int8_t t[STEP] = {0};
                if (i < columns && k - p < STEP) column = memcpy(t, column, (size_t)(k - p));
                block[i] = i < columns ? (vf32)vu32_load(column) : vf32_splat(0);
            }
            vf32_transpose(block);
            uint32_t *word = panel + p / 4 * NR + j;
            for (int64_t q = 0; q < VL && p + 4 * q < k; q++, word += NR)
                vu32_store(word, (vu32)block[q] ^ (flip_of(k - p - 4 * q) & used));
        }
    }
}

static void pack_scattered(uint32_t *panel, const int8_t *x, int64_t k_stride, int64_t n_stride, int64_t k,
                           int64_t n)
{
    for (int64_t p = 0; p < k; p += 4, panel += NR, x += 4 * k_stride)
        for (int64_t j = 0; j < NR; j++) {
            uint32_t word = 0;
            for (int64_t r = 0; j < n && r < 4 && p + r < k; r++)
                word |= (uint32_t)(x[r * k_stride + j * n_stride] + 128) << (8 * r);
            panel[j] = word;
        }
}

static void pack_b(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n)
{
    (void)dtype;
    if (n_stride == 1)
        pack_rows(panel, x, k_stride, k, n);
    else if (k_stride == 1)
        pack_columns(panel, x, n_stride, k, n);
    else
        pack_scattered(panel, x, k_stride, n_stride, k, n);
}

static void pack_a(void *dst, int64_t ld, const void *x, int64_t row_stride, int64_t k_stride, int64_t m,
                   int64_t k, int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    pack_rows_of_a(dst, ld, A_WORDS, x, row_stride, k_stride, m, k, 4, sum_every, sums, n_sums);
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_s8) = {
    .name = "gemm_s8_" TSR_SET_NAME "_" TILE_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 4,
    .k_align = 1,
    .chunk_words = TSR_GEMM_CHUNK_WORDS,
    .block_rows = TSR_GEMM_BLOCK_ROWS,
    .block_columns = TSR_GEMM_BLOCK_COLUMNS,
    .run = run,
    .pack_b = pack_b,
    .a_words = A_WORDS,
    .pack_a = pack_a,
};
