/*
 * backend/cpu/kernel/peak.h - loops that reach this machine's own limits: what benchmarks measure shares of
 */
#ifndef TSR_KERNEL_PEAK_H
#define TSR_KERNEL_PEAK_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/isa.h"

/* `reps` rounds of independent multiply-adds in registers; returns their operations, two for each
 * multiply-add. *sink keeps them alive. */
typedef double (*tsr_peak_loop)(int64_t reps, float *sink);

typedef struct tsr_peak_kernel {
    const char *name;
    tsr_isa isa;
    tsr_peak_loop multiply_add;      /* f32 */
    tsr_peak_loop multiply_add_bf16; /* to f32; NULL where the set multiplies bf16 as f32 */
    tsr_peak_loop multiply_add_s8;   /* to s32, by whatever the set has for it; NULL in plain C */
    tsr_peak_loop exp2;              /* powers of two in f32, as kernels take them; returns how many */
    /* Reads nbytes (a multiple of 1024) once, in order; returns something that depends on all of it. */
    float (*read)(const void *data, size_t nbytes);
} tsr_peak_kernel;

/* Best first; ends with NULL. */
extern const tsr_peak_kernel *const tsr_peak_kernels[];

#endif
