/*
 * backend/cpu/kernel/gemm_store.h - the last store of a product: sums become results
 *
 *     v = sums[i, j] * (row_scale[i] * column_scale[j]) * scale + bias[j]
 *     C[i, j] = activation(v) + residual[i, j] + beta * C[i, j]
 *
 * Gated: sums come in panels of `panel` columns, the first half the gate's, the second half the product's, so
 * that n columns of C take 2 n of sums:
 *
 *     C = activation(gate) * v + residual          gate = sums * row_scale * gate_scale + gate_bias
 *
 * Absent parts are NULL (or 0, or TSR_ACTIVATION_NONE), and cost nothing.
 */
#ifndef TSR_KERNEL_GEMM_STORE_H
#define TSR_KERNEL_GEMM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/activation.h"

/* All pointers are at element (0, 0) of the part that is stored. */
typedef struct tsr_gemm_store_args {
    const void *sums; /* f32, or s32 */
    int64_t sums_row;
    bool sums_are_s32;
    int64_t panel; /* gated: columns of sums in a panel; 0 = not gated */
    const float *row_scale, *column_scale, *gate_scale;
    float scale; /* of every sum, beside row_scale and column_scale */
    const void *bias, *gate_bias;
    tsr_dtype bias_dtype, gate_bias_dtype;
    int64_t bias_stride, gate_bias_stride;
    tsr_activation activation;
    const void *residual;
    tsr_dtype residual_dtype;
    int64_t residual_row, residual_col;
    float beta; /* 0 never reads C */
    float step; /* C of s8: results are divided by it before they are rounded */
    void *c;
    tsr_dtype c_dtype; /* f32, bf16, f16, s8; i32 from s32 sums */
    int64_t c_row, c_col;
} tsr_gemm_store_args;

typedef struct tsr_gemm_store_kernel {
    const char *name;
    tsr_isa isa;
    /* m rows and n columns of C. An element's bits do not depend on m, n or where in the part it lies. */
    void (*store)(const tsr_gemm_store_args *args, int64_t m, int64_t n);
} tsr_gemm_store_kernel;

/* Best first; ends with NULL. */
extern const tsr_gemm_store_kernel *const tsr_gemm_store_kernels[];

#endif
