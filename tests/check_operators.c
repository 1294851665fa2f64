/*
 * tests/check_operators.c - what holds for every operator of the cpu backend, on every instruction set
 *
 * Random layouts, poison around and between the data: the result is the reference's, also with each optional
 * argument absent and each extent 0; with a workspace of just the size that the query gives, anywhere in
 * memory, as with the context's own; and bit for bit the same where an output is one of the inputs, and
 * whatever way the calling thread rounds.
 */
#include <fenv.h>
#include <stdio.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/operators.h"
#include "kit/tensor.h"
#include "tessera/tessera.h"

/* Loose: each operator has a test of its own for its numbers. What is wrong here is wrong by far. */
static const kit_bound loose = {.abs = 1e-4, .rel = 1e-3, .ulps = 2};

static kit_call cloned(const kit_call *call)
{
    kit_call r = *call;
    for (int32_t i = 0; i < r.n; i++) r.arg[i].t = kit_clone(&call->arg[i].t);
    return r;
}

/* Runs the call on the reference and a copy of it on ctx, argument `absent` (or -1) left out. */
static tsr_status both_agree(tsr_context *ctx, const kit_operator *op, const kit_call *call, int32_t absent,
                             const char *variant)
{
    kit_tensors theirs = kit_tensors_of(call);
    if (absent >= 0) theirs.at[absent] = NULL;
    if (op->prepare != NULL) op->prepare(theirs.at);
    const kit_call mine = cloned(call);
    kit_tensors ours = kit_tensors_of(&mine);
    if (absent >= 0) ours.at[absent] = NULL;
    const tsr_status expected = op->run(kit_reference(), theirs.at, NULL);
    const tsr_status status = op->run(ctx, ours.at, NULL);
    if (status != expected)
        kit_fail("%s %s: got '%s', the reference '%s': %s", op->name, variant, tsr_status_name(status),
                 tsr_status_name(expected), tsr_last_error());
    for (int32_t i = 0; i < call->n && status == TSR_OK; i++)
        if (call->arg[i].role != KIT_IN)
            kit_check(&mine.arg[i].t, &call->arg[i].t, loose, "%s %s: %s", op->name, variant,
                      call->arg[i].name);
    return status;
}

static bool is_there(tsr_context *ctx, const kit_operator *op)
{
    kit_call call = {.n = 0};
    op->build(&call);
    const kit_tensors tensors = kit_tensors_of(&call);
    const tsr_status status = op->run(ctx, tensors.at, NULL);
    kit_free_all();
    if (status == TSR_ERR_UNSUPPORTED) printf("skipped: the cpu backend lacks %s\n", op->name);
    return status != TSR_ERR_UNSUPPORTED;
}

static void whole_and_without_options(tsr_context *ctx, const kit_operator *op)
{
    kit_call call = {.n = 0};
    op->build(&call);
    if (both_agree(ctx, op, &call, -1, "as it is") != TSR_OK)
        kit_fail("%s as it is: %s", op->name, tsr_last_error());
    for (int32_t i = 0; i < call.n; i++) {
        char variant[64];
        snprintf(variant, sizeof variant, "without %s", call.arg[i].name);
        if (!call.arg[i].optional) continue;
        kit_call fresh = {.n = 0};
        op->build(&fresh);
        both_agree(ctx, op, &fresh, i, variant);
    }
    kit_free_all();
}

/* Every dimension of extent n becomes empty, in all arguments: extents of builders differ where they mean
 * different things. Some cannot (half of D, a count of heads): then both backends say so. */
static bool without_extent(tsr_context *ctx, const kit_operator *op, int64_t n)
{
    kit_call call = {.n = 0};
    char variant[64];
    bool found = false;
    snprintf(variant, sizeof variant, "with extents of 0 for %d", (int)n);
    op->build(&call);
    for (int32_t i = 0; i < call.n; i++) {
        tsr_tensor *t = &call.arg[i].t;
        bool shrinks = false;
        for (int32_t d = 0; d < t->rank; d++)
            if (!call.arg[i].raw && t->shape[d] == n) t->shape[d] = 0, shrinks = true;
        if (shrinks) *t = kit_like(t, t->dtype, KIT_ROWS);
        found |= shrinks;
    }
    const bool ran = found && both_agree(ctx, op, &call, -1, variant) == TSR_OK;
    kit_free_all();
    return ran;
}

static void empty(tsr_context *ctx, const kit_operator *op)
{
    int n_ran = 0;
    for (int64_t n = 2; n < 12; n++) n_ran += without_extent(ctx, op, n);
    kit_call call = {.n = 0};
    op->build(&call);
    if (!call.arg[0].raw && n_ran == 0) kit_fail("%s: no extent may be 0", op->name);
    kit_free_all();
}

/* A workspace whose last byte is the last before a page that no one may touch. */
static void in_a_given_workspace(tsr_context *ctx, const kit_operator *op)
{
    if (op->query == NULL) return;
    kit_call call = {.n = 0};
    op->build(&call);
    const kit_call other = cloned(&call);
    const kit_tensors tensors = kit_tensors_of(&call), others = kit_tensors_of(&other);
    size_t need = 0;
    KIT_OK(op->query(ctx, tensors.at, &need));
    const tsr_tensor memory = kit_new_at(KIT_AT_END, 0, TSR_F32, KIT_ROWS, 1,
                                         (const int64_t[]){(int64_t)(need + 3) / 4});
    const tsr_workspace ws = {(char *)memory.data + (4 - need % 4) % 4, need};
    KIT_OK(op->run(ctx, tensors.at, &ws));
    KIT_OK(op->run(ctx, others.at, NULL));
    for (int32_t i = 0; i < call.n; i++)
        if (!kit_same_bits(&call.arg[i].t, &other.arg[i].t))
            kit_fail("%s: %s differs when the workspace is the caller's", op->name, call.arg[i].name);
    kit_check_gaps(&memory, op->name);
    kit_free_all();
}

/* Output i is the very view of input j. */
static void upon_its_input(tsr_context *ctx, const kit_operator *op, int32_t i, int32_t j)
{
    kit_call call = {.n = 0};
    op->build(&call);
    tsr_tensor *in = &call.arg[j].t;
    if (tsr_tensor_self_overlap(in)) *in = kit_copy(in, in->dtype, KIT_GAPS);
    if (call.arg[i].role == KIT_INOUT) /* what is added to is then what is read */
        for (int64_t e = 0; e < tsr_tensor_numel(in); e++) kit_set(&call.arg[i].t, e, kit_get(in, e));
    kit_call aliased = cloned(&call);
    aliased.arg[i].t = aliased.arg[j].t;
    const kit_tensors apart = kit_tensors_of(&call), upon = kit_tensors_of(&aliased);
    KIT_OK(op->run(ctx, apart.at, NULL));
    KIT_OK(op->run(ctx, upon.at, NULL));
    for (int32_t k = 0; k < call.n; k++)
        if (call.arg[k].role != KIT_IN && !kit_same_bits(&call.arg[k].t, &aliased.arg[k].t))
            kit_fail("%s: %s differs where %s is %s: %s", op->name, call.arg[k].name, call.arg[i].name,
                     call.arg[j].name, kit_describe(in).text);
    kit_check_gaps(&aliased.arg[i].t, op->name);
    kit_free_all();
}

static void in_place(tsr_context *ctx, const kit_operator *op)
{
    kit_call call = {.n = 0};
    op->build(&call);
    for (int32_t i = 0; i < call.n; i++)
        for (int32_t j = 0; j < call.n; j++)
            if (call.arg[i].may_be & 1u << j) upon_its_input(ctx, op, i, j);
    kit_free_all();
}

/* The thread rounds upwards: not the library's business, and the thread's again afterwards. */
static void while_the_caller_rounds_upwards(tsr_context *ctx, const kit_operator *op)
{
    kit_call call = {.n = 0};
    op->build(&call);
    const kit_call other = cloned(&call);
    const kit_tensors tensors = kit_tensors_of(&call), others = kit_tensors_of(&other);
    KIT_OK(op->run(ctx, tensors.at, NULL));
    fesetround(FE_UPWARD);
    const tsr_status status = op->run(ctx, others.at, NULL);
    const int direction = fegetround();
    fesetround(FE_TONEAREST);
    KIT_OK(status);
    assert_int_equal(direction, FE_UPWARD);
    for (int32_t i = 0; i < call.n; i++)
        if (!kit_same_bits(&call.arg[i].t, &other.arg[i].t))
            kit_fail("%s: %s differs where the caller rounds upwards", op->name, call.arg[i].name);
    kit_free_all();
}

static void check_operator(const kit_operator *op, void *arg)
{
    tsr_context *ctx = arg;
    if (!is_there(ctx, op)) return;
    for (int i = 0; i < 3; i++) whole_and_without_options(ctx, op);
    empty(ctx, op);
    in_a_given_workspace(ctx, op);
    in_place(ctx, op);
    while_the_caller_rounds_upwards(ctx, op);
}

static void check_all(tsr_context *ctx) { kit_for_each_operator(check_operator, ctx); }

/* More empty rows than anyone could count to: extents that no memory stands behind. */
static void without_elements(tsr_context *ctx)
{
    const int64_t many = (int64_t)1 << 42;
    float x = 1;
    const tsr_tensor rows = tsr_tensor_3d(&x, TSR_F32, many, many, 0), none = tsr_tensor_1d(&x, TSR_F32, 0);
    const tsr_tensor heads = tsr_tensor_4d(&x, TSR_F32, many, many, 1, 0),
                     table = tsr_tensor_2d(&x, TSR_F32, many, 0);
    const tsr_dropout dropout = {.p = 0.5f};
    KIT_OK(tsr_softmax_fwd(ctx, &rows, &rows));
    KIT_OK(tsr_softmax_bwd(ctx, &rows, &rows, &rows));
    KIT_OK(tsr_rms_norm_fwd(ctx, &rows, &none, 1, &rows, NULL));
    KIT_OK(tsr_layer_norm_fwd(ctx, &rows, &none, NULL, 1, &rows, NULL, NULL));
    KIT_OK(tsr_dropout_add(ctx, &rows, NULL, &dropout, &rows));
    KIT_OK(tsr_sum_rows(ctx, &rows, 1, &none));
    KIT_OK(tsr_add(ctx, 1, &rows, 1, &rows, &rows));
    KIT_OK(tsr_rope_table(ctx, 1e4, &table, &table));
    KIT_OK(tsr_rope(ctx, &heads, &table, &table, NULL, &heads));
    assert_true(x == 1);
}

static void on_the_reference(void **state)
{
    (void)state;
    check_all(kit_reference());
    without_elements(kit_reference());
}

static void on_the_cpu(void **state)
{
    (void)state;
    kit_for_each_isa(check_all);
    without_elements(kit_cpu());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_reference),
        cmocka_unit_test(on_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
