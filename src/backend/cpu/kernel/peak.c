/*
 * peak.c - the rates of multiply-adds and exponentials and the read bandwidth, as high as this instruction
 * set can show them
 *
 * multiply_add: more independent accumulators than latency x ports (4 x 2 on most cores), no memory at all.
 * An empty asm holds each accumulator in its register where gcc would copy it for an instruction that
 * overwrites one operand, and keeps a product that never changes inside the loop.
 * exp2: the word of vec_math.h on enough independent vectors to hide its chain of multiply-adds; a softmax
 * cannot be faster than its exponentials.
 * read: four streams of additions behind a prefetch that runs 2 KiB ahead.
 */
#include "backend/cpu/kernel/peak.h"

#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

enum { N_ACC = TSR_LANES == 16 ? 24 : 12, N_POWERS = TSR_LANES == 16 ? 8 : 4, AHEAD_NBYTES = 2048 };

static double multiply_add(int64_t reps, float *sink)
{
    vf32 acc[N_ACC];
    vf32 x = vf32_splat(1.0000001f), y = vf32_splat(1e-9f);
    __asm__("" : "+m"(x), "+m"(y)); /* unknown to the compiler */
    UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = vf32_splat((float)i);
    for (int64_t r = 0; r < reps; r++) UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = acc[i] * x + y;
    UNROLL for (int i = 1; i < N_ACC; i++) acc[0] += acc[i];
    *sink += vf32_sum(acc[0]);
    return 2.0 * (double)reps * N_ACC * VL;
}

#if TSR_LANES == 16 && defined(__AVX512BF16__)
static double multiply_add_bf16(int64_t reps, float *sink)
{
    __m512 acc[N_ACC];
    vu32 x = vu32_splat(0x3f803f80u), y = vu32_splat(0x30003000u); /* pairs of 1 and of 2^-31 */
    __asm__("" : "+v"(x), "+v"(y));
    UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = (__m512)vf32_splat((float)i);
    for (int64_t r = 0; r < reps; r++) UNROLL for (int i = 0; i < N_ACC; i++)
        {
            acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)x, (__m512bh)y);
            __asm__("" : "+v"(acc[i]));
        }
    vf32 sum = vf32_splat(0);
    UNROLL for (int i = 0; i < N_ACC; i++) sum += (vf32)acc[i];
    *sink += vf32_sum(sum);
    return 2.0 * (double)reps * N_ACC * VL * 2;
}
#endif

/* One multiply-add into each accumulator: four bytes of each lane, or two 16-bit numbers where there are no
 * such instructions. */
#if TSR_LANES == 16 && defined(__AVX512VNNI__)
#define dot_quads(acc, x, y) (vi32) _mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)y)
#elif TSR_LANES == 8 && defined(__AVXVNNI__)
#define dot_quads(acc, x, y) (vi32) _mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)x, (__m256i)y)
#elif TSR_LANES == 16 && defined(__AVX512BW__)
#define dot_pairs(x, y) (vi32) _mm512_madd_epi16((__m512i)x, (__m512i)y)
#elif TSR_LANES == 8 && defined(__AVX2__)
#define dot_pairs(x, y) (vi32) _mm256_madd_epi16((__m256i)x, (__m256i)y)
#endif

#if defined(dot_quads)
enum { S8_PER_LANE = 4 };
TSR_INLINE void multiply_add_each(vi32 acc[N_ACC], vi32 x, vi32 y)
{
    UNROLL for (int i = 0; i < N_ACC; i++)
    {
        acc[i] = dot_quads(acc[i], x, y);
        __asm__("" : "+v"(acc[i]));
    }
}
#elif defined(dot_pairs)
enum {
    S8_PER_LANE = 2,
    GROUP = TSR_LANES == 16 ? 4 : 2
}; /* of products, then sums, which take other ports */
TSR_INLINE void multiply_add_each(vi32 acc[N_ACC], vi32 x, vi32 y)
{
    UNROLL for (int i = 0; i < N_ACC; i += GROUP)
    {
        vi32 product[GROUP];
        UNROLL for (int g = 0; g < GROUP; g++)
        {
            __asm__ volatile("" : "+v"(x), "+v"(y));
            product[g] = dot_pairs(x, y);
            __asm__ volatile("" : "+v"(product[g]));
        }
        UNROLL for (int g = 0; g < GROUP; g++)
        {
            acc[i + g] += product[g];
            __asm__ volatile("" : "+v"(acc[i + g]));
        }
    }
}
#endif

#if defined(dot_quads) || defined(dot_pairs)
#define HAS_S8
static double multiply_add_s8(int64_t reps, float *sink)
{
    vi32 acc[N_ACC];
    vi32 x = vi32_splat(0x00010001), y = vi32_splat(0); /* sums of signed numbers may not overflow in C */
    __asm__("" : "+v"(x), "+v"(y));
    UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = vi32_splat(i);
    for (int64_t r = 0; r < reps; r++) multiply_add_each(acc, x, y);
    UNROLL for (int i = 1; i < N_ACC; i++) acc[0] += acc[i];
    *sink += (float)acc[0][0];
    return 2.0 * (double)reps * N_ACC * VL * S8_PER_LANE;
}
#endif

static double exp2_rate(int64_t reps, float *sink)
{
    vf32 x[N_POWERS], sum[N_POWERS];
    UNROLL for (int i = 0; i < N_POWERS; i++)
    {
        x[i] = vf32_splat(-0.37f * (float)(i + 1));
        sum[i] = vf32_splat(0);
    }
    for (int64_t r = 0; r < reps; r++) UNROLL for (int i = 0; i < N_POWERS; i++)
        {
            x[i] = vf32_rounded(x[i]); /* unknown anew, or one power would serve for all */
            sum[i] += vf32_exp2(x[i]);
        }
    UNROLL for (int i = 1; i < N_POWERS; i++) sum[0] += sum[i];
    *sink += vf32_sum(sum[0]);
    return (double)reps * N_POWERS * VL;
}

static float read_all(const void *data, size_t nbytes)
{
    const float *p = data, *end = p + nbytes / sizeof *p;
    vf32 sum[4] = {{0}, {0}, {0}, {0}};
    for (; p < end; p += 32) { /* two cache lines */
        __builtin_prefetch((const char *)p + AHEAD_NBYTES);
        __builtin_prefetch((const char *)p + AHEAD_NBYTES + 64);
        UNROLL for (int i = 0; i < 32 / VL; i++) sum[i % 4] += vf32_load(p + i * VL);
    }
    return vf32_sum(sum[0] + sum[1] + (sum[2] + sum[3]));
}

const tsr_peak_kernel TSR_NAME(tsr_peak) = {
    .name = "peak_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .multiply_add = multiply_add,
#if TSR_LANES == 16 && defined(__AVX512BF16__)
    .multiply_add_bf16 = multiply_add_bf16,
#endif
#if defined(HAS_S8)
    .multiply_add_s8 = multiply_add_s8,
#endif
    .exp2 = exp2_rate,
    .read = read_all,
};
