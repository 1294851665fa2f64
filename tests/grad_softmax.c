/* grad_softmax.c - softmax's backward against finite differences of the reference */
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/softmax.h"

typedef struct problem {
    tsr_tensor x, y, dy;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_softmax_fwd(kit_reference(), &p->x, &p->y));
    return kit_dot(&p->y, &p->dy);
}

static void test_softmax(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        problem p;
        p.x = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), kit_between(1, 3), kit_between(1, 9)));
        p.y = kit_like(&p.x, TSR_F64, kit_any_output());
        p.dy = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
        const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
        loss(&p);
        KIT_OK(tsr_softmax_bwd(kit_reference(), &p.y, &p.dy, &dx));
        kit_check_gradient(&p.x, &dx, loss, &p, "softmax, trial %d: dx", trial);
        kit_free_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_softmax)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
