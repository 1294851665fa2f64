/* op/cross_entropy.c - the loss fused with the vocabulary projection */
#include "tessera/cross_entropy.h"

#include "op/validate.h"

static tsr_status check_projection(const tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 2, 2));
    TSR_TRY(tsr_check_tensor(ctx, w, "w", 1u << x->dtype, 2, 2));
    return tsr_check_extent(w, "w", 1, x->shape[1], "x's second");
}

/* targets or lse: one entry a row */
static tsr_status check_per_row(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                                tsr_dtype dtype, const tsr_tensor *x)
{
    return tsr_check_tensor_is(ctx, t, name, dtype, 1, x->shape, "an entry for each row of x");
}

static tsr_status fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w, const tsr_tensor *targets,
                      int32_t ignore_index, const tsr_tensor *loss, const tsr_tensor *lse,
                      const tsr_workspace *ws)
{
    TSR_TRY(check_projection(ctx, x, w));
    TSR_TRY(check_per_row(ctx, targets, "targets", TSR_I32, x));
    TSR_TRY(tsr_check_one_element(ctx, loss, "loss", tsr_wide(x->dtype)));
    TSR_TRY(check_per_row(ctx, lse, "lse", tsr_wide(x->dtype), x));
    const tsr_output outputs[] = {{loss, "loss", {NULL}}, {lse, "lse", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}, {w, "w"}, {targets, "targets"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_linear_cross_entropy_fwd_args args = {
        .x = *x, .w = *w, .targets = *targets, .loss = *loss, .lse = *lse, .ignore_index = ignore_index};
    return tsr_call_linear_cross_entropy_fwd(ctx, &args, ws);
}

tsr_status tsr_linear_cross_entropy_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                        const tsr_tensor *targets, int32_t ignore_index,
                                        const tsr_tensor *loss, const tsr_tensor *lse,
                                        const tsr_workspace *ws)
{
    return tsr_within("linear_cross_entropy_fwd", fwd(ctx, x, w, targets, ignore_index, loss, lse, ws));
}

static tsr_status fwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w, size_t *out)
{
    TSR_TRY(check_projection(ctx, x, w));
    const tsr_linear_cross_entropy_fwd_args args = {.x = *x, .w = *w};
    return tsr_query_linear_cross_entropy_fwd(ctx, &args, out);
}

tsr_status tsr_linear_cross_entropy_fwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                                  size_t *out)
{
    return tsr_within("linear_cross_entropy_fwd_workspace", fwd_workspace(ctx, x, w, out));
}

static tsr_status check_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                            const tsr_tensor *targets, const tsr_tensor *lse, const tsr_tensor *dloss,
                            const tsr_tensor *dx, const tsr_tensor *dw)
{
    TSR_TRY(check_projection(ctx, x, w));
    TSR_TRY(check_per_row(ctx, targets, "targets", TSR_I32, x));
    TSR_TRY(check_per_row(ctx, lse, "lse", tsr_wide(x->dtype), x));
    TSR_TRY(tsr_check_one_element(ctx, dloss, "dloss", tsr_wide(x->dtype)));
    TSR_TRY(tsr_check_like(ctx, dx, "dx", x, "x"));
    TSR_TRY(tsr_check_tensor(ctx, dw, "dw", 1u << x->dtype | 1u << tsr_wide(x->dtype), 2, 2));
    TSR_TRY(tsr_check_same_shape(dw, "dw", w, "w"));
    const tsr_output outputs[] = {{dx, "dx", {NULL}}, {dw, "dw", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}, {w, "w"}, {targets, "targets"}, {lse, "lse"}, {dloss, "dloss"}};
    return TSR_CHECK_MEMORY(outputs, inputs);
}

tsr_status tsr_linear_cross_entropy_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                        const tsr_tensor *targets, int32_t ignore_index,
                                        const tsr_tensor *lse, const tsr_tensor *dloss, int accumulate,
                                        const tsr_tensor *dx, const tsr_tensor *dw, const tsr_workspace *ws)
{
    static const char name[] = "linear_cross_entropy_bwd";
    const tsr_status status = check_bwd(ctx, x, w, targets, lse, dloss, dx, dw);
    if (status != TSR_OK) return tsr_within(name, status);
    const tsr_linear_cross_entropy_bwd_args args = {.x = *x,
                                                    .w = *w,
                                                    .targets = *targets,
                                                    .lse = *lse,
                                                    .dloss = *dloss,
                                                    .dx = *dx,
                                                    .dw = *dw,
                                                    .ignore_index = ignore_index,
                                                    .accumulate = accumulate != 0};
    return tsr_within(name, tsr_call_linear_cross_entropy_bwd(ctx, &args, ws));
}

/* Enough for either dtype that dw may have. */
static tsr_status bwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w, size_t *out)
{
    TSR_TRY(check_projection(ctx, x, w));
    size_t need_wide, need_own;
    tsr_linear_cross_entropy_bwd_args args = {.x = *x, .w = *w, .dx = *x, .dw = *w};
    TSR_TRY(tsr_query_linear_cross_entropy_bwd(ctx, &args, &need_own));
    args.dw.dtype = tsr_wide(x->dtype);
    TSR_TRY(tsr_query_linear_cross_entropy_bwd(ctx, &args, &need_wide));
    if (out == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "out is NULL");
    *out = need_own > need_wide ? need_own : need_wide;
    return TSR_OK;
}

tsr_status tsr_linear_cross_entropy_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                                  size_t *out)
{
    return tsr_within("linear_cross_entropy_bwd_workspace", bwd_workspace(ctx, x, w, out));
}
