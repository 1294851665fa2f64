/* tests/check_fenced.c - the fenced device gives the reference's results, and catches what it is there to
 * catch
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/fenced.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/operators.h"
#include "kit/tensor.h"
#include "tessera/tessera.h"

/* The same call on both devices; every tensor, input or output, ends with the same bits. */
static void agrees_with_the_reference(const kit_operator *op, void *arg)
{
    tsr_context *ctx = arg;
    kit_call call = {.n = 0};
    op->build(&call);
    kit_tensors tensors = kit_tensors_of(&call);
    tsr_tensor device[KIT_MAX_ARGUMENTS], copy[KIT_MAX_ARGUMENTS];
    for (int32_t i = 0; i < call.n; i++) device[i] = kit_to_device(ctx, &call.arg[i].t);

    const tsr_status expected = op->run(kit_reference(), tensors.at, NULL);
    if (expected != TSR_OK) kit_fail("%s on the reference: %s", op->name, tsr_last_error());

    for (int32_t i = 0; i < call.n; i++) tensors.at[i] = &device[i];
    assert_int_equal(kit_fenced_queued(ctx), 0);
    if (op->run(ctx, tensors.at, NULL) != TSR_OK) kit_fail("%s when queued: %s", op->name, tsr_last_error());
    assert_true(kit_fenced_queued(ctx) > 0);
    if (tsr_synchronise(ctx) != TSR_OK) kit_fail("%s when run: %s", op->name, tsr_last_error());

    for (int32_t i = 0; i < call.n; i++) {
        const tsr_tensor *host = &call.arg[i].t;
        copy[i] = *host;
        uintptr_t low, high;
        tsr_tensor_extent(host, &low, &high);
        char *memory = malloc(high - low);
        assert_non_null(memory);
        copy[i].data = memory + ((uintptr_t)host->data - low);
        kit_from_device(ctx, &device[i], &copy[i]);
        if (memcmp(memory, (const void *)low, high - low) != 0)
            kit_fail("%s: %s differs from the reference's: %s", op->name, call.arg[i].name,
                     kit_describe(host).text);
        free(memory);
        kit_free_on_device(ctx, &device[i]);
    }
    kit_free_all();
}

static void every_operator_agrees(void **state)
{
    (void)state;
    tsr_context *ctx = kit_fenced();
    kit_for_each_operator(agrees_with_the_reference, ctx);
    tsr_context_destroy(ctx);
}

/* An id out of range is found when the operator runs: the wait for it says so, once. */
static void errors_surface_at_the_wait(void **state)
{
    (void)state;
    tsr_context *ctx = kit_fenced();
    const tsr_tensor table = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 4, 3));
    const tsr_tensor ids = kit_constant(KIT_NEW(TSR_I32, KIT_ROWS, 2), 4);
    const tsr_tensor out = KIT_NEW(TSR_F32, KIT_ROWS, 2, 3);
    const tsr_tensor d_table = kit_to_device(ctx, &table), d_ids = kit_to_device(ctx, &ids),
                     d_out = kit_to_device(ctx, &out);
    KIT_OK(tsr_embedding_fwd(ctx, &d_table, &d_ids, &d_out));
    KIT_FAILS(TSR_ERR_INDEX, "embedding_fwd: ", tsr_synchronise(ctx));
    KIT_OK(tsr_synchronise(ctx));
    KIT_OK(tsr_embedding_fwd(ctx, &d_table, &d_ids, &d_out));
    float number;
    KIT_FAILS(TSR_ERR_INDEX, "embedding_fwd: ", tsr_download(ctx, &number, d_table.data, sizeof number));
    KIT_OK(tsr_embedding_fwd(ctx, &d_table, &d_ids, &d_out));
    KIT_FAILS(TSR_ERR_INDEX, "embedding_fwd: ", tsr_upload(ctx, d_table.data, &number, sizeof number));
    kit_seal();
    kit_from_device(ctx, &d_out, &out);
    kit_check_sealed("the output of a refused embedding");
    tsr_context_destroy(ctx);
    kit_free_all();
}

static void foreign_memory_is_refused(void **state)
{
    (void)state;
    tsr_context *ctx = kit_fenced();
    tsr_tensor host = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 3));
    KIT_FAILS(TSR_ERR_DEVICE, "x lives on device 0", tsr_softmax_fwd(ctx, &host, &host));
    host.device = TSR_DEVICE_FENCED; /* a lie */
    KIT_FAILS(TSR_ERR_DEVICE, "not the fenced device's", tsr_softmax_fwd(ctx, &host, &host));
    tsr_tensor t;
    KIT_OK(tsr_tensor_allocate(ctx, TSR_F32, 1, (const int64_t[]){3}, &t));
    t.shape[0] = 4; /* one too many */
    KIT_FAILS(TSR_ERR_DEVICE, "not the fenced device's", tsr_softmax_fwd(ctx, &t, &t));
    t.shape[0] = 3;
    KIT_OK(tsr_free(ctx, t.data));
    KIT_FAILS(TSR_ERR_DEVICE, "or was freed", tsr_softmax_fwd(ctx, &t, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "free: ", tsr_free(ctx, t.data));
    tsr_context_destroy(ctx);
    kit_free_all();
}

static tsr_context *child_ctx;
static tsr_tensor child_x;

static void touch(void) { *(volatile float *)child_x.data = 1; }

static void free_what_is_queued(void)
{
    KIT_OK(tsr_softmax_fwd(child_ctx, &child_x, &child_x));
    tsr_free(child_ctx, child_x.data);
}

/* True if fn ends the process by a signal (under a sanitizer: by its report). */
static bool dies(void (*fn)(void))
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL), signal(SIGBUS, SIG_DFL), signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(0);
        fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void trespassers_die(void **state)
{
    (void)state;
    child_ctx = kit_fenced();
    KIT_OK(tsr_tensor_allocate(child_ctx, TSR_F32, 1, (const int64_t[]){5}, &child_x));
    assert_true(dies(touch));
    assert_true(dies(free_what_is_queued));
    tsr_context_destroy(child_ctx);
}

/* The arrays of a pointer batch may be gone, or changed, before the products run. */
static void pointer_arrays_are_copied(void **state)
{
    (void)state;
    tsr_context *ctx = kit_fenced();
    const tsr_tensor a = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 2, 3), -4, 4);
    const tsr_tensor b = kit_integers(KIT_NEW(TSR_F32, KIT_ROWS, 3, 2), -4, 4);
    const tsr_tensor c = KIT_NEW(TSR_F32, KIT_ROWS, 2, 2), expected = KIT_NEW(TSR_F64, KIT_ROWS, 2, 2);
    const tsr_tensor a64 = kit_f64(&a), b64 = kit_f64(&b);
    KIT_OK(tsr_matmul2d(kit_reference(), 1, &a64, &b64, 0, &expected, NULL));
    const tsr_tensor da = kit_to_device(ctx, &a), db = kit_to_device(ctx, &b), dc = kit_to_device(ctx, &c);
    const void *to_a[] = {da.data}, *to_b[] = {db.data};
    void *to_c[] = {dc.data};
    int64_t rows[] = {3};
    const tsr_gemm_pointers g = {.m = 2,
                                 .n = 2,
                                 .k = 3,
                                 .batch = 1,
                                 .num_heads = 1,
                                 .a = to_a,
                                 .b = to_b,
                                 .c = to_c,
                                 .a_row_stride = rows,
                                 .alpha = 1};
    KIT_OK(tsr_gemm_pointers_fwd(ctx, &g, NULL));
    to_a[0] = to_b[0] = to_c[0] = NULL, rows[0] = 1000;
    kit_from_device(ctx, &dc, &c);
    kit_check(&c, &expected, KIT_EXACT, "gemm_pointers on fenced");
    tsr_context_destroy(ctx);
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_agrees),     cmocka_unit_test(errors_surface_at_the_wait),
        cmocka_unit_test(foreign_memory_is_refused), cmocka_unit_test(trespassers_die),
        cmocka_unit_test(pointer_arrays_are_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
