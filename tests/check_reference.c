/* check_reference.c - the reference where its results are known by hand: exact sums, edges, what is not read
 */
#include "kit/kit.h"

#include <math.h>

#include "op/context.h"

static tsr_context *reference(void)
{
    tsr_context *ctx;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &ctx));
    return ctx;
}

/* A row-major matrix of a batch of one. */
static tsr_gemm_matrix matrix(void *data, tsr_dtype dtype, int64_t row)
{
    return (tsr_gemm_matrix){.data = data, .dtype = dtype, .row = row, .col = 1, .group = 1};
}

static void test_gemm_by_hand(void **state)
{
    (void)state;
    tsr_context *ctx = reference();
    double a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, -1, 2, 0, 3, 1}, c[] = {NAN, NAN, NAN, NAN};
    tsr_gemm_args g = {.m = 2, .n = 2, .k = 3, .batch = 1, .num_heads = 1, .alpha = 2};
    g.a = matrix(a, TSR_F64, 3), g.b = matrix(b, TSR_F64, 2), g.c = matrix(c, TSR_F64, 2);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL)); /* beta = 0: the NaN in C is not read */
    assert_true(c[0] == 28 && c[1] == 4 && c[2] == 64 && c[3] == 4);
    g.k = 0, g.beta = 0.5f;
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    assert_true(c[0] == 14 && c[1] == 2 && c[2] == 32 && c[3] == 2);
    tsr_context_destroy(ctx);
}

static void test_gemm_of_bytes_is_exact(void **state)
{
    (void)state;
    enum { K = 4099 };
    tsr_context *ctx = reference();
    static int8_t a[K], b[K];
    int32_t c = 7, expected = 3 * 7;
    for (int i = 0; i < K; i++) a[i] = (int8_t)(i * 37 - 128), b[i] = (int8_t)(i * i - 128);
    for (int i = 0; i < K; i++) expected += a[i] * b[i];
    tsr_gemm_args g = {.m = 1, .n = 1, .k = K, .batch = 1, .num_heads = 1, .alpha = 1, .beta = 3};
    g.a = matrix(a, TSR_S8, K), g.b = matrix(b, TSR_S8, 1), g.c = matrix(&c, TSR_I32, 1);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    assert_int_equal(c, expected);
    tsr_context_destroy(ctx);
}

/* Two heads share B (group 2); A and C by pointers, A's rows apart by a stride of its own. */
static void test_gemm_by_pointers(void **state)
{
    (void)state;
    tsr_context *ctx = reference();
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
    tsr_context_destroy(ctx);
}

static void test_softmax_rows_at_the_edge(void **state)
{
    (void)state;
    tsr_context *ctx = reference();
    float x[] = {-INFINITY, -INFINITY, 1000, 1000, NAN, -INFINITY}, y[6];
    const tsr_softmax_fwd_args s = {.x = tsr_tensor_2d(x, TSR_F32, 3, 2),
                                    .y = tsr_tensor_2d(y, TSR_F32, 3, 2)};
    KIT_OK(tsr_call_softmax_fwd(ctx, &s, NULL));
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0.5f && y[3] == 0.5f && isnan(y[4]) && isnan(y[5]));
    tsr_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_by_hand),
        cmocka_unit_test(test_gemm_of_bytes_is_exact),
        cmocka_unit_test(test_gemm_by_pointers),
        cmocka_unit_test(test_softmax_rows_at_the_edge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
