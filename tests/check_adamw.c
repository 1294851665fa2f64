/* check_adamw.c - AdamW of the cpu backend, against the reference and itself */
#include "kit/trial.h"
#include "tessera/optimizer.h"

/* in: g; out: m, v, then p, or master and p */
typedef struct setting {
    tsr_adamw_options options;
    bool master;
} setting;

static tsr_status step(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const setting *s = options;
    if (!s->master || out[2].dtype == TSR_F64) /* the reference computes p in double: no master copy */
        return tsr_adamw(ctx, &s->options, &out[2], NULL, &in[0], &out[0], &out[1]);
    return tsr_adamw(ctx, &s->options, &out[3], &out[2], &in[0], &out[0], &out[1]);
}

static setting any_setting(void)
{
    const tsr_adamw_options o = {.lr = 3e-3f,
                                 .beta1 = 0.9f,
                                 .beta2 = kit_one_in(2) ? 0.999f : 0.95f,
                                 .eps = 1e-8f,
                                 .weight_decay = kit_one_in(2) ? 0.1f : 0,
                                 .grad_scale = kit_one_in(2) ? 0.25f : 0,
                                 .step = kit_one_in(2) ? 1 : kit_between(2, 100000)};
    return (setting){o, kit_one_in(2)};
}

static kit_trial trial_of(const setting *s, int64_t m, int64_t n)
{
    kit_trial t = {.what = "adamw", .run = step, .options = s, .n_in = 1, .n_out = 3};
    t.bound = (kit_bound){.rel = 2e-6, .of_largest = 1};
    t.in[0] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, m, n));
    t.out[0] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, m, n));
    t.out[1] = kit_uniform(KIT_NEW(TSR_F32, KIT_ROWS, m, n), 0, 2);
    t.out[2] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, m, n));
    t.out[3] = KIT_NEW(kit_one_in(2) ? TSR_BF16 : TSR_F16, KIT_ROWS, m, n);
    return t;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 30; trial++) {
        const setting s = any_setting();
        const kit_trial t = trial_of(&s, kit_between(1, 4), trial == 0 ? 20000 : kit_any_length());
        kit_check_trial(ctx, &t);
        if (s.master) {
            const tsr_tensor rounded = kit_copy(&t.out[2], t.out[3].dtype, KIT_ROWS);
            kit_check(&t.out[3], &rounded, KIT_EXACT, "p beside its master rounded");
        }
        kit_free_all();
    }
    const setting s = any_setting();
    kit_trial t = trial_of(&s, 3, 20000);
    t.n_out = s.master ? 4 : 3;
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_against_reference(void **state)
{
    (void)state;
    kit_for_each_isa(random_trials);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_reference)};
    return cmocka_run_group_tests_name("adamw", tests, NULL, NULL);
}
