/* check_elementwise.c - copy, fill, add, sums and dropout of the cpu backend, against the reference and
 * itself */
#include <math.h>

#include "base/tensor.h"
#include "kit/trial.h"
#include "tessera/elementwise.h"
#include "tessera/random.h"

static tsr_tensor any_tensor(tsr_dtype dtype, kit_layout layout)
{
    const int64_t shape[] = {kit_between(1, 4), kit_between(1, 3), kit_between(0, 3), kit_any_length()};
    const int32_t rank = (int32_t)kit_between(1, 4);
    return kit_new(dtype, layout, rank, shape + 4 - rank);
}

/* --- copy and fill --- */

/* Numbers that no integer holds, and others that overflow most types. */
static tsr_tensor with_everything(tsr_tensor t)
{
    static const double special[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 300.5, -0.0, 0.5, 1.5, 0x1p-140};
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++)
        kit_set(&t, i, kit_one_in(4) ? special[kit_between(0, 9)] : tsr_random_normal(kit_random()) * 100);
    return t;
}

static void copies(tsr_context *ctx)
{
    for (int from = 0; from < TSR_DTYPE_COUNT; from++)
        for (int to = 0; to < TSR_DTYPE_COUNT; to++) {
            const tsr_tensor x = with_everything(any_tensor((tsr_dtype)from, kit_any_input()));
            const tsr_tensor y = kit_like(&x, (tsr_dtype)to, kit_any_output());
            const tsr_tensor expected = kit_like(&x, (tsr_dtype)to, KIT_ROWS);
            KIT_OK(tsr_copy(kit_reference(), &x, &expected));
            KIT_OK(tsr_copy(ctx, &x, &y));
            kit_check(&y, &expected, KIT_EXACT, "copy from %s", tsr_dtype_name((tsr_dtype)from));
            kit_free_all();
        }
}
static void test_copy(void **state)
{
    (void)state;
    kit_for_each_isa(copies);
}

static void large_copies(tsr_context *ctx)
{
    static const tsr_dtype floats[] = {TSR_F32, TSR_BF16, TSR_F16};
    for (int i = 0; i < 9; i++) {
        const tsr_tensor x = kit_normal(KIT_NEW(floats[i / 3], i % 2 ? KIT_TRANSPOSED : KIT_ROWS, 211, 307));
        const tsr_tensor y = kit_like(&x, floats[i % 3], KIT_PADDED),
                         expected = kit_copy(&x, floats[i % 3], KIT_ROWS);
        KIT_OK(tsr_copy(ctx, &x, &y));
        kit_check(&y, &expected, KIT_EXACT, "large copy");
        kit_free_all();
    }
}
static void test_large_copies(void **state)
{
    (void)state;
    kit_for_each_isa(large_copies);
}

static void fills(tsr_context *ctx)
{
    for (int trial = 0; trial < 6 * TSR_DTYPE_COUNT; trial++) {
        const tsr_dtype dtype = (tsr_dtype)(trial % TSR_DTYPE_COUNT);
        const tsr_tensor y = any_tensor(dtype, kit_any_output()), expected = kit_like(&y, dtype, KIT_ROWS);
        const double value = trial < TSR_DTYPE_COUNT ? 1000.7 : tsr_random_normal(kit_random());
        KIT_OK(tsr_fill(kit_reference(), value, &expected));
        KIT_OK(tsr_fill(ctx, value, &y));
        kit_check(&y, &expected, KIT_EXACT, "fill with %g", value);
        kit_free_all();
    }
}
static void test_fill(void **state)
{
    (void)state;
    kit_for_each_isa(fills);
}

/* --- add --- */

static tsr_status add(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const float *factor = options;
    return tsr_add(ctx, factor[0], &in[0], factor[1], &in[1], &out[0]);
}

static kit_trial add_trial(const float *factors, tsr_tensor a, kit_layout layout)
{
    kit_trial t = {.what = "add", .run = add, .options = factors, .n_in = 2, .n_out = 1};
    t.bound = (kit_bound){.rel = 1e-7, .of_largest = 1}, t.batch_in = 3, t.batch_out = 1;
    t.in[0] = a, t.in[1] = kit_normal(kit_like(&a, kit_any_float(), layout));
    t.out[0] = kit_like(&a, kit_any_float(), layout == KIT_BROADCAST ? KIT_ROWS : layout);
    return t;
}

static void adds(tsr_context *ctx)
{
    for (int trial = 0; trial < 40; trial++) {
        const float factors[] = {1, (float)kit_between(-2, 2) / 3};
        kit_trial t = add_trial(factors, kit_normal(any_tensor(kit_any_float(), kit_any_output())),
                                kit_any_input());
        if (kit_one_in(3)) t.out[0] = t.in[0];
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
    const float factors[] = {1, 1};
    const kit_trial t = add_trial(factors, kit_normal(KIT_NEW(TSR_BF16, KIT_PADDED, 150, 401)), KIT_ROWS);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_add(void **state)
{
    (void)state;
    kit_for_each_isa(adds);
}

/* --- sums --- */

typedef struct sum_setting {
    bool squares, rows, accumulate;
} sum_setting;

static tsr_status sum(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const sum_setting *s = options;
    if (s->rows) return tsr_sum_rows(ctx, &in[0], s->accumulate, &out[0]);
    return s->squares ? tsr_sum_squares(ctx, &in[0], s->accumulate, &out[0])
                      : tsr_sum(ctx, &in[0], s->accumulate, &out[0]);
}

static kit_trial sum_trial(const sum_setting *s, tsr_tensor x)
{
    kit_trial t = {.what = s->rows ? "sum_rows" : "sum", .run = sum, .options = s, .n_in = 1, .n_out = 1};
    t.in[0] = x;
    t.out[0] = s->rows ? KIT_NEW(TSR_F32, kit_any_output(), x.shape[x.rank - 1])
                       : kit_new(TSR_F32, KIT_ROWS, 0, NULL);
    if (s->accumulate) kit_normal(t.out[0]);
    /* Normal numbers cancel: the error is one of the sum of magnitudes. */
    const double terms = (double)tsr_tensor_numel(&x);
    t.bound = (kit_bound){.rel = 1e-6, .abs = s->squares && !s->rows ? 0 : 3e-7 * sqrt(terms + 1)};
    return t;
}

static void sums(tsr_context *ctx)
{
    for (int trial = 0; trial < 60; trial++) {
        const sum_setting s = {.squares = kit_one_in(2), .rows = trial % 2 == 0, .accumulate = kit_one_in(2)};
        const kit_trial t = sum_trial(&s, kit_normal(any_tensor(kit_any_float(), kit_any_input())));
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_sums(void **state)
{
    (void)state;
    kit_for_each_isa(sums);
}

/* More rows and columns than an item has, with other numbers of threads; integers add up exactly. */
static void large_sums(tsr_context *ctx)
{
    for (int i = 0; i < 6; i++) {
        const sum_setting s = {.squares = i % 3 == 1, .rows = i % 3 == 2, .accumulate = i > 3};
        const int64_t m = i % 2 ? 700 : 60, n = i % 2 ? 90 : 1100;
        kit_trial t = sum_trial(&s, kit_normal(KIT_NEW(kit_any_float(), i < 3 ? KIT_ROWS : KIT_GAPS, m, n)));
        kit_check_trial(ctx, &t);
        if (!s.accumulate) kit_check_trial_bits(&t);
        t = sum_trial(&s, kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, m, n), -3, 3));
        if (s.accumulate) kit_integers(t.out[0], -9, 9);
        t.bound = KIT_EXACT;
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
}
static void test_large_sums(void **state)
{
    (void)state;
    kit_for_each_isa(large_sums);
}

/* --- dropout --- */

typedef struct dropout_setting {
    tsr_dropout dropout;
    bool residual;
} dropout_setting;

static tsr_status drop(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    const dropout_setting *s = options;
    return tsr_dropout_add(ctx, &in[0], s->residual ? &in[1] : NULL, &s->dropout, &out[0]);
}

static kit_trial dropout_trial(const dropout_setting *s, tsr_tensor x, kit_layout layout)
{
    kit_trial t = {.what = "dropout_add", .run = drop, .options = s, .n_in = 2, .n_out = 1};
    t.bound = (kit_bound){.rel = 2e-7, .of_largest = 1};
    t.in[0] = x, t.in[1] = kit_normal(kit_like(&x, x.dtype, layout));
    t.out[0] = kit_like(&x, x.dtype, layout);
    return t;
}

static dropout_setting any_dropout(void)
{
    static const float p[] = {0, 0.1f, 0.5f, 0.999f};
    return (dropout_setting){
        {p[kit_between(0, 3)], tsr_random_u64(kit_random()), (uint32_t)kit_between(0, 99)}, kit_one_in(2)};
}

static void dropouts(tsr_context *ctx)
{
    for (int trial = 0; trial < 40; trial++) {
        const dropout_setting s = any_dropout();
        const tsr_dtype dtype = kit_any_float();
        kit_trial t = dropout_trial(&s, kit_normal(any_tensor(dtype, kit_any_output())), kit_any_output());
        if (kit_one_in(3)) t.out[0] = t.in[kit_between(0, 1)];
        kit_check_trial(ctx, &t);
        kit_free_all();
    }
    const dropout_setting s = {{0.3f, 7, 8}, true};
    const kit_trial t = dropout_trial(&s, kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 90, 601)), KIT_PADDED);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_dropout(void **state)
{
    (void)state;
    kit_for_each_isa(dropouts);
}

/* The bits are those of tsr_dropout_keep, and what is dropped is 0 even where x is NaN. */
static void bits_are_public(tsr_context *ctx)
{
    const tsr_dropout dropout = {.p = 0.4f, .seed = 0x123456789abcdefull, .offset = 11};
    const tsr_tensor x = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, 3, 5, 77), NAN),
                     y = kit_like(&x, TSR_F32, KIT_ROWS);
    KIT_OK(tsr_dropout_add(ctx, &x, NULL, &dropout, &y));
    for (int64_t i = 0; i < 15 * 77; i++) {
        const int keep = tsr_dropout_keep(dropout.seed, 11, 0, (uint32_t)(i / 77), (uint32_t)(i % 77), 0.4f);
        assert_true(keep ? isnan(kit_get(&y, i)) : kit_get(&y, i) == 0);
    }
    kit_free_all();
}
static void test_dropout_bits_are_public(void **state)
{
    (void)state;
    kit_for_each_isa(bits_are_public);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),    cmocka_unit_test(test_large_copies),
        cmocka_unit_test(test_fill),    cmocka_unit_test(test_add),
        cmocka_unit_test(test_sums),    cmocka_unit_test(test_large_sums),
        cmocka_unit_test(test_dropout), cmocka_unit_test(test_dropout_bits_are_public),
    };
    return cmocka_run_group_tests_name("elementwise", tests, NULL, NULL);
}
