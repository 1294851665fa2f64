/* op/validate.c - checks of arguments, and their messages */
#include "op/validate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

tsr_status tsr_check_context(const tsr_context *ctx)
{
    return ctx != NULL ? TSR_OK : tsr_fail(TSR_ERR_ARGUMENT, "the context is NULL");
}

tsr_status tsr_check_not_null(const void *p, const char *name)
{
    return p != NULL ? TSR_OK : tsr_fail(TSR_ERR_ARGUMENT, "%s is NULL", name);
}

/* "f32, bf16 or f16" */
typedef struct dtype_list {
    char text[80];
} dtype_list;

static dtype_list names_of(unsigned dtypes)
{
    dtype_list list = {""};
    size_t used = 0;
    int left = __builtin_popcount(dtypes);
    for (int i = 0; i < TSR_DTYPE_COUNT; i++) {
        if (!(dtypes & 1u << i)) continue;
        left--;
        used += (size_t)snprintf(list.text + used, sizeof list.text - used, "%s%s",
                                 tsr_dtype_name((tsr_dtype)i),
                                 left > 1    ? ", "
                                 : left == 1 ? " or "
                                             : "");
    }
    return list;
}

static tsr_status check_dtype_in(tsr_dtype dtype, const char *name, unsigned dtypes)
{
    if ((unsigned)dtype < TSR_DTYPE_COUNT && (dtypes & 1u << dtype)) return TSR_OK;
    return tsr_fail(TSR_ERR_DTYPE, "%s is %s, must be %s", name, tsr_dtype_name(dtype),
                    names_of(dtypes).text);
}

/* f64 is there for finite differences; the reference backend alone computes in it. */
static tsr_status check_computes(const tsr_context *ctx, tsr_dtype dtype, const char *name)
{
    if (dtype != TSR_F64 || ctx->backend->computes_f64) return TSR_OK;
    return tsr_fail(TSR_ERR_DTYPE, "%s is f64, which the %s backend does not compute in", name,
                    ctx->backend->name);
}

tsr_status tsr_check_dtype(const tsr_context *ctx, tsr_dtype dtype, const char *name, unsigned dtypes)
{
    TSR_TRY(check_dtype_in(dtype, name, dtypes));
    return check_computes(ctx, dtype, name);
}

tsr_status tsr_check_view(const tsr_context *ctx, const tsr_tensor *t, const char *name, unsigned dtypes,
                          int32_t low, int32_t high)
{
    TSR_TRY(tsr_check_context(ctx));
    TSR_TRY(tsr_check_not_null(t, name));
    TSR_TRY(tsr_tensor_validate(t, name));
    if (t->device != ctx->backend->device)
        return tsr_fail(TSR_ERR_DEVICE, "%s lives on device %d, the context's is %d", name, (int)t->device,
                        (int)ctx->backend->device);
    if (t->rank < low || t->rank > high) {
        if (low == high)
            return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have rank %d", name, tsr_shape_of(t).text,
                            (int)low);
        return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have rank %d to %d", name, tsr_shape_of(t).text,
                        (int)low, (int)high);
    }
    return check_dtype_in(t->dtype, name, dtypes);
}

tsr_status tsr_check_tensor(const tsr_context *ctx, const tsr_tensor *t, const char *name, unsigned dtypes,
                            int32_t low, int32_t high)
{
    TSR_TRY(tsr_check_view(ctx, t, name, dtypes, low, high));
    return check_computes(ctx, t->dtype, name);
}

tsr_status tsr_check_tensor_is(const tsr_context *ctx, const tsr_tensor *t, const char *name, tsr_dtype dtype,
                               int32_t rank, const int64_t *shape, const char *model)
{
    TSR_TRY(tsr_check_tensor(ctx, t, name, 1u << dtype, 0, TSR_MAX_RANK));
    if (t->rank == rank && memcmp(t->shape, shape, (size_t)rank * sizeof *shape) == 0) return TSR_OK;
    tsr_tensor must = {.rank = rank};
    memcpy(must.shape, shape, (size_t)rank * sizeof *shape);
    return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have %s, %s", name, tsr_shape_of(t).text, model,
                    tsr_shape_of(&must).text);
}

tsr_status tsr_check_same_shape(const tsr_tensor *t, const char *name, const tsr_tensor *model,
                                const char *model_name)
{
    if (tsr_tensor_same_shape(t, model)) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have %s's, %s", name, tsr_shape_of(t).text,
                    model_name, tsr_shape_of(model).text);
}

tsr_status tsr_check_like(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                          const tsr_tensor *model, const char *model_name)
{
    TSR_TRY(tsr_check_tensor(ctx, t, name, TSR_IN_ALL, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_same_shape(t, name, model, model_name));
    if (t->dtype == model->dtype) return TSR_OK;
    return tsr_fail(TSR_ERR_DTYPE, "%s is %s, must be of %s's dtype, %s", name, tsr_dtype_name(t->dtype),
                    model_name, tsr_dtype_name(model->dtype));
}

tsr_status tsr_check_extent(const tsr_tensor *t, const char *name, int32_t dim, int64_t must,
                            const char *whose)
{
    static const char *const ordinals[TSR_MAX_RANK] = {"first", "second", "third", "fourth"};
    if (t->shape[dim] == must) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, its %s extent must be %s, %lld", name,
                    tsr_shape_of(t).text, ordinals[dim], whose, (long long)must);
}

tsr_status tsr_check_one_element(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                                 tsr_dtype dtype)
{
    TSR_TRY(tsr_check_tensor(ctx, t, name, 1u << dtype, 0, TSR_MAX_RANK));
    if (tsr_tensor_numel(t) == 1) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have one element", name, tsr_shape_of(t).text);
}

/* An output against one input: apart, or one and the same where the operator allows it. */
static tsr_status check_apart(const tsr_output *out, const tsr_input *in)
{
    if (in->t == NULL || !tsr_tensor_overlap(out->t, in->t)) return TSR_OK;
    bool may_be = false;
    for (int i = 0; i < 2; i++) {
        if (out->may_be[i] != in->t) continue;
        if (tsr_tensor_same(out->t, in->t)) return TSR_OK;
        may_be = true;
    }
    return tsr_fail(TSR_ERR_OVERLAP, "%s shares memory with %s, must be apart from it%s", out->name, in->name,
                    may_be ? ", or the same view" : "");
}

tsr_status tsr_check_memory(const tsr_output *outputs, int32_t n_outputs, const tsr_input *inputs,
                            int32_t n_inputs)
{
    for (int32_t i = 0; i < n_outputs; i++) {
        const tsr_output *out = &outputs[i];
        if (out->t == NULL) continue;
        if (tsr_tensor_self_overlap(out->t))
            return tsr_fail(TSR_ERR_OVERLAP,
                            "%s has elements that share memory (strides of 0, or that cross)", out->name);
        for (int32_t j = 0; j < i; j++)
            if (outputs[j].t != NULL && tsr_tensor_overlap(out->t, outputs[j].t))
                return tsr_fail(TSR_ERR_OVERLAP, "%s shares memory with %s, must be apart from it", out->name,
                                outputs[j].name);
        for (int32_t j = 0; j < n_inputs; j++) TSR_TRY(check_apart(out, &inputs[j]));
    }
    return TSR_OK;
}

tsr_status tsr_check_at_least(double x, const char *name, double low)
{
    if (isfinite(x) && x >= low) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s is %g, must be a number of at least %g", name, x, low);
}

tsr_status tsr_check_share(float p, const char *name)
{
    if (p >= 0 && p < 1) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s is %g, must be at least 0 and below 1", name, (double)p);
}

tsr_status tsr_check_count(int64_t n, const char *name, int64_t low)
{
    if (n >= low) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s is %lld, must be at least %lld", name, (long long)n,
                    (long long)low);
}

tsr_status tsr_check_dropout_counts(int64_t heads, int64_t rows, int64_t columns)
{
    const int64_t most = (int64_t)UINT32_MAX + 1;
    if (heads <= most && rows <= most && columns <= most) return TSR_OK;
    return tsr_fail(TSR_ERR_OVERFLOW, "dropout counts %lld x %lld x %lld elements, each at most 2^32",
                    (long long)heads, (long long)rows, (long long)columns);
}
