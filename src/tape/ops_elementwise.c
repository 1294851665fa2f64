/* tape/ops_elementwise.c - sums, copies, dropout, activations, softmax, rope on variables */
#include "tape/ops.h"
#include "tessera/rope.h"
#include "tessera/softmax.h"

static tsr_status add_forward(const tsr_tape_io *io)
{
    return tsr_add(io->ctx, 1, &io->in[0], 1, &io->in[1], &io->out[0]);
}

static const tsr_tape_op add_op = {
    .name = "add",
    .forward = add_forward,
    .in = {{.gradient = TSR_GRADIENT_PASSES}, {.gradient = TSR_GRADIENT_PASSES}},
};

tsr_status tsr_tape_add(tsr_tape *tape, tsr_var a, tsr_var b, int in_place, tsr_var *y)
{
    tsr_tensor ta, tb;
    TSR_TRY(tsr_need(tape, a, "add", 0, TSR_MAX_RANK, &ta));
    TSR_TRY(tsr_need(tape, b, "add", 0, TSR_MAX_RANK, &tb));
    const tsr_tape_call call = {.op = &add_op,
                                .n_in = 2,
                                .n_out = 1,
                                .in = {a, b},
                                .out = {tsr_output_like(&ta, ta.dtype)},
                                .in_place = in_place ? 1 : 0};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status dropout_add_forward(const tsr_tape_io *io)
{
    return tsr_dropout_add(io->ctx, &io->in[0], tsr_given(&io->in[1]), io->options, &io->out[0]);
}

static tsr_status dropout_add_backward(const tsr_tape_io *io)
{
    return tsr_dropout_add(io->ctx, &io->dout[0], NULL, io->options, &io->din[0]);
}

static const tsr_tape_op dropout_add_op = {
    .name = "dropout_add",
    .forward = dropout_add_forward,
    .backward = dropout_add_backward,
    .in = {{.gradient = TSR_GRADIENT_WRITES, .over = TSR_OVER_DOUT}, {.gradient = TSR_GRADIENT_PASSES}},
};

tsr_status tsr_tape_dropout_add(tsr_tape *tape, tsr_var x, tsr_var residual, const tsr_dropout *dropout,
                                int in_place, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "dropout_add", 1, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {.op = &dropout_add_op,
                                .n_in = 2,
                                .n_out = 1,
                                .in = {x, residual},
                                .out = {tsr_output_like(&tx, tx.dtype)},
                                .in_place = in_place ? 1 : 0,
                                .options = dropout,
                                .options_nbytes = sizeof *dropout};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status copy_forward(const tsr_tape_io *io) { return tsr_copy(io->ctx, &io->in[0], &io->out[0]); }
static tsr_status copy_backward(const tsr_tape_io *io)
{
    return tsr_copy(io->ctx, &io->dout[0], &io->din[0]);
}

static const tsr_tape_op copy_op = {.name = "copy",
                                    .forward = copy_forward,
                                    .backward = copy_backward,
                                    .in = {{.gradient = TSR_GRADIENT_WRITES}}};

tsr_status tsr_tape_copy(tsr_tape *tape, tsr_var x, tsr_dtype dtype, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "copy", 0, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {
        .op = &copy_op, .n_in = 1, .n_out = 1, .in = {x}, .out = {tsr_output_like(&tx, dtype)}};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status sum_forward(const tsr_tape_io *io) { return tsr_sum(io->ctx, &io->in[0], 0, &io->out[0]); }

/* Every element of dx is the one of dy. */
static tsr_status sum_backward(const tsr_tape_io *io)
{
    tsr_tensor dy = io->din[0];
    dy.data = io->dout[0].data, dy.dtype = io->dout[0].dtype;
    for (int32_t i = 0; i < dy.rank; i++) dy.stride[i] = 0;
    return tsr_copy(io->ctx, &dy, &io->din[0]);
}

static const tsr_tape_op sum_op = {.name = "sum",
                                   .forward = sum_forward,
                                   .backward = sum_backward,
                                   .in = {{.gradient = TSR_GRADIENT_WRITES}}};

tsr_status tsr_tape_sum(tsr_tape *tape, tsr_var x, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "sum", 0, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {
        .op = &sum_op, .n_in = 1, .n_out = 1, .in = {x}, .out = {{.dtype = tsr_wide_dtype(tx.dtype)}}};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status activation_forward(const tsr_tape_io *io)
{
    return tsr_activation_fwd(io->ctx, *(const tsr_activation *)io->options, &io->in[0], &io->out[0]);
}

static tsr_status activation_backward(const tsr_tape_io *io)
{
    return tsr_activation_bwd(io->ctx, *(const tsr_activation *)io->options, &io->in[0], &io->dout[0],
                              &io->din[0]);
}

static const tsr_tape_op activation_op = {
    .name = "activation",
    .forward = activation_forward,
    .backward = activation_backward,
    .in = {{.gradient = TSR_GRADIENT_WRITES, .over = TSR_OVER_DOUT, .reads_in = TSR_READS(0)}},
};

tsr_status tsr_tape_activation(tsr_tape *tape, tsr_activation activation, tsr_var x, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "activation", 0, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {.op = &activation_op,
                                .n_in = 1,
                                .n_out = 1,
                                .in = {x},
                                .out = {tsr_output_like(&tx, tx.dtype)},
                                .options = &activation,
                                .options_nbytes = sizeof activation};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status swiglu_forward(const tsr_tape_io *io)
{
    return tsr_swiglu_fwd(io->ctx, &io->in[0], &io->in[1], &io->out[0]);
}

static tsr_status swiglu_backward(const tsr_tape_io *io)
{
    return tsr_swiglu_bwd(io->ctx, &io->in[0], &io->in[1], &io->dout[0], &io->din[0], &io->din[1]);
}

static const tsr_tape_op swiglu_op = {
    .name = "swiglu",
    .forward = swiglu_forward,
    .backward = swiglu_backward,
    .in = {{.gradient = TSR_GRADIENT_WRITES, .over = TSR_OVER_VALUE, .reads_in = TSR_READS(0) | TSR_READS(1)},
           {.gradient = TSR_GRADIENT_WRITES,
            .over = TSR_OVER_VALUE,
            .reads_in = TSR_READS(0) | TSR_READS(1)}},
    .always_din = TSR_READS(0) | TSR_READS(1),
};

tsr_status tsr_tape_swiglu(tsr_tape *tape, tsr_var gate, tsr_var up, tsr_var *y)
{
    tsr_tensor tg, tu;
    TSR_TRY(tsr_need(tape, gate, "swiglu", 0, TSR_MAX_RANK, &tg));
    TSR_TRY(tsr_need(tape, up, "swiglu", 0, TSR_MAX_RANK, &tu));
    const tsr_tape_call call = {
        .op = &swiglu_op, .n_in = 2, .n_out = 1, .in = {gate, up}, .out = {tsr_output_like(&tg, tg.dtype)}};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status softmax_forward(const tsr_tape_io *io)
{
    return tsr_softmax_fwd(io->ctx, &io->in[0], &io->out[0]);
}

static tsr_status softmax_backward(const tsr_tape_io *io)
{
    return tsr_softmax_bwd(io->ctx, &io->out[0], &io->dout[0], &io->din[0]);
}

static const tsr_tape_op softmax_op = {
    .name = "softmax",
    .forward = softmax_forward,
    .backward = softmax_backward,
    .in = {{.gradient = TSR_GRADIENT_WRITES, .over = TSR_OVER_DOUT, .reads_out = TSR_READS(0)}},
};

tsr_status tsr_tape_softmax(tsr_tape *tape, tsr_var x, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "softmax", 1, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {
        .op = &softmax_op, .n_in = 1, .n_out = 1, .in = {x}, .out = {tsr_output_like(&tx, tx.dtype)}};
    return tsr_apply_first(tape, &call, y);
}

enum { ROPE_X, ROPE_COS, ROPE_SIN, ROPE_POSITIONS };

static tsr_status rope_turn(const tsr_tape_io *io, int inverse, const tsr_tensor *x, const tsr_tensor *y)
{
    const tsr_tape_rope_options *o = io->options;
    const tsr_rope_options options = {.interleaved = o->interleaved,
                                      .start = o->start,
                                      .inverse = inverse,
                                      .positions = tsr_given(&io->in[ROPE_POSITIONS])};
    return tsr_rope(io->ctx, x, &io->in[ROPE_COS], &io->in[ROPE_SIN], &options, y);
}

static tsr_status rope_forward(const tsr_tape_io *io)
{
    return rope_turn(io, 0, &io->in[ROPE_X], &io->out[0]);
}

static tsr_status rope_backward(const tsr_tape_io *io) { return rope_turn(io, 1, &io->dout[0], &io->din[0]); }

static const tsr_tape_op rope_op = {
    .name = "rope",
    .forward = rope_forward,
    .backward = rope_backward,
    .in = {[ROPE_X] = {.gradient = TSR_GRADIENT_WRITES,
                       .over = TSR_OVER_DOUT,
                       .reads_in = TSR_READS(ROPE_COS) | TSR_READS(ROPE_SIN) | TSR_READS(ROPE_POSITIONS)}},
};

tsr_status tsr_tape_rope(tsr_tape *tape, tsr_var x, tsr_var cos, tsr_var sin,
                         const tsr_tape_rope_options *options, tsr_var *y)
{
    static const tsr_tape_rope_options defaults = {0};
    if (options == NULL) options = &defaults;
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "rope", 4, 4, &tx));
    const tsr_tape_call call = {.op = &rope_op,
                                .n_in = 4,
                                .n_out = 1,
                                .in = {x, cos, sin, options->positions},
                                .out = {tsr_output_like(&tx, tx.dtype)},
                                .in_place = options->in_place ? 1 + ROPE_X : 0,
                                .options = options,
                                .options_nbytes = sizeof *options};
    return tsr_apply_first(tape, &call, y);
}
