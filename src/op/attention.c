/* op/attention.c - attention, fused and unfused: the same checks, two entries of the seam */
#include "op/attention.h"

/* What a caller gave, in one place; the shapes that out and lse must have follow from q and v. */
typedef struct attention_call {
    const tsr_tensor *q, *k, *v;
    const tsr_attention_options *options;
    int64_t out_shape[4], lse_shape[3];
    int32_t rank; /* of q, k, v and out: 4, or 3 packed */
} attention_call;

static tsr_status begin(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k, const tsr_tensor *v,
                        const tsr_attention_options *options, attention_call *call,
                        tsr_attention_fwd_args *args)
{
    TSR_TRY(tsr_attention_resolve(ctx, q, k, v, options, args));
    *call = (attention_call){.q = q, .k = k, .v = v, .options = options, .rank = q->rank};
    for (int32_t i = 0; i < q->rank; i++) call->out_shape[i] = q->shape[i];
    call->out_shape[q->rank - 1] = args->dv;
    if (q->rank == 4) {
        for (int i = 0; i < 3; i++) call->lse_shape[i] = q->shape[i];
    } else {
        call->lse_shape[0] = q->shape[1], call->lse_shape[1] = q->shape[0];
    }
    return TSR_OK;
}

/* out and its gradient: q's dtype; lse and its gradient: f32 (f64 with f64). */
static tsr_status check_out(const tsr_context *ctx, const attention_call *call, const tsr_tensor *t,
                            const char *name)
{
    return tsr_check_tensor_is(ctx, t, name, call->q->dtype, call->rank, call->out_shape,
                               "q's shape with v's last extent");
}

static tsr_status check_lse(const tsr_context *ctx, const attention_call *call, const tsr_tensor *t,
                            const char *name)
{
    return tsr_check_tensor_is(ctx, t, name, tsr_wide(call->q->dtype), call->rank - 1, call->lse_shape,
                               "a number for each row of q");
}

/* Outputs against q, k, v, what the options name, and `more` inputs (up to 4). */
static tsr_status check_memory(const attention_call *call, const tsr_output *outputs, int32_t n_outputs,
                               const tsr_input *more, int32_t n_more)
{
    tsr_input inputs[TSR_ATTENTION_OPTION_TENSORS + 3 + 4];
    tsr_attention_option_inputs(call->options, inputs);
    int32_t n = TSR_ATTENTION_OPTION_TENSORS;
    inputs[n++] = (tsr_input){call->q, "q"};
    inputs[n++] = (tsr_input){call->k, "k"};
    inputs[n++] = (tsr_input){call->v, "v"};
    for (int32_t i = 0; i < n_more; i++) inputs[n++] = more[i];
    return tsr_check_memory(outputs, n_outputs, inputs, n);
}

static tsr_status plan_fwd(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                           const tsr_tensor *v, const tsr_tensor *out, const tsr_tensor *lse,
                           const tsr_attention_options *options, tsr_attention_fwd_args *args)
{
    attention_call call;
    TSR_TRY(begin(ctx, q, k, v, options, &call, args));
    TSR_TRY(check_out(ctx, &call, out, "out"));
    if (lse != NULL) TSR_TRY(check_lse(ctx, &call, lse, "lse"));
    const tsr_output outputs[] = {{out, "out", {NULL}}, {lse, "lse", {NULL}}};
    TSR_TRY(check_memory(&call, outputs, 2, NULL, 0));
    args->out = tsr_attention_rows(out);
    if (lse != NULL) args->lse = tsr_attention_row_values(lse);
    return TSR_OK;
}

/* A query knows no out yet: a row-major one stands for it, with q's data as its address. */
static tsr_status plan_fwd_query(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                 const tsr_tensor *v, const tsr_attention_options *options,
                                 tsr_attention_fwd_args *args)
{
    TSR_TRY(tsr_attention_resolve(ctx, q, k, v, options, args));
    const int64_t *s = args->q.shape;
    args->out = tsr_tensor_4d(q->data, q->dtype, s[0], s[1], s[2], args->dv);
    args->lse = tsr_tensor_3d(q->data, tsr_wide(q->dtype), s[0], s[1], s[2]);
    return TSR_OK;
}

/* dq, dk or dv: q's dtype or f32, and the shape of what it is the gradient of. */
static tsr_status check_grad(const tsr_context *ctx, const tsr_tensor *grad, const char *name,
                             const tsr_tensor *of, const char *of_name)
{
    if (grad == NULL) return TSR_OK;
    TSR_TRY(tsr_check_tensor(ctx, grad, name, 1u << of->dtype | 1u << tsr_wide(of->dtype), 0, TSR_MAX_RANK));
    return tsr_check_same_shape(grad, name, of, of_name);
}

/* dbias: the bias's full extents, or 1 where it broadcasts. */
static tsr_status check_dbias(const tsr_context *ctx, const tsr_tensor *dbias,
                              const tsr_attention_options *options, const tsr_attention_fwd_args *fwd)
{
    if (dbias == NULL) return TSR_OK;
    if (options == NULL || options->bias == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "dbias is given, must be NULL without a bias");
    TSR_TRY(tsr_check_tensor(ctx, dbias, "dbias", 1u << tsr_wide(fwd->q.dtype), 4, 4));
    for (int i = 0; i < 4; i++) {
        const bool broadcasts = fwd->bias.stride[i] == 0;
        if (dbias->shape[i] == fwd->bias.shape[i] || (broadcasts && dbias->shape[i] == 1)) continue;
        return tsr_fail(TSR_ERR_SHAPE, "dbias has shape %s, must have %s, or 1 where the bias broadcasts",
                        tsr_shape_of(dbias).text, tsr_shape_of(&fwd->bias).text);
    }
    return TSR_OK;
}

static tsr_status check_grads(const tsr_context *ctx, const attention_call *call,
                              const tsr_attention_grads *grads, const tsr_attention_fwd_args *fwd)
{
    TSR_TRY(tsr_check_not_null(grads, "grads"));
    TSR_TRY(check_grad(ctx, grads->dq, "dq", call->q, "q"));
    TSR_TRY(check_grad(ctx, grads->dk, "dk", call->k, "k"));
    TSR_TRY(check_grad(ctx, grads->dv, "dv", call->v, "v"));
    TSR_TRY(check_dbias(ctx, grads->dbias, call->options, fwd));
    if (grads->dsinks == NULL) return TSR_OK;
    if (call->options == NULL || call->options->sinks == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "dsinks is given, must be NULL without sinks");
    return tsr_check_tensor_is(ctx, grads->dsinks, "dsinks", tsr_wide(call->q->dtype), 1, &fwd->hq,
                               "q's heads");
}

static void fill_grads(const tsr_attention_grads *grads, tsr_attention_bwd_args *args)
{
    if (grads->dq != NULL) args->dq = tsr_attention_rows(grads->dq);
    if (grads->dk != NULL) args->dk = tsr_attention_rows(grads->dk);
    if (grads->dv != NULL) args->dv = tsr_attention_rows(grads->dv);
    if (grads->dbias != NULL) args->dbias = *grads->dbias;
    if (grads->dsinks != NULL) args->dsinks = *grads->dsinks;
}

static tsr_status check_saved(const tsr_context *ctx, const attention_call *call,
                              const tsr_attention_saved *saved)
{
    TSR_TRY(tsr_check_not_null(saved, "saved"));
    TSR_TRY(check_out(ctx, call, saved->out, "out"));
    TSR_TRY(check_lse(ctx, call, saved->lse, "lse"));
    TSR_TRY(check_out(ctx, call, saved->dout, "dout"));
    return saved->dlse == NULL ? TSR_OK : check_lse(ctx, call, saved->dlse, "dlse");
}

static tsr_status plan_bwd(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                           const tsr_tensor *v, const tsr_attention_saved *saved,
                           const tsr_attention_grads *grads, const tsr_attention_options *options,
                           tsr_attention_bwd_args *args)
{
    attention_call call;
    *args = (tsr_attention_bwd_args){.fwd = {0}};
    TSR_TRY(begin(ctx, q, k, v, options, &call, &args->fwd));
    TSR_TRY(tsr_attention_check_plain_kv(&args->fwd));
    TSR_TRY(check_saved(ctx, &call, saved));
    TSR_TRY(check_grads(ctx, &call, grads, &args->fwd));
    const tsr_output outputs[] = {{grads->dq, "dq", {NULL}},
                                  {grads->dk, "dk", {NULL}},
                                  {grads->dv, "dv", {NULL}},
                                  {grads->dbias, "dbias", {NULL}},
                                  {grads->dsinks, "dsinks", {NULL}}};
    const tsr_input more[] = {
        {saved->out, "out"}, {saved->lse, "lse"}, {saved->dout, "dout"}, {saved->dlse, "dlse"}};
    TSR_TRY(check_memory(&call, outputs, 5, more, 4));
    args->fwd.out = tsr_attention_rows(saved->out);
    args->fwd.lse = tsr_attention_row_values(saved->lse);
    args->dout = tsr_attention_rows(saved->dout);
    if (saved->dlse != NULL) args->dlse = tsr_attention_row_values(saved->dlse);
    fill_grads(grads, args);
    return TSR_OK;
}

static tsr_status plan_bwd_query(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                 const tsr_tensor *v, const tsr_attention_grads *grads,
                                 const tsr_attention_options *options, tsr_attention_bwd_args *args)
{
    attention_call call;
    *args = (tsr_attention_bwd_args){.fwd = {0}};
    TSR_TRY(begin(ctx, q, k, v, options, &call, &args->fwd));
    TSR_TRY(tsr_attention_check_plain_kv(&args->fwd));
    TSR_TRY(check_grads(ctx, &call, grads, &args->fwd));
    TSR_TRY(plan_fwd_query(ctx, q, k, v, options, &args->fwd));
    args->dout = args->fwd.out;
    fill_grads(grads, args);
    return TSR_OK;
}

/* The fused and the unfused form differ in the entry that they call. */

tsr_status tsr_attention_fwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k, const tsr_tensor *v,
                             const tsr_tensor *out, const tsr_tensor *lse,
                             const tsr_attention_options *options, const tsr_workspace *ws)
{
    tsr_attention_fwd_args args;
    tsr_status status = plan_fwd(ctx, q, k, v, out, lse, options, &args);
    if (status == TSR_OK) status = tsr_call_attention_fwd(ctx, &args, ws);
    return tsr_within("attention_fwd", status);
}

tsr_status tsr_attention_fwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                       const tsr_tensor *v, const tsr_attention_options *options, size_t *out)
{
    tsr_attention_fwd_args args;
    tsr_status status = plan_fwd_query(ctx, q, k, v, options, &args);
    if (status == TSR_OK) status = tsr_query_attention_fwd(ctx, &args, out);
    return tsr_within("attention_fwd_workspace", status);
}

tsr_status tsr_attention_bwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k, const tsr_tensor *v,
                             const tsr_attention_saved *saved, const tsr_attention_grads *grads,
                             const tsr_attention_options *options, const tsr_workspace *ws)
{
    tsr_attention_bwd_args args;
    tsr_status status = plan_bwd(ctx, q, k, v, saved, grads, options, &args);
    if (status == TSR_OK) status = tsr_call_attention_bwd(ctx, &args, ws);
    return tsr_within("attention_bwd", status);
}

tsr_status tsr_attention_bwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                       const tsr_tensor *v, const tsr_attention_grads *grads,
                                       const tsr_attention_options *options, size_t *out)
{
    tsr_attention_bwd_args args;
    tsr_status status = plan_bwd_query(ctx, q, k, v, grads, options, &args);
    if (status == TSR_OK) status = tsr_query_attention_bwd(ctx, &args, out);
    return tsr_within("attention_bwd_workspace", status);
}

tsr_status tsr_attention_unfused_fwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                     const tsr_tensor *v, const tsr_tensor *out, const tsr_tensor *lse,
                                     const tsr_attention_options *options, const tsr_workspace *ws)
{
    tsr_attention_fwd_args args;
    tsr_status status = plan_fwd(ctx, q, k, v, out, lse, options, &args);
    if (status == TSR_OK) status = tsr_attention_check_plain_kv(&args);
    if (status == TSR_OK) status = tsr_call_attention_unfused_fwd(ctx, &args, ws);
    return tsr_within("attention_unfused_fwd", status);
}

tsr_status tsr_attention_unfused_fwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                               const tsr_tensor *v, const tsr_attention_options *options,
                                               size_t *out)
{
    tsr_attention_fwd_args args;
    tsr_status status = plan_fwd_query(ctx, q, k, v, options, &args);
    if (status == TSR_OK) status = tsr_attention_check_plain_kv(&args);
    if (status == TSR_OK) status = tsr_query_attention_unfused_fwd(ctx, &args, out);
    return tsr_within("attention_unfused_fwd_workspace", status);
}

tsr_status tsr_attention_unfused_bwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                     const tsr_tensor *v, const tsr_attention_saved *saved,
                                     const tsr_attention_grads *grads, const tsr_attention_options *options,
                                     const tsr_workspace *ws)
{
    tsr_attention_bwd_args args;
    tsr_status status = plan_bwd(ctx, q, k, v, saved, grads, options, &args);
    if (status == TSR_OK) status = tsr_call_attention_unfused_bwd(ctx, &args, ws);
    return tsr_within("attention_unfused_bwd", status);
}

tsr_status tsr_attention_unfused_bwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                               const tsr_tensor *v, const tsr_attention_grads *grads,
                                               const tsr_attention_options *options, size_t *out)
{
    tsr_attention_bwd_args args;
    tsr_status status = plan_bwd_query(ctx, q, k, v, grads, options, &args);
    if (status == TSR_OK) status = tsr_query_attention_unfused_bwd(ctx, &args, out);
    return tsr_within("attention_unfused_bwd_workspace", status);
}
