/* check_kv_append.c - appending to a KV cache on the cpu backend, against the reference and itself */
#include "kit/trial.h"
#include "tessera/kv_cache.h"

/* in: x, start, lengths; out: cache */
static tsr_status append(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return tsr_kv_append(ctx, &in[0], &in[1], *(const bool *)options ? &in[2] : NULL, &out[0]);
}

static kit_trial trial_of(int64_t b, int64_t h, int64_t l, int64_t d, const bool *lengths, kit_layout layout)
{
    const int64_t capacity = l + 5;
    kit_trial t = {.what = "kv_append", .run = append, .options = lengths, .n_in = 3, .n_out = 1};
    t.in[0] = kit_normal(KIT_NEW(kit_any_float(), layout, b, h, l, d));
    t.in[1] = kit_integers(KIT_NEW(TSR_I32, layout, b), 0, 5);
    t.in[2] = kit_integers(KIT_NEW(TSR_I32, layout, b), 0, l);
    t.out[0] = kit_normal(KIT_NEW(kit_any_float(), layout, b, h, capacity, d));
    return t;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 30; trial++) {
        const bool lengths = kit_one_in(2);
        const int64_t b = kit_between(0, 3), h = kit_between(1, 3), l = kit_between(0, 6),
                      d = kit_any_length();
        const kit_trial t = trial_of(b, h, l, d, &lengths, kit_any_output());
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
    const bool lengths = true;
    const kit_trial t = trial_of(3, 4, 70, 64, &lengths, KIT_PADDED);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_against_reference(void **state)
{
    (void)state;
    kit_for_each_isa(random_trials);
}

static void test_rows_must_fit(void **state)
{
    (void)state;
    const bool lengths = true;
    const kit_trial t = trial_of(3, 2, 4, 8, &lengths, KIT_ROWS);
    kit_set(&t.in[1], 1, 7);
    kit_set(&t.in[2], 1, 3);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "start[1] is 7, must be 0 to 6", append(kit_cpu(), t.in, t.out, &lengths));
    kit_check_sealed("kv_append beyond the cache");
    kit_set(&t.in[2], 1, 5);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "lengths[1] is 5, must be 0 to 4", append(kit_cpu(), t.in, t.out, &lengths));
    kit_check_sealed("kv_append of more rows than there are");
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_rows_must_fit),
    };
    return cmocka_run_group_tests_name("kv_append", tests, NULL, NULL);
}
