/* op/context.c - contexts: a backend's state, one call at a time, a workspace that grows */
#include "op/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"

tsr_status tsr_context_create_with(const tsr_backend *backend, const tsr_context_options *options,
                                   tsr_context **out)
{
    static const tsr_context_options defaults = {0};
    if (out == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "context: out is NULL");
    tsr_context *ctx = calloc(1, sizeof *ctx);
    if (ctx == NULL) return tsr_fail(TSR_ERR_MEMORY, "context: out of memory");
    ctx->backend = backend;
    const tsr_status status = backend->open(options != NULL ? options : &defaults, &ctx->state);
    if (status != TSR_OK) {
        free(ctx);
        return status;
    }
    *out = ctx;
    return TSR_OK;
}

tsr_status tsr_context_create(const tsr_context_options *options, tsr_context **out)
{
    const char *wanted = options != NULL && options->backend != NULL ? options->backend
                                                                     : tsr_backends[0]->name;
    for (int i = 0; tsr_backends[i] != NULL; i++)
        if (strcmp(tsr_backends[i]->name, wanted) == 0)
            return tsr_context_create_with(tsr_backends[i], options, out);
    return tsr_fail(TSR_ERR_ARGUMENT, "context: backend is '%s', must be cpu or reference", wanted);
}

void tsr_context_destroy(tsr_context *ctx)
{
    if (ctx == NULL) return;
    ctx->backend->synchronise(ctx->state);
    if (ctx->workspace != NULL) ctx->backend->release(ctx->state, ctx->workspace);
    ctx->backend->close(ctx->state);
    free(ctx->host_scratch);
    free(ctx);
}

const char *tsr_context_backend(const tsr_context *ctx) { return ctx->backend->name; }
int32_t tsr_context_n_threads(const tsr_context *ctx) { return ctx->backend->n_threads(ctx->state); }
tsr_device tsr_context_device(const tsr_context *ctx) { return ctx->backend->device; }
const char *tsr_context_kernels(const tsr_context *ctx) { return ctx->backend->kernels(ctx->state); }

tsr_status tsr_enter(tsr_context *ctx)
{
    if (ctx == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "the context is NULL");
    if (atomic_exchange_explicit(&ctx->busy, true, memory_order_acquire))
        return tsr_fail(TSR_ERR_BUSY, "the context is serving another call; use a context per thread");
    ctx->callers_mode = tsr_fp_mode_enter();
    return TSR_OK;
}

tsr_status tsr_leave(tsr_context *ctx, tsr_status status)
{
    tsr_fp_mode_restore(ctx->callers_mode);
    atomic_store_explicit(&ctx->busy, false, memory_order_release);
    return status;
}

size_t tsr_workspace_nbytes(size_t nbytes)
{
    return nbytes == 0 || nbytes > SIZE_MAX - TSR_ALIGN ? nbytes : nbytes + TSR_ALIGN;
}

/* On a queueing device the old workspace may go only after all that uses it has run. */
static tsr_status grow_workspace(tsr_context *ctx, size_t nbytes)
{
    if (nbytes <= ctx->workspace_nbytes) return TSR_OK;
    void *fresh;
    TSR_TRY(ctx->backend->allocate(ctx->state, nbytes, &fresh));
    if (ctx->workspace != NULL) {
        tsr_status status = ctx->backend->synchronise(ctx->state);
        if (status == TSR_OK) status = ctx->backend->release(ctx->state, ctx->workspace);
        if (status != TSR_OK) {
            ctx->backend->release(ctx->state, fresh);
            return status;
        }
    }
    ctx->workspace = fresh;
    ctx->workspace_nbytes = nbytes;
    return TSR_OK;
}

tsr_status tsr_take_workspace(tsr_context *ctx, size_t nbytes, const tsr_workspace *ws, void **out)
{
    const size_t need = tsr_workspace_nbytes(nbytes);
    if (ws != NULL) {
        const size_t has = ws->data == NULL ? 0 : ws->nbytes;
        if (has < need)
            return tsr_fail(TSR_ERR_WORKSPACE, "the workspace has %zu bytes, must have %zu", has, need);
        *out = tsr_arena_over(ws->data, has).base;
        return TSR_OK;
    }
    if (need == SIZE_MAX) return tsr_fail(TSR_ERR_OVERFLOW, "the workspace needed does not fit in memory");
    TSR_TRY(grow_workspace(ctx, need));
    *out = ctx->workspace;
    return TSR_OK;
}

tsr_status tsr_take_host_scratch(tsr_context *ctx, size_t nbytes, void **out)
{
    if (nbytes > ctx->host_scratch_nbytes) {
        void *fresh = malloc(nbytes);
        if (fresh == NULL) return tsr_fail(TSR_ERR_MEMORY, "out of memory for %zu bytes", nbytes);
        free(ctx->host_scratch);
        ctx->host_scratch = fresh;
        ctx->host_scratch_nbytes = nbytes;
    }
    *out = ctx->host_scratch;
    return TSR_OK;
}

tsr_status tsr_lacks(const tsr_context *ctx, const char *op)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: the %s backend lacks it", op, ctx->backend->name);
}

#define NEED(op) (ctx->backend->op##_workspace != NULL ? ctx->backend->op##_workspace(ctx->state, args) : 0)
#define X(op)                                                                                                \
    tsr_status tsr_run_##op(tsr_context *ctx, const tsr_##op##_args *args, const tsr_workspace *ws)          \
    {                                                                                                        \
        if (ctx->backend->op == NULL) return tsr_lacks(ctx, #op);                                            \
        void *workspace = NULL;                                                                              \
        TSR_TRY(tsr_take_workspace(ctx, NEED(op), ws, &workspace));                                          \
        return ctx->backend->op(ctx->state, args, workspace);                                                \
    }                                                                                                        \
    tsr_status tsr_call_##op(tsr_context *ctx, const tsr_##op##_args *args, const tsr_workspace *ws)         \
    {                                                                                                        \
        TSR_TRY(tsr_enter(ctx));                                                                             \
        return tsr_leave(ctx, tsr_run_##op(ctx, args, ws));                                                  \
    }                                                                                                        \
    tsr_status tsr_query_##op(const tsr_context *ctx, const tsr_##op##_args *args, size_t *out)              \
    {                                                                                                        \
        if (out == NULL) return tsr_fail(TSR_ERR_ARGUMENT, #op "_workspace: out is NULL");                   \
        if (ctx->backend->op == NULL) return tsr_lacks(ctx, #op);                                            \
        const size_t need = NEED(op);                                                                        \
        if (need == SIZE_MAX) return tsr_fail(TSR_ERR_OVERFLOW, #op ": the workspace needed does not fit");  \
        *out = tsr_workspace_nbytes(need);                                                                   \
        return TSR_OK;                                                                                       \
    }
TSR_OPERATORS(X)
#undef X
#undef NEED

static tsr_status enter_with(tsr_context *ctx, bool ok, const char *what)
{
    TSR_TRY(tsr_enter(ctx));
    return ok ? TSR_OK : tsr_leave(ctx, tsr_fail(TSR_ERR_ARGUMENT, "%s is NULL", what));
}

tsr_status tsr_allocate(tsr_context *ctx, size_t nbytes, void **out)
{
    TSR_TRY(enter_with(ctx, out != NULL, "allocate: out"));
    return tsr_leave(ctx, ctx->backend->allocate(ctx->state, nbytes, out));
}

tsr_status tsr_free(tsr_context *ctx, void *data)
{
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, data == NULL ? TSR_OK : ctx->backend->release(ctx->state, data));
}

tsr_status tsr_upload(tsr_context *ctx, void *device_data, const void *host_data, size_t nbytes)
{
    TSR_TRY(enter_with(ctx, nbytes == 0 || (device_data != NULL && host_data != NULL), "upload: a pointer"));
    return tsr_leave(ctx, ctx->backend->upload(ctx->state, device_data, host_data, nbytes));
}

tsr_status tsr_download(tsr_context *ctx, void *host_data, const void *device_data, size_t nbytes)
{
    TSR_TRY(
        enter_with(ctx, nbytes == 0 || (device_data != NULL && host_data != NULL), "download: a pointer"));
    return tsr_leave(ctx, ctx->backend->download(ctx->state, host_data, device_data, nbytes));
}

tsr_status tsr_synchronise(tsr_context *ctx)
{
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, ctx->backend->synchronise(ctx->state));
}

tsr_status tsr_tensor_allocate(tsr_context *ctx, tsr_dtype dtype, int32_t rank, const int64_t *shape,
                               tsr_tensor *out)
{
    if (ctx == NULL || out == NULL || (shape == NULL && rank > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "tensor_allocate: a null pointer was passed");
    if (rank < 0 || rank > TSR_MAX_RANK)
        return tsr_fail(TSR_ERR_SHAPE, "tensor_allocate: rank is %d, must be 0 to %d", (int)rank,
                        TSR_MAX_RANK);
    tsr_tensor t = {.dtype = dtype, .device = tsr_context_device(ctx), .rank = rank};
    size_t nbytes = tsr_dtype_nbytes(dtype);
    if (nbytes == 0) return tsr_fail(TSR_ERR_DTYPE, "tensor_allocate: unknown dtype (%d)", (int)dtype);
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        if (shape[i] < 0) return tsr_fail(TSR_ERR_SHAPE, "tensor_allocate: extent %d is negative", (int)i);
        t.shape[i] = shape[i], t.stride[i] = stride;
        if (__builtin_mul_overflow(stride, shape[i], &stride) ||
            __builtin_mul_overflow(nbytes, (size_t)shape[i], &nbytes))
            return tsr_fail(TSR_ERR_OVERFLOW, "tensor_allocate: the size does not fit");
    }
    TSR_TRY(tsr_allocate(ctx, nbytes, &t.data));
    *out = t;
    return TSR_OK;
}
