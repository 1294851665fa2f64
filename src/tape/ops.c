/* tape/ops.c - shapes of outputs, rows of inputs */
#include "tape/ops.h"

static tsr_tensor row_major(tsr_dtype dtype, int32_t rank, const int64_t *shape)
{
    tsr_tensor t = {.dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        if (tsr_mul_overflows(stride, shape[i] > 0 ? shape[i] : 1, &stride)) stride = INT64_MAX;
    }
    return t;
}

tsr_tensor tsr_output_like(const tsr_tensor *t, tsr_dtype dtype)
{
    return row_major(dtype, t->rank, t->shape);
}

tsr_tensor tsr_output_per_row(const tsr_tensor *t, tsr_dtype dtype)
{
    return row_major(dtype, t->rank - 1, t->shape);
}

tsr_tensor tsr_output_rows(const tsr_tensor *t, tsr_dtype dtype, int64_t n)
{
    tsr_tensor wanted = *t;
    wanted.shape[t->rank - 1] = n;
    return tsr_output_like(&wanted, dtype);
}

tsr_status tsr_as_rows(const tsr_tensor *t, const char *name, tsr_tensor *out)
{
    int64_t n_rows = 1;
    for (int32_t i = 0; i < t->rank - 1; i++) n_rows *= t->shape[i];
    const int64_t shape[] = {n_rows, t->shape[t->rank - 1]};
    const tsr_status status = tsr_tensor_reshape(t, 2, shape, out);
    return status == TSR_OK ? TSR_OK : tsr_fail_within(status, "%s", name);
}

tsr_status tsr_need(const tsr_tape *tape, tsr_var x, const char *name, int32_t low, int32_t high,
                    tsr_tensor *value)
{
    uint32_t id;
    if (tape == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "%s: tape is NULL", name);
    TSR_TRY(tsr_tape_find(tape, x, name, &id));
    *value = tape->variables[id].value;
    if (value->rank >= low && value->rank <= high) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "%s: an input has shape %s, its rank must be %d to %d", name,
                    tsr_shape_of(value).text, (int)low, (int)high);
}

tsr_status tsr_apply_first(tsr_tape *tape, const tsr_tape_call *call, tsr_var *out)
{
    tsr_var made[TSR_TAPE_MAX_OUT];
    if (out == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "%s: the result is NULL", call->op->name);
    TSR_TRY(tsr_tape_apply(tape, call, made));
    for (int32_t i = 1; i < call->n_out; i++) tsr_tape_release(tape, made[i]);
    *out = made[0];
    return TSR_OK;
}
