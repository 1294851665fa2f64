/* kernel/gemm_result.h - how a micro-kernel's f32 sums become C: alpha times the sum, rounded, plus beta C */
#ifndef TSR_KERNEL_GEMM_RESULT_H
#define TSR_KERNEL_GEMM_RESULT_H

#include "backend/cpu/vec.h"

/* One vector of C, of which n columns are left: VL and more are all. */
TSR_INLINE void store_result(float *c, vf32 sum, float alpha, float beta, int64_t n)
{
    if (n <= 0) return;
    vf32 v = vf32_rounded(sum * alpha);
    if (beta != 0) v += vf32_load_up_to(c, n) * beta;
    vf32_store_up_to(c, v, n);
}

/*
 * Whole rows of nv vectors, one or two, where alpha is 1 and beta 0 or 1, in fewer instructions: C = sum, or
 * C += sum. What the general form gives; false where it is needed.
 */
TSR_INLINE bool store_plain_sums(vf32 sums[][2], const int rows, const int nv, float *c, int64_t c_row,
                                 float alpha, float beta, int64_t n)
{
    if (n != nv * VL || alpha != 1 || (beta != 0 && beta != 1)) return false;
    if (beta == 0) {
        UNROLL for (int i = 0; i < rows; i++, c += c_row) UNROLL for (int j = 0; j < nv; j++)
            vf32_store(c + j * VL, sums[i][j]);
    } else {
        UNROLL for (int i = 0; i < rows; i++, c += c_row) UNROLL for (int j = 0; j < nv; j++)
            vf32_store(c + j * VL, sums[i][j] + vf32_load(c + j * VL));
    }
    return true;
}

#endif
