/* check_activation.c - activations and SwiGLU of the cpu backend, against the reference and itself */
#include <math.h>

#include "kit/trial.h"
#include "tessera/activation.h"

static tsr_status fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return tsr_activation_fwd(ctx, *(const tsr_activation *)options, &in[0], &out[0]);
}
static tsr_status bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return tsr_activation_bwd(ctx, *(const tsr_activation *)options, &in[0], &in[1], &out[0]);
}
static tsr_status gated_fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out,
                            const void *options)
{
    return (void)options, tsr_swiglu_fwd(ctx, &in[0], &in[1], &out[0]);
}
static tsr_status gated_bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out,
                            const void *options)
{
    return (void)options, tsr_swiglu_bwd(ctx, &in[0], &in[1], &in[2], &out[0], &out[1]);
}

static const tsr_activation all[] = {TSR_ACTIVATION_NONE, TSR_ACTIVATION_RELU, TSR_ACTIVATION_GELU,
                                     TSR_ACTIVATION_GELU_TANH, TSR_ACTIVATION_SILU};
enum { N_ACTIVATIONS = sizeof all / sizeof *all };
static const char *const names[] = {"none", "relu", "gelu", "gelu_tanh", "silu"};

/* A slope adds up terms as large as itself, each with the error of a sigmoid. */
static const kit_bound bound = {.abs = 2e-7, .rel = 4e-7}, slope_bound = {.abs = 5e-7, .rel = 8e-7};

static kit_trial trial_of(tsr_tensor x, int activation, bool backward, kit_layout layout)
{
    kit_trial t = {.what = names[activation], .run = backward ? bwd : fwd, .options = &all[activation]};
    t.n_in = backward ? 2 : 1, t.n_out = 1, t.bound = backward ? slope_bound : bound;
    t.batch_in = 3, t.batch_out = 1;
    t.in[0] = x;
    if (backward) t.in[1] = kit_uniform(kit_like(&x, x.dtype, layout), -1, 1);
    t.out[0] = kit_like(&x, x.dtype, layout);
    return t;
}

static kit_trial gated_trial_of(tsr_tensor gate, bool backward, kit_layout layout)
{
    kit_trial t = {.what = backward ? "swiglu_bwd" : "swiglu_fwd", .run = backward ? gated_bwd : gated_fwd};
    t.n_in = backward ? 3 : 2, t.n_out = backward ? 2 : 1, t.bound = backward ? slope_bound : bound;
    t.batch_in = 7, t.batch_out = 3;
    t.in[0] = gate;
    for (int i = 1; i < t.n_in; i++) t.in[i] = kit_uniform(kit_like(&gate, gate.dtype, layout), -1, 1);
    for (int i = 0; i < t.n_out; i++) t.out[i] = kit_like(&gate, gate.dtype, layout);
    return t;
}

static tsr_tensor any_x(double reach)
{
    const int64_t a = kit_between(1, 4), b = kit_between(1, 3), c = kit_any_length();
    return kit_uniform(KIT_NEW(kit_any_float(), kit_any_input(), a, b, c), -reach, reach);
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 8; trial++) {
        for (int i = 0; i < 2 * N_ACTIVATIONS; i++) {
            const kit_trial t = trial_of(any_x(trial % 2 ? 3 : 20), i / 2, i % 2 == 1, kit_any_output());
            kit_check_trial(ctx, &t);
            kit_free_all();
        }
        for (int backward = 0; backward < 2; backward++) {
            const kit_trial t = gated_trial_of(any_x(8), backward == 1, kit_any_output());
            kit_check_trial(ctx, &t);
            kit_free_all();
        }
    }
}
static void test_against_reference(void **state)
{
    (void)state;
    kit_for_each_isa(random_trials);
}

/* The whole range in f32: tails, huge numbers, NaN, +Inf. */
static void far_out(tsr_context *ctx)
{
    for (int i = 0; i < 2 * N_ACTIVATIONS; i++) {
        tsr_tensor x = KIT_NEW(TSR_F32, KIT_ROWS, 4000);
        for (int64_t j = 0; j < 4000; j++)
            kit_set(&x, j,
                    (j % 2 ? -1 : 1) *
                        ldexp(1 + tsr_random_uniform(kit_random()), (int)kit_between(-140, 126)));
        kit_set(&x, 7, NAN);
        kit_set(&x, 8, INFINITY);
        kit_set(&x, 9, 0);
        kit_set(&x, 10, -0.0);
        const kit_trial t = trial_of(x, i / 2, i % 2 == 1, KIT_ROWS);
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_far_out(void **state)
{
    (void)state;
    kit_for_each_isa(far_out);
}

static void same_bits(tsr_context *ctx)
{
    (void)ctx;
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), KIT_PADDED, 130, 401));
        const kit_trial f = trial_of(x, i, false, KIT_ROWS), b = trial_of(x, i, true, KIT_ROWS);
        kit_check_trial_bits(&f);
        kit_check_trial_bits(&b);
        kit_free_all();
    }
    const kit_trial t = gated_trial_of(kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 130, 401)), true, KIT_ROWS);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

static void in_place(tsr_context *ctx)
{
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), kit_any_output(), 5, kit_any_length()));
        kit_trial t = trial_of(x, i, true, kit_any_output());
        t.out[0] = t.in[1]; /* dx is dy */
        kit_check_trial(ctx, &t);
        t = trial_of(x, i, false, KIT_ROWS);
        t.out[0] = x;
        kit_check_trial(ctx, &t);
        t = gated_trial_of(kit_normal(kit_like(&x, x.dtype, kit_any_output())), true, kit_any_output());
        t.out[0] = t.in[0], t.out[1] = t.in[1];
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
        cmocka_unit_test(test_far_out),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_in_place),
    };
    return cmocka_run_group_tests_name("activation", tests, NULL, NULL);
}
