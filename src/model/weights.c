/* model/weights.c - the plan of a Llama's parameters, and their first values */
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/random.h"
#include "model/weights_plan.h"
#include "tessera/elementwise.h"
#include "tessera/rope.h"

static const char *const part_names[TSR_LLAMA_LAYER_PARTS] = {
    [TSR_LLAMA_INPUT_NORM] = "input_layernorm", [TSR_LLAMA_Q] = "self_attn.q_proj",
    [TSR_LLAMA_K] = "self_attn.k_proj",         [TSR_LLAMA_V] = "self_attn.v_proj",
    [TSR_LLAMA_O] = "self_attn.o_proj",         [TSR_LLAMA_POST_NORM] = "post_attention_layernorm",
    [TSR_LLAMA_GATE] = "mlp.gate_proj",         [TSR_LLAMA_UP] = "mlp.up_proj",
    [TSR_LLAMA_DOWN] = "mlp.down_proj",
};

static tsr_weight make_weight(const char *name, int64_t rows, int64_t columns)
{
    tsr_weight w = {.rank = columns == 0 ? 1 : 2, .shape = {rows, columns}};
    snprintf(w.name, sizeof w.name, "%s.weight", name);
    return w;
}

static tsr_weight layer_weight(const tsr_llama_config *c, int64_t layer, tsr_llama_part part)
{
    const int64_t d = c->hidden_size, ffn = c->intermediate_size;
    const int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    const int64_t shapes[TSR_LLAMA_LAYER_PARTS][2] = {
        [TSR_LLAMA_INPUT_NORM] = {d, 0}, [TSR_LLAMA_Q] = {q, d},    [TSR_LLAMA_K] = {kv, d},
        [TSR_LLAMA_V] = {kv, d},         [TSR_LLAMA_O] = {d, q},    [TSR_LLAMA_POST_NORM] = {d, 0},
        [TSR_LLAMA_GATE] = {ffn, d},     [TSR_LLAMA_UP] = {ffn, d}, [TSR_LLAMA_DOWN] = {d, ffn},
    };
    char name[56];
    snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, part_names[part]);
    return make_weight(name, shapes[part][0], shapes[part][1]);
}

/* Places all weights of a rank behind what is there; false if the row does not fit 62 bits. */
static bool place(tsr_weights *w, int32_t rank)
{
    for (int32_t i = 0; i < w->n; i++) {
        tsr_weight *x = &w->list[i];
        if (x->rank != rank) continue;
        int64_t n = x->shape[0];
        if (rank == 2 && __builtin_mul_overflow(n, x->shape[1], &n)) return false;
        x->at = w->row_n;
        if (n > INT64_MAX / 16 - w->row_n) return false;
        w->row_n += (n + TSR_ALIGN - 1) / TSR_ALIGN * TSR_ALIGN; /* 64 elements: 64 bytes in every dtype */
    }
    return true;
}

tsr_status tsr_weights_plan(const tsr_llama_config *config, tsr_weights *out)
{
    tsr_weights w = {.config = *config};
    const int64_t layers = config->num_hidden_layers;
    w.n = (int32_t)(1 + layers * TSR_LLAMA_LAYER_PARTS + 1 + !config->tie_word_embeddings);
    w.list = calloc((size_t)w.n, sizeof *w.list);
    if (w.list == NULL) return tsr_fail(TSR_ERR_MEMORY, "model: out of memory");
    int32_t i = 0;
    w.list[i++] = make_weight("model.embed_tokens", config->vocab_size, config->hidden_size);
    for (int64_t layer = 0; layer < layers; layer++)
        for (int part = 0; part < TSR_LLAMA_LAYER_PARTS; part++)
            w.list[i++] = layer_weight(config, layer, (tsr_llama_part)part);
    w.list[i++] = make_weight("model.norm", config->hidden_size, 0);
    if (!config->tie_word_embeddings)
        w.list[i++] = make_weight("lm_head", config->vocab_size, config->hidden_size);
    bool fits = place(&w, 2);
    w.n_decayed = w.row_n;
    fits = fits && place(&w, 1);
    if (!fits) {
        free(w.list);
        return tsr_fail(TSR_ERR_OVERFLOW, "model: the number of parameters does not fit");
    }
    *out = w;
    return TSR_OK;
}

static tsr_status allocate(tsr_weights *w, bool with_grads)
{
    const int64_t row[1] = {w->row_n};
    const int64_t table[2] = {w->n_positions, w->config.head_dim / 2};
    TSR_TRY(tsr_tensor_allocate(w->ctx, w->dtype, 1, row, &w->values));
    TSR_TRY(tsr_fill(w->ctx, 0, &w->values));
    if (with_grads) {
        TSR_TRY(tsr_tensor_allocate(w->ctx, w->dtype == TSR_F64 ? TSR_F64 : TSR_F32, 1, row, &w->grads));
        TSR_TRY(tsr_fill(w->ctx, 0, &w->grads));
    }
    const tsr_dtype table_dtype = w->dtype == TSR_F64 ? TSR_F64 : TSR_F32;
    TSR_TRY(tsr_tensor_allocate(w->ctx, table_dtype, 2, table, &w->rope_cos));
    TSR_TRY(tsr_tensor_allocate(w->ctx, table_dtype, 2, table, &w->rope_sin));
    return tsr_rope_table(w->ctx, w->config.rope_theta, &w->rope_cos, &w->rope_sin);
}

tsr_status tsr_weights_create_for(tsr_context *ctx, const tsr_llama_config *config, tsr_dtype dtype,
                                  bool with_grads, int64_t n_positions, tsr_weights *out)
{
    tsr_weights w;
    TSR_TRY(tsr_weights_plan(config, &w));
    w.ctx = ctx;
    w.dtype = dtype;
    w.n_positions = n_positions;
    const tsr_status status = allocate(&w, with_grads);
    if (status != TSR_OK) {
        tsr_weights_free(&w);
        return status;
    }
    *out = w;
    return TSR_OK;
}

tsr_status tsr_weights_create(tsr_context *ctx, const tsr_llama_config *config, tsr_dtype dtype,
                              bool with_grads, tsr_weights *out)
{
    return tsr_weights_create_for(ctx, config, dtype, with_grads, config->max_position_embeddings, out);
}

void tsr_weights_free(tsr_weights *w)
{
    if (w->ctx != NULL) {
        tsr_synchronise(w->ctx); /* a queueing device may still have work on them */
        tsr_free(w->ctx, w->values.data);
        tsr_free(w->ctx, w->grads.data);
        tsr_free(w->ctx, w->rope_cos.data);
        tsr_free(w->ctx, w->rope_sin.data);
    }
    free(w->list);
    *w = (tsr_weights){0};
}

int64_t tsr_weights_numel(const tsr_weights *w)
{
    int64_t n = 0;
    for (int32_t i = 0; i < w->n; i++)
        n += w->list[i].shape[0] * (w->list[i].rank == 2 ? w->list[i].shape[1] : 1);
    return n;
}

tsr_tensor tsr_weight_view(const tsr_weight *weight, const tsr_tensor *row)
{
    tsr_tensor t = *row;
    t.data = (char *)row->data + weight->at * (int64_t)tsr_dtype_nbytes(row->dtype);
    t.rank = weight->rank;
    t.shape[0] = weight->shape[0], t.shape[1] = weight->shape[1];
    t.stride[0] = weight->rank == 2 ? weight->shape[1] : 1, t.stride[1] = 1;
    return t;
}

static tsr_parameter parameter_of(const tsr_weights *w, int32_t i)
{
    tsr_parameter p = {.value = tsr_weight_view(&w->list[i], &w->values)};
    if (w->grads.data != NULL) p.grad = tsr_weight_view(&w->list[i], &w->grads);
    return p;
}

tsr_parameter tsr_weights_embedding(const tsr_weights *w) { return parameter_of(w, 0); }

tsr_parameter tsr_weights_layer(const tsr_weights *w, int64_t layer, tsr_llama_part part)
{
    return parameter_of(w, (int32_t)(1 + layer * TSR_LLAMA_LAYER_PARTS + part));
}

tsr_parameter tsr_weights_norm(const tsr_weights *w)
{
    return parameter_of(w, (int32_t)(1 + w->config.num_hidden_layers * TSR_LLAMA_LAYER_PARTS));
}

tsr_parameter tsr_weights_head(const tsr_weights *w)
{
    return w->config.tie_word_embeddings ? tsr_weights_embedding(w) : parameter_of(w, w->n - 1);
}

/* o_proj and down_proj write to the residual stream, which 2 of them per layer add up in. */
static double deviation_of(const tsr_weights *w, int32_t i)
{
    const int32_t part = (i - 1) % TSR_LLAMA_LAYER_PARTS;
    const bool in_layer = i >= 1 && i <= w->config.num_hidden_layers * TSR_LLAMA_LAYER_PARTS;
    const bool residual = in_layer && (part == TSR_LLAMA_O || part == TSR_LLAMA_DOWN);
    return residual ? 0.02 / sqrt(2.0 * (double)w->config.num_hidden_layers) : 0.02;
}

tsr_status tsr_weights_init(tsr_weights *w, uint64_t seed)
{
    const size_t nbytes = (size_t)w->row_n * tsr_dtype_nbytes(w->dtype);
    void *host = calloc(nbytes, 1);
    if (host == NULL) return tsr_fail(TSR_ERR_MEMORY, "model: out of memory for %zu bytes", nbytes);
    for (int32_t i = 0; i < w->n; i++) {
        const tsr_weight *x = &w->list[i];
        tsr_random random = {.seed = seed, .stream = (uint32_t)i};
        const double deviation = deviation_of(w, i);
        const int64_t n = x->shape[0] * (x->rank == 2 ? x->shape[1] : 1);
        for (int64_t j = 0; j < n; j++)
            tsr_store_f64(host, w->dtype, x->at + j,
                          x->rank == 1 ? 1 : deviation * tsr_random_normal(&random));
    }
    const tsr_status status = tsr_upload(w->ctx, w->values.data, host, nbytes);
    free(host);
    return status;
}
