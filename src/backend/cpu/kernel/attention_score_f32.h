/*
 * backend/cpu/kernel/attention_score_f32.h - the family that works between attention's products
 *
 *     forward     S = Q K^T, as the micro-kernel left it  ->  P = 2^(s - m), running max m and sum l
 *     backward    S and dP = dO V^T                       ->  P and dS = P (dP - delta)
 *
 * on rows of one tile, in place (P in bf16: or elsewhere), with every feature in its order: scale, softcap,
 * ALiBi and bias, masks, softmax, dropout. Scores are in units of log 2 (e^x = 2^(x log2 e)): all factors
 * below hold a log2(e). A row's result depends on that row alone: not on how many there are, nor on where its
 * tile begins.
 */
#ifndef TSR_KERNEL_ATTENTION_SCORE_F32_H
#define TSR_KERNEL_ATTENTION_SCORE_F32_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

/* What happens to the scores of one head of one sequence; rows and keys count from the sequence's start. */
typedef struct tsr_attention_features {
    int64_t lq, lk;
    int64_t left,
        right;        /* row i sees keys i + lk - lq - left .. i + lk - lq + right: no more than 2^62 each */
    float alpha;      /* what Q K^T is multiplied by: scale log2(e), with a softcap scale / cap */
    float cap;        /* softcap log2(e); 0 = none */
    float slope;      /* ALiBi's slope log2(e); 0 = none */
    const void *bias; /* element (i, j) at i * bias_row + j * bias_col; NULL = none */
    int64_t bias_row, bias_col;
    tsr_dtype bias_dtype;
    const uint8_t *mask; /* 0 = masked; laid out likewise; NULL = none */
    int64_t mask_row, mask_col;
    bool dropout;
    uint32_t drop_below; /* a word of Philox below it drops the element */
    float keep_scale;    /* 1 / (1 - p) */
    uint64_t seed;
    uint32_t offset, head;
} tsr_attention_features;

/* From there on, up or down, a row's maximum and its scores are rounded alike before one is taken from the
 * other. */
#define TSR_ATTENTION_FAR 0x1p6f

enum {
    TSR_ATTENTION_BLOCKS = 3, /* of scores, in a group's scratch */
    TSR_ATTENTION_AHEAD = 4   /* places in memory from which a group may be asked to fetch */
};

/*
 * Some rows of a tile. Columns [begin, end) hold products; begin is a multiple of the lanes (with to_bf16, of
 * twice the lanes), and a row has room up to the next multiple of them (of 32) after end. What
 * masks and windows hide in there becomes 0.
 */
typedef struct tsr_attention_rows {
    const tsr_attention_features *features;
    int64_t row, n_rows; /* the first query, and how many */
    int64_t key;         /* of column 0; a multiple of 4 */
    int64_t begin, end;
    float *s; /* first row, column 0 */
    int64_t s_stride;
    float alpha; /* what s is yet to be multiplied by */
    /*
     * Forward: P becomes rows of bf16, zeros up to a multiple of 32; dropout only clears what it hides, and
     * what is kept is yet to be scaled, lest that be rounded. Backward, without dbias: P and dS become such
     * rows, each where its row of s or dp begins, and dropout only clears P.
     */
    bool to_bf16;
    uint16_t *p; /* forward, to_bf16: first row, column 0; where s is, for P in place */
    int64_t p_stride;
    int64_t p_before; /* forward: columns before `begin` that are done, and follow m as it rises */
} tsr_attention_rows;

/* Rows of out and lse, and what `forward` left of them. */
typedef struct tsr_attention_outputs {
    int64_t n_rows, dv;
    const float *o, *m, *l;
    int64_t o_stride;
    int64_t l_row; /* floats that l has of a row, 1 or `lanes` */
    float kept;    /* what dropout's survivors are multiplied by */
    void *out;
    tsr_dtype dtype;
    int64_t out_row, out_col;
    float *lse; /* NULL: not wanted */
    int64_t lse_row;
} tsr_attention_outputs;

typedef struct tsr_attention_score_f32_kernel {
    const char *name;
    tsr_isa isa;
    int32_t lanes;
    /*
     * S -> P. m [n_rows] and l [n_rows] carry on from the keys before (-Inf and 0 at first): P, l and the
     * rows of o [n_rows, dv] are all relative to m. A row's m rises only when its maximum grew by more than
     * 8, so that o and l need scaling seldom; until then P stays below 2^8. Dropout follows the sum.
     *
     * to_bf16: l is [n_rows, lanes], whose sum is meant, and m rises between steps of twice the lanes; so a
     * tile's columns in parts, with p_before, give the bits that they would give at once.
     */
    void (*forward)(const tsr_attention_rows *rows, float *m, float *l, float *o, int64_t o_stride,
                    int64_t dv);

    /*
     * S -> P after dropout, dP -> dS: the gradients of O = P V and of scale Q K^T. lse is in natural units; a
     * row where it is -Inf sees nothing. Columns [0, begin) and [end, width) of both tiles become 0. dbias
     * (laid out as dp; NULL if not wanted; dp itself if dS is not): the gradient of what bias was added to.
     */
    void (*backward)(const tsr_attention_rows *rows, int64_t width, const float *lse, const float *delta,
                     float *dp, float *dbias, int64_t dp_stride);

    /* out = kept O / l and lse = ln(l 2^m); 0 and -Inf where l is 0. */
    void (*finish)(const tsr_attention_outputs *outputs);

    /* dst[j * stride] = factor * src[j]; dst is f32, bf16 or f16. */
    void (*store)(void *dst, tsr_dtype dtype, int64_t stride, const float *src, int64_t n, float factor);
    float (*dot)(const float *a, const float *b, int64_t n);
    /* True if no element of x [n_rows, n] is Inf or NaN. */
    bool (*finite)(const float *x, int64_t stride, int64_t n_rows, int64_t n);
    bool (*finite_bf16)(const void *x, int64_t n); /* n pairs */
    /* True if no more than a factor above 0 and a window come between the products and the softmax: the
     * columns that all rows see are then [whole[0], whole[1]), as far as that is a range. */
    bool (*is_windowed)(const tsr_attention_rows *rows, int64_t whole[2]);
    /* x [n_rows, ..] of columns [begin, end), whole vectors, that the window hides, becomes `value`. */
    void (*hide)(const tsr_attention_rows *rows, float *x, int64_t stride, float value);
} tsr_attention_score_f32_kernel;

/* A product of P with V that goes along with another group's scores: o = P V, or o += P V where it `adds`. */
typedef struct tsr_attention_values {
    const uint16_t *p;
    int64_t p_stride; /* elements */
    const float *v;   /* strips of nr columns, from the first key on */
    int64_t v_strip;  /* words from one to the next */
    int64_t depth;    /* words along the keys, a multiple of k_align; above 0 */
    float *o;         /* mr rows of n_strips times nr columns */
    int64_t o_stride, n_strips;
    bool adds;
} tsr_attention_values;

/*
 * A group of rows from its products on, as micro-kernels have it that take the softmax along (run_scores of
 * gemm.h): mr rows in bf16 that are windowed, and `lanes` of theirs and of `score` are the same. P comes with
 * zeros up to a multiple of 32 columns.
 */
typedef struct tsr_attention_group {
    tsr_attention_rows rows; /* s: scratch of TSR_ATTENTION_BLOCKS times mr * nr floats, at a line's edge */
    int64_t whole[2];        /* as is_windowed has it */
    const void *q;
    int64_t q_row;                          /* elements */
    const float *k;                         /* panels, column 0 */
    int64_t k_words;                        /* of a row of Q and K */
    const void *ahead[TSR_ATTENTION_AHEAD]; /* to be fetched meanwhile, ahead_nbytes of each */
    int64_t ahead_nbytes[TSR_ATTENTION_AHEAD];
    float *m, *l, *o;                            /* as `forward` has them */
    int64_t o_stride, dv;                        /* dv 0: o holds nothing yet, and is not touched */
    const tsr_attention_score_f32_kernel *score; /* serves where a maximum rises; the bits are its own */
    const tsr_attention_values *values;          /* done by the end; NULL: none */
} tsr_attention_group;

/* The same of backward, from S and dP to P and dS (run_gradients of gemm.h), without dbias. */
typedef struct tsr_attention_bwd_group {
    tsr_attention_rows rows; /* s: scratch of twice as much, at a line's edge; p: P */
    int64_t whole[2];
    const void *q, *dout;
    int64_t q_row, dout_row; /* elements */
    const float *k, *v;      /* panels, column 0 */
    int64_t k_words, v_words;
    const float *lse, *delta; /* as `backward` has them */
    const tsr_attention_score_f32_kernel *score;
    uint16_t *ds;               /* as p, and as far apart */
    void (*fetch)(void *later); /* called with every block: something to be fetched meanwhile */
    void *fetch_later;
} tsr_attention_bwd_group;

/* Best first; ends with NULL. */
extern const tsr_attention_score_f32_kernel *const tsr_attention_score_f32_kernels[];

/* The first of the list that serves where `isa` was chosen. */
const tsr_attention_score_f32_kernel *tsr_attention_score_f32_pick(tsr_isa isa);

#endif
