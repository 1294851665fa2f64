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

#endif
