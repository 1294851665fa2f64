/* grad_activation.c - derivatives of the activations and of swiglu against finite differences */
#include <math.h>

#include "base/tensor.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/activation.h"

typedef struct problem {
    tsr_activation activation;
    tsr_tensor x, up, y, dy; /* swiglu: x is the gate */
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_activation_fwd(kit_reference(), p->activation, &p->x, &p->y));
    return kit_dot(&p->y, &p->dy);
}

static double swiglu_loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_swiglu_fwd(kit_reference(), &p->x, &p->up, &p->y));
    return kit_dot(&p->y, &p->dy);
}

static problem random_problem(void)
{
    problem p = {
        .x = kit_uniform(KIT_NEW(TSR_F64, kit_any_output(), kit_between(1, 4), kit_between(1, 9)), -4, 4)};
    /* relu has no derivative at 0: stay clear of it. */
    for (int64_t i = 0, n = tsr_tensor_numel(&p.x); i < n; i++)
        kit_set(&p.x, i, kit_get(&p.x, i) + copysign(0.01, kit_get(&p.x, i)));
    p.up = kit_normal(kit_like(&p.x, TSR_F64, kit_any_output()));
    p.y = kit_like(&p.x, TSR_F64, kit_any_output());
    p.dy = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
    return p;
}

static void test_activations(void **state)
{
    (void)state;
    for (int activation = TSR_ACTIVATION_RELU; activation <= TSR_ACTIVATION_SILU; activation++)
        for (int trial = 0; trial < 5; trial++) {
            problem p = random_problem();
            p.activation = (tsr_activation)activation;
            const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
            KIT_OK(tsr_activation_bwd(kit_reference(), p.activation, &p.x, &p.dy, &dx));
            kit_check_gradient(&p.x, &dx, loss, &p, "activation %d, trial %d: dx", activation, trial);
            kit_free_all();
        }
}

static void test_swiglu(void **state)
{
    (void)state;
    for (int trial = 0; trial < 5; trial++) {
        problem p = random_problem();
        const tsr_tensor dgate = kit_like(&p.x, TSR_F64, kit_any_output());
        const tsr_tensor dup = kit_like(&p.x, TSR_F64, kit_any_output());
        KIT_OK(tsr_swiglu_bwd(kit_reference(), &p.x, &p.up, &p.dy, &dgate, &dup));
        kit_check_gradient(&p.x, &dgate, swiglu_loss, &p, "swiglu, trial %d: dgate", trial);
        kit_check_gradient(&p.up, &dup, swiglu_loss, &p, "swiglu, trial %d: dup", trial);
        kit_free_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_activations), cmocka_unit_test(test_swiglu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
