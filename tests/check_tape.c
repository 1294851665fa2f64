/*
 * check_tape.c - the tape itself: sums of gradients, what it refuses, memory
 *
 * On the reference backend in f64, with operators of this file's own beside the library's, so that every way
 * of making a gradient occurs (written, added, passed on, over other memory, from some outputs only).
 */
#include "kit/kit.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "base/tensor.h"
#include "tessera/tape_ops.h"

static tsr_context *ctx;
static tsr_tape *tape;

static int set_up(void **state)
{
    (void)state;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &ctx));
    KIT_OK(tsr_tape_create(ctx, &tape));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tsr_tape_destroy(tape);
    tsr_context_destroy(ctx);
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

/* ---- operators of this file: they live on the host, as the reference backend does ---- */

static int n_forward_runs;

/* y = x^2; adds to dx where asked. */
static tsr_status square_forward(const tsr_tape_io *io)
{
    n_forward_runs++;
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

static const tsr_tape_op square_op = {.name = "square",
                                      .forward = square_forward,
                                      .backward = square_backward,
                                      .in = {{TSR_GRADIENT_ADDS, .over = TSR_OVER_DOUT, .reads_in = 1}}};

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

static const tsr_tape_op sum_difference_op = {.name = "sum_difference",
                                              .forward = sum_difference_forward,
                                              .backward = sum_difference_backward,
                                              .in = {{TSR_GRADIENT_ADDS}, {TSR_GRADIENT_ADDS}},
                                              .optional_dout = 1u << 1};

static tsr_status failing(const tsr_tape_io *io)
{
    (void)io;
    return tsr_fail(TSR_ERR_INDEX, "it fails");
}

static tsr_status apply_like(const tsr_tape_op *op, tsr_var x, int in_place, tsr_var *y)
{
    tsr_tensor t;
    TSR_TRY(tsr_tape_value(tape, x, &t));
    tsr_tape_call call = {.op = op, .n_in = 1, .n_out = 1, .in = {x}, .in_place = in_place};
    call.out[0] = tsr_tensor_4d(NULL, t.dtype, 1, 1, 1, 1);
    call.out[0].rank = t.rank;
    int64_t stride = 1;
    for (int32_t d = t.rank - 1; d >= 0; d--) {
        call.out[0].shape[d] = t.shape[d];
        call.out[0].stride[d] = stride;
        stride *= t.shape[d];
    }
    return tsr_tape_apply(tape, &call, y);
}

static tsr_var square(tsr_var x)
{
    tsr_var y;
    KIT_OK(apply_like(&square_op, x, 0, &y));
    return y;
}

static tsr_var add(tsr_var a, tsr_var b)
{
    tsr_var y;
    KIT_OK(tsr_tape_add(tape, a, b, 0, &y));
    return y;
}

static tsr_var sum(tsr_var x)
{
    tsr_var y;
    KIT_OK(tsr_tape_sum(tape, x, &y));
    return y;
}

/* A parameter of four elements, or an input where grad is NULL. */
enum { N = 4 };
static tsr_var leaf(double *value, double *grad)
{
    tsr_parameter p = {.value = tsr_tensor_2d(value, TSR_F64, 2, 2)};
    if (grad != NULL) p.grad = tsr_tensor_2d(grad, TSR_F64, 2, 2);
    tsr_var x;
    KIT_OK(tsr_tape_parameter(tape, &p, &x));
    return x;
}

static void check_equal(const double *got, const double *expected)
{
    for (int i = 0; i < N; i++)
        if (got[i] != expected[i]) fail_msg("element %d is %g, must be %g", i, got[i], expected[i]);
}

static tsr_status sum_and_difference(tsr_var a, tsr_var b, tsr_var *out)
{
    const tsr_tensor t = tsr_tensor_2d(NULL, TSR_F64, 2, 2);
    const tsr_tape_call call = {.op = &sum_difference_op, .n_in = 2, .n_out = 2, .in = {a, b}, .out = {t, t}};
    return tsr_tape_apply(tape, &call, out);
}

/* ---- gradients ---- */

/* y = sum((x + x^2) + x): added by an operator, passed on twice, shared with dout when it is added to. */
static void test_shared_inputs_accumulate(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, dx[N] = {0}, expected[N];
    const tsr_var v = leaf(x, dx);
    const tsr_var inner = add(v, v); /* 2x: a variable whose gradient is the tape's own */
    const tsr_var y = sum(add(add(inner, square(inner)), inner));
    KIT_OK(tsr_tape_backward(tape, y, 1));
    for (int i = 0; i < N; i++) expected[i] = 2 * (1 + 2 * 2 * x[i] + 1);
    check_equal(dx, expected);
    /* A second step adds to what is there; its scale is that of the loss. */
    KIT_OK(tsr_tape_reset(tape));
    KIT_OK(tsr_tape_backward(tape, sum(square(leaf(x, dx))), 0.5));
    for (int i = 0; i < N; i++) expected[i] += x[i];
    check_equal(dx, expected);
}

/* One operator, one variable in two places: swiglu(a, a), a = x + 1; (a + a, a - a), a = x^2. */
static void test_one_variable_twice_in_one_operator(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, ones[N] = {1, 1, 1, 1}, dx[N] = {0};
    const tsr_var a = add(leaf(x, dx), leaf(ones, NULL));
    tsr_var y;
    KIT_OK(tsr_tape_swiglu(tape, a, a, &y));
    KIT_OK(tsr_tape_backward(tape, sum(y), 1));
    for (int i = 0; i < N; i++) {
        const double z = x[i] + 1, s = 1 / (1 + exp(-z));
        const double expected = 2 * z * s + z * z * s * (1 - s); /* d(z^2 s(z)) / dz */
        if (fabs(dx[i] - expected) > 1e-12) fail_msg("element %d is %g, must be %g", i, dx[i], expected);
    }
    KIT_OK(tsr_tape_reset(tape));
    memset(dx, 0, sizeof dx);
    tsr_var out[2];
    const tsr_var b = square(leaf(x, dx));
    KIT_OK(sum_and_difference(b, b, out));
    KIT_OK(tsr_tape_backward(tape, sum(out[0]), 1));
    check_equal(dx, (const double[]){4, -8, 12, 2});
}

static void test_views_lead_to_one_gradient(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, dx[N] = {0};
    tsr_var row, column, transposed, flat;
    const tsr_var a = square(leaf(x, dx)); /* its gradient: first a part, then more parts, then all */
    KIT_OK(tsr_tape_slice(tape, a, 0, 1, 1, &row));
    KIT_OK(tsr_tape_slice(tape, a, 1, 0, 1, &column));
    KIT_OK(tsr_tape_transpose(tape, a, 0, 1, &transposed));
    KIT_OK(tsr_tape_reshape(tape, a, 1, (const int64_t[]){4}, &flat));
    const tsr_var parts = add(add(sum(square(row)), sum(square(column))), sum(transposed));
    KIT_OK(tsr_tape_backward(tape, add(parts, sum(square(flat))), 1));
    const int in_row[N] = {0, 0, 1, 1}, in_column[N] = {1, 0, 1, 0};
    double expected[N];
    for (int i = 0; i < N; i++) {
        const double z = x[i] * x[i];
        expected[i] = 2 * x[i] * (2 * z * (in_row[i] + in_column[i] + 1) + 1);
    }
    check_equal(dx, expected);
    /* Only a part is used: the rest has gradient 0. */
    memset(dx, 0, sizeof dx);
    KIT_OK(tsr_tape_reset(tape));
    KIT_OK(tsr_tape_slice(tape, square(leaf(x, dx)), 0, 1, 1, &row));
    KIT_OK(tsr_tape_backward(tape, sum(row), 1));
    check_equal(dx, (const double[]){0, 0, 6, 1});
}

/* An output that nobody used: zeros, or absent where the operator says so; and an input without gradient. */
static void test_outputs_without_gradient(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, w[N] = {5, 6, 7, 8}, dx[N] = {0}, dw[N] = {0};
    for (int used = 0; used < 2; used++) {
        tsr_var out[2];
        KIT_OK(sum_and_difference(leaf(x, dx), leaf(w, dw), out));
        KIT_OK(tsr_tape_backward(tape, sum(out[used]), 1));
        KIT_OK(tsr_tape_reset(tape));
    }
    check_equal(dx, (const double[]){2, 2, 2, 2});
    check_equal(dw, (const double[]){0, 0, 0, 0});
    tsr_var out[2];
    KIT_OK(sum_and_difference(leaf(x, NULL), leaf(w, dw), out));
    KIT_OK(tsr_tape_backward(tape, sum(out[1]), 1));
    check_equal(dw, (const double[]){-1, -1, -1, -1});
}

/* A bf16 parameter with an f32 gradient, through an operator that writes bf16; and an f64 one. */
static void test_gradient_dtypes(void **state)
{
    (void)state;
    uint16_t x[N] = {0x3f80, 0x4000, 0xbf80, 0x0000}; /* 1 2 -1 0 */
    float dx[N] = {100, 100, 100, 100};
    const tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_BF16, N), .grad = tsr_tensor_1d(dx, TSR_F32, N)};
    tsr_var v, y, wide;
    KIT_OK(tsr_tape_parameter(tape, &p, &v));
    KIT_OK(tsr_tape_activation(tape, TSR_ACTIVATION_RELU, v, &y));
    KIT_OK(tsr_tape_copy(tape, y, TSR_F32, &wide));
    KIT_OK(tsr_tape_sum(tape, wide, &y));
    KIT_OK(tsr_tape_backward(tape, y, 0.5));
    const float expected[N] = {100.5f, 100.5f, 100, 100};
    assert_memory_equal(dx, expected, sizeof dx);
}

static void test_backward_from_any_variable(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0}, dy[N] = {1, 10, 100, 1000};
    const tsr_var y = square(leaf(x, dx));
    const tsr_tensor t = tsr_tensor_2d(dy, TSR_F64, 2, 2), wrong = tsr_tensor_1d(dy, TSR_F64, 4);
    KIT_FAILS(TSR_ERR_SHAPE, "dy is f64 [4], must be f64 [2, 2]", tsr_tape_backward_from(tape, y, &wrong));
    KIT_OK(tsr_tape_backward_from(tape, y, &t));
    check_equal(dx, (const double[]){2, 40, 600, 8000});
    check_equal(dy, (const double[]){1, 10, 100, 1000});
    KIT_FAILS(TSR_ERR_ARGUMENT, "nothing was recorded", tsr_tape_backward_from(tape, y, &t));
}

/* ---- what is refused ---- */

static void test_no_backward_is_an_error(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_tape_op op = square_op;
    op.backward = NULL;
    tsr_var y;
    n_forward_runs = 0;
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "square has no backward", apply_like(&op, leaf(x, dx), 0, &y));
    op = square_op;
    op.in[0].gradient = TSR_GRADIENT_NONE;
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "no backward for input 0", apply_like(&op, leaf(x, dx), 0, &y));
    assert_int_equal(n_forward_runs, 0);
    assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, 0);
    /* No gradient is wanted: no backward is needed. */
    KIT_OK(apply_like(&op, leaf(x, NULL), 0, &y));
    tsr_tape_set_recording(tape, 0);
    KIT_OK(apply_like(&op, leaf(x, dx), 0, &y));
    tsr_tape_set_recording(tape, 1);
    KIT_FAILS(TSR_ERR_ARGUMENT, "nothing was recorded", tsr_tape_backward(tape, sum(y), 1));
}

static void test_overwriting_a_saved_value_is_an_error(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y, view;
    const tsr_var a = square(leaf(x, dx)), b = square(a);
    KIT_FAILS(TSR_ERR_OVERLAP, "add: in place on a value that the backward of square reads",
              tsr_tape_add(tape, a, b, 1, &y));
    KIT_OK(tsr_tape_transpose(tape, a, 0, 1, &view));
    KIT_FAILS(TSR_ERR_OVERLAP, "in place on a value that the backward of square reads",
              tsr_tape_add(tape, view, b, 1, &y));
    KIT_FAILS(TSR_ERR_OVERLAP, "that its own backward reads", apply_like(&square_op, b, 1, &y));
    KIT_FAILS(TSR_ERR_OVERLAP, "not the tape's", tsr_tape_add(tape, leaf(x, NULL), a, 1, &y));
    /* b is read by nobody: it may go, and then it is gone, its views too. */
    KIT_OK(tsr_tape_transpose(tape, b, 0, 1, &view));
    KIT_OK(tsr_tape_add(tape, b, a, 1, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "overwritten by add", tsr_tape_add(tape, b, a, 0, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "overwritten by add", tsr_tape_add(tape, a, view, 0, &y));
    KIT_OK(tsr_tape_backward(tape, sum(y), 1)); /* d(x^4 + x^2) */
    check_equal(dx, (const double[]){6, 36, 114, 264});
}

static void test_handles_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y;
    tsr_tensor t;
    const tsr_var a = leaf(x, dx), b = square(a);
    KIT_FAILS(TSR_ERR_ARGUMENT, "is none", tsr_tape_value(tape, (tsr_var){0}, &t));
    tsr_tape_release(tape, b);
    tsr_tape_release(tape, b);
    KIT_FAILS(TSR_ERR_ARGUMENT, "sum: the variable was released", tsr_tape_sum(tape, b, &y));
    KIT_FAILS(TSR_ERR_SHAPE, "must be one element", tsr_tape_backward(tape, square(a), 1));
    KIT_OK(tsr_tape_reset(tape));
    KIT_FAILS(TSR_ERR_ARGUMENT, "another step", tsr_tape_value(tape, a, &t));
    tsr_tape_release(tape, a); /* of another step: nothing happens */
    tsr_tape *other;
    KIT_OK(tsr_tape_create(ctx, &other));
    KIT_FAILS(TSR_ERR_ARGUMENT, "another step or tape", tsr_tape_value(other, leaf(x, dx), &t));
    tsr_tape_destroy(other);
    KIT_FAILS(TSR_ERR_ARGUMENT, "leads to the variable", tsr_tape_backward(tape, leaf(x, dx), 1));
}

static void test_parameters_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4};
    float dx[N];
    tsr_var v;
    tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, N), .grad = tsr_tensor_1d(dx, TSR_F32, N - 1)};
    KIT_FAILS(TSR_ERR_SHAPE, "grad is [3]", tsr_tape_parameter(tape, &p, &v));
    p.grad = tsr_tensor_1d(dx, TSR_BF16, N);
    KIT_FAILS(TSR_ERR_DTYPE, "grad is bf16", tsr_tape_parameter(tape, &p, &v));
    p.value.stride[0] = 0;
    p.grad = p.value;
    KIT_FAILS(TSR_ERR_OVERLAP, "share memory", tsr_tape_parameter(tape, &p, &v));
    p.value.device = TSR_DEVICE_CUDA;
    KIT_FAILS(TSR_ERR_DEVICE, "value lies on device", tsr_tape_input(tape, &p.value, &v));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tape_input(tape, NULL, &v));
}

static void test_views_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var v;
    const tsr_var a = square(leaf(x, dx)), b = square(leaf(x, NULL));
    KIT_FAILS(TSR_ERR_SHAPE, "dimension 1", tsr_tape_slice(tape, a, 1, 1, 2, &v));
    KIT_FAILS(TSR_ERR_SHAPE, "dimensions 0 and 2", tsr_tape_transpose(tape, a, 0, 2, &v));
    KIT_FAILS(TSR_ERR_SHAPE, "elements", tsr_tape_reshape(tape, a, 1, (const int64_t[]){5}, &v));
    tsr_tensor t;
    KIT_OK(tsr_tape_value(tape, a, &t));
    t.stride[0] = 0;
    KIT_FAILS(TSR_ERR_OVERLAP, "repeats elements", tsr_tape_view(tape, a, &t, &v));
    t.stride[0] = 3;
    KIT_FAILS(TSR_ERR_SHAPE, "outside x's memory", tsr_tape_view(tape, a, &t, &v));
    /* Without a gradient elements may repeat. */
    KIT_OK(tsr_tape_value(tape, b, &t));
    t.stride[0] = 0;
    KIT_OK(tsr_tape_view(tape, b, &t, &v));
}

/* After a failure, forwards or backwards, the tape holds nothing of it and works on. */
static void test_failing_operators(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_tape_op op = square_op;
    tsr_var y;
    op.forward = failing;
    const tsr_var a = square(leaf(x, dx));
    const size_t before = tsr_tape_memory_use(tape).in_use_nbytes;
    KIT_FAILS(TSR_ERR_INDEX, "it fails", apply_like(&op, a, 0, &y));
    KIT_FAILS(TSR_ERR_INDEX, "it fails", apply_like(&op, sum(a), 0, &y));
    assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, before + 64);
    op = square_op;
    op.backward = failing;
    KIT_OK(apply_like(&op, a, 0, &y));
    KIT_FAILS(TSR_ERR_INDEX, "it fails", tsr_tape_backward(tape, sum(y), 1));
    KIT_OK(tsr_tape_reset(tape));
    assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, 0);
    memset(dx, 0, sizeof dx);
    KIT_OK(tsr_tape_backward(tape, sum(square(leaf(x, dx))), 1));
    check_equal(dx, (const double[]){2, 4, 6, 8});
}

static void test_calls_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4};
    tsr_var y[TSR_TAPE_MAX_OUT];
    tsr_tape_call call = {.op = &square_op, .n_in = 1, .n_out = 1, .in = {leaf(x, NULL)}};
    call.out[0] = tsr_tensor_1d(NULL, TSR_F64, -1);
    KIT_FAILS(TSR_ERR_SHAPE, "negative extent", tsr_tape_apply(tape, &call, y));
    call.out[0] = tsr_tensor_2d(NULL, TSR_F64, 2, 2);
    call.out[0].stride[0] = 1;
    KIT_FAILS(TSR_ERR_OVERLAP, "share memory", tsr_tape_apply(tape, &call, y));
    call.out[0].stride[0] = -2;
    KIT_FAILS(TSR_ERR_SHAPE, "negative stride", tsr_tape_apply(tape, &call, y));
    call.in_place = 2;
    KIT_FAILS(TSR_ERR_ARGUMENT, "in_place is 2", tsr_tape_apply(tape, &call, y));
    call.n_in = TSR_TAPE_MAX_IN + 1;
    KIT_FAILS(TSR_ERR_ARGUMENT, "17 inputs", tsr_tape_apply(tape, &call, y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tape_apply(tape, NULL, y));
}

/* ---- memory ---- */

enum { BIG = 1000, BIG_NBYTES = (BIG * (int)sizeof(double) + 63) / 64 * 64, LINE = 64, DEPTH = 10 };

/* y = square(square(... x)): DEPTH times; handles are released as a layer does. */
static tsr_var chain(double *x, double *dx)
{
    tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, BIG)};
    if (dx != NULL) p.grad = tsr_tensor_1d(dx, TSR_F64, BIG);
    tsr_var a;
    KIT_OK(tsr_tape_parameter(tape, &p, &a));
    for (int i = 0; i < DEPTH; i++) {
        const tsr_var b = square(a);
        tsr_tape_release(tape, a);
        a = b;
    }
    const tsr_var y = sum(a);
    tsr_tape_release(tape, a);
    return y;
}

/*
 * What must be saved: the input of every square but the first (that one is the caller's), DEPTH - 1 values;
 * then the peak is the forward's last moment, when the last square's output waits to be summed: DEPTH values
 * and the sum; or the first of the backward: the DEPTH - 1 saved, one gradient (written over each other from
 * there on), the loss and its gradient.
 */
static void test_peak_is_what_must_be_saved(void **state)
{
    (void)state;
    static double x[BIG], dx[BIG];
    const tsr_var y = chain(x, dx);
    const tsr_tape_memory forward = tsr_tape_memory_use(tape);
    assert_int_equal(forward.in_use_nbytes, (DEPTH - 1) * BIG_NBYTES + LINE);
    assert_int_equal(forward.step_peak_nbytes, DEPTH * BIG_NBYTES + LINE);
    KIT_OK(tsr_tape_backward(tape, y, 1));
    const tsr_tape_memory backward = tsr_tape_memory_use(tape);
    assert_int_equal(backward.in_use_nbytes, LINE); /* the loss, still held */
    assert_int_equal(backward.step_peak_nbytes, DEPTH * BIG_NBYTES + 2 * LINE);
    assert_int_equal(backward.peak_nbytes, backward.step_peak_nbytes);
    assert_true(backward.reserved_nbytes >= backward.peak_nbytes);
}

/* Without gradients two values are alive at a time, however deep the chain is. */
static void test_inference_keeps_nothing(void **state)
{
    (void)state;
    static double x[BIG], dx[BIG];
    chain(x, NULL);
    assert_int_equal(tsr_tape_memory_use(tape).step_peak_nbytes, 2 * BIG_NBYTES);
    KIT_OK(tsr_tape_reset(tape));
    tsr_tape_set_recording(tape, 0);
    chain(x, dx);
    assert_int_equal(tsr_tape_memory_use(tape).step_peak_nbytes, 2 * BIG_NBYTES);
    assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, LINE);
}

static void test_steady_state_allocates_nothing(void **state)
{
    (void)state;
    enum { ROWS = 1 << 18 }; /* 2 MiB a value: the first step needs several segments */
    static double x[ROWS], dx[ROWS];
    uint64_t n_after_two = 0;
    size_t reserved = 0;
    for (int step = 0; step < 5; step++) {
        tsr_var a, b = {0};
        const tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, ROWS),
                                 .grad = tsr_tensor_1d(dx, TSR_F64, ROWS)};
        KIT_OK(tsr_tape_parameter(tape, &p, &a));
        for (int i = 0; i < 4; i++, a = b) b = square(a);
        KIT_OK(tsr_tape_backward(tape, sum(a), 1));
        KIT_OK(tsr_tape_reset(tape));
        const tsr_tape_memory m = tsr_tape_memory_use(tape);
        if (step == 0) assert_true(m.n_allocations > 2);
        if (step == 1) n_after_two = m.n_allocations, reserved = m.reserved_nbytes;
        if (step > 1) assert_int_equal(m.n_allocations, n_after_two);
        if (step > 1) assert_int_equal(m.reserved_nbytes, reserved);
    }
    assert_true(reserved < 2 * tsr_tape_memory_use(tape).peak_nbytes);
}

/* A gradient is written over a value only if nobody will look at the value again. */
static void test_held_values_stay(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y, z;
    tsr_tensor t;
    const tsr_var gate = square(leaf(x, dx)), up = square(leaf(x, dx));
    KIT_OK(tsr_tape_swiglu(tape, gate, up, &y));
    KIT_OK(tsr_tape_softmax(tape, y, &z));
    KIT_OK(tsr_tape_backward(tape, sum(z), 1));
    KIT_OK(tsr_tape_value(tape, gate, &t));
    check_equal(t.data, (const double[]){1, 4, 9, 16});
    KIT_OK(tsr_tape_value(tape, up, &t));
    check_equal(t.data, (const double[]){1, 4, 9, 16});
}

/* ---- random programs against a plain twin ---- */

/*
 * A program over values [2, 2]: each line makes a value from one or two earlier ones. The tape runs it with
 * handles released at random, some sums in place; the twin keeps everything and goes back line by line.
 */
enum { LINES = 24 };
typedef enum line_kind { LEAF, SQUARE, ADD, ADD_IN_PLACE, SWIGLU, SILU, TRANSPOSE, N_KINDS } line_kind;
typedef struct program {
    line_kind kind[LINES];
    int a[LINES], b[LINES];
    double value[LINES][N], grad[LINES][N];
} program;

static double silu(double x) { return x / (1 + exp(-x)); }
static double silu_slope(double x)
{
    const double s = 1 / (1 + exp(-x));
    return s + x * s * (1 - s);
}
static int turned(int i) { return i % 2 * 2 + i / 2; }

static void twin_forward(program *p, int l)
{
    const double *a = p->value[p->a[l]], *b = p->value[p->b[l]];
    for (int i = 0; i < N; i++) {
        double *y = &p->value[l][i];
        switch (p->kind[l]) {
        case SQUARE: *y = a[i] * a[i]; break;
        case ADD:
        case ADD_IN_PLACE: *y = a[i] + b[i]; break;
        case SWIGLU: *y = silu(a[i]) * b[i]; break;
        case SILU: *y = silu(a[i]); break;
        case TRANSPOSE: *y = a[turned(i)]; break;
        case LEAF:
        case N_KINDS: break;
        }
    }
}

static void twin_backward(program *p, int l)
{
    const double *a = p->value[p->a[l]], *b = p->value[p->b[l]];
    double *da = p->grad[p->a[l]], *db = p->grad[p->b[l]];
    for (int i = 0; i < N; i++) {
        const double dy = p->grad[l][i];
        switch (p->kind[l]) {
        case SQUARE: da[i] += 2 * a[i] * dy; break;
        case ADD:
        case ADD_IN_PLACE: da[i] += dy, db[i] += dy; break;
        case SWIGLU: da[i] += silu_slope(a[i]) * b[i] * dy, db[i] += silu(a[i]) * dy; break;
        case SILU: da[i] += silu_slope(a[i]) * dy; break;
        case TRANSPOSE: da[turned(i)] += dy; break;
        case LEAF:
        case N_KINDS: break;
        }
    }
}

static tsr_status tape_line(const program *p, int l, const tsr_var *v, tsr_var *y)
{
    const tsr_var a = v[p->a[l]], b = v[p->b[l]];
    switch (p->kind[l]) {
    case SQUARE: return apply_like(&square_op, a, 0, y);
    case ADD: return tsr_tape_add(tape, a, b, 0, y);
    case ADD_IN_PLACE: return tsr_tape_add(tape, a, b, 1, y);
    case SWIGLU: return tsr_tape_swiglu(tape, a, b, y);
    case SILU: return tsr_tape_activation(tape, TSR_ACTIVATION_SILU, a, y);
    case TRANSPOSE: return tsr_tape_transpose(tape, a, 0, 1, y);
    case LEAF:
    case N_KINDS: break;
    }
    return TSR_ERR_ARGUMENT;
}

/* Writes and runs line l. A line that the tape refuses (in place on a saved value, a value that is gone) is
 * rewritten until one is taken. */
static void next_line(program *p, int l, tsr_random *r, tsr_var *v)
{
    tsr_status status;
    do {
        p->kind[l] = (line_kind)(1 + tsr_random_below(r, N_KINDS - 1));
        p->a[l] = (int)tsr_random_below(r, (uint64_t)l);
        p->b[l] = (int)tsr_random_below(r, (uint64_t)l);
        status = tape_line(p, l, v, &v[l]);
        assert_true(status == TSR_OK || status == TSR_ERR_OVERLAP || status == TSR_ERR_ARGUMENT);
    } while (status != TSR_OK);
    twin_forward(p, l);
    double largest = 0;
    for (int i = 0; i < N; i++) largest = fmax(largest, fabs(p->value[l][i]));
    assert_true(isfinite(largest));
    if (tsr_random_below(r, 3) == 0) tsr_tape_release(tape, v[tsr_random_below(r, (uint64_t)l)]);
}

/* The sum of all values that can still be used; starts the twin's gradients. */
static tsr_var total(program *p, const tsr_var *v)
{
    tsr_var all = sum(v[LINES - 1]), one;
    for (int i = 0; i < N; i++) p->grad[LINES - 1][i] = 1;
    for (int l = 2; l < LINES - 1; l++) {
        if (tsr_tape_sum(tape, v[l], &one) != TSR_OK) continue;
        all = add(all, one);
        for (int i = 0; i < N; i++) p->grad[l][i] = 1;
    }
    return all;
}

static void run_program(uint64_t seed)
{
    tsr_random r = {.seed = seed};
    static program p;
    tsr_var v[LINES];
    double dx[2][N] = {{0}};
    memset(&p, 0, sizeof p);
    for (int l = 0; l < 2; l++) {
        for (int i = 0; i < N; i++) p.value[l][i] = 0.6 * tsr_random_uniform(&r) - 0.3;
        v[l] = leaf(p.value[l], dx[l]);
    }
    for (int l = 2; l < LINES; l++) next_line(&p, l, &r, v);
    KIT_OK(tsr_tape_backward(tape, total(&p, v), 1));
    for (int l = LINES - 1; l >= 2; l--) twin_backward(&p, l);
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < N; i++)
            if (fabs(dx[l][i] - p.grad[l][i]) > 1e-12 * (1 + fabs(p.grad[l][i])))
                fail_msg("seed %d: leaf %d element %d: %.17g, must be %.17g", (int)seed, l, i, dx[l][i],
                         p.grad[l][i]);
    KIT_OK(tsr_tape_reset(tape));
    assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, 0);
}

static void test_random_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) run_program(seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_shared_inputs_accumulate),
        TEST(test_one_variable_twice_in_one_operator),
        TEST(test_views_lead_to_one_gradient),
        TEST(test_outputs_without_gradient),
        TEST(test_gradient_dtypes),
        TEST(test_backward_from_any_variable),
        TEST(test_no_backward_is_an_error),
        TEST(test_overwriting_a_saved_value_is_an_error),
        TEST(test_handles_are_checked),
        TEST(test_parameters_are_checked),
        TEST(test_views_are_checked),
        TEST(test_failing_operators),
        TEST(test_calls_are_checked),
        TEST(test_peak_is_what_must_be_saved),
        TEST(test_inference_keeps_nothing),
        TEST(test_steady_state_allocates_nothing),
        TEST(test_held_values_stay),
        TEST(test_random_programs),
    };
    return cmocka_run_group_tests_name("tape", tests, NULL, NULL);
}
