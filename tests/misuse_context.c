/* tests/misuse_context.c - contexts, device memory and views that cannot be had */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "kit/isa.h"
#include "kit/misuse.h"
#include "op/context.h"

static void contexts(void **state)
{
    (void)state;
    tsr_context *ctx = NULL;
    KIT_FAILS(TSR_ERR_ARGUMENT, "backend is 'gpu', must be cpu or reference",
              tsr_context_create(&(tsr_context_options){.backend = "gpu"}, &ctx));
    KIT_FAILS(TSR_ERR_ARGUMENT, "out is NULL", tsr_context_create(NULL, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "", tsr_context_create(&(tsr_context_options){.n_threads = -1}, &ctx));
    const char *before = getenv("TESSERA_ISA");
    char *kept = before != NULL ? strdup(before) : NULL;
    setenv("TESSERA_ISA", "sse9", 1);
    KIT_FAILS(TSR_ERR_ARGUMENT, "TESSERA_ISA is 'sse9'", tsr_context_create(NULL, &ctx));
    unsetenv("TESSERA_ISA");
    if (kept != NULL) setenv("TESSERA_ISA", kept, 1);
    free(kept);
    assert_null(ctx);
    tsr_context_destroy(NULL);
}

static void memory(void **state)
{
    tsr_context *ctx = *state;
    void *data = &data;
    char byte = 7;
    KIT_FAILS(TSR_ERR_ARGUMENT, "the context is NULL", tsr_allocate(NULL, 1, &data));
    KIT_FAILS(TSR_ERR_ARGUMENT, "out is NULL", tsr_allocate(ctx, 1, NULL));
    KIT_FAILS(TSR_ERR_MEMORY, "is too much", tsr_allocate(ctx, SIZE_MAX, &data));
    assert_ptr_equal(data, &data);
    KIT_FAILS(TSR_ERR_ARGUMENT, "the context is NULL", tsr_free(NULL, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "the context is NULL", tsr_synchronise(NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "upload: a pointer is NULL", tsr_upload(ctx, NULL, &byte, 1));
    KIT_FAILS(TSR_ERR_ARGUMENT, "upload: a pointer is NULL", tsr_upload(ctx, &byte, NULL, 1));
    KIT_FAILS(TSR_ERR_ARGUMENT, "download: a pointer is NULL", tsr_download(ctx, NULL, &byte, 1));
    KIT_FAILS(TSR_ERR_ARGUMENT, "download: a pointer is NULL", tsr_download(ctx, &byte, NULL, 1));
    KIT_OK(tsr_upload(ctx, NULL, NULL, 0));
    KIT_OK(tsr_free(ctx, NULL));
    assert_int_equal(byte, 7);
}

static void busy(void **state)
{
    tsr_context *ctx = *state;
    void *data = NULL;
    char byte = 7;
    KIT_OK(tsr_enter(ctx));
    KIT_FAILS(TSR_ERR_BUSY, "serving another call", tsr_allocate(ctx, 1, &data));
    KIT_FAILS(TSR_ERR_BUSY, "serving another call", tsr_free(ctx, &byte));
    KIT_FAILS(TSR_ERR_BUSY, "serving another call", tsr_upload(ctx, &byte, &byte, 1));
    KIT_FAILS(TSR_ERR_BUSY, "serving another call", tsr_download(ctx, &byte, &byte, 1));
    KIT_FAILS(TSR_ERR_BUSY, "serving another call", tsr_synchronise(ctx));
    KIT_OK(tsr_leave(ctx, TSR_OK));
    KIT_OK(tsr_synchronise(ctx));
    assert_null(data);
}

static void allocated_tensors(void **state)
{
    tsr_context *ctx = *state;
    tsr_tensor t = {.rank = 77};
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tensor_allocate(NULL, TSR_F32, 0, NULL, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tensor_allocate(ctx, TSR_F32, 1, NULL, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tensor_allocate(ctx, TSR_F32, 0, NULL, NULL));
    const int64_t negative[] = {2, -1}, large[] = {INT64_MAX / 2, 3}, right[] = {2, 3};
    KIT_FAILS(TSR_ERR_SHAPE, "rank is 5", tsr_tensor_allocate(ctx, TSR_F32, 5, right, &t));
    KIT_FAILS(TSR_ERR_SHAPE, "rank is -1", tsr_tensor_allocate(ctx, TSR_F32, -1, right, &t));
    KIT_FAILS(TSR_ERR_SHAPE, "extent 1 is negative", tsr_tensor_allocate(ctx, TSR_F32, 2, negative, &t));
    KIT_FAILS(TSR_ERR_DTYPE, "unknown dtype", tsr_tensor_allocate(ctx, (tsr_dtype)99, 2, right, &t));
    KIT_FAILS(TSR_ERR_OVERFLOW, "does not fit", tsr_tensor_allocate(ctx, TSR_F32, 2, large, &t));
    assert_int_equal(t.rank, 77);
    KIT_OK(tsr_tensor_allocate(ctx, TSR_F32, 2, right, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tensor_reshape(NULL, 2, right, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_tensor_reshape(&t, 2, NULL, &t));
    KIT_FAILS(TSR_ERR_SHAPE, "rank is 5", tsr_tensor_reshape(&t, 5, right, &t));
    tsr_tensor deep = t;
    deep.rank = 99;
    KIT_FAILS(TSR_ERR_SHAPE, "t has rank 99", tsr_tensor_reshape(&deep, 2, right, &t));
    KIT_FAILS(TSR_ERR_SHAPE, "[2, 3] has 6 elements, the new shape 4",
              tsr_tensor_reshape(&t, 2, (const int64_t[]){2, 2}, &t));
    const tsr_tensor turned = tsr_tensor_transpose(&t, 0, 1);
    tsr_tensor r = t;
    KIT_FAILS(TSR_ERR_SHAPE, "without a copy", tsr_tensor_reshape(&turned, 1, (const int64_t[]){6}, &r));
    assert_memory_equal(&r, &t, sizeof r);
    KIT_OK(tsr_free(ctx, t.data));
}

/* A workspace that the system cannot give: nothing is written, and the context goes on working. */
static tsr_status no_memory(void *state, size_t nbytes, void **out)
{
    (void)state, (void)nbytes, (void)out;
    return TSR_ERR_MEMORY;
}

static size_t some(const void *state, const tsr_softmax_fwd_args *args)
{
    (void)state, (void)args;
    return 1000;
}

static void workspaces_out_of_memory(void **state)
{
    (void)state;
    static tsr_backend backend;
    backend = tsr_backend_reference;
    backend.allocate = no_memory;
    backend.softmax_fwd_workspace = some;
    tsr_context *ctx = NULL;
    KIT_OK(tsr_context_create_with(&backend, NULL, &ctx));
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 5));
    KIT_REFUSES(TSR_ERR_MEMORY, "", tsr_call_softmax_fwd(ctx, &(tsr_softmax_fwd_args){.x = x, .y = x}, NULL));
    char given[1064];
    KIT_OK(tsr_call_softmax_fwd(ctx, &(tsr_softmax_fwd_args){.x = x, .y = x},
                                &(tsr_workspace){given, sizeof given}));
    tsr_context_destroy(ctx);
    kit_free_all();
}

int main(void)
{
    tsr_context *const all[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = all[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(contexts),
            cmocka_unit_test_prestate(memory, ctx),
            cmocka_unit_test_prestate(busy, ctx),
            cmocka_unit_test_prestate(allocated_tensors, ctx),
            cmocka_unit_test(workspaces_out_of_memory),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
