/*
 * backend/reference/reference.h - the reference backend: the definition of truth
 *
 * One file per operator, plain loops over any strides and dtypes, f64 included; every accumulator is a
 * double. Nothing here is fast, and nothing is shared with the kernels that are held against it.
 */
#ifndef TSR_REFERENCE_REFERENCE_H
#define TSR_REFERENCE_REFERENCE_H

#include "backend/backend.h"
#include "base/dtype.h"
#include "base/tensor.h"

/* Element `offset` (in elements) of a view, as double, and back with one rounding. */
static inline double ref_get(const tsr_tensor *t, int64_t offset)
{
    return tsr_load_f64(t->data, t->dtype, offset);
}
static inline void ref_set(const tsr_tensor *t, int64_t offset, double x)
{
    tsr_store_f64(t->data, t->dtype, offset, x);
}

/* Offset of entry number i, in row-major order, of the first n_dims dimensions: an element, or a row. */
static inline int64_t ref_offset(const tsr_tensor *t, int32_t n_dims, int64_t i)
{
    int64_t offset = 0;
    for (int32_t d = n_dims - 1; d >= 0; d--) {
        offset += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return offset;
}

/* Element number i in row-major order. */
static inline double ref_get_nth(const tsr_tensor *t, int64_t i)
{
    return ref_get(t, ref_offset(t, t->rank, i));
}
static inline void ref_set_nth(const tsr_tensor *t, int64_t i, double x)
{
    ref_set(t, ref_offset(t, t->rank, i), x);
}

/* Product of all extents but the last; 0 where rows have no element, as it may then be of any size. */
static inline int64_t ref_n_rows(const tsr_tensor *t)
{
    const int64_t numel = tsr_tensor_numel(t);
    return numel == 0 ? 0 : numel / t->shape[t->rank - 1];
}

double ref_activate(tsr_activation activation, double x);

#define X(op) tsr_status ref_##op(void *state, const tsr_##op##_args *args, void *workspace);
TSR_OPERATORS(X)
#undef X

size_t ref_weight_nbytes(const void *state, const tsr_weight_layout *layout);

/* Workspaces, of those that need one. */
size_t ref_linear_workspace(const void *state, const tsr_linear_args *args);
size_t ref_attention_fwd_workspace(const void *state, const tsr_attention_fwd_args *args);
size_t ref_attention_bwd_workspace(const void *state, const tsr_attention_bwd_args *args);
size_t ref_norm_bwd_workspace(const void *state, const tsr_norm_bwd_args *args);
size_t ref_embedding_bwd_workspace(const void *state, const tsr_embedding_bwd_args *args);
size_t ref_linear_cross_entropy_fwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_fwd_args *args);
size_t ref_linear_cross_entropy_bwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_bwd_args *args);

#endif
