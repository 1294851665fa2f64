/* tape/ops_attention.c - attention and the key-value cache on variables; backward reads q k v out lse */
#include "tape/ops.h"
#include "tessera/attention.h"
#include "tessera/kv_cache.h"

enum {
    ATTN_Q,
    ATTN_K,
    ATTN_V,
    ATTN_ALIBI,
    ATTN_BIAS,
    ATTN_MASK,
    ATTN_SINKS,
    ATTN_SEQLENS_Q,
    ATTN_SEQLENS_K,
    ATTN_CU_SEQLENS_Q,
    ATTN_CU_SEQLENS_K,
    ATTN_N_IN
};
enum { ATTN_OUT, ATTN_LSE };

static tsr_attention_options options_of(const tsr_tape_io *io)
{
    const tsr_tape_attention_options *o = io->options;
    return (tsr_attention_options){
        .scale = o->scale,
        .causal = o->causal,
        .window = {.on = o->window_on, .left = o->window_left, .right = o->window_right},
        .softcap = o->softcap,
        .alibi = tsr_given(&io->in[ATTN_ALIBI]),
        .bias = tsr_given(&io->in[ATTN_BIAS]),
        .mask = tsr_given(&io->in[ATTN_MASK]),
        .sinks = tsr_given(&io->in[ATTN_SINKS]),
        .dropout_p = o->dropout.p,
        .dropout_seed = o->dropout.seed,
        .dropout_offset = o->dropout.offset,
        .seqlens_q = tsr_given(&io->in[ATTN_SEQLENS_Q]),
        .seqlens_k = tsr_given(&io->in[ATTN_SEQLENS_K]),
        .cu_seqlens_q = tsr_given(&io->in[ATTN_CU_SEQLENS_Q]),
        .cu_seqlens_k = tsr_given(&io->in[ATTN_CU_SEQLENS_K]),
        .max_lq = o->max_lq,
        .max_lk = o->max_lk,
    };
}

static tsr_status attention_forward(const tsr_tape_io *io)
{
    const tsr_attention_options options = options_of(io);
    return tsr_attention_fwd(io->ctx, &io->in[ATTN_Q], &io->in[ATTN_K], &io->in[ATTN_V], &io->out[ATTN_OUT],
                             &io->out[ATTN_LSE], &options, NULL);
}

static tsr_status attention_backward(const tsr_tape_io *io)
{
    const tsr_attention_options options = options_of(io);
    const tsr_attention_saved saved = {
        .out = &io->out[ATTN_OUT], .lse = &io->out[ATTN_LSE], .dout = &io->dout[ATTN_OUT]};
    const tsr_attention_grads grads = {.dq = tsr_given(&io->din[ATTN_Q]),
                                       .dk = tsr_given(&io->din[ATTN_K]),
                                       .dv = tsr_given(&io->din[ATTN_V]),
                                       .dbias = tsr_given(&io->din[ATTN_BIAS]),
                                       .dsinks = tsr_given(&io->din[ATTN_SINKS])};
    return tsr_attention_bwd(io->ctx, &io->in[ATTN_Q], &io->in[ATTN_K], &io->in[ATTN_V], &saved, &grads,
                             &options, NULL);
}

#define READS .reads_in = TSR_READS(ATTN_N_IN) - 1, .reads_out = TSR_READS(ATTN_OUT) | TSR_READS(ATTN_LSE)

static const tsr_tape_op attention_op = {
    .name = "attention",
    .forward = attention_forward,
    .backward = attention_backward,
    .in = {[ATTN_Q] = {.gradient = TSR_GRADIENT_WRITES, READS},
           [ATTN_K] = {.gradient = TSR_GRADIENT_WRITES, READS},
           [ATTN_V] = {.gradient = TSR_GRADIENT_WRITES, READS},
           [ATTN_BIAS] = {.gradient = TSR_GRADIENT_WRITES, .dtype = TSR_GRADIENT_F32, READS},
           [ATTN_SINKS] = {.gradient = TSR_GRADIENT_WRITES, .dtype = TSR_GRADIENT_F32, READS}},
    .optional_dout = TSR_READS(ATTN_LSE),
};

/* out and lse: padded [B, H, L, Dv] lying as [B, L, H, Dv], and [B, H, L]; packed [total, H, Dv], [H, total].
 */
static void shape_outputs(const tsr_tensor *q, const tsr_tensor *v, tsr_tensor *out, tsr_tensor *lse)
{
    const int64_t dv = v->shape[v->rank - 1];
    if (q->rank == 3) {
        *out = tsr_output_rows(q, q->dtype, dv);
        *lse = tsr_tensor_2d(NULL, tsr_wide_dtype(q->dtype), q->shape[1], q->shape[0]);
        return;
    }
    const tsr_tensor blhd = tsr_tensor_transpose(q, 1, 2), made = tsr_output_rows(&blhd, q->dtype, dv);
    *out = tsr_tensor_transpose(&made, 1, 2);
    *lse = tsr_output_per_row(q, tsr_wide_dtype(q->dtype));
}

tsr_status tsr_tape_attention(tsr_tape *tape, tsr_var q, tsr_var k, tsr_var v,
                              const tsr_tape_attention_options *options, tsr_var *out)
{
    static const tsr_tape_attention_options defaults = {0};
    const tsr_tape_attention_options *o = options != NULL ? options : &defaults;
    tsr_tensor tq, tk, tv;
    TSR_TRY(tsr_need(tape, q, "attention", 3, 4, &tq));
    TSR_TRY(tsr_need(tape, k, "attention", 3, 4, &tk));
    TSR_TRY(tsr_need(tape, v, "attention", 3, 4, &tv));
    tsr_tape_call call = {.op = &attention_op,
                          .n_in = ATTN_N_IN,
                          .n_out = 2,
                          .in = {q, k, v, o->alibi, o->bias, o->mask, o->sinks, o->seqlens_q, o->seqlens_k,
                                 o->cu_seqlens_q, o->cu_seqlens_k},
                          .options = o,
                          .options_nbytes = sizeof *o};
    shape_outputs(&tq, &tv, &call.out[ATTN_OUT], &call.out[ATTN_LSE]);
    return tsr_apply_first(tape, &call, out);
}

static tsr_status kv_append_forward(const tsr_tape_io *io)
{
    return tsr_kv_append(io->ctx, &io->in[0], &io->in[1], tsr_given(&io->in[2]), &io->in[3]);
}

static const tsr_tape_op kv_append_op = {.name = "kv_append", .forward = kv_append_forward};

tsr_status tsr_tape_kv_append(tsr_tape *tape, tsr_var x, tsr_var start, tsr_var lengths, tsr_var cache)
{
    const tsr_tape_call call = {.op = &kv_append_op, .n_in = 4, .in = {x, start, lengths, cache}};
    return tsr_tape_apply(tape, &call, NULL);
}
