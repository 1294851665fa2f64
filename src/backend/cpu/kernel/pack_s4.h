/*
 * backend/cpu/kernel/pack_s4.h - what kernels of the family s4 share: how panels and rows of A are packed
 *
 * Include behind NR. The layouts are gemm.h's.
 */
#ifndef TSR_KERNEL_PACK_S4_H
#define TSR_KERNEL_PACK_S4_H

#include "backend/cpu/kernel/pack_s8.h"

enum { WORD = 8 /* elements of B in 32 bits */ };

/* Elements q[0 .. n), n <= 8, as a word of u4, zeros behind them. Where -8 .. 7 are meant, 8 is added. */
TSR_INLINE uint32_t word_of(const int8_t *q, int64_t n, bool has_zeros)
{
    const uint64_t low_halves = 0x0f0f0f0f0f0f0f0fu, eights = 0x0808080808080808u;
    if (n <= 0) return 0;
    uint64_t bytes = 0;
    memcpy(&bytes, q, (size_t)n);
    if (!has_zeros) bytes ^= eights; /* as good as an addition to numbers of four bits */
    bytes &= low_halves >> (8 * (WORD - n));
    return (uint32_t)bytes | (uint32_t)(bytes >> 32) << 4;
}

static void pack_s4(void *panel, const int8_t *q, int64_t q_row, int64_t k, int64_t n, const float *scales,
                    int64_t scale_row, const int8_t *zeros, int64_t zero_row, int64_t group)
{
    char *at = panel;
    for (int64_t p = 0, g = 0; p < k; p += group, g++) {
        for (int64_t j = 0; j < NR; j++, at += sizeof(float)) {
            const float scale = j < n ? scales[j * scale_row + g] : 0;
            memcpy(at, &scale, sizeof scale);
        }
        if (zeros != NULL)
            for (int64_t j = 0; j < NR; j++) *at++ = j < n ? (char)zeros[j * zero_row + g] : 0;
        for (int64_t w = p; w < p + group; w += WORD)
            for (int64_t j = 0; j < NR; j++, at += sizeof(uint32_t)) {
                const int64_t left = k - w < WORD ? k - w : WORD;
                const uint32_t word = j < n ? word_of(q + j * q_row + w, left, zeros != NULL) : 0;
                memcpy(at, &word, sizeof word);
            }
    }
}

static void pack_a(void *dst, int64_t ld, const void *x, int64_t row_stride, int64_t k_stride, int64_t m,
                   int64_t k, int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    pack_rows_of_a(dst, ld, 1, x, row_stride, k_stride, m, k, sum_every > 0 ? sum_every : WORD, sum_every,
                   sums, n_sums);
}

#endif
