/*
 * backend/cpu/kernel/attention_decode_f32.h - the family that meets few queries with keys where they lie
 *
 *     scores   S[r, j] = q_r . k_j          values   O[r, :] += sum_j P[r, j] v_j
 *
 * k and v are read once a call for each block of rows, through a pointer a key, so that lines and pages are
 * the same; they are f32, bf16, f16 or s8. What lies between the two is attention_score_f32's.
 * A row's result depends on that row alone: neither on how many there are, nor on the keys beside each other.
 */
#ifndef TSR_KERNEL_ATTENTION_DECODE_F32_H
#define TSR_KERNEL_ATTENTION_DECODE_F32_H

#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

enum {
    /* Constants, so that a result never depends on shapes, splits or threads. */
    TSR_DECODE_TILE = 64,   /* keys between two looks at the running maximum     */
    TSR_DECODE_CHUNK = 512, /* keys that are summed from zero; then chunks merge */
    TSR_DECODE_LQ = 16      /* a sequence of more queries takes the other path   */
};

/* Keys of a tile; beyond `n`, up to the next multiple of 16, row[] repeats the last. */
typedef struct tsr_attention_decode_rows {
    const void *const *row;  /* [TSR_DECODE_TILE]: d elements side by side           */
    const void *const *next; /* rows to fetch meanwhile, one for each of row[]; NULL */
    int64_t n, d;
    tsr_dtype dtype;
} tsr_attention_decode_rows;

typedef struct tsr_attention_decode_f32_kernel {
    const char *name;
    tsr_isa isa;

    /* A row of q, in place, as `scores` wants it for k of dtype: where pairs of bf16 are a word, of each 2 VL
     * columns first the even ones. */
    void (*unzip_q)(float *q, int64_t d, tsr_dtype dtype);

    /* q [n_rows][q_stride], unzipped, zeros from d to the next multiple of 16; s has room up to one. */
    void (*scores)(const tsr_attention_decode_rows *k, const float *q, int64_t q_stride, int64_t n_rows,
                   float *s, int64_t s_stride);
    void (*values)(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride, int64_t n_rows,
                   float *o, int64_t o_stride);

    /* s[r, j] *= factor[j] */
    void (*weigh)(float *s, int64_t s_stride, int64_t n_rows, const float *factor, int64_t n);

    /*
     * (m, l, o [dv]) with another part (m2, l2, o2) over other keys: sums of b^s relative to b^m, log2 b =
     * unit. l2 = 0 contributes nothing, whatever m2 and o2 hold.
     */
    void (*merge)(float unit, float *m, float *l, float *o, float m2, float l2, const float *o2, int64_t dv);
} tsr_attention_decode_f32_kernel;

/* Best first; ends with NULL. */
extern const tsr_attention_decode_f32_kernel *const tsr_attention_decode_f32_kernels[];

/* The first of the list that serves where `isa` was chosen. */
const tsr_attention_decode_f32_kernel *tsr_attention_decode_f32_pick(tsr_isa isa);

#endif
