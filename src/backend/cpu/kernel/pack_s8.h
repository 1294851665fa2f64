/*
 * backend/cpu/kernel/pack_s8.h - what the families s8 and s4 share: A, packed, summed and read
 *
 *     quads:   a word holds elements 4p .. 4p + 3        what multiplies bytes reads these
 *     pairs:   two words of s16 for the same four        (0, 2), then (1, 3): against even and odd bytes of B
 */
#ifndef TSR_KERNEL_PACK_S8_H
#define TSR_KERNEL_PACK_S8_H

#include "backend/cpu/vec_int.h"

/*
 * What lies AHEAD_NBYTES behind these bytes of B will be wanted soon: few rows read B at the speed of memory,
 * which is half as much again for it at 8 rows. At the end of a panel it is the next one, or nothing.
 */
enum { AHEAD_NBYTES = 4096 };
TSR_INLINE void fetch_ahead(const void *p, int64_t nbytes)
{
    for (int64_t i = 0; i < nbytes; i += 64) __builtin_prefetch((const char *)p + AHEAD_NBYTES + i);
}

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

TSR_INLINE int32_t sum_of_s8(const int8_t *x, int64_t n)
{
    int64_t i = 0, sum = 0;
#if defined(__SSE2__)
    /* The instruction adds unsigned bytes. */
    const __m128i zero = _mm_setzero_si128(), flip = _mm_set1_epi8(-128);
    __m128i total = zero;
    for (; i + 16 <= n; i += 16) {
        const __m128i bytes = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(x + i)), flip);
        total = _mm_add_epi64(total, _mm_sad_epu8(bytes, zero));
    }
    int64_t half[2];
    memcpy(half, &total, sizeof half);
    sum = half[0] + half[1] - 128 * i;
#endif
    for (; i < n; i++) sum += x[i];
    return (int32_t)sum;
}

/* Elements p, p + 1 ... of a row, n of them, to the sums of each `every`. */
TSR_INLINE void add_to_sums(int32_t *sums, int64_t every, const int8_t *x, int64_t p, int64_t n)
{
    int64_t left = every - p % every; /* of the sum that p belongs to */
    for (sums += p / every; n > 0; sums++, left = every) {
        const int64_t here = n < left ? n : left;
        *sums += sum_of_s8(x, here);
        x += here, n -= here;
    }
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
    vu32 quads = {0}; /* each twice, the second time with its odd bytes in even places */
    for (int q = 0; q < VL; q += 2) {
        uint32_t quad;
        memcpy(&quad, x + 2 * q, sizeof quad);
        quads[q] = quad, quads[q + 1] = quad >> 8;
    }
    return (vu32)even_s8(quads);
#endif
}

/* n elements, and zeros as far as padded, a multiple of 4. */
TSR_INLINE void pack_row(uint32_t *dst, const int a_words, const int8_t *x, int64_t n, int64_t padded)
{
    enum { STEP = 2 * VL };
    if (a_words == 1) {
        memcpy(dst, x, (size_t)n);
        memset((int8_t *)dst + n, 0, (size_t)(padded - n));
        return;
    }
    int64_t p = 0;
    for (; p + STEP <= n; p += STEP) vu32_store(dst + p / 2, pairs_of(x + p));
    for (; p < padded; p += STEP) {
        int8_t block[STEP] = {0};
        if (p < n) memcpy(block, x + p, (size_t)(n - p));
        vu32_store_n(dst + p / 2, pairs_of(block), padded - p < STEP ? (padded - p) / 2 : VL);
    }
}

/* gemm.h's pack_a; zeros go on to a multiple of k_multiple elements, itself one of 4. */
TSR_INLINE void pack_rows_of_a(uint32_t *dst, int64_t ld, const int a_words, const int8_t *x,
                               int64_t row_stride, int64_t k_stride, int64_t m, int64_t k, int64_t k_multiple,
                               int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    enum { ROWS = 16, STEPS = 256 };
    const int64_t k_padded = (k + k_multiple - 1) / k_multiple * k_multiple;
    const int64_t every = sum_every > 0 ? sum_every : INT64_MAX / 2, used = sum_every > 0 ? k : 1;
    for (int64_t i = 0; i < m; i++)
        for (int64_t g = 0; g * every < used; g++) sums[i * n_sums + g] = 0;
    if (k_stride == 1) {
        for (int64_t i = 0; i < m; i++, x += row_stride) {
            pack_row(dst + i * ld, a_words, x, k, k_padded);
            add_to_sums(sums + i * n_sums, every, x, 0, k);
        }
        return;
    }
    /* Blocks are made contiguous first; a transposed A is read along its own rows. */
    for (int64_t i = 0; i < m; i += ROWS)
        for (int64_t p = 0; p < k_padded; p += STEPS) {
            int8_t block[ROWS][STEPS];
            const int64_t rows = m - i < ROWS ? m - i : ROWS;
            const int64_t n = k - p < 0 ? 0 : k - p < STEPS ? k - p : STEPS;
            for (int64_t q = 0; q < n; q++)
                for (int64_t r = 0; r < rows; r++) block[r][q] = x[(i + r) * row_stride + (p + q) * k_stride];
            for (int64_t r = 0; r < rows; r++) {
                pack_row(dst + (i + r) * ld + p / 4 * a_words, a_words, block[r], n,
                         k_padded - p < STEPS ? k_padded - p : STEPS);
                add_to_sums(sums + (i + r) * n_sums, every, block[r], p, n);
            }
        }
}

#endif
