/*
 * tessera/gemm.h - matrix products, one or many
 *
 *     C = alpha * A @ B + beta * C        A [m, k]  B [k, n]  C [m, n]
 *
 * k is always the reduced dimension; beta = 0 never reads C. Inputs f32, bf16 or f16, both alike, summed in
 * f32; C has their type or f32. s8 x s8 gives i32, exact while the sum of products fits 32 bits, as it always
 * does for k < 2^17. f64: the reference backend. A transposed operand is a view with its strides exchanged. C
 * overlaps neither input nor itself.
 *
 * The sum over k has an order that depends on k alone (chunks of a constant length, summed from zero and
 * added up; docs/NUMERICS.md): bitwise equal for any number of threads, and a row's result does not depend
 * on m.
 *
 * Backward, for an incoming dC:   dA = alpha * dC B^T + beta * dA     dB = alpha * A^T dC + beta * dB
 * (the beta of a backward adds to gradients; dA or dB may be NULL if it is not wanted).
 *
 * Errors of all: TSR_ERR_ARGUMENT, _SHAPE, _DTYPE, _DEVICE, _OVERLAP, _OVERFLOW, _WORKSPACE; C untouched.
 */
#ifndef TESSERA_GEMM_H
#define TESSERA_GEMM_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* a [m, k], b [k, n], c [m, n], any strides. */
TSR_API tsr_status tsr_matmul2d(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                                float beta, const tsr_tensor *c, const tsr_workspace *ws);
TSR_API tsr_status tsr_matmul2d_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                          const tsr_tensor *c, size_t *out);
TSR_API tsr_status tsr_matmul2d_bwd(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                                    const tsr_tensor *dc, float beta, const tsr_tensor *da,
                                    const tsr_tensor *db, const tsr_workspace *ws);
TSR_API tsr_status tsr_matmul2d_bwd_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                              const tsr_tensor *dc, const tsr_tensor *da,
                                              const tsr_tensor *db, size_t *out);

/* a [batch, m, k], b [batch, k, n], c [batch, m, n], any strides; a batch stride of 0 shares an input. */
TSR_API tsr_status tsr_bmm(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                           float beta, const tsr_tensor *c, const tsr_workspace *ws);
TSR_API tsr_status tsr_bmm_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                     const tsr_tensor *c, size_t *out);
TSR_API tsr_status tsr_bmm_bwd(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                               const tsr_tensor *dc, float beta, const tsr_tensor *da, const tsr_tensor *db,
                               const tsr_workspace *ws);
TSR_API tsr_status tsr_bmm_bwd_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                         const tsr_tensor *dc, const tsr_tensor *da, const tsr_tensor *db,
                                         size_t *out);

/* One operand of a strided batch, in elements; columns are contiguous. 0 for batch or head shares it (inputs
 * only). */
typedef struct tsr_gemm_operand {
    void *data;
    int64_t batch_stride, head_stride, row_stride;
} tsr_gemm_operand;

/*
 * batch * num_heads products of one size. Q @ K^T is m = Lq, n = Lk, k = D with b_transposed;
 * P @ V is m = Lq, n = D, k = Lk without.
 */
typedef struct tsr_gemm_strided {
    tsr_dtype dtype;   /* of A and B                                                     */
    tsr_dtype c_dtype; /* of C: f32 or dtype                                             */
    int64_t m, n, k, batch, num_heads;
    tsr_gemm_operand a; /* rows [m, k]                                                    */
    tsr_gemm_operand b; /* rows [k, n], or [n, k] if b_transposed                         */
    tsr_gemm_operand c; /* rows [m, n]                                                    */
    int b_transposed;
    int64_t b_group; /* head h uses head h / b_group of B; 0 means 1. Divides num_heads. */
    float alpha, beta;
} tsr_gemm_strided;

TSR_API tsr_status tsr_gemm_strided_fwd(tsr_context *ctx, const tsr_gemm_strided *g, const tsr_workspace *ws);
TSR_API tsr_status tsr_gemm_strided_workspace(tsr_context *ctx, const tsr_gemm_strided *g, size_t *out);

/*
 * dC lies at g->c.data (dtype g->c_dtype must equal g->dtype). da, db: the gradients, laid out as A and B
 * with strides of their own; NULL, or data NULL, where not wanted; their dtype is `grad_dtype`, f32 or
 * g->dtype. dB sums over the heads of a group, in order; in bf16 or f16 each head's share is rounded, so ask
 * for f32 where that matters. g->alpha and g->beta are the backward's alpha and beta.
 */
TSR_API tsr_status tsr_gemm_strided_bwd(tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                                        const tsr_gemm_operand *da, const tsr_gemm_operand *db,
                                        const tsr_workspace *ws);
TSR_API tsr_status tsr_gemm_strided_bwd_workspace(tsr_context *ctx, const tsr_gemm_strided *g,
                                                  tsr_dtype grad_dtype, const tsr_gemm_operand *da,
                                                  const tsr_gemm_operand *db, size_t *out);

/*
 * The same for irregular allocations: a pointer for each of batch * num_heads products, entry
 * b * num_heads + h. The arrays of pointers lie in host memory; what they point at lies on the device. Rows
 * are contiguous unless a row stride is given per entry (NULL: k for A, n or k for B, n for C). A NULL
 * pointer, and two C matrices that are equal or overlap, are errors that say which.
 */
typedef struct tsr_gemm_pointers {
    tsr_dtype dtype, c_dtype;
    int64_t m, n, k, batch, num_heads;
    const void *const *a;
    const void *const *b;
    void *const *c;
    const int64_t *a_row_stride, *b_row_stride, *c_row_stride;
    int b_transposed;
    float alpha, beta;
} tsr_gemm_pointers;

TSR_API tsr_status tsr_gemm_pointers_fwd(tsr_context *ctx, const tsr_gemm_pointers *g,
                                         const tsr_workspace *ws);
TSR_API tsr_status tsr_gemm_pointers_workspace(tsr_context *ctx, const tsr_gemm_pointers *g, size_t *out);

/* dC at g->c; da, db: pointer arrays of gradients (grad_dtype f32 or g->dtype; rows contiguous), or NULL. */
TSR_API tsr_status tsr_gemm_pointers_bwd(tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                                         void *const *da, void *const *db, const tsr_workspace *ws);
TSR_API tsr_status tsr_gemm_pointers_bwd_workspace(tsr_context *ctx, const tsr_gemm_pointers *g,
                                                   tsr_dtype grad_dtype, void *const *da, void *const *db,
                                                   size_t *out);

#ifdef __cplusplus
}
#endif
#endif
