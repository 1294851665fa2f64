/*
 * backend/weight_values.h - the values of weights: checked before anything is packed, quantised in one way
 *
 * They are data, which only the operator may read; this serves every backend in the host's memory, so that
 * a weight has the same integers on all of them. The rules are in tessera/linear.h.
 */
#ifndef TSR_BACKEND_WEIGHT_VALUES_H
#define TSR_BACKEND_WEIGHT_VALUES_H

#include "backend/args.h"

/* Scales (and zeros, where there are any) of one row. */
static inline int64_t tsr_weight_n_groups(const tsr_weight_layout *layout)
{
    switch (layout->format) {
    case TSR_WEIGHT_INT8: return 1;
    case TSR_WEIGHT_INT4:
    case TSR_WEIGHT_INT4_ZERO: return layout->k / layout->group;
    case TSR_WEIGHT_AS_IS: break;
    }
    return 0;
}

/* TSR_ERR_ARGUMENT with the first integer out of its format's range, or float to be quantised, or scale,
 * that is not finite: "w.values[2, 3] is 9, must be -8 to 7". */
tsr_status tsr_check_weight_values(const tsr_weight_pack_args *args);

/*
 * One row in the form in which it is multiplied: q [k], scales and (INT4_ZERO, else NULL) zeros [n_groups].
 * Quantises floats, copies what is quantised already. Not for weights as they are.
 */
void tsr_weight_quantise_row(const tsr_weight_layout *layout, const tsr_weight_source *src, int64_t row,
                             int8_t *q, float *scales, int8_t *zeros);

/*
 * A row of activations, n elements of a float type that lie `stride` apart: returns s = max |x| / 127 and
 * sets q = x * (127 / max |x|), to nearest even, all in f32. Where that factor is no finite number (zeros,
 * and magnitudes below 2^-121) s and q are 0; where an element is not finite s is NaN and q is 0.
 */
float tsr_quantise_row(const void *x, tsr_dtype dtype, int64_t stride, int64_t n, int8_t *q);

#endif
