/* check_reference.c - the reference where its results are known by hand: exact sums, edges, what is not read
 */
#include "kit/kit.h"

#include <math.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/tensor.h"
#include "op/context.h"
#include "tessera/tessera.h"

/* A row-major matrix of a batch of one. */
static tsr_gemm_matrix matrix(void *data, tsr_dtype dtype, int64_t row)
{
    return (tsr_gemm_matrix){.data = data, .dtype = dtype, .row = row, .col = 1, .group = 1};
}

static void test_gemm_by_hand(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    double a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, -1, 2, 0, 3, 1}, c[] = {NAN, NAN, NAN, NAN};
    tsr_gemm_args g = {.m = 2, .n = 2, .k = 3, .batch = 1, .num_heads = 1, .alpha = 2};
    g.a = matrix(a, TSR_F64, 3), g.b = matrix(b, TSR_F64, 2), g.c = matrix(c, TSR_F64, 2);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL)); /* beta = 0: the NaN in C is not read */
    assert_true(c[0] == 28 && c[1] == 4 && c[2] == 64 && c[3] == 4);
    g.k = 0, g.beta = 0.5f;
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    assert_true(c[0] == 14 && c[1] == 2 && c[2] == 32 && c[3] == 2);
}

static void test_gemm_of_bytes_is_exact(void **state)
{
    (void)state;
    enum { K = 4099 };
    tsr_context *ctx = kit_reference();
    static int8_t a[K], b[K];
    int32_t c = 7, expected = 3 * 7;
    for (int i = 0; i < K; i++) a[i] = (int8_t)(i * 37 - 128), b[i] = (int8_t)(i * i - 128);
    for (int i = 0; i < K; i++) expected += a[i] * b[i];
    tsr_gemm_args g = {.m = 1, .n = 1, .k = K, .batch = 1, .num_heads = 1, .alpha = 1, .beta = 3};
    g.a = matrix(a, TSR_S8, K), g.b = matrix(b, TSR_S8, 1), g.c = matrix(&c, TSR_I32, 1);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    assert_int_equal(c, expected);
}

/* Two heads share B (group 2); A and C by pointers, A's rows apart by a stride of its own. */
static void test_gemm_by_pointers(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    float a0[] = {1, 2, 3, 4}, a1[] = {5, 6, NAN, 7, 8}, b[] = {1, 10, 100, 1000}, c0[4], c1[4];
    void *const a[] = {a0, a1};
    void *const c[] = {c0, c1};
    const int64_t a_rows[] = {2, 3};
    tsr_gemm_args g = {.m = 2, .n = 2, .k = 2, .batch = 1, .num_heads = 2, .alpha = 1};
    g.a = matrix(NULL, TSR_F32, 2), g.b = matrix(b, TSR_F32, 2), g.c = matrix(NULL, TSR_F32, 2);
    g.a.pointers = a, g.a.strides = a_rows, g.c.pointers = c;
    g.b.group = 2, g.b.head = 1000000; /* no head but 0 is there */
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    const float expected0[] = {201, 2010, 403, 4030}, expected1[] = {605, 6050, 807, 8070};
    assert_memory_equal(c0, expected0, sizeof c0);
    assert_memory_equal(c1, expected1, sizeof c1);
}

static void test_softmax_rows_at_the_edge(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    float x[] = {-INFINITY, -INFINITY, 1000, 1000, NAN, -INFINITY}, y[6];
    const tsr_softmax_fwd_args s = {.x = tsr_tensor_2d(x, TSR_F32, 3, 2),
                                    .y = tsr_tensor_2d(y, TSR_F32, 3, 2)};
    KIT_OK(tsr_call_softmax_fwd(ctx, &s, NULL));
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0.5f && y[3] == 0.5f && isnan(y[4]) && isnan(y[5]));
}

/* One head of plain attention over views that the caller owns. */
static tsr_attention_fwd_args attention(tsr_tensor q, tsr_tensor k, tsr_tensor v, tsr_tensor out,
                                        tsr_tensor lse)
{
    return (tsr_attention_fwd_args){.b = q.shape[0],
                                    .hq = q.shape[1],
                                    .hkv = k.shape[1],
                                    .d = q.shape[3],
                                    .dv = v.shape[3],
                                    .lq = q.shape[2],
                                    .lk = k.shape[2],
                                    .q = q,
                                    .k = k,
                                    .v = v,
                                    .out = out,
                                    .lse = lse,
                                    .scale = 1,
                                    .window_left = -1,
                                    .window_right = -1};
}

/*
 * Scores are 0 or log 3, so that weights are quarters. Row 0 sees no key, row 1 only key 0, row 2 keys 0 and
 * 1; key 2 is NaN and masked throughout.
 */
static void test_attention_by_hand(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    double q[] = {NAN, 1, 1}, k[] = {0, log(3), NAN}, v[] = {4, 8, NAN}, out[3], lse[3];
    uint8_t mask[] = {0, 0, 0, 1, 0, 0, 1, 1, 0};
    tsr_attention_fwd_args a = attention(
        tsr_tensor_4d(q, TSR_F64, 1, 1, 3, 1), tsr_tensor_4d(k, TSR_F64, 1, 1, 3, 1),
        tsr_tensor_4d(v, TSR_F64, 1, 1, 3, 1), tsr_tensor_4d(out, TSR_F64, 1, 1, 3, 1),
        tsr_tensor_3d(lse, TSR_F64, 1, 1, 3));
    a.mask = tsr_tensor_4d(mask, TSR_BOOL, 1, 1, 3, 3);
    KIT_OK(tsr_call_attention_fwd(ctx, &a, NULL));
    assert_true(out[0] == 0 && out[1] == 4 && fabs(out[2] - 7) < 1e-14);
    assert_true(lse[0] == -INFINITY && lse[1] == 0 && fabs(lse[2] - log(4)) < 1e-14);

    /* A sink of logit log 4 halves row 2's weights and is all of row 0's. */
    float sink = logf(4);
    a.sinks = tsr_tensor_1d(&sink, TSR_F32, 1);
    KIT_OK(tsr_call_attention_fwd(ctx, &a, NULL));
    assert_true(out[0] == 0 && fabs(out[1] - 0.8) < 1e-7 && fabs(out[2] - 3.5) < 1e-7);
    assert_true(lse[0] == (double)sink && fabs(lse[2] - log(8)) < 1e-7);

    /* Backward: what is NaN is masked, so all is finite; row 0 and key 2 get 0. */
    double dout[] = {NAN, 1, 1}, dq[3], dk[3], dv[3], dbias[9];
    tsr_attention_bwd_args g = {.fwd = a, .dout = a.out, .dq = a.q, .dk = a.k, .dv = a.v};
    g.dout.data = dout, g.dq.data = dq, g.dk.data = dk, g.dv.data = dv;
    g.dbias = tsr_tensor_4d(dbias, TSR_F64, 1, 1, 3, 3);
    KIT_OK(tsr_call_attention_bwd(ctx, &g, NULL));
    assert_true(dq[0] == 0 && dk[2] == 0 && dv[2] == 0 && dbias[2] == 0 && dbias[8] == 0);
    assert_true(fabs(dv[0] - 0.2 - 0.125) < 1e-7 && fabs(dv[1] - 0.375) < 1e-7);
    assert_true(fabs(dbias[6] - 0.125 * (4 - 3.5)) < 1e-7 && fabs(dbias[7] - 0.375 * (8 - 3.5)) < 1e-7);
}

static void test_attention_lengths_out_of_range(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    float x[8] = {0}, out[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    int32_t lengths[] = {2, 3}, starts[] = {0, 3, 2, 4};
    const tsr_tensor t = tsr_tensor_4d(x, TSR_F32, 2, 1, 2, 2);
    tsr_attention_fwd_args a = attention(t, t, t, tsr_tensor_4d(out, TSR_F32, 2, 1, 2, 2), (tsr_tensor){0});
    a.seqlens_k = tsr_tensor_1d(lengths, TSR_I32, 2);
    KIT_FAILS(TSR_ERR_INDEX, "seqlens_k[1] is 3, must be 0 to 2", tsr_call_attention_fwd(ctx, &a, NULL));

    a = attention(tsr_tensor_4d(x, TSR_F32, 1, 1, 4, 2), tsr_tensor_4d(x, TSR_F32, 1, 1, 4, 2),
                  tsr_tensor_4d(x, TSR_F32, 1, 1, 4, 2), tsr_tensor_4d(out, TSR_F32, 1, 1, 4, 2),
                  (tsr_tensor){0});
    a.b = 3;
    a.cu_seqlens_q = a.cu_seqlens_k = tsr_tensor_1d(starts, TSR_I32, 4);
    KIT_FAILS(TSR_ERR_INDEX, "cu_seqlens_q[2] is 2, must not be below the one before, 3",
              tsr_call_attention_fwd(ctx, &a, NULL));
    starts[2] = 3, starts[3] = 5;
    KIT_FAILS(TSR_ERR_INDEX, "cu_seqlens_q[3] is 5, must be the number of rows, 4",
              tsr_call_attention_fwd(ctx, &a, NULL));
    starts[0] = 1;
    KIT_FAILS(TSR_ERR_INDEX, "cu_seqlens_q[0] is 1, must be 0", tsr_call_attention_fwd(ctx, &a, NULL));
    for (int i = 0; i < 8; i++) assert_true(out[i] == 7);
}

/* A shape with an extent of 0 is a small job, not an error; where something is written it is the empty sum.
 */
static void test_attention_without_extent(void **state)
{
    (void)state;
    for (int empty = 0; empty < 7; empty++) {
        int64_t n[] = {2, 4, 2, 3, 3, 2, 2}; /* b hq hkv lq lk d dv */
        n[empty] = 0;
        if (empty == 2) n[1] = 0; /* no heads of k: none of q */
        const tsr_tensor q = kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, n[0], n[1], n[3], n[5]));
        const tsr_tensor k = kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, n[0], n[2], n[4], n[5]));
        const tsr_tensor v = kit_constant(KIT_NEW(TSR_F32, KIT_PADDED, n[0], n[2], n[4], n[6]), 3);
        const tsr_tensor out = KIT_NEW(TSR_F32, KIT_PADDED, n[0], n[1], n[3], n[6]);
        const tsr_tensor lse = KIT_NEW(TSR_F32, KIT_PADDED, n[0], n[1], n[3]);
        KIT_OK(tsr_attention_fwd(kit_reference(), &q, &k, &v, &out, &lse, NULL, NULL));
        const bool no_key = empty == 4;
        const tsr_tensor all = kit_constant(kit_like(&out, TSR_F64, KIT_ROWS), no_key ? 0 : 3);
        kit_check(&out, &all, (kit_bound){.ulps = 1}, "attention, extent %d is 0: out", empty);
        for (int64_t i = 0; i < tsr_tensor_numel(&lse); i++)
            assert_true(no_key ? kit_get(&lse, i) == -INFINITY : isfinite(kit_get(&lse, i)));

        const tsr_tensor dq = kit_like(&q, TSR_F32, KIT_PADDED), dk = kit_like(&k, TSR_F32, KIT_PADDED);
        const tsr_tensor dv = kit_like(&v, TSR_F32, KIT_PADDED);
        const tsr_attention_saved saved = {.out = &out, .lse = &lse, .dout = &out};
        const tsr_attention_grads grads = {.dq = &dq, .dk = &dk, .dv = &dv};
        KIT_OK(tsr_attention_bwd(kit_reference(), &q, &k, &v, &saved, &grads, NULL, NULL));
        const tsr_tensor zeros = kit_constant(kit_like(&q, TSR_F64, KIT_ROWS), 0);
        if (no_key) kit_check(&dq, &zeros, KIT_EXACT, "attention without keys: dq");
        kit_free_all();
    }
}

static void test_operators_without_elements(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    const tsr_tensor rows = KIT_NEW(TSR_F64, KIT_ROWS, 0, 5), columns = KIT_NEW(TSR_F64, KIT_ROWS, 4, 0);
    KIT_OK(tsr_softmax_fwd(ctx, &rows, &rows));
    KIT_OK(tsr_softmax_fwd(ctx, &columns, &columns));
    KIT_OK(tsr_activation_fwd(ctx, TSR_ACTIVATION_GELU, &columns, &columns));

    const tsr_tensor sum = kit_constant(KIT_NEW(TSR_F64, KIT_ROWS, 1), 7);
    KIT_OK(tsr_sum(ctx, &rows, 1, &sum));
    assert_true(kit_get(&sum, 0) == 7);
    KIT_OK(tsr_sum_squares(ctx, &columns, 0, &sum));
    assert_true(kit_get(&sum, 0) == 0);

    const tsr_tensor row_sums = KIT_NEW(TSR_F64, KIT_GAPS, 5);
    KIT_OK(tsr_sum_rows(ctx, &rows, 0, &row_sums));
    for (int64_t j = 0; j < 5; j++) assert_true(kit_get(&row_sums, j) == 0);

    /* No rows: the mean of nothing is 0, and so is the gradient. */
    const tsr_tensor w = kit_normal(KIT_NEW(TSR_F64, KIT_PADDED, 3, 5)), dw = kit_like(&w, TSR_F64, KIT_GAPS);
    const tsr_tensor targets = KIT_NEW(TSR_I32, KIT_ROWS, 0), lse = KIT_NEW(TSR_F64, KIT_ROWS, 0);
    const tsr_tensor dx = kit_like(&rows, TSR_F64, KIT_ROWS);
    KIT_OK(tsr_linear_cross_entropy_fwd(ctx, &rows, &w, &targets, -1, &sum, &lse, NULL));
    assert_true(kit_get(&sum, 0) == 0);
    KIT_OK(tsr_linear_cross_entropy_bwd(ctx, &rows, &w, &targets, -1, &lse, &sum, 0, &dx, &dw, NULL));
    const tsr_tensor zeros = kit_constant(kit_like(&w, TSR_F64, KIT_ROWS), 0);
    kit_check(&dw, &zeros, KIT_EXACT, "cross_entropy without rows: dw");

    const tsr_tensor ids = KIT_NEW(TSR_I32, KIT_ROWS, 0), dtable = kit_like(&w, TSR_F64, KIT_PADDED);
    const tsr_tensor none = KIT_NEW(TSR_F64, KIT_ROWS, 0, 5);
    KIT_OK(tsr_embedding_fwd(ctx, &w, &ids, &none));
    KIT_OK(tsr_embedding_bwd(ctx, &ids, &none, 0, &dtable));
    kit_check(&dtable, &zeros, KIT_EXACT, "embedding without ids: dtable");
    kit_free_all();
}

/* One bad entry among good ones: named, and nothing is written. */
static void test_indices_out_of_range(void **state)
{
    (void)state;
    tsr_context *ctx = kit_reference();
    const tsr_tensor table = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 4, 3));
    const tsr_tensor ids = kit_integers(KIT_NEW(TSR_I32, KIT_PADDED, 2, 3), 0, 3);
    const tsr_tensor out = KIT_NEW(TSR_F32, KIT_ROWS, 2, 3, 3), dtable = kit_like(&table, TSR_F32, KIT_ROWS);
    kit_set(&ids, 4, 4);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "ids[1, 1] is 4, must be 0 to 3", tsr_embedding_fwd(ctx, &table, &ids, &out));
    KIT_FAILS(TSR_ERR_INDEX, "ids[1, 1] is 4", tsr_embedding_bwd(ctx, &ids, &out, 0, &dtable));

    const tsr_tensor targets = kit_integers(KIT_NEW(TSR_I32, KIT_GAPS, 4), 0, 3);
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 4, 3)), dx = kit_like(&x, TSR_F32, KIT_ROWS);
    const tsr_tensor loss = KIT_NEW(TSR_F32, KIT_ROWS, 1), lse = KIT_NEW(TSR_F32, KIT_ROWS, 4);
    kit_set(&targets, 0, -100), kit_set(&targets, 2, -1);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "targets[2] is -1, must be 0 to 3",
              tsr_linear_cross_entropy_fwd(ctx, &x, &table, &targets, -100, &loss, &lse, NULL));
    KIT_FAILS(
        TSR_ERR_INDEX, "targets[2] is -1",
        tsr_linear_cross_entropy_bwd(ctx, &x, &table, &targets, -100, &lse, &loss, 0, &dx, &dtable, NULL));

    const tsr_tensor kv = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 2, 1, 3, 2));
    const tsr_tensor cache = KIT_NEW(TSR_F32, KIT_PADDED, 2, 1, 5, 2);
    const tsr_tensor start = kit_integers(KIT_NEW(TSR_I32, KIT_GAPS, 2), 0, 2);
    const tsr_tensor lengths = kit_integers(KIT_NEW(TSR_I32, KIT_GAPS, 2), 1, 3);
    kit_set(&start, 1, 3);
    kit_set(&lengths, 1, 3);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "start[1] is 3, must be 0 to 2",
              tsr_kv_append(ctx, &kv, &start, &lengths, &cache));
    kit_set(&lengths, 0, 4);
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "lengths[0] is 4, must be 0 to 3",
              tsr_kv_append(ctx, &kv, &start, &lengths, &cache));
    kit_check_sealed("operators with a bad index");
    kit_free_all();
}

static void test_kv_append_by_hand(void **state)
{
    (void)state;
    const tsr_tensor x = KIT_NEW(TSR_F32, kit_any_output(), 2, 1, 2, 1);
    const tsr_tensor cache = kit_constant(KIT_NEW(TSR_BF16, kit_any_output(), 2, 1, 4, 1), 9);
    const tsr_tensor start = KIT_NEW(TSR_I32, KIT_GAPS, 2), lengths = KIT_NEW(TSR_I32, KIT_GAPS, 2);
    for (int64_t i = 0; i < 4; i++) kit_set(&x, i, (double)i + 1);
    kit_set(&start, 0, 2), kit_set(&start, 1, 0);
    kit_set(&lengths, 0, 2), kit_set(&lengths, 1, 1);
    KIT_OK(tsr_kv_append(kit_reference(), &x, &start, &lengths, &cache));
    const double expected[] = {9, 9, 1, 2, 3, 9, 9, 9};
    for (int64_t i = 0; i < 8; i++) assert_true(kit_get(&cache, i) == expected[i]);
    kit_check_gaps(&cache, "kv_append: cache");
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_by_hand),
        cmocka_unit_test(test_gemm_of_bytes_is_exact),
        cmocka_unit_test(test_gemm_by_pointers),
        cmocka_unit_test(test_softmax_rows_at_the_edge),
        cmocka_unit_test(test_attention_by_hand),
        cmocka_unit_test(test_attention_lengths_out_of_range),
        cmocka_unit_test(test_attention_without_extent),
        cmocka_unit_test(test_operators_without_elements),
        cmocka_unit_test(test_indices_out_of_range),
        cmocka_unit_test(test_kv_append_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
