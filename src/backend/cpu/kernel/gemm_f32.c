/*
 * gemm_f32.c - f32 GEMM micro-kernel: C[MR, NR] = alpha A[MR, k] B[k, NR] + beta C
 *
 * Compiled once per instruction set; VL lanes, NR = 2 VL.
 *
 *                  b   k-th row of the panel: 2 vectors       registers     AVX2 (16)   AVX-512 (32)
 *          +------------------+                               C             12, 6 x 2   28, 14 x 2
 *     a    | C  MR x 2 vectors|  one a[i] is broadcast        b              2           2
 *     MR   |                  |  against both of them         a              1           1
 *          +------------------+
 *
 * A is read through (a_row, a_k) strides: a transposed A is the same kernel.
 * Per k: 2 MR multiply-adds, 2 loads, MR broadcasts; bound by the FMA ports.
 */
#include "backend/cpu/kernel/gemm.h"

#include "backend/cpu/vec.h"

enum { MR = TSR_LANES == 16 ? 14 : 6, NV = 2, NR = NV * TSR_LANES };
#if TSR_LANES == 16
#define TILE_NAME "14x32"
#elif TSR_LANES == 8
#define TILE_NAME "6x16"
#else
#define TILE_NAME "6x8"
#endif

/* rows is a constant at every call, so that acc lives in registers. */
TSR_INLINE void run_rows(const tsr_gemm_tile *t, const int rows, int64_t n)
{
    vf32 acc[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++) acc[i][j] = vf32_splat(0);

    const float *a = t->a, *b = t->b;
    const int64_t a_row = t->a_row, a_k = t->a_k, b_row = t->b_row;
    for (int64_t p = t->k; p > 0; p--, a += a_k, b += b_row) {
        vf32 bp[NV];
        UNROLL for (int j = 0; j < NV; j++) bp[j] = vf32_load(b + j * VL);
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < NV; j++)
            acc[i][j] += a[i * a_row] * bp[j];
    }

    const float alpha = t->alpha, beta = t->beta;
    float *c = t->c;
    UNROLL for (int i = 0; i < rows; i++, c += t->c_row)
    {
        UNROLL for (int j = 0; j < NV; j++)
        {
            const int64_t left = n - j * VL;
            vf32 v = vf32_rounded(acc[i][j] * alpha);
            if (left >= VL) {
                if (beta != 0) v += vf32_load(c + j * VL) * beta;
                vf32_store(c + j * VL, v);
            } else if (left > 0) {
                if (beta != 0) v += vf32_load_n(c + j * VL, left) * beta;
                vf32_store_n(c + j * VL, v, left);
            }
        }
    }
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    switch (m) {
    case 1: run_rows(t, 1, n); break;
    case 2: run_rows(t, 2, n); break;
    case 3: run_rows(t, 3, n); break;
    case 4: run_rows(t, 4, n); break;
    case 5: run_rows(t, 5, n); break;
    case 6: run_rows(t, 6, n); break;
#if TSR_LANES == 16
    case 7: run_rows(t, 7, n); break;
    case 8: run_rows(t, 8, n); break;
    case 9: run_rows(t, 9, n); break;
    case 10: run_rows(t, 10, n); break;
    case 11: run_rows(t, 11, n); break;
    case 12: run_rows(t, 12, n); break;
    case 13: run_rows(t, 13, n); break;
    case 14: run_rows(t, 14, n); break;
#endif
    default: __builtin_unreachable();
    }
}

/* Rows of x are contiguous: convert and copy. */
TSR_INLINE void pack_rows(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                          int64_t k, int64_t w)
{
    for (int64_t p = 0; p < k; p++, dst += width) {
        int64_t j = 0;
        for (; j + VL <= w; j += VL) vf32_store(dst + j, vf32_load_as(x, dtype, p * k_stride + j));
        if (j < w) {
            vf32_store_n(dst + j, vf32_load_as_n(x, dtype, p * k_stride + j, w - j), w - j);
            j = w;
        }
        for (; j < width; j++) dst[j] = 0;
    }
}

/* Columns of x are contiguous: blocks of VL x VL are read down VL columns and turned. */
TSR_INLINE void pack_columns(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t w_stride,
                             int64_t k, int64_t w)
{
    for (int64_t j = 0; j < width; j += VL) {
        const int64_t columns = w - j < VL ? w - j : VL, stored = width - j < VL ? width - j : VL;
        for (int64_t p = 0; p < k; p += VL) {
            const int64_t steps = k - p < VL ? k - p : VL;
            vf32 block[VL];
            UNROLL for (int i = 0; i < VL; i++)
            {
                const int64_t at = (j + i) * w_stride + p;
                block[i] = i >= columns  ? vf32_splat(0)
                           : steps == VL ? vf32_load_as(x, dtype, at)
                                         : vf32_load_as_n(x, dtype, at, steps);
            }
            vf32_transpose(block);
            float *d = dst + p * width + j;
            for (int64_t i = 0; i < steps; i++) {
                if (stored == VL)
                    vf32_store(d + i * width, block[i]);
                else
                    vf32_store_n(d + i * width, block[i], stored);
            }
        }
    }
}

/* Nothing is contiguous. */
static void pack_scattered(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                           int64_t w_stride, int64_t k, int64_t w)
{
    for (int64_t p = 0; p < k; p++, dst += width)
        for (int64_t j = 0; j < width; j++)
            dst[j] = j < w ? (float)tsr_load_f64(x, dtype, p * k_stride + j * w_stride) : 0;
}

TSR_INLINE void pack_as(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                        int64_t w_stride, int64_t k, int64_t w)
{
    if (w_stride == 1)
        pack_rows(dst, width, x, dtype, k_stride, k, w);
    else if (k_stride == 1)
        pack_columns(dst, width, x, dtype, w_stride, k, w);
    else
        pack_scattered(dst, width, x, dtype, k_stride, w_stride, k, w);
}

static void pack(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                 int64_t w_stride, int64_t k, int64_t w)
{
    switch (dtype) {
    case TSR_F32: pack_as(dst, width, x, TSR_F32, k_stride, w_stride, k, w); break;
    case TSR_BF16: pack_as(dst, width, x, TSR_BF16, k_stride, w_stride, k, w); break;
    default: pack_as(dst, width, x, TSR_F16, k_stride, w_stride, k, w); break;
    }
}

static void pack_b(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n)
{
    pack(panel, NR, x, dtype, k_stride, n_stride, k, n);
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_f32) = {
    .name = "gemm_f32_" TSR_SET_NAME "_" TILE_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 1,
    .k_align = 1,
    .run = run,
    .pack_b = pack_b,
    .pack = pack,
};
