/*
 * op/gemm.h - what the entries of GEMM share: batches as views of rank 4, and the backward's products
 *
 *     dA = alpha dC B^T + beta dA        one call, B's rows and columns exchanged
 *     dB = alpha A^T dC + beta dB        one call for each head of a group, the later ones added to the first
 */
#ifndef TSR_OP_GEMM_H
#define TSR_OP_GEMM_H

#include "op/validate.h"

/* a [batch, heads, m, k], b [batch, heads / group, k, n], c [batch, heads, m, n] */
typedef struct tsr_gemm_views {
    tsr_tensor a, b, c;
    int64_t group;
    float alpha, beta;
} tsr_gemm_views;

tsr_gemm_args tsr_gemm_args_of(const tsr_gemm_views *v);

/* The same matrices with rows and columns exchanged. */
tsr_gemm_matrix tsr_gemm_transposed(tsr_gemm_matrix x);

/* Inputs f32, bf16, f16 or f64 into their own type or f32 (f64: itself); s8 into i32. */
tsr_status tsr_gemm_check_dtypes(const tsr_context *ctx, tsr_dtype dtype, const char *name, tsr_dtype c_dtype,
                                 const char *c_name);
/* A backward's dC is of the inputs' float type; gradients are of that type or f32. */
tsr_status tsr_gemm_check_grad_dtype(tsr_dtype dtype, tsr_dtype grad_dtype, const char *name);

/* The products of a backward; those that are not wanted are left out. */
typedef struct tsr_gemm_backward {
    tsr_gemm_args da, db; /* db: of the first head of each group */
    bool wants_da, wants_db;
    int64_t group;
    int64_t a_head, dc_head; /* strides between the heads of a group, in bytes */
} tsr_gemm_backward;

/* v.c is dC; da and db of rank 4, laid out as v.a and v.b, or NULL. */
tsr_gemm_backward tsr_gemm_backward_of(const tsr_gemm_views *v, const tsr_tensor *da, const tsr_tensor *db);

/* On an entered context. Whatever can fail above the seam does so before the first product is written. */
tsr_status tsr_gemm_run_backward(tsr_context *ctx, const tsr_gemm_backward *bwd, const tsr_workspace *ws);
tsr_status tsr_gemm_query_backward(const tsr_context *ctx, const tsr_gemm_backward *bwd, size_t *out);

#endif
