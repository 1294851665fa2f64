/*
 * backend/cpu/attention_product.h - the products of attention on one tile: micro-kernel after micro-kernel
 *
 *     C[m, n] = alpha A[m, k] B[k, n] + beta C         in groups of mr rows, strips of nr columns
 *
 *          span of group 0   |xxxxxx......|            What a group does not see is left out: a causal tile
 *          span of group 1   |xxxxxxxx....|            costs its triangle, to within a group and a strip.
 *          span of group 2   |xxxxxxxxxx..|
 */
#ifndef TSR_CPU_ATTENTION_PRODUCT_H
#define TSR_CPU_ATTENTION_PRODUCT_H

#include "backend/cpu/attention_plan.h"

/*
 * Rows that will be wanted soon, block after block. They lie in memory, or in a cache that cores share: with
 * each call of the micro-kernel a few of their lines are fetched, so that they are near when their turn
 * comes.
 */
enum { ATTENTION_FETCH_BLOCKS = 3 };
typedef struct attention_fetch {
    struct {
        const char *row;
        int64_t stride_nbytes, row_nbytes, n_rows;
    } blocks[ATTENTION_FETCH_BLOCKS];
    int32_t n_blocks, block; /* how many there are; which one is under way, `done` bytes of its first row */
    int64_t done;
} attention_fetch;

/* Appends n rows of d elements, unless these lie apart from one another. */
void attention_fetch_later(attention_fetch *f, const attention_rows *rows, int64_t n, int64_t d);

/* A few lines of what `later`, an attention_fetch, still has; NULL: none. */
void attention_fetch_some(void *later);

typedef struct attention_product {
    const tsr_gemm_kernel *gemm; /* f32 or bf16 */
    const void *a;
    int64_t a_row, a_k; /* in elements; a_k is 1 but for f32 */
    const float *b; /* strip s, [k words][nr]: from b + s * b_strip in rows b_row apart; words of two bf16 */
    int64_t b_row, b_strip;
    float *c;
    int64_t c_row;
    int64_t m, n, k;
    float alpha, beta;
    const float *ahead;     /* wanted next: nr of it are fetched into the second cache with each row of B */
    attention_fetch *fetch; /* wanted later: a few lines of it with each call; or NULL */
} attention_product;

/* Words along k, padded to what the micro-kernel goes by. */
static inline int64_t attention_words(const tsr_gemm_kernel *gemm, int64_t k)
{
    return attention_round_up((k + gemm->k_word - 1) / gemm->k_word, gemm->k_align);
}

enum { ATTENTION_MAX_GROUPS = 32 }; /* of mr rows in a tile's rows or columns */

/* Rows with room for whole strips. */
typedef struct attention_matrix {
    const float *data;
    int64_t stride;
} attention_matrix;

/* Rows as A of a product, in elements of what it multiplies. */
typedef struct attention_left {
    const void *data;
    int64_t row;
} attention_left;

static inline const void *attention_left_row(const tsr_gemm_kernel *gemm, const attention_left *left,
                                             int64_t i)
{
    return (const char *)left->data + i * left->row * (4 / gemm->k_word);
}

/* Rows as B of a product over them. */
typedef struct attention_right {
    const float *data;
    int64_t row, strip; /* as b_row and b_strip */
} attention_right;

/*
 * The micro-kernels of all products: bf16's where q and k are bf16 and the set multiplies them, else f32's.
 * Forward and backward take the same, so that P comes out the same.
 */
const tsr_gemm_kernel *attention_gemm(const tsr_cpu *cpu, const tsr_attention_fwd_args *a);

/* True if rows of d elements serve where they lie as f32; otherwise they need a copy. */
bool attention_in_place(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t d);

/* n rows of d elements as A; a copy has rows of copy_stride words, at least attention_words of d. */
attention_left attention_left_of(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                 int64_t d, float *copy, int64_t copy_stride);

/* The same as B. A copy has attention_words of n times copy_stride words, this at least d in whole strips. */
attention_right attention_right_of(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                   int64_t d, float *copy, int64_t copy_stride);

/* The same as strips, whatever the family: `to` has attention_words of n times d in whole strips. */
attention_right attention_pack_right(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                     int64_t d, float *to);

/* True if none of its elements is Inf or NaN. */
bool attention_right_is_finite(const tsr_cpu *cpu, const tsr_gemm_kernel *gemm, const attention_right *x,
                               int64_t n, int64_t d);

/* Group g computes the strips that meet columns[g]; whole strips are written, so that C's rows have room. */
void attention_product_columns(const attention_product *p, const attention_span *columns);

/*
 * Group g sums over depth[g] alone, from a multiple of the micro-kernel's step to the next one (beyond, A is
 * 0). An empty depth leaves C as it is, unless beta is 0.
 */
void attention_product_depth(const attention_product *p, const attention_span *depth);

/* The same where depth[g] is that of strip g. */
void attention_product_strips(const attention_product *p, const attention_span *depth);

/*
 * As attention_product_depth, for a B with Inf or NaN in rows that are hidden from some rows of C: where a
 * pair is hidden or beyond the depth, and A 0, B counts as 0; the sums are the same. Row r of C and step s of
 * the depth are query row + r and key column + s, or with `transposed` key column + r and query row + s.
 * scratch: a strip.
 */
typedef struct attention_pairs {
    const tsr_attention_features *features;
    int64_t row, column;
    bool transposed;
} attention_pairs;

void attention_product_visible(const attention_product *p, const attention_span *depth,
                               const attention_pairs *pairs, float *scratch);

#endif
