/*
 * nn/attention.c - multi-head attention with its projections
 *
 *     x [B, L, dim] --Wq--> [B, L, Hq * D]  seen as  [B, Hq, L, D]   a view: strides L*Hq*D, D, Hq*D, 1
 *     rotated in place, attended, and the result, which lies as [B, L, Hq, D], seen as [B, L, Hq * D] --Wo-->
 * y
 */
#include "nn/nn.h"

/* x [B, L, n_heads * head_dim] becomes its view [B, n_heads, L, head_dim]. */
static tsr_status split_heads(tsr_tape *tape, int64_t n_heads, int64_t head_dim, tsr_var *x)
{
    tsr_tensor t;
    tsr_var view;
    TSR_TRY(tsr_tape_value(tape, *x, &t));
    const int64_t shape[] = {t.shape[0], t.shape[1], n_heads, head_dim};
    TSR_TRY(tsr_tape_reshape(tape, *x, 4, shape, &view));
    tsr_replace(tape, x, view);
    TSR_TRY(tsr_tape_transpose(tape, *x, 1, 2, &view));
    tsr_replace(tape, x, view);
    return TSR_OK;
}

static tsr_status join_heads(tsr_tape *tape, tsr_var *x)
{
    tsr_tensor t;
    tsr_var view;
    TSR_TRY(tsr_tape_transpose(tape, *x, 1, 2, &view));
    tsr_replace(tape, x, view);
    TSR_TRY(tsr_tape_value(tape, *x, &t));
    const int64_t shape[] = {t.shape[0], t.shape[1], t.shape[2] * t.shape[3]};
    TSR_TRY(tsr_tape_reshape(tape, *x, 3, shape, &view));
    tsr_replace(tape, x, view);
    return TSR_OK;
}

static tsr_status check_projection(const tsr_linear *p, const char *name, int64_t n_heads, int64_t head_dim)
{
    const tsr_tensor *w = &p->weight.value;
    int64_t n_out;
    if (n_heads < 1 || head_dim < 1 || tsr_mul_overflows(n_heads, head_dim, &n_out))
        return tsr_fail(TSR_ERR_SHAPE, "attention_layer: %lld heads of %lld, must be at least 1 of 1",
                        (long long)n_heads, (long long)head_dim);
    if (w->rank == 2 && w->shape[0] == n_out) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "attention_layer: %s.weight is %s, must have %lld heads * %lld rows", name,
                    tsr_shape_of(w).text, (long long)n_heads, (long long)head_dim);
}

static tsr_status check_layer(const tsr_tape *tape, const tsr_attention_layer *l, tsr_var x, const char *what)
{
    tsr_tensor t;
    TSR_TRY(tsr_tape_value(tape, x, &t));
    if (t.rank != 3)
        return tsr_fail(TSR_ERR_SHAPE, "attention_layer: %s has shape %s, must be [B, L, dim]", what,
                        tsr_shape_of(&t).text);
    TSR_TRY(check_projection(&l->q, "q", l->n_heads, l->head_dim));
    TSR_TRY(check_projection(&l->k, "k", l->n_kv_heads, l->head_dim));
    return check_projection(&l->v, "v", l->n_kv_heads, l->head_dim);
}

/* What is not the layer's and not the cache's. */
static tsr_tape_attention_options options_of(const tsr_attention_layer *layer, const tsr_attention_inputs *in)
{
    return (tsr_tape_attention_options){.scale = layer->scale,
                                        .causal = layer->causal,
                                        .window_on = layer->window.on,
                                        .window_left = layer->window.left,
                                        .window_right = layer->window.right,
                                        .softcap = layer->softcap,
                                        .dropout = in->dropout,
                                        .mask = in->mask,
                                        .seqlens_q = in->seqlens_q,
                                        .seqlens_k = in->seqlens_k};
}

/* Turns x by its rows' positions, in the place of x. */
static tsr_status rotate(tsr_tape *tape, const tsr_attention_layer *layer, const tsr_attention_inputs *in,
                         tsr_var *x)
{
    if (layer->rope_cos.data == NULL || in->source.id != 0) return TSR_OK;
    tsr_var cos, sin, turned;
    tsr_tape_rope_options options = {
        .interleaved = layer->rope_interleaved, .start = in->start, .in_place = 1};
    TSR_TRY(tsr_tape_input(tape, &layer->rope_cos, &cos));
    TSR_TRY(tsr_tape_input(tape, &layer->rope_sin, &sin));
    if (in->cache != NULL) TSR_TRY(tsr_tape_input(tape, &in->cache->positions, &options.positions));
    TSR_TRY(tsr_tape_rope(tape, *x, cos, sin, &options, &turned));
    tsr_replace(tape, x, turned);
    return TSR_OK;
}

/* Stores k and v, which become all that the cache holds. */
static tsr_status through_cache(tsr_tape *tape, const tsr_kv_layer *cache, tsr_var *k, tsr_var *v,
                                tsr_tape_attention_options *options)
{
    tsr_var start, lengths, all_k, all_v;
    TSR_TRY(tsr_tape_input(tape, &cache->start, &start));
    TSR_TRY(tsr_optional_input(tape, &cache->lengths, &lengths));
    TSR_TRY(tsr_tape_input(tape, &cache->k, &all_k));
    TSR_TRY(tsr_tape_input(tape, &cache->v, &all_v));
    TSR_TRY(tsr_tape_kv_append(tape, *k, start, lengths, all_k));
    TSR_TRY(tsr_tape_kv_append(tape, *v, start, lengths, all_v));
    tsr_replace(tape, k, all_k);
    tsr_replace(tape, v, all_v);
    options->seqlens_q = lengths;
    return tsr_tape_input(tape, &cache->total, &options->seqlens_k);
}

tsr_status tsr_attention_layer_forward(tsr_tape *tape, const tsr_attention_layer *layer, tsr_var x,
                                       const tsr_attention_inputs *inputs, tsr_var *y)
{
    static const tsr_attention_inputs plain = {0};
    const tsr_attention_inputs *in = inputs != NULL ? inputs : &plain;
    if (tape == NULL || layer == NULL || y == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "attention_layer: a null pointer was passed");
    const tsr_var source = in->source.id != 0 ? in->source : x;
    TSR_TRY(check_layer(tape, layer, x, "x"));
    TSR_TRY(check_layer(tape, layer, source, "source"));
    tsr_var q, k, v, out;
    TSR_TRY(tsr_linear_forward(tape, &layer->q, x, &q));
    TSR_TRY(tsr_linear_forward(tape, &layer->k, source, &k));
    TSR_TRY(tsr_linear_forward(tape, &layer->v, source, &v));
    TSR_TRY(split_heads(tape, layer->n_heads, layer->head_dim, &q));
    TSR_TRY(split_heads(tape, layer->n_kv_heads, layer->head_dim, &k));
    TSR_TRY(split_heads(tape, layer->n_kv_heads, layer->head_dim, &v));
    TSR_TRY(rotate(tape, layer, in, &q));
    TSR_TRY(rotate(tape, layer, in, &k));
    tsr_tape_attention_options options = options_of(layer, in);
    if (in->cache != NULL) TSR_TRY(through_cache(tape, in->cache, &k, &v, &options));
    TSR_TRY(tsr_tape_attention(tape, q, k, v, &options, &out));
    tsr_tape_release(tape, q);
    tsr_tape_release(tape, k);
    tsr_tape_release(tape, v);
    TSR_TRY(join_heads(tape, &out));
    TSR_TRY(tsr_linear_forward(tape, &layer->o, out, y));
    tsr_tape_release(tape, out);
    return TSR_OK;
}
