/* grad_cross_entropy.c - the loss fused with the projection: its backward against finite differences */
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/cross_entropy.h"

enum { IGNORED = -7 };

typedef struct problem {
    tsr_tensor x, w, targets, loss, lse, dloss;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_linear_cross_entropy_fwd(kit_reference(), &p->x, &p->w, &p->targets, IGNORED, &p->loss,
                                        &p->lse, NULL));
    return kit_dot(&p->loss, &p->dloss);
}

static problem random_problem(bool all_ignored)
{
    const int64_t rows = kit_between(1, 6), n = kit_between(1, 6), words = kit_between(1, 8);
    problem p = {.x = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), rows, n)),
                 .w = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), words, n)),
                 .targets = kit_integers(KIT_NEW(TSR_I32, kit_any_output(), rows), 0, words - 1),
                 .loss = KIT_NEW(TSR_F64, KIT_ROWS, 1),
                 .lse = KIT_NEW(TSR_F64, kit_any_output(), rows),
                 .dloss = kit_constant(KIT_NEW(TSR_F64, KIT_ROWS, 1), 1.75)};
    for (int64_t i = 0; i < rows; i++)
        if (all_ignored || kit_one_in(4)) kit_set(&p.targets, i, IGNORED);
    return p;
}

static void check_cross_entropy(bool all_ignored, int trial)
{
    problem p = random_problem(all_ignored);
    const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
    const tsr_tensor dw = kit_like(&p.w, TSR_F64, kit_any_output());
    if (all_ignored) assert_true(loss(&p) == 0);
    loss(&p);
    KIT_OK(tsr_linear_cross_entropy_bwd(kit_reference(), &p.x, &p.w, &p.targets, IGNORED, &p.lse, &p.dloss, 0,
                                        &dx, &dw, NULL));
    const tsr_tensor twice = kit_f64(&dw), sum = kit_f64(&dw);
    for (int64_t i = 0, n = tsr_tensor_numel(&twice); i < n; i++) kit_set(&twice, i, 2 * kit_get(&twice, i));
    KIT_OK(tsr_linear_cross_entropy_bwd(kit_reference(), &p.x, &p.w, &p.targets, IGNORED, &p.lse, &p.dloss, 1,
                                        &dx, &sum, NULL));
    kit_check(&sum, &twice, (kit_bound){.of_largest = 4}, "cross_entropy, trial %d: dw accumulated", trial);
    kit_check_gradient(&p.x, &dx, loss, &p, "cross_entropy, trial %d: dx", trial);
    kit_check_gradient(&p.w, &dw, loss, &p, "cross_entropy, trial %d: dw", trial);
    kit_free_all();
}

static void test_cross_entropy(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) check_cross_entropy(trial == 0, trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cross_entropy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
