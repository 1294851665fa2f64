/*
 * backend/cpu/kernel/pack_s8.h - A of s8, packed for the families s8 and s4: rows, their sums, and reading them
 *
 *     quads:   a word holds elements 4p .. 4p + 3        what multiplies bytes reads these
 *     pairs:   two words of s16 for the same four        (0, 2), then (1, 3): against even and odd bytes of B
 */
#ifndef TSR_KERNEL_PACK_S8_H
#define TSR_KERNEL_PACK_S8_H

#include "backend/cpu/vec_int.h"

/*
 * Where a word row of packed A is, for a tile of up to 14 rows. The second pointer keeps the addresses within
 * what x86 has registers for: with one, gcc spills the offsets of rows 7 to 13.
 */
typedef struct packed_a {
    const uint32_t *upper, *lower; /* rows 0 .. 6, and 7 .. */
    int64_t row;
} packed_a;

TSR_INLINE packed_a packed_a_of(const void *a, int64_t row)
{
    packed_a at = {.upper = a, .lower = (const uint32_t *)a + 7 * row, .row = row};
    __asm__("" : "+r"(at.lower)); /* or gcc would find out that it is one with the other */
    return at;
}

TSR_INLINE vu32 packed_a_splat(const packed_a *a, int i, int word)
{
    return vu32_splat(i < 7 ? a->upper[i * a->row + word] : a->lower[(i - 7) * a->row + word]);
}

TSR_INLINE void packed_a_move(packed_a *a, int64_t words) { a->upper += words, a->lower += words; }

TSR_INLINE int32_t sum_of_s8(const int8_t *x, int64_t stride, int64_t n)
{
    int64_t i = 0, sum = 0;
#if defined(__SSE2__)
    if (stride == 1) { /* the instruction adds unsigned bytes */
        const __m128i zero = _mm_setzero_si128(), flip = _mm_set1_epi8(-128);
        __m128i total = zero;
        for (; i + 16 <= n; i += 16) {
            const __m128i bytes = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(x + i)), flip);
            total = _mm_add_epi64(total, _mm_sad_epu8(bytes, zero));
        }
        int64_t half[2];
        memcpy(half, &total, sizeof half);
        sum = half[0] + half[1] - 128 * i;
    }
#endif
    for (; i < n; i++) sum += x[i * stride];
    return (int32_t)sum;
}

/* As gemm.h's pack_a has it. */
TSR_INLINE void sums_of_rows(const int8_t *x, int64_t row_stride, int64_t k_stride, int64_t m, int64_t k,
                             int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    const int64_t every = sum_every > 0 ? sum_every : k > 0 ? k : 1, count = sum_every > 0 ? k : every;
    for (int64_t i = 0; i < m; i++, x += row_stride, sums += n_sums)
        for (int64_t p = 0, g = 0; p < count; p += every, g++)
            sums[g] = sum_of_s8(x + p * k_stride, k_stride, k - p < every ? k - p : every);
}

/* n elements from x, 0 <= n <= size, then zeros. */
TSR_INLINE void copy_s8(int8_t *dst, int64_t size, const int8_t *x, int64_t stride, int64_t n)
{
    if (stride == 1)
        memcpy(dst, x, (size_t)n);
    else
        for (int64_t p = 0; p < n; p++) dst[p] = x[p * stride];
    memset(dst + n, 0, (size_t)(size - n));
}

/* ld words from row to row; k is followed by zeros as far as k_padded, a multiple of 4. */
TSR_INLINE void pack_quads(uint32_t *dst, int64_t ld, const int8_t *x, int64_t row_stride, int64_t k_stride,
                           int64_t m, int64_t k, int64_t k_padded)
{
    for (int64_t i = 0; i < m; i++, x += row_stride, dst += ld)
        copy_s8((int8_t *)dst, k_padded, x, k_stride, k);
}

/* 2 VL elements to VL words. */
TSR_INLINE vu32 pairs_of(const int8_t *x)
{
#if TSR_LANES == 16 && defined(__AVX512BW__)
    const __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)x));
    return (vu32)_mm512_shufflehi_epi16(_mm512_shufflelo_epi16(wide, 0xd8), 0xd8);
#elif TSR_LANES == 8 && defined(__AVX2__)
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)x));
    return (vu32)_mm256_shufflehi_epi16(_mm256_shufflelo_epi16(wide, 0xd8), 0xd8);
#elif TSR_LANES == 4 && defined(__SSE2__)
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)x);
    const __m128i wide = _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
    return (vu32)_mm_shufflehi_epi16(_mm_shufflelo_epi16(wide, 0xd8), 0xd8);
#else
    vi16x2 wide;
    UNROLL for (int q = 0; q < 2 * VL; q += 4)
    {
        wide[q] = x[q], wide[q + 1] = x[q + 2];
        wide[q + 2] = x[q + 1], wide[q + 3] = x[q + 3];
    }
    return (vu32)wide;
#endif
}

TSR_INLINE void pack_pairs(uint32_t *dst, int64_t ld, const int8_t *x, int64_t row_stride, int64_t k_stride,
                           int64_t m, int64_t k, int64_t k_padded)
{
    enum { STEP = 2 * VL };
    for (int64_t i = 0; i < m; i++, x += row_stride, dst += ld) {
        int64_t p = 0;
        if (k_stride == 1)
            for (; p + STEP <= k; p += STEP) vu32_store(dst + p / 2, pairs_of(x + p));
        for (; p < k_padded; p += STEP) {
            int8_t block[STEP];
            const int64_t n = k - p < 0 ? 0 : k - p < STEP ? k - p : STEP;
            copy_s8(block, STEP, x + p * k_stride, k_stride, n);
            vu32_store_n(dst + p / 2, pairs_of(block), k_padded - p < STEP ? (k_padded - p) / 2 : VL);
        }
    }
}

#endif
