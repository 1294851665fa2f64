/* backend/cpu/vec_dropout.h - dropout's random words, lane by lane; included after vec.h */
#ifndef TSR_BACKEND_CPU_VEC_DROPOUT_H
#define TSR_BACKEND_CPU_VEC_DROPOUT_H

#include "backend/cpu/vec.h"
#include "base/random.h"

/* Four vectors, read as rows of 4-lane blocks: block b of w[k] becomes lane 4 b + k of all four in order. */
TSR_INLINE void vu32_transpose4(vu32 w[4])
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    const __m512i ab = _mm512_unpacklo_epi32((__m512i)w[0], (__m512i)w[1]);
    const __m512i AB = _mm512_unpackhi_epi32((__m512i)w[0], (__m512i)w[1]);
    const __m512i cd = _mm512_unpacklo_epi32((__m512i)w[2], (__m512i)w[3]);
    const __m512i CD = _mm512_unpackhi_epi32((__m512i)w[2], (__m512i)w[3]);
    w[0] = (vu32)_mm512_unpacklo_epi64(ab, cd), w[1] = (vu32)_mm512_unpackhi_epi64(ab, cd);
    w[2] = (vu32)_mm512_unpacklo_epi64(AB, CD), w[3] = (vu32)_mm512_unpackhi_epi64(AB, CD);
#elif TSR_LANES == 8 && defined(__AVX2__)
    const __m256i ab = _mm256_unpacklo_epi32((__m256i)w[0], (__m256i)w[1]);
    const __m256i AB = _mm256_unpackhi_epi32((__m256i)w[0], (__m256i)w[1]);
    const __m256i cd = _mm256_unpacklo_epi32((__m256i)w[2], (__m256i)w[3]);
    const __m256i CD = _mm256_unpackhi_epi32((__m256i)w[2], (__m256i)w[3]);
    w[0] = (vu32)_mm256_unpacklo_epi64(ab, cd), w[1] = (vu32)_mm256_unpackhi_epi64(ab, cd);
    w[2] = (vu32)_mm256_unpacklo_epi64(AB, CD), w[3] = (vu32)_mm256_unpackhi_epi64(AB, CD);
#else
    const vu32 t[4] = {w[0], w[1], w[2], w[3]};
    UNROLL for (int k = 0; k < 4; k++) UNROLL for (int i = 0; i < VL; i++) w[k][i] = t[i % 4][i / 4 * 4 + k];
#endif
}

/*
 * Dropout's random words of 4 VL neighbouring columns, from `column`, a multiple of 4: words[k] belongs to
 * columns column + k VL ... All four words of a Philox call are used; its counters are dealt to the lanes so
 * that a transposition within blocks of four lanes puts them in order.
 */
TSR_INLINE void vu32_dropout_words(vu32 words[4], uint64_t seed, uint32_t offset, uint32_t head, uint32_t row,
                                   uint32_t column)
{
    const vu32 lane = (vu32)vi32_iota();
    vu32 c0 = (lane & 3) * (VL / 4) + (lane >> 2) + (column >> 2);
    vu32 c1 = vu32_splat(row), c2 = vu32_splat(head), c3 = vu32_splat(offset);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const vu32 high0 = vu32_mulhi(c0, TSR_PHILOX_M0), low0 = c0 * TSR_PHILOX_M0;
        const vu32 high1 = vu32_mulhi(c2, TSR_PHILOX_M1), low1 = c2 * TSR_PHILOX_M1;
        c0 = high1 ^ c1 ^ k0, c1 = low1;
        c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += TSR_PHILOX_W0, k1 += TSR_PHILOX_W1;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
    vu32_transpose4(words);
}

#endif
