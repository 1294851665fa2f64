/*
 * backend/cpu/kernel/gemm.h - what a GEMM micro-kernel is, and the families there are
 *
 *     C[m, n] = alpha * A[m, k] B[k, n] + beta * C[m, n]      0 < m <= mr, 0 < n <= nr
 *
 * A family multiplies in one compute type. Along k its values lie in words of 32 bits, so that all families
 * look alike to what blocks and splits the work:
 *
 *     family   word along k      A is read                      B: a panel of k words x nr columns    C
 *     f32      1 f32             in place, any row, k strides   f32, or bf16 pairs, or f16: below     f32
 *     bf16     2 bf16, even low  in place, k contiguous         bf16 pairs                            f32
 *     s8       4 of 8 bits       packed: s8, with row sums      u8 = s8 + 128                         s32
 *     s8, AMX                    in place, k contiguous         s8                                    s32
 *     s4       8 of 4 bits       packed as s8, group sums       groups: below                         f32
 *
 * A panel is word rows, one behind the other: word (p, j) holds column j's elements k_word * p and on, the
 * first in the lowest bits. Behind the last element of k it is padded with zeros to a multiple of k_align
 * words; columns from n to nr hold zeros.
 *
 * f32 with B of 16 bits, so that a packed weight is half as long: bf16 in panels as the family bf16 has
 * them; f16 in rows of nr halves, one for each k. Both are widened as they are loaded, or before by `widen`.
 *
 * s8: x86 multiplies unsigned by signed, so B is stored with 128 added (the bit pattern ^ 0x80) and the
 * kernel starts from -128 times the sum of A's row: exact for every input. Padding of B holds 0, of A too.
 * AMX multiplies s8 by s8, needs no sums of rows, and reads A as it lies.
 *
 * s4: columns are cut into groups of `group` elements along k, each with a scale and perhaps a zero point:
 *
 *     | scale f32 x nr | zero u8 x nr, if any, else 8 is meant | group / 8 word rows: 8 x u4 |  next group
 * ...
 *
 *     a word holds elements 0..3 of its 8 in the low halves of its bytes, 4..7 in the high halves:
 *         byte i = element[i] | element[4 + i] << 4          C += scale * sum a * (u4 - zero)
 *
 * beta = 0 never reads C (s32: alpha is 1, beta 0 or 1); k = 0 gives beta * C. An element's result depends on
 * its row of A, its column of B and k alone: not on m, n, or where in the tile it lies. In B, lanes beyond n
 * may hold anything, finite or not: they reach no result.
 */
#ifndef TSR_KERNEL_GEMM_H
#define TSR_KERNEL_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

typedef struct tsr_gemm_tile {
    int64_t k; /* words; s4: a multiple of group / 8; AMX: of k_align; f32 with bf16 pairs: elements */
    const void *a;
    int64_t a_row,
        a_k; /* in elements of A's type; but packed rows of s8 (not AMX) and s4: words; a_k: f32 alone */
    const void *b;
    int64_t b_row;     /* words from one word row to the next; f32 and bf16 only (others: nr)            */
    tsr_dtype b_dtype; /* f32 family: f32, or bf16 pairs or f16 in a panel                               */
    const int32_t
        *a_sums;        /* s8: [m], the row's sum over these k; s4: [m, groups], the sums over each group */
    int64_t a_sums_row; /* s4                                                                             */
    int32_t group;      /* s4: elements of a group, 32, 64 or 128                                         */
    int32_t has_zeros;  /* s4                                                                             */
    void *c;
    int64_t c_row;  /* elements; columns are contiguous */
    bool c_is_near; /* in the first or second cache: not fetched before the first step (f32) */
    float alpha, beta;
    bool sums_may_stay;  /* where they are until the next run, or `finish`: C is written by then (AMX) */
    const void *ahead;   /* what is wanted next, B or A: ahead_step bytes of it are fetched into the second */
    int64_t ahead_step;  /* cache with each word row, two vectors at most; 0: nothing (f32, bf16, s8) */
    const void *ahead_c; /* the next run's C, rows as far apart, for the first cache; NULL: nothing (AMX) */
    const void
        *ahead_store; /* mr rows that are stored to a row of tiles later, fetched over all steps into the */
    int64_t ahead_store_row,
        ahead_store_nbytes; /* second cache; from row to row, and of each; 0: none (AMX)   */
} tsr_gemm_tile;

/* What kernels of vectors have; those of tiles, which are faster for the same memory, have their own. */
enum { TSR_GEMM_CHUNK_WORDS = 512, TSR_GEMM_BLOCK_ROWS = 1024, TSR_GEMM_BLOCK_COLUMNS = 128 };

struct tsr_attention_group;
struct tsr_attention_bwd_group;

/* Attention's tiles, of queries x keys: constants of the micro-kernel, so that a result never depends on
 * shapes or threads. */
typedef struct tsr_attention_tiles {
    int32_t fwd_queries, fwd_keys, bwd_queries, bwd_keys;
    int32_t values_words; /* of a row of Q, up to which run_scores takes a product with V along */
} tsr_attention_tiles;

typedef struct tsr_gemm_kernel {
    const char *name;
    tsr_isa isa;
    int32_t lanes;
    int32_t mr, nr;
    int32_t k_word;        /* elements in a word along k                                               */
    int32_t k_align;       /* words: the multiple that k is padded to with zeros, in panels and packed A */
    int32_t chunk_words;   /* along k, of a chunk (gemm_block.h)                                           */
    int32_t block_rows;    /* whose sums are held at a time, where they lie beside C                       */
    int32_t block_columns; /* whose panels are held at a time, a multiple of nr                            */
    tsr_attention_tiles attention; /* f32, bf16 */
    bool multiplies_rows; /* A's as they lie, contiguous along k, k a multiple of k_align (bf16, AMX's s8) */
    bool keeps_sums; /* beside C, where there are several chunks: C's own rows are too far apart for it */
    void (*run)(const tsr_gemm_tile *tile, int64_t m, int64_t n);

    /*
     * The same for m <= columns_mr and B with contiguous columns, as it lies: b_dtype f32, bf16 or f16
     * (bf16's family: bf16), b_row elements from one column to the next. The same bits. NULL where columns_mr
     * is 0.
     */
    int32_t columns_mr;
    void (*run_columns)(const tsr_gemm_tile *tile, int64_t m, int64_t n);

    /* bf16: attention's product with K and its softmax in one (attention_score_f32.h). NULL where it is
     * not faster so. */
    void (*run_scores)(const struct tsr_attention_group *group);
    /* The same of backward, D and Dv above 0; false, and nothing done, where a row's lse is far from 0, Inf
     * or NaN, or its delta Inf or NaN. NULL likewise. */
    bool (*run_gradients)(const struct tsr_attention_bwd_group *group);

    /*
     * One panel of B from x[k, n] (element (p, j) at p * k_stride + j * n_stride), n <= nr. f32: f32, bf16 or
     * f16 to f32; bf16: bf16; s8: s8. s4 has none: values are packed one by one (pack_s4 below).
     */
    void (*pack_b)(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n);

    /*
     * s4: one panel of tsr_gemm_s4_panel_nbytes from n <= nr columns of k values, column j's p-th at
     * q[j * q_row + p]: 0 .. 15 where there are zeros (points, 0 .. 15 too), else -8 .. 7. Its scale and zero
     * in group g: scales[j * scale_row + g], zeros[j * zero_row + g].
     */
    void (*pack_s4)(void *panel, const int8_t *q, int64_t q_row, int64_t k, int64_t n, const float *scales,
                    int64_t scale_row, const int8_t *zeros, int64_t zero_row, int64_t group);

    /*
     * f32: copies x[k, w] into rows of `width` f32: dst[p * width + j], zeros for j in [w, width). A panel of
     * B, or a tile of A read with a_row = 1, a_k = width, or rows of A.
     */
    void (*pack)(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                 int64_t w_stride, int64_t k, int64_t w);

    /* f32: a panel of 16 bits from bf16 (pairs, as the family bf16 has them) or f16 (rows of halves). */
    void (*pack_16)(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride,
                    int64_t k, int64_t n);
    /* f32: the k rows of nr values of such a panel as f32, for the many tiles that would each widen it. */
    void (*widen)(float *panel, const void *panel_16, tsr_dtype dtype, int64_t k);

    /*
     * bf16, s8, s4: m rows of A, each into ld words, zeros from k to the next multiple of k_align words.
     * a_words words of dst for each word of s8 quads along k (2 where the instruction wants 16-bit operands).
     * s8 (but not AMX) and s4, whose source is s8: also the sums of each `sum_every` elements of a row (the
     * last may be shorter), sums[i * n_sums + .]; sum_every 0 = of the whole row. s4: sum_every is the group,
     * and zeros go on to the end of the last one.
     */
    int32_t a_words;
    void (*pack_a)(void *dst, int64_t ld, const void *x, int64_t row_stride, int64_t k_stride, int64_t m,
                   int64_t k, int64_t sum_every, int32_t *sums, int64_t n_sums);

    /* AMX: what the thread's tiles were configured for is kept, and given back. NULL elsewhere. */
    void (*enter)(void *saved_64_bytes);
    void (*leave)(const void *saved_64_bytes);
    /* AMX: behind the last run whose sums may stay, before `leave`. NULL elsewhere. */
    void (*finish)(void);
} tsr_gemm_kernel;

/* s4: a panel of whole groups. */
static inline int64_t tsr_gemm_s4_panel_nbytes(int64_t nr, int64_t k, int64_t group, bool has_zeros)
{
    return (k + group - 1) / group * nr * (4 + (has_zeros ? 1 : 0) + group / 2);
}

/* Best first; each ends with NULL. bf16 is empty where no set has its instructions: f32 serves. */
extern const tsr_gemm_kernel *const tsr_gemm_f32_kernels[];
extern const tsr_gemm_kernel *const tsr_gemm_bf16_kernels[];
extern const tsr_gemm_kernel *const tsr_gemm_s8_kernels[];
extern const tsr_gemm_kernel *const tsr_gemm_s4_kernels[];

/* The first of the list that serves where `isa` was chosen, NULL if none does. */
const tsr_gemm_kernel *tsr_gemm_pick(const tsr_gemm_kernel *const *kernels, tsr_isa isa);

#endif
