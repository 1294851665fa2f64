/* grad_embedding.c - the gradient of a table of rows against finite differences, ids repeated */
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/embedding.h"

typedef struct problem {
    tsr_tensor table, ids, out, dout;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_embedding_fwd(kit_reference(), &p->table, &p->ids, &p->out));
    return kit_dot(&p->out, &p->dout);
}

static void test_embedding(void **state)
{
    (void)state;
    for (int trial = 0; trial < 10; trial++) {
        const int64_t words = kit_between(1, 6), n = kit_between(1, 5), count = kit_between(0, 9);
        problem p = {.table = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), words, n)),
                     .ids = kit_integers(KIT_NEW(TSR_I32, kit_any_input(), 2, count), 0, words - 1),
                     .out = KIT_NEW(TSR_F64, kit_any_output(), 2, count, n),
                     .dout = kit_normal(KIT_NEW(TSR_F64, kit_any_input(), 2, count, n))};
        const tsr_tensor dtable = kit_like(&p.table, TSR_F64, kit_any_output());
        KIT_OK(tsr_embedding_bwd(kit_reference(), &p.ids, &p.dout, 0, &dtable));
        kit_check_gradient(&p.table, &dtable, loss, &p, "embedding, trial %d: dtable", trial);

        const tsr_tensor twice = kit_f64(&dtable), sum = kit_f64(&dtable);
        for (int64_t i = 0, m = tsr_tensor_numel(&twice); i < m; i++)
            kit_set(&twice, i, 2 * kit_get(&twice, i));
        KIT_OK(tsr_embedding_bwd(kit_reference(), &p.ids, &p.dout, 1, &sum));
        kit_check(&sum, &twice, (kit_bound){.of_largest = 4}, "embedding, trial %d: accumulated", trial);
        kit_free_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_embedding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
