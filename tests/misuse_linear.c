/*
 * tests/misuse_linear.c - what products with plain and packed weights refuse; y stays as it was
 *
 * tests/misuse_operators.c has what the plain product shares with every operator, tests/misuse_weight.c the
 * packing.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit/isa.h"
#include "kit/misuse.h"
#include "op/context.h"
#include "tessera/linear.h"

enum { M = 3, N = 5, K = 64 };

static int free_all(void **state)
{
    (void)state;
    kit_free_all();
    return 0;
}

static tsr_tensor input(tsr_dtype dtype, int64_t m, int64_t n)
{
    const tsr_tensor t = KIT_NEW(dtype, KIT_GAPS, m, n);
    return dtype == TSR_S8 ? kit_integers(t, 0, 7) : kit_normal(t);
}

static tsr_tensor vector(tsr_dtype dtype, int64_t n)
{
    return kit_integers(KIT_NEW(dtype, KIT_GAPS, n), 0, 7);
}

/* A product that is right, to make one thing wrong in. */
typedef struct call {
    tsr_weight *weight; /* NULL: plain */
    tsr_tensor w, x, y, bias, gate_bias, residual;
    tsr_linear_options o;
} call;

static tsr_status run(tsr_context *ctx, const call *c, const tsr_workspace *ws)
{
    return c->weight != NULL ? tsr_linear_fwd(ctx, &c->x, c->weight, &c->o, &c->y, ws)
                             : tsr_linear_plain_fwd(ctx, &c->x, &c->w, &c->o, &c->y, ws);
}

static tsr_status query(tsr_context *ctx, const call *c, size_t *out)
{
    return c->weight != NULL ? tsr_linear_workspace(ctx, &c->x, c->weight, &c->o, &c->y, out)
                             : tsr_linear_plain_workspace(ctx, &c->x, &c->w, &c->o, &c->y, out);
}

/* The product fails, its query too; and the message begins with the function's name. */
static void refuses_call(tsr_context *ctx, tsr_status status, const char *words, const call *c)
{
    size_t nbytes = 77;
    KIT_REFUSES(status, words, run(ctx, c, NULL));
    KIT_FAILS(status, c->weight != NULL ? "linear_fwd: " : "linear_plain_fwd: ", run(ctx, c, NULL));
    KIT_FAILS(status, words, query(ctx, c, &nbytes));
    KIT_FAILS(status,
              c->weight != NULL ? "linear_workspace: " : "linear_plain_workspace: ", query(ctx, c, &nbytes));
    assert_int_equal(nbytes, 77);
}

static void make(call *c, tsr_dtype dtype)
{
    *c = (call){.w = input(dtype, N, K), .x = input(dtype, M, K), .y = input(dtype, M, N)};
    c->bias = kit_normal(KIT_NEW(dtype, KIT_GAPS, N)), c->gate_bias = kit_normal(KIT_NEW(dtype, KIT_GAPS, N));
    c->residual = input(dtype, M, N);
}

static void refuses_extents(tsr_context *ctx, const call *right)
{
    const char *rows = right->weight != NULL ? "the weight's first" : "w's first";
    char words[120];
    call c = *right;
    c.x.shape[1] = K - 1;
    refuses_call(ctx, TSR_ERR_SHAPE, "x has shape [3, 63], its second extent must be ", &c);
    c = *right, c.x.rank = 1;
    refuses_call(ctx, TSR_ERR_SHAPE, "x has shape [3], must have rank 2", &c);
    c = *right, c.y.shape[0] = M - 1;
    refuses_call(ctx, TSR_ERR_SHAPE, "y has shape [2, 5], its first extent must be x's first, 3", &c);
    c = *right, c.y.shape[1] = N - 1;
    snprintf(words, sizeof words, "y has shape [3, 4], its second extent must be %s, 5", rows);
    refuses_call(ctx, TSR_ERR_SHAPE, words, &c);
    c = *right, c.bias.shape[0] = N - 1, c.o.bias = &c.bias;
    refuses_call(ctx, TSR_ERR_SHAPE, "bias has shape [4], its first extent must be y's second, 5", &c);
    c = *right, c.residual.shape[0] = M - 1, c.o.residual = &c.residual;
    refuses_call(ctx, TSR_ERR_SHAPE, "residual has shape [2, 5], must have y's, [3, 5]", &c);
}

static void refuses_options(tsr_context *ctx, const call *right)
{
    call c = *right;
    for (int a = -1; a <= 5; a += 6) {
        c.o.activation = (tsr_activation)a;
        refuses_call(ctx, TSR_ERR_ARGUMENT, "options.activation is ", &c);
    }
    const float wrong[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        c = *right, c.o.scale = wrong[i];
        refuses_call(ctx, TSR_ERR_ARGUMENT, "options.scale is ", &c);
        c = *right, c.o.y_scale = wrong[i];
        refuses_call(ctx, TSR_ERR_ARGUMENT, "options.y_scale is ", &c);
    }
    c = *right, c.o.y_scale = -1;
    refuses_call(ctx, TSR_ERR_ARGUMENT, "options.y_scale is -1, must be a number of at least 0", &c);
    c = *right, c.o.gate_bias = &c.gate_bias;
    refuses_call(ctx, TSR_ERR_ARGUMENT, "gate_bias is given, must be NULL: the weight has no gate", &c);
}

static void refuses_types(tsr_context *ctx, const call *right)
{
    const tsr_dtype dtype = right->x.dtype, other = dtype == TSR_BF16 ? TSR_F16 : TSR_BF16;
    call c = *right;
    c.y = input(other, M, N);
    refuses_call(ctx, TSR_ERR_DTYPE, other == TSR_F16 ? "y is f16, must be " : "y is bf16, must be ", &c);
    c = *right, c.x = input(TSR_S8, M, K);
    refuses_call(ctx, TSR_ERR_DTYPE, "x is s8, must be ", &c);
    c = *right, c.bias = kit_normal(KIT_NEW(other, KIT_GAPS, N)), c.o.bias = &c.bias;
    refuses_call(ctx, TSR_ERR_DTYPE, other == TSR_F16 ? "bias is f16, must be " : "bias is bf16, must be ",
                 &c);
    c = *right, c.residual = input(other, M, N), c.o.residual = &c.residual;
    refuses_call(ctx, TSR_ERR_DTYPE, "must be of y's dtype", &c);
    c = *right, c.residual.device = TSR_DEVICE_CUDA, c.o.residual = &c.residual;
    refuses_call(ctx, TSR_ERR_DEVICE, "residual lives on device 1", &c);
    c = *right, c.y.device = TSR_DEVICE_CUDA;
    refuses_call(ctx, TSR_ERR_DEVICE, "y lives on device 1", &c);
}

static void refuses_memory(tsr_context *ctx, const call *right)
{
    call c = *right;
    const tsr_tensor wide = kit_normal(KIT_NEW(right->x.dtype, KIT_ROWS, M + 1, K));
    c.x = tsr_tensor_slice(&wide, 0, 0, M);
    c.y = tsr_tensor_slice(&c.x, 1, 0, N);
    KIT_REFUSES(TSR_ERR_OVERLAP, "y shares memory with x", run(ctx, &c, NULL));
    c = *right, c.y.stride[1] = 0;
    KIT_REFUSES(TSR_ERR_OVERLAP, "y has elements that share memory", run(ctx, &c, NULL));
    c = *right, c.o.residual = &c.residual; /* the rows of y, one further down */
    const tsr_tensor rows = kit_normal(KIT_NEW(right->x.dtype, KIT_ROWS, M + 1, N));
    c.y = tsr_tensor_slice(&rows, 0, 0, M), c.residual = tsr_tensor_slice(&rows, 0, 1, M);
    KIT_REFUSES(TSR_ERR_OVERLAP, "y shares memory with residual, must be apart from it, or the same view",
                run(ctx, &c, NULL));
    c.residual = c.y;
    KIT_OK(run(ctx, &c, NULL));
    c = *right, c.bias = tsr_tensor_1d(c.y.data, c.y.dtype, N), c.o.bias = &c.bias;
    KIT_REFUSES(TSR_ERR_OVERLAP, "y shares memory with bias", run(ctx, &c, NULL));
}

static void refuses_workspace(tsr_context *ctx, const call *c)
{
    size_t need = 0;
    KIT_OK(query(ctx, c, &need));
    KIT_FAILS(TSR_ERR_ARGUMENT, " is NULL", query(ctx, c, NULL));
    if (need > 0) {
        KIT_REFUSES(TSR_ERR_WORKSPACE, "the workspace has ", run(ctx, c, &(tsr_workspace){&need, need - 1}));
        KIT_REFUSES(TSR_ERR_WORKSPACE, "the workspace has 0", run(ctx, c, &(tsr_workspace){NULL, need}));
    }
    KIT_OK(tsr_enter(ctx));
    KIT_REFUSES(TSR_ERR_BUSY, "the context is serving another call", run(ctx, c, NULL));
    tsr_leave(ctx, TSR_OK);
}

static void refuses_all(tsr_context *ctx, const call *right)
{
    KIT_OK(run(ctx, right, NULL));
    refuses_extents(ctx, right);
    refuses_options(ctx, right);
    refuses_types(ctx, right);
    refuses_memory(ctx, right);
    refuses_workspace(ctx, right);
}

static void plain_products(void **state)
{
    tsr_context *ctx = *state;
    call c;
    make(&c, TSR_F32);
    refuses_all(ctx, &c);
    c.w = input(TSR_F16, N, K);
    refuses_call(ctx, TSR_ERR_DTYPE, "w is f16, must be f32", &c);
    c.w = input(TSR_F32, N, K + 1);
    refuses_call(ctx, TSR_ERR_SHAPE, "x has shape [3, 64], its second extent must be w's second, 65", &c);
}

static void packed_products(void **state)
{
    tsr_context *ctx = *state;
    static const tsr_dtype floats[] = {TSR_F32, TSR_BF16};
    for (int format = TSR_WEIGHT_AS_IS; format <= TSR_WEIGHT_INT4_ZERO; format++)
        for (int i = 0; i < 2; i++) {
            call c;
            make(&c, floats[i]);
            const tsr_weight_options o = {(tsr_weight_format)format, 0};
            const tsr_weight_source w = {.values = c.w};
            KIT_OK(tsr_weight_create(ctx, &w, NULL, &o, &c.weight));
            refuses_all(ctx, &c);
            tsr_weight_destroy(ctx, c.weight);
            kit_free_all();
        }
}

static void weights_and_their_types_of_x(void **state)
{
    tsr_context *ctx = *state;
    call c;
    make(&c, TSR_BF16);
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0};
    tsr_weight_source w = {.values = c.w};
    KIT_OK(tsr_weight_create(ctx, &w, NULL, NULL, &c.weight));
    c.x = input(TSR_F16, M, K);
    refuses_call(ctx, TSR_ERR_DTYPE, "x is f16, must be f32 or bf16", &c);
    c.x = input(TSR_F32, M, K), c.y = input(TSR_F32, M, N);
    KIT_OK(run(ctx, &c, NULL));
    tsr_weight_destroy(ctx, c.weight);
    w.values = input(TSR_F32, N, K);
    KIT_OK(tsr_weight_create(ctx, &w, NULL, NULL, &c.weight));
    c.x = input(TSR_BF16, M, K);
    refuses_call(ctx, TSR_ERR_DTYPE, "x is bf16, must be f32", &c);
    tsr_weight_destroy(ctx, c.weight);
    KIT_OK(tsr_weight_create(ctx, &w, &w, &int8, &c.weight));
    KIT_OK(run(ctx, &c, NULL));
    c.x = input(TSR_F64, M, K);
    refuses_call(ctx, TSR_ERR_DTYPE, "x is f64, must be f32, bf16 or f16", &c);
    c.x = input(TSR_F32, M, K), c.gate_bias = vector(TSR_F32, N + 1), c.o.gate_bias = &c.gate_bias;
    refuses_call(ctx, TSR_ERR_SHAPE, "gate_bias has shape [6], its first extent must be", &c);
    c.gate_bias = vector(TSR_F32, N);
    KIT_OK(run(ctx, &c, NULL));
    tsr_weight_destroy(ctx, c.weight);
    KIT_FAILS(TSR_ERR_ARGUMENT, "linear_fwd: weight is NULL",
              tsr_linear_fwd(ctx, &c.x, NULL, NULL, &c.y, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "linear_fwd: the context is NULL",
              tsr_linear_fwd(NULL, &c.x, NULL, NULL, &c.y, NULL));
}

static void weights_of_other_contexts(void **state)
{
    (void)state;
    call c;
    make(&c, TSR_F32);
    const tsr_weight_source w = {.values = c.w};
    KIT_OK(tsr_weight_create(kit_reference(), &w, NULL, NULL, &c.weight));
    refuses_call(kit_cpu(), TSR_ERR_ARGUMENT,
                 "weight was packed by the reference backend, must be by the context's, cpu", &c);
    tsr_context *another = NULL;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &another));
    KIT_OK(run(another, &c, NULL));
    tsr_weight_destroy(another, c.weight);
    tsr_context_destroy(another);
    setenv("TESSERA_ISA", "portable", 1);
    tsr_context *portable = kit_cpu_with_threads(1);
    unsetenv("TESSERA_ISA");
    KIT_OK(tsr_weight_create(portable, &w, NULL, NULL, &c.weight));
    KIT_OK(run(portable, &c, NULL));
    if (strcmp(tsr_context_kernels(portable), tsr_context_kernels(kit_cpu())) != 0)
        refuses_call(kit_cpu(), TSR_ERR_ARGUMENT, "weight was packed for another instruction set (", &c);
    tsr_weight_destroy(portable, c.weight);
    tsr_context_destroy(portable);
}

int main(void)
{
    tsr_context *contexts[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = contexts[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate_setup_teardown(plain_products, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(packed_products, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(weights_and_their_types_of_x, NULL, free_all, ctx),
            cmocka_unit_test_teardown(weights_of_other_contexts, free_all),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
