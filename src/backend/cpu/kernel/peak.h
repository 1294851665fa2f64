/*
 * backend/cpu/kernel/peak.h - loops that reach this machine's own limits: what benchmarks measure shares of
 */
#ifndef TSR_KERNEL_PEAK_H
#define TSR_KERNEL_PEAK_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/isa.h"

typedef struct tsr_peak_kernel {
    const char *name;
    tsr_isa isa;
    /* `reps` rounds of independent multiply-adds in registers; returns their FLOP. *sink keeps them alive. */
    double (*multiply_add)(int64_t reps, float *sink);
    /* The same in bf16 and in s8; NULL where the set has no instruction of its own for them. */
    double (*multiply_add_bf16)(int64_t reps, float *sink);
    double (*multiply_add_s8)(int64_t reps, float *sink);
    /* Reads nbytes (a multiple of 1024) once, in order; returns something that depends on all of it. */
    float (*read)(const void *data, size_t nbytes);
} tsr_peak_kernel;

/* Best first; ends with NULL. */
extern const tsr_peak_kernel *const tsr_peak_kernels[];

#endif
