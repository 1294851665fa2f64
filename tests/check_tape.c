/*
 * check_tape.c - the tape itself: sums of gradients, and what it refuses
 *
 * On the reference backend in f64, with operators of the kit beside the library's, so that every way of
 * making a gradient occurs (written, added, passed on, over other memory, from some outputs only).
 */
#include "kit/kit.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "kit/tape.h"
#include "tessera/tape_ops.h"

static tsr_status failing(const tsr_tape_io *io)
{
    (void)io;
    return tsr_fail(TSR_ERR_INDEX, "it fails");
}

static tsr_status sum_and_difference(tsr_var a, tsr_var b, tsr_var *out)
{
    const tsr_tensor t = tsr_tensor_2d(NULL, TSR_F64, 2, 2);
    const tsr_tape_call call = {
        .op = &kit_sum_difference_op, .n_in = 2, .n_out = 2, .in = {a, b}, .out = {t, t}};
    return tsr_tape_apply(kit_tape, &call, out);
}

/* ---- gradients ---- */

/* y = sum((x + x^2) + x): added by an operator, passed on twice, shared with dout when it is added
 * to. */
static void test_shared_inputs_accumulate(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, dx[N] = {0}, expected[N];
    const tsr_var v = kit_var_leaf(x, dx);
    const tsr_var inner = kit_var_add(v, v); /* 2x: a variable whose gradient is the tape's own */
    const tsr_var y = kit_var_sum(kit_var_add(kit_var_add(inner, kit_var_square(inner)), inner));
    KIT_OK(tsr_tape_backward(kit_tape, y, 1));
    for (int i = 0; i < N; i++) expected[i] = 2 * (1 + 2 * 2 * x[i] + 1);
    kit_check_equal(dx, expected);
    /* A second step adds to what is there; its scale is that of the loss. */
    KIT_OK(tsr_tape_reset(kit_tape));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(kit_var_square(kit_var_leaf(x, dx))), 0.5));
    for (int i = 0; i < N; i++) expected[i] += x[i];
    kit_check_equal(dx, expected);
}

/* One operator, one variable in two places: swiglu(a, a), a = x + 1; (a + a, a - a), a = x^2. */
static void test_one_variable_twice_in_one_operator(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, ones[N] = {1, 1, 1, 1}, dx[N] = {0};
    const tsr_var a = kit_var_add(kit_var_leaf(x, dx), kit_var_leaf(ones, NULL));
    tsr_var y;
    KIT_OK(tsr_tape_swiglu(kit_tape, a, a, &y));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(y), 1));
    for (int i = 0; i < N; i++) {
        const double z = x[i] + 1, s = 1 / (1 + exp(-z));
        const double expected = 2 * z * s + z * z * s * (1 - s); /* d(z^2 s(z)) / dz */
        if (fabs(dx[i] - expected) > 1e-12) fail_msg("element %d is %g, must be %g", i, dx[i], expected);
    }
    KIT_OK(tsr_tape_reset(kit_tape));
    memset(dx, 0, sizeof dx);
    tsr_var out[2];
    const tsr_var b = kit_var_square(kit_var_leaf(x, dx));
    KIT_OK(sum_and_difference(b, b, out));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(out[0]), 1));
    kit_check_equal(dx, (const double[]){4, -8, 12, 2});
}

static void test_views_lead_to_one_gradient(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, dx[N] = {0};
    tsr_var row, column, transposed, flat;
    const tsr_var a = kit_var_square(
        kit_var_leaf(x, dx)); /* its gradient: first a part, then more parts, then all */
    KIT_OK(tsr_tape_slice(kit_tape, a, 0, 1, 1, &row));
    KIT_OK(tsr_tape_slice(kit_tape, a, 1, 0, 1, &column));
    KIT_OK(tsr_tape_transpose(kit_tape, a, 0, 1, &transposed));
    KIT_OK(tsr_tape_reshape(kit_tape, a, 1, (const int64_t[]){4}, &flat));
    const tsr_var parts = kit_var_add(
        kit_var_add(kit_var_sum(kit_var_square(row)), kit_var_sum(kit_var_square(column))),
        kit_var_sum(transposed));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_add(parts, kit_var_sum(kit_var_square(flat))), 1));
    const int in_row[N] = {0, 0, 1, 1}, in_column[N] = {1, 0, 1, 0};
    double expected[N];
    for (int i = 0; i < N; i++) {
        const double z = x[i] * x[i];
        expected[i] = 2 * x[i] * (2 * z * (in_row[i] + in_column[i] + 1) + 1);
    }
    kit_check_equal(dx, expected);
    /* Only a part is used: the rest has gradient 0. */
    memset(dx, 0, sizeof dx);
    KIT_OK(tsr_tape_reset(kit_tape));
    KIT_OK(tsr_tape_slice(kit_tape, kit_var_square(kit_var_leaf(x, dx)), 0, 1, 1, &row));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(row), 1));
    kit_check_equal(dx, (const double[]){0, 0, 6, 1});
}

/* d(x^2 + detached(x^2)): only one term counts. The value stays as long as the detached handle does. */
static void test_detached_variables(void **state)
{
    (void)state;
    double x[N] = {1, -2, 3, 0.5}, dx[N] = {0}, expected[N];
    tsr_var fixed, sums[2];
    tsr_tensor t;
    const tsr_var a = kit_var_square(kit_var_leaf(x, dx));
    KIT_OK(tsr_tape_detach(kit_tape, a, &fixed));
    KIT_OK(sum_and_difference(a, fixed, sums));
    KIT_FAILS(TSR_ERR_ARGUMENT, "nothing was recorded",
              tsr_tape_backward(kit_tape, kit_var_sum(kit_var_square(fixed)), 1));
    tsr_tape_release(kit_tape, a);
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(sums[0]), 1));
    for (int i = 0; i < N; i++) expected[i] = 2 * x[i];
    kit_check_equal(dx, expected);
    KIT_OK(tsr_tape_value(kit_tape, fixed, &t));
    for (int i = 0; i < N; i++) expected[i] = x[i] * x[i];
    kit_check_equal(t.data, expected);
}

/* An output that nobody used: zeros, or absent where the operator says so; and an input without gradient. */
static void test_outputs_without_gradient(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, w[N] = {5, 6, 7, 8}, dx[N] = {0}, dw[N] = {0};
    for (int used = 0; used < 2; used++) {
        tsr_var out[2];
        KIT_OK(sum_and_difference(kit_var_leaf(x, dx), kit_var_leaf(w, dw), out));
        KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(out[used]), 1));
        KIT_OK(tsr_tape_reset(kit_tape));
    }
    kit_check_equal(dx, (const double[]){2, 2, 2, 2});
    kit_check_equal(dw, (const double[]){0, 0, 0, 0});
    tsr_var out[2];
    KIT_OK(sum_and_difference(kit_var_leaf(x, NULL), kit_var_leaf(w, dw), out));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(out[1]), 1));
    kit_check_equal(dw, (const double[]){-1, -1, -1, -1});
}

/* A bf16 parameter with an f32 gradient, through an operator that writes bf16; and an f64 one. */
static void test_gradient_dtypes(void **state)
{
    (void)state;
    uint16_t x[N] = {0x3f80, 0x4000, 0xbf80, 0x0000}; /* 1 2 -1 0 */
    float dx[N] = {100, 100, 100, 100};
    const tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_BF16, N), .grad = tsr_tensor_1d(dx, TSR_F32, N)};
    tsr_var v, y, wide;
    KIT_OK(tsr_tape_parameter(kit_tape, &p, &v));
    KIT_OK(tsr_tape_activation(kit_tape, TSR_ACTIVATION_RELU, v, &y));
    KIT_OK(tsr_tape_copy(kit_tape, y, TSR_F32, &wide));
    KIT_OK(tsr_tape_sum(kit_tape, wide, &y));
    KIT_OK(tsr_tape_backward(kit_tape, y, 0.5));
    const float expected[N] = {100.5f, 100.5f, 100, 100};
    assert_memory_equal(dx, expected, sizeof dx);
}

static void test_backward_from_any_variable(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0}, dy[N] = {1, 10, 100, 1000};
    const tsr_var y = kit_var_square(kit_var_leaf(x, dx));
    const tsr_tensor t = tsr_tensor_2d(dy, TSR_F64, 2, 2), wrong = tsr_tensor_1d(dy, TSR_F64, 4);
    KIT_FAILS(TSR_ERR_SHAPE, "dy is f64 [4], must be f64 [2, 2]",
              tsr_tape_backward_from(kit_tape, y, &wrong));
    KIT_OK(tsr_tape_backward_from(kit_tape, y, &t));
    kit_check_equal(dx, (const double[]){2, 40, 600, 8000});
    kit_check_equal(dy, (const double[]){1, 10, 100, 1000});
    KIT_FAILS(TSR_ERR_ARGUMENT, "nothing was recorded", tsr_tape_backward_from(kit_tape, y, &t));
}

/* ---- what is refused ---- */

static void test_no_backward_is_an_error(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_tape_op op = kit_square_op;
    op.backward = NULL;
    tsr_var y;
    kit_n_square_runs = 0;
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "square has no backward", kit_apply_like(&op, kit_var_leaf(x, dx), 0, &y));
    op = kit_square_op;
    op.in[0].gradient = TSR_GRADIENT_NONE;
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "no backward for input 0",
              kit_apply_like(&op, kit_var_leaf(x, dx), 0, &y));
    assert_int_equal(kit_n_square_runs, 0);
    assert_int_equal(tsr_tape_memory_use(kit_tape).in_use_nbytes, 0);
    /* No gradient is wanted: no backward is needed. */
    KIT_OK(kit_apply_like(&op, kit_var_leaf(x, NULL), 0, &y));
    tsr_tape_set_recording(kit_tape, 0);
    KIT_OK(kit_apply_like(&op, kit_var_leaf(x, dx), 0, &y));
    tsr_tape_set_recording(kit_tape, 1);
    KIT_FAILS(TSR_ERR_ARGUMENT, "nothing was recorded", tsr_tape_backward(kit_tape, kit_var_sum(y), 1));
}

static void test_overwriting_a_saved_value_is_an_error(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y, view;
    const tsr_var a = kit_var_square(kit_var_leaf(x, dx)), b = kit_var_square(a);
    KIT_FAILS(TSR_ERR_OVERLAP, "add: in place on a value that the backward of square reads",
              tsr_tape_add(kit_tape, a, b, 1, &y));
    KIT_OK(tsr_tape_transpose(kit_tape, a, 0, 1, &view));
    KIT_FAILS(TSR_ERR_OVERLAP, "in place on a value that the backward of square reads",
              tsr_tape_add(kit_tape, view, b, 1, &y));
    KIT_FAILS(TSR_ERR_OVERLAP, "that its own backward reads", kit_apply_like(&kit_square_op, b, 1, &y));
    KIT_FAILS(TSR_ERR_OVERLAP, "not the tape's", tsr_tape_add(kit_tape, kit_var_leaf(x, NULL), a, 1, &y));
    /* b is read by nobody: it may go, and then it is gone, its views too. */
    KIT_OK(tsr_tape_transpose(kit_tape, b, 0, 1, &view));
    KIT_OK(tsr_tape_add(kit_tape, b, a, 1, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "overwritten by add", tsr_tape_add(kit_tape, b, a, 0, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "overwritten by add", tsr_tape_add(kit_tape, a, view, 0, &y));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(y), 1)); /* d(x^4 + x^2) */
    kit_check_equal(dx, (const double[]){6, 36, 114, 264});
}

static void test_handles_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y;
    tsr_tensor t;
    const tsr_var a = kit_var_leaf(x, dx), b = kit_var_square(a);
    KIT_FAILS(TSR_ERR_ARGUMENT, "is none", tsr_tape_value(kit_tape, (tsr_var){0}, &t));
    tsr_tape_release(kit_tape, b);
    tsr_tape_release(kit_tape, b);
    KIT_FAILS(TSR_ERR_ARGUMENT, "sum: the variable was released", tsr_tape_sum(kit_tape, b, &y));
    KIT_FAILS(TSR_ERR_SHAPE, "must be one element", tsr_tape_backward(kit_tape, kit_var_square(a), 1));
    KIT_OK(tsr_tape_reset(kit_tape));
    KIT_FAILS(TSR_ERR_ARGUMENT, "another step", tsr_tape_value(kit_tape, a, &t));
    tsr_tape_release(kit_tape, a); /* of another step: nothing happens */
    tsr_tape *other;
    KIT_OK(tsr_tape_create(tsr_tape_context(kit_tape), &other));
    KIT_FAILS(TSR_ERR_ARGUMENT, "another step or tape", tsr_tape_value(other, kit_var_leaf(x, dx), &t));
    tsr_tape_destroy(other);
    KIT_FAILS(TSR_ERR_ARGUMENT, "leads to the variable", tsr_tape_backward(kit_tape, kit_var_leaf(x, dx), 1));
}

static void test_parameters_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4};
    float dx[N];
    tsr_var v;
    tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, N), .grad = tsr_tensor_1d(dx, TSR_F32, N - 1)};
    KIT_FAILS(TSR_ERR_SHAPE, "grad is [3]", tsr_tape_parameter(kit_tape, &p, &v));
    p.grad = tsr_tensor_1d(dx, TSR_BF16, N);
    KIT_FAILS(TSR_ERR_DTYPE, "grad is bf16", tsr_tape_parameter(kit_tape, &p, &v));
    p.grad = tsr_tensor_1d(dx, TSR_F32, N);
    KIT_FAILS(TSR_ERR_DTYPE, "grad is f32", tsr_tape_parameter(kit_tape, &p, &v));
    p.value.stride[0] = 0;
    p.grad = p.value;
    KIT_FAILS(TSR_ERR_OVERLAP, "share memory", tsr_tape_parameter(kit_tape, &p, &v));
    p.value.device = TSR_DEVICE_CUDA;
    KIT_FAILS(TSR_ERR_DEVICE, "value lies on device", tsr_tape_input(kit_tape, &p.value, &v));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tape_input(kit_tape, NULL, &v));
}

static void test_views_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var v;
    const tsr_var a = kit_var_square(kit_var_leaf(x, dx)), b = kit_var_square(kit_var_leaf(x, NULL));
    KIT_FAILS(TSR_ERR_SHAPE, "dimension 1", tsr_tape_slice(kit_tape, a, 1, 1, 2, &v));
    KIT_FAILS(TSR_ERR_SHAPE, "dimensions 0 and 2", tsr_tape_transpose(kit_tape, a, 0, 2, &v));
    KIT_FAILS(TSR_ERR_SHAPE, "elements", tsr_tape_reshape(kit_tape, a, 1, (const int64_t[]){5}, &v));
    tsr_tensor t;
    KIT_OK(tsr_tape_value(kit_tape, a, &t));
    t.stride[0] = 0;
    KIT_FAILS(TSR_ERR_OVERLAP, "repeats elements", tsr_tape_view(kit_tape, a, &t, &v));
    t.stride[0] = 3;
    KIT_FAILS(TSR_ERR_SHAPE, "outside x's memory", tsr_tape_view(kit_tape, a, &t, &v));
    /* Without a gradient elements may repeat. */
    KIT_OK(tsr_tape_value(kit_tape, b, &t));
    t.stride[0] = 0;
    KIT_OK(tsr_tape_view(kit_tape, b, &t, &v));
}

/* After a failure, forwards or backwards, the tape holds nothing of it and works on. */
static void test_failing_operators(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_tape_op op = kit_square_op;
    tsr_var y;
    op.forward = failing;
    const tsr_var a = kit_var_square(kit_var_leaf(x, dx));
    const size_t before = tsr_tape_memory_use(kit_tape).in_use_nbytes;
    KIT_FAILS(TSR_ERR_INDEX, "it fails", kit_apply_like(&op, a, 0, &y));
    KIT_FAILS(TSR_ERR_INDEX, "it fails", kit_apply_like(&op, kit_var_sum(a), 0, &y));
    assert_int_equal(tsr_tape_memory_use(kit_tape).in_use_nbytes, before + 64);
    op = kit_square_op;
    op.backward = failing;
    KIT_OK(kit_apply_like(&op, a, 0, &y));
    KIT_FAILS(TSR_ERR_INDEX, "it fails", tsr_tape_backward(kit_tape, kit_var_sum(y), 1));
    KIT_OK(tsr_tape_reset(kit_tape));
    assert_int_equal(tsr_tape_memory_use(kit_tape).in_use_nbytes, 0);
    memset(dx, 0, sizeof dx);
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(kit_var_square(kit_var_leaf(x, dx))), 1));
    kit_check_equal(dx, (const double[]){2, 4, 6, 8});
}

static void test_calls_are_checked(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4};
    tsr_var y[TSR_TAPE_MAX_OUT];
    tsr_tape_call call = {.op = &kit_square_op, .n_in = 1, .n_out = 1, .in = {kit_var_leaf(x, NULL)}};
    call.out[0] = tsr_tensor_1d(NULL, TSR_F64, -1);
    KIT_FAILS(TSR_ERR_SHAPE, "negative extent", tsr_tape_apply(kit_tape, &call, y));
    call.out[0] = tsr_tensor_2d(NULL, TSR_F64, 2, 2);
    call.out[0].stride[0] = 1;
    KIT_FAILS(TSR_ERR_OVERLAP, "share memory", tsr_tape_apply(kit_tape, &call, y));
    call.out[0].stride[0] = -2;
    KIT_FAILS(TSR_ERR_SHAPE, "negative stride", tsr_tape_apply(kit_tape, &call, y));
    call.in_place = 2;
    KIT_FAILS(TSR_ERR_ARGUMENT, "in_place is 2", tsr_tape_apply(kit_tape, &call, y));
    call.n_in = TSR_TAPE_MAX_IN + 1;
    KIT_FAILS(TSR_ERR_ARGUMENT, "17 inputs", tsr_tape_apply(kit_tape, &call, y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tape_apply(kit_tape, NULL, y));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_tape_set_up, kit_tape_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_shared_inputs_accumulate),
        TEST(test_one_variable_twice_in_one_operator),
        TEST(test_views_lead_to_one_gradient),
        TEST(test_detached_variables),
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
    };
    return cmocka_run_group_tests_name("tape", tests, NULL, NULL);
}
