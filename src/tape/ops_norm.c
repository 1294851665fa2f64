/* tape/ops_norm.c - RMSNorm and LayerNorm on variables; backward reads x, weight and the saved statistics */
#include "tape/ops.h"
#include "tessera/norm.h"

enum { NORM_X, NORM_WEIGHT, NORM_BIAS };
enum { NORM_Y, NORM_RSTD, NORM_MEAN };

static tsr_status rms_norm_forward(const tsr_tape_io *io)
{
    return tsr_rms_norm_fwd(io->ctx, &io->in[NORM_X], &io->in[NORM_WEIGHT], *(const float *)io->options,
                            &io->out[NORM_Y], &io->out[NORM_RSTD]);
}

static tsr_status rms_norm_backward(const tsr_tape_io *io)
{
    return tsr_rms_norm_bwd(io->ctx, &io->in[NORM_X], &io->in[NORM_WEIGHT], &io->out[NORM_RSTD],
                            &io->dout[NORM_Y], io->add[NORM_X], tsr_given(&io->din[NORM_X]),
                            tsr_given(&io->din[NORM_WEIGHT]), NULL);
}

#define READS_IN (TSR_READS(NORM_X) | TSR_READS(NORM_WEIGHT))

static const tsr_tape_op rms_norm_op = {
    .name = "rms_norm",
    .forward = rms_norm_forward,
    .backward = rms_norm_backward,
    .in = {[NORM_X] = {.gradient = TSR_GRADIENT_ADDS,
                       .over = TSR_OVER_DOUT,
                       .reads_in = READS_IN,
                       .reads_out = TSR_READS(NORM_RSTD)},
           [NORM_WEIGHT] = {.gradient = TSR_GRADIENT_WRITES,
                            .dtype = TSR_GRADIENT_F32,
                            .reads_in = READS_IN,
                            .reads_out = TSR_READS(NORM_RSTD)}},
    .optional_dout = TSR_READS(NORM_RSTD),
};

tsr_status tsr_tape_rms_norm(tsr_tape *tape, tsr_var x, tsr_var weight, float eps, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "rms_norm", 1, TSR_MAX_RANK, &tx));
    const tsr_tape_call call = {
        .op = &rms_norm_op,
        .n_in = 2,
        .n_out = 2,
        .in = {x, weight},
        .out = {tsr_output_like(&tx, tx.dtype), tsr_output_per_row(&tx, tsr_wide_dtype(tx.dtype))},
        .options = &eps,
        .options_nbytes = sizeof eps};
    return tsr_apply_first(tape, &call, y);
}

static tsr_status layer_norm_forward(const tsr_tape_io *io)
{
    return tsr_layer_norm_fwd(io->ctx, &io->in[NORM_X], &io->in[NORM_WEIGHT], tsr_given(&io->in[NORM_BIAS]),
                              *(const float *)io->options, &io->out[NORM_Y], &io->out[NORM_MEAN],
                              &io->out[NORM_RSTD]);
}

static tsr_status layer_norm_backward(const tsr_tape_io *io)
{
    return tsr_layer_norm_bwd(io->ctx, &io->in[NORM_X], &io->in[NORM_WEIGHT], &io->out[NORM_MEAN],
                              &io->out[NORM_RSTD], &io->dout[NORM_Y], io->add[NORM_X],
                              tsr_given(&io->din[NORM_X]), tsr_given(&io->din[NORM_WEIGHT]),
                              tsr_given(&io->din[NORM_BIAS]), NULL);
}

#define READS_OUT (TSR_READS(NORM_RSTD) | TSR_READS(NORM_MEAN))

static const tsr_tape_op layer_norm_op = {
    .name = "layer_norm",
    .forward = layer_norm_forward,
    .backward = layer_norm_backward,
    .in = {[NORM_X] = {.gradient = TSR_GRADIENT_ADDS,
                       .over = TSR_OVER_DOUT,
                       .reads_in = READS_IN,
                       .reads_out = READS_OUT},
           [NORM_WEIGHT] = {.gradient = TSR_GRADIENT_WRITES,
                            .dtype = TSR_GRADIENT_F32,
                            .reads_in = READS_IN,
                            .reads_out = READS_OUT},
           [NORM_BIAS] = {.gradient = TSR_GRADIENT_WRITES,
                          .dtype = TSR_GRADIENT_F32,
                          .reads_in = READS_IN,
                          .reads_out = READS_OUT}},
    .optional_dout = READS_OUT,
};

tsr_status tsr_tape_layer_norm(tsr_tape *tape, tsr_var x, tsr_var weight, tsr_var bias, float eps, tsr_var *y)
{
    tsr_tensor tx;
    TSR_TRY(tsr_need(tape, x, "layer_norm", 1, TSR_MAX_RANK, &tx));
    const tsr_tensor statistic = tsr_output_per_row(&tx, tsr_wide_dtype(tx.dtype));
    const tsr_tape_call call = {.op = &layer_norm_op,
                                .n_in = 3,
                                .n_out = 3,
                                .in = {x, weight, bias},
                                .out = {tsr_output_like(&tx, tx.dtype), statistic, statistic},
                                .options = &eps,
                                .options_nbytes = sizeof eps};
    return tsr_apply_first(tape, &call, y);
}
