/*
 * backend/cpu/kernel/elementwise_f32.h - the family of kernels that treat each element alone
 *
 * load and store convert between f32 and the storage types; everything else computes on n contiguous f32.
 * An output may be one of the inputs, element for element; no other overlap. n may be 0; nothing beyond n is
 * touched.
 */
#ifndef TSR_KERNEL_ELEMENTWISE_F32_H
#define TSR_KERNEL_ELEMENTWISE_F32_H

#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/activation.h"

enum { TSR_N_ACTIVATIONS = TSR_ACTIVATION_SILU + 1 };

/* One row of elementwise dropout: head is 0. */
typedef struct tsr_dropout_row {
    uint64_t seed;
    uint32_t offset, row;
    uint32_t threshold; /* a word below it drops its element */
    float scale;        /* of what is kept                   */
} tsr_dropout_row;

/* AdamW with what is the same for all elements worked out. */
typedef struct tsr_adamw_step {
    float grad_scale, beta1, beta2, one_minus_beta1, one_minus_beta2;
    float m_scale, v_scale; /* 1 / (1 - beta^t) */
    float eps, lr, weight_decay;
} tsr_adamw_step;

typedef struct tsr_elementwise_f32_kernel {
    const char *name;
    tsr_isa isa;

    /* dtype: f32, bf16 or f16; stride in elements, any. */
    void (*load)(float *y, const void *x, tsr_dtype dtype, int64_t stride, int64_t n);
    void (*store)(void *y, tsr_dtype dtype, int64_t stride, const float *x, int64_t n);

    void (*activation_fwd[TSR_N_ACTIVATIONS])(int64_t n, const float *x, float *y);
    void (*activation_bwd[TSR_N_ACTIVATIONS])(int64_t n, const float *x, const float *dy, float *dx);
    void (*swiglu_fwd)(int64_t n, const float *gate, const float *up, float *y);
    void (*swiglu_bwd)(int64_t n, const float *gate, const float *up, const float *dy, float *dgate,
                       float *dup);
    void (*add)(int64_t n, float alpha, const float *a, float beta, const float *b, float *y);
    /* y = residual + dropout(x) of columns column.. (a multiple of 4) of a row; residual NULL = 0. */
    void (*dropout_add)(int64_t n, const tsr_dropout_row *row, uint32_t column, const float *x,
                        const float *residual, float *y);
    void (*adamw)(int64_t n, const tsr_adamw_step *step, float *p, const float *g, float *m, float *v);
} tsr_elementwise_f32_kernel;

/* Best first; ends with NULL. */
extern const tsr_elementwise_f32_kernel *const tsr_elementwise_f32_kernels[];

/* The first of the list that serves where `isa` was chosen. */
const tsr_elementwise_f32_kernel *tsr_elementwise_f32_pick(tsr_isa isa);

#endif
