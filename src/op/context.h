/*
 * op/context.h - how a public function crosses the seam
 *
 * A public function validates its arguments into an args struct, then calls tsr_call_<op>: that claims the
 * context (one call at a time, else TSR_ERR_BUSY), finds a workspace, and runs the backend's entry.
 */
#ifndef TSR_OP_CONTEXT_H
#define TSR_OP_CONTEXT_H

#include <stdatomic.h>

#include "backend/backend.h"
#include "base/fp_mode.h"

struct tsr_context {
    const tsr_backend *backend;
    void *state;
    _Atomic bool busy;
    tsr_fp_mode callers_mode; /* of the call being served */
    void *workspace;          /* the context's own, on the device; grows */
    size_t workspace_nbytes;
    void *host_scratch; /* host memory for pointer arrays and their checks; grows */
    size_t host_scratch_nbytes;
};

/* As tsr_context_create, with a backend that is in no list (tests hold a `fenced` one). */
tsr_status tsr_context_create_with(const tsr_backend *backend, const tsr_context_options *options,
                                   tsr_context **out);

/* Claims the context for one call, in the library's floating-point mode: TSR_ERR_ARGUMENT if NULL,
 * TSR_ERR_BUSY if taken. */
tsr_status tsr_enter(tsr_context *ctx);
/* Gives it back, on the same thread; returns `status`. */
tsr_status tsr_leave(tsr_context *ctx, tsr_status status);

/*
 * Between enter and leave: a workspace of `nbytes`, the caller's if given (TSR_ERR_WORKSPACE if too small),
 * aligned to 64 bytes. The query a caller sees is tsr_workspace_nbytes(nbytes): room to align its pointer.
 */
tsr_status tsr_take_workspace(tsr_context *ctx, size_t nbytes, const tsr_workspace *ws, void **out);
size_t tsr_workspace_nbytes(size_t nbytes);

/* Host memory until the next call; contents are lost when it grows. */
tsr_status tsr_take_host_scratch(tsr_context *ctx, size_t nbytes, void **out);

/* TSR_ERR_UNSUPPORTED, with the operator's and the backend's name. */
tsr_status tsr_lacks(const tsr_context *ctx, const char *op);

/*
 * For every operator op:
 *   tsr_run_op    on an entered context: workspace, then the backend's entry
 *   tsr_call_op   enter, run, leave
 *   tsr_query_op  the bytes that a caller must pass as workspace for these args; TSR_ERR_OVERFLOW if none
 * will do
 */
#define X(op)                                                                                                \
    tsr_status tsr_run_##op(tsr_context *ctx, const tsr_##op##_args *args, const tsr_workspace *ws);         \
    tsr_status tsr_call_##op(tsr_context *ctx, const tsr_##op##_args *args, const tsr_workspace *ws);        \
    tsr_status tsr_query_##op(const tsr_context *ctx, const tsr_##op##_args *args, size_t *out);
TSR_OPERATORS(X)
#undef X

#endif
