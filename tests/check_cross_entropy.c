/* check_cross_entropy.c - the fused cross-entropy of the cpu backend, against the reference and itself */
#include <math.h>

#include "kit/trial.h"
#include "tessera/cross_entropy.h"

enum { IGNORE = -100 };

/* in: x, w, targets; out: loss, lse */
static tsr_status fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    (void)options;
    return tsr_linear_cross_entropy_fwd(ctx, &in[0], &in[1], &in[2], IGNORE, &out[0], &out[1], NULL);
}
/* in: x, w, targets, lse, dloss; out: dx, dw */
static tsr_status bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return tsr_linear_cross_entropy_bwd(ctx, &in[0], &in[1], &in[2], IGNORE, &in[3], &in[4],
                                        *(const bool *)options, &out[0], &out[1], NULL);
}

typedef struct problem {
    int64_t n_rows, n, n_words;
    tsr_dtype dtype;
    int one_ignored_in; /* 0: none */
} problem;

static kit_trial fwd_trial(const problem *p, kit_layout layout)
{
    kit_trial t = {.what = "linear_cross_entropy_fwd", .run = fwd, .n_in = 3, .n_out = 2};
    t.batch_in = 5, t.batch_out = 2;
    t.bound = (kit_bound){.rel = 2e-6, .abs = 1e-6};
    t.in[0] = kit_normal(KIT_NEW(p->dtype, layout, p->n_rows, p->n));
    t.in[1] = kit_uniform(KIT_NEW(p->dtype, layout, p->n_words, p->n), -0.5, 0.5);
    t.in[2] = kit_integers(KIT_NEW(TSR_I32, layout, p->n_rows), 0, p->n_words - 1);
    for (int64_t i = 0; i < p->n_rows && p->one_ignored_in > 0; i++)
        if (kit_one_in(p->one_ignored_in)) kit_set(&t.in[2], i, IGNORE);
    t.out[0] = kit_new(TSR_F32, KIT_ROWS, 0, NULL);
    t.out[1] = KIT_NEW(TSR_F32, layout, p->n_rows);
    return t;
}

/* After fwd: its lse is an input. */
static kit_trial bwd_trial(tsr_context *ctx, kit_trial t, const bool *accumulate, kit_layout layout)
{
    KIT_OK(fwd(ctx, t.in, t.out, NULL));
    t.what = "linear_cross_entropy_bwd", t.run = bwd, t.options = accumulate, t.n_in = 5;
    t.in[3] = t.out[1];
    t.in[4] = kit_constant(kit_new(TSR_F32, KIT_ROWS, 0, NULL), 1.5);
    t.out[0] = kit_like(&t.in[0], t.in[0].dtype, layout);
    t.out[1] = kit_like(&t.in[1], kit_one_in(2) ? TSR_F32 : t.in[1].dtype, layout);
    if (*accumulate) kit_uniform(t.out[1], -0.1, 0.1);
    t.batch_in = t.batch_out = 0; /* dloss / n_valid ties the rows together */
    /* softmax - onehot may cancel to nothing but the rounding of the logit and of lse. */
    t.bound = (kit_bound){.rel = 4e-6, .of_largest = 32, .abs = 5e-7};
    return t;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 12; trial++) {
        const problem p = {.n_rows = trial == 0 ? 0 : kit_between(1, trial == 1 ? 300 : 20),
                           .n = kit_between(1, 40),
                           .n_words = kit_between(1, trial == 2 ? 600 : 40),
                           .dtype = kit_any_float(),
                           .one_ignored_in = (int)kit_between(0, 3)};
        const bool accumulate = kit_one_in(2);
        kit_trial t = fwd_trial(&p, kit_any_output());
        kit_check_trial(ctx, &t);
        t = bwd_trial(ctx, t, &accumulate, kit_any_output());
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
    const bool accumulate = false;
    const problem p = {.n_rows = 300, .n = 33, .n_words = 150, .dtype = kit_any_float(), .one_ignored_in = 5};
    kit_trial t = fwd_trial(&p, KIT_ROWS);
    kit_check_trial_bits(&t);
    t = bwd_trial(ctx, t, &accumulate, KIT_ROWS);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

/* What is in a row that is ignored, or in w for such a row, reaches nothing. */
static void ignored_rows(tsr_context *ctx)
{
    const bool accumulate = false;
    const problem p = {.n_rows = 9, .n = 7, .n_words = 11, .dtype = TSR_F32};
    kit_trial t = fwd_trial(&p, KIT_ROWS);
    for (int64_t i = 3; i < 5; i++) {
        kit_set(&t.in[2], i, IGNORE);
        kit_set(&t.in[0], i * p.n + 2, i == 3 ? NAN : INFINITY);
    }
    kit_check_trial(ctx, &t);
    assert_true(isfinite(kit_get(&t.out[0], 0)));
    t = bwd_trial(ctx, t, &accumulate, KIT_ROWS);
    kit_check_trial(ctx, &t);
    for (int64_t j = 0; j < p.n_words * p.n; j++) assert_true(isfinite(kit_get(&t.out[1], j)));
    kit_set(&t.in[1], 5, INFINITY);
    KIT_OK(bwd(ctx, t.in, t.out, &accumulate));
    for (int64_t j = 0; j < p.n; j++) assert_true(kit_get(&t.out[0], 3 * p.n + j) == 0);

    kit_constant(t.in[2], IGNORE);
    kit_constant(t.in[1], 1);
    KIT_OK(bwd(ctx, t.in, t.out, &accumulate));
    assert_true(kit_max_abs(&t.out[0]) == 0 && kit_max_abs(&t.out[1]) == 0);
    kit_free_all();
}
static void test_ignored_rows(void **state)
{
    (void)state;
    kit_for_each_isa(ignored_rows);
}

static void test_targets_are_checked(void **state)
{
    (void)state;
    const bool accumulate = true;
    const problem p = {.n_rows = 9, .n = 7, .n_words = 11, .dtype = TSR_F32};
    const kit_trial f = fwd_trial(&p, KIT_ROWS), b = bwd_trial(kit_cpu(), f, &accumulate, KIT_ROWS);
    kit_set(&f.in[2], 8, 11);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "targets[8] is 11, must be 0 to 10", fwd(kit_cpu(), f.in, f.out, NULL));
    KIT_FAILS(TSR_ERR_INDEX, "targets[8] is 11, must be 0 to 10", bwd(kit_cpu(), b.in, b.out, &accumulate));
    kit_check_sealed("cross-entropy with a bad target");
    kit_free_all();
}

/* Logits of all rows at once never exist: the workspace stops growing with the number of rows. */
static void test_workspace_holds_a_chunk(void **state)
{
    (void)state;
    size_t few, many;
    static float x[1];
    const tsr_tensor w = tsr_tensor_2d(x, TSR_F32, 5000, 64);
    const tsr_tensor x_few = tsr_tensor_2d(x, TSR_F32, 512, 64),
                     x_many = tsr_tensor_2d(x, TSR_F32, 512 * 64, 64);
    KIT_OK(tsr_linear_cross_entropy_bwd_workspace(kit_cpu(), &x_few, &w, &few));
    KIT_OK(tsr_linear_cross_entropy_bwd_workspace(kit_cpu(), &x_many, &w, &many));
    assert_true(many == few && few < 2 * 512 * 5000 * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_ignored_rows),
        cmocka_unit_test(test_targets_are_checked),
        cmocka_unit_test(test_workspace_holds_a_chunk),
    };
    return cmocka_run_group_tests_name("cross_entropy", tests, NULL, NULL);
}
