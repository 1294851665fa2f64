/*
 * backend/cpu/vec_lanes.h - words across lanes: turned, zipped, and folded to sums and maxima
 *
 * What adds up lanes does so in one order, whatever the instructions.
 */
#ifndef TSR_BACKEND_CPU_VEC_LANES_H
#define TSR_BACKEND_CPU_VEC_LANES_H

#include "backend/cpu/vec.h"

/* Row i of a VL x VL block becomes column i. */
TSR_INLINE void vf32_transpose(vf32 v[TSR_LANES])
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    __m512 t[16], u[16];
    UNROLL for (int i = 0; i < 16; i += 2) /* pairs of rows, then fours, within each 128 bits */
    {
        t[i] = _mm512_unpacklo_ps((__m512)v[i], (__m512)v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps((__m512)v[i], (__m512)v[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        UNROLL for (int h = 0; h < 2; h++)
        {
            const __m512d a = (__m512d)t[i + h], b = (__m512d)t[i + 2 + h];
            u[i + 2 * h] = (__m512)_mm512_unpacklo_pd(a, b);
            u[i + 2 * h + 1] = (__m512)_mm512_unpackhi_pd(a, b);
        }
    }
    /* u[4 g + c] holds columns c, c + 4, c + 8, c + 12 of rows 4 g .. 4 g + 3, 128 bits each. */
    UNROLL for (int c = 0; c < 4; c++)
    {
        const __m512 a = _mm512_shuffle_f32x4(u[c], u[4 + c], 0x88),
                     b = _mm512_shuffle_f32x4(u[c], u[4 + c], 0xdd);
        const __m512 d = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0x88);
        const __m512 e = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0xdd);
        v[c] = (vf32)_mm512_shuffle_f32x4(a, d, 0x88);
        v[c + 8] = (vf32)_mm512_shuffle_f32x4(a, d, 0xdd);
        v[c + 4] = (vf32)_mm512_shuffle_f32x4(b, e, 0x88);
        v[c + 12] = (vf32)_mm512_shuffle_f32x4(b, e, 0xdd);
    }
#elif TSR_LANES == 8 && defined(__AVX2__)
    __m256 t[8], u[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_ps((__m256)v[i], (__m256)v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps((__m256)v[i], (__m256)v[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        UNROLL for (int h = 0; h < 2; h++)
        {
            const __m256d a = (__m256d)t[i + h], b = (__m256d)t[i + 2 + h];
            u[i + 2 * h] = (__m256)_mm256_unpacklo_pd(a, b);
            u[i + 2 * h + 1] = (__m256)_mm256_unpackhi_pd(a, b);
        }
    }
    UNROLL for (int c = 0; c < 4; c++)
    {
        v[c] = (vf32)_mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
        v[c + 4] = (vf32)_mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
    }
#else
    float t[VL][VL], u[VL][VL];
    memcpy(t, v, sizeof t);
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) u[i][j] = t[j][i];
    memcpy(v, u, sizeof u);
#endif
}

/* Lanes of a, or of b where they are VL or more. */
#if defined(__clang__)
#define LANES_OF_TWO(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LANES_OF_TWO(a, b, ...) __builtin_shuffle(a, b, (vi32){__VA_ARGS__})
#endif

/* Lanes of two vectors: the even ones to v[0] and the odd ones to v[1]; and back. */
TSR_INLINE void vf32_unzip(vf32 v[2])
{
    const vf32 a = v[0], b = v[1];
#if TSR_LANES == 16
    v[0] = LANES_OF_TWO(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    v[1] = LANES_OF_TWO(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif TSR_LANES == 8
    v[0] = LANES_OF_TWO(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    v[1] = LANES_OF_TWO(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    v[0] = LANES_OF_TWO(a, b, 0, 2, 4, 6);
    v[1] = LANES_OF_TWO(a, b, 1, 3, 5, 7);
#endif
}

TSR_INLINE void vf32_zip(vf32 v[2])
{
    const vf32 a = v[0], b = v[1];
#if TSR_LANES == 16
    v[0] = LANES_OF_TWO(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    v[1] = LANES_OF_TWO(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif TSR_LANES == 8
    v[0] = LANES_OF_TWO(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    v[1] = LANES_OF_TWO(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    v[0] = LANES_OF_TWO(a, b, 0, 4, 1, 5);
    v[1] = LANES_OF_TWO(a, b, 2, 6, 3, 7);
#endif
}

/* Sum and maximum of all lanes, always in this order: halves are folded together until one is left. */

#if TSR_LANES >= 8 && defined(__AVX2__) && (TSR_LANES == 8 || defined(__AVX512F__))

#if TSR_LANES == 16
TSR_INLINE __m256 lower_half(vf32 v) { return _mm512_castps512_ps256((__m512)v); }
TSR_INLINE __m256 upper_half(vf32 v) { return _mm512_extractf32x8_ps((__m512)v, 1); }
#endif

TSR_INLINE float vf32_sum(vf32 v)
{
#if TSR_LANES == 16
    const __m256 h = _mm256_add_ps(lower_half(v), upper_half(v));
#else
    const __m256 h = (__m256)v;
#endif
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

TSR_INLINE float vf32_max_lane(vf32 v)
{
#if TSR_LANES == 16
    const __m256 h = _mm256_max_ps(lower_half(v), upper_half(v));
#else
    const __m256 h = (__m256)v;
#endif
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

#else

TSR_INLINE float vf32_sum(vf32 v)
{
    float t[VL];
    vf32_store(t, v);
    UNROLL for (int half = VL / 2; half > 0; half /= 2) UNROLL for (int i = 0; i < half; i++)
        t[i] += t[i + half];
    return t[0];
}

TSR_INLINE float vf32_max_lane(vf32 v)
{
    float t[VL];
    vf32_store(t, v);
    UNROLL for (int half = VL / 2; half > 0; half /= 2) UNROLL for (int i = 0; i < half; i++)
        t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
    return t[0];
}

#endif

/*
 * Lane n becomes the sum of v[n]'s lanes, all in one order: halves and quarters of a vector are folded
 * together down to four lanes q, then (q0 + q2) + (q1 + q3).
 */
TSR_INLINE vf32 vf32_sums(const vf32 v[TSR_LANES])
{
#if TSR_LANES >= 8 && defined(__AVX2__) && (TSR_LANES == 8 || defined(__AVX512F__))
#if TSR_LANES == 16
    __m512 w[4]; /* quarter j of w[i]: what v[4 j + i] was folded to */
    UNROLL for (int i = 0; i < 4; i++)
    {
        const __m512 a = (__m512)v[i], b = (__m512)v[4 + i], c = (__m512)v[8 + i], d = (__m512)v[12 + i];
        const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
        const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
        w[i] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    const __m512 p = _mm512_add_ps(_mm512_unpacklo_ps(w[0], w[1]), _mm512_unpackhi_ps(w[0], w[1]));
    const __m512 q = _mm512_add_ps(_mm512_unpacklo_ps(w[2], w[3]), _mm512_unpackhi_ps(w[2], w[3]));
    return (vf32)_mm512_add_ps(_mm512_shuffle_ps(p, q, 0x44), _mm512_shuffle_ps(p, q, 0xee));
#else
    __m256 w[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        const __m256 a = (__m256)v[i], b = (__m256)v[4 + i];
        w[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    const __m256 p = _mm256_add_ps(_mm256_unpacklo_ps(w[0], w[1]), _mm256_unpackhi_ps(w[0], w[1]));
    const __m256 q = _mm256_add_ps(_mm256_unpacklo_ps(w[2], w[3]), _mm256_unpackhi_ps(w[2], w[3]));
    return (vf32)_mm256_add_ps(_mm256_shuffle_ps(p, q, 0x44), _mm256_shuffle_ps(p, q, 0xee));
#endif
#else
    float sums[VL];
    for (int n = 0; n < VL; n++) {
        float t[VL];
        vf32_store(t, v[n]);
        for (int step = 4; step < VL; step *= 2) /* neighbouring quarters first */
            for (int i = 0; i < VL; i += 2 * step)
                for (int j = 0; j < 4; j++) t[i + j] += t[i + step + j];
        sums[n] = (t[0] + t[2]) + (t[1] + t[3]);
    }
    return vf32_load(sums);
#endif
}

#endif
