/* model/llama.c - blocks in a row, with a loss or with the next token's logits at the end */
#include "model/llama.h"

#include "base/error.h"
#include "tessera/tape_ops.h"

static tsr_linear linear_of(const tsr_weights *w, int64_t layer, tsr_llama_part part)
{
    return (tsr_linear){.weight = tsr_weights_layer(w, layer, part)};
}

static tsr_norm norm_of(const tsr_weights *w, tsr_parameter weight)
{
    return (tsr_norm){.weight = weight, .eps = (float)w->config.rms_norm_eps};
}

static tsr_block block_of(const tsr_weights *w, int64_t layer)
{
    const tsr_llama_config *c = &w->config;
    return (tsr_block){
        .attention_norm = norm_of(w, tsr_weights_layer(w, layer, TSR_LLAMA_INPUT_NORM)),
        .attention = {.q = linear_of(w, layer, TSR_LLAMA_Q),
                      .k = linear_of(w, layer, TSR_LLAMA_K),
                      .v = linear_of(w, layer, TSR_LLAMA_V),
                      .o = linear_of(w, layer, TSR_LLAMA_O),
                      .n_heads = c->num_attention_heads,
                      .n_kv_heads = c->num_key_value_heads,
                      .head_dim = c->head_dim,
                      .rope_cos = w->rope_cos,
                      .rope_sin = w->rope_sin,
                      .causal = 1},
        .feed_forward_norm = norm_of(w, tsr_weights_layer(w, layer, TSR_LLAMA_POST_NORM)),
        .feed_forward = {.gate = linear_of(w, layer, TSR_LLAMA_GATE),
                         .up = linear_of(w, layer, TSR_LLAMA_UP),
                         .down = linear_of(w, layer, TSR_LLAMA_DOWN)},
    };
}

static tsr_status embed(const tsr_weights *w, tsr_tape *tape, const tsr_tensor *ids, tsr_var *x)
{
    const tsr_parameter embedding = tsr_weights_embedding(w);
    tsr_var table, id_var;
    TSR_TRY(tsr_tape_parameter(tape, &embedding, &table));
    TSR_TRY(tsr_tape_input(tape, ids, &id_var));
    return tsr_tape_embedding(tape, table, id_var, x);
}

/* All blocks; each step's cache rows, or none. x is released. */
static tsr_status run_blocks(const tsr_weights *w, tsr_tape *tape, tsr_kv_cache *cache,
                             const tsr_dropout *residual_dropout, tsr_var *x)
{
    for (int64_t layer = 0; layer < w->config.num_hidden_layers; layer++) {
        const tsr_block block = block_of(w, layer);
        tsr_kv_layer rows;
        tsr_attention_inputs inputs = {0};
        if (cache != NULL) {
            TSR_TRY(tsr_kv_cache_layer(cache, layer, &rows));
            inputs.cache = &rows;
        }
        tsr_dropout dropout = {0};
        if (residual_dropout != NULL) {
            dropout = *residual_dropout;
            dropout.offset += (uint32_t)(2 * layer);
        }
        tsr_var y;
        TSR_TRY(tsr_block_forward(tape, &block, *x, &inputs, &dropout, &y));
        tsr_tape_release(tape, *x);
        *x = y;
    }
    return TSR_OK;
}

static tsr_status final_norm(const tsr_weights *w, tsr_tape *tape, tsr_var *x)
{
    const tsr_norm norm = norm_of(w, tsr_weights_norm(w));
    tsr_var y;
    TSR_TRY(tsr_norm_forward(tape, &norm, *x, &y));
    tsr_tape_release(tape, *x);
    *x = y;
    return TSR_OK;
}

tsr_status tsr_llama_loss(const tsr_weights *w, tsr_tape *tape, const tsr_tensor *ids,
                          const tsr_tensor *targets, int32_t ignore_index,
                          const tsr_dropout *residual_dropout, tsr_var *loss)
{
    const tsr_parameter head = tsr_weights_head(w);
    tsr_var x, head_var, target_var;
    TSR_TRY(embed(w, tape, ids, &x));
    TSR_TRY(run_blocks(w, tape, NULL, residual_dropout, &x));
    TSR_TRY(final_norm(w, tape, &x));
    TSR_TRY(tsr_tape_parameter(tape, &head, &head_var));
    TSR_TRY(tsr_tape_input(tape, targets, &target_var));
    TSR_TRY(tsr_tape_linear_cross_entropy(tape, x, head_var, target_var, ignore_index, loss));
    tsr_tape_release(tape, x);
    return TSR_OK;
}

tsr_status tsr_llama_cache_create(const tsr_weights *w, int64_t batch, int64_t capacity, tsr_kv_cache **out)
{
    const tsr_llama_config *c = &w->config;
    if (capacity > w->n_positions)
        return tsr_fail(TSR_ERR_ARGUMENT, "cache: capacity is %lld, the model reads at most %lld tokens",
                        (long long)capacity, (long long)w->n_positions);
    const tsr_kv_cache_options options = {.n_layers = c->num_hidden_layers,
                                          .batch = batch,
                                          .n_kv_heads = c->num_key_value_heads,
                                          .capacity = capacity,
                                          .head_dim = c->head_dim,
                                          .dtype = w->dtype};
    return tsr_kv_cache_create(w->ctx, &options, out);
}

/* The vocabulary projection for the last position only: [batch, n, dim] -> [batch, vocab] f32. */
static tsr_status last_logits(const tsr_weights *w, tsr_tape *tape, tsr_var x, int64_t n, tsr_var *out)
{
    const tsr_parameter head = tsr_weights_head(w);
    tsr_var last, head_var, logits;
    TSR_TRY(tsr_tape_slice(tape, x, 1, n - 1, 1, &last));
    TSR_TRY(final_norm(w, tape, &last));
    TSR_TRY(tsr_tape_parameter(tape, &head, &head_var));
    TSR_TRY(tsr_tape_linear(tape, last, head_var, (tsr_var){0}, &logits));
    return tsr_tape_copy(tape, logits, TSR_F32, out);
}

static tsr_status read_tokens(const tsr_weights *w, tsr_tape *tape, tsr_kv_cache *cache,
                              const tsr_tensor *ids, float *logits)
{
    tsr_var x, out;
    tsr_tensor value;
    TSR_TRY(embed(w, tape, ids, &x));
    TSR_TRY(run_blocks(w, tape, cache, NULL, &x));
    TSR_TRY(last_logits(w, tape, x, ids->shape[1], &out));
    TSR_TRY(tsr_tape_value(tape, out, &value));
    return tsr_download(w->ctx, logits, value.data, (size_t)tsr_tensor_numel(&value) * sizeof *logits);
}

tsr_status tsr_llama_read(const tsr_weights *w, tsr_tape *tape, tsr_kv_cache *cache, int64_t batch,
                          const int32_t *ids, int64_t n, float *logits)
{
    if (n < 1) return tsr_fail(TSR_ERR_ARGUMENT, "read: no tokens");
    tsr_tensor device_ids;
    TSR_TRY(tsr_tensor_allocate(w->ctx, TSR_I32, 2, (const int64_t[]){batch, n}, &device_ids));
    tsr_status status = tsr_upload(w->ctx, device_ids.data, ids, (size_t)(batch * n) * sizeof *ids);
    if (status == TSR_OK) status = tsr_kv_cache_extend(cache, n, NULL);
    if (status == TSR_OK) status = read_tokens(w, tape, cache, &device_ids, logits);
    const tsr_status reset = tsr_tape_reset(tape);
    tsr_free(w->ctx, device_ids.data);
    return status != TSR_OK ? status : reset;
}
