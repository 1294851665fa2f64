/*
 * op/linear.c - weights that are packed once, and the products with them
 *
 * What a weight holds is its layout; how it lies in memory, and whether a value may be packed, only the
 * backend knows. Creation waits for the packing, so that a value out of range is an error of the call that
 * passed it, on a device that queues too.
 */
#include "tessera/linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/validate.h"

struct tsr_weight {
    const tsr_backend *backend;
    tsr_weight_layout layout;
    void *packed; /* on the device */
    size_t nbytes;
    char kernels[]; /* of the context that packed it */
};

enum { TSR_IN_16_BITS = 1u << TSR_BF16 | 1u << TSR_F16 };

/* --- weights --- */

static tsr_status check_group(const tsr_weight_options *o, int64_t k, int64_t *out)
{
    const int64_t group = o->group == 0 ? 32 : o->group;
    if (group != 32 && group != 64 && group != 128)
        return tsr_fail(TSR_ERR_ARGUMENT, "options.group is %lld, must be 32, 64 or 128 (0 means 32)",
                        (long long)group);
    if (k % group != 0)
        return tsr_fail(TSR_ERR_SHAPE, "options.group is %lld, must divide w.values' second extent, %lld",
                        (long long)group, (long long)k);
    *out = group;
    return TSR_OK;
}

static tsr_status layout_of(const tsr_context *ctx, const tsr_tensor *values, bool gated,
                            const tsr_weight_options *o, tsr_weight_layout *out)
{
    if ((unsigned)o->format > TSR_WEIGHT_INT4_ZERO)
        return tsr_fail(TSR_ERR_ARGUMENT, "options.format is %d, must be 0 to %d", (int)o->format,
                        TSR_WEIGHT_INT4_ZERO);
    const bool quantised = o->format != TSR_WEIGHT_AS_IS;
    TSR_TRY(tsr_check_tensor(ctx, values, "w.values",
                             quantised ? TSR_IN_F32 | TSR_IN_16_BITS | TSR_IN_S8 : TSR_IN_FLOATS, 2, 2));
    *out = (tsr_weight_layout){.format = o->format,
                               .dtype = quantised ? TSR_S8 : values->dtype,
                               .n = values->shape[0],
                               .k = values->shape[1],
                               .gated = gated};
    if (o->format != TSR_WEIGHT_INT4 && o->format != TSR_WEIGHT_INT4_ZERO) return TSR_OK;
    return check_group(o, out->k, &out->group);
}

/* Scales or zeros, of this shape and dtype where they are wanted, else absent. */
typedef struct part {
    const char *name;
    bool wanted;
    const char *why_not;
    tsr_dtype dtype;
} part;

static tsr_status check_part(const tsr_context *ctx, const tsr_tensor *t, const part *p, int32_t rank,
                             const int64_t *shape)
{
    if (!p->wanted) {
        if (t->data == NULL) return TSR_OK;
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is given, must be absent: %s", p->name, p->why_not);
    }
    const bool empty = shape[0] == 0 || (rank == 2 && shape[1] == 0);
    if (t->data == NULL && empty) return TSR_OK;
    if (t->data == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is absent, must be given: the values are quantised already",
                        p->name);
    return tsr_check_tensor_is(ctx, t, p->name, p->dtype, rank, shape,
                               rank == 1 ? "an entry for each channel" : "an entry for each group");
}

/* The scales and zeros that go with values; absent ones are left out of the copy that crosses the seam. */
static tsr_status check_parts(const tsr_context *ctx, const tsr_weight_layout *layout,
                              const tsr_weight_source *src, const char *scales, const char *zeros,
                              tsr_weight_source *out)
{
    const bool given = src->values.dtype == TSR_S8, has_zeros = layout->format == TSR_WEIGHT_INT4_ZERO;
    const char *here = layout->format == TSR_WEIGHT_AS_IS ? "the weight is packed as it is"
                                                          : "the values are floats, quantised here";
    const part of_scales = {scales, given, here, TSR_F32};
    const part of_zeros = {zeros, given && has_zeros, has_zeros ? here : "the format has none", TSR_S8};
    const int32_t rank = layout->group > 0 ? 2 : 1;
    const int64_t shape[] = {layout->n, layout->group > 0 ? layout->k / layout->group : 0};
    TSR_TRY(check_part(ctx, &src->scales, &of_scales, rank, shape));
    TSR_TRY(check_part(ctx, &src->zeros, &of_zeros, rank, shape));
    *out = (tsr_weight_source){.values = src->values};
    if (src->scales.data != NULL) out->scales = src->scales;
    if (src->zeros.data != NULL) out->zeros = src->zeros;
    return TSR_OK;
}

static tsr_status new_weight(tsr_context *ctx, const tsr_weight_layout *layout, tsr_weight **out)
{
    const tsr_backend *backend = ctx->backend;
    const size_t nbytes = backend->weight_nbytes(ctx->state, layout);
    if (nbytes == SIZE_MAX) return tsr_fail(TSR_ERR_OVERFLOW, "the packed weight does not fit in memory");
    const char *kernels = backend->kernels(ctx->state);
    const size_t kernels_nbytes = strlen(kernels) + 1;
    tsr_weight *weight = malloc(sizeof *weight + kernels_nbytes);
    if (weight == NULL) return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    *weight = (tsr_weight){.backend = backend, .layout = *layout, .nbytes = nbytes};
    memcpy(weight->kernels, kernels, kernels_nbytes);
    const tsr_status status = backend->allocate(ctx->state, nbytes, &weight->packed);
    if (status != TSR_OK) {
        free(weight);
        return status;
    }
    *out = weight;
    return TSR_OK;
}

/* On an entered context. */
static tsr_status pack(tsr_context *ctx, tsr_weight_pack_args *args, tsr_weight **out)
{
    const tsr_backend *backend = ctx->backend;
    tsr_weight *weight = NULL;
    if (backend->weight_nbytes == NULL || backend->weight_pack == NULL) return tsr_lacks(ctx, "weight_pack");
    TSR_TRY(new_weight(ctx, &args->layout, &weight));
    args->packed = weight->packed;
    tsr_status status = tsr_run_weight_pack(ctx, args, NULL);
    if (status == TSR_OK) status = backend->synchronise(ctx->state);
    if (status != TSR_OK) {
        backend->release(ctx->state, weight->packed);
        free(weight);
        return status;
    }
    *out = weight;
    return TSR_OK;
}

static tsr_status create(tsr_context *ctx, const tsr_weight_source *w, const tsr_weight_source *gate,
                         const tsr_weight_options *options, tsr_weight **out)
{
    static const tsr_weight_options as_it_is = {TSR_WEIGHT_AS_IS, 0};
    tsr_weight_pack_args args = {.packed = NULL};
    TSR_TRY(tsr_check_context(ctx));
    TSR_TRY(tsr_check_not_null(w, "w"));
    TSR_TRY(tsr_check_not_null(out, "out"));
    TSR_TRY(layout_of(ctx, &w->values, gate != NULL, options != NULL ? options : &as_it_is, &args.layout));
    TSR_TRY(check_parts(ctx, &args.layout, w, "w.scales", "w.zeros", &args.w));
    if (gate != NULL) {
        TSR_TRY(tsr_check_like(ctx, &gate->values, "gate.values", &w->values, "w.values"));
        TSR_TRY(check_parts(ctx, &args.layout, gate, "gate.scales", "gate.zeros", &args.gate));
    }
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, pack(ctx, &args, out));
}

tsr_status tsr_weight_create(tsr_context *ctx, const tsr_weight_source *w, const tsr_weight_source *gate,
                             const tsr_weight_options *options, tsr_weight **out)
{
    return tsr_within("weight_create", create(ctx, w, gate, options, out));
}

/* A context that is NULL or serves another call cannot free: the weight then stays as it is. */
void tsr_weight_destroy(tsr_context *ctx, tsr_weight *weight)
{
    if (weight == NULL || tsr_enter(ctx) != TSR_OK) return;
    ctx->backend->synchronise(ctx->state); /* a product with it may be queued */
    ctx->backend->release(ctx->state, weight->packed);
    free(weight);
    tsr_leave(ctx, TSR_OK);
}

size_t tsr_weight_nbytes(const tsr_weight *weight) { return weight != NULL ? weight->nbytes : 0; }

/* The first line in which two lists of kernels differ. */
typedef struct kernel_name {
    char text[96];
} kernel_name;

static kernel_name first_difference(const char *kernels, const char *others)
{
    size_t start = 0;
    for (size_t i = 0; kernels[i] != 0 && kernels[i] == others[i]; i++)
        if (kernels[i] == '\n') start = i + 1;
    kernel_name name = {""};
    const size_t length = strcspn(kernels + start, "\n");
    memcpy(name.text, kernels + start, length < sizeof name.text ? length : sizeof name.text - 1);
    return name;
}

static tsr_status check_weight(const tsr_context *ctx, const tsr_weight *weight)
{
    TSR_TRY(tsr_check_context(ctx));
    TSR_TRY(tsr_check_not_null(weight, "weight"));
    if (weight->backend != ctx->backend)
        return tsr_fail(TSR_ERR_ARGUMENT, "weight was packed by the %s backend, must be by the context's, %s",
                        weight->backend->name, ctx->backend->name);
    const char *kernels = ctx->backend->kernels(ctx->state);
    if (strcmp(weight->kernels, kernels) == 0) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT,
                    "weight was packed for another instruction set (%s), must be for the context's (%s)",
                    first_difference(weight->kernels, kernels).text,
                    first_difference(kernels, weight->kernels).text);
}

/* --- products --- */

/* The weight's part of a call, and how messages name its extents. */
typedef struct operand {
    tsr_weight_layout layout;
    const void *packed; /* NULL: plain */
    const tsr_tensor *plain;
    const char *whose_n, *whose_k;
} operand;

static tsr_status check_factor(float x, const char *name)
{
    if (isfinite(x)) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s is %g, must be a finite number", name, (double)x);
}

static tsr_status check_bias(const tsr_context *ctx, const tsr_tensor *bias, const char *name,
                             const tsr_tensor *y, tsr_tensor *out)
{
    if (bias == NULL) return TSR_OK;
    const unsigned of_y = y->dtype == TSR_S8 ? 0 : 1u << y->dtype;
    TSR_TRY(tsr_check_tensor(ctx, bias, name, TSR_IN_F32 | of_y, 1, 1));
    TSR_TRY(tsr_check_extent(bias, name, 0, y->shape[1], "y's second"));
    *out = *bias;
    return TSR_OK;
}

static tsr_status check_options(const tsr_context *ctx, const operand *w, const tsr_linear_options *o,
                                tsr_linear_args *args)
{
    const tsr_tensor *y = &args->y;
    if ((unsigned)o->activation > TSR_ACTIVATION_SILU)
        return tsr_fail(TSR_ERR_ARGUMENT, "options.activation is %d, must be 0 to %d", (int)o->activation,
                        TSR_ACTIVATION_SILU);
    TSR_TRY(check_factor(o->scale, "options.scale"));
    TSR_TRY(tsr_check_at_least((double)o->y_scale, "options.y_scale", 0));
    TSR_TRY(check_bias(ctx, o->bias, "bias", y, &args->bias));
    if (o->gate_bias != NULL && !w->layout.gated)
        return tsr_fail(TSR_ERR_ARGUMENT, "gate_bias is given, must be NULL: the weight has no gate");
    TSR_TRY(check_bias(ctx, o->gate_bias, "gate_bias", y, &args->gate_bias));
    if (o->residual != NULL) {
        if (y->dtype == TSR_S8)
            TSR_TRY(tsr_check_tensor_is(ctx, o->residual, "residual", TSR_F32, 2, y->shape, "y's"));
        else
            TSR_TRY(tsr_check_like(ctx, o->residual, "residual", y, "y"));
        args->residual = *o->residual;
    }
    args->activation = o->activation;
    args->scale = o->scale != 0 ? o->scale : 1;
    args->y_scale = y->dtype == TSR_S8 && o->y_scale != 0 ? o->y_scale : 1;
    return TSR_OK;
}

/* x was checked but for its columns. */
static tsr_status describe(const tsr_context *ctx, const tsr_tensor *x, const operand *w,
                           const tsr_linear_options *o, const tsr_tensor *y, tsr_linear_args *args)
{
    TSR_TRY(tsr_check_extent(x, "x", 1, w->layout.k, w->whose_k));
    TSR_TRY(tsr_check_tensor(ctx, y, "y", 1u << x->dtype | TSR_IN_F32 | TSR_IN_S8, 2, 2));
    TSR_TRY(tsr_check_extent(y, "y", 0, x->shape[0], "x's first"));
    TSR_TRY(tsr_check_extent(y, "y", 1, w->layout.n, w->whose_n));
    *args = (tsr_linear_args){.layout = w->layout, .packed = w->packed, .x = *x, .y = *y};
    if (w->plain != NULL) args->plain = *w->plain;
    return check_options(ctx, w, o, args);
}

static tsr_status plan_packed(const tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                              const tsr_linear_options *o, const tsr_tensor *y, tsr_linear_args *args)
{
    TSR_TRY(check_weight(ctx, weight));
    const tsr_weight_layout *layout = &weight->layout;
    unsigned dtypes = TSR_IN_F32 | TSR_IN_16_BITS;
    if (layout->format == TSR_WEIGHT_AS_IS) {
        dtypes = 1u << layout->dtype;
        if (dtypes & TSR_IN_16_BITS) dtypes |= TSR_IN_F32;
    }
    TSR_TRY(tsr_check_tensor(ctx, x, "x", dtypes, 2, 2));
    const operand w = {*layout, weight->packed, NULL, "the weight's first", "the weight's second"};
    return describe(ctx, x, &w, o, y, args);
}

static tsr_status plan_plain(const tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                             const tsr_linear_options *o, const tsr_tensor *y, tsr_linear_args *args)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 2, 2));
    TSR_TRY(tsr_check_tensor(ctx, w, "w", 1u << x->dtype, 2, 2));
    const operand plain = {
        {.format = TSR_WEIGHT_AS_IS, .dtype = w->dtype, .n = w->shape[0], .k = w->shape[1]},
        NULL,
        w,
        "w's first",
        "w's second"};
    return describe(ctx, x, &plain, o, y, args);
}

static const tsr_linear_options no_options = {0};

/* w: of a plain product, else NULL. */
static tsr_status run(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w, const tsr_linear_options *o,
                      const tsr_tensor *y, const tsr_linear_args *args, const tsr_workspace *ws)
{
    const tsr_output outputs[] = {{y, "y", {o->residual}}};
    const tsr_input inputs[] = {
        {x, "x"}, {w, "w"}, {o->bias, "bias"}, {o->gate_bias, "gate_bias"}, {o->residual, "residual"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_linear(ctx, args, ws);
}

static tsr_status fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                      const tsr_linear_options *o, const tsr_tensor *y, const tsr_workspace *ws)
{
    tsr_linear_args args;
    TSR_TRY(plan_packed(ctx, x, weight, o, y, &args));
    return run(ctx, x, NULL, o, y, &args, ws);
}

static tsr_status fwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                                const tsr_linear_options *o, const tsr_tensor *y, size_t *out)
{
    tsr_linear_args args;
    TSR_TRY(plan_packed(ctx, x, weight, o, y, &args));
    return tsr_query_linear(ctx, &args, out);
}

static tsr_status plain_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                            const tsr_linear_options *o, const tsr_tensor *y, const tsr_workspace *ws)
{
    tsr_linear_args args;
    TSR_TRY(plan_plain(ctx, x, w, o, y, &args));
    return run(ctx, x, w, o, y, &args, ws);
}

static tsr_status plain_fwd_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                      const tsr_linear_options *o, const tsr_tensor *y, size_t *out)
{
    tsr_linear_args args;
    TSR_TRY(plan_plain(ctx, x, w, o, y, &args));
    return tsr_query_linear(ctx, &args, out);
}

tsr_status tsr_linear_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                          const tsr_linear_options *options, const tsr_tensor *y, const tsr_workspace *ws)
{
    return tsr_within("linear_fwd", fwd(ctx, x, weight, options != NULL ? options : &no_options, y, ws));
}

tsr_status tsr_linear_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                                const tsr_linear_options *options, const tsr_tensor *y, size_t *out)
{
    return tsr_within("linear_workspace",
                      fwd_workspace(ctx, x, weight, options != NULL ? options : &no_options, y, out));
}

tsr_status tsr_linear_plain_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                const tsr_linear_options *options, const tsr_tensor *y,
                                const tsr_workspace *ws)
{
    return tsr_within("linear_plain_fwd",
                      plain_fwd(ctx, x, w, options != NULL ? options : &no_options, y, ws));
}

tsr_status tsr_linear_plain_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                      const tsr_linear_options *options, const tsr_tensor *y, size_t *out)
{
    return tsr_within("linear_plain_workspace",
                      plain_fwd_workspace(ctx, x, w, options != NULL ? options : &no_options, y, out));
}
