/*
 * tessera/nn.h - layers of transformers, for training and for generation alike
 *
 * A layer is a plain struct: its parameters (weights in the layout of Hugging Face, [out, in] row-major) and
 * its settings, filled in by the caller, who owns the memory. A forward runs on a tape: parameters whose grad
 * is set are trained, otherwise (or where recording is off) nothing is kept that is not needed further on.
 * Activations and weights are of one dtype. Heads are strided views of [B, L, H * D]; nothing is transposed.
 *
 * An all-zero setting is the plain layer; a parameter whose value.data is NULL is absent.
 * Forwards leave their inputs alone, release what they made in between, and return one new variable.
 */
#ifndef TESSERA_NN_H
#define TESSERA_NN_H

#include "tessera/activation.h"
#include "tessera/attention.h"
#include "tessera/elementwise.h"
#include "tessera/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = x W^T + bias: weight [out, in], bias [out] or absent. */
typedef struct tsr_linear {
    tsr_parameter weight, bias;
} tsr_linear;

/* x [..., in], y [..., out] */
TSR_API tsr_status tsr_linear_forward(tsr_tape *tape, const tsr_linear *layer, tsr_var x, tsr_var *y);

/* RMSNorm, or LayerNorm if centred (bias may be absent); weight, bias [n]. */
typedef struct tsr_norm {
    tsr_parameter weight, bias;
    float eps;
    int centred;
} tsr_norm;

TSR_API tsr_status tsr_norm_forward(tsr_tape *tape, const tsr_norm *layer, tsr_var x, tsr_var *y);

/*
 * Gated:   y = down(silu(gate(x)) * up(x))
 * Plain, where gate is absent:   y = down(activation(up(x)))
 */
typedef struct tsr_feed_forward {
    tsr_linear gate, up, down;
    tsr_activation activation; /* of the plain form */
} tsr_feed_forward;

TSR_API tsr_status tsr_feed_forward_forward(tsr_tape *tape, const tsr_feed_forward *layer, tsr_var x,
                                            tsr_var *y);

/*
 * The keys and values of one layer for a batch of sequences, and where this step's rows go. All tensors are
 * the context's; tsr_kv_cache makes and fills them.
 */
typedef struct tsr_kv_layer {
    tsr_tensor k, v;      /* [B, Hkv, capacity, D], [B, Hkv, capacity, D]               */
    tsr_tensor start;     /* [B] i32: rows there before this step                       */
    tsr_tensor lengths;   /* [B] i32: this step's rows; absent = all of x. Rows of x beyond are padding. */
    tsr_tensor total;     /* [B] i32: start + lengths                                    */
    tsr_tensor positions; /* [B, L] i32: of this step's rows                             */
} tsr_kv_layer;

/*
 * Multi-head attention: q = Wq x, k = Wk s, v = Wv s, rotated; y = Wo attention(q, k, v). s is x, or `source`
 * (cross attention; then nothing is rotated). Query heads share key-value heads in groups.
 *     q.weight [Hq * D, dim]   k.weight, v.weight [Hkv * D, dim of s]   o.weight [out, Hq * D]
 */
typedef struct tsr_attention_layer {
    tsr_linear q, k, v, o;
    int64_t n_heads, n_kv_heads, head_dim;
    tsr_tensor rope_cos, rope_sin; /* tsr_rope_table's; absent = no rotation                  */
    int rope_interleaved;
    int causal;
    tsr_attention_window window;
    float softcap;
    float scale; /* 0 = 1 / sqrt(head_dim)                                 */
} tsr_attention_layer;

/* What varies from call to call; NULL = all-zero = plain self attention over [B, L, dim]. */
typedef struct tsr_attention_inputs {
    tsr_var source;               /* [B, Ls, dim of s]: where keys and values come from, none = x    */
    const tsr_kv_layer *cache;    /* rows are appended to it, and all of it attended to; no gradients */
    tsr_var mask;                 /* bool [B, Hq, L, Ls], extents of 1 broadcast; none = all visible  */
    tsr_var seqlens_q, seqlens_k; /* [B] i32: used lengths of padded sequences; without a cache       */
    int64_t start;                /* position of row 0, for the rotation; without a cache             */
    tsr_dropout dropout;          /* of probabilities                                                 */
} tsr_attention_inputs;

/* x [B, L, dim], y [B, L, out] */
TSR_API tsr_status tsr_attention_layer_forward(tsr_tape *tape, const tsr_attention_layer *layer, tsr_var x,
                                               const tsr_attention_inputs *inputs, tsr_var *y);

/*
 * The block of Llama and its kin:   h = x + attention(norm(x))     y = h + feed_forward(norm(h))
 */
typedef struct tsr_block {
    tsr_norm attention_norm, feed_forward_norm;
    tsr_attention_layer attention;
    tsr_feed_forward feed_forward;
} tsr_block;

/*
 * residual_dropout: of what is added to x and to h; NULL or p = 0: none. The second takes offset + 1, so
 * count offsets in steps of 2 from block to block. inputs NULL = all zero.
 */
TSR_API tsr_status tsr_block_forward(tsr_tape *tape, const tsr_block *block, tsr_var x,
                                     const tsr_attention_inputs *inputs, const tsr_dropout *residual_dropout,
                                     tsr_var *y);

/* The caches of all layers of a model, for a batch of sequences that grow on their own. */
typedef struct tsr_kv_cache tsr_kv_cache;

typedef struct tsr_kv_cache_options {
    int64_t n_layers, batch, n_kv_heads, capacity, head_dim; /* capacity: rows of each sequence */
    tsr_dtype dtype;
} tsr_kv_cache_options;

TSR_API tsr_status tsr_kv_cache_create(tsr_context *ctx, const tsr_kv_cache_options *options,
                                       tsr_kv_cache **out);
/* NULL is allowed. The context must still be there. */
TSR_API void tsr_kv_cache_destroy(tsr_kv_cache *cache);

/*
 * Begins a step of n_rows rows a sequence, of which sequence b uses the first lengths[b] (host memory; NULL =
 * all). They count as part of the sequence from now on; each layer's forward then stores them.
 * TSR_ERR_ARGUMENT if a sequence would outgrow the capacity.
 */
TSR_API tsr_status tsr_kv_cache_extend(tsr_kv_cache *cache, int64_t n_rows, const int32_t *lengths);

/* What layer `index` needs in this step; valid until the next extend. */
TSR_API tsr_status tsr_kv_cache_layer(const tsr_kv_cache *cache, int64_t index, tsr_kv_layer *out);

/* Rows of sequence b; shortening forgets the last ones (0 starts anew). */
TSR_API int64_t tsr_kv_cache_length(const tsr_kv_cache *cache, int64_t b);
TSR_API tsr_status tsr_kv_cache_shorten(tsr_kv_cache *cache, int64_t b, int64_t length);
TSR_API size_t tsr_kv_cache_nbytes(const tsr_kv_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
