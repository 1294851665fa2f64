/* check_gemm.c - every GEMM kernel on every tile edge, and the products of the cpu backend built from them */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/tensor.h"
#include "op/context.h"

/* --- micro-kernels: every m and n of the tile --- */

typedef void (*tile_run)(const tsr_gemm_tile *tile, int64_t m, int64_t n);

/* Small integers, so that the result is exact: A read both ways, C with gaps, NaN beyond B's n columns. */
static bool tile_is_right(const tsr_gemm_kernel *kernel, tile_run run, int64_t m, int64_t n, int64_t k)
{
    const tsr_tensor a = kit_integers(KIT_NEW(TSR_F32, kit_one_in(2) ? KIT_TRANSPOSED : KIT_GAPS, m, k), -3,
                                      3);
    const tsr_tensor b = KIT_NEW(TSR_F32, KIT_PADDED, k, kernel->nr);
    const tsr_tensor b_used = kit_integers(tsr_tensor_slice(&b, 1, 0, n), -3, 3);
    const tsr_tensor c = kit_integers(KIT_NEW(TSR_F32, KIT_PADDED, m, n), -3, 3);
    const float alpha = kit_one_in(2) ? 1 : 2, beta = (float)kit_between(0, 2);
    const tsr_tensor expected = kit_f64(&c);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += kit_get(&a, i * k + p) * kit_get(&b_used, p * n + j);
            kit_set(&expected, i * n + j, alpha * sum + beta * kit_get(&c, i * n + j));
        }
    if (beta == 0) kit_constant(c, NAN); /* never read */
    const tsr_gemm_tile tile = {
        .k = k,
        .a = a.data,
        .a_row = a.stride[0],
        .a_k = a.stride[1],
        .b = b.data,
        .b_row = b.stride[0],
        .c = c.data,
        .c_row = c.stride[0],
        .alpha = alpha,
        .beta = beta,
    };
    run(&tile, m, n);
    const bool right = kit_agrees(&c, &expected, KIT_EXACT) && kit_gaps_intact(&c);
    kit_free_all();
    return right;
}

static void test_every_tile_edge(void **state)
{
    (void)state;
    for (int i = 0; tsr_gemm_f32_kernels[i] != NULL; i++) {
        const tsr_gemm_kernel *kernel = tsr_gemm_f32_kernels[i];
        const char *missing = tsr_isa_missing(kernel->isa);
        if (missing != NULL) {
            print_message("skipped natively: %s (%s)\n", kernel->name, missing);
            continue;
        }
        for (int64_t m = 1; m <= kernel->mr; m++)
            for (int64_t n = 1; n <= kernel->nr; n++)
                for (int64_t k = 0; k <= 3; k++)
                    if (!tile_is_right(kernel, kernel->run, m, n, k * k))
                        kit_fail("%s: m %lld n %lld k %lld is wrong", kernel->name, (long long)m,
                                 (long long)n, (long long)(k * k));
    }
}

/* A row has the same bits in every tile: alone or with others, with all columns or some. */
static void test_no_bit_depends_on_the_tile(void **state)
{
    (void)state;
    for (int i = 0; tsr_gemm_f32_kernels[i] != NULL; i++) {
        const tsr_gemm_kernel *kernel = tsr_gemm_f32_kernels[i];
        if (tsr_isa_missing(kernel->isa) != NULL) continue;
        const int64_t mr = kernel->mr, nr = kernel->nr, k = 21;
        const tsr_tensor a = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, mr, k));
        const tsr_tensor b = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, k, nr));
        const tsr_tensor before = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, mr, nr));
        tsr_gemm_tile tile = {.k = k, .a = a.data, .a_row = k, .a_k = 1, .b = b.data, .b_row = nr};
        tile.c_row = nr, tile.alpha = 0.3f, tile.beta = 1;
        const tsr_tensor whole = kit_copy(&before, TSR_F32, KIT_ROWS);
        tile.c = whole.data;
        kernel->run(&tile, mr, nr);
        for (int64_t m = 1; m <= mr; m++)
            for (int64_t n = 1; n <= nr; n++) {
                const tsr_tensor c = kit_copy(&before, TSR_F32, KIT_ROWS);
                tile.c = c.data;
                kernel->run(&tile, m, n);
                tsr_tensor part = tsr_tensor_slice(&c, 0, 0, m), expected = tsr_tensor_slice(&whole, 0, 0, m);
                part = tsr_tensor_slice(&part, 1, 0, n), expected = tsr_tensor_slice(&expected, 1, 0, n);
                if (!kit_same_bits(&part, &expected))
                    kit_fail("%s: m %lld n %lld has other bits", kernel->name, (long long)m, (long long)n);
            }
        kit_free_all();
    }
}

/* Columns of B where they lie: the same bits as from a panel. */
static void check_columns_in_place(const tsr_gemm_kernel *kernel, tsr_dtype dtype)
{
    const int64_t m = kit_between(1, kernel->columns_mr), n = kit_between(1, kernel->nr);
    const int64_t words = kit_between(0, 40 / kernel->k_align) * kernel->k_align, k = words * kernel->k_word;
    const bool s8 = dtype == TSR_S8;
    const tsr_dtype a_dtype = kernel->k_word == 1 ? TSR_F32 : dtype, c_dtype = s8 ? TSR_I32 : TSR_F32;
    const tsr_tensor a = kit_uniform(KIT_NEW(a_dtype, kernel->k_word == 1 ? KIT_GAPS : KIT_ROWS, m, k), -99,
                                     99);
    const tsr_tensor b = kit_uniform(KIT_NEW(dtype, KIT_PADDED, n, k), -99, 99);
    const tsr_tensor before = kit_uniform(KIT_NEW(c_dtype, KIT_PADDED, m, n), -99, 99);
    const tsr_tensor panel = KIT_NEW(TSR_I32, KIT_ROWS, words, kernel->nr);
    const tsr_tensor c = kit_copy(&before, c_dtype, KIT_PADDED);
    const tsr_tensor expected = kit_copy(&before, c_dtype, KIT_PADDED);
    kernel->pack_b(panel.data, b.data, dtype, 1, b.stride[0], k, n);
    tsr_gemm_tile tile = {.k = words, .a = a.data, .a_row = a.stride[0], .a_k = a.stride[1]};
    tile.b = panel.data, tile.b_row = kernel->nr, tile.alpha = s8 || kit_one_in(2) ? 1 : 0.3f;
    tile.beta = (float)kit_between(0, 1);
    tile.c = expected.data, tile.c_row = expected.stride[0];
    char tiles[64];
    if (kernel->enter != NULL) kernel->enter(tiles);
    kernel->run(&tile, m, n);
    tile.b = b.data, tile.b_row = b.stride[0], tile.b_dtype = dtype;
    tile.c = c.data, tile.c_row = c.stride[0];
    kernel->run_columns(&tile, m, n);
    if (kernel->leave != NULL) kernel->leave(tiles);
    if (!kit_same_bits(&c, &expected) || !kit_gaps_intact(&c))
        kit_fail("%s: columns in place, %s, m %lld n %lld k %lld differ", kernel->name, tsr_dtype_name(dtype),
                 (long long)m, (long long)n, (long long)k);
    kit_free_all();
}

static void check_family_in_place(const tsr_gemm_kernel *const *kernels, const tsr_dtype *dtypes,
                                  int64_t n_dtypes)
{
    for (; *kernels != NULL; kernels++) {
        if (tsr_isa_missing((*kernels)->isa) != NULL || (*kernels)->run_columns == NULL) continue;
        for (int trial = 0; trial < 200; trial++)
            check_columns_in_place(*kernels, dtypes[kit_between(0, n_dtypes - 1)]);
    }
}

static void test_columns_in_place(void **state)
{
    (void)state;
    check_family_in_place(tsr_gemm_f32_kernels, (tsr_dtype[]){TSR_F32, TSR_BF16, TSR_F16}, 3);
    check_family_in_place(tsr_gemm_bf16_kernels, (tsr_dtype[]){TSR_BF16}, 1);
    check_family_in_place(tsr_gemm_s8_kernels, (tsr_dtype[]){TSR_S8}, 1);
}

/* Wrong twins, each with a mistake that a real kernel might have: the check above must see it. */
static const tsr_gemm_kernel *twin_of;
static void twin_without_tail(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    if (n > twin_of->lanes) n -= n % twin_of->lanes;
    twin_of->run(t, m, n);
}
static void twin_one_step_short(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.k--;
    twin_of->run(&s, m, n);
}
static void move_down(tsr_gemm_tile *t, int64_t a_rows, int64_t c_rows)
{
    t->a = (const float *)t->a + a_rows * t->a_row;
    t->c = (float *)t->c + c_rows * t->c_row;
}
static void twin_last_row_unscaled(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile last = *t;
    twin_of->run(t, m - 1, n);
    move_down(&last, m - 1, m - 1), last.alpha = 1;
    twin_of->run(&last, 1, n);
}
static void twin_last_row_off_by_one(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile last = *t;
    twin_of->run(t, m - 1, n);
    move_down(&last, m - 2, m - 1);
    twin_of->run(&last, 1, n);
}

static void test_wrong_twins_are_rejected(void **state)
{
    (void)state;
    const tile_run twins[] = {twin_without_tail, twin_one_step_short, twin_last_row_unscaled,
                              twin_last_row_off_by_one};
    twin_of = tsr_gemm_pick(tsr_gemm_f32_kernels, TSR_ISA_PORTABLE);
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++) {
        int n_rejected = 0;
        for (int trial = 0; trial < 20; trial++) n_rejected += !tile_is_right(twin_of, twins[i], 4, 7, 8);
        if (n_rejected == 0) kit_fail("wrong twin %zu passed every trial", i);
    }
}

/* --- products --- */

static tsr_gemm_matrix matrix_of(const tsr_tensor *t) /* [m, n] or [batch, head, m, n] */
{
    const int32_t r = t->rank - 2;
    return (tsr_gemm_matrix){.data = t->data,
                             .batch = r > 0 ? t->stride[0] : 0,
                             .head = r > 0 ? t->stride[1] : 0,
                             .row = t->stride[r],
                             .col = t->stride[r + 1],
                             .group = 1,
                             .dtype = t->dtype};
}

static tsr_gemm_args args_of(const tsr_tensor *a, const tsr_tensor *b, const tsr_tensor *c, float alpha,
                             float beta)
{
    const int32_t r = c->rank - 2;
    tsr_gemm_args g = {.m = c->shape[r],
                       .n = c->shape[r + 1],
                       .k = a->shape[r + 1],
                       .batch = r > 0 ? c->shape[0] : 1,
                       .num_heads = r > 0 ? c->shape[1] : 1,
                       .a = matrix_of(a),
                       .b = matrix_of(b),
                       .c = matrix_of(c),
                       .alpha = alpha,
                       .beta = beta};
    if (r > 0 && b->shape[1] > 0) g.b.group = c->shape[1] / b->shape[1];
    return g;
}

static tsr_tensor expected_of(const tsr_tensor *a, const tsr_tensor *b, const tsr_tensor *c, float alpha,
                              float beta)
{
    const tsr_tensor a64 = kit_f64(a), b64 = kit_f64(b), c64 = kit_f64(c);
    const tsr_gemm_args g = args_of(&a64, &b64, &c64, alpha, beta);
    KIT_OK(tsr_call_gemm(kit_reference(), &g, NULL));
    return c64;
}

static int64_t any_extent(void)
{
    static const int64_t edges[] = {0, 1, 2, 5, 6, 7, 13, 14, 15, 16, 17, 28, 31, 32, 33, 64, 65, 113, 120};
    return edges[kit_between(0, (int64_t)(sizeof edges / sizeof *edges) - 1)];
}

/* Each of k steps rounds a partial sum, which is taken to be no larger than the largest result. */
static kit_bound bound_for(int64_t k, const tsr_tensor *c, const tsr_tensor *expected)
{
    return (kit_bound){.abs = 0x1p-24 * (double)(k + 8) * fmax(1, kit_max_abs(expected)),
                       .ulps = c->dtype == TSR_F32 ? 1 : 0.51};
}

static void check_product(tsr_context *ctx, int64_t m, int64_t n, int64_t k)
{
    static const tsr_dtype floats[] = {TSR_F32, TSR_F32, TSR_BF16, TSR_F16};
    const tsr_dtype dtype = floats[kit_between(0, 3)], c_dtype = kit_one_in(2) ? TSR_F32 : dtype;
    const tsr_tensor a = kit_uniform(KIT_NEW(dtype, kit_any_input(), m, k), -1, 1);
    const tsr_tensor b = kit_uniform(KIT_NEW(dtype, kit_any_input(), k, n), -1, 1);
    const tsr_tensor c = kit_uniform(KIT_NEW(c_dtype, kit_any_output(), m, n), -1, 1);
    const float alpha = kit_one_in(3) ? 1 : -0.75f, beta = kit_one_in(2) ? 0 : kit_one_in(2) ? 1 : 0.5f;
    const tsr_tensor expected = expected_of(&a, &b, &c, alpha, beta);
    if (beta == 0) kit_constant(c, NAN);
    const tsr_gemm_args g = args_of(&a, &b, &c, alpha, beta);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    kit_check(&c, &expected, bound_for(k, &c, &expected),
              "gemm m %lld n %lld k %lld a %s b %s alpha %g beta %g", (long long)m, (long long)n,
              (long long)k, kit_describe(&a).text, kit_describe(&b).text, alpha, beta);
    kit_free_all();
}

static void random_products(tsr_context *ctx)
{
    for (int i = 0; i < 250; i++) check_product(ctx, any_extent(), any_extent(), any_extent());
    /* More than one chunk along k, block of rows, block of columns. */
    check_product(ctx, 3, 5, 1030);
    check_product(ctx, 230, 40, 513);
    check_product(ctx, 40, 300, 520);
    check_product(ctx, 2, 2100, 3);
    for (int i = 0; i < 3; i++) check_product(ctx, 530, 40, kit_one_in(2) ? 600 : 96);
}
static void test_products_match_reference(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(random_products);
}

static void check_batch(tsr_context *ctx, tsr_dtype dtype, tsr_dtype c_dtype, int64_t batch, int64_t group,
                        int64_t b_heads, int64_t m, int64_t n, int64_t k)
{
    const tsr_tensor a = kit_uniform(KIT_NEW(dtype, kit_any_input(), batch, b_heads * group, m, k), -1, 1);
    const tsr_tensor b = kit_uniform(KIT_NEW(dtype, kit_any_input(), batch, b_heads, k, n), -1, 1);
    const tsr_tensor c = kit_uniform(KIT_NEW(c_dtype, KIT_PADDED, batch, b_heads * group, m, n), -1, 1);
    const tsr_tensor expected = expected_of(&a, &b, &c, 1, 0.5f);
    const tsr_gemm_args g = args_of(&a, &b, &c, 1, 0.5f);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    kit_check(&c, &expected, bound_for(k, &c, &expected), "batched %s gemm, group %lld k %lld",
              tsr_dtype_name(dtype), (long long)group, (long long)k);
    kit_free_all();
}

static void batched_products(tsr_context *ctx)
{
    for (int trial = 0; trial < 40; trial++)
        check_batch(ctx, kit_one_in(2) ? TSR_F32 : TSR_BF16, kit_one_in(2) ? TSR_F32 : TSR_BF16,
                    kit_between(1, 4), kit_between(1, 3), kit_between(1, 4), kit_between(1, 40),
                    kit_between(1, 40), kit_one_in(8) ? 600 : kit_between(0, 40));
    /* More than one block of rows, in products that are and are not worth a run of their own. */
    check_batch(ctx, TSR_BF16, TSR_F32, 2, 1, 1, 600, 8, 20);
    check_batch(ctx, TSR_BF16, TSR_F32, 3, 1, 1, 600, 40, 100);
    check_batch(ctx, TSR_BF16, TSR_F32, 2, 1, 4, 600, 8, 64);
    /* More than one block of columns that an item packs A for, each with several chunks along k. */
    const tsr_cpu *cpu = ctx->state;
    check_batch(ctx, TSR_F32, TSR_BF16, 4, 1, 1, 65, 256, 1100);
    if (cpu->gemm_bf16 != NULL && cpu->gemm_bf16->keeps_sums)
        check_batch(ctx, TSR_BF16, kit_one_in(2) ? TSR_F32 : TSR_BF16, 4, 1, 1, 65, 1000, 544);
}
static void test_batches_match_reference(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(batched_products);
}

/* Scattered matrices, each with a row stride of its own; B transposed in memory half of the time. */
static void pointer_products(tsr_context *ctx)
{
    enum { N = 12 };
    for (int trial = 0; trial < 20; trial++) {
        const int64_t m = kit_between(1, 20), n = kit_between(1, 20), k = kit_between(1, 20);
        const bool b_transposed = kit_one_in(2);
        tsr_tensor a[N], b[N], c[N], expected[N];
        void *pointers[3][N];
        int64_t strides[3][N];
        for (int i = 0; i < N; i++) {
            a[i] = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, m, k), -1, 1);
            b[i] = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, b_transposed ? n : k, b_transposed ? k : n), -1,
                               1);
            c[i] = KIT_NEW(TSR_F32, KIT_PADDED, m, n);
            const tsr_tensor b_view = b_transposed ? tsr_tensor_transpose(&b[i], 0, 1) : b[i];
            expected[i] = expected_of(&a[i], &b_view, &c[i], 2, 0);
            pointers[0][i] = a[i].data, pointers[1][i] = b[i].data, pointers[2][i] = c[i].data;
            strides[0][i] = a[i].stride[0], strides[1][i] = b[i].stride[0], strides[2][i] = c[i].stride[0];
        }
        const tsr_gemm_args g = {
            .m = m,
            .n = n,
            .k = k,
            .batch = 3,
            .num_heads = 4,
            .a = {.pointers = pointers[0], .strides = strides[0], .col = 1, .group = 1},
            .b = {.pointers = pointers[1],
                  .strides = strides[1],
                  .strides_are_cols = b_transposed,
                  .row = 1,
                  .col = 1,
                  .group = 1},
            .c = {.pointers = pointers[2], .strides = strides[2], .col = 1, .group = 1},
            .alpha = 2,
        };
        KIT_OK(tsr_call_gemm(ctx, &g, NULL));
        for (int i = 0; i < N; i++)
            kit_check(&c[i], &expected[i], bound_for(k, &c[i], &expected[i]), "pointer gemm %d", i);
        kit_free_all();
    }
}
static void test_pointers_match_reference(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(pointer_products);
}

/* s8 rows a multiple of four bytes apart, and not: each product goes by its own stride. */
static void s8_pointer_products(tsr_context *ctx)
{
    enum { N = 6, M = 3, COLUMNS = 5, K = 64 };
    tsr_tensor a[N], b[N], c[N], expected[N];
    void *pointers[3][N];
    int64_t strides[N];
    for (int i = 0; i < N; i++) {
        const tsr_tensor wide = kit_uniform(
            KIT_NEW(TSR_S8, KIT_ROWS, M, K + (i == 0 ? 4 : kit_between(0, 6))), -99, 99);
        a[i] = tsr_tensor_slice(&wide, 1, 0, K);
        b[i] = kit_uniform(KIT_NEW(TSR_S8, KIT_ROWS, K, COLUMNS), -99, 99);
        c[i] = KIT_NEW(TSR_I32, KIT_ROWS, M, COLUMNS);
        expected[i] = expected_of(&a[i], &b[i], &c[i], 1, 0);
        pointers[0][i] = a[i].data, pointers[1][i] = b[i].data, pointers[2][i] = c[i].data;
        strides[i] = a[i].stride[0];
    }
    const tsr_gemm_args g = {
        .m = M,
        .n = COLUMNS,
        .k = K,
        .batch = 1,
        .num_heads = N,
        .a = {.dtype = TSR_S8, .pointers = pointers[0], .strides = strides, .col = 1, .group = 1},
        .b = {.dtype = TSR_S8, .pointers = pointers[1], .row = COLUMNS, .col = 1, .group = 1},
        .c = {.dtype = TSR_I32, .pointers = pointers[2], .row = COLUMNS, .col = 1, .group = 1},
        .alpha = 1,
    };
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    for (int i = 0; i < N; i++) kit_check(&c[i], &expected[i], KIT_EXACT, "s8 pointer gemm %d", i);
    kit_free_all();
}
static void test_s8_pointers_of_any_stride(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(s8_pointer_products);
}

/* The same bits for 1, 2 and 3 threads, for rows of A alone, and for a C whose columns are apart. */
static void same_bits_of(tsr_dtype dtype, float alpha)
{
    const tsr_dtype c_dtype = dtype == TSR_S8 ? TSR_I32 : TSR_F32;
    const int64_t shapes[][3] = {{150, 70, 40}, {33, 200, 700}, {300, 40, 513}, {530, 40, 1100}};
    for (int s = 0; s < 4; s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        const tsr_tensor a = kit_uniform(KIT_NEW(dtype, KIT_ROWS, m, k), -99, 99);
        const tsr_tensor b = kit_uniform(KIT_NEW(dtype, kit_any_input(), k, n), -99, 99);
        tsr_tensor c[3];
        for (int t = 0; t < 3; t++) {
            tsr_context *threads = kit_cpu_with_threads(t + 1);
            c[t] = KIT_NEW(c_dtype, t < 2 ? KIT_ROWS : KIT_GAPS, m, n);
            tsr_gemm_args g = args_of(&a, &b, &c[t], alpha, 0);
            KIT_OK(tsr_call_gemm(threads, &g, NULL));
            if (!kit_same_bits(&c[0], &c[t])) kit_fail("gemm: %d threads give other bits than 1", t + 1);
            const int64_t row = kit_between(0, m - 1);
            const tsr_tensor one_a = tsr_tensor_slice(&a, 0, row, 1),
                             one_c = KIT_NEW(c_dtype, KIT_ROWS, 1, n);
            g = args_of(&one_a, &b, &one_c, alpha, 0);
            KIT_OK(tsr_call_gemm(threads, &g, NULL));
            const tsr_tensor in_batch = tsr_tensor_slice(&c[t], 0, row, 1);
            if (!kit_same_bits(&one_c, &in_batch)) kit_fail("gemm: row %d alone has other bits", (int)row);
            tsr_context_destroy(threads);
        }
        kit_free_all();
    }
}
static void same_bits(tsr_context *ctx)
{
    (void)ctx;
    same_bits_of(TSR_F32, 1);
    same_bits_of(TSR_BF16, 1);
    same_bits_of(TSR_BF16, 0.3f);
    same_bits_of(TSR_S8, 1);
}
static void test_bits_do_not_depend_on_threads_or_rows(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(same_bits);
}

/* A NaN in row i of A spoils row i of C and no other; one in column j of B its column. */
static void nan_stays(tsr_context *ctx)
{
    const tsr_tensor a = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 20, 9), -2, 2);
    const tsr_tensor b = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 9, 40), -2, 2);
    const tsr_tensor c = KIT_NEW(TSR_F32, KIT_ROWS, 20, 40);
    kit_set(&a, 7 * 9 + 3, NAN);
    kit_set(&b, 2 * 40 + 33, INFINITY);
    const tsr_tensor expected = expected_of(&a, &b, &c, 1, 0);
    const tsr_gemm_args g = args_of(&a, &b, &c, 1, 0);
    KIT_OK(tsr_call_gemm(ctx, &g, NULL));
    kit_check(&c, &expected, KIT_EXACT, "gemm with NaN and Inf");
    for (int64_t i = 0; i < 20; i++) assert_int_equal(isnan(kit_get(&c, i * 40)) != 0, i == 7);
    kit_free_all();
}
static void test_nan_reaches_its_row_and_column_only(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(nan_stays);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tile_edge),
        cmocka_unit_test(test_no_bit_depends_on_the_tile),
        cmocka_unit_test(test_columns_in_place),
        cmocka_unit_test(test_wrong_twins_are_rejected),
        cmocka_unit_test(test_products_match_reference),
        cmocka_unit_test(test_batches_match_reference),
        cmocka_unit_test(test_pointers_match_reference),
        cmocka_unit_test(test_s8_pointers_of_any_stride),
        cmocka_unit_test(test_bits_do_not_depend_on_threads_or_rows),
        cmocka_unit_test(test_nan_reaches_its_row_and_column_only),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
