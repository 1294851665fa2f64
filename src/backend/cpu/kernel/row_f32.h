/*
 * backend/cpu/kernel/row_f32.h - the family of kernels that work along a row: sums, softmax, norms, RoPE,
 * quantisation
 *
 * All take n contiguous f32, a row or a piece of one (the caller adds up pieces of a constant length). Sums
 * run in lanes that are folded in a fixed order: a result depends on the numbers and n alone. An output may
 * be an input, element for element. n may be 0; nothing beyond n is touched.
 */
#ifndef TSR_KERNEL_ROW_F32_H
#define TSR_KERNEL_ROW_F32_H

#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

/* What a norm has found out about a row: x' = (x - mean) * rstd + offset. */
typedef struct tsr_norm_row {
    float mean, rstd;
    float offset;          /* what the rounding of mean cost, times -rstd */
    float mean_g, mean_gx; /* backward: means of g = dy * weight and of g * x' */
} tsr_norm_row;

typedef struct tsr_row_f32_kernel {
    const char *name;
    tsr_isa isa;

    float (*max)(int64_t n, const float *x);               /* -Inf for n = 0; NaN is passed over */
    float (*sum)(int64_t n, const float *x, float centre); /* of x - centre */
    float (*sum_squares)(int64_t n, const float *x, float centre);
    float (*dot)(int64_t n, const float *a, const float *b);
    void (*accumulate)(int64_t n, const float *x, float *sums); /* sums += x */

    float (*exp_sum)(int64_t n, const float *x, float max);                         /* of exp(x - max) */
    void (*exp_scale)(int64_t n, const float *x, float max, float scale, float *y); /* exp(x - max) * scale */
    void (*softmax_bwd)(int64_t n, const float *y, const float *dy, float dot,
                        float *dx); /* y * (dy - dot) */

    /* y = x' * weight + bias; bias NULL = 0 */
    void (*norm_fwd)(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                     const float *bias, float *y);
    /* sum_g = sum of g, sum_gx = sum of g * x' */
    void (*norm_sums)(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                      const float *dy, float *sum_g, float *sum_gx);
    /* dx = rstd * (g - mean_g - x' * mean_gx), added to dx if accumulate */
    void (*norm_dx)(int64_t n, const tsr_norm_row *row, const float *x, const float *weight, const float *dy,
                    int accumulate, float *dx);
    void (*norm_dweight)(int64_t n, const tsr_norm_row *row, const float *x, const float *dy,
                         float *dweight); /* dweight += dy * x' */

    /* n pairs (u, w): yu = u cos - w sin, yw = u sin + w cos; inverse: sin with the other sign */
    void (*rope)(int64_t n, const float *u, const float *w, const float *cos, const float *sin, int inverse,
                 float *yu, float *yw);
    /* the same for neighbours: x and y hold n pairs */
    void (*rope_interleaved)(int64_t n, const float *x, const float *cos, const float *sin, int inverse,
                             float *y);

    /*
     * x (f32, bf16 or f16) as integers, bit for bit as weight_values.h has them; returns the scale. -levels
     * .. levels (rows of activations and of int8: 127), or 0 .. 15 with a zero point, for finite x.
     */
    float (*quantise)(int64_t n, const void *x, tsr_dtype dtype, float levels, int8_t *q);
    float (*quantise_from_zero)(int64_t n, const void *x, tsr_dtype dtype, int8_t *q, int8_t *zero);
} tsr_row_f32_kernel;

/* Best first; ends with NULL. */
extern const tsr_row_f32_kernel *const tsr_row_f32_kernels[];

/* The first of the list that serves where `isa` was chosen. */
const tsr_row_f32_kernel *tsr_row_f32_pick(tsr_isa isa);

#endif
