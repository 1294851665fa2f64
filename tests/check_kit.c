/* tests/check_kit.c - the test kit sees what it is there to see */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/tensor.h"

static void layouts_hold_their_values(void **state)
{
    (void)state;
    for (int layout = 0; layout < KIT_INPUT_LAYOUTS; layout++)
        for (int32_t rank = 0; rank <= TSR_MAX_RANK; rank++)
            for (int dtype = 0; dtype < TSR_DTYPE_COUNT; dtype++) {
                int64_t shape[TSR_MAX_RANK];
                for (int32_t i = 0; i < rank; i++) shape[i] = kit_between(0, 5);
                tsr_tensor t = kit_new((tsr_dtype)dtype, (kit_layout)layout, rank, shape);
                KIT_OK(tsr_tensor_validate(&t, "t"));
                if (layout < KIT_OUTPUT_LAYOUTS) assert_false(tsr_tensor_self_overlap(&t));
                kit_integers(t, 0, 1);
                const tsr_tensor copy = kit_f64(&t);
                kit_check(&t, &copy, KIT_EXACT, "layout %d", layout);
                kit_free_all();
            }
}

static void pages_lie_on_both_sides(void **state)
{
    (void)state;
    for (int place = KIT_AT_END; place <= KIT_AT_START; place++) {
        const tsr_tensor t = kit_new_at((kit_place)place, 0, TSR_F32, KIT_ROWS, 1, (const int64_t[]){7});
        const volatile float *outside = (const float *)t.data + (place == KIT_AT_END ? 7 : -1);
        const pid_t child = fork();
        if (child == 0) {
            signal(SIGSEGV, SIG_DFL);
            signal(SIGBUS, SIG_DFL);
            _exit(*outside == 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) > 1); /* a sanitizer exits by itself */
    }
    kit_free_all();
}

static void bounds_are_kept(void **state)
{
    (void)state;
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 5, 9));
    const tsr_tensor truth = kit_f64(&x);
    assert_true(kit_agrees(&x, &truth, KIT_EXACT));
    const double one = kit_get(&x, 17);
    kit_set(&x, 17, nextafterf((float)one, INFINITY));
    assert_false(kit_agrees(&x, &truth, KIT_EXACT));
    assert_false(kit_agrees(&x, &truth, (kit_bound){.ulps = 0.5}));
    assert_true(kit_agrees(&x, &truth, (kit_bound){.ulps = 1}));
    assert_int_equal(kit_compare(&x, &truth, KIT_EXACT).worst, 17);
    kit_set(&x, 17, NAN);
    assert_false(kit_agrees(&x, &truth, (kit_bound){.abs = 1e30}));
    kit_set(&truth, 17, NAN);
    assert_true(kit_agrees(&x, &truth, KIT_EXACT));
    assert_true(kit_ulp(TSR_BF16, 1) == 0x1p-7 && kit_ulp(TSR_F16, 0) == 0x1p-24 &&
                kit_ulp(TSR_F32, 3) == 0x1p-22);
    kit_free_all();
}

static void trespassers_are_found(void **state)
{
    (void)state;
    const tsr_tensor t = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 3, 4));
    assert_true(kit_gaps_intact(&t));
    ((float *)t.data)[1] = 0; /* between two elements of a row */
    assert_false(kit_gaps_intact(&t));
    kit_free_all();
}

static int n_sets;
static void count_set(tsr_context *ctx)
{
    assert_string_equal(tsr_context_backend(ctx), "cpu");
    n_sets++;
}

static void every_set_runs(void **state)
{
    (void)state;
    n_sets = 0;
    kit_for_each_isa(count_set);
    assert_in_range(n_sets, getenv("TESSERA_ISA") != NULL ? 1 : 3, 5);
    assert_non_null(kit_reference());
    assert_non_null(kit_cpu());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_hold_their_values),
        cmocka_unit_test(pages_lie_on_both_sides),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(trespassers_are_found),
        cmocka_unit_test(every_set_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
