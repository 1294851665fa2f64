/* op/rope.c - tables of angles, and the rotation by them */
#include "tessera/rope.h"

#include <math.h>

#include "op/validate.h"

static const unsigned table_dtypes = 1u << TSR_F32 | 1u << TSR_F64;

static tsr_status rope_table(tsr_context *ctx, double theta, const tsr_tensor *cos, const tsr_tensor *sin)
{
    TSR_TRY(tsr_check_tensor(ctx, cos, "cos", table_dtypes, 2, 2));
    TSR_TRY(tsr_check_like(ctx, sin, "sin", cos, "cos"));
    if (!(isfinite(theta) && theta > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "theta is %g, must be a number above 0", theta);
    const tsr_output outputs[] = {{cos, "cos", {NULL}}, {sin, "sin", {NULL}}};
    TSR_TRY(tsr_check_memory(outputs, 2, NULL, 0));
    return tsr_call_rope_table(ctx, &(tsr_rope_table_args){.theta = theta, .cos = *cos, .sin = *sin}, NULL);
}

tsr_status tsr_rope_table(tsr_context *ctx, double theta, const tsr_tensor *cos, const tsr_tensor *sin)
{
    return tsr_within("rope_table", rope_table(ctx, theta, cos, sin));
}

/* Positions are data, checked by the operator; start is known here. */
static tsr_status check_positions(const tsr_context *ctx, const tsr_rope_options *options,
                                  const tsr_tensor *x, int64_t n_positions)
{
    if (options->positions != NULL) {
        const int64_t shape[] = {x->shape[0], x->shape[2]};
        return tsr_check_tensor_is(ctx, options->positions, "positions", TSR_I32, 2, shape,
                                   "x's extents 0 and 2");
    }
    TSR_TRY(tsr_check_count(options->start, "start", 0));
    if (options->start <= n_positions && x->shape[2] <= n_positions - options->start) return TSR_OK;
    return tsr_fail(TSR_ERR_INDEX, "start is %lld, with %lld rows it must end within the table's %lld",
                    (long long)options->start, (long long)x->shape[2], (long long)n_positions);
}

static tsr_status rope(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *cos, const tsr_tensor *sin,
                       const tsr_rope_options *options, const tsr_tensor *y)
{
    static const tsr_rope_options defaults = {0};
    if (options == NULL) options = &defaults;
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 4, 4));
    TSR_TRY(tsr_check_like(ctx, y, "y", x, "x"));
    if (x->shape[3] % 2 != 0)
        return tsr_fail(TSR_ERR_SHAPE, "x has shape %s, its last extent must be even", tsr_shape_of(x).text);
    TSR_TRY(tsr_check_tensor(ctx, cos, "cos", table_dtypes, 2, 2));
    TSR_TRY(tsr_check_extent(cos, "cos", 1, x->shape[3] / 2, "half of x's last"));
    TSR_TRY(tsr_check_like(ctx, sin, "sin", cos, "cos"));
    TSR_TRY(check_positions(ctx, options, x, cos->shape[0]));
    const tsr_output outputs[] = {{y, "y", {x}}};
    const tsr_input inputs[] = {{x, "x"}, {cos, "cos"}, {sin, "sin"}, {options->positions, "positions"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    tsr_rope_args args = {.x = *x,
                          .cos = *cos,
                          .sin = *sin,
                          .y = *y,
                          .start = options->start,
                          .interleaved = options->interleaved != 0,
                          .inverse = options->inverse != 0};
    if (options->positions != NULL) args.positions = *options->positions;
    return tsr_call_rope(ctx, &args, NULL);
}

tsr_status tsr_rope(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *cos, const tsr_tensor *sin,
                    const tsr_rope_options *options, const tsr_tensor *y)
{
    return tsr_within("rope", rope(ctx, x, cos, sin, options, y));
}
