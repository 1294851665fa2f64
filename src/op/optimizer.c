/* op/optimizer.c - one step of AdamW for one parameter */
#include "tessera/optimizer.h"

#include "op/validate.h"

static tsr_status check_options(const tsr_adamw_options *o)
{
    TSR_TRY(tsr_check_not_null(o, "options"));
    TSR_TRY(tsr_check_at_least(o->lr, "options.lr", 0));
    TSR_TRY(tsr_check_share(o->beta1, "options.beta1"));
    TSR_TRY(tsr_check_share(o->beta2, "options.beta2"));
    TSR_TRY(tsr_check_at_least(o->eps, "options.eps", 0));
    TSR_TRY(tsr_check_at_least(o->weight_decay, "options.weight_decay", 0));
    TSR_TRY(tsr_check_at_least(o->grad_scale, "options.grad_scale", 0));
    return tsr_check_count(o->step, "options.step", 1);
}

static tsr_status check_contiguous(const tsr_tensor *t, const char *name)
{
    if (t == NULL || tsr_tensor_is_contiguous(t)) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "%s has gaps or another order, must be contiguous", name);
}

/* g, m, v, master: of p's shape, f32 (f64 with an f64 p) */
static tsr_status check_companion(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                                  const tsr_tensor *p)
{
    TSR_TRY(tsr_check_tensor(ctx, t, name, 1u << tsr_wide(p->dtype), 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_same_shape(t, name, p, "p"));
    return check_contiguous(t, name);
}

static tsr_status check_master(const tsr_context *ctx, const tsr_tensor *master, const tsr_tensor *p)
{
    const bool narrow = p->dtype == TSR_BF16 || p->dtype == TSR_F16;
    if (narrow != (master != NULL))
        return tsr_fail(TSR_ERR_ARGUMENT, "master is %s, must be %s: p is %s",
                        master == NULL ? "NULL" : "given", narrow ? "f32 weights" : "NULL",
                        tsr_dtype_name(p->dtype));
    return narrow ? check_companion(ctx, master, "master", p) : TSR_OK;
}

static tsr_status adamw(tsr_context *ctx, const tsr_adamw_options *options, const tsr_tensor *p,
                        const tsr_tensor *master, const tsr_tensor *g, const tsr_tensor *m,
                        const tsr_tensor *v)
{
    TSR_TRY(check_options(options));
    TSR_TRY(tsr_check_tensor(ctx, p, "p", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(check_contiguous(p, "p"));
    TSR_TRY(check_master(ctx, master, p));
    TSR_TRY(check_companion(ctx, g, "g", p));
    TSR_TRY(check_companion(ctx, m, "m", p));
    TSR_TRY(check_companion(ctx, v, "v", p));
    const tsr_output outputs[] = {
        {p, "p", {NULL}}, {master, "master", {NULL}}, {m, "m", {NULL}}, {v, "v", {NULL}}};
    const tsr_input inputs[] = {{g, "g"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    tsr_adamw_args args = {.options = *options, .p = *p, .g = *g, .m = *m, .v = *v};
    if (master != NULL) args.master = *master;
    return tsr_call_adamw(ctx, &args, NULL);
}

tsr_status tsr_adamw(tsr_context *ctx, const tsr_adamw_options *options, const tsr_tensor *p,
                     const tsr_tensor *master, const tsr_tensor *g, const tsr_tensor *m, const tsr_tensor *v)
{
    return tsr_within("adamw", adamw(ctx, options, p, master, g, m, v));
}
