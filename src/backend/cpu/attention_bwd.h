/*
 * backend/cpu/attention_bwd.h - the backward of attention, tile by tile: what its passes share
 *
 *     S = Q K^T   P = 2^(s - lse)   dP = dO V^T   dS = P (dP - delta)      delta = rowsum(dO O) - dlse
 *     dV = P^T dO       dK = scale dS^T Q       dQ = scale dS K            dbias = dS
 *
 * A slot's scratch holds one block of keys with its gradients and one block of queries:
 *
 *     k, v as panels [D][nr], [Dv][nr]      k as B [bn][D]      dk [bn][D]  dv [bn][Dv], f32
 *     q, dout as A and as B [bm][D], [bm][Dv]      s, dp [bm][bn], f32      lse, delta [bm]
 *
 *     in bf16: dk, dv, and q or dout beside A   turned: [D][bn] [Dv][bn]    [D][bm] or [Dv][bm]
 *
 * All five products are of f32, or of bf16 where the set multiplies what the caller gave. In f32, rows of q
 * and dout serve as A and B, where they lie if they can; P and dS are A of dV and dK as they are, read down
 * their columns; and K as B holds the scale, so that dQ can be added to the output. In bf16, P and dS are
 * rounded once for their products: dS is A of dQ as it is; P and dS are B of dV and dK, turned, for which two
 * rows are packed into one of pairs. Scale, and what dropout multiplies P by, wait for the last store.
 */
#ifndef TSR_CPU_ATTENTION_BWD_H
#define TSR_CPU_ATTENTION_BWD_H

#include "backend/cpu/attention_product.h"

enum { BWD_STORED_KEYS = 16 /* whose gradients are turned at a time, on their way to the output */ };

typedef struct attention_backward {
    const tsr_attention_bwd_args *g;
    const tsr_attention_fwd_args *a; /* &g->fwd */
    const tsr_cpu *cpu;
    const tsr_gemm_kernel *gemm;
    const tsr_attention_score_f32_kernel *score;
    bool bf16;                             /* the products' operands are; else f32 */
    bool fuses;                            /* S, dP, P and dS of a group in one (run_gradients) */
    int64_t q_words, dout_words;           /* of a row of q and dout as A */
    int64_t group;                         /* query heads to a KV head */
    int64_t bm, bn, n_blocks, n_tiles;     /* queries and keys of a tile; how many blocks of each */
    int64_t block_rows, tile_rows;         /* memory that they need: less if there are not as many */
    int64_t d_stride, dv_stride, s_stride; /* words between rows */
    int64_t turned_stride;                 /* bf16: of Q or dO turned, [D][queries] */
    int64_t key_floats, dk_floats;         /* of dK and dV, dV behind dK */
    size_t slot_nbytes;                    /* of scratch, for each thread */
    char *scratch;

    /* A round: KV heads, counted over the batch (b * hkv + head), and which of their query blocks, counted
     * over the group (head * n_blocks + block). All of the blocks, or several parts of those of one head. */
    int64_t first_head, round_heads, heads_per_round;
    int64_t first_block, round_blocks, blocks_per_round;
    float *delta;           /* [round's blocks][block_rows] */
    float *dq;              /* likewise [block_rows][D]; NULL where the output itself can be added to */
    float *carried;         /* dK and dV of all keys between parts, key_floats of each tile; or NULL */
    _Atomic int32_t *turns; /* [round's blocks]: the key block whose turn it is to add to dQ */
} attention_backward;

/* A tile and its surroundings; the pointers lead into a slot's scratch. */
typedef struct attention_bwd_tile {
    const attention_backward *w;
    attention_sequence sequence;
    tsr_attention_features features; /* of the query head */
    attention_span queries, keys;
    int64_t block;              /* of delta, dq and turns, that the queries are */
    attention_right k, q, dout; /* the last two in f32 alone */
    attention_left q_left, dout_left;
    bool k_finite;
    float *k_copy, *k_panels, *v_panels, *dk, *dv;
    float *blocks, *s, *dp, *lse, *delta, *gather, *two_rows;
    float *q_copy, *dout_copy;                     /* f32 */
    float *q_pairs, *dout_pairs, *turned, *panels; /* bf16; turned: Q or dO, panels: P or dS */
    attention_fetch fetch;
    attention_span columns[ATTENTION_MAX_GROUPS]; /* per group of queries, the keys that it sees */
} attention_bwd_tile;

/* Sizes that the passes share; n_threads slots of scratch from the arena. */
void attention_bwd_lay_out(attention_backward *w, const tsr_cpu *cpu, const tsr_attention_bwd_args *g,
                           tsr_arena *arena);

attention_bwd_tile attention_bwd_tile_in(const attention_backward *w, int32_t slot);

/* Packs the block `keys` of a KV head for S and dP; its K for dQ; Q, dO and lse of the block `queries` of a
 * query head. */
void attention_bwd_load_keys(attention_bwd_tile *t, int64_t kv_head);
void attention_bwd_load_k(attention_bwd_tile *t, int64_t kv_head);
void attention_bwd_load_queries(attention_bwd_tile *t, int64_t head);

/* delta of the block `queries`. */
void attention_bwd_delta(attention_bwd_tile *t, int64_t head, float *delta);

/*
 * P and dS of the tile, to s and dp, as A of dQ's product; false, and empty columns, if nothing of it is
 * visible. Where run_gradients serves only `columns` are written, rounded out to whole strips: no
 * product reads the rest. With dbias, dp becomes the gradient of the bias instead, in f32.
 */
bool attention_bwd_scores(attention_bwd_tile *t, const float *delta, bool dbias);

/* dbias and dsinks, in passes of their own. */
void attention_bwd_bias(attention_backward *w, tsr_threads *threads);
void attention_bwd_sinks(attention_backward *w, tsr_threads *threads);

#endif
