/* grad_rope.c - the turn by the opposite angle is the backward of RoPE */
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/rope.h"

typedef struct problem {
    tsr_tensor x, cos, sin, y, dy;
    tsr_rope_options options;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_rope(kit_reference(), &p->x, &p->cos, &p->sin, &p->options, &p->y));
    return kit_dot(&p->y, &p->dy);
}

static void check_rope(bool interleaved, bool with_positions, int trial)
{
    const int64_t l = kit_between(1, 4), half = kit_between(1, 4), n_positions = l + 5;
    problem p = {.options = {.interleaved = interleaved, .start = 3}};
    p.x = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), 2, 2, l, 2 * half));
    p.y = kit_like(&p.x, TSR_F64, kit_any_output());
    p.dy = kit_normal(kit_like(&p.x, TSR_F64, kit_any_input()));
    p.cos = KIT_NEW(TSR_F64, kit_any_output(), n_positions, half);
    p.sin = KIT_NEW(TSR_F64, kit_any_output(), n_positions, half);
    KIT_OK(tsr_rope_table(kit_reference(), 100, &p.cos, &p.sin));
    const tsr_tensor positions = kit_integers(KIT_NEW(TSR_I32, kit_any_output(), 2, l), 0, n_positions - 1);
    if (with_positions) p.options.positions = &positions;

    tsr_rope_options back = p.options;
    back.inverse = 1;
    const tsr_tensor dx = kit_like(&p.x, TSR_F64, kit_any_output());
    KIT_OK(tsr_rope(kit_reference(), &p.dy, &p.cos, &p.sin, &back, &dx));
    kit_check_gradient(&p.x, &dx, loss, &p, "rope, interleaved %d, positions %d, trial %d: dx", interleaved,
                       with_positions, trial);
    kit_free_all();
}

static void test_rope(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) check_rope(trial % 2 == 1, trial / 2 % 2 == 1, trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rope)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
