/*
 * tests/check_gemm_entries.c - the public entries of GEMM against loops written here
 *
 * Small integers, so that every dtype and any order of summing gives the same bits: forward and backward of
 * strided batches and pointer arrays, grouped heads, transposed operands, rows of any stride.
 */
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/tensor.h"
#include "tessera/gemm.h"

/* One random batch: a [batch, heads, m, k], b [batch, heads / group, k, n] or [.., n, k], c [batch, heads, m,
 * n]
 */
typedef struct problem {
    int64_t m, n, k, batch, heads, group;
    bool b_transposed;
    tsr_dtype dtype;
    float alpha, beta;
    tsr_tensor a, b, c;
} problem;

/* Columns contiguous, as the strided and the pointer form want it; rows, heads and batches apart or not. */
static tsr_tensor operand(const problem *p, tsr_dtype dtype, int64_t heads, int64_t rows, int64_t columns)
{
    const kit_layout layout = kit_one_in(2) ? KIT_PADDED : KIT_ROWS;
    if (kit_one_in(2)) return kit_integers(KIT_NEW(dtype, layout, p->batch, heads, rows, columns), -2, 2);
    /* Heads inside of rows, as BLHD lies. */
    const tsr_tensor t = kit_integers(KIT_NEW(dtype, layout, p->batch, rows, heads, columns), -2, 2);
    return tsr_tensor_transpose(&t, 1, 2);
}

static tsr_tensor operand_b(const problem *p, tsr_dtype dtype, int64_t heads)
{
    return p->b_transposed ? operand(p, dtype, heads, p->n, p->k) : operand(p, dtype, heads, p->k, p->n);
}

static problem random_problem(bool grouped)
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    problem p = {.m = kit_between(1, 40),
                 .n = kit_between(1, 40),
                 .k = kit_between(1, 24),
                 .batch = kit_between(1, 3),
                 .group = grouped ? kit_between(1, 3) : 1,
                 .b_transposed = kit_one_in(2),
                 .dtype = dtypes[kit_between(0, 2)],
                 .alpha = (float)kit_between(-1, 2),
                 .beta = (float)kit_between(-1, 1)};
    p.heads = p.group * kit_between(1, 3);
    p.a = operand(&p, p.dtype, p.heads, p.m, p.k);
    p.b = operand_b(&p, p.dtype, p.heads / p.group);
    return p;
}

static double at(const tsr_tensor *t, int64_t b, int64_t h, int64_t i, int64_t j)
{
    return kit_get(t, ((b * t->shape[1] + h) * t->shape[2] + i) * t->shape[3] + j);
}

/* b as [batch, heads / group, k, n], however it lies. */
static tsr_tensor upright(const problem *p, const tsr_tensor *b)
{
    return p->b_transposed ? tsr_tensor_transpose(b, 2, 3) : *b;
}

/* sum += alpha X Y over one pair of matrices, either of them transposed by its view */
static void add_product(const tsr_tensor *sum, int64_t b, int64_t h, double alpha, const tsr_tensor *x,
                        int64_t x_head, const tsr_tensor *y, int64_t y_head)
{
    for (int64_t i = 0; i < sum->shape[2]; i++)
        for (int64_t j = 0; j < sum->shape[3]; j++) {
            const int64_t e = ((b * sum->shape[1] + h) * sum->shape[2] + i) * sum->shape[3] + j;
            double dot = 0;
            for (int64_t l = 0; l < x->shape[3]; l++) dot += at(x, b, x_head, i, l) * at(y, b, y_head, l, j);
            kit_set(sum, e, kit_get(sum, e) + alpha * dot);
        }
}

/* beta * t in f64: what the products are added to. */
static tsr_tensor scaled(const tsr_tensor *t, double beta)
{
    const tsr_tensor r = kit_f64(t);
    for (int64_t i = 0, n = tsr_tensor_numel(&r); i < n; i++) kit_set(&r, i, beta * kit_get(&r, i));
    return r;
}

static tsr_tensor expected_c(const problem *p)
{
    const tsr_tensor c = scaled(&p->c, p->beta), b = upright(p, &p->b);
    for (int64_t batch = 0; batch < p->batch; batch++)
        for (int64_t h = 0; h < p->heads; h++)
            add_product(&c, batch, h, p->alpha, &p->a, h, &b, h / p->group);
    return c;
}

static tsr_tensor expected_da(const problem *p, const tsr_tensor *da)
{
    const tsr_tensor sum = scaled(da, p->beta), b = upright(p, &p->b), b_t = tsr_tensor_transpose(&b, 2, 3);
    for (int64_t batch = 0; batch < p->batch; batch++)
        for (int64_t h = 0; h < p->heads; h++)
            add_product(&sum, batch, h, p->alpha, &p->c, h, &b_t, h / p->group);
    return sum;
}

/* In b's own layout: the sum is made upright, through a view. */
static tsr_tensor expected_db(const problem *p, const tsr_tensor *db)
{
    const tsr_tensor up = upright(p, db), sum = scaled(&up, p->beta), a_t = tsr_tensor_transpose(&p->a, 2, 3);
    for (int64_t batch = 0; batch < p->batch; batch++)
        for (int64_t h = 0; h < p->heads; h++)
            add_product(&sum, batch, h / p->group, p->alpha, &a_t, h, &p->c, h);
    return upright(p, &sum);
}

static tsr_gemm_operand strides_of(const tsr_tensor *t)
{
    return (tsr_gemm_operand){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

static tsr_gemm_strided strided(const problem *p)
{
    return (tsr_gemm_strided){.dtype = p->dtype,
                              .c_dtype = p->c.dtype,
                              .m = p->m,
                              .n = p->n,
                              .k = p->k,
                              .batch = p->batch,
                              .num_heads = p->heads,
                              .a = strides_of(&p->a),
                              .b = strides_of(&p->b),
                              .c = strides_of(&p->c),
                              .b_transposed = p->b_transposed,
                              .b_group = p->group,
                              .alpha = p->alpha,
                              .beta = p->beta};
}

static void check_strided(tsr_context *ctx)
{
    problem p = random_problem(true);
    p.c = operand(&p, kit_one_in(2) ? TSR_F32 : p.dtype, p.heads, p.m, p.n);
    const tsr_tensor expected = expected_c(&p);
    tsr_gemm_strided g = strided(&p);
    KIT_OK(tsr_gemm_strided_fwd(ctx, &g, NULL));
    kit_check(&p.c, &expected, (kit_bound){.ulps = 0.5}, "gemm_strided_fwd");

    p.c = operand(&p, p.dtype, p.heads, p.m, p.n); /* now dC */
    const tsr_tensor da = operand(&p, TSR_F32, p.heads, p.m, p.k);
    const tsr_tensor db = operand_b(&p, TSR_F32, p.heads / p.group);
    const tsr_tensor sum_a = expected_da(&p, &da), sum_b = expected_db(&p, &db);
    const tsr_gemm_operand to_da = strides_of(&da), to_db = strides_of(&db);
    g = strided(&p);
    if (kit_one_in(2)) {
        KIT_OK(tsr_gemm_strided_bwd(ctx, &g, TSR_F32, &to_da, &to_db, NULL));
    } else { /* one at a time */
        KIT_OK(tsr_gemm_strided_bwd(ctx, &g, TSR_F32, &to_da, NULL, NULL));
        KIT_OK(tsr_gemm_strided_bwd(ctx, &g, TSR_F32, NULL, &to_db, NULL));
    }
    kit_check(&da, &sum_a, KIT_EXACT, "gemm_strided_bwd: da");
    kit_check(&db, &sum_b, KIT_EXACT, "gemm_strided_bwd: db, group %d", (int)p.group);
}

enum { MOST = 9 };
typedef struct pointers {
    void *to[MOST];
    int64_t rows[MOST];
} pointers;

/* A pointer to each matrix of t, in order. */
static pointers pointers_to(const tsr_tensor *t)
{
    pointers r;
    const int64_t heads = t->shape[1], nbytes = (int64_t)tsr_dtype_nbytes(t->dtype);
    for (int64_t i = 0; i < t->shape[0] * heads; i++) {
        r.to[i] = (char *)t->data + (i / heads * t->stride[0] + i % heads * t->stride[1]) * nbytes;
        r.rows[i] = t->stride[2];
    }
    return r;
}

static void check_pointers(tsr_context *ctx)
{
    problem p = random_problem(false);
    p.c = operand(&p, kit_one_in(2) ? TSR_F32 : p.dtype, p.heads, p.m, p.n);
    const tsr_tensor expected = expected_c(&p);
    const pointers a = pointers_to(&p.a), b = pointers_to(&p.b);
    pointers c = pointers_to(&p.c);
    tsr_gemm_pointers g = {.dtype = p.dtype,
                           .c_dtype = p.c.dtype,
                           .m = p.m,
                           .n = p.n,
                           .k = p.k,
                           .batch = p.batch,
                           .num_heads = p.heads,
                           .a = (const void *const *)a.to,
                           .b = (const void *const *)b.to,
                           .c = c.to,
                           .a_row_stride = a.rows,
                           .b_row_stride = b.rows,
                           .c_row_stride = c.rows,
                           .b_transposed = p.b_transposed,
                           .alpha = p.alpha,
                           .beta = p.beta};
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &g, NULL));
    kit_check(&p.c, &expected, (kit_bound){.ulps = 0.5}, "gemm_pointers_fwd");

    p.c = operand(&p, p.dtype, p.heads, p.m, p.n); /* now dC */
    c = pointers_to(&p.c);
    g.c_dtype = p.dtype;
    const tsr_tensor da = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, p.batch, p.heads, p.m, p.k), -2, 2);
    const tsr_tensor db = kit_integers(
        KIT_NEW(TSR_F32, KIT_ROWS, p.batch, p.heads, p.b.shape[2], p.b.shape[3]), -2, 2);
    const tsr_tensor sum_a = expected_da(&p, &da), sum_b = expected_db(&p, &db);
    const pointers to_da = pointers_to(&da), to_db = pointers_to(&db);
    KIT_OK(tsr_gemm_pointers_bwd(ctx, &g, TSR_F32, to_da.to, to_db.to, NULL));
    kit_check(&da, &sum_a, KIT_EXACT, "gemm_pointers_bwd: da");
    kit_check(&db, &sum_b, KIT_EXACT, "gemm_pointers_bwd: db");
}

static void check_random_batches(tsr_context *ctx)
{
    for (int i = 0; i < 12; i++) {
        check_strided(ctx);
        kit_free_all();
        check_pointers(ctx);
        kit_free_all();
    }
}

static void on_the_reference(void **state)
{
    (void)state;
    check_random_batches(kit_reference());
}

static void on_the_cpu(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(check_random_batches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_reference),
        cmocka_unit_test(on_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
