/* check_softmax.c - softmax of the cpu backend on every instruction set, against the reference and itself */
#include <math.h>

#include "kit/trial.h"
#include "tessera/softmax.h"

static tsr_status fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return (void)options, tsr_softmax_fwd(ctx, &in[0], &out[0]);
}
static tsr_status bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return (void)options, tsr_softmax_bwd(ctx, &in[0], &in[1], &out[0]);
}

static kit_trial fwd_trial(tsr_tensor x, kit_layout layout)
{
    kit_trial t = {.what = "softmax_fwd", .run = fwd, .n_in = 1, .n_out = 1, .batch_in = 1, .batch_out = 1};
    t.bound = (kit_bound){.rel = 2e-6, .of_largest = 2};
    t.in[0] = x, t.out[0] = kit_like(&x, x.dtype, layout);
    return t;
}

static kit_trial bwd_trial(tsr_tensor y, kit_layout layout)
{
    kit_trial t = {.what = "softmax_bwd", .run = bwd, .n_in = 2, .n_out = 1, .batch_in = 3, .batch_out = 1};
    t.bound = (kit_bound){.rel = 2e-6, .of_largest = 8};
    t.in[0] = y, t.in[1] = kit_normal(kit_like(&y, y.dtype, layout));
    t.out[0] = kit_like(&y, y.dtype, layout);
    return t;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 60; trial++) {
        const tsr_dtype dtype = kit_any_float();
        const int64_t m = kit_between(1, 6), n = kit_any_length();
        kit_trial t = fwd_trial(kit_uniform(KIT_NEW(dtype, kit_any_input(), m, n), -30, 30),
                                kit_any_output());
        kit_check_trial(ctx, &t);
        t = bwd_trial(kit_uniform(KIT_NEW(dtype, kit_any_input(), m, n), 0, 1), kit_any_output());
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_against_reference(void **state)
{
    (void)state;
    kit_for_each_isa(random_trials);
}

static void same_bits(tsr_context *ctx)
{
    (void)ctx;
    kit_trial t = fwd_trial(kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 90, 600)), KIT_ROWS);
    kit_check_trial_bits(&t);
    t = bwd_trial(kit_uniform(KIT_NEW(TSR_BF16, KIT_PADDED, 300, 130), 0, 1), KIT_ROWS);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

/* Rows that rise and fall over more than one chunk; -Inf in places and throughout; NaN and Inf in one row
 * each. */
static void edges(tsr_context *ctx)
{
    enum { N = 1100 };
    const tsr_tensor x = kit_uniform(KIT_NEW(TSR_F32, KIT_ROWS, 8, N), -1, 1);
    for (int64_t j = 0; j < N; j++) {
        kit_set(&x, 0 * N + j, (double)j * 0.9);
        kit_set(&x, 1 * N + j, (double)-j * 0.9);
        kit_set(&x, 2 * N + j, -INFINITY);
        if (j < 700) kit_set(&x, 3 * N + j, -INFINITY);
        kit_set(&x, 6 * N + j, j == 5 ? NAN : -INFINITY);
        kit_set(&x, 7 * N + j, (j % 3) * 1e38);
    }
    kit_set(&x, 4 * N + 17, NAN);
    kit_set(&x, 5 * N + 600, INFINITY);
    const kit_trial t = fwd_trial(x, KIT_ROWS);
    kit_check_trial(ctx, &t);
    assert_true(kit_get(&t.out[0], 2 * N + 9) == 0);
    kit_free_all();
}
static void test_edges(void **state)
{
    (void)state;
    kit_for_each_isa(edges);
}

static void in_place(tsr_context *ctx)
{
    for (int trial = 0; trial < 8; trial++) {
        kit_trial t = fwd_trial(kit_normal(KIT_NEW(kit_any_float(), kit_any_output(), 3, kit_any_length())),
                                KIT_ROWS);
        t.out[0] = t.in[0];
        kit_check_trial(ctx, &t);
        t = bwd_trial(t.out[0], kit_any_output());
        t.out[0] = t.in[1];
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_in_place(void **state)
{
    (void)state;
    kit_for_each_isa(in_place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_in_place),
    };
    return cmocka_run_group_tests_name("softmax", tests, NULL, NULL);
}
