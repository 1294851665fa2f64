/* op/elementwise.c - copies, fills, residuals, sums, dropout */
#include "tessera/elementwise.h"

#include "op/validate.h"

static tsr_status copy(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y)
{
    TSR_TRY(tsr_check_view(ctx, x, "x", TSR_IN_ALL, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_view(ctx, y, "y", TSR_IN_ALL, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_same_shape(y, "y", x, "x"));
    const tsr_output outputs[] = {{y, "y", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_copy(ctx, &(tsr_copy_args){.x = *x, .y = *y}, NULL);
}

tsr_status tsr_copy(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y)
{
    return tsr_within("copy", copy(ctx, x, y));
}

static tsr_status fill(tsr_context *ctx, double value, const tsr_tensor *y)
{
    TSR_TRY(tsr_check_view(ctx, y, "y", TSR_IN_ALL, 0, TSR_MAX_RANK));
    const tsr_output outputs[] = {{y, "y", {NULL}}};
    TSR_TRY(tsr_check_memory(outputs, 1, NULL, 0));
    return tsr_call_fill(ctx, &(tsr_fill_args){.value = value, .y = *y}, NULL);
}

tsr_status tsr_fill(tsr_context *ctx, double value, const tsr_tensor *y)
{
    return tsr_within("fill", fill(ctx, value, y));
}

static tsr_status add(tsr_context *ctx, float alpha, const tsr_tensor *a, float beta, const tsr_tensor *b,
                      const tsr_tensor *y)
{
    TSR_TRY(tsr_check_tensor(ctx, a, "a", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    /* f64 does not mix with the others. */
    const unsigned dtypes = a->dtype == TSR_F64 ? 1u << TSR_F64 : TSR_IN_FLOATS & ~(1u << TSR_F64);
    TSR_TRY(tsr_check_tensor(ctx, b, "b", dtypes, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_tensor(ctx, y, "y", dtypes, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_same_shape(b, "b", a, "a"));
    TSR_TRY(tsr_check_same_shape(y, "y", a, "a"));
    const tsr_output outputs[] = {{y, "y", {a, b}}};
    const tsr_input inputs[] = {{a, "a"}, {b, "b"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_add(ctx, &(tsr_add_args){.a = *a, .b = *b, .y = *y, .alpha = alpha, .beta = beta}, NULL);
}

tsr_status tsr_add(tsr_context *ctx, float alpha, const tsr_tensor *a, float beta, const tsr_tensor *b,
                   const tsr_tensor *y)
{
    return tsr_within("add", add(ctx, alpha, a, beta, b, y));
}

static tsr_status sum(tsr_context *ctx, const tsr_tensor *x, bool squares, int accumulate,
                      const tsr_tensor *out)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_one_element(ctx, out, "out", tsr_wide(x->dtype)));
    const tsr_output outputs[] = {{out, "out", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_sum_args args = {.x = *x, .out = *out, .squares = squares, .accumulate = accumulate != 0};
    return tsr_call_sum(ctx, &args, NULL);
}

tsr_status tsr_sum(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out)
{
    return tsr_within("sum", sum(ctx, x, false, accumulate, out));
}

tsr_status tsr_sum_squares(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out)
{
    return tsr_within("sum_squares", sum(ctx, x, true, accumulate, out));
}

static tsr_status sum_rows(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    TSR_TRY(tsr_check_tensor_is(ctx, out, "out", tsr_wide(x->dtype), 1, &x->shape[x->rank - 1],
                                "x's last extent"));
    const tsr_output outputs[] = {{out, "out", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_sum_rows_args args = {.x = *x, .out = *out, .accumulate = accumulate != 0};
    return tsr_call_sum_rows(ctx, &args, NULL);
}

tsr_status tsr_sum_rows(tsr_context *ctx, const tsr_tensor *x, int accumulate, const tsr_tensor *out)
{
    return tsr_within("sum_rows", sum_rows(ctx, x, accumulate, out));
}

static tsr_status dropout_add(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *residual,
                              const tsr_dropout *dropout, const tsr_tensor *y)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    if (residual != NULL) TSR_TRY(tsr_check_like(ctx, residual, "residual", x, "x"));
    TSR_TRY(tsr_check_like(ctx, y, "y", x, "x"));
    TSR_TRY(tsr_check_not_null(dropout, "dropout"));
    TSR_TRY(tsr_check_share(dropout->p, "dropout.p"));
    const int64_t n = x->shape[x->rank - 1];
    TSR_TRY(tsr_check_dropout_counts(1, n == 0 ? 0 : tsr_tensor_numel(x) / n, n));
    const tsr_output outputs[] = {{y, "y", {x, residual}}};
    const tsr_input inputs[] = {{x, "x"}, {residual, "residual"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    tsr_dropout_add_args args = {.x = *x, .y = *y, .dropout = *dropout};
    if (residual != NULL) args.residual = *residual;
    return tsr_call_dropout_add(ctx, &args, NULL);
}

tsr_status tsr_dropout_add(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *residual,
                           const tsr_dropout *dropout, const tsr_tensor *y)
{
    return tsr_within("dropout_add", dropout_add(ctx, x, residual, dropout, y));
}
