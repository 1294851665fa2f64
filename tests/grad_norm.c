/* grad_norm.c - backward of RMSNorm and LayerNorm against finite differences of the reference */
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/norm.h"

typedef struct problem {
    bool centred;
    float eps;
    tsr_tensor x, weight, bias, y, mean, rstd, dy;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    if (p->centred)
        KIT_OK(tsr_layer_norm_fwd(kit_reference(), &p->x, &p->weight, &p->bias, p->eps, &p->y, &p->mean,
                                  &p->rstd));
    else
        KIT_OK(tsr_rms_norm_fwd(kit_reference(), &p->x, &p->weight, p->eps, &p->y, &p->rstd));
    return kit_dot(&p->y, &p->dy);
}

static problem random_problem(bool centred)
{
    const int64_t rows = kit_between(1, 3), n = kit_between(2, 11);
    problem p = {.centred = centred, .eps = 0.01f};
    p.x = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), 2, rows, n));
    p.weight = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), n));
    p.bias = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), n));
    p.y = kit_like(&p.x, TSR_F64, kit_any_output());
    p.dy = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
    p.mean = KIT_NEW(TSR_F64, kit_any_output(), 2, rows);
    p.rstd = KIT_NEW(TSR_F64, kit_any_output(), 2, rows);
    loss(&p);
    return p;
}

static void backward(const problem *p, int accumulate, const tsr_tensor *dx, const tsr_tensor *dweight,
                     const tsr_tensor *dbias)
{
    if (p->centred)
        KIT_OK(tsr_layer_norm_bwd(kit_reference(), &p->x, &p->weight, &p->mean, &p->rstd, &p->dy, accumulate,
                                  dx, dweight, dbias, NULL));
    else
        KIT_OK(tsr_rms_norm_bwd(kit_reference(), &p->x, &p->weight, &p->rstd, &p->dy, accumulate, dx, dweight,
                                NULL));
}

static void check_norm(bool centred, int trial)
{
    problem p = random_problem(centred);
    const char *name = centred ? "layer_norm" : "rms_norm";
    const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
    const tsr_tensor dweight = kit_like(&p.weight, TSR_F64, kit_any_output());
    const tsr_tensor dbias = kit_like(&p.bias, TSR_F64, kit_any_output());
    backward(&p, 0, &dx, &dweight, &dbias);
    kit_check_gradient(&p.x, &dx, loss, &p, "%s, trial %d: dx", name, trial);
    kit_check_gradient(&p.weight, &dweight, loss, &p, "%s, trial %d: dweight", name, trial);
    if (centred) kit_check_gradient(&p.bias, &dbias, loss, &p, "%s, trial %d: dbias", name, trial);

    /* Accumulating adds the same gradient to what dx holds. */
    const tsr_tensor sum = kit_normal(kit_like(&p.x, TSR_F64, kit_any_output()));
    tsr_tensor expected = kit_f64(&sum);
    for (int64_t i = 0, n = tsr_tensor_numel(&dx); i < n; i++)
        kit_set(&expected, i, kit_get(&expected, i) + kit_get(&dx, i));
    backward(&p, 1, &sum, NULL, NULL);
    kit_check(&sum, &expected, (kit_bound){.of_largest = 4}, "%s, trial %d: dx accumulated", name, trial);
    kit_free_all();
}

static void test_rms_norm(void **state)
{
    (void)state;
    for (int trial = 0; trial < 8; trial++) check_norm(false, trial);
}

static void test_layer_norm(void **state)
{
    (void)state;
    for (int trial = 0; trial < 8; trial++) check_norm(true, trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_layer_norm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
