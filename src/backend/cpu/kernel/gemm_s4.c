/*
 * gemm_s4.c - s4 GEMM micro-kernel: C[MR, NR] = alpha A[MR, k] B[k, NR] + beta C, A of s8, B in groups
 *
 *     C = alpha * sum over groups g of scale[g] * (sum of a * u4 in g - zero[g] * sum of a in g) + beta * C
 *
 * Compiled once per instruction set; VL lanes, NR = 2 VL. Sums within a group are integers and exact; groups
 * are added in f32, in order.
 *
 *     a word of B    7|3  6|2  5|1  4|0      low halves: against a word of A, a quad of s8
 *                    byte 3 ...   byte 0     high halves: against the next one
 *
 *     registers                     AVX2     AVX-VNNI   AVX-512   VNNI
 *     sums within a group           4 x 2    6 x 2      6 x 2     8 x 2
 *     b, halves of its bytes        2        2          2         2
 *     a, product, mask              3        2          3         2
 *
 * With VNNI one instruction adds a word's four products. Without it, bytes are multiplied and added in 16
 * bits, which 32 elements cannot overflow (15 * 128 * 32 / 2 < 2^15), and are widened after that. The totals
 * over groups are touched once a group and live in registers where those suffice, else in the first cache.
 * Few rows read B at the speed of memory, which wants it fetched ahead.
 */
#include "backend/cpu/kernel/gemm.h"

#include "backend/cpu/kernel/gemm_result.h"
#include "backend/cpu/kernel/pack_s8.h"

#if TSR_LANES == 16 && TSR_HAS_DOT_QUADS
enum { MR = 8 };
#define TILE_NAME "8x32"
#elif TSR_LANES == 16
enum { MR = 6 };
#define TILE_NAME "6x32"
#elif TSR_LANES == 8 && TSR_HAS_DOT_QUADS
enum { MR = 6 };
#define TILE_NAME "6x16"
#elif TSR_LANES == 8
enum { MR = 4 };
#define TILE_NAME "4x16"
#else
enum { MR = 4 };
#define TILE_NAME "4x8"
#endif
enum { NV = 2, NR = NV * TSR_LANES, BLOCK = 4 /* words along k */ };
#include "backend/cpu/kernel/pack_s4.h"

/* The loop over a block: 16 registers hold its sums only if one word row is done before the next begins. */
#if TSR_LANES == 8 && TSR_HAS_DOT_QUADS
#define UNROLL_BLOCK _Pragma("GCC unroll 1")
#else
#define UNROLL_BLOCK UNROLL
#endif

/* Elements 0 to 3 (half 0) or 4 to 7 (half 1) of a word row, as quads of u8. */
TSR_INLINE void unpack(vu32 u[NV], const uint32_t *b, const int half)
{
    UNROLL for (int j = 0; j < NV; j++) u[j] = vu32_half_bytes(vu32_load(b + j * VL), half);
}

#if TSR_HAS_DOT_QUADS

/* sum += a block of each row of A times a block of B */
TSR_INLINE void multiply_add(vi32 sum[MR][NV], const int rows, packed_a *a, const uint32_t *b)
{
    UNROLL_BLOCK for (int q = 0; q < BLOCK; q++, b += NR, packed_a_move(a, 2))
    {
        fetch_ahead(b, 4 * NR);
        UNROLL for (int half = 0; half < 2; half++)
        {
            vu32 u[NV];
            unpack(u, b, half);
            UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
                sum[i][j] = vi32_dot_quads(sum[i][j], u[j], packed_a_splat(a, i, half));
        }
    }
}

#else

TSR_INLINE void multiply_add(vi32 sum[MR][NV], const int rows, packed_a *a, const uint32_t *b)
{
    vi16x2 part[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++) part[i][j] = (vi16x2){0};
    UNROLL_BLOCK for (int q = 0; q < BLOCK; q++, b += NR, packed_a_move(a, 2))
    {
        fetch_ahead(b, 4 * NR);
        UNROLL for (int half = 0; half < 2; half++)
        {
            vu32 u[NV];
            unpack(u, b, half);
            UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
                part[i][j] = (vi16x2)vi32_added(
                    (vi32)vi16x2_dot_quads(part[i][j], u[j], packed_a_splat(a, i, half)));
        }
    }
    const vi16x2 ones = (vi16x2)vu32_splat(0x00010001u);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
        sum[i][j] = vi32_dot_pairs(sum[i][j], part[i][j], ones);
}

#endif

/* sum = -zero * the sum of A over the group, both of which fit 16 bits */
TSR_INLINE void start(vi32 sum[MR][NV], const int rows, const int32_t *a_sums, int64_t a_sums_row,
                      const uint8_t *zeros)
{
    if (zeros == NULL) {
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
            sum[i][j] = vi32_splat(-8 * a_sums[i * a_sums_row]);
        return;
    }
    vi16x2 zero[NV];
    UNROLL for (int j = 0; j < NV; j++) zero[j] = (vi16x2)vu32_from_u8(zeros + j * VL);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
        sum[i][j] = vi32_dot_pairs((vi32){0}, zero[j], (vi16x2)vi32_splat(-a_sums[i * a_sums_row]));
}

TSR_INLINE void store(const tsr_gemm_tile *t, const int rows, int64_t n, vf32 total[MR][NV])
{
    float *c = t->c;
    UNROLL for (int i = 0; i < rows; i++, c += t->c_row) UNROLL for (int j = 0; j < NV; j++)
        store_result(c + j * VL, total[i][j], t->alpha, t->beta, n - j * VL);
}

/* rows is a constant at every call, so that the sums live in registers. */
TSR_INLINE void run_rows(const tsr_gemm_tile *t, const int rows, int64_t n)
{
    vf32 total[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++) total[i][j] = vf32_splat(0);

    packed_a a = packed_a_of(t->a, t->a_row);
    const char *b = t->b;
    const int64_t words = t->group / WORD, head_nbytes = NR * (t->has_zeros ? 5 : 4);
    for (int64_t g = 0; g * words < t->k; g++) {
        const float *scales = (const float *)b;
        vi32 sum[MR][NV];
        start(sum, rows, t->a_sums + g, t->a_sums_row, t->has_zeros ? (const uint8_t *)b + 4 * NR : NULL);
        fetch_ahead(b, head_nbytes);
        b += head_nbytes;
        for (int64_t q = 0; q < words; q += BLOCK, b += 4 * NR * BLOCK)
            multiply_add(sum, rows, &a, (const uint32_t *)b);
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
            total[i][j] += __builtin_convertvector(sum[i][j], vf32) * vf32_load(scales + j * VL);
    }
    store(t, rows, n, total);
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    switch (m) {
    case 1: run_rows(t, 1, n); break;
    case 2: run_rows(t, 2, n); break;
    case 3: run_rows(t, 3, n); break;
    case 4: run_rows(t, 4, n); break;
#if TSR_LANES == 16 || TSR_HAS_DOT_QUADS
    case 5: run_rows(t, 5, n); break;
    case 6: run_rows(t, 6, n); break;
#endif
#if TSR_LANES == 16 && TSR_HAS_DOT_QUADS
    case 7: run_rows(t, 7, n); break;
    case 8: run_rows(t, 8, n); break;
#endif
    default: __builtin_unreachable();
    }
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_s4) = {
    .name = "gemm_s4_" TSR_SET_NAME "_" TILE_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = WORD,
    .k_align = 1,
    .chunk_words = TSR_GEMM_CHUNK_WORDS,
    .block_rows = TSR_GEMM_BLOCK_ROWS,
    .block_columns = TSR_GEMM_BLOCK_COLUMNS,
    .run = run,
    .pack_s4 = pack_s4,
    .a_words = 1,
    .pack_a = pack_a,
};
