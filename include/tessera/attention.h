/*
 * tessera/attention.h - scaled dot-product attention, fused: memory grows with L, not with L squared
 *
 *     S = scale * Q K^T     P = softmax(S)     O = P V     lse = log sum_j exp(S_j)
 *
 * A block of queries meets the keys block by block; a running max and sum per row make the softmax exact
 * without ever holding S. Backward recomputes P from q, k and lse.
 * (Dao et al., 2022, "FlashAttention"; Rabe and Staats, 2021, "Self-attention does not need O(n^2) memory")
 *
 * Shapes (strided views, so that BHLD and BLHD both fit; Hq a multiple of Hkv):
 *     q [B, Hq, Lq, D]   k [B, Hkv, Lk, D]   v [B, Hkv, Lk, Dv]   out [B, Hq, Lq, Dv]   lse [B, Hq, Lq] f32
 * Packed sequences (cu_seqlens given):
 *     q [total_q, Hq, D]   k [total_k, Hkv, D]   v [total_k, Hkv, Dv]
 *     out [total_q, Hq, Dv]   lse [Hq, total_q]
 * Paged keys and values (block_table given): k and v are pools of pages, shared by all sequences; q as above
 *     k [pages, page, Hkv, D]   v [pages, page, Hkv, Dv]
 *
 * Order on a score: scale, softcap, ALiBi and bias, masks, softmax, dropout. A masked key contributes
 * exactly 0 to out, lse and every gradient, even where its k, v or bias is NaN or Inf. A row that sees no
 * key gives out = 0, lse = -inf (the sink's logit where there is one) and gradients 0.
 */
#ifndef TESSERA_ATTENTION_H
#define TESSERA_ATTENTION_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Query i sees key j iff i + Lk - Lq - left <= j <= i + Lk - Lq + right; -1 = unlimited on that side. */
typedef struct tsr_attention_window {
    int on;
    int64_t left, right;
} tsr_attention_window;

/* All-zero is plain attention. Lq and Lk below are each sequence's own lengths. */
typedef struct tsr_attention_options {
    float scale;                 /* 0 = 1 / sqrt(D)                                                */
    int causal;                  /* query i sees keys j <= i + Lk - Lq                             */
    tsr_attention_window window; /* with causal: both must hold                                    */
    float softcap;               /* > 0: s = softcap * tanh(s / softcap)                           */
    const tsr_tensor *alibi;     /* [Hq] f32 slopes: s -= slope * abs(i + Lk - Lq - j)             */
    const tsr_tensor *bias;      /* [B, Hq, Lq, Lk], added; f32 or q's dtype, extents of 1 or strides of 0
                                    broadcast. Packed: [B, Hq, max_lq, max_lk] within the sequence */
    const tsr_tensor *mask;      /* bool, shaped as bias, true = visible                           */
    const tsr_tensor *sinks;     /* [Hq] f32: one extra logit per head in the denominator          */
    float dropout_p;             /* [0, 1): kept probabilities are scaled by 1 / (1 - p); the bit is
                                    tsr_dropout_keep(seed, offset, b * Hq + h, i, j, p)            */
    uint64_t dropout_seed;
    uint32_t dropout_offset;
    const tsr_tensor *seqlens_q, *seqlens_k;       /* [B] i32: used length of each padded sequence */
    const tsr_tensor *cu_seqlens_q, *cu_seqlens_k; /* [B + 1] i32: starts of packed sequences, from 0 up to
                                                      total; both or neither                       */
    int64_t max_lq, max_lk; /* packed: at least the longest sequence; 0 = total                    */
    /* The rest is forward's alone; the unfused form and backward take none of the tensors. */
    const tsr_tensor *block_table;       /* [B, n] i32: key j of sequence b is row j % page of page
                                            block_table[b, j / page], Lk = n * page. Needs seqlens_k; entries
                                            beyond that length are not read. Packed queries: with cu_seqlens_q
                                            alone                                                   */
    const tsr_tensor *k_scale, *v_scale; /* f32, where k and v are int8: shaped as k without its last extent;
                                            an element is worth its number times its row's scale    */
    int64_t splits; /* keys are cut into so many ranges for the threads, where Lq <= 16; 0 = automatic. The
                       results are the same to the bit                                              */
} tsr_attention_options;

/* options NULL = all zero; lse NULL if not wanted. f32, bf16, f16 (f64: reference; what is f32 above is then
 * f64 as well); k and v may be s8. TSR_ERR_INDEX: a length, or a page of the block table, out of range. */
TSR_API tsr_status tsr_attention_fwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                     const tsr_tensor *v, const tsr_tensor *out, const tsr_tensor *lse,
                                     const tsr_attention_options *options, const tsr_workspace *ws);
TSR_API tsr_status tsr_attention_fwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                               const tsr_tensor *v, const tsr_attention_options *options,
                                               size_t *out);

/*
 * Attention over all keys from parts over disjoint ranges of them: out = sum_i exp(lse_i - lse) out_i and
 * lse = log sum_i exp(lse_i), in order, as forward merges its splits. outs and lses as forward writes them:
 * shaped as out (f32, or its dtype) and lse (NULL if not wanted). A part with lse = -inf contributes nothing,
 * whatever its out holds. Pass sinks to one part only. out may be the view of outs[0], lse that of lses[0].
 */
enum { TSR_ATTENTION_MAX_PARTS = 32 };
TSR_API tsr_status tsr_attention_merge(tsr_context *ctx, int64_t n_parts, const tsr_tensor *const *outs,
                                       const tsr_tensor *const *lses, const tsr_tensor *out,
                                       const tsr_tensor *lse);

/* What forward left behind and the gradient that comes in. */
typedef struct tsr_attention_saved {
    const tsr_tensor *out, *lse; /* from forward                                                   */
    const tsr_tensor *dout;      /* shaped as out                                                  */
    const tsr_tensor *dlse;      /* shaped as lse, f32; NULL = 0                                   */
} tsr_attention_saved;

/* Gradients to write; NULL where not wanted. dq dk dv have the dtype of q (or f32), dbias and dsinks f32. */
typedef struct tsr_attention_grads {
    const tsr_tensor *dq, *dk, *dv;
    const tsr_tensor *dbias;  /* extent 1 where the bias broadcasts: sums over that dimension       */
    const tsr_tensor *dsinks; /* [Hq]                                                              */
} tsr_attention_grads;

TSR_API tsr_status tsr_attention_bwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                     const tsr_tensor *v, const tsr_attention_saved *saved,
                                     const tsr_attention_grads *grads, const tsr_attention_options *options,
                                     const tsr_workspace *ws);
TSR_API tsr_status tsr_attention_bwd_workspace(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                               const tsr_tensor *v, const tsr_attention_grads *grads,
                                               const tsr_attention_options *options, size_t *out);

/*
 * The same by two batched GEMMs around a softmax, with the whole of S in the workspace: the baseline that
 * tests and benchmarks hold the fused form against. A masked key whose v is NaN or Inf does reach the
 * result here (0 * NaN).
 */
TSR_API tsr_status tsr_attention_unfused_fwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                             const tsr_tensor *v, const tsr_tensor *out,
                                             const tsr_tensor *lse, const tsr_attention_options *options,
                                             const tsr_workspace *ws);
TSR_API tsr_status tsr_attention_unfused_fwd_workspace(tsr_context *ctx, const tsr_tensor *q,
                                                       const tsr_tensor *k, const tsr_tensor *v,
                                                       const tsr_attention_options *options, size_t *out);
TSR_API tsr_status tsr_attention_unfused_bwd(tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                             const tsr_tensor *v, const tsr_attention_saved *saved,
                                             const tsr_attention_grads *grads,
                                             const tsr_attention_options *options, const tsr_workspace *ws);
TSR_API tsr_status tsr_attention_unfused_bwd_workspace(tsr_context *ctx, const tsr_tensor *q,
                                                       const tsr_tensor *k, const tsr_tensor *v,
                                                       const tsr_attention_grads *grads,
                                                       const tsr_attention_options *options, size_t *out);

#ifdef __cplusplus
}
#endif
#endif
