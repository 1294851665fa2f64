/*
 * gemm_bf16_amx.c - bf16 GEMM micro-kernel in AMX tiles: C[32, 32] = alpha A[32, 2 k] B[2 k, 32] + beta C
 *
 * The tiles, what they cost and what bounds them are in gemm_amx.h; the panel is that of gemm_bf16.c. A is
 * read in place: 16 rows of 32 values are a tile. How a tile's sums are added is said in tile.h.
 *
 * C is loaded into the tiles and stored from them where it is one more term of the sum, or not read, and has
 * whole rows; else a buffer is, that alpha and beta are applied from.
 */
#include "backend/cpu/tile.h"

#define ELEMENT_NBYTES    2
#define TILE_ADD(c, a, b) TILE_ADD_BF16(c, a, b)
#include "backend/cpu/kernel/gemm_amx.h"
#include "backend/cpu/kernel/pack_bf16.h"
/* its tiles are those above */
#include "backend/cpu/kernel/attention_amx.h"

/* C is one term more of the sum that the tiles add up where alpha and beta are 1, so that a chunk goes on
 * where the last one ended. */
static void run_product(const tsr_gemm_tile *t, const tile_product *p, int64_t m, int64_t n)
{
    if (t->alpha == 1 && (t->beta == 0 || t->beta == 1)) {
        multiply_exactly(p, m, n);
        return;
    }
    _Alignas(64) float sums[MR][NR];
    tile_product into_sums = *p;
    into_sums.c = (char *)sums, into_sums.c_stride = sizeof sums[0];
    into_sums.adds = into_sums.may_stay = false;
    multiply_any(&into_sums, m, n);
    float *c = t->c;
    for (int64_t i = 0; i < m; i++, c += t->c_row)
        for (int64_t j = 0; j < n; j += VL) {
            vf32 v = vf32_rounded(vf32_load(sums[i] + j) * t->alpha);
            if (t->beta != 0) v += vf32_rounded(vf32_load_up_to(c + j, n - j) * t->beta);
            vf32_store_up_to(c + j, v, n - j);
        }
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    const tile_product p = product_of(t, t->b_row * 4, false);
    run_product(t, &p, m, n);
}

static void run_columns(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    const tile_product p = product_of(t, t->b_row * ELEMENT_NBYTES, true);
    run_product(t, &p, m, n);
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

/*
 * Forward: a head's K and V come from the last cache once for each block of queries, which at the tiles' peak
 * takes 24 GB/s with 96 of them, all that there is; the more keys a tile has, the less often O is stored.
 * Backward turns Q and dO for each block of keys, so that these are as many; more queries lose what lies in
 * the second cache.
 */
const tsr_gemm_kernel TSR_NAME(tsr_gemm_bf16) = {
    .name = "gemm_bf16_" TSR_SET_NAME "_32x32",
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 2,
    .k_align = K_ALIGN,
    .chunk_words = CHUNK_WORDS,
    .block_rows = BLOCK_ROWS,
    .block_columns = BLOCK_COLUMNS,
    .attention =
        {.fwd_queries = 512, .fwd_keys = 512, .bwd_queries = 224, .bwd_keys = 512, .values_words = 32},
    .a_words = 1,
    .run = run,
    .columns_mr = COLUMNS_MR,
    .run_columns = run_columns,
    .run_scores = run_scores,
    .run_gradients = run_gradients,
    .pack_b = pack_b,
    .pack_a = pack_a,
    .keeps_sums = true,
    .multiplies_rows = true,
    .enter = enter,
    .leave = leave,
    .finish = finish,
};
