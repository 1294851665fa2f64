/* op/norm.c - RMSNorm and LayerNorm: one pair of argument structs, told apart by `centred` */
#include "tessera/norm.h"

#include "op/validate.h"

/* What only one of the two norms has is NULL for the other. */
typedef struct norm_tensors {
    const tsr_tensor *x, *weight, *bias, *y, *mean, *rstd;
    const tsr_tensor *dy, *dx, *dweight, *dbias;
} norm_tensors;

static tsr_tensor view_or_none(const tsr_tensor *t) { return t != NULL ? *t : (tsr_tensor){0}; }

/* weight or bias: [n], of x's dtype or f32 */
static tsr_status check_parameter(const tsr_context *ctx, const tsr_tensor *p, const char *name,
                                  const tsr_tensor *x)
{
    TSR_TRY(tsr_check_tensor(ctx, p, name, 1u << x->dtype | 1u << tsr_wide(x->dtype), 1, 1));
    return tsr_check_extent(p, name, 0, x->shape[x->rank - 1], "x's last");
}

/* mean or rstd: a number a row */
static tsr_status check_statistic(const tsr_context *ctx, const tsr_tensor *s, const char *name,
                                  const tsr_tensor *x)
{
    return tsr_check_tensor_is(ctx, s, name, tsr_wide(x->dtype), x->rank - 1, x->shape,
                               "x's leading extents");
}

static tsr_status norm_fwd(tsr_context *ctx, const norm_tensors *t, float eps, bool centred)
{
    const tsr_tensor *x = t->x;
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    TSR_TRY(check_parameter(ctx, t->weight, "weight", x));
    if (t->bias != NULL) TSR_TRY(check_parameter(ctx, t->bias, "bias", x));
    TSR_TRY(tsr_check_like(ctx, t->y, "y", x, "x"));
    if (t->mean != NULL) TSR_TRY(check_statistic(ctx, t->mean, "mean", x));
    if (t->rstd != NULL) TSR_TRY(check_statistic(ctx, t->rstd, "rstd", x));
    if (centred && (t->mean == NULL) != (t->rstd == NULL))
        return tsr_fail(TSR_ERR_ARGUMENT, "mean and rstd: one is NULL, must be both or neither");
    TSR_TRY(tsr_check_at_least(eps, "eps", 0));
    const tsr_output outputs[] = {{t->y, "y", {x}}, {t->mean, "mean", {NULL}}, {t->rstd, "rstd", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}, {t->weight, "weight"}, {t->bias, "bias"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_norm_fwd_args args = {.x = *x,
                                    .weight = *t->weight,
                                    .bias = view_or_none(t->bias),
                                    .y = *t->y,
                                    .mean = view_or_none(t->mean),
                                    .rstd = view_or_none(t->rstd),
                                    .eps = eps,
                                    .centred = centred};
    return tsr_call_norm_fwd(ctx, &args, NULL);
}

static tsr_status norm_bwd(tsr_context *ctx, const norm_tensors *t, bool centred, bool accumulate,
                           const tsr_workspace *ws)
{
    const tsr_tensor *x = t->x;
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    TSR_TRY(check_parameter(ctx, t->weight, "weight", x));
    if (centred) TSR_TRY(check_statistic(ctx, t->mean, "mean", x));
    TSR_TRY(check_statistic(ctx, t->rstd, "rstd", x));
    TSR_TRY(tsr_check_like(ctx, t->dy, "dy", x, "x"));
    if (t->dx != NULL) TSR_TRY(tsr_check_like(ctx, t->dx, "dx", x, "x"));
    const int64_t *n = &x->shape[x->rank - 1];
    const tsr_dtype wide = tsr_wide(x->dtype);
    if (t->dweight != NULL)
        TSR_TRY(tsr_check_tensor_is(ctx, t->dweight, "dweight", wide, 1, n, "x's last extent"));
    if (t->dbias != NULL) TSR_TRY(tsr_check_tensor_is(ctx, t->dbias, "dbias", wide, 1, n, "x's last extent"));
    const tsr_output outputs[] = {
        {t->dx, "dx", {t->dy}}, {t->dweight, "dweight", {NULL}}, {t->dbias, "dbias", {NULL}}};
    const tsr_input inputs[] = {
        {x, "x"}, {t->weight, "weight"}, {t->mean, "mean"}, {t->rstd, "rstd"}, {t->dy, "dy"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_norm_bwd_args args = {.x = *x,
                                    .weight = *t->weight,
                                    .mean = view_or_none(t->mean),
                                    .rstd = *t->rstd,
                                    .dy = *t->dy,
                                    .dx = view_or_none(t->dx),
                                    .dweight = view_or_none(t->dweight),
                                    .dbias = view_or_none(t->dbias),
                                    .centred = centred,
                                    .accumulate = accumulate};
    return tsr_call_norm_bwd(ctx, &args, ws);
}

/* Enough for any choice of gradients: all of them are asked for. */
static tsr_status norm_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, bool centred, size_t *out)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    tsr_tensor row = tsr_tensor_1d(x->data, tsr_wide(x->dtype), x->shape[x->rank - 1]);
    tsr_tensor statistic = *x;
    statistic.rank = x->rank - 1, statistic.dtype = row.dtype;
    row.device = x->device;
    tsr_norm_bwd_args args = {.x = *x, .weight = row, .rstd = statistic, .dy = *x, .dx = *x, .dweight = row};
    args.centred = centred;
    if (centred) args.mean = statistic, args.dbias = row;
    return tsr_query_norm_bwd(ctx, &args, out);
}

tsr_status tsr_rms_norm_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight, float eps,
                            const tsr_tensor *y, const tsr_tensor *rstd)
{
    const norm_tensors t = {.x = x, .weight = weight, .y = y, .rstd = rstd};
    return tsr_within("rms_norm_fwd", norm_fwd(ctx, &t, eps, false));
}

tsr_status tsr_rms_norm_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                            const tsr_tensor *rstd, const tsr_tensor *dy, int accumulate,
                            const tsr_tensor *dx, const tsr_tensor *dweight, const tsr_workspace *ws)
{
    const norm_tensors t = {.x = x, .weight = weight, .rstd = rstd, .dy = dy, .dx = dx, .dweight = dweight};
    return tsr_within("rms_norm_bwd", norm_bwd(ctx, &t, false, accumulate != 0, ws));
}

tsr_status tsr_rms_norm_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, size_t *out)
{
    return tsr_within("rms_norm_bwd_workspace", norm_bwd_workspace(ctx, x, false, out));
}

tsr_status tsr_layer_norm_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                              const tsr_tensor *bias, float eps, const tsr_tensor *y, const tsr_tensor *mean,
                              const tsr_tensor *rstd)
{
    const norm_tensors t = {.x = x, .weight = weight, .bias = bias, .y = y, .mean = mean, .rstd = rstd};
    return tsr_within("layer_norm_fwd", norm_fwd(ctx, &t, eps, true));
}

tsr_status tsr_layer_norm_bwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *weight,
                              const tsr_tensor *mean, const tsr_tensor *rstd, const tsr_tensor *dy,
                              int accumulate, const tsr_tensor *dx, const tsr_tensor *dweight,
                              const tsr_tensor *dbias, const tsr_workspace *ws)
{
    const norm_tensors t = {.x = x,
                            .weight = weight,
                            .mean = mean,
                            .rstd = rstd,
                            .dy = dy,
                            .dx = dx,
                            .dweight = dweight,
                            .dbias = dbias};
    return tsr_within("layer_norm_bwd", norm_bwd(ctx, &t, true, accumulate != 0, ws));
}

tsr_status tsr_layer_norm_bwd_workspace(tsr_context *ctx, const tsr_tensor *x, size_t *out)
{
    return tsr_within("layer_norm_bwd_workspace", norm_bwd_workspace(ctx, x, true, out));
}
