/* check_rope.c - RoPE of the cpu backend, against the reference and itself */
#include "kit/trial.h"
#include "tessera/rope.h"

/* in: x, cos, sin, positions */
typedef struct setting {
    bool positions;
    tsr_rope_options options;
} setting;

static tsr_status turn(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const setting *s = options;
    tsr_rope_options o = s->options;
    if (s->positions) o.positions = &in[3];
    return tsr_rope(ctx, &in[0], &in[1], &in[2], &o, &out[0]);
}

static tsr_status table(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return (void)in, (void)options, tsr_rope_table(ctx, 10000, &out[0], &out[1]);
}

static kit_trial trial_of(tsr_tensor x, const setting *s, kit_layout layout)
{
    const int64_t n_positions = 200;
    kit_trial t = {.what = s->options.interleaved ? "rope, interleaved" : "rope", .run = turn, .options = s};
    t.n_in = 4, t.n_out = 1, t.batch_in = 1 | 8, t.batch_out = 1;
    t.bound = (kit_bound){.rel = 2e-7, .of_largest = 2};
    t.in[0] = x;
    t.in[1] = kit_uniform(KIT_NEW(TSR_F32, layout, n_positions, x.shape[3] / 2), -1, 1);
    t.in[2] = kit_uniform(KIT_NEW(TSR_F32, layout, n_positions, x.shape[3] / 2), -1, 1);
    t.in[3] = kit_integers(KIT_NEW(TSR_I32, kit_any_input(), x.shape[0], x.shape[2]), 0, n_positions - 1);
    t.out[0] = kit_like(&x, x.dtype, layout);
    return t;
}

static setting any_setting(void)
{
    return (setting){kit_one_in(2),
                     {.interleaved = kit_one_in(2), .inverse = kit_one_in(2), .start = kit_between(0, 100)}};
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 60; trial++) {
        const setting s = any_setting();
        const int64_t b = kit_between(1, 3), h = kit_between(0, 3), l = kit_between(0, 9);
        const int64_t d = trial == 0 ? 1300 : 2 * kit_between(1, 70);
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), kit_any_output(), b, h, l, d));
        kit_trial t = trial_of(x, &s, kit_any_output());
        if (kit_one_in(3)) t.out[0] = x;
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_against_reference(void **state)
{
    (void)state;
    kit_for_each_isa(random_trials);
}

static void tables(tsr_context *ctx)
{
    for (int trial = 0; trial < 5; trial++) {
        kit_trial t = {.what = "rope_table", .run = table, .n_out = 2, .bound = {.ulps = 0.5}};
        const int64_t n = kit_between(0, 300), half = kit_between(1, 130);
        for (int i = 0; i < 2; i++) t.out[i] = KIT_NEW(TSR_F32, kit_any_output(), n, half);
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_tables(void **state)
{
    (void)state;
    kit_for_each_isa(tables);
}

static void same_bits(tsr_context *ctx)
{
    (void)ctx;
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        const setting s = {interleaved == 0, {.interleaved = interleaved, .start = 40}};
        const tsr_tensor x = kit_normal(KIT_NEW(kit_any_float(), KIT_PADDED, 4, 3, 100, 48));
        const kit_trial t = trial_of(x, &s, KIT_ROWS);
        kit_check_trial_bits(&t);
        kit_free_all();
    }
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

/* A position outside the table is named before anything is written. */
static void test_positions_are_checked(void **state)
{
    (void)state;
    const setting s = {.positions = true};
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 2, 1, 5, 8));
    const kit_trial t = trial_of(x, &s, KIT_ROWS);
    kit_set(&t.in[3], 7, 200);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "positions[1, 2] is 200, must be 0 to 199", turn(kit_cpu(), t.in, t.out, &s));
    kit_check_sealed("rope with a bad position");
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_positions_are_checked),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
