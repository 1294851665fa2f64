/*
 * tape/ops_product.c - matrix products on variables
 *
 *     C = A B        dA = dC B^T      dB = A^T dC
 *     y = x W^T + b  dx = dy W        dW = dy^T x     db = sum of the rows of dy
 *
 * Gradients are added to by the products themselves (beta = 1); those of weights in f32.
 */
#include "tape/ops.h"
#include "tessera/gemm.h"

static tsr_status matmul2d_forward(const tsr_tape_io *io)
{
    return tsr_matmul2d(io->ctx, 1, &io->in[0], &io->in[1], 0, &io->out[0], NULL);
}

static tsr_status matmul2d_backward(const tsr_tape_io *io)
{
    if (io->din[0].data != NULL) {
        const tsr_tensor bt = tsr_tensor_transpose(&io->in[1], 0, 1);
        TSR_TRY(tsr_matmul2d(io->ctx, 1, &io->dout[0], &bt, (float)io->add[0], &io->din[0], NULL));
    }
    if (io->din[1].data != NULL) {
        const tsr_tensor at = tsr_tensor_transpose(&io->in[0], 0, 1);
        TSR_TRY(tsr_matmul2d(io->ctx, 1, &at, &io->dout[0], (float)io->add[1], &io->din[1], NULL));
    }
    return TSR_OK;
}

static const tsr_tape_op matmul2d_op = {
    .name = "matmul2d",
    .forward = matmul2d_forward,
    .backward = matmul2d_backward,
    .in = {{.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_AS_VALUE_OR_F32, .reads_in = TSR_READS(1)},
           {.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_AS_VALUE_OR_F32, .reads_in = TSR_READS(0)}},
};

tsr_status tsr_tape_matmul2d(tsr_tape *tape, tsr_var a, tsr_var b, tsr_var *c)
{
    tsr_tensor ta, tb;
    TSR_TRY(tsr_need(tape, a, "matmul2d", 2, 2, &ta));
    TSR_TRY(tsr_need(tape, b, "matmul2d", 2, 2, &tb));
    const tsr_tape_call call = {.op = &matmul2d_op,
                                .n_in = 2,
                                .n_out = 1,
                                .in = {a, b},
                                .out = {tsr_output_rows(&ta, ta.dtype, tb.shape[1])}};
    return tsr_apply_first(tape, &call, c);
}

static tsr_status bmm_forward(const tsr_tape_io *io)
{
    return tsr_bmm(io->ctx, 1, &io->in[0], &io->in[1], 0, &io->out[0], NULL);
}

static tsr_status bmm_backward(const tsr_tape_io *io)
{
    if (io->din[0].data != NULL) {
        const tsr_tensor bt = tsr_tensor_transpose(&io->in[1], 1, 2);
        TSR_TRY(tsr_bmm(io->ctx, 1, &io->dout[0], &bt, (float)io->add[0], &io->din[0], NULL));
    }
    if (io->din[1].data != NULL) {
        const tsr_tensor at = tsr_tensor_transpose(&io->in[0], 1, 2);
        TSR_TRY(tsr_bmm(io->ctx, 1, &at, &io->dout[0], (float)io->add[1], &io->din[1], NULL));
    }
    return TSR_OK;
}

static const tsr_tape_op bmm_op = {
    .name = "bmm",
    .forward = bmm_forward,
    .backward = bmm_backward,
    .in = {{.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_AS_VALUE_OR_F32, .reads_in = TSR_READS(1)},
           {.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_AS_VALUE_OR_F32, .reads_in = TSR_READS(0)}},
};

tsr_status tsr_tape_bmm(tsr_tape *tape, tsr_var a, tsr_var b, tsr_var *c)
{
    tsr_tensor ta, tb;
    TSR_TRY(tsr_need(tape, a, "bmm", 3, 3, &ta));
    TSR_TRY(tsr_need(tape, b, "bmm", 3, 3, &tb));
    const tsr_tape_call call = {.op = &bmm_op,
                                .n_in = 2,
                                .n_out = 1,
                                .in = {a, b},
                                .out = {tsr_output_rows(&ta, ta.dtype, tb.shape[2])}};
    return tsr_apply_first(tape, &call, c);
}

enum { LINEAR_X, LINEAR_W, LINEAR_BIAS };

static tsr_status linear_forward(const tsr_tape_io *io)
{
    tsr_tensor x, y;
    TSR_TRY(tsr_as_rows(&io->in[LINEAR_X], "linear: x", &x));
    TSR_TRY(tsr_as_rows(&io->out[0], "linear: y", &y));
    const tsr_tensor wt = tsr_tensor_transpose(&io->in[LINEAR_W], 0, 1);
    TSR_TRY(tsr_matmul2d(io->ctx, 1, &x, &wt, 0, &y, NULL));
    tsr_tensor bias = io->in[LINEAR_BIAS];
    if (bias.data == NULL) return TSR_OK;
    bias.rank = 2;
    bias.shape[0] = y.shape[0], bias.shape[1] = io->in[LINEAR_BIAS].shape[0];
    bias.stride[0] = 0, bias.stride[1] = io->in[LINEAR_BIAS].stride[0];
    return tsr_add(io->ctx, 1, &y, 1, &bias, &y);
}

static tsr_status linear_backward(const tsr_tape_io *io)
{
    tsr_tensor dy;
    TSR_TRY(tsr_as_rows(&io->dout[0], "linear: dy", &dy));
    if (io->din[LINEAR_X].data != NULL) {
        tsr_tensor dx;
        TSR_TRY(tsr_as_rows(&io->din[LINEAR_X], "linear: dx", &dx));
        TSR_TRY(tsr_matmul2d(io->ctx, 1, &dy, &io->in[LINEAR_W], (float)io->add[LINEAR_X], &dx, NULL));
    }
    if (io->din[LINEAR_W].data != NULL) {
        tsr_tensor x;
        TSR_TRY(tsr_as_rows(&io->in[LINEAR_X], "linear: x", &x));
        const tsr_tensor dyt = tsr_tensor_transpose(&dy, 0, 1);
        TSR_TRY(tsr_matmul2d(io->ctx, 1, &dyt, &x, (float)io->add[LINEAR_W], &io->din[LINEAR_W], NULL));
    }
    if (io->din[LINEAR_BIAS].data == NULL) return TSR_OK;
    return tsr_sum_rows(io->ctx, &dy, io->add[LINEAR_BIAS], &io->din[LINEAR_BIAS]);
}

static const tsr_tape_op linear_op = {
    .name = "linear",
    .forward = linear_forward,
    .backward = linear_backward,
    .in = {[LINEAR_X] = {.gradient = TSR_GRADIENT_ADDS,
                         .dtype = TSR_GRADIENT_AS_VALUE_OR_F32,
                         .reads_in = TSR_READS(LINEAR_W)},
           [LINEAR_W] = {.gradient = TSR_GRADIENT_ADDS,
                         .dtype = TSR_GRADIENT_AS_VALUE_OR_F32,
                         .reads_in = TSR_READS(LINEAR_X)},
           [LINEAR_BIAS] = {.gradient = TSR_GRADIENT_ADDS, .dtype = TSR_GRADIENT_F32}},
};

tsr_status tsr_tape_linear(tsr_tape *tape, tsr_var x, tsr_var w, tsr_var bias, tsr_var *y)
{
    tsr_tensor tx, tw, tb;
    TSR_TRY(tsr_need(tape, x, "linear", 1, TSR_MAX_RANK, &tx));
    TSR_TRY(tsr_need(tape, w, "linear", 2, 2, &tw));
    if (bias.id != 0) {
        TSR_TRY(tsr_need(tape, bias, "linear", 1, 1, &tb));
        if (tb.shape[0] != tw.shape[0])
            return tsr_fail(TSR_ERR_SHAPE, "linear: bias is %s, must be one entry for each row of w %s",
                            tsr_shape_of(&tb).text, tsr_shape_of(&tw).text);
    }
    const tsr_tape_call call = {.op = &linear_op,
                                .n_in = 3,
                                .n_out = 1,
                                .in = {x, w, bias},
                                .out = {tsr_output_rows(&tx, tx.dtype, tw.shape[0])}};
    return tsr_apply_first(tape, &call, y);
}
