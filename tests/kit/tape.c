/* tests/kit/tape.c - operators on host memory, written element by element */
#include "kit/tape.h"

#include "base/error.h"
#include "base/tensor.h"
#include "tessera/tape_ops.h"

tsr_tape *kit_tape;
static tsr_context *context;
int kit_n_square_runs;

int kit_tape_set_up(void **state)
{
    (void)state;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &context));
    KIT_OK(tsr_tape_create(context, &kit_tape));
    return 0;
}

int kit_tape_tear_down(void **state)
{
    (void)state;
    tsr_tape_destroy(kit_tape);
    tsr_context_destroy(context);
    return 0;
}

static double *element(const tsr_tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int32_t d = t->rank - 1; d >= 0; d--) {
        offset += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return tsr_tensor_at(t, offset);
}

/* y = x^2; adds to dx where asked. */
static tsr_status square_forward(const tsr_tape_io *io)
{
    kit_n_square_runs++;
    for (int64_t i = 0; i < tsr_tensor_numel(&io->in[0]); i++)
        *element(&io->out[0], i) = *element(&io->in[0], i) * *element(&io->in[0], i);
    return TSR_OK;
}

static tsr_status square_backward(const tsr_tape_io *io)
{
    for (int64_t i = 0; i < tsr_tensor_numel(&io->in[0]); i++) {
        double *dx = element(&io->din[0], i);
        *dx = 2 * *element(&io->in[0], i) * *element(&io->dout[0], i) + (io->add[0] ? *dx : 0);
    }
    return TSR_OK;
}

const tsr_tape_op kit_square_op = {
    .name = "square",
    .forward = square_forward,
    .backward = square_backward,
    .in = {{.gradient = TSR_GRADIENT_ADDS, .over = TSR_OVER_DOUT, .reads_in = 1}}};

/* (a + b, a - b) */
static tsr_status sum_difference_forward(const tsr_tape_io *io)
{
    for (int64_t i = 0; i < tsr_tensor_numel(&io->in[0]); i++) {
        *element(&io->out[0], i) = *element(&io->in[0], i) + *element(&io->in[1], i);
        *element(&io->out[1], i) = *element(&io->in[0], i) - *element(&io->in[1], i);
    }
    return TSR_OK;
}

static tsr_status sum_difference_backward(const tsr_tape_io *io)
{
    for (int64_t i = 0; i < tsr_tensor_numel(&io->in[0]); i++) {
        const double d0 = *element(&io->dout[0], i);
        const double d1 = io->dout[1].data != NULL ? *element(&io->dout[1], i) : 0;
        const double from[2] = {d0 + d1, d0 - d1};
        for (int k = 1; k >= 0; k--) {
            if (io->din[k].data == NULL) continue;
            double *dx = element(&io->din[k], i);
            *dx = from[k] + (io->add[k] ? *dx : 0);
        }
    }
    return TSR_OK;
}

const tsr_tape_op kit_sum_difference_op = {
    .name = "sum_difference",
    .forward = sum_difference_forward,
    .backward = sum_difference_backward,
    .in = {{.gradient = TSR_GRADIENT_ADDS}, {.gradient = TSR_GRADIENT_ADDS}},
    .optional_dout = 1u << 1};

tsr_status kit_apply_like(const tsr_tape_op *op, tsr_var x, int in_place, tsr_var *y)
{
    tsr_tensor t;
    TSR_TRY(tsr_tape_value(kit_tape, x, &t));
    tsr_tape_call call = {.op = op, .n_in = 1, .n_out = 1, .in = {x}, .in_place = in_place};
    call.out[0] = tsr_tensor_4d(NULL, t.dtype, 1, 1, 1, 1);
    call.out[0].rank = t.rank;
    int64_t stride = 1;
    for (int32_t d = t.rank - 1; d >= 0; d--) {
        call.out[0].shape[d] = t.shape[d];
        call.out[0].stride[d] = stride;
        stride *= t.shape[d];
    }
    return tsr_tape_apply(kit_tape, &call, y);
}

tsr_var kit_var_square(tsr_var x)
{
    tsr_var y;
    KIT_OK(kit_apply_like(&kit_square_op, x, 0, &y));
    return y;
}

tsr_var kit_var_add(tsr_var a, tsr_var b)
{
    tsr_var y;
    KIT_OK(tsr_tape_add(kit_tape, a, b, 0, &y));
    return y;
}

tsr_var kit_var_sum(tsr_var x)
{
    tsr_var y;
    KIT_OK(tsr_tape_sum(kit_tape, x, &y));
    return y;
}

tsr_var kit_var_leaf(double *value, double *grad)
{
    tsr_parameter p = {.value = tsr_tensor_2d(value, TSR_F64, 2, 2)};
    if (grad != NULL) p.grad = tsr_tensor_2d(grad, TSR_F64, 2, 2);
    tsr_var x;
    KIT_OK(tsr_tape_parameter(kit_tape, &p, &x));
    return x;
}

void kit_check_equal(const double *got, const double *expected)
{
    for (int i = 0; i < N; i++)
        if (got[i] != expected[i]) fail_msg("element %d is %g, must be %g", i, got[i], expected[i]);
}
