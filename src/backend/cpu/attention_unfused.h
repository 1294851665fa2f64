/*
 * backend/cpu/attention_unfused.h - attention as products of whole matrices, all of S in the workspace
 *
 * The baseline that tests and benchmarks hold flash attention against. Sequences of one length go through
 * together; where lengths differ, one at a time, padded with zeros to the longest. Everything is f32:
 *
 *     q [n, hq, lq, d]   k [n, hkv, lk, d]   v [n, hkv, lk, dv]   s [n, hq, lq, s_stride]
 */
#ifndef TSR_CPU_ATTENTION_UNFUSED_H
#define TSR_CPU_ATTENTION_UNFUSED_H

#include "backend/cpu/attention_plan.h"

enum { UNFUSED_ROWS = 64 }; /* queries of an item */

typedef struct attention_unfused {
    const tsr_cpu *cpu;
    const tsr_attention_fwd_args *a;
    int64_t n, first; /* sequences that go through together, and the first of them */
    int64_t s_stride; /* floats between rows of s: lk and padding */
    int64_t n_blocks; /* of UNFUSED_ROWS queries, in a sequence */
    float *q, *k, *v, *s;
    void *gemm_workspace;
} attention_unfused;

/* One matrix of each head of each sequence; `group` heads share one. */
typedef struct unfused_matrix {
    float *data;
    int64_t head, row, col; /* strides */
    int64_t group;
} unfused_matrix;

/* Lays out q, k, v and s; false if sizes are out of bounds. */
bool unfused_lay_out(attention_unfused *u, const tsr_cpu *cpu, const tsr_attention_fwd_args *a,
                     tsr_arena *arena);

/* C = alpha A B, [m, k] by [k, n], for each of `heads` heads of each sequence. */
tsr_gemm_args unfused_product(const attention_unfused *u, int64_t heads, int64_t m, int64_t n, int64_t k,
                              float alpha, unfused_matrix a, unfused_matrix b, unfused_matrix c);

/* Rows of a tensor laid out as q or as k to f32, zeros beyond a sequence's own length; and back. */
void unfused_load(const attention_unfused *u, const tsr_tensor *t, bool of_keys, float *to);
void unfused_store(const attention_unfused *u, const tsr_tensor *t, bool of_keys, float *from);

/* S = alpha Q K^T, from loaded q and k. */
tsr_gemm_args unfused_scores(const attention_unfused *u);

/* An item of [sequences][hq][n_blocks]: which queries of which head these are. */
typedef struct unfused_item {
    attention_sequence sequence;
    int64_t head, matrix;   /* of q's heads; of all matrices of s */
    attention_span queries; /* padding included */
} unfused_item;
unfused_item unfused_item_of(const attention_unfused *u, int64_t item);
static inline int64_t unfused_n_items(const attention_unfused *u) { return u->n * u->a->hq * u->n_blocks; }

#endif
