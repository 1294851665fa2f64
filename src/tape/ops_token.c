/* tape/ops_token.c - the two ends of a language model on variables: embedding, cross-entropy */
#include "tape/ops.h"
#include "tessera/cross_entropy.h"
#include "tessera/embedding.h"

enum { EMBEDDING_TABLE, EMBEDDING_IDS };

static tsr_status embedding_forward(const tsr_tape_io *io)
{
    return tsr_embedding_fwd(io->ctx, &io->in[EMBEDDING_TABLE], &io->in[EMBEDDING_IDS], &io->out[0]);
}

static tsr_status embedding_backward(const tsr_tape_io *io)
{
    return tsr_embedding_bwd(io->ctx, &io->in[EMBEDDING_IDS], &io->dout[0], io->add[EMBEDDING_TABLE],
                             &io->din[EMBEDDING_TABLE]);
}

static const tsr_tape_op embedding_op = {
    .name = "embedding",
    .forward = embedding_forward,
    .backward = embedding_backward,
    .in = {[EMBEDDING_TABLE] = {.gradient = TSR_GRADIENT_ADDS,
                                .dtype = TSR_GRADIENT_F32,
                                .reads_in = TSR_READS(EMBEDDING_IDS)}},
};

tsr_status tsr_tape_embedding(tsr_tape *tape, tsr_var table, tsr_var ids, tsr_var *out)
{
    tsr_tensor tt, ti;
    TSR_TRY(tsr_need(tape, table, "embedding", 2, 2, &tt));
    TSR_TRY(tsr_need(tape, ids, "embedding", 0, TSR_MAX_RANK - 1, &ti));
    ti.rank++;
    const tsr_tape_call call = {.op = &embedding_op,
                                .n_in = 2,
                                .n_out = 1,
                                .in = {table, ids},
                                .out = {tsr_output_rows(&ti, tt.dtype, tt.shape[1])}};
    return tsr_apply_first(tape, &call, out);
}

enum { LOSS_X, LOSS_W, LOSS_TARGETS };
enum { LOSS_LOSS, LOSS_LSE };

/* x [..., n] and targets [...] as rows. */
static tsr_status rows_of(const tsr_tape_io *io, tsr_tensor *x, tsr_tensor *targets)
{
    TSR_TRY(tsr_as_rows(&io->in[LOSS_X], "linear_cross_entropy: x", x));
    return tsr_tensor_reshape(&io->in[LOSS_TARGETS], 1, (const int64_t[]){x->shape[0]}, targets);
}

static tsr_status loss_forward(const tsr_tape_io *io)
{
    tsr_tensor x, targets;
    TSR_TRY(rows_of(io, &x, &targets));
    return tsr_linear_cross_entropy_fwd(io->ctx, &x, &io->in[LOSS_W], &targets, *(const int32_t *)io->options,
                                        &io->out[LOSS_LOSS], &io->out[LOSS_LSE], NULL);
}

static tsr_status loss_backward(const tsr_tape_io *io)
{
    tsr_tensor x, targets, dx;
    TSR_TRY(rows_of(io, &x, &targets));
    TSR_TRY(tsr_as_rows(&io->din[LOSS_X], "linear_cross_entropy: dx", &dx));
    return tsr_linear_cross_entropy_bwd(io->ctx, &x, &io->in[LOSS_W], &targets, *(const int32_t *)io->options,
                                        &io->out[LOSS_LSE], &io->dout[LOSS_LOSS], io->add[LOSS_W], &dx,
                                        &io->din[LOSS_W], NULL);
}

#define READS                                                                                                \
    .reads_in = TSR_READS(LOSS_X) | TSR_READS(LOSS_W) | TSR_READS(LOSS_TARGETS),                             \
    .reads_out = TSR_READS(LOSS_LSE)

static const tsr_tape_op loss_op = {
    .name = "linear_cross_entropy",
    .forward = loss_forward,
    .backward = loss_backward,
    .in = {[LOSS_X] = {.gradient = TSR_GRADIENT_WRITES, READS},
           [LOSS_W] = {.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_AS_VALUE_OR_F32, READS}},
    .optional_dout = TSR_READS(LOSS_LSE),
    .always_din = TSR_READS(LOSS_X) | TSR_READS(LOSS_W),
};

tsr_status tsr_tape_linear_cross_entropy(tsr_tape *tape, tsr_var x, tsr_var w, tsr_var targets,
                                         int32_t ignore_index, tsr_var *loss)
{
    tsr_tensor tx, tt;
    TSR_TRY(tsr_need(tape, x, "linear_cross_entropy", 1, TSR_MAX_RANK, &tx));
    TSR_TRY(tsr_need(tape, targets, "linear_cross_entropy", 0, TSR_MAX_RANK, &tt));
    const tsr_dtype wide = tsr_wide_dtype(tx.dtype);
    const int64_t n = tx.shape[tx.rank - 1], n_rows = tsr_tensor_numel(&tt);
    if (tsr_tensor_numel(&tx) != n * n_rows)
        return tsr_fail(TSR_ERR_SHAPE,
                        "linear_cross_entropy: targets is %s, must have an entry a row of x %s",
                        tsr_shape_of(&tt).text, tsr_shape_of(&tx).text);
    const tsr_tape_call call = {.op = &loss_op,
                                .n_in = 3,
                                .n_out = 2,
                                .in = {x, w, targets},
                                .out = {{.dtype = wide}, tsr_tensor_1d(NULL, wide, n_rows)},
                                .options = &ignore_index,
                                .options_nbytes = sizeof ignore_index};
    return tsr_apply_first(tape, &call, loss);
}
