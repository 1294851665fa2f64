/*
 * grad_gemm.c - the backward of every GEMM entry against finite differences of its forward, in f64
 *
 * dA = alpha * dC B^T + beta * dA     dB = alpha * A^T dC + beta * dB, summed over the heads of a group
 */
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/gemm.h"

typedef struct problem {
    tsr_tensor a, b, c, dc;
    float alpha;
    tsr_gemm_strided strided;
    tsr_gemm_pointers pointers;
    tsr_status (*forward)(const struct problem *p);
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(p->forward(p));
    return kit_dot(&p->c, &p->dc);
}

static tsr_tensor normal(int32_t rank, const int64_t *shape, kit_layout layout)
{
    return kit_normal(kit_new(TSR_F64, layout, rank, shape));
}

/* What a backward with beta = 0.5 makes of a gradient that held ones. */
static tsr_tensor plus_half(const tsr_tensor *gradient)
{
    const tsr_tensor t = kit_f64(gradient);
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++) kit_set(&t, i, kit_get(&t, i) + 0.5);
    return t;
}

static tsr_status forward_2d(const problem *p)
{
    return tsr_matmul2d(kit_reference(), p->alpha, &p->a, &p->b, 0, &p->c, NULL);
}

static tsr_status forward_bmm(const problem *p)
{
    return tsr_bmm(kit_reference(), p->alpha, &p->a, &p->b, 0, &p->c, NULL);
}

static tsr_status backward_of_views(const problem *p, float beta, const tsr_tensor *da, const tsr_tensor *db)
{
    return (p->a.rank == 2 ? tsr_matmul2d_bwd : tsr_bmm_bwd)(kit_reference(), p->alpha, &p->a, &p->b, &p->dc,
                                                             beta, da, db, NULL);
}

static void check_views(int32_t rank, int trial)
{
    const int64_t batch = kit_between(1, 3), m = kit_between(1, 5), n = kit_between(1, 5),
                  k = kit_between(1, 6);
    const int64_t a_shape[] = {batch, m, k}, b_shape[] = {batch, k, n}, c_shape[] = {batch, m, n};
    const int32_t skip = 3 - rank;
    problem p = {.alpha = 0.75f, .forward = rank == 2 ? forward_2d : forward_bmm};
    p.a = normal(rank, a_shape + skip, kit_any_output());
    p.b = normal(rank, b_shape + skip, kit_any_output());
    p.c = kit_new(TSR_F64, kit_any_output(), rank, c_shape + skip);
    p.dc = normal(rank, c_shape + skip, kit_any_input());
    const tsr_tensor da = kit_like(&p.a, TSR_F64, kit_any_output()),
                     db = kit_like(&p.b, TSR_F64, kit_any_output());
    KIT_OK(backward_of_views(&p, 0, &da, &db));
    kit_check_gradient(&p.a, &da, loss, &p, "rank %d, trial %d: da", rank, trial);
    kit_check_gradient(&p.b, &db, loss, &p, "rank %d, trial %d: db", rank, trial);

    const tsr_tensor da_sum = kit_constant(kit_like(&p.a, TSR_F64, kit_any_output()), 1),
                     da_half = plus_half(&da);
    const tsr_tensor db_sum = kit_constant(kit_like(&p.b, TSR_F64, kit_any_output()), 1),
                     db_half = plus_half(&db);
    KIT_OK(backward_of_views(&p, 0.5f, &da_sum, NULL));
    KIT_OK(backward_of_views(&p, 0.5f, NULL, &db_sum));
    kit_check(&da_sum, &da_half, (kit_bound){.of_largest = 8}, "rank %d, trial %d: da added to", rank, trial);
    kit_check(&db_sum, &db_half, (kit_bound){.of_largest = 8}, "rank %d, trial %d: db added to", rank, trial);
    kit_free_all();
}

static void test_matmul2d(void **state)
{
    (void)state;
    for (int trial = 0; trial < 8; trial++) check_views(2, trial);
}

static void test_bmm(void **state)
{
    (void)state;
    for (int trial = 0; trial < 8; trial++) check_views(3, trial);
}

static tsr_status forward_strided(const problem *p)
{
    return tsr_gemm_strided_fwd(kit_reference(), &p->strided, NULL);
}

static tsr_gemm_operand operand_of(const tsr_tensor *t)
{
    return (tsr_gemm_operand){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

/* Heads that share B in groups, B transposed or not; rows contiguous. */
static void check_strided(int trial)
{
    const int64_t m = kit_between(1, 4), n = kit_between(1, 4), k = kit_between(1, 4),
                  batch = kit_between(1, 2);
    const int64_t group = kit_between(1, 3), heads = group * kit_between(1, 2);
    const int transposed = trial % 2;
    problem p = {.forward = forward_strided};
    p.a = normal(4, (const int64_t[]){batch, heads, m, k}, KIT_PADDED);
    p.b = normal(4, (const int64_t[]){batch, heads / group, transposed ? n : k, transposed ? k : n},
                 KIT_PADDED);
    p.c = KIT_NEW(TSR_F64, KIT_PADDED, batch, heads, m, n);
    p.dc = kit_normal(kit_like(&p.c, TSR_F64, KIT_PADDED));
    p.strided = (tsr_gemm_strided){.dtype = TSR_F64,
                                   .c_dtype = TSR_F64,
                                   .m = m,
                                   .n = n,
                                   .k = k,
                                   .batch = batch,
                                   .num_heads = heads,
                                   .a = operand_of(&p.a),
                                   .b = operand_of(&p.b),
                                   .c = operand_of(&p.c),
                                   .b_transposed = transposed,
                                   .b_group = group,
                                   .alpha = 1.25f};
    const tsr_tensor da = kit_like(&p.a, TSR_F64, KIT_PADDED), db = kit_like(&p.b, TSR_F64, KIT_PADDED);
    const tsr_gemm_operand da_at = operand_of(&da), db_at = operand_of(&db);
    tsr_gemm_strided back = p.strided;
    back.c = operand_of(&p.dc);
    KIT_OK(tsr_gemm_strided_bwd(kit_reference(), &back, TSR_F64, &da_at, &db_at, NULL));
    kit_check_gradient(&p.a, &da, loss, &p, "strided, trial %d: da", trial);
    kit_check_gradient(&p.b, &db, loss, &p, "strided, trial %d: db", trial);
    kit_free_all();
}

static void test_strided(void **state)
{
    (void)state;
    for (int trial = 0; trial < 10; trial++) check_strided(trial);
}

static tsr_status forward_pointers(const problem *p)
{
    return tsr_gemm_pointers_fwd(kit_reference(), &p->pointers, NULL);
}

enum { BATCH = 2, HEADS = 3, PRODUCTS = BATCH * HEADS };

/* Pointers to the matrices of a row-major [BATCH, HEADS, ...] tensor, the last first: no order is assumed. */
static void point_into(const tsr_tensor *t, void **pointers)
{
    for (int i = 0; i < PRODUCTS; i++) pointers[i] = tsr_tensor_at(t, (PRODUCTS - 1 - i) * t->stride[1]);
}

static void check_pointers(int trial)
{
    const int64_t m = kit_between(1, 4), n = kit_between(1, 4), k = kit_between(1, 4);
    const int transposed = trial % 2;
    void *a[PRODUCTS], *b[PRODUCTS], *c[PRODUCTS], *dc[PRODUCTS], *da_at[PRODUCTS], *db_at[PRODUCTS];
    problem p = {.forward = forward_pointers};
    p.a = normal(4, (const int64_t[]){BATCH, HEADS, m, k}, KIT_ROWS);
    p.b = normal(4, (const int64_t[]){BATCH, HEADS, transposed ? n : k, transposed ? k : n}, KIT_ROWS);
    p.c = KIT_NEW(TSR_F64, KIT_ROWS, BATCH, HEADS, m, n);
    p.dc = kit_normal(kit_like(&p.c, TSR_F64, KIT_ROWS));
    const tsr_tensor da = kit_like(&p.a, TSR_F64, KIT_ROWS), db = kit_like(&p.b, TSR_F64, KIT_ROWS);
    point_into(&p.a, a), point_into(&p.b, b), point_into(&p.c, c), point_into(&p.dc, dc);
    point_into(&da, da_at), point_into(&db, db_at);
    p.pointers = (tsr_gemm_pointers){.dtype = TSR_F64,
                                     .c_dtype = TSR_F64,
                                     .m = m,
                                     .n = n,
                                     .k = k,
                                     .batch = BATCH,
                                     .num_heads = HEADS,
                                     .a = (const void *const *)a,
                                     .b = (const void *const *)b,
                                     .c = c,
                                     .b_transposed = transposed,
                                     .alpha = -0.5f};
    tsr_gemm_pointers back = p.pointers;
    back.c = dc;
    KIT_OK(tsr_gemm_pointers_bwd(kit_reference(), &back, TSR_F64, da_at, db_at, NULL));
    kit_check_gradient(&p.a, &da, loss, &p, "pointers, trial %d: da", trial);
    kit_check_gradient(&p.b, &db, loss, &p, "pointers, trial %d: db", trial);
    kit_free_all();
}

static void test_pointers(void **state)
{
    (void)state;
    for (int trial = 0; trial < 6; trial++) check_pointers(trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul2d),
        cmocka_unit_test(test_bmm),
        cmocka_unit_test(test_strided),
        cmocka_unit_test(test_pointers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
