/*
 * tessera/context.h - what a program holds to run operators: a backend, its threads, a workspace
 *
 * Several contexts may work at once. One call at a time per context: a second one, from
 * another thread, gives TSR_ERR_BUSY.
 */
#ifndef TESSERA_CONTEXT_H
#define TESSERA_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "tessera/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_context tsr_context;

/*
 * A parallel loop of the caller's: must call body(arg, i) once for each i in [0, n), in any
 * order, in parallel or not, and return when all are done.
 */
typedef void (*tsr_parallel_for)(void *user, int64_t n, void (*body)(void *arg, int64_t i), void *arg);

typedef struct tsr_context_options {
    const char *backend;           /* "cpu" or "reference"; NULL = "cpu"                    */
    int32_t n_threads;             /* 0 = as many as the process may use                     */
    tsr_parallel_for parallel_for; /* NULL = a pool of our own; else n_threads says how many
                                      of its bodies may run at once                          */
    void *parallel_for_user;       /* its first argument                                     */
} tsr_context_options;

/* options: NULL for the defaults. TSR_ERR_ARGUMENT: unknown backend, a bad TESSERA_ISA; TSR_ERR_MEMORY. */
TSR_API tsr_status tsr_context_create(const tsr_context_options *options, tsr_context **out);

/* Waits for work under way. NULL is allowed. */
TSR_API void tsr_context_destroy(tsr_context *ctx);

TSR_API const char *tsr_context_backend(const tsr_context *ctx);
TSR_API int32_t tsr_context_n_threads(const tsr_context *ctx);
TSR_API tsr_device tsr_context_device(const tsr_context *ctx);

/* One line a kernel family: "gemm_f32  avx512_14x32". Valid as long as the context. */
TSR_API const char *tsr_context_kernels(const tsr_context *ctx);

/*
 * Scratch memory for one call, on the context's device. Where a function takes one, NULL means
 * the context's own, which grows on demand before any output is touched; the function's
 * _workspace query says how many bytes are enough.
 */
typedef struct tsr_workspace {
    void *data;
    size_t nbytes;
} tsr_workspace;

/*
 * Device memory. Work is queued on an asynchronous device; upload, download and synchronise
 * wait for all that came before and report what it ran into (such as TSR_ERR_INDEX).
 */
TSR_API tsr_status tsr_allocate(tsr_context *ctx, size_t nbytes, void **out);
TSR_API tsr_status tsr_free(tsr_context *ctx, void *data);
TSR_API tsr_status tsr_upload(tsr_context *ctx, void *device_data, const void *host_data, size_t nbytes);
TSR_API tsr_status tsr_download(tsr_context *ctx, void *host_data, const void *device_data, size_t nbytes);
TSR_API tsr_status tsr_synchronise(tsr_context *ctx);

/* A contiguous tensor in new device memory (not cleared); release it with tsr_free(ctx, out->data). */
TSR_API tsr_status tsr_tensor_allocate(tsr_context *ctx, tsr_dtype dtype, int32_t rank, const int64_t *shape,
                                       tsr_tensor *out);

#ifdef __cplusplus
}
#endif
#endif
