/*
 * backend/cpu/kernel/attention_decode_s8.h - the family that meets few queries with keys of int8, in integers
 *
 *     scores   S[r, j] = q_r . k_j          values   O[r, :] += sum_j P[r, j] v_j
 *
 * As attention_decode_f32, but a row of q, or of P over a tile, is rounded to 16-bit integers times a power
 * of two first: to 2^-15 of its largest element, which loses nothing of a bf16 as long as it is not below
 * 2^-7 of that. Their products with k and v are exact, and so are the sums, in 32 bits, over a tile or a
 * lane.
 */
#ifndef TSR_KERNEL_ATTENTION_DECODE_S8_H
#define TSR_KERNEL_ATTENTION_DECODE_S8_H

#include "backend/cpu/kernel/attention_decode_f32.h"

enum { TSR_DECODE_S8_MAX_D = 4096 }; /* a lane's sum of scores is less than 2^31 then */

typedef struct tsr_attention_decode_s8_kernel {
    const char *name;
    tsr_isa isa;

    /* to[i] = x[i] / unit, rounded; zeros from n to the next multiple of 32. The unit; NaN, if x has NaN or
     * Inf. */
    float (*quantise)(int16_t *to, const float *x, int64_t n);

    /* k and v of s8. q [n_rows][q_stride] and their units; q_stride is a multiple of 32, d at most the above.
     */
    void (*scores)(const tsr_attention_decode_rows *k, const int16_t *q, int64_t q_stride, const float *unit,
                   int64_t n_rows, float *s, int64_t s_stride);
    void (*values)(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride, int64_t n_rows,
                   float *o, int64_t o_stride);
} tsr_attention_decode_s8_kernel;

/* Best first; ends with NULL. */
extern const tsr_attention_decode_s8_kernel *const tsr_attention_decode_s8_kernels[];

/* The first of the list that serves where `isa` was chosen; NULL where attention_decode_f32 does. */
const tsr_attention_decode_s8_kernel *tsr_attention_decode_s8_pick(tsr_isa isa);

#endif
