/* op/attention_options.c - shapes and options of attention: checked once, resolved into one form */
#include <math.h>

#include "op/attention.h"

static const tsr_attention_options no_options = {0};

tsr_tensor tsr_attention_rows(const tsr_tensor *t)
{
    if (t->rank == 4) return *t;
    tsr_tensor r = *t;
    r.rank = 4;
    r.shape[0] = 1, r.stride[0] = 0;
    r.shape[1] = t->shape[1], r.stride[1] = t->stride[1];
    r.shape[2] = t->shape[0], r.stride[2] = t->stride[0];
    r.shape[3] = t->shape[2], r.stride[3] = t->stride[2];
    return r;
}

tsr_tensor tsr_attention_row_values(const tsr_tensor *t)
{
    if (t->rank == 3) return *t;
    tsr_tensor r = *t;
    r.rank = 3;
    r.shape[0] = 1, r.stride[0] = 0;
    for (int i = 0; i < 2; i++) r.shape[1 + i] = t->shape[i], r.stride[1 + i] = t->stride[i];
    return r;
}

void tsr_attention_option_inputs(const tsr_attention_options *options,
                                 tsr_input inputs[TSR_ATTENTION_OPTION_TENSORS])
{
    const tsr_attention_options *o = options != NULL ? options : &no_options;
    const tsr_input all[TSR_ATTENTION_OPTION_TENSORS] = {{o->alibi, "alibi"},
                                                         {o->bias, "bias"},
                                                         {o->mask, "mask"},
                                                         {o->sinks, "sinks"},
                                                         {o->seqlens_q, "seqlens_q"},
                                                         {o->seqlens_k, "seqlens_k"},
                                                         {o->cu_seqlens_q, "cu_seqlens_q"},
                                                         {o->cu_seqlens_k, "cu_seqlens_k"},
                                                         {o->block_table, "block_table"},
                                                         {o->k_scale, "k_scale"},
                                                         {o->v_scale, "v_scale"}};
    for (int i = 0; i < TSR_ATTENTION_OPTION_TENSORS; i++) inputs[i] = all[i];
}

/* Which dimension of k and v is what. */
typedef struct kv_dims {
    int32_t rank, batch, heads, rows; /* batch -1: none */
} kv_dims;

static kv_dims kv_dims_of(const tsr_attention_options *o)
{
    if (o->block_table != NULL) return (kv_dims){4, -1, 2, 1};
    if (o->cu_seqlens_q != NULL) return (kv_dims){3, -1, 1, 0};
    return (kv_dims){4, 0, 1, 2};
}

/* q, k and v against each other. */
static tsr_status check_qkv(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                            const tsr_tensor *v, const tsr_attention_options *o)
{
    static const char *const of_k[] = {"k's first", "k's second", "k's third"};
    const kv_dims kv = kv_dims_of(o);
    const int32_t rank = o->cu_seqlens_q != NULL ? 3 : 4;
    TSR_TRY(tsr_check_tensor(ctx, q, "q", TSR_IN_FLOATS, rank, rank));
    TSR_TRY(tsr_check_tensor(ctx, k, "k", 1u << q->dtype | TSR_IN_S8, kv.rank, kv.rank));
    TSR_TRY(tsr_check_tensor(ctx, v, "v", 1u << k->dtype, kv.rank, kv.rank));
    TSR_TRY(tsr_check_extent(k, "k", kv.rank - 1, q->shape[rank - 1], "q's last"));
    for (int32_t i = 0; i < kv.rank - 1; i++)
        if (i != kv.batch) TSR_TRY(tsr_check_extent(v, "v", i, k->shape[i], of_k[i]));
    if (kv.batch >= 0) {
        TSR_TRY(tsr_check_extent(k, "k", kv.batch, q->shape[0], "q's first"));
        TSR_TRY(tsr_check_extent(v, "v", kv.batch, q->shape[0], "q's first"));
    }
    const int64_t hq = q->shape[1], hkv = k->shape[kv.heads];
    if (hkv == 0 ? hq == 0 : hq % hkv == 0) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "q has %lld heads, must have a multiple of k's %lld", (long long)hq,
                    (long long)hkv);
}

/* k, v or a scale of theirs with its heads before its rows. */
static tsr_tensor kv_view(const tsr_tensor *t, const tsr_attention_options *o, bool scale)
{
    if (o->block_table != NULL) return tsr_tensor_transpose(t, 1, 2);
    if (!scale) return tsr_attention_rows(t);
    if (t->rank == 3) return *t;
    const tsr_tensor by_heads = tsr_tensor_transpose(t, 0, 1);
    return tsr_attention_row_values(&by_heads);
}

static tsr_status resolve_scale(const tsr_context *ctx, const tsr_tensor *scale, const char *name,
                                const tsr_tensor *k, const tsr_attention_options *o, tsr_tensor *out)
{
    if (k->dtype != TSR_S8) {
        if (scale == NULL) return TSR_OK;
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is given, must be NULL where k is not s8", name);
    }
    TSR_TRY(
        tsr_check_tensor_is(ctx, scale, name, TSR_F32, k->rank - 1, k->shape, "a number for each row of k"));
    *out = kv_view(scale, o, true);
    return TSR_OK;
}

tsr_status tsr_attention_check_plain_kv(const tsr_attention_fwd_args *a)
{
    if (a->block_table.data != NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "block_table is given, must be NULL but for the fused forward");
    if (a->k.dtype == TSR_S8)
        return tsr_fail(TSR_ERR_DTYPE, "k is s8, must be %s but for the fused forward",
                        tsr_dtype_name(a->q.dtype));
    return TSR_OK;
}

static tsr_status resolve_pages(const tsr_context *ctx, const tsr_attention_options *o,
                                tsr_attention_fwd_args *a)
{
    TSR_TRY(tsr_check_not_null(o->seqlens_k, "seqlens_k (needed with block_table)"));
    TSR_TRY(tsr_check_tensor(ctx, o->block_table, "block_table", TSR_IN_I32, 2, 2));
    TSR_TRY(tsr_check_extent(o->block_table, "block_table", 0, a->b, "the number of sequences"));
    if (tsr_mul_overflows(o->block_table->shape[1], a->k.shape[2], &a->lk))
        return tsr_fail(TSR_ERR_OVERFLOW, "block_table has shape %s, too many keys in pages of %lld",
                        tsr_shape_of(o->block_table).text, (long long)a->k.shape[2]);
    a->block_table = *o->block_table;
    return TSR_OK;
}

/* How many sequences, from which keys and queries, and their lengths. */
static tsr_status resolve_packed(const tsr_context *ctx, const tsr_attention_options *o,
                                 tsr_attention_fwd_args *a)
{
    const bool paged = o->block_table != NULL;
    if (o->seqlens_q != NULL || (o->seqlens_k != NULL && !paged))
        return tsr_fail(TSR_ERR_ARGUMENT, "seqlens are given, must be NULL with cu_seqlens");
    TSR_TRY(tsr_check_tensor(ctx, o->cu_seqlens_q, "cu_seqlens_q", TSR_IN_I32, 1, 1));
    if (o->cu_seqlens_q->shape[0] < 1)
        return tsr_fail(TSR_ERR_SHAPE, "cu_seqlens_q has no element, must have one more than sequences");
    if (!paged)
        TSR_TRY(tsr_check_tensor_is(ctx, o->cu_seqlens_k, "cu_seqlens_k", TSR_I32, 1, o->cu_seqlens_q->shape,
                                    "cu_seqlens_q's"));
    TSR_TRY(tsr_check_count(o->max_lq, "max_lq", 0));
    TSR_TRY(tsr_check_count(o->max_lk, "max_lk", 0));
    if (paged && o->max_lk != 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "max_lk is %lld, must be 0 with block_table", (long long)o->max_lk);
    a->b = o->cu_seqlens_q->shape[0] - 1;
    if (o->max_lq > 0) a->lq = o->max_lq;
    if (o->max_lk > 0) a->lk = o->max_lk;
    return TSR_OK;
}

static tsr_status resolve_lengths(const tsr_context *ctx, const tsr_attention_options *o,
                                  tsr_attention_fwd_args *a)
{
    a->b = a->q.shape[0], a->lq = a->q.shape[2], a->lk = a->k.shape[2];
    if (o->cu_seqlens_q != NULL)
        TSR_TRY(resolve_packed(ctx, o, a));
    else if (o->max_lq != 0 || o->max_lk != 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "max_lq is %lld and max_lk %lld, must be 0 without cu_seqlens",
                        (long long)o->max_lq, (long long)o->max_lk);
    if (o->block_table != NULL) TSR_TRY(resolve_pages(ctx, o, a));
    if (o->seqlens_q != NULL)
        TSR_TRY(tsr_check_tensor_is(ctx, o->seqlens_q, "seqlens_q", TSR_I32, 1, &a->b, "q's first"));
    if (o->seqlens_k != NULL)
        TSR_TRY(tsr_check_tensor_is(ctx, o->seqlens_k, "seqlens_k", TSR_I32, 1, &a->b, "q's first"));
    return TSR_OK;
}

static tsr_status resolve_numbers(const tsr_attention_options *o, tsr_attention_fwd_args *a)
{
    if (!isfinite(o->scale))
        return tsr_fail(TSR_ERR_ARGUMENT, "scale is %g, must be finite (0 = 1 / sqrt(D))", (double)o->scale);
    TSR_TRY(tsr_check_at_least(o->softcap, "softcap", 0));
    TSR_TRY(tsr_check_count(o->splits, "splits", 0));
    TSR_TRY(tsr_check_share(o->dropout_p, "dropout_p"));
    a->scale = o->scale != 0 ? o->scale : a->d > 0 ? (float)(1 / sqrt((double)a->d)) : 1;
    a->softcap = o->softcap, a->splits = o->splits;
    a->dropout_p = o->dropout_p, a->dropout_seed = o->dropout_seed, a->dropout_offset = o->dropout_offset;
    if (a->dropout_p > 0) {
        int64_t heads;
        if (tsr_mul_overflows(a->b, a->hq, &heads)) heads = INT64_MAX;
        TSR_TRY(tsr_check_dropout_counts(heads, a->lq, a->lk));
    }
    a->window_left = a->window_right = -1;
    if (o->window.on) {
        TSR_TRY(tsr_check_count(o->window.left, "window.left", -1));
        TSR_TRY(tsr_check_count(o->window.right, "window.right", -1));
        a->window_left = o->window.left, a->window_right = o->window.right;
    }
    if (o->causal) a->window_right = 0; /* stricter than any window's right side */
    return TSR_OK;
}

/* bias or mask as [b, hq, lq, lk], with strides of 0 where its extent is 1. */
static tsr_status resolve_scores(const tsr_context *ctx, const tsr_tensor *t, const char *name,
                                 unsigned dtypes, const tsr_attention_fwd_args *a, tsr_tensor *out)
{
    const int64_t full[] = {a->b, a->hq, a->lq, a->lk};
    TSR_TRY(tsr_check_tensor(ctx, t, name, dtypes, 4, 4));
    tsr_tensor r = *t;
    for (int i = 0; i < 4; i++) {
        if (t->shape[i] == full[i]) continue;
        if (t->shape[i] != 1) {
            tsr_tensor must = r;
            for (int j = 0; j < 4; j++) must.shape[j] = full[j];
            return tsr_fail(TSR_ERR_SHAPE, "%s has shape %s, must have %s, or 1 where it broadcasts", name,
                            tsr_shape_of(t).text, tsr_shape_of(&must).text);
        }
        r.shape[i] = full[i], r.stride[i] = 0;
    }
    *out = r;
    return TSR_OK;
}

static tsr_status resolve_tensors(const tsr_context *ctx, const tsr_attention_options *o,
                                  tsr_attention_fwd_args *a)
{
    const tsr_dtype wide = tsr_wide(a->q.dtype);
    if (o->alibi != NULL) {
        TSR_TRY(tsr_check_tensor_is(ctx, o->alibi, "alibi", wide, 1, &a->hq, "q's heads"));
        a->alibi = *o->alibi;
    }
    if (o->sinks != NULL) {
        TSR_TRY(tsr_check_tensor_is(ctx, o->sinks, "sinks", wide, 1, &a->hq, "q's heads"));
        a->sinks = *o->sinks;
    }
    if (o->bias != NULL)
        TSR_TRY(resolve_scores(ctx, o->bias, "bias", 1u << a->q.dtype | 1u << wide, a, &a->bias));
    if (o->mask != NULL) TSR_TRY(resolve_scores(ctx, o->mask, "mask", TSR_IN_BOOL, a, &a->mask));
    if (o->seqlens_q != NULL) a->seqlens_q = *o->seqlens_q;
    if (o->seqlens_k != NULL) a->seqlens_k = *o->seqlens_k;
    if (o->cu_seqlens_q != NULL) a->cu_seqlens_q = *o->cu_seqlens_q;
    if (o->cu_seqlens_k != NULL) a->cu_seqlens_k = *o->cu_seqlens_k;
    return TSR_OK;
}

tsr_status tsr_attention_resolve(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                 const tsr_tensor *v, const tsr_attention_options *options,
                                 tsr_attention_fwd_args *args)
{
    const tsr_attention_options *o = options != NULL ? options : &no_options;
    if (o->cu_seqlens_q == NULL && o->cu_seqlens_k != NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "cu_seqlens_q is NULL, must be given with cu_seqlens_k");
    if (o->cu_seqlens_k != NULL && o->block_table != NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "cu_seqlens_k is given, must be NULL with block_table");
    if (o->cu_seqlens_k == NULL && o->cu_seqlens_q != NULL && o->block_table == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "cu_seqlens_k is NULL, must be given with cu_seqlens_q");
    TSR_TRY(check_qkv(ctx, q, k, v, o));
    *args = (tsr_attention_fwd_args){
        .q = tsr_attention_rows(q), .k = kv_view(k, o, false), .v = kv_view(v, o, false)};
    TSR_TRY(resolve_scale(ctx, o->k_scale, "k_scale", k, o, &args->k_scale));
    TSR_TRY(resolve_scale(ctx, o->v_scale, "v_scale", k, o, &args->v_scale));
    args->hq = args->q.shape[1], args->hkv = args->k.shape[1];
    args->d = args->q.shape[3], args->dv = args->v.shape[3];
    TSR_TRY(resolve_lengths(ctx, o, args));
    TSR_TRY(resolve_numbers(o, args));
    return resolve_tensors(ctx, o, args);
}
