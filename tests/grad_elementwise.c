/* grad_elementwise.c - the gradients of a residual dropout and of a bias against finite differences */
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/elementwise.h"

typedef struct problem {
    tsr_tensor x, residual, bias, y, dy;
    tsr_dropout dropout;
} problem;

static double dropout_loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_dropout_add(kit_reference(), &p->x, &p->residual, &p->dropout, &p->y));
    return kit_dot(&p->y, &p->dy);
}

/* y = x + 0.5 bias, the bias a view with strides of 0. */
static double bias_loss(void *arg)
{
    const problem *p = arg;
    tsr_tensor rows = p->x;
    rows.data = p->bias.data;
    rows.stride[0] = rows.stride[1] = 0, rows.stride[2] = p->bias.stride[0];
    KIT_OK(tsr_add(kit_reference(), 1, &p->x, 0.5f, &rows, &p->y));
    return kit_dot(&p->y, &p->dy) * 2;
}

static problem random_problem(void)
{
    const int64_t n = kit_between(1, 9);
    problem p = {.dropout = {.p = 0.4f, .seed = 3, .offset = 2}};
    p.x = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), 2, kit_between(1, 4), n));
    p.residual = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
    p.bias = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), n));
    p.y = kit_like(&p.x, TSR_F64, kit_any_output());
    p.dy = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
    return p;
}

static void test_dropout(void **state)
{
    (void)state;
    for (int trial = 0; trial < 6; trial++) {
        problem p = random_problem();
        const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
        KIT_OK(tsr_dropout_add(kit_reference(), &p.dy, NULL, &p.dropout, &dx));
        kit_check_gradient(&p.x, &dx, dropout_loss, &p, "dropout_add, trial %d: dx", trial);
        kit_free_all();
    }
}

static void test_bias(void **state)
{
    (void)state;
    for (int trial = 0; trial < 6; trial++) {
        problem p = random_problem();
        const tsr_tensor dbias = kit_like(&p.bias, TSR_F64, kit_any_output());
        KIT_OK(tsr_sum_rows(kit_reference(), &p.dy, 0, &dbias));
        kit_check_gradient(&p.bias, &dbias, bias_loss, &p, "sum_rows, trial %d: dbias", trial);
        kit_free_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dropout), cmocka_unit_test(test_bias)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
