/* tests/kit/attention.c - random cases of attention */
#include "kit/attention.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/isa.h"

const char *const kit_attention_result_names[KIT_ATTENTION_RESULTS] = {"out", "lse",   "dq",    "dk",
                                                                       "dv",  "dbias", "dsinks"};

const tsr_tensor *kit_attention_result_at(const kit_attention_result *r, int i)
{
    const tsr_tensor *const all[] = {&r->out, &r->lse, &r->dq, &r->dk, &r->dv, &r->dbias, &r->dsinks};
    return all[i];
}

/* --- random cases --- */

static int64_t any_of(const int64_t *values, int64_t n) { return values[kit_between(0, n - 1)]; }

static void choose_heads(kit_attention *c)
{
    static const int64_t widths[] = {1, 3, 8, 16, 33, 64, 80};
    c->b = kit_between(1, 3), c->hkv = kit_between(1, 2), c->hq = c->hkv * kit_between(1, 3);
    if (c->lq * c->lk > 20000) c->b = c->hkv = 1, c->hq = kit_between(1, 2);
    c->d = any_of(widths, 7), c->dv = kit_one_in(2) ? c->d : any_of(widths, 7);
}

static bool is_large(const kit_attention *c)
{
    return c->b * c->hq * c->lq * c->lk * (c->d + c->dv + 16) > 4000000;
}

/* Few queries, keys around the lengths of a tile and of a chunk. */
static void choose_sizes_of_decoding(kit_attention *c)
{
    static const int64_t lq[] = {1, 1, 2, 3, 16, 17}, lk[] = {0, 1, 3, 63, 64, 65, 511, 512, 513, 1025};
    do {
        c->lq = any_of(lq, 6), c->lk = any_of(lk, 10);
        choose_heads(c);
    } while (is_large(c));
}

static void choose_sizes(kit_attention *c)
{
    static const int64_t lengths[] = {0, 1, 3, 17, 113, 239, 256, 257, 600};
    do {
        c->lq = any_of(lengths, 9), c->lk = any_of(lengths, 9);
        if (kit_one_in(2)) c->lk = c->lq;
        choose_heads(c);
    } while (is_large(c));
}

static tsr_tensor any_normal(tsr_dtype dtype, int32_t rank, const int64_t *shape)
{
    return kit_normal(kit_new(dtype, kit_any_output(), rank, shape));
}

/* 1 or all of each extent; a row-major view may still broadcast by strides of 0. */
static void broadcast_shape(const kit_attention *c, int64_t shape[4])
{
    const int64_t full[4] = {c->b, c->hq, c->lq, c->lk};
    const bool whole = kit_one_in(2);
    for (int i = 0; i < 4; i++) shape[i] = whole || kit_one_in(2) ? full[i] : 1;
}

static void choose_mask(kit_attention *c)
{
    int64_t shape[4];
    broadcast_shape(c, shape);
    c->mask = kit_constant(kit_new(TSR_BOOL, kit_any_output(), 4, shape), 1);
    const int64_t n = tsr_tensor_numel(&c->mask), cut = kit_between(0, shape[3]);
    const bool prefix = kit_one_in(3); /* whole tiles hidden */
    for (int64_t i = 0; i < n; i++) {
        const bool hidden = prefix ? i % shape[3] < cut : kit_one_in(3) || i / shape[3] % 5 == 3;
        if (hidden) kit_set(&c->mask, i, 0);
    }
}

static void choose_lengths(kit_attention *c)
{
    c->seqlens_q = kit_integers(kit_new(TSR_I32, KIT_GAPS, 1, &c->b), 0, c->lq);
    c->seqlens_k = kit_integers(kit_new(TSR_I32, KIT_ROWS, 1, &c->b), 0, c->lk);
    if (kit_one_in(4))
        c->seqlens_q.data = NULL;
    else if (kit_one_in(4))
        c->seqlens_k.data = NULL;
}

static void choose_features(kit_attention *c)
{
    tsr_attention_options *o = &c->options;
    if (kit_one_in(3)) o->window = (tsr_attention_window){1, kit_between(-1, 90), kit_between(-1, 90)};
    if (kit_one_in(4)) o->softcap = (float)kit_between(1, 5);
    if (kit_one_in(4)) o->dropout_p = 0.25f, o->dropout_seed = 0x123456789abu, o->dropout_offset = 7;
    if (kit_one_in(4)) c->alibi = kit_uniform(kit_new(TSR_F32, KIT_GAPS, 1, &c->hq), 0, 0.5);
    if (kit_one_in(4)) c->sinks = any_normal(TSR_F32, 1, &c->hq);
    if (kit_one_in(3)) {
        int64_t shape[4];
        broadcast_shape(c, shape);
        c->bias = any_normal(kit_one_in(2) ? TSR_F32 : c->dtype, 4, shape);
        for (int i = 0; i < 4; i++) c->dbias_shape[i] = shape[i];
    }
    if (kit_one_in(3)) choose_mask(c);
    if (kit_one_in(3)) choose_lengths(c);
}

kit_attention kit_attention_of_sizes(bool plain_only, void (*choose)(kit_attention *))
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_F32, TSR_BF16, TSR_F16};
    kit_attention c = {.dtype = dtypes[kit_between(0, 3)]};
    c.grad_dtype = kit_one_in(2) ? c.dtype : TSR_F32;
    choose(&c);
    c.q = any_normal(c.dtype, 4, (int64_t[]){c.b, c.hq, c.lq, c.d});
    c.k = any_normal(c.dtype, 4, (int64_t[]){c.b, c.hkv, c.lk, c.d});
    c.v = any_normal(c.dtype, 4, (int64_t[]){c.b, c.hkv, c.lk, c.dv});
    c.dout = any_normal(c.dtype, 4, (int64_t[]){c.b, c.hq, c.lq, c.dv});
    if (kit_one_in(2)) c.dlse = any_normal(TSR_F32, 3, (int64_t[]){c.b, c.hq, c.lq});
    /* Large scores make the running maximum rise by more than it may lag behind. */
    if (kit_one_in(3)) c.options.scale = (float)(kit_one_in(2) ? 8 : -8) / sqrtf((float)c.d);
    c.options.causal = kit_one_in(3);
    if (!plain_only) choose_features(&c);
    return c;
}

kit_attention kit_attention_random(bool plain_only)
{
    return kit_attention_of_sizes(plain_only, kit_one_in(2) ? choose_sizes : choose_sizes_of_decoding);
}

kit_attention kit_attention_decoding(bool plain_only)
{
    return kit_attention_of_sizes(plain_only, choose_sizes_of_decoding);
}

static tsr_tensor f64_of(const tsr_tensor *t) { return t->data != NULL ? kit_f64(t) : *t; }

kit_attention kit_attention_f64(const kit_attention *c)
{
    kit_attention r = *c;
    r.dtype = r.grad_dtype = TSR_F64;
    r.q = f64_of(&c->q), r.k = f64_of(&c->k), r.v = f64_of(&c->v);
    r.dout = f64_of(&c->dout), r.dlse = f64_of(&c->dlse);
    r.alibi = f64_of(&c->alibi), r.bias = f64_of(&c->bias), r.sinks = f64_of(&c->sinks);
    return r;
}

/* --- cases from cases --- */

static tsr_tensor part_of(const tsr_tensor *t, int32_t dim, int64_t start, int64_t length)
{
    if (t->data == NULL || (t->rank == 4 && t->shape[dim] == 1 && length == 1)) return *t;
    return tsr_tensor_slice(t, dim, start, length);
}

kit_attention kit_attention_sequence(const kit_attention *c, int64_t b)
{
    kit_attention r = *c;
    r.b = 1;
    tsr_tensor *const batched[] = {&r.q,    &r.k,    &r.v,         &r.dout,     &r.dlse,
                                   &r.bias, &r.mask, &r.seqlens_q, &r.seqlens_k};
    for (size_t i = 0; i < sizeof batched / sizeof *batched; i++) *batched[i] = part_of(batched[i], 0, b, 1);
    r.dbias_shape[0] = 1;
    return r;
}

kit_attention kit_attention_last_queries(const kit_attention *c, int64_t n)
{
    kit_attention r = *c;
    r.lq = n;
    tsr_tensor *const rows[] = {&r.q, &r.dout, &r.dlse, &r.bias, &r.mask};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i]->data != NULL && (rows[i]->shape[2] == c->lq))
            *rows[i] = tsr_tensor_slice(rows[i], 2, c->lq - n, n);
    if (r.dbias_shape[2] == c->lq) r.dbias_shape[2] = n;
    return r;
}

static tsr_tensor starts_of(const kit_attention *c, int64_t (*length)(const kit_attention *, int64_t),
                            int64_t *total)
{
    const tsr_tensor t = KIT_NEW(TSR_I32, KIT_ROWS, c->b + 1);
    *total = 0;
    for (int64_t b = 0; b <= c->b; b++) {
        kit_set(&t, b, (double)*total);
        if (b < c->b) *total += length(c, b);
    }
    return t;
}

/* [b, h, rows, n] with lengths to [total, h, n]; rank 3 [b, h, rows] to [h, total]. */
static tsr_tensor packed_of(const tsr_tensor *t, const tsr_tensor *starts, int64_t total)
{
    if (t->data == NULL) return *t;
    const int64_t h = t->shape[1], n = t->rank == 4 ? t->shape[3] : 1;
    const tsr_tensor r = t->rank == 4 ? KIT_NEW(t->dtype, kit_any_output(), total, h, n)
                                      : KIT_NEW(t->dtype, kit_any_output(), h, total);
    for (int64_t b = 0; b + 1 < starts->shape[0]; b++) {
        const int64_t first = (int64_t)kit_get(starts, b), end = (int64_t)kit_get(starts, b + 1);
        for (int64_t i = first; i < end; i++)
            for (int64_t j = 0; j < h * n; j++) {
                const int64_t head = j / n, from = ((b * h + head) * t->shape[2] + i - first) * n + j % n;
                kit_set(&r, t->rank == 4 ? (i * h + head) * n + j % n : head * total + i, kit_get(t, from));
            }
    }
    return r;
}

kit_attention kit_attention_packed(const kit_attention *c)
{
    kit_attention r = *c;
    int64_t total_q, total_k;
    r.cu_seqlens_q = starts_of(c, kit_attention_lq, &total_q);
    r.cu_seqlens_k = starts_of(c, kit_attention_lk, &total_k);
    r.seqlens_q.data = r.seqlens_k.data = NULL;
    r.q = packed_of(&c->q, &r.cu_seqlens_q, total_q);
    r.dout = packed_of(&c->dout, &r.cu_seqlens_q, total_q);
    r.dlse = packed_of(&c->dlse, &r.cu_seqlens_q, total_q);
    r.k = packed_of(&c->k, &r.cu_seqlens_k, total_k);
    r.v = packed_of(&c->v, &r.cu_seqlens_k, total_k);
    r.options.max_lq = c->lq, r.options.max_lk = c->lk;
    return r;
}

kit_attention_result kit_attention_result_packed(const kit_attention *packed,
                                                 const kit_attention_result *padded)
{
    kit_attention_result r = *padded;
    const tsr_tensor *q = &packed->cu_seqlens_q, *k = &packed->cu_seqlens_k;
    const int64_t total_q = packed->q.shape[0], total_k = packed->k.shape[0];
    r.out = packed_of(&r.out, q, total_q), r.lse = packed_of(&r.lse, q, total_q);
    r.dq = packed_of(&r.dq, q, total_q);
    r.dk = packed_of(&r.dk, k, total_k), r.dv = packed_of(&r.dv, k, total_k);
    return r;
}

kit_attention_result kit_attention_result_sequence(const kit_attention_result *r, int64_t b)
{
    kit_attention_result s = *r;
    s.dbias.data = s.dsinks.data = NULL; /* they may sum over sequences */
    tsr_tensor *const all[] = {&s.out, &s.lse, &s.dq, &s.dk, &s.dv};
    for (int i = 0; i < 5; i++) *all[i] = tsr_tensor_slice(all[i], 0, b, 1);
    return s;
}

kit_attention_result kit_attention_result_last_queries(const kit_attention_result *r, int64_t n)
{
    kit_attention_result s = {.out = r->out, .lse = r->lse, .dq = r->dq};
    tsr_tensor *const all[] = {&s.out, &s.lse, &s.dq};
    for (int i = 0; i < 3; i++) *all[i] = tsr_tensor_slice(all[i], 2, r->out.shape[2] - n, n);
    return s;
}

/* --- who sees whom --- */

int64_t kit_attention_lq(const kit_attention *c, int64_t b)
{
    return c->seqlens_q.data != NULL ? (int64_t)kit_get(&c->seqlens_q, b) : c->lq;
}
int64_t kit_attention_lk(const kit_attention *c, int64_t b)
{
    return c->seqlens_k.data != NULL ? (int64_t)kit_get(&c->seqlens_k, b) : c->lk;
}

/* Index of (b, h, i, j) in a tensor whose extents are full or 1. */
static int64_t entry(const tsr_tensor *t, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const int64_t at[4] = {b, h, i, j};
    int64_t index = 0;
    for (int d = 0; d < 4; d++) index = index * t->shape[d] + (t->shape[d] == 1 ? 0 : at[d]);
    return index;
}

bool kit_attention_sees(const kit_attention *c, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const int64_t lq = kit_attention_lq(c, b), lk = kit_attention_lk(c, b), ahead = j - (i + lk - lq);
    const tsr_attention_window *w = &c->options.window;
    if (i >= lq || j >= lk || (c->options.causal && ahead > 0)) return false;
    if (w->on && ((w->left >= 0 && ahead < -w->left) || (w->right >= 0 && ahead > w->right))) return false;
    return c->mask.data == NULL || kit_get(&c->mask, entry(&c->mask, b, h, i, j)) != 0;
}

static bool key_is_seen(const kit_attention *c, int64_t b, int64_t h_kv, int64_t j)
{
    const int64_t group = c->hq / c->hkv;
    for (int64_t h = h_kv * group; h < (h_kv + 1) * group; h++)
        for (int64_t i = 0; i < c->lq; i++)
            if (kit_attention_sees(c, b, h, i, j)) return true;
    return false;
}

static bool query_sees(const kit_attention *c, int64_t b, int64_t h, int64_t i)
{
    for (int64_t j = 0; j < c->lk; j++)
        if (kit_attention_sees(c, b, h, i, j)) return true;
    return false;
}

static void poison(const tsr_tensor *t, int64_t index)
{
    kit_set(t, index, kit_one_in(2) ? NAN : kit_one_in(2) ? INFINITY : -INFINITY);
}

static void poison_row(const tsr_tensor *t, int64_t row)
{
    const int64_t n = t->shape[3];
    for (int64_t j = 0; j < n; j++) poison(t, row * n + j);
}

/* A row of int8 is worth its scale. */
static void poison_key(const tsr_tensor *t, const tsr_tensor *scale, int64_t row)
{
    if (scale->data != NULL)
        poison(scale, row);
    else
        poison_row(t, row);
}

void kit_attention_poison_hidden(const kit_attention *c)
{
    for (int64_t r = 0; r < c->b * c->hkv * c->lk; r++) {
        if (key_is_seen(c, r / c->lk / c->hkv, r / c->lk % c->hkv, r % c->lk)) continue;
        poison_key(&c->k, &c->k_scale, r);
        poison_key(&c->v, &c->v_scale, r);
    }
    for (int64_t r = 0; r < c->b * c->hq * c->lq; r++) {
        const int64_t b = r / c->lq / c->hq, h = r / c->lq % c->hq, i = r % c->lq;
        if (!query_sees(c, b, h, i)) {
            poison_row(&c->q, r);
            poison_row(&c->dout, r);
        }
        if (c->bias.data == NULL || tsr_tensor_numel(&c->bias) != c->b * c->hq * c->lq * c->lk) continue;
        for (int64_t j = 0; j < c->lk; j++)
            if (!kit_attention_sees(c, b, h, i, j)) kit_set(&c->bias, entry(&c->bias, b, h, i, j), NAN);
    }
}

/* --- runs --- */

static const tsr_tensor *given(const tsr_tensor *t) { return t->data != NULL ? t : NULL; }

static tsr_attention_options options_of(const kit_attention *c)
{
    tsr_attention_options o = c->options;
    o.alibi = given(&c->alibi), o.bias = given(&c->bias), o.mask = given(&c->mask),
    o.sinks = given(&c->sinks);
    o.seqlens_q = given(&c->seqlens_q), o.seqlens_k = given(&c->seqlens_k);
    o.cu_seqlens_q = given(&c->cu_seqlens_q), o.cu_seqlens_k = given(&c->cu_seqlens_k);
    o.block_table = given(&c->block_table);
    o.k_scale = given(&c->k_scale), o.v_scale = given(&c->v_scale);
    return o;
}

/* A gradient to be written, if it is wanted. */
static const tsr_tensor *gradient(const kit_attention *c, kit_attention_result *r, int i, tsr_tensor like,
                                  tsr_dtype dtype)
{
    tsr_tensor *const to = (tsr_tensor *)kit_attention_result_at(r, i);
    if (c->unwanted >> i & 1) return NULL;
    *to = kit_like(&like, dtype, kit_any_output());
    return to;
}

kit_attention_result kit_attention_run(tsr_context *ctx, const kit_attention *c, kit_attention_form form)
{
    const tsr_attention_options o = options_of(c);
    const tsr_dtype wide = c->dtype == TSR_F64 ? TSR_F64 : TSR_F32;
    kit_attention_result r = {.out = kit_like(&c->dout, c->dtype, kit_any_output()),
                              .rounds = c->dtype == TSR_BF16 && form == KIT_FUSED &&
                                        kit_multiplies_bf16(ctx)};
    r.lse = c->q.rank == 4 ? KIT_NEW(wide, kit_any_output(), c->b, c->hq, c->lq)
                           : KIT_NEW(wide, kit_any_output(), c->hq, c->q.shape[0]);
    KIT_OK((form == KIT_FUSED ? tsr_attention_fwd : tsr_attention_unfused_fwd)(ctx, &c->q, &c->k, &c->v,
                                                                               &r.out, &r.lse, &o, NULL));
    if (c->unwanted >> 1 & 1) KIT_OK(tsr_attention_fwd(ctx, &c->q, &c->k, &c->v, &r.out, NULL, &o, NULL));
    if (o.block_table != NULL || o.k_scale != NULL) return r;
    tsr_tensor bias = {.rank = 4};
    for (int i = 0; i < 4; i++) bias.shape[i] = c->dbias_shape[i];
    const tsr_attention_grads grads = {
        .dq = gradient(c, &r, 2, c->q, c->grad_dtype),
        .dk = gradient(c, &r, 3, c->k, c->grad_dtype),
        .dv = gradient(c, &r, 4, c->v, c->grad_dtype),
        .dbias = o.bias != NULL ? gradient(c, &r, 5, bias, wide) : NULL,
        .dsinks = o.sinks != NULL ? gradient(c, &r, 6, c->sinks, wide) : NULL,
    };
    const tsr_attention_saved saved = {
        .out = &r.out, .lse = &r.lse, .dout = &c->dout, .dlse = given(&c->dlse)};
    KIT_OK((form == KIT_FUSED ? tsr_attention_bwd : tsr_attention_unfused_bwd)(ctx, &c->q, &c->k, &c->v,
                                                                               &saved, &grads, &o, NULL));
    return r;
}

kit_attention_line kit_attention_describe(const kit_attention *c)
{
    const tsr_attention_options *o = &c->options;
    kit_attention_line line;
    snprintf(line.text, sizeof line.text,
             "b %d hq %d hkv %d lq %d lk %d d %d dv %d %s scale %g%s window %d,%d,%d cap %g dropout "
             "%g%s%s%s%s%s%s%s",
             (int)c->b, (int)c->hq, (int)c->hkv, (int)c->lq, (int)c->lk, (int)c->d, (int)c->dv,
             tsr_dtype_name(c->dtype), (double)o->scale, o->causal ? " causal" : "", o->window.on,
             (int)o->window.left, (int)o->window.right, (double)o->softcap, (double)o->dropout_p,
             c->dlse.data ? " dlse" : "", c->alibi.data ? " alibi" : "", c->bias.data ? " bias" : "",
             c->mask.data ? " mask" : "", c->sinks.data ? " sinks" : "",
             c->seqlens_q.data ? " seqlens_q" : "", c->seqlens_k.data ? " seqlens_k" : "");
    return line;
}
