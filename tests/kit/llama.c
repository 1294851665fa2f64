/* tests/kit/llama.c - parameters by upload, the forward by layers */
#include "kit/llama.h"

#include <math.h>
#include <stdlib.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/tensor.h"
#include "kit/tensor.h"
#include "tessera/rope.h"
#include "tessera/tape_ops.h"

static tsr_tensor device_tensor(tsr_context *ctx, tsr_dtype dtype, int32_t rank, const int64_t *shape)
{
    tsr_tensor t;
    KIT_OK(tsr_tensor_allocate(ctx, dtype, rank, shape, &t));
    return t;
}

/* mean + spread * normal */
static void upload_normal(tsr_context *ctx, const tsr_tensor *t, double mean, double spread)
{
    const int64_t n = tsr_tensor_numel(t);
    const size_t nbytes = (size_t)n * tsr_dtype_nbytes(t->dtype);
    void *host = malloc(nbytes);
    assert_non_null(host);
    for (int64_t i = 0; i < n; i++)
        tsr_store_f64(host, t->dtype, i, mean + spread * tsr_random_normal(kit_random()));
    KIT_OK(tsr_upload(ctx, t->data, host, nbytes));
    free(host);
}

static tsr_parameter make(kit_llama *m, int wants_grad, double mean, double spread, int32_t rank, int64_t n0,
                          int64_t n1)
{
    const tsr_dtype dtype = m->sizes.dtype;
    const int64_t shape[] = {n0, n1};
    tsr_parameter p = {.value = device_tensor(m->ctx, dtype, rank, shape)};
    upload_normal(m->ctx, &p.value, mean, spread);
    if (wants_grad) {
        p.grad = device_tensor(m->ctx, dtype == TSR_F64 ? TSR_F64 : TSR_F32, rank, shape);
        KIT_OK(tsr_fill(m->ctx, 0, &p.grad));
    }
    m->parameters[m->n_parameters++] = p;
    return p;
}

static tsr_linear make_linear(kit_llama *m, int wants_grad, int64_t n_out, int64_t n_in)
{
    return (tsr_linear){.weight = make(m, wants_grad, 0, 1 / sqrt((double)n_in), 2, n_out, n_in)};
}

static tsr_norm make_norm(kit_llama *m, int wants_grad)
{
    return (tsr_norm){.weight = make(m, wants_grad, 1, 0.1, 1, m->sizes.dim, 0), .eps = 1e-5f};
}

void kit_llama_make(kit_llama *m, tsr_context *ctx, const kit_llama_sizes *s, int wants_grad)
{
    *m = (kit_llama){.ctx = ctx, .sizes = *s};
    const int64_t table[] = {s->n_positions, s->head_dim / 2};
    const tsr_dtype table_dtype = s->dtype == TSR_F64 ? TSR_F64 : TSR_F32;
    m->cos = device_tensor(ctx, table_dtype, 2, table);
    m->sin = device_tensor(ctx, table_dtype, 2, table);
    KIT_OK(tsr_rope_table(ctx, 10000, &m->cos, &m->sin));
    m->embedding = make(m, wants_grad, 0, 1, 2, s->vocabulary, s->dim);
    m->head = s->tied ? m->embedding : make(m, wants_grad, 0, 1, 2, s->vocabulary, s->dim);
    for (int64_t i = 0; i < s->n_layers; i++) {
        tsr_block *b = &m->blocks[i];
        tsr_attention_layer *a = &b->attention;
        b->attention_norm = make_norm(m, wants_grad);
        b->feed_forward_norm = make_norm(m, wants_grad);
        *a = (tsr_attention_layer){.n_heads = s->n_heads,
                                   .n_kv_heads = s->n_kv_heads,
                                   .head_dim = s->head_dim,
                                   .rope_cos = m->cos,
                                   .rope_sin = m->sin,
                                   .causal = 1};
        a->q = make_linear(m, wants_grad, s->n_heads * s->head_dim, s->dim);
        a->k = make_linear(m, wants_grad, s->n_kv_heads * s->head_dim, s->dim);
        a->v = make_linear(m, wants_grad, s->n_kv_heads * s->head_dim, s->dim);
        a->o = make_linear(m, wants_grad, s->dim, s->n_heads * s->head_dim);
        b->feed_forward.gate = make_linear(m, wants_grad, s->feed_forward, s->dim);
        b->feed_forward.up = make_linear(m, wants_grad, s->feed_forward, s->dim);
        b->feed_forward.down = make_linear(m, wants_grad, s->dim, s->feed_forward);
    }
    m->norm = make_norm(m, wants_grad);
}

void kit_llama_free(kit_llama *m)
{
    KIT_OK(tsr_synchronise(m->ctx));
    for (int32_t i = 0; i < m->n_parameters; i++) {
        KIT_OK(tsr_free(m->ctx, m->parameters[i].value.data));
        KIT_OK(tsr_free(m->ctx, m->parameters[i].grad.data));
    }
    KIT_OK(tsr_free(m->ctx, m->cos.data));
    KIT_OK(tsr_free(m->ctx, m->sin.data));
}

void kit_llama_clear_grads(const kit_llama *m)
{
    for (int32_t i = 0; i < m->n_parameters; i++) KIT_OK(tsr_fill(m->ctx, 0, &m->parameters[i].grad));
}

tsr_tensor kit_device_i32(tsr_context *ctx, const int32_t *values, int32_t rank, const int64_t *shape)
{
    const tsr_tensor t = device_tensor(ctx, TSR_I32, rank, shape);
    KIT_OK(tsr_upload(ctx, t.data, values, (size_t)tsr_tensor_numel(&t) * sizeof *values));
    return t;
}

tsr_tensor kit_device_ids(tsr_context *ctx, int64_t n, int32_t rank, const int64_t *shape)
{
    int32_t ids[1024];
    int64_t numel = 1;
    for (int32_t i = 0; i < rank; i++) numel *= shape[i];
    assert_true(numel <= 1024);
    for (int64_t i = 0; i < numel; i++) ids[i] = (int32_t)kit_between(0, n - 1);
    return kit_device_i32(ctx, ids, rank, shape);
}

double kit_device_get(tsr_context *ctx, const tsr_tensor *t, int64_t i)
{
    double element = 0;
    KIT_OK(tsr_download(ctx, &element, tsr_tensor_at(t, i), tsr_dtype_nbytes(t->dtype)));
    return tsr_load_f64(&element, t->dtype, 0);
}

void kit_device_set(tsr_context *ctx, const tsr_tensor *t, int64_t i, double value)
{
    double element = 0;
    tsr_store_f64(&element, t->dtype, 0, value);
    KIT_OK(tsr_upload(ctx, tsr_tensor_at(t, i), &element, tsr_dtype_nbytes(t->dtype)));
}

tsr_status kit_llama_hidden(const kit_llama *m, tsr_tape *tape, const tsr_tensor *ids,
                            const tsr_kv_cache *cache, tsr_var *hidden)
{
    tsr_var table, id, x, y;
    TSR_TRY(tsr_tape_parameter(tape, &m->embedding, &table));
    TSR_TRY(tsr_tape_input(tape, ids, &id));
    TSR_TRY(tsr_tape_embedding(tape, table, id, &x));
    for (int64_t i = 0; i < m->sizes.n_layers; i++) {
        tsr_kv_layer kv;
        tsr_attention_inputs in = {0};
        tsr_dropout dropout = m->dropout;
        dropout.offset += (uint32_t)(2 * i);
        if (cache != NULL) TSR_TRY(tsr_kv_cache_layer(cache, i, &kv));
        if (cache != NULL) in.cache = &kv;
        TSR_TRY(tsr_block_forward(tape, &m->blocks[i], x, &in, &dropout, &y));
        tsr_tape_release(tape, x);
        x = y;
    }
    TSR_TRY(tsr_norm_forward(tape, &m->norm, x, hidden));
    tsr_tape_release(tape, x);
    return TSR_OK;
}

tsr_status kit_llama_loss(const kit_llama *m, tsr_tape *tape, const tsr_tensor *ids,
                          const tsr_tensor *targets, tsr_var *loss)
{
    tsr_var hidden, head, target;
    TSR_TRY(kit_llama_hidden(m, tape, ids, NULL, &hidden));
    TSR_TRY(tsr_tape_parameter(tape, &m->head, &head));
    TSR_TRY(tsr_tape_input(tape, targets, &target));
    TSR_TRY(tsr_tape_linear_cross_entropy(tape, hidden, head, target, -100, loss));
    tsr_tape_release(tape, hidden);
    return TSR_OK;
}

static size_t lines(int64_t n, size_t nbytes) { return ((size_t)n * nbytes + 63) / 64 * 64; }

size_t kit_llama_saved_nbytes(const kit_llama_sizes *s, int64_t n)
{
    const size_t e = tsr_dtype_nbytes(s->dtype), w = s->dtype == TSR_F64 ? 8 : 4;
    const size_t block = 4 * lines(n * s->dim, e) + 2 * lines(n * s->n_heads * s->head_dim, e) +
                         2 * lines(n * s->n_kv_heads * s->head_dim, e) + 3 * lines(n * s->feed_forward, e) +
                         2 * lines(n, w) + lines(n * s->n_heads, w);
    const size_t end = 2 * lines(n * s->dim, e) + 2 * lines(n, w) + lines(1, w);
    return (size_t)s->n_layers * block + end;
}

size_t kit_llama_peak_nbytes(const kit_llama_sizes *s, int64_t n)
{
    const size_t e = tsr_dtype_nbytes(s->dtype), w = s->dtype == TSR_F64 ? 8 : 4;
    const size_t saved = kit_llama_saved_nbytes(s, n), row = lines(n * s->dim, e);
    const size_t at_loss = saved + row + lines(1, w);
    const size_t at_gated = saved - 2 * row - 2 * lines(n, w) + row + lines(n * s->feed_forward, e);
    return at_loss > at_gated ? at_loss : at_gated;
}
