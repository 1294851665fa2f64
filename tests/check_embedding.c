/* check_embedding.c - embedding of the cpu backend, against the reference, one-hot products and itself */
#include "kit/trial.h"
#include "tessera/embedding.h"
#include "tessera/gemm.h"

/* in: table, ids */
static tsr_status fwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return (void)options, tsr_embedding_fwd(ctx, &in[0], &in[1], &out[0]);
}
/* in: dout, ids; out: dtable */
static tsr_status bwd(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
{
    return tsr_embedding_bwd(ctx, &in[1], &in[0], *(const bool *)options, &out[0]);
}

static kit_trial fwd_trial(int64_t n_words, int64_t n, tsr_tensor ids, kit_layout layout)
{
    kit_trial t = {.what = "embedding_fwd", .run = fwd, .n_in = 2, .n_out = 1, .bound = KIT_EXACT};
    const tsr_dtype dtype = kit_any_float();
    int64_t shape[TSR_MAX_RANK] = {0};
    for (int32_t d = 0; d < ids.rank; d++) shape[d] = ids.shape[d];
    shape[ids.rank] = n;
    t.in[0] = kit_normal(KIT_NEW(dtype, layout, n_words, n)), t.in[1] = ids;
    t.out[0] = kit_new(dtype, layout, ids.rank + 1, shape);
    return t;
}

static kit_trial bwd_trial(int64_t n_words, int64_t n, tsr_tensor ids, const bool *accumulate,
                           kit_layout layout)
{
    kit_trial t = fwd_trial(n_words, n, ids, layout);
    t.what = "embedding_bwd", t.run = bwd, t.options = accumulate;
    t.in[0] = kit_normal(t.out[0]);
    t.out[0] = KIT_NEW(TSR_F32, layout, n_words, n);
    if (*accumulate) kit_normal(t.out[0]);
    t.bound = (kit_bound){.rel = 1e-6, .of_largest = 8};
    return t;
}

static void random_trials(tsr_context *ctx)
{
    for (int trial = 0; trial < 30; trial++) {
        const int64_t n_words = kit_between(1, 20),
                      shape[] = {kit_between(1, 3), kit_between(0, 3), kit_between(1, 9)};
        const int32_t rank = (int32_t)kit_between(0, 3);
        const tsr_tensor ids = kit_integers(kit_new(TSR_I32, kit_any_input(), rank, shape), 0, n_words - 1);
        kit_trial t = fwd_trial(n_words, kit_any_length(), ids, kit_any_output());
        kit_check_trial(ctx, &t);
        const bool accumulate = kit_one_in(2);
        t = bwd_trial(n_words, kit_any_length(), ids, &accumulate, kit_any_output());
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
    const tsr_tensor ids = kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, 500), 0, 39);
    const bool accumulate = false;
    kit_trial t = fwd_trial(40, 130, ids, KIT_ROWS);
    kit_check_trial_bits(&t);
    t = bwd_trial(40, 130, ids, &accumulate, KIT_ROWS);
    kit_check_trial_bits(&t);
    kit_free_all();
}
static void test_same_bits(void **state)
{
    (void)state;
    kit_for_each_isa(same_bits);
}

/* out = one-hot @ table and dtable = one-hot^T @ dout, exactly: small integers. */
static void one_hot(tsr_context *ctx)
{
    enum { WORDS = 13, N = 21, L = 30 };
    const tsr_tensor ids = kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, L), 0, WORDS - 1);
    const tsr_tensor hot = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, L, WORDS), 0);
    for (int64_t i = 0; i < L; i++) kit_set(&hot, i * WORDS + (int64_t)kit_get(&ids, i), 1);
    const tsr_tensor table = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, WORDS, N), -9, 9);
    const tsr_tensor out = KIT_NEW(TSR_F32, KIT_ROWS, L, N), product = KIT_NEW(TSR_F32, KIT_ROWS, L, N);
    KIT_OK(tsr_embedding_fwd(ctx, &table, &ids, &out));
    KIT_OK(tsr_matmul2d(ctx, 1, &hot, &table, 0, &product, NULL));
    kit_check(&out, &product, KIT_EXACT, "embedding beside one-hot @ table");
    const tsr_tensor dtable = KIT_NEW(TSR_F32, KIT_ROWS, WORDS, N),
                     back = KIT_NEW(TSR_F32, KIT_ROWS, WORDS, N);
    const tsr_tensor hot_t = tsr_tensor_transpose(&hot, 0, 1);
    KIT_OK(tsr_embedding_bwd(ctx, &ids, &out, 0, &dtable));
    KIT_OK(tsr_matmul2d(ctx, 1, &hot_t, &out, 0, &back, NULL));
    kit_check(&dtable, &back, KIT_EXACT, "embedding_bwd beside one-hot^T @ dout");
    kit_free_all();
}
static void test_equals_one_hot_product(void **state)
{
    (void)state;
    kit_for_each_isa(one_hot);
}

static void test_ids_are_checked(void **state)
{
    (void)state;
    const bool accumulate = false;
    const tsr_tensor ids = kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, 4, 5), 0, 9);
    kit_set(&ids, 13, -1);
    const kit_trial f = fwd_trial(10, 8, ids, KIT_ROWS), b = bwd_trial(10, 8, ids, &accumulate, KIT_ROWS);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "ids[2, 3] is -1, must be 0 to 9", fwd(kit_cpu(), f.in, f.out, NULL));
    KIT_FAILS(TSR_ERR_INDEX, "ids[2, 3] is -1, must be 0 to 9", bwd(kit_cpu(), b.in, b.out, &accumulate));
    kit_check_sealed("embedding with a bad id");
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_equals_one_hot_product),
        cmocka_unit_test(test_ids_are_checked),
    };
    return cmocka_run_group_tests_name("embedding", tests, NULL, NULL);
}
