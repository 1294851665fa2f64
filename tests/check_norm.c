/* check_norm.c - RMSNorm and LayerNorm of the cpu backend, against the reference and itself */
#include <math.h>

#include "kit/trial.h"
#include "tessera/norm.h"

typedef struct setting {
    bool centred, bias, accumulate, dx, dweight;
} setting;

/* in: x, weight, bias; out: y, rstd, mean */
static tsr_status fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const setting *s = options;
    if (!s->centred) return tsr_rms_norm_fwd(ctx, &in[0], &in[1], 1e-5f, &out[0], &out[1]);
    return tsr_layer_norm_fwd(ctx, &in[0], &in[1], s->bias ? &in[2] : NULL, 1e-5f, &out[0], &out[2], &out[1]);
}

/* in: x, weight, dy, rstd, mean; out: dx, dweight, dbias */
static tsr_status bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const setting *s = options;
    const tsr_tensor *dx = s->dx ? &out[0] : NULL, *dweight = s->dweight ? &out[1] : NULL;
    if (!s->centred)
        return tsr_rms_norm_bwd(ctx, &in[0], &in[1], &in[3], &in[2], s->accumulate, dx, dweight, NULL);
    return tsr_layer_norm_bwd(ctx, &in[0], &in[1], &in[4], &in[3], &in[2], s->accumulate, dx, dweight,
                              s->bias ? &out[2] : NULL, NULL);
}

static tsr_tensor parameter(const tsr_tensor *x, int64_t n)
{
    return kit_normal(KIT_NEW(kit_one_in(2) ? TSR_F32 : x->dtype, kit_any_input(), n));
}

static kit_trial fwd_trial(tsr_tensor x, const setting *s, kit_layout layout)
{
    const int64_t n = x.shape[x.rank - 1];
    kit_trial t = {.what = s->centred ? "layer_norm_fwd" : "rms_norm_fwd", .run = fwd, .options = s};
    t.n_in = 3, t.n_out = s->centred ? 3 : 2, t.batch_in = 1, t.batch_out = 7;
    t.bound = (kit_bound){.rel = 1e-6, .of_largest = 4};
    t.in[0] = x, t.in[1] = parameter(&x, n), t.in[2] = parameter(&x, n);
    t.out[0] = kit_like(&x, x.dtype, layout);
    t.out[1] = kit_new(TSR_F32, layout, x.rank - 1, x.shape);
    t.out[2] = kit_new(TSR_F32, layout, x.rank - 1, x.shape);
    return t;
}

static kit_trial bwd_trial(tsr_tensor x, const setting *s, kit_layout layout)
{
    const int64_t n = x.shape[x.rank - 1];
    kit_trial t = {.what = s->centred ? "layer_norm_bwd" : "rms_norm_bwd", .run = bwd, .options = s};
    t.n_in = 5, t.n_out = 3, t.batch_in = 1 | 4 | 8 | 16, t.batch_out = 1;
    t.bound = (kit_bound){.rel = 2e-6, .of_largest = 8};
    t.in[0] = x, t.in[1] = parameter(&x, n);
    t.in[2] = kit_normal(kit_like(&x, x.dtype, layout));
    t.in[3] = kit_uniform(kit_new(TSR_F32, layout, x.rank - 1, x.shape), 0.5, 2);
    t.in[4] = kit_normal(kit_new(TSR_F32, layout, x.rank - 1, x.shape));
    t.out[0] = kit_like(&x, x.dtype, layout);
    if (s->accumulate) kit_normal(t.out[0]);
    for (int i = 1; i < 3; i++) t.out[i] = KIT_NEW(TSR_F32, layout, n);
    return t;
}

static setting any_setting(void)
{
    setting s = {kit_one_in(2), kit_one_in(2), kit_one_in(2), !kit_one_in(6), !kit_one_in(6)};
    s.bias = s.bias && s.centred;
    return s;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 40; trial++) {
        const setting s = any_setting();
        const int64_t a = kit_between(1, 3), b = kit_between(1, 30), n = kit_any_length();
        if (n == 0) continue;
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), kit_any_input(), a, b, n));
        kit_trial t = fwd_trial(x, &s, kit_any_output());
        kit_check_trial(ctx, &t);
        t = bwd_trial(x, &s, kit_any_output());
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
    for (int centred = 0; centred < 2; centred++) {
        const setting s = {centred == 1, centred == 1, centred == 0, true, true};
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), KIT_PADDED, 133, 600));
        kit_trial t = fwd_trial(x, &s, KIT_ROWS);
        kit_check_trial_bits(&t);
        t = bwd_trial(x, &s, KIT_ROWS);
        kit_check_trial_bits(&t);
        kit_free_all();
    }
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

/* A mean far from 0 does not cost LayerNorm its variance; a row's NaN stays in the row and in dweight. */
static void hard_rows(tsr_context *ctx)
{
    const setting s = {.centred = true, .bias = true, .dx = true, .dweight = true};
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 4, 700));
    for (int64_t j = 0; j < 700; j++) kit_set(&x, j, kit_get(&x, j) + 4096);
    kit_trial t = fwd_trial(x, &s, KIT_ROWS);
    t.bound.of_largest = 16;
    kit_check_trial(ctx, &t);
    kit_set(&x, 700 + 3, NAN);
    t = fwd_trial(x, &s, KIT_ROWS);
    t.bound.of_largest = 16;
    kit_check_trial(ctx, &t);
    t = bwd_trial(x, &s, KIT_ROWS);
    kit_check_trial(ctx, &t);
    kit_free_all();
}
static void test_hard_rows(void **state)
{
    (void)state;
    kit_for_each_isa(hard_rows);
}

static void in_place(tsr_context *ctx)
{
    for (int trial = 0; trial < 10; trial++) {
        const setting s = any_setting();
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), kit_any_output(), 3, kit_between(1, 1030)));
        kit_trial t = bwd_trial(x, &s, kit_any_output());
        t.out[0] = t.in[2]; /* dx is dy */
        kit_check_trial(ctx, &t);
        t = fwd_trial(x, &s, kit_any_output());
        t.out[0] = x;
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
        cmocka_unit_test(test_hard_rows),
        cmocka_unit_test(test_in_place),
    };
    return cmocka_run_group_tests_name("norm", tests, NULL, NULL);
}
