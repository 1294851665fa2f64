/* tests/misuse_operators.c - what every operator must refuse, on every backend */
#include <stdio.h>

#include "kit/isa.h"
#include "kit/misuse.h"

static void misuse(const kit_operator *op, void *ctx) { kit_misuse(ctx, op); }

static void on_the_reference(void **state)
{
    (void)state;
    kit_for_each_operator(misuse, kit_reference());
}

static void on_the_cpu(void **state)
{
    (void)state;
    kit_for_each_operator(misuse, kit_cpu());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_reference),
        cmocka_unit_test(on_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
