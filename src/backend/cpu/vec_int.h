/*
 * backend/cpu/vec_int.h - the words of vec.h for products of small integers
 *
 * A vector of 32-bit words, each of which may hold smaller numbers:
 *
 *               bit 31     24 23     16 15      8 7       0
 *                  +---------+---------+---------+---------+
 *     a quad       |  [3]    |  [2]    |  [1]    |  [0]    |     of u8 or s8
 *     a pair       |        [1]        |        [0]        |     of s16
 *                  +---------+---------+---------+---------+
 *                      odd      even      odd      even
 *
 * Sums wrap around modulo 2^32 (2^16 where they are pairs); whoever adds sees to it that they need not.
 */
#ifndef TSR_BACKEND_CPU_VEC_INT_H
#define TSR_BACKEND_CPU_VEC_INT_H

#include "backend/cpu/vec.h"

#if defined(__SSE2__) && !defined(__AVX2__)
#include <emmintrin.h>
#endif

typedef int8_t vi8x4 __attribute__((vector_size(4 * TSR_LANES)));
typedef int16_t vi16x2 __attribute__((vector_size(4 * TSR_LANES)));
typedef uint16_t vu16x2 __attribute__((vector_size(4 * TSR_LANES)));

/* One instruction for vi32_dot_quads: without it, pairs that are split beforehand are twice as fast. */
#if (TSR_LANES == 16 && defined(__AVX512VNNI__)) || (TSR_LANES == 8 && defined(__AVXVNNI__))
#define TSR_HAS_DOT_QUADS 1
#else
#define TSR_HAS_DOT_QUADS 0
#endif

/* Loads and stores take any alignment. The _n forms touch the first n words only, 0 <= n <= VL; words beyond
 * are loaded as zero. */

TSR_INLINE vu32 vu32_load(const void *p)
{
    vu32 v;
    memcpy(&v, p, sizeof v);
    return v;
}

TSR_INLINE void vu32_store(void *p, vu32 v) { memcpy(p, &v, sizeof v); }

TSR_INLINE vu32 vu32_load_n(const void *p, int64_t n)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vu32)_mm512_maskz_loadu_epi32(first_n(n), p);
#elif TSR_LANES == 8 && defined(__AVX2__)
    return (vu32)_mm256_maskload_epi32(p, first_n(n));
#else
    uint32_t t[VL] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return vu32_load(t);
#endif
}

TSR_INLINE void vu32_store_n(void *p, vu32 v, int64_t n)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    _mm512_mask_storeu_epi32(p, first_n(n), (__m512i)v);
#elif TSR_LANES == 8 && defined(__AVX2__)
    _mm256_maskstore_epi32(p, first_n(n), (__m256i)v);
#else
    memcpy(p, &v, (size_t)n * sizeof(uint32_t));
#endif
}

/* VL bytes, a word for each. */
TSR_INLINE vu32 vu32_from_u8(const uint8_t *p)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vu32)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif TSR_LANES == 8 && defined(__AVX2__)
    return (vu32)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#elif TSR_LANES == 4 && defined(__SSE2__)
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const __m128i zero = _mm_setzero_si128();
    return (vu32)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128((int)four), zero), zero);
#else
    vu32 v = {0};
    UNROLL for (int i = 0; i < VL; i++) v[i] = p[i];
    return v;
#endif
}

/* The low (half 0) or high half of each byte, as a byte: 0 .. 15; or -8 .. 7, 8 less. */
#if TSR_LANES == 16 && defined(__GFNI__)
/* One instruction: bits of a byte times a matrix of bits, whose row for the lowest bit comes first. */
TSR_INLINE vu32 vu32_half_bytes(vu32 bytes, const int half)
{
    const __m512i bits = _mm512_set1_epi64(half == 0 ? 0x0102040800000000 : 0x1020408000000000);
    return (vu32)_mm512_gf2p8affine_epi64_epi8((__m512i)bytes, bits, 0);
}
TSR_INLINE vu32 vu32_half_bytes_less_8(vu32 bytes, const int half)
{
    const __m512i bits = _mm512_set1_epi64(half == 0 ? 0x0102040808080808 : 0x1020408080808080);
    return (vu32)_mm512_gf2p8affine_epi64_epi8((__m512i)bytes, bits,
                                               0xf8); /* bit 3, turned over, as the sign */
}
#else
TSR_INLINE vu32 vu32_half_bytes(vu32 bytes, const int half) { return bytes >> (4 * half) & 0x0f0f0f0fu; }
TSR_INLINE vu32 vu32_half_bytes_less_8(vu32 bytes, const int half)
{
    return (vu32)((vi8x4)vu32_half_bytes(bytes, half) - 8);
}
#endif

/* Pairs of the even or the odd bytes of quads, widened. */
TSR_INLINE vi16x2 even_u8(vu32 quads) { return (vi16x2)(quads & 0x00ff00ffu); }
TSR_INLINE vi16x2 odd_u8(vu32 quads) { return (vi16x2)((vu16x2)quads >> 8); }
TSR_INLINE vi16x2 even_s8(vu32 quads) { return (vi16x2)((vu16x2)quads << 8) >> 8; }
TSR_INLINE vi16x2 odd_s8(vu32 quads) { return (vi16x2)quads >> 8; }

/* 2 VL values of s8, widened, in their order. */
TSR_INLINE vi16x2 vi16x2_from_s8(const int8_t *p)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    return (vi16x2)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
#else
    typedef int8_t bytes __attribute__((vector_size(2 * TSR_LANES)));
    bytes b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, vi16x2);
#endif
}

/* Pairs of a's and b's elements of the same place: those of the first VL places, and those of the rest. */
TSR_INLINE void vi16x2_zip(vi16x2 pairs[2], vi16x2 a, vi16x2 b)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    const vu32 first = (vu32)vi32_iota() * 0x10001u + 0x200000u; /* lane i: a's place i, b's place i */
    pairs[0] = (vi16x2)_mm512_permutex2var_epi16((__m512i)a, (__m512i)first, (__m512i)b);
    pairs[1] = (vi16x2)_mm512_permutex2var_epi16((__m512i)a, (__m512i)(first + 0x100010u), (__m512i)b);
#else
    for (int i = 0; i < 2 * VL; i++) {
        pairs[i / VL][2 * (i % VL)] = a[i];
        pairs[i / VL][2 * (i % VL) + 1] = b[i];
    }
#endif
}

/* acc + a[0] b[0] + a[1] b[1] */
TSR_INLINE vi32 vi32_dot_pairs(vi32 acc, vi16x2 a, vi16x2 b)
{
#if TSR_LANES == 16 && defined(__AVX512VNNI__)
    return (vi32)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#else
#if TSR_LANES == 16 && defined(__AVX512BW__)
    const vu32 sum = (vu32)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif TSR_LANES == 8 && defined(__AVX2__)
    const vu32 sum = (vu32)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif TSR_LANES == 4 && defined(__SSE2__)
    const vu32 sum = (vu32)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const vi32 low = ((vi32)((vu32)a << 16) >> 16) * ((vi32)((vu32)b << 16) >> 16);
    const vi32 high = ((vi32)a >> 16) * ((vi32)b >> 16);
    const vu32 sum = (vu32)low + (vu32)high;
#endif
    return (vi32)((vu32)acc + sum);
#endif
}

/* acc + the four products of quads, u of u8, s of s8 */
TSR_INLINE vi32 vi32_dot_quads(vi32 acc, vu32 u, vu32 s)
{
#if TSR_LANES == 16 && defined(__AVX512VNNI__)
    return (vi32)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)u, (__m512i)s);
#elif TSR_LANES == 8 && defined(__AVXVNNI__)
    return (vi32)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)u, (__m256i)s);
#else
    return vi32_dot_pairs(vi32_dot_pairs(acc, even_u8(u), even_s8(s)), odd_u8(u), odd_s8(s));
#endif
}

/* acc[0] + u[0] s[0] + u[1] s[1], acc[1] + u[2] s[2] + u[3] s[3]; u of u8 not above 127, s of s8. */
TSR_INLINE vi16x2 vi16x2_dot_quads(vi16x2 acc, vu32 u, vu32 s)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    const vu16x2 sum = (vu16x2)_mm512_maddubs_epi16((__m512i)u, (__m512i)s);
#elif TSR_LANES == 8 && defined(__AVX2__)
    const vu16x2 sum = (vu16x2)_mm256_maddubs_epi16((__m256i)u, (__m256i)s);
#else
    const vu16x2 sum = (vu16x2)(even_u8(u) * even_s8(s)) + (vu16x2)(odd_u8(u) * odd_s8(s));
#endif
    return (vi16x2)((vu16x2)acc + sum);
}

/* v, added up at this point: gcc would add two products to each other first, which takes registers it lacks.
 */
TSR_INLINE vi32 vi32_added(vi32 v)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    __asm__("" : "+v"(v));
#elif (TSR_LANES == 8 && defined(__AVX2__)) || (TSR_LANES == 4 && defined(__SSE2__))
    __asm__("" : "+x"(v));
#elif TSR_LANES == 4 && defined(__aarch64__)
    __asm__("" : "+w"(v));
#endif
    return v;
}

#endif
