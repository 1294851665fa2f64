/*
 * custom_operator.c - an operator of one's own on the tape: squared relu
 *
 *     y = max(x, 0)^2        dx = dy * 2 max(x, 0)
 *
 * (So et al., 2021, "Primer: Searching for efficient transformers for language modeling")
 *
 * An operator is a record: a name, a forward, a backward, and for each input how its gradient comes about and
 * what it is made from. Here the gradient of x is written (not added to: the tape adds where x has several
 * users) and reads x itself, so x's value stays until backward has run. Forgetting the backward would make
 * applying the operator fail as soon as x wants a gradient.
 *
 * The program compares the gradient with finite differences and exits 0 if they agree.
 */
#include <math.h>
#include <stdio.h>

#include "tessera/tessera.h"

enum { N_ROWS = 3, N_COLUMNS = 4, N = N_ROWS * N_COLUMNS };

/* Element i of a [rows, columns] view: values may be strided. (This code runs where data is host memory.) */
static float *at(const tsr_tensor *t, int64_t i)
{
    const int64_t row = i / t->shape[1], column = i % t->shape[1];
    return (float *)t->data + row * t->stride[0] + column * t->stride[1];
}

static tsr_status squared_relu_forward(const tsr_tape_io *io)
{
    const tsr_tensor *x = &io->in[0], *y = &io->out[0];
    for (int64_t i = 0; i < tsr_tensor_numel(x); i++) {
        const float positive = fmaxf(*at(x, i), 0);
        *at(y, i) = positive * positive;
    }
    return TSR_OK;
}

static tsr_status squared_relu_backward(const tsr_tape_io *io)
{
    const tsr_tensor *x = &io->in[0], *dy = &io->dout[0], *dx = &io->din[0];
    for (int64_t i = 0; i < tsr_tensor_numel(x); i++) *at(dx, i) = *at(dy, i) * 2 * fmaxf(*at(x, i), 0);
    return TSR_OK;
}

static const tsr_tape_op squared_relu_op = {
    .name = "squared_relu",
    .forward = squared_relu_forward,
    .backward = squared_relu_backward,
    .in = {{.gradient = TSR_GRADIENT_WRITES, .reads_in = 1u << 0}},
};

/* What users of the operator call: y = squared_relu(x), x [rows, columns] f32. */
static tsr_status squared_relu(tsr_tape *tape, tsr_var x, tsr_var *y)
{
    tsr_tensor value;
    const tsr_status status = tsr_tape_value(tape, x, &value);
    if (status != TSR_OK) return status;
    const tsr_tape_call call = {
        .op = &squared_relu_op,
        .n_in = 1,
        .n_out = 1,
        .in = {x},
        .out = {tsr_tensor_2d(NULL, TSR_F32, value.shape[0], value.shape[1])},
    };
    return tsr_tape_apply(tape, &call, y);
}

/* loss = sum of squared_relu(x); with a gradient buffer in x, its gradient too. */
static tsr_status loss_of(tsr_tape *tape, const tsr_parameter *x, float *loss)
{
    tsr_var vx, y, sum;
    tsr_tensor value;
    tsr_status status = tsr_tape_parameter(tape, x, &vx);
    if (status == TSR_OK) status = squared_relu(tape, vx, &y);
    if (status == TSR_OK) status = tsr_tape_sum(tape, y, &sum);
    if (status == TSR_OK) status = tsr_tape_value(tape, sum, &value);
    if (status == TSR_OK) status = tsr_download(tsr_tape_context(tape), loss, value.data, sizeof *loss);
    if (status == TSR_OK && x->grad.data != NULL) status = tsr_tape_backward(tape, sum, 1);
    if (status == TSR_OK) status = tsr_tape_reset(tape);
    return status;
}

/* The largest distance between the tape's gradient and (loss(x + h) - loss(x - h)) / 2h. */
static tsr_status largest_error(tsr_tape *tape, float *largest)
{
    const float h = 1.0f / 64;
    float x[N], dx[N] = {0}, loss;
    for (int i = 0; i < N; i++) x[i] = ((float)i - 5.5f) / 4;
    const tsr_parameter p = {.value = tsr_tensor_2d(x, TSR_F32, N_ROWS, N_COLUMNS),
                             .grad = tsr_tensor_2d(dx, TSR_F32, N_ROWS, N_COLUMNS)};
    const tsr_parameter no_gradient = {.value = p.value};
    tsr_status status = loss_of(tape, &p, &loss);
    *largest = 0;
    for (int i = 0; i < N && status == TSR_OK; i++) {
        const float here = x[i];
        float above = 0, below = 0;
        x[i] = here + h;
        status = loss_of(tape, &no_gradient, &above);
        x[i] = here - h;
        if (status == TSR_OK) status = loss_of(tape, &no_gradient, &below);
        x[i] = here;
        *largest = fmaxf(*largest, fabsf(dx[i] - (above - below) / (2 * h)));
    }
    return status;
}

int main(void)
{
    tsr_context *ctx = NULL;
    tsr_tape *tape = NULL;
    float largest = INFINITY;
    tsr_status status = tsr_context_create(&(tsr_context_options){.backend = "reference"}, &ctx);
    if (status == TSR_OK) status = tsr_tape_create(ctx, &tape);
    if (status == TSR_OK) status = largest_error(tape, &largest);
    if (status != TSR_OK)
        fprintf(stderr, "custom_operator: %s\n", tsr_last_error());
    else
        printf("squared relu: gradient and finite differences differ by at most %g\n", (double)largest);
    tsr_tape_destroy(tape);
    tsr_context_destroy(ctx);
    return status == TSR_OK && largest < 1e-4f ? 0 : 1;
}
