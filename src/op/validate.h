/*
 * op/validate.h - what public functions ask of their arguments before anything crosses the seam
 *
 * Each helper returns TSR_OK or fails with "<argument> <what it was>, <what it must be>"; the public function
 * puts its own name before that (tsr_within).
 */
#ifndef TSR_OP_VALIDATE_H
#define TSR_OP_VALIDATE_H

#include "base/error.h"
#include "base/tensor.h"
#include "op/context.h"

/* Sets of dtypes. */
enum {
    TSR_IN_F32 = 1u << TSR_F32,
    TSR_IN_I32 = 1u << TSR_I32,
    TSR_IN_S8 = 1u << TSR_S8,
    TSR_IN_BOOL = 1u << TSR_BOOL,
    TSR_IN_FLOATS = 1u << TSR_F32 | 1u << TSR_BF16 | 1u << TSR_F16 | 1u << TSR_F64,
    TSR_IN_ALL = (1u << TSR_DTYPE_COUNT) - 1
};

/* Sums, statistics and gradients of parameters: f64 where the inputs are, else f32. */
static inline tsr_dtype tsr_wide(tsr_dtype dtype) { return dtype == TSR_F64 ? TSR_F64 : TSR_F32; }

/* Puts "op: " before the message of a failure. */
static inline tsr_status tsr_within(const char *op, tsr_status status)
{
    return status == TSR_OK ? TSR_OK : tsr_fail_within(status, "%s", op);
}

tsr_status tsr_check_context(const tsr_context *ctx);
tsr_status tsr_check_not_null(const void *p, const char *name);

/*
 * A view that the context can use: neither it nor the context is NULL, its sizes fit, it lives on the
 * context's device, its rank is in low..high and its dtype in `dtypes` (bits 1 << dtype). f64 only where the
 * backend computes in it.
 */
tsr_status tsr_check_tensor(const tsr_context *ctx, const tsr_tensor *t, const char *name, unsigned dtypes,
                            int32_t low, int32_t high);
/* The same for operators that only move or convert: f64 is then fine everywhere. */
tsr_status tsr_check_view(const tsr_context *ctx, const tsr_tensor *t, const char *name, unsigned dtypes,
                          int32_t low, int32_t high);
/* A dtype alone, of an operand that is a bare pointer. */
tsr_status tsr_check_dtype(const tsr_context *ctx, tsr_dtype dtype, const char *name, unsigned dtypes);

/* tsr_check_tensor of exactly this dtype and shape; `model` names it: "its rows". */
tsr_status tsr_check_tensor_is(const tsr_context *ctx, const tsr_tensor *t, const char *name, tsr_dtype dtype,
                               int32_t rank, const int64_t *shape, const char *model);
/* The shape (and dtype) of another tensor. */
tsr_status tsr_check_same_shape(const tsr_tensor *t, const char *name, const tsr_tensor *model,
                                const char *model_name);
tsr_status tsr_check_like(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                          const tsr_tensor *model, const char *model_name);

/* "b has shape [3, 5], its first extent must be a's second, 4" */
tsr_status tsr_check_extent(const tsr_tensor *t, const char *name, int32_t dim, int64_t must,
                            const char *whose);
/* One element, of any rank. */
tsr_status tsr_check_one_element(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                                 tsr_dtype dtype);

/* An output, and the inputs that it may be, element for element. */
typedef struct tsr_output {
    const tsr_tensor *t; /* NULL: not there */
    const char *name;
    const tsr_tensor *may_be[2];
} tsr_output;

typedef struct tsr_input {
    const tsr_tensor *t; /* NULL: not there */
    const char *name;
} tsr_input;

/* No output shares memory with itself, another output, or an input that it may not be. */
tsr_status tsr_check_memory(const tsr_output *outputs, int32_t n_outputs, const tsr_input *inputs,
                            int32_t n_inputs);

/* For array literals. */
#define TSR_CHECK_MEMORY(outputs, inputs)                                                                    \
    tsr_check_memory(outputs, (int32_t)(sizeof(outputs) / sizeof *(outputs)), inputs,                        \
                     (int32_t)(sizeof(inputs) / sizeof *(inputs)))

/* Options: a finite number that is at least `low`; a share in [0, 1); a count that is at least `low`. */
tsr_status tsr_check_at_least(double x, const char *name, double low);
tsr_status tsr_check_share(float p, const char *name);
tsr_status tsr_check_count(int64_t n, const char *name, int64_t low);

/* Dropout counts in 32 bits: rows and columns must fit. */
tsr_status tsr_check_dropout_counts(int64_t heads, int64_t rows, int64_t columns);

#endif
