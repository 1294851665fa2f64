/* tape/ops.h - what the recorded operators share */
#ifndef TSR_TAPE_OPS_H
#define TSR_TAPE_OPS_H

#include "base/error.h"
#include "tape/tape.h"
#include "tessera/tape_ops.h"

/* Bits of reads_in and reads_out. */
#define TSR_READS(i) (1u << (i))

/* Optional tensors of operators: NULL where absent. */
static inline const tsr_tensor *tsr_given(const tsr_tensor *t) { return t->data != NULL ? t : NULL; }

/* Sums, statistics and gradients of parameters: f64 where the inputs are, else f32. */
static inline tsr_dtype tsr_wide_dtype(tsr_dtype dtype) { return dtype == TSR_F64 ? TSR_F64 : TSR_F32; }

/* A row-major tensor to be made: t's leading extents and n. */
tsr_tensor tsr_output_rows(const tsr_tensor *t, tsr_dtype dtype, int64_t n);
/* ... of t's shape, of t's leading extents alone (t has a rank of at least 1). */
tsr_tensor tsr_output_like(const tsr_tensor *t, tsr_dtype dtype);
tsr_tensor tsr_output_per_row(const tsr_tensor *t, tsr_dtype dtype);

/* t [..., n] as [rows, n] without a copy. */
tsr_status tsr_as_rows(const tsr_tensor *t, const char *name, tsr_tensor *out);

/* The value of an input that must be there, of rank low..high. */
tsr_status tsr_need(const tsr_tape *tape, tsr_var x, const char *name, int32_t low, int32_t high,
                    tsr_tensor *value);

/* tsr_tape_apply for an operator whose other outputs only its own backward uses. */
tsr_status tsr_apply_first(tsr_tape *tape, const tsr_tape_call *call, tsr_var *out);

#endif
