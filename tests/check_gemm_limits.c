/* check_gemm_limits.c - sizes and strides at the end of what fits: products, packed weights */
#include <stdint.h>

#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/tensor.h"
#include "tessera/gemm.h"
#include "tessera/linear.h"

/* Who asks for a workspace names no alpha or beta: it is enough for all. */
static void a_workspace_is_enough_for_every_factor(tsr_context *ctx)
{
    const tsr_tensor a = kit_integers(KIT_NEW(TSR_S8, KIT_ROWS, 20, 40), -128, 127);
    const tsr_tensor b = kit_integers(KIT_NEW(TSR_S8, KIT_ROWS, 40, 100), -128, 127);
    const tsr_tensor c = kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, 20, 100), -9, 9);
    size_t nbytes;
    KIT_OK(tsr_matmul2d_workspace(ctx, &a, &b, &c, &nbytes));
    const tsr_tensor memory = KIT_NEW(TSR_F32, KIT_ROWS, (int64_t)(nbytes + 3) / 4);
    const tsr_workspace ws = {memory.data, nbytes};
    const float factors[][2] = {{1, 0}, {1, 1}, {2, 0}, {1, 0.5f}, {-3, 2}};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        const tsr_tensor expected = kit_copy(&c, TSR_I32, KIT_ROWS);
        KIT_OK(tsr_matmul2d(kit_reference(), factors[i][0], &a, &b, factors[i][1], &expected, NULL));
        KIT_OK(tsr_matmul2d(ctx, factors[i][0], &a, &b, factors[i][1], &c, &ws));
        if (!kit_same_bits(&c, &expected))
            kit_fail("s8, alpha %g beta %g differ", factors[i][0], factors[i][1]);
    }
    kit_free_all();
}

/* A stride that is never taken may be any number. */
static void untaken_strides(tsr_context *ctx)
{
    tsr_tensor a = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 1, 9), -3, 3);
    tsr_tensor b = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 9, 1), -3, 3);
    tsr_tensor c = KIT_NEW(TSR_F32, KIT_ROWS, 1, 1), expected = KIT_NEW(TSR_F32, KIT_ROWS, 1, 1);
    KIT_OK(tsr_matmul2d(kit_reference(), 1, &a, &b, 0, &expected, NULL));
    a.stride[0] = b.stride[1] = c.stride[0] = c.stride[1] = INT64_MAX;
    KIT_OK(tsr_matmul2d(ctx, 1, &a, &b, 0, &c, NULL));
    const tsr_tensor w = tsr_tensor_transpose(&b, 0, 1);
    if (*(float *)c.data != *(float *)expected.data) kit_fail("a product of one row and one column is wrong");
    KIT_OK(tsr_linear_plain_fwd(ctx, &a, &w, NULL, &c, NULL));
    if (*(float *)c.data != *(float *)expected.data) kit_fail("linear of one row and one column is wrong");
    kit_free_all();
}

/* What is needed may just fit a number, and no memory: either says so. */
static void refused(tsr_status status, const char *what)
{
    if (status != TSR_ERR_OVERFLOW && status != TSR_ERR_MEMORY)
        kit_fail("%s gave status %d", what, (int)status);
}

/* Views that repeat one element may be of any extent; what would be made of them does not fit. */
static void extents_that_do_not_fit(tsr_context *ctx)
{
    int8_t one = 1;
    int32_t c = 77;
    tsr_tensor a = tsr_tensor_2d(&one, TSR_S8, 1, 1), b = a;
    const tsr_tensor tc = tsr_tensor_2d(&c, TSR_I32, 1, 1);
    a.shape[1] = b.shape[0] = INT64_MAX, a.stride[0] = a.stride[1] = b.stride[0] = b.stride[1] = 0;
    refused(tsr_matmul2d(ctx, 1, &a, &b, 0, &tc, NULL), "a product over 2^63 - 1 elements");
    if (c != 77) kit_fail("c was written");
    float value = 1;
    tsr_weight_source w = {.values = tsr_tensor_2d(&value, TSR_F32, 1, 1)};
    tsr_weight *weight = NULL;
    w.values.shape[1] = (int64_t)1 << 57, w.values.stride[0] = w.values.stride[1] = 0;
    refused(tsr_weight_create(ctx, &w, NULL, NULL, &weight), "a weight of 2^57 elements");
    w.values.shape[0] = (int64_t)1 << 40, w.values.shape[1] = 0; /* nothing, of which there is much */
    KIT_OK(tsr_weight_create(ctx, &w, NULL, NULL, &weight));
    tsr_weight_destroy(ctx, weight);
}

static void limits(tsr_context *ctx)
{
    a_workspace_is_enough_for_every_factor(ctx);
    untaken_strides(ctx);
    extents_that_do_not_fit(ctx);
}

static void test_limits(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(limits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests_name("gemm limits", tests, NULL, NULL);
}
