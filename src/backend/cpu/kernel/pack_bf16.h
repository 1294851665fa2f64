/*
 * kernel/pack_bf16.h - bf16 into words of two, for the families that multiply pairs
 *
 *     x[k, w]: k runs along the product, w along B's columns or A's rows
 *
 *     pair (p, j) = x[2 p, j] | x[2 p + 1, j] << 16            zero where k or w has ended
 *
 *     panel of B: [padded k / 2][width] pairs                  rows of A: [m][ld] pairs, padded k / 2 of them
 *
 * Both are the same 16 x 16 blocks of pairs: read along w two values of k at a time, or along k as the pairs
 * lie in memory; turned where source and destination disagree about which way is contiguous.
 */
#ifndef TSR_KERNEL_PACK_BF16_H
#define TSR_KERNEL_PACK_BF16_H

#include "backend/cpu/vec_bf16.h"
#include "backend/cpu/vec_lanes.h"

TSR_INLINE int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/* How many pairs k values fill when padded to a multiple of `align`. */
TSR_INLINE int64_t padded_pairs(int64_t k, int64_t align)
{
    return ((k + 1) / 2 + align - 1) / align * align;
}

/* Pairs of x[2 p, .] and x[2 p + 1, .], n <= VL of them, contiguous along w. `steps`: the k that are left. */
TSR_INLINE vu32 pairs_across(const uint16_t *x, int64_t k_stride, int64_t steps, int64_t n)
{
    if (steps <= 0 || n <= 0) return vu32_splat(0);
    const vu32 even = n >= VL ? vu32_from_u16(x) : vu32_from_u16_n(x, n);
    if (steps == 1) return even;
    x += k_stride;
    return even | (n >= VL ? vu32_from_u16(x) : vu32_from_u16_n(x, n)) << 16;
}

/* VL pairs that lie one behind the other along k. */
TSR_INLINE vu32 pairs_along(const uint16_t *x, int64_t steps)
{
    return vu32_load_pairs_n(x, steps <= 0 ? 0 : at_most(steps, 2 * VL));
}

TSR_INLINE void turn(vu32 block[TSR_LANES])
{
    vf32 f[VL];
    UNROLL for (int i = 0; i < VL; i++) f[i] = (vf32)block[i];
    vf32_transpose(f);
    UNROLL for (int i = 0; i < VL; i++) block[i] = (vu32)f[i];
}

static uint32_t pair_at(const uint16_t *x, int64_t k_stride, int64_t steps)
{
    return steps <= 0 ? 0 : x[0] | (steps > 1 ? (uint32_t)x[k_stride] << 16 : 0);
}

/* A panel of `width` columns, a multiple of VL, of which x has w. */
TSR_INLINE void pack_bf16_panel(uint32_t *panel, int64_t width, int64_t align, const uint16_t *x,
                                int64_t k_stride, int64_t w_stride, int64_t k, int64_t w)
{
    const int64_t rows = padded_pairs(k, align);
    if (k_stride == 1) {
        for (int64_t j = 0; j < width; j += VL)
            for (int64_t p = 0; p < rows; p += VL) {
                vu32 block[VL];
                UNROLL for (int i = 0; i < VL; i++)
                    block[i] = j + i < w ? pairs_along(x + (j + i) * w_stride + 2 * p, k - 2 * p)
                                         : vu32_splat(0);
                turn(block);
                for (int64_t i = 0; i < at_most(rows - p, VL); i++)
                    vu32_store_up_to(panel + (p + i) * width + j, block[i], VL);
            }
        return;
    }
    for (int64_t p = 0; p < rows; p++, panel += width, x += 2 * k_stride) {
        if (w_stride == 1)
            for (int64_t j = 0; j < width; j += VL)
                vu32_store_up_to(panel + j, pairs_across(x + j, k_stride, k - 2 * p, w - j), VL);
        else
            for (int64_t j = 0; j < width; j++)
                panel[j] = j < w ? pair_at(x + j * w_stride, k_stride, k - 2 * p) : 0;
    }
}

/* m rows of A, ld words apart. */
TSR_INLINE void pack_bf16_rows(uint32_t *dst, int64_t ld, int64_t align, const uint16_t *x,
                               int64_t row_stride, int64_t k_stride, int64_t m, int64_t k)
{
    const int64_t words = padded_pairs(k, align);
    if (row_stride == 1 && k_stride != 1) {
        for (int64_t i0 = 0; i0 < m; i0 += VL)
            for (int64_t p = 0; p < words; p += VL) {
                vu32 block[VL];
                UNROLL for (int i = 0; i < VL; i++) block[i] = pairs_across(
                    x + i0 + 2 * (p + i) * k_stride, k_stride, k - 2 * (p + i), m - i0);
                turn(block);
                for (int64_t i = 0; i < at_most(m - i0, VL); i++)
                    vu32_store_up_to(dst + (i0 + i) * ld + p, block[i], words - p);
            }
        return;
    }
    for (int64_t i = 0; i < m; i++, dst += ld, x += row_stride) {
        if (k_stride == 1) {
            memcpy(dst, x, (size_t)k * sizeof *x);
            memset((uint16_t *)(void *)dst + k, 0, (size_t)(2 * words - k) * sizeof *x);
        } else {
            for (int64_t p = 0; p < words; p++) dst[p] = pair_at(x + 2 * p * k_stride, k_stride, k - 2 * p);
        }
    }
}

#endif
