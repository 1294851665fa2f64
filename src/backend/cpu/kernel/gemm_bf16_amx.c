/*
 * gemm_bf16_amx.c - bf16 GEMM micro-kernel in AMX tiles: C[32, 32] = alpha A[32, 2 k] B[2 k, 32] + beta C
 *
 * The tiles, what they cost and what bounds them are in gemm_amx.h; the panel is that of gemm_bf16.c. A is
 * read in place: 16 rows of 32 values are a tile. How a tile's sums are added is said in tile.h.
 *
 * The tiles are stored to C itself where that is all there is to do, else to a buffer that alpha and beta
 * are applied from.
 */
#include "backend/cpu/tile.h"

#define TILE_ADD(c, a, b) TILE_ADD_BF16(c, a, b)
#include "backend/cpu/kernel/gemm_amx.h"
#include "backend/cpu/kernel/pack_bf16.h"

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    const int64_t a_stride = t->a_row * 2, b_stride = t->b_row * 4, n_steps = t->k / K_ALIGN;
    float *c = t->c;
    if (t->alpha == 1 && t->beta == 0 && n == NR) {
        multiply_into(c, t->c_row * 4, t->a, a_stride, t->b, b_stride, n_steps, m, n);
        return;
    }
    _Alignas(64) float sums[MR][NR];
    multiply_into(sums, sizeof sums[0], t->a, a_stride, t->b, b_stride, n_steps, m, n);
    for (int64_t i = 0; i < m; i++, c += t->c_row)
        for (int64_t j = 0; j < n; j += VL) {
            vf32 v = vf32_rounded(vf32_load(sums[i] + j) * t->alpha);
            if (t->beta != 0) v += vf32_rounded(vf32_load_up_to(c + j, n - j) * t->beta);
            vf32_store_up_to(c + j, v, n - j);
        }
}

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
    .name = "gemm_bf16_" TSR_SET_NAME "_32x32",
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 2,
    .k_align = K_ALIGN,
    .a_words = 1,
    .run = run,
    .pack_b = pack_b,
    .pack_a = pack_a,
    .beside_vectors = true,
    .enter = enter,
    .leave = leave,
};
