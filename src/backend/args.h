/*
 * backend/args.h - what crosses the seam: one plain struct per operator, already validated
 *
 * Views are held by value; data NULL means "absent" where the operator's public header allows it.
 * Shapes, dtypes, devices and overlap were checked above; ids, lengths and their like are data, which
 * only the operator may read: it checks them before it writes anything.
 */
#ifndef TSR_BACKEND_ARGS_H
#define TSR_BACKEND_ARGS_H

#include <stdbool.h>

#include "tessera/activation.h"
#include "tessera/attention.h"
#include "tessera/elementwise.h"
#include "tessera/linear.h"
#include "tessera/optimizer.h"

/*
 * One operand of a batch of products. Strided: data and the strides. Irregular: a pointer per product, and
 * perhaps a stride per product in place of row (of col, if the matrix lies transposed in memory).
 */
typedef struct tsr_gemm_matrix {
    void *data;
    void *const *pointers;  /* [batch * num_heads] in host memory, NULL = strided */
    const int64_t *strides; /* [batch * num_heads], NULL = the same for all       */
    bool strides_are_cols;  /* strides replace col, not row                       */
    int64_t batch, head;    /* strides between products                           */
    int64_t row, col;       /* strides within one                                 */
    int64_t group;          /* head h uses matrix h / group; at least 1           */
    tsr_dtype dtype;
} tsr_gemm_matrix;

/* C = alpha A B + beta C for batch * num_heads products, A [m, k], B [k, n], C [m, n]. */
typedef struct tsr_gemm_args {
    int64_t m, n, k, batch, num_heads;
    tsr_gemm_matrix a, b, c;
    float alpha, beta;
} tsr_gemm_args;

/* What a packed weight holds; how it lies in memory is the backend's affair. */
typedef struct tsr_weight_layout {
    tsr_weight_format format;
    tsr_dtype dtype; /* as it is: of the values; quantised: s8 */
    int64_t n, k, group;
    bool gated;
} tsr_weight_layout;

/* values, scales, zeros as tessera/linear.h has them; gate absent unless gated. Values may be out of range.
 */
typedef struct tsr_weight_pack_args {
    tsr_weight_layout layout;
    tsr_weight_source w, gate;
    void *packed; /* tsr_backend's weight_nbytes(layout), 64-byte aligned */
} tsr_weight_pack_args;

typedef struct tsr_linear_args {
    tsr_weight_layout layout;
    const void *packed; /* NULL: plain is the weight */
    tsr_tensor plain;   /* [n, k] */
    tsr_tensor x, y;    /* [m, k], [m, n] */
    tsr_tensor bias, gate_bias, residual;
    tsr_activation activation;
    float scale, y_scale; /* resolved: never 0 */
} tsr_linear_args;

typedef struct tsr_softmax_fwd_args {
    tsr_tensor x, y;
} tsr_softmax_fwd_args;
typedef struct tsr_softmax_bwd_args {
    tsr_tensor y, dy, dx;
} tsr_softmax_bwd_args;

/*
 * Sequence b's rows: padded, row 0.. of batch b, seqlens (or all of lq, lk) of them; packed, rows
 * cu[b] .. cu[b + 1] of batch 0. Query i of Lq sees key j of Lk iff it is inside the window
 * -left <= j - (i + Lk - Lq) <= right (-1 = unlimited; causal has become right = 0) and the mask.
 * Padded rows beyond a used length are written too: out 0, lse -inf, gradients 0.
 * Paged: key j of sequence b is row j % page of k's entry block_table[b, j / page]. Then seqlens_k is there,
 * cu_seqlens_k never.
 */
typedef struct tsr_attention_fwd_args {
    int64_t b, hq, hkv, d, dv;
    int64_t lq, lk;          /* padded extents, or the longest sequence allowed        */
    tsr_tensor q, k, v, out; /* [b, h, rows, d]; packed: [1, h, total, d]; paged k, v: [pages, h, page, d] */
    tsr_tensor lse;          /* [b, hq, rows]; packed: [1, hq, total]; may be absent   */
    float scale, softcap;    /* scale resolved; softcap 0 = none                       */
    int64_t window_left, window_right;
    tsr_tensor alibi, sinks; /* [hq] f32                                               */
    tsr_tensor bias, mask;   /* [b, hq, lq, lk], broadcast by strides of 0             */
    float dropout_p;
    uint64_t dropout_seed;
    uint32_t dropout_offset;
    tsr_tensor seqlens_q, seqlens_k;       /* [b] i32                                                */
    tsr_tensor cu_seqlens_q, cu_seqlens_k; /* [b + 1] i32: packed                                    */
    tsr_tensor block_table;                /* [b, n] i32: paged, forward only                        */
    tsr_tensor k_scale, v_scale;           /* [b, h, rows] as k; k and v are s8, forward only        */
    int64_t splits;                        /* of the keys, where a sequence has few queries; 0 = any */
} tsr_attention_fwd_args;

/* Parts are held by value: an asynchronous device copies the struct. */
typedef struct tsr_attention_merge_args {
    int64_t n_parts;
    struct {
        tsr_tensor out, lse;
    } part[TSR_ATTENTION_MAX_PARTS]; /* as out and lse below */
    tsr_tensor out, lse;             /* [b, h, rows, dv], [b, h, rows]; lse may be absent */
} tsr_attention_merge_args;

typedef struct tsr_attention_bwd_args {
    tsr_attention_fwd_args fwd; /* its out and lse are what forward wrote; lse is present */
    tsr_tensor dout;            /* as out */
    tsr_tensor dlse;            /* as lse */
    tsr_tensor dq, dk, dv;      /* as q k v, each may be absent */
    tsr_tensor dbias;           /* [b|1, hq|1, lq|1, lk|1] f32 */
    tsr_tensor dsinks;          /* [hq] f32 */
} tsr_attention_bwd_args;

typedef tsr_attention_fwd_args tsr_attention_unfused_fwd_args;
typedef tsr_attention_bwd_args tsr_attention_unfused_bwd_args;

/* centred: LayerNorm, else RMSNorm (mean and bias absent). */
typedef struct tsr_norm_fwd_args {
    tsr_tensor x, weight, bias, y, mean, rstd;
    float eps;
    bool centred;
} tsr_norm_fwd_args;

typedef struct tsr_norm_bwd_args {
    tsr_tensor x, weight, mean, rstd, dy, dx, dweight, dbias;
    bool centred, accumulate;
} tsr_norm_bwd_args;

typedef struct tsr_rope_table_args {
    double theta;
    tsr_tensor cos, sin;
} tsr_rope_table_args;

typedef struct tsr_rope_args {
    tsr_tensor x, cos, sin, positions, y;
    int64_t start;
    bool interleaved, inverse;
} tsr_rope_args;

typedef struct tsr_embedding_fwd_args {
    tsr_tensor table, ids, out;
} tsr_embedding_fwd_args;
typedef struct tsr_embedding_bwd_args {
    tsr_tensor ids, dout, dtable;
    bool accumulate;
} tsr_embedding_bwd_args;

typedef struct tsr_activation_fwd_args {
    tsr_activation activation;
    tsr_tensor x, y;
} tsr_activation_fwd_args;
typedef struct tsr_activation_bwd_args {
    tsr_activation activation;
    tsr_tensor x, dy, dx;
} tsr_activation_bwd_args;
typedef struct tsr_swiglu_fwd_args {
    tsr_tensor gate, up, y;
} tsr_swiglu_fwd_args;
typedef struct tsr_swiglu_bwd_args {
    tsr_tensor gate, up, dy, dgate, dup;
} tsr_swiglu_bwd_args;

typedef struct tsr_copy_args {
    tsr_tensor x, y;
} tsr_copy_args;
typedef struct tsr_fill_args {
    double value;
    tsr_tensor y;
} tsr_fill_args;
typedef struct tsr_add_args {
    tsr_tensor a, b, y;
    float alpha, beta;
} tsr_add_args;
typedef struct tsr_sum_args {
    tsr_tensor x, out;
    bool squares, accumulate;
} tsr_sum_args;
typedef struct tsr_sum_rows_args {
    tsr_tensor x, out;
    bool accumulate;
} tsr_sum_rows_args;
typedef struct tsr_dropout_add_args {
    tsr_tensor x, residual, y;
    tsr_dropout dropout;
} tsr_dropout_add_args;

typedef struct tsr_linear_cross_entropy_fwd_args {
    tsr_tensor x, w, targets, loss, lse;
    int32_t ignore_index;
} tsr_linear_cross_entropy_fwd_args;
typedef struct tsr_linear_cross_entropy_bwd_args {
    tsr_tensor x, w, targets, lse, dloss, dx, dw;
    int32_t ignore_index;
    bool accumulate;
} tsr_linear_cross_entropy_bwd_args;

typedef struct tsr_kv_append_args {
    tsr_tensor x, start, lengths, cache;
} tsr_kv_append_args;

typedef struct tsr_adamw_args {
    tsr_adamw_options options;
    tsr_tensor p, master, g, m, v;
} tsr_adamw_args;

#endif
