/*
 * backend/cpu/vec_bf16.h - the words of vec.h that products of bf16 need
 *
 * A pair is a word of 32 bits with two bf16, the even one along k in its low half.
 *
 * The dot product adds to each f32 lane first the product of the odd halves, then that of the even ones, each
 * time rounding once, to nearest even. Subnormals are zeros: in both operands, in the sum so far, and in what
 * each addition gives (Intel SDM, VDPBF16PS). Whether a sum is subnormal is decided after rounding, as if
 * the exponent had no lower end: 2^-126 - 2^-151 still rounds up to 2^-126, anything smaller is zero.
 */
#ifndef TSR_BACKEND_CPU_VEC_BF16_H
#define TSR_BACKEND_CPU_VEC_BF16_H

#include "backend/cpu/vec.h"

/* --- plain C, also of the tiles (tile.h) --- */

TSR_INLINE float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x; }

/*
 * c + a b as above, a and b being bf16. The product is exact in double. Of the sum, double loses only what
 * lies 53 bits below; that belongs to the smaller number, which is then too small to turn the rounding of the
 * other, an f32 but for its exponent.
 */
TSR_INLINE float bf16_multiply_add(float c, float a, float b)
{
    double sum = (double)flushed(c) + (double)flushed(a) * (double)flushed(b);
    if (__builtin_fabs(sum) < 0x1p-126 - 0x1p-151) sum = __builtin_copysign(0, sum);
    return (float)sum;
}

TSR_INLINE float bf16_even(uint32_t pair) { return tsr_f32_from_bits(pair << 16); }
TSR_INLINE float bf16_odd(uint32_t pair) { return tsr_f32_from_bits(pair & 0xffff0000u); }

/* --- words --- */

/* acc + the dot product of each lane's pairs. NaN, if any, is NaN of whatever payload. */
TSR_INLINE vf32 vf32_add_dot_bf16(vf32 acc, vu32 a, vu32 b)
{
#if TSR_LANES == 16 && defined(__AVX512BF16__)
    return (vf32)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    for (int i = 0; i < VL; i++) {
        acc[i] = bf16_multiply_add(acc[i], bf16_odd(a[i]), bf16_odd(b[i]));
        acc[i] = bf16_multiply_add(acc[i], bf16_even(a[i]), bf16_even(b[i]));
    }
    return acc;
#endif
}

/* Each lane's even or odd half: an instruction for a vector, where numbers in their order take two. */
TSR_INLINE vf32 vf32_bf16_even(vu32 pairs) { return (vf32)(pairs << 16); }
TSR_INLINE vf32 vf32_bf16_odd(vu32 pairs) { return (vf32)(pairs & 0xffff0000u); }

/* The pairs of 2 VL values, in their order; a subnormal may become zero. */
TSR_INLINE vu32 vu32_pairs_from_vf32(vf32 first, vf32 second)
{
#if TSR_LANES == 16 && defined(__AVX512BF16__)
    return (vu32)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#else
    uint16_t t[2 * VL];
    vu32 pairs;
    bf16_from_vf32(t, first);
    bf16_from_vf32(t + VL, second);
    memcpy(&pairs, t, sizeof pairs);
    return pairs;
#endif
}

/* The larger of each half of a lane, as unsigned numbers: the order of bf16 that are not negative. */
TSR_INLINE vu32 vu32_max_halves(vu32 a, vu32 b)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    return (vu32)_mm512_max_epu16((__m512i)a, (__m512i)b);
#else
    uint16_t x[2 * VL], y[2 * VL];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 2 * VL; i++) x[i] = x[i] > y[i] ? x[i] : y[i];
    memcpy(&a, x, sizeof a);
    return a;
#endif
}

/* True if a half of some lane is `least` or more. */
TSR_INLINE bool vu32_reaches_half(vu32 v, uint16_t least)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    return _mm512_cmpge_epu16_mask((__m512i)v, _mm512_set1_epi16((int16_t)least)) != 0;
#else
    uint16_t x[2 * VL];
    bool reaches = false;
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 2 * VL; i++) reaches |= x[i] >= least;
    return reaches;
#endif
}

/* The pair at p, of any alignment, in every lane. */
TSR_INLINE vu32 vu32_splat_pair(const uint16_t *p)
{
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return vu32_splat(pair);
}

/* The first n words of VL, all where n is VL or more; words beyond are zero, and are not touched. */
TSR_INLINE vu32 vu32_load_up_to(const void *p, int64_t n)
{
    vu32 v = {0};
    if (n >= VL)
        memcpy(&v, p, sizeof v);
    else
#if TSR_LANES == 16 && defined(__AVX512F__)
        v = (vu32)_mm512_maskz_loadu_epi32(first_n(n), p);
#else
        memcpy(&v, p, (size_t)n * sizeof v[0]);
#endif
    return v;
}
TSR_INLINE void vu32_store_up_to(void *p, vu32 v, int64_t n)
{
    if (n >= VL)
        memcpy(p, &v, sizeof v);
    else
#if TSR_LANES == 16 && defined(__AVX512F__)
        _mm512_mask_storeu_epi32(p, first_n(n), (__m512i)v);
#else
        memcpy(p, &v, (size_t)n * sizeof v[0]);
#endif
}

/* VL pairs from the first n of 2 VL values, 0 <= n <= 2 VL; zeros beyond, which are not read. */
TSR_INLINE vu32 vu32_load_pairs_n(const uint16_t *p, int64_t n)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    return (vu32)_mm512_maskz_loadu_epi16((__mmask32)(((uint64_t)1 << n) - 1), p);
#else
    vu32 v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
#endif
}

/* The first n of VL values, each in the low half of its lane; zeros beyond, which are not read. */
TSR_INLINE vu32 vu32_from_u16_n(const uint16_t *p, int64_t n)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    return (vu32)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
#else
    uint16_t t[VL] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return vu32_from_u16(t);
#endif
}

#endif
