/* tests/misuse_gemm.c - what GEMM's entries refuse beyond what every operator does: counts, dtypes, pointers
 */
#include <stdio.h>

#include "kit/isa.h"
#include "kit/misuse.h"
#include "tessera/gemm.h"

static int free_all(void **state)
{
    (void)state;
    kit_free_all();
    return 0;
}

enum { M = 2, N = 3, K = 4, BATCH = 2, HEADS = 4 };

static tsr_tensor input(tsr_dtype dtype, int64_t m, int64_t n)
{
    return kit_integers(KIT_NEW(dtype, KIT_GAPS, m, n), -3, 3);
}

static void dtypes_that_do_not_agree(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor a = input(TSR_BF16, M, K), b = input(TSR_F16, K, N),
                     c = KIT_NEW(TSR_F32, KIT_ROWS, M, N);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d: b is f16, must be bf16", tsr_matmul2d(ctx, 1, &a, &b, 0, &c, NULL));
    const tsr_tensor b_like_a = input(TSR_BF16, K, N), c_f16 = KIT_NEW(TSR_F16, KIT_ROWS, M, N);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d: c is f16, must be f32 or bf16",
                tsr_matmul2d(ctx, 1, &a, &b_like_a, 0, &c_f16, NULL));
    const tsr_tensor a_s8 = input(TSR_S8, M, K), b_s8 = input(TSR_S8, K, N);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d: c is f32, must be i32",
                tsr_matmul2d(ctx, 1, &a_s8, &b_s8, 0, &c, NULL));
    const tsr_tensor dc_s8 = KIT_NEW(TSR_I32, KIT_ROWS, M, N), da = KIT_NEW(TSR_F32, KIT_ROWS, M, K);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d_bwd: a is s8",
                tsr_matmul2d_bwd(ctx, 1, &a_s8, &b_s8, &dc_s8, 0, &da, NULL, NULL));
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d_bwd: dc is f32, must be bf16",
                tsr_matmul2d_bwd(ctx, 1, &a, &b_like_a, &c, 0, &da, NULL, NULL));
    const tsr_tensor dc = input(TSR_BF16, M, N), da_f16 = KIT_NEW(TSR_F16, KIT_ROWS, M, K);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d_bwd: da is f16, must be bf16 or f32",
                tsr_matmul2d_bwd(ctx, 1, &a, &b_like_a, &dc, 0, &da_f16, NULL, NULL));
}

static void f64_off_the_reference(void **state)
{
    (void)state;
    const tsr_tensor a = input(TSR_F64, M, K), b = input(TSR_F64, K, N), c = KIT_NEW(TSR_F64, KIT_ROWS, M, N);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d: a is f64, which the cpu backend does not compute in",
                tsr_matmul2d(kit_cpu(), 1, &a, &b, 0, &c, NULL));
    const tsr_tensor c_f32 = KIT_NEW(TSR_F32, KIT_ROWS, M, N);
    KIT_REFUSES(TSR_ERR_DTYPE, "matmul2d: c is f32, must be f64",
                tsr_matmul2d(kit_reference(), 1, &a, &b, 0, &c_f32, NULL));
}

static void shapes_are_named(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor a = input(TSR_F32, 2, 4), b = input(TSR_F32, 3, 5), c = KIT_NEW(TSR_F32, KIT_ROWS, 2, 5);
    KIT_REFUSES(TSR_ERR_SHAPE, "matmul2d: b has shape [3, 5], its first extent must be a's second, 4",
                tsr_matmul2d(ctx, 1, &a, &b, 0, &c, NULL));
}

/* A strided batch that is right: [batch, heads, rows, columns] each, two heads of A to one of B. */
static tsr_gemm_strided strided(void)
{
    const tsr_tensor a = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, BATCH, HEADS, M, K));
    const tsr_tensor b = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, BATCH, HEADS / 2, K, N));
    const tsr_tensor c = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, BATCH, HEADS, M, N));
    return (tsr_gemm_strided){.m = M,
                              .n = N,
                              .k = K,
                              .batch = BATCH,
                              .num_heads = HEADS,
                              .b_group = 2,
                              .a = {a.data, a.stride[0], a.stride[1], a.stride[2]},
                              .b = {b.data, b.stride[0], b.stride[1], b.stride[2]},
                              .c = {c.data, c.stride[0], c.stride[1], c.stride[2]},
                              .alpha = 1};
}

/* Both directions refuse the description; forward says `words`. */
static void refuses_strided(tsr_context *ctx, tsr_status status, const char *words, const tsr_gemm_strided *g)
{
    size_t nbytes = 77;
    KIT_REFUSES(status, words, tsr_gemm_strided_fwd(ctx, g, NULL));
    KIT_REFUSES(status, "gemm_strided_bwd: ", tsr_gemm_strided_bwd(ctx, g, TSR_F32, NULL, NULL, NULL));
    KIT_FAILS(status, "gemm_strided_workspace: ", tsr_gemm_strided_workspace(ctx, g, &nbytes));
    assert_int_equal(nbytes, 77);
}

static void strided_counts(void **state)
{
    tsr_context *ctx = *state;
    const tsr_gemm_strided right = strided();
    KIT_OK(tsr_gemm_strided_fwd(ctx, &right, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "g is NULL", tsr_gemm_strided_fwd(ctx, NULL, NULL));
    tsr_gemm_strided g = right;
    int64_t *const counts[] = {&g.m, &g.n, &g.k, &g.batch, &g.num_heads, &g.b_group};
    const char *const words[] = {"m is -1",     "n is -1",         "k is -1",
                                 "batch is -1", "num_heads is -1", "b_group is -1"};
    for (int i = 0; i < 6; i++) {
        g = right;
        *counts[i] = -1;
        refuses_strided(ctx, TSR_ERR_ARGUMENT, words[i], &g);
    }
    g = right, g.b_group = 3;
    refuses_strided(ctx, TSR_ERR_SHAPE, "b_group is 3, must divide num_heads, 4", &g);
    g = right, g.m = INT64_MAX / 8, g.a.row_stride = 64;
    refuses_strided(ctx, TSR_ERR_OVERFLOW, "gemm_strided_fwd: a is too large", &g);
    g = right, g.b.head_stride = INT64_MAX / 2;
    refuses_strided(ctx, TSR_ERR_OVERFLOW, "gemm_strided_fwd: b is too large", &g);
    g = right, g.dtype = (tsr_dtype)99;
    refuses_strided(ctx, TSR_ERR_DTYPE, "dtype is invalid", &g);
    g = right, g.c_dtype = TSR_BF16;
    refuses_strided(ctx, TSR_ERR_DTYPE, "c_dtype is bf16, must be f32", &g);
    g = right;
    KIT_REFUSES(TSR_ERR_DTYPE, "grad_dtype is i32, must be f32",
                tsr_gemm_strided_bwd(ctx, &g, TSR_I32, NULL, NULL, NULL));
    KIT_OK(tsr_gemm_strided_bwd(ctx, &g, TSR_F32, NULL, NULL, NULL)); /* nothing is wanted */
}

static void strided_rows_that_collide(void **state)
{
    tsr_context *ctx = *state;
    const tsr_gemm_strided right = strided();
    tsr_gemm_strided g = right;
    g.c.row_stride = N - 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c has elements that share memory", tsr_gemm_strided_fwd(ctx, &g, NULL));
    g = right, g.c.head_stride = M * N - 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c has elements that share memory", tsr_gemm_strided_fwd(ctx, &g, NULL));
    g = right, g.c.batch_stride = 0;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c has elements that share memory", tsr_gemm_strided_fwd(ctx, &g, NULL));
    g = right, g.a.batch_stride = g.b.batch_stride = 0; /* inputs may be shared */
    KIT_OK(tsr_gemm_strided_fwd(ctx, &g, NULL));
    /* Heads side by side in each row, as [batch, rows, heads, columns] lies: apart, though interleaved. */
    g = right, g.c.row_stride = HEADS * N, g.c.head_stride = N;
    KIT_OK(tsr_gemm_strided_fwd(ctx, &g, NULL));
}

/* Three products by pointers, rows of each matrix contiguous. */
typedef struct batch {
    const void *a[3], *b[3];
    void *c[3];
    tsr_gemm_pointers g;
} batch;

static void make(batch *p)
{
    for (int i = 0; i < 3; i++) {
        p->a[i] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, M, K)).data;
        p->b[i] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, K, N)).data;
        p->c[i] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 2 * M, 2 * N)).data; /* room to interleave in */
    }
    p->g = (tsr_gemm_pointers){
        .m = M, .n = N, .k = K, .batch = 1, .num_heads = 3, .a = p->a, .b = p->b, .c = p->c, .alpha = 1};
}

static void pointers_that_are_missing_or_meet(void **state)
{
    tsr_context *ctx = *state;
    batch p;
    make(&p);
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    const void *const a = p.a[1], *const b = p.b[2];
    void *const c = p.c[1];
    p.a[1] = NULL;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "gemm_pointers_fwd: a[1] is NULL", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.a[1] = a, p.b[2] = NULL;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "b[2] is NULL", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.b[2] = b, p.c[1] = NULL;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "c[1] is NULL", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = p.c[2];
    KIT_REFUSES(TSR_ERR_OVERLAP, "c[1] and c[2] are equal", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = (float *)p.c[0] + M * N - 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c[0] and c[1] overlap", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = (float *)p.c[0] + M * N;
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = c;
    p.b[2] = (float *)p.c[0] + 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "b[2] and c[0] overlap", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.b[2] = p.b[0], p.a[1] = p.a[0]; /* inputs may be shared */
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
}

static void pointers_with_rows_of_their_own(void **state)
{
    tsr_context *ctx = *state;
    batch p;
    make(&p);
    int64_t rows[] = {2 * N, 2 * N, N};
    p.g.c_row_stride = rows;
    p.c[1] = (float *)p.c[0] + N; /* side by side in rows of 2 N */
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = (float *)p.c[0] + N - 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c[0] and c[1] overlap", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.c[1] = (float *)p.c[0] + N, rows[2] = N - 1;
    KIT_REFUSES(TSR_ERR_OVERLAP, "c[2] has rows 2 apart, must be at least 3",
                tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    rows[2] = INT64_MAX / 2;
    KIT_REFUSES(TSR_ERR_OVERFLOW, "product 2: c is too large", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
}

/* Many matrices in no order, one pair of which meets: it is found, and no other is blamed. */
static void one_pair_among_many(void **state)
{
    enum { COUNT = 101 };
    tsr_context *ctx = *state;
    const tsr_tensor a = input(TSR_F32, M, K), b = input(TSR_F32, K, N);
    const tsr_tensor all = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, COUNT + 1, M * N), 0);
    const tsr_tensor a_rows = kit_copy(&a, TSR_F32, KIT_ROWS), b_rows = kit_copy(&b, TSR_F32, KIT_ROWS);
    const void *to_a[COUNT], *to_b[COUNT];
    void *to_c[COUNT];
    for (int i = 0; i < COUNT; i++) {
        to_a[i] = a_rows.data, to_b[i] = b_rows.data;
        to_c[i] = (float *)all.data + (i * 37 % COUNT) * M * N;
    }
    const tsr_gemm_pointers g = {
        .m = M, .n = N, .k = K, .batch = 1, .num_heads = COUNT, .a = to_a, .b = to_b, .c = to_c, .alpha = 1};
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &g, NULL));
    to_c[40] = (float *)all.data + (COUNT - 1) * M * N + 1; /* upon the last in memory */
    int last = 0;
    while (last * 37 % COUNT != COUNT - 1) last++;
    char words[32];
    snprintf(words, sizeof words, last < 40 ? "c[%d] and c[40]" : "c[40] and c[%d]", last);
    KIT_REFUSES(TSR_ERR_OVERLAP, words, tsr_gemm_pointers_fwd(ctx, &g, NULL));
}

static void pointer_counts(void **state)
{
    tsr_context *ctx = *state;
    batch p;
    make(&p);
    const tsr_gemm_pointers right = p.g;
    int64_t *const counts[] = {&p.g.m, &p.g.n, &p.g.k, &p.g.batch, &p.g.num_heads};
    const char *const words[] = {"m is -1", "n is -1", "k is -1", "batch is -1", "num_heads is -1"};
    for (int i = 0; i < 5; i++) {
        p.g = right;
        *counts[i] = -1;
        KIT_REFUSES(TSR_ERR_ARGUMENT, words[i], tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    }
    KIT_FAILS(TSR_ERR_ARGUMENT, "g is NULL", tsr_gemm_pointers_fwd(ctx, NULL, NULL));
    p.g = right, p.g.batch = INT64_MAX / 2;
    KIT_REFUSES(TSR_ERR_OVERFLOW, "which does not fit", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.g = right, p.g.dtype = TSR_I64;
    KIT_REFUSES(TSR_ERR_DTYPE, "dtype is i64", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.g = right, p.g.c_dtype = TSR_F16;
    KIT_REFUSES(TSR_ERR_DTYPE, "c_dtype is f16, must be f32", tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
    p.g = right, p.g.batch = 0, p.g.a = NULL, p.g.b = NULL,
    p.g.c = NULL; /* no products: nothing to point at */
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &p.g, NULL));
}

static void pointer_gradients(void **state)
{
    tsr_context *ctx = *state;
    batch p;
    make(&p);
    void *da[3], *db[3];
    for (int i = 0; i < 3; i++) {
        da[i] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, M, K)).data;
        db[i] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, K, N)).data;
    }
    KIT_OK(tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, da, db, NULL));
    KIT_OK(tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, NULL, NULL, NULL));
    KIT_REFUSES(TSR_ERR_DTYPE, "grad_dtype is bf16, must be f32",
                tsr_gemm_pointers_bwd(ctx, &p.g, TSR_BF16, da, db, NULL));
    void *const first = da[0];
    da[0] = NULL;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "gemm_pointers_bwd: da[0] is NULL",
                tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, da, db, NULL));
    da[0] = db[2];
    KIT_REFUSES(TSR_ERR_OVERLAP, "db[2]", tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, da, db, NULL));
    da[0] = p.c[1];
    KIT_REFUSES(TSR_ERR_OVERLAP, "dc[1] and da[0] are equal",
                tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, da, db, NULL));
    da[0] = first;
    KIT_OK(tsr_gemm_pointers_bwd(ctx, &p.g, TSR_F32, da, NULL, NULL));
}

int main(void)
{
    tsr_context *contexts[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = contexts[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate_setup_teardown(dtypes_that_do_not_agree, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(shapes_are_named, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(strided_counts, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(strided_rows_that_collide, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(pointers_that_are_missing_or_meet, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(pointers_with_rows_of_their_own, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(one_pair_among_many, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(pointer_counts, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(pointer_gradients, NULL, free_all, ctx),
            cmocka_unit_test_teardown(f64_off_the_reference, free_all),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
