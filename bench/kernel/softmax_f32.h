/*
 * bench/kernel/softmax_f32.h - three ways to the softmax of a row: what `tessera bench softmax` times
 *
 * Rows are finite. y may be x.
 */
#ifndef TSR_BENCH_SOFTMAX_F32_H
#define TSR_BENCH_SOFTMAX_F32_H

#include <stdint.h>

#include "backend/cpu/isa.h"

typedef struct bench_softmax_kernel {
    const char *name;
    tsr_isa isa;
    /* y = softmax(x): the maximum, the sum, the quotients. */
    void (*three_passes)(const float *x, float *y, int64_t n);
    /* y = softmax(x): maximum and sum together, the quotients. */
    void (*two_passes)(const float *x, float *y, int64_t n);
    /* softmax(x) . v, all in one reading. */
    float (*one_pass)(const float *x, const float *v, int64_t n);
    /* dS = P (dP - sum_j P_j dP_j) where dP was: the softmax's backward, for the unfused path of other
     * libraries' products. */
    void (*gradient)(const float *p, float *dp, int64_t n);
} bench_softmax_kernel;

/* The best one that serves the instruction set. */
const bench_softmax_kernel *bench_softmax_pick(tsr_isa isa);

#endif
