/*
 * backend/backend.h - THE SEAM: what a device must bring to run everything above it
 *
 * A backend is one const table. Memory is coarse: allocate, release, copy, synchronise. Operators take
 * one validated argument struct (backend/args.h) and a workspace of at least the size their query asked
 * for, 64-byte aligned. An entry of NULL means that the backend lacks the operator: callers get
 * TSR_ERR_UNSUPPORTED. An asynchronous device queues operators and reports what they ran into at the next
 * upload, download or synchronise; args structs are copied by value when queued, pointer arrays too.
 */
#ifndef TSR_BACKEND_BACKEND_H
#define TSR_BACKEND_BACKEND_H

#include "backend/args.h"
#include "tessera/context.h"

/* Every operator, once: X(name) stands for tsr_<name>_args and the two entries below. */
/* clang-format off */
#define TSR_OPERATORS(X)                                          \
    X(gemm) X(weight_pack) X(linear)                              \
    X(softmax_fwd) X(softmax_bwd)                                 \
    X(attention_fwd) X(attention_bwd) X(attention_merge)          \
    X(attention_unfused_fwd) X(attention_unfused_bwd)             \
    X(norm_fwd) X(norm_bwd)                                       \
    X(rope_table) X(rope)                                         \
    X(embedding_fwd) X(embedding_bwd)                             \
    X(activation_fwd) X(activation_bwd)                           \
    X(swiglu_fwd) X(swiglu_bwd)                                   \
    X(copy) X(fill) X(add) X(sum) X(sum_rows)                     \
    X(dropout_add)                                                \
    X(linear_cross_entropy_fwd) X(linear_cross_entropy_bwd)       \
    X(kv_append)                                                  \
    X(adamw)
/* clang-format on */

typedef struct tsr_backend {
    const char *name;
    tsr_device device;
    bool computes_f64; /* else operators that compute refuse f64 tensors; copies take them everywhere */

    tsr_status (*open)(const tsr_context_options *options, void **state);
    void (*close)(void *state);
    int32_t (*n_threads)(const void *state);
    const char *(*kernels)(const void *state); /* a line a kernel family */

    tsr_status (*allocate)(void *state, size_t nbytes, void **out);
    tsr_status (*release)(void *state, void *data);
    tsr_status (*upload)(void *state, void *device_data, const void *host_data, size_t nbytes);
    tsr_status (*download)(void *state, void *host_data, const void *device_data, size_t nbytes);
    tsr_status (*synchronise)(void *state);

    /* Bytes of a packed weight; SIZE_MAX: does not fit. */
    size_t (*weight_nbytes)(const void *state, const tsr_weight_layout *layout);

/* The operator, and the bytes of workspace that it needs (query NULL: none; SIZE_MAX: does not fit). */
#define X(op)                                                                                                \
    tsr_status (*op)(void *state, const tsr_##op##_args *args, void *workspace);                             \
    size_t (*op##_workspace)(const void *state, const tsr_##op##_args *args);
    TSR_OPERATORS(X)
#undef X
} tsr_backend;

/* All of this build, the default first; ends with NULL. */
extern const tsr_backend *const tsr_backends[];
extern const tsr_backend tsr_backend_cpu, tsr_backend_reference;

/* Memory of the host, for backends that live there: 64-byte aligned. */
tsr_status tsr_host_allocate(void *state, size_t nbytes, void **out);
tsr_status tsr_host_release(void *state, void *data);
tsr_status tsr_host_copy(void *state, void *to, const void *from, size_t nbytes);
tsr_status tsr_host_synchronise(void *state);

#endif
