/*
 * backend/cpu/kernel/gemm_f32.h - the family of f32 GEMM micro-kernels
 *
 *     C[m, n] = alpha * A[m, k] B[k, n] + beta * C[m, n]      0 < m <= mr, 0 < n <= nr
 *
 * A is read through (a_row, a_k), B through b_row with nr readable columns in each row (a packed panel has
 * b_row = nr; lanes beyond n may hold anything finite or not: they reach no result), C has unit column
 * stride. beta = 0 never reads C; k = 0 gives beta * C. An element's result depends on its row of A, its
 * column of B and k alone: not on m, n, or where in the tile it lies.
 */
#ifndef TSR_KERNEL_GEMM_F32_H
#define TSR_KERNEL_GEMM_F32_H

#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

typedef struct tsr_gemm_f32_tile {
    int64_t k;
    const float *a;
    int64_t a_row, a_k;
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
    float alpha, beta;
} tsr_gemm_f32_tile;

typedef struct tsr_gemm_f32_kernel {
    const char *name;
    tsr_isa isa;
    int32_t lanes;
    int32_t mr, nr;
    void (*run)(const tsr_gemm_f32_tile *tile, int64_t m, int64_t n);

    /*
     * Copies x[k, w] (element (p, j) at p * k_stride + j * w_stride; f32, bf16 or f16) into rows of
     * `width` f32: dst[p * width + j], zeros for j in [w, width). One panel of B, or a tile of A
     * read with a_row = 1, a_k = width.
     */
    void (*pack)(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                 int64_t w_stride, int64_t k, int64_t w);

    /* C[i, j] = tile[i, j] + beta * C[i, j] for a C of any strides and of f32, bf16 or f16; tile has rows of
     * ld. */
    void (*store)(const float *tile, int64_t ld, float beta, void *c, tsr_dtype dtype, int64_t c_row,
                  int64_t c_col, int64_t m, int64_t n);
} tsr_gemm_f32_kernel;

/* Best first; ends with NULL. */
extern const tsr_gemm_f32_kernel *const tsr_gemm_f32_kernels[];

/* The first of the list that serves where `isa` was chosen. */
const tsr_gemm_f32_kernel *tsr_gemm_f32_pick(tsr_isa isa);

#endif
