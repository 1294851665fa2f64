/*
 * gemm_bf16.c - bf16 GEMM micro-kernel: C[14, 32] = alpha A[14, 2 k] B[2 k, 32] + beta C, summed in f32
 *
 * For the sets whose vectors multiply pairs of bf16 (AVX512-BF16); VL = 16 lanes. Columns that end within the
 * first vector are multiplied by that one alone.
 *
 *                  b   k-th row of pairs of the panel: 2 vectors     registers (32)
 *          +------------------+                                       C   28, 14 x 2
 *     a    | C 14 x 2 vectors |  one pair of A is broadcast           b    2
 *     14   |                  |  against both of them                 a    1
 *          +------------------+
 *
 * A is read in place, its rows contiguous along k: a pair of values is a word. Per word: 28 dot products of 2
 * multiply-adds, 2 loads, 14 broadcasts; bound by the dot products, one or two a cycle. In what order they
 * add, and that they flush subnormals, is said in vec_bf16.h; alpha and beta neither fuse nor flush.
 */
#include "backend/cpu/kernel/gemm.h"

#include "backend/cpu/kernel/gemm_result.h"
#include "backend/cpu/kernel/pack_bf16.h"

enum { MR = 14, NV = 2, NR = NV * TSR_LANES, K_ALIGN = 1 };

TSR_INLINE void store_sum(float *c, vf32 sum, float alpha, float beta, int64_t n)
{
    vf32 v = vf32_rounded(sum * alpha);
    if (beta != 0) v += vf32_rounded(vf32_load_up_to(c, n) * beta);
    vf32_store_up_to(c, v, n);
}

TSR_INLINE void run_rows(const tsr_gemm_tile *t, const int rows, const int nv, int64_t n)
{
    vf32 acc[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf32_splat(0);

    const uint16_t *a = t->a;
    const uint32_t *b = t->b;
    const int64_t a_row = t->a_row, b_row = t->b_row;
    const char *ahead = t->ahead;
    for (int64_t p = t->k; p > 0; p--, a += 2, b += b_row) {
        vu32 bp[NV];
        ahead = fetch_step(ahead, t->ahead_step);
        UNROLL for (int j = 0; j < nv; j++) bp[j] = vu32_load_up_to(b + j * VL, VL);
        UNROLL for (int i = 0; i < rows; i++)
        {
            const vu32 ap = vu32_splat_pair(a + i * a_row);
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf32_add_dot_bf16(acc[i][j], ap, bp[j]);
        }
    }

    const float alpha = t->alpha, beta = t->beta;
    if (store_plain_sums(acc, rows, nv, t->c, t->c_row, alpha, beta, n)) return;
    float *c = t->c;
    UNROLL for (int i = 0; i < rows; i++, c += t->c_row)
    {
        UNROLL for (int j = 0; j < nv; j++)
        {
            const int64_t left = n - j * VL;
            if (left > 0) store_sum(c + j * VL, acc[i][j], alpha, beta, left);
        }
    }
}

/* Columns that lie contiguous: blocks of VL columns x VL pairs are turned in registers, of which C then takes
 * one a row. */
TSR_INLINE void run_columns_rows(const tsr_gemm_tile *t, const int rows, int64_t n)
{
    for (int64_t j = 0; j < n; j += VL) {
        vf32 acc[MR];
        UNROLL for (int i = 0; i < rows; i++) acc[i] = vf32_splat(0);
        const uint16_t *a = t->a, *b = (const uint16_t *)t->b + j * t->b_row;
        const int64_t columns = at_most(n - j, VL);
        for (int64_t p = t->k; p > 0; p -= VL, a += 2 * VL, b += 2 * VL) {
            vu32 block[VL];
            UNROLL for (int i = 0; i < VL; i++) block[i] = i < columns ? pairs_along(b + i * t->b_row, 2 * p)
                                                                       : vu32_splat(0);
            turn(block);
            if (p >= VL) {
                UNROLL for (int q = 0; q < VL; q++) UNROLL for (int i = 0; i < rows; i++)
                    acc[i] = vf32_add_dot_bf16(acc[i], vu32_splat_pair(a + i * t->a_row + 2 * q), block[q]);
            } else {
                for (int q = 0; q < p; q++)
                    UNROLL for (int i = 0; i < rows; i++) acc[i] = vf32_add_dot_bf16(
                        acc[i], vu32_splat_pair(a + i * t->a_row + 2 * q), block[q]);
            }
        }
        float *c = (float *)t->c + j;
        UNROLL for (int i = 0; i < rows; i++, c += t->c_row) store_sum(c, acc[i], t->alpha, t->beta, n - j);
    }
}

/* rows and nv, vectors of a panel, are constants at every call, so that acc lives in registers; nv is 0 for
 * columns as they lie. */
TSR_INLINE void run_rows_as(const tsr_gemm_tile *t, const int rows, const int nv, int64_t n)
{
    if (nv == 0)
        run_columns_rows(t, rows, n);
    else
        run_rows(t, rows, nv, n);
}

TSR_INLINE void run_as(const tsr_gemm_tile *t, const int nv, int64_t m, int64_t n)
{
    switch (m) {
    case 1: run_rows_as(t, 1, nv, n); break;
    case 2: run_rows_as(t, 2, nv, n); break;
    case 3: run_rows_as(t, 3, nv, n); break;
    case 4: run_rows_as(t, 4, nv, n); break;
    case 5: run_rows_as(t, 5, nv, n); break;
    case 6: run_rows_as(t, 6, nv, n); break;
    case 7: run_rows_as(t, 7, nv, n); break;
    case 8: run_rows_as(t, 8, nv, n); break;
    case 9: run_rows_as(t, 9, nv, n); break;
    case 10: run_rows_as(t, 10, nv, n); break;
    case 11: run_rows_as(t, 11, nv, n); break;
    case 12: run_rows_as(t, 12, nv, n); break;
    case 13: run_rows_as(t, 13, nv, n); break;
    case 14: run_rows_as(t, 14, nv, n); break;
    default: __builtin_unreachable();
    }
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    if (n > VL)
        run_as(t, NV, m, n);
    else
        run_as(t, 1, m, n);
}

static void run_columns(const tsr_gemm_tile *t, int64_t m, int64_t n) { run_as(t, 0, m, n); }

static void pack_b(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n)
{
    (void)dtype; /* bf16 */
    pack_bf16_panel(panel, NR, K_ALIGN, x, k_stride, n_stride, k, n);
}

static void pack_a(void *dst, int64_t ld, const void *x, int64_t row_stride, int64_t k_stride, int64_t m,
                   int64_t k, int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    (void)sum_every, (void)sums, (void)n_sums;
    pack_bf16_rows(dst, ld, K_ALIGN, x, row_stride, k_stride, m, k);
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_bf16) = {
    .name = "gemm_bf16_" TSR_SET_NAME "_14x32",
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 2,
    .k_align = K_ALIGN,
    .chunk_words = TSR_GEMM_CHUNK_WORDS,
    .block_rows = TSR_GEMM_BLOCK_ROWS,
    .block_columns = TSR_GEMM_BLOCK_COLUMNS,
    .attention = {.fwd_queries = 112, .fwd_keys = 256, .bwd_queries = 224, .bwd_keys = 256},
    .multiplies_rows = true,
    .a_words = 1,
    .run = run,
    .columns_mr = MR,
    .run_columns = run_columns,
    .pack_b = pack_b,
    .pack_a = pack_a,
};
