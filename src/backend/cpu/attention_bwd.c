/*
 * backend/cpu/attention_bwd.c - flash attention, backward: five products in one pass
 *
 * An item is a block of keys of one KV head. It goes through all query blocks of the group's heads that see
 * it; dK and dV stay in its scratch meanwhile. dQ is shared: the key blocks add to a block of dQ one after
 * the other, in order, each waiting for its turn:
 *
 *     keys      0   1   2   3         an item's way is downwards; the turn at a row passes from left to
 *     queries 0 x > x > x > x         right. Items are claimed in ascending order, key block by key block, so
 *             1 x > x > x > x         that the predecessor of a claimed item is done or running, and never
 *             2 x > x > x > x         waits for a later one: no deadlock, even if one thread runs them all.
 *
 * So there are no partial sums to merge, no atomic additions, and any number of threads gives the same bits.
 *
 * KV heads are served in rounds, as many as delta and dQ (where the output cannot be added to: not f32, or
 * yet to be scaled) leave room for. If those of one head are too long already, its queries are served in
 * parts, between which dK and dV are carried along.
 *
 * workspace   | slots' scratch | delta | dQ | turns | carried |
 */
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "backend/cpu/attention_bwd.h"
#include "backend/indices.h"
#include "base/dtype.h"
#include "base/error.h"

static bool adds_to_output(const attention_backward *w)
{
    const tsr_tensor *dq = &w->g->dq;
    return !w->bf16 && dq->dtype == TSR_F32 && dq->stride[3] == 1;
}

/* dK and dV of a tile, side by side in its scratch. */
static size_t key_gradients_nbytes(const attention_backward *w)
{
    return (size_t)w->key_floats * sizeof(float);
}

static void lay_out(attention_backward *w, const tsr_cpu *cpu, const tsr_attention_bwd_args *g,
                    tsr_arena *arena)
{
    const tsr_attention_fwd_args *a = &g->fwd;
    if (!attention_size_fits(a)) {
        arena->used = SIZE_MAX;
        return;
    }
    attention_bwd_lay_out(w, cpu, g, arena);
    const bool stored = g->dq.data != NULL && !adds_to_output(w);
    const int64_t heads = a->b * a->hkv, head_blocks = w->group * w->n_blocks;
    /* A packed head's and 3 MiB for each thread: what forward is allowed. */
    const int64_t budget = tsr_threads_count(cpu->threads) * (a->lk * (a->d + a->dv) + ((int64_t)3 << 18));
    const int64_t per_block = w->block_rows * (stored ? a->d + 1 : 1) + 1;
    const int64_t most = attention_max(1, budget / per_block);
    w->heads_per_round = attention_min(heads, attention_max(1, most / attention_max(head_blocks, 1)));
    w->blocks_per_round = attention_min(head_blocks, most);
    const size_t blocks = (size_t)(w->heads_per_round * w->blocks_per_round);
    w->delta = tsr_arena_take(arena, blocks, (size_t)w->block_rows * sizeof(float));
    w->dq = tsr_arena_take(arena, stored ? blocks : 0, (size_t)(w->block_rows * a->d) * sizeof(float));
    if (!stored) w->dq = NULL;
    w->turns = tsr_arena_take(arena, blocks, sizeof *w->turns);
    const int64_t carried = w->blocks_per_round < head_blocks ? w->n_tiles : 0;
    w->carried = tsr_arena_take(arena, (size_t)carried, key_gradients_nbytes(w));
    if (carried == 0) w->carried = NULL;
}

size_t cpu_attention_bwd_workspace(const void *state, const tsr_attention_bwd_args *g)
{
    tsr_arena arena = {0};
    attention_backward w;
    lay_out(&w, state, g, &arena);
    return arena.used;
}

/* The rows of dQ that a block of queries adds to: the output's, or the workspace's. */
static attention_rows dq_rows(const attention_bwd_tile *t, int64_t head)
{
    const attention_backward *w = t->w;
    if (w->dq == NULL) return attention_q_rows(&w->g->dq, &t->sequence, head, t->queries.begin);
    return (attention_rows){
        .data = w->dq + t->block * w->block_rows * w->a->d, .dtype = TSR_F32, .row = w->a->d, .col = 1};
}

/* A block of queries: its delta, its first turn; and dQ = 0 where no key block will write it. */
static void prepare_queries(void *arg, int64_t item, int32_t slot)
{
    const attention_backward *w = arg;
    const int64_t kv_head = w->first_head + item / w->round_blocks;
    const int64_t block = w->first_block + item % w->round_blocks, first = block % w->n_blocks * w->bm;
    const int64_t head = kv_head % w->a->hkv * w->group + block / w->n_blocks;
    attention_bwd_tile t = attention_bwd_tile_in(w, slot);
    t.sequence = attention_sequence_of(w->a, kv_head / w->a->hkv);
    t.features = attention_features_of(w->a, &t.sequence, head);
    const int64_t end = attention_min(first + w->bm, t.sequence.q_rows);
    if (first >= end) return;
    t.queries = (attention_span){first, attention_max(first, attention_min(end, t.sequence.lq))};
    attention_bwd_delta(&t, head, w->delta + item * w->block_rows);
    const attention_span keys = attention_keys_seen(&t.features, t.queries);
    atomic_store_explicit(&w->turns[item], (int32_t)(keys.begin / w->bn), memory_order_relaxed);
    if (w->g->dq.data == NULL) return;
    const int64_t from = keys.begin < keys.end ? t.queries.end : first;
    const attention_rows padding = attention_q_rows(&w->g->dq, &t.sequence, head, from);
    attention_clear_rows(&padding, end - from, w->a->d);
}

static void await_turn(_Atomic int32_t *turn, int32_t mine)
{
    for (int spins = 0; atomic_load_explicit(turn, memory_order_acquire) != mine; spins++)
        if (spins > 200) sched_yield();
}

static void add_to_dq(attention_bwd_tile *t, int64_t head, bool seen)
{
    const attention_backward *w = t->w;
    const attention_span keys = attention_keys_seen(&t->features, t->queries);
    const int32_t mine = (int32_t)(t->keys.begin / w->bn);
    const bool first = mine == keys.begin / w->bn, last = mine == (keys.end - 1) / w->bn;
    const attention_rows dq = dq_rows(t, head);
    const attention_product p = {.gemm = w->gemm,
                                 .a = t->dp,
                                 .a_row = w->s_stride * w->gemm->k_word,
                                 .a_k = 1,
                                 .b = t->k.data,
                                 .b_row = t->k.row,
                                 .b_strip = t->k.strip,
                                 .c = dq.data,
                                 .c_row = dq.row,
                                 .m = t->queries.end - t->queries.begin,
                                 .n = w->a->d,
                                 .k = t->keys.end - t->keys.begin,
                                 .alpha = 1,
                                 .beta = first ? 0 : 1,
                                 .fetch = &t->fetch};
    _Atomic int32_t *turn = &w->turns[t->block];
    await_turn(turn, mine);
    if (!seen || t->k_finite || attention_sees_all(&t->features, t->queries, t->keys)) {
        attention_product_depth(&p, t->columns);
    } else {
        const attention_pairs pairs = {&t->features, t->queries.begin, t->keys.begin, false};
        attention_product_visible(&p, t->columns, &pairs, t->gather);
    }
    if (last && w->dq != NULL) {
        const attention_rows out = attention_q_rows(&w->g->dq, &t->sequence, head, t->queries.begin);
        for (int64_t i = 0; i < p.m; i++)
            w->score->store(attention_row(&out, i), out.dtype, out.col, p.c + i * p.c_row, p.n,
                            w->bf16 ? w->a->scale : 1); /* else K holds the scale */
    }
    atomic_store_explicit(turn, mine + 1, memory_order_release);
}

/* C += A^T B over the tile's queries: dV from P and dO, dK (to be scaled) from dS and Q. */
static void add_to_keys(attention_bwd_tile *t, const float *a, const attention_right *b, float *c,
                        int64_t stride, int64_t n)
{
    const attention_backward *w = t->w;
    const tsr_gemm_kernel *gemm = w->gemm;
    const int64_t n_queries = t->queries.end - t->queries.begin, n_keys = t->keys.end - t->keys.begin;
    const attention_product p = {.gemm = gemm,
                                 .a = a,
                                 .a_row = 1,
                                 .a_k = w->s_stride,
                                 .b = b->data,
                                 .b_row = b->row,
                                 .b_strip = b->strip,
                                 .c = c,
                                 .c_row = stride,
                                 .m = n_keys,
                                 .n = n,
                                 .k = n_queries,
                                 .alpha = 1,
                                 .beta = 1,
                                 .fetch = &t->fetch};
    attention_span depth[ATTENTION_MAX_GROUPS];
    attention_rows_seeing(&t->features, t->queries, t->keys, gemm->mr, 1, depth);
    if (attention_sees_all(&t->features, t->queries, t->keys) ||
        attention_right_is_finite(w->cpu, gemm, b, n_queries, n)) {
        attention_product_depth(&p, depth);
    } else {
        const attention_pairs pairs = {&t->features, t->queries.begin, t->keys.begin, true};
        attention_product_visible(&p, depth, &pairs, t->gather);
    }
}

/*
 * Query i of dO or Q, turned, if it has Inf or NaN: becomes 0, since 0 times it is none, and what it adds to
 * the keys that see it, by its row of P or dS, is added here.
 */
static void take_query_apart(attention_bwd_tile *t, const uint16_t *row, float *c, int64_t n, int64_t i)
{
    const attention_backward *w = t->w;
    uint16_t *turned = (uint16_t *)(void *)t->turned;
    const int64_t stride = 2 * w->turned_stride, n_keys = t->keys.end - t->keys.begin;
    bool finite = true;
    for (int64_t r = 0; r < n; r++) finite &= (turned[r * stride + i] & 0x7f80) != 0x7f80;
    if (finite) return;
    for (int64_t r = 0; r < n; r++) {
        const float x = tsr_f32_from_bf16(turned[r * stride + i]);
        for (int64_t key = 0; key < n_keys; key++)
            if (attention_sees(&t->features, t->queries.begin + i, t->keys.begin + key))
                c[r * w->s_stride + key] += tsr_f32_from_bf16(row[key]) * x;
        turned[r * stride + i] = 0;
    }
}

static bool turned_is_finite(const attention_backward *w, const float *turned, int64_t n, int64_t n_queries)
{
    bool finite = true;
    for (int64_t r = 0; r < n && finite; r++)
        finite = w->score->finite_bf16(turned + r * w->turned_stride, attention_words(w->gemm, n_queries));
    return finite;
}

/*
 * The same in bf16, whose words are pairs along the queries: dV^T += dO^T P, dK^T += Q^T dS. Rows of P and dS
 * become panels two by two, which takes a third of what turning them would; dO or Q, `rows`, is turned.
 */
static void add_to_turned_keys(attention_bwd_tile *t, const attention_rows *rows, const float *p_or_ds,
                               float *c, int64_t n)
{
    const attention_backward *w = t->w;
    const tsr_gemm_kernel *gemm = w->gemm;
    const int64_t n_queries = t->queries.end - t->queries.begin, n_keys = t->keys.end - t->keys.begin;
    const int64_t nr = gemm->nr, words = attention_words(gemm, n_queries), row = 2 * w->s_stride;
    const uint16_t *b = (const uint16_t *)(const void *)p_or_ds;
    attention_span depth[ATTENTION_MAX_GROUPS];
    attention_rows_seeing(&t->features, t->queries, t->keys, nr, gemm->k_word * gemm->k_align, depth);
    gemm->pack_a(t->turned, w->turned_stride, rows->data, rows->col, rows->row, n, n_queries, 0, NULL, 0);
    for (int64_t j = 0, g = 0; j < n_keys; j += nr, g++) {
        const int64_t first = depth[g].begin, n_rows = depth[g].end - first;
        if (n_rows > 0)
            gemm->pack_b(t->panels + j * words + first / 2 * nr, b + first * row + j, TSR_BF16, row, 1,
                         n_rows, attention_min(nr, n_keys - j));
    }
    if (!attention_sees_all(&t->features, t->queries, t->keys) &&
        !turned_is_finite(w, t->turned, n, n_queries))
        for (int64_t i = 0; i < n_queries; i++) take_query_apart(t, b + i * row, c, n, i);
    const attention_product p = {.gemm = gemm,
                                 .a = t->turned,
                                 .a_row = 2 * w->turned_stride,
                                 .a_k = 1,
                                 .b = t->panels,
                                 .b_row = nr,
                                 .b_strip = nr * words,
                                 .c = c,
                                 .c_row = w->s_stride,
                                 .m = n,
                                 .n = n_keys,
                                 .k = n_queries,
                                 .alpha = 1,
                                 .beta = 1,
                                 .fetch = &t->fetch};
    attention_product_strips(&p, depth);
}

static void add_to_dv(attention_bwd_tile *t, int64_t head)
{
    const attention_backward *w = t->w;
    const attention_rows dout = attention_q_rows(&w->g->dout, &t->sequence, head, t->queries.begin);
    if (w->bf16)
        add_to_turned_keys(t, &dout, t->s, t->dv, w->a->dv);
    else
        add_to_keys(t, t->s, &t->dout, t->dv, w->dv_stride, w->a->dv);
}

static void add_to_dk(attention_bwd_tile *t, int64_t head)
{
    const attention_backward *w = t->w;
    const attention_rows q = attention_q_rows(&w->a->q, &t->sequence, head, t->queries.begin);
    if (w->bf16)
        add_to_turned_keys(t, &q, t->dp, t->dk, w->a->d);
    else
        add_to_keys(t, t->dp, &t->q, t->dk, w->d_stride, w->a->d);
}

/* While this tile's products run: its dQ, and the Q and dO of the next queries, which end before `end`. */
static void fetch_later(attention_bwd_tile *t, int64_t head, int64_t end)
{
    const attention_backward *w = t->w;
    const int64_t next = t->queries.end, n = attention_min(w->bm, end - next);
    t->fetch.n_blocks = t->fetch.block = 0, t->fetch.done = 0;
    if (w->g->dq.data != NULL) {
        const attention_rows dq = dq_rows(t, head);
        attention_fetch_later(&t->fetch, &dq, next - t->queries.begin, w->a->d);
    }
    const attention_rows q = attention_q_rows(&w->a->q, &t->sequence, head, next);
    const attention_rows dout = attention_q_rows(&w->g->dout, &t->sequence, head, next);
    attention_fetch_later(&t->fetch, &q, n, w->a->d);
    attention_fetch_later(&t->fetch, &dout, n, w->a->dv);
}

/*
 * All that the block of keys does with those query blocks of one head, the group's `i`th, that belong to the
 * round; `at` is where delta, dq and turns of the head's first block are, were it one of them.
 */
static void visit_queries(attention_bwd_tile *t, int64_t i, int64_t head, int64_t at)
{
    const attention_backward *w = t->w;
    const tsr_attention_bwd_args *g = w->g;
    t->features = attention_features_of(w->a, &t->sequence, head);
    const attention_span seeing = attention_queries_seeing(&t->features, t->keys);
    if (seeing.begin == seeing.end) return;
    const int64_t first_block = w->first_block - i * w->n_blocks, end_block = first_block + w->round_blocks;
    const int64_t begin = attention_max(seeing.begin / w->bm, first_block) * w->bm;
    const int64_t end = attention_min(seeing.end, end_block * w->bm);
    for (int64_t first = begin; first < end; first += w->bm) {
        t->queries = (attention_span){first, attention_min(first + w->bm, t->sequence.lq)};
        t->block = at + first / w->bm;
        attention_bwd_load_queries(t, head);
        fetch_later(t, head, end);
        const bool seen = attention_bwd_scores(t, w->delta + t->block * w->block_rows, false);
        if (seen && g->dv.data != NULL) add_to_dv(t, head);
        if (seen && g->dk.data != NULL) add_to_dk(t, head);
        if (g->dq.data != NULL) add_to_dq(t, head, seen);
    }
}

static void store_keys(const attention_bwd_tile *t, const tsr_tensor *out, int64_t kv_head, const float *rows,
                       int64_t stride, int64_t d, float factor)
{
    if (out->data == NULL) return;
    const attention_backward *w = t->w;
    const int64_t n = t->keys.end - t->keys.begin;
    const attention_rows to = attention_k_rows(out, &t->sequence, kv_head, t->keys.begin);
    for (int64_t i = 0; i < n; i += BWD_STORED_KEYS) {
        const int64_t some = attention_min(BWD_STORED_KEYS, n - i);
        const float *from = w->bf16 ? t->panels : rows + i * stride;
        if (w->bf16) /* the keys are columns of dK and dV */
            w->cpu->gemm_f32->pack(t->panels, stride, rows + i, TSR_F32, 1, w->s_stride, some, d);
        for (int64_t r = 0; r < some; r++)
            w->score->store(attention_row(&to, i + r), to.dtype, to.col, from + r * stride, d, factor);
    }
    const attention_rows padding = attention_k_rows(out, &t->sequence, kv_head, t->keys.end);
    const int64_t end = attention_min(t->keys.begin + w->bn, t->sequence.k_rows);
    attention_clear_rows(&padding, end - t->keys.end, d);
}

static void visit_group(attention_bwd_tile *t, int64_t index, int64_t kv_head)
{
    const attention_backward *w = t->w;
    const int64_t first = w->first_block / w->n_blocks;
    const int64_t last = (w->first_block + w->round_blocks - 1) / w->n_blocks;
    attention_bwd_load_keys(t, kv_head);
    if (w->g->dq.data != NULL) attention_bwd_load_k(t, kv_head);
    for (int64_t i = first; i <= last; i++)
        visit_queries(t, i, kv_head * w->group + i,
                      index * w->round_blocks + i * w->n_blocks - w->first_block);
}

static void backward_keys(void *arg, int64_t item, int32_t slot)
{
    const attention_backward *w = arg;
    const int64_t index = item % w->round_heads, tile = item / w->round_heads, first = tile * w->bn;
    const int64_t batch = (w->first_head + index) / w->a->hkv, kv_head = (w->first_head + index) % w->a->hkv;
    attention_bwd_tile t = attention_bwd_tile_in(w, slot);
    t.sequence = attention_sequence_of(w->a, batch);
    const int64_t end = attention_min(first + w->bn, t.sequence.k_rows);
    if (first >= end) return;
    t.keys = (attention_span){first, attention_max(first, attention_min(end, t.sequence.lk))};

    const size_t nbytes = key_gradients_nbytes(w);
    char *carried = w->carried == NULL ? NULL : (char *)w->carried + (size_t)tile * nbytes;
    if (w->first_block == 0)
        memset(t.dk, 0, nbytes);
    else
        memcpy(t.dk, carried, nbytes);
    if (t.keys.begin < t.keys.end && w->round_blocks > 0) {
        char tiles[64];
        if (w->gemm->enter != NULL) w->gemm->enter(tiles);
        visit_group(&t, index, kv_head);
        if (w->gemm->leave != NULL) w->gemm->leave(tiles);
    }
    if (w->first_block + w->round_blocks < w->group * w->n_blocks) {
        memcpy(carried, t.dk, nbytes);
        return;
    }
    store_keys(&t, &w->g->dk, kv_head, t.dk, w->d_stride, w->a->d, w->a->scale);
    store_keys(&t, &w->g->dv, kv_head, t.dv, w->dv_stride, w->a->dv,
               w->bf16 ? attention_keep_scale(w->a) : 1); /* else P holds it */
}

static void serve_round(attention_backward *w, tsr_threads *threads)
{
    const int64_t head_blocks = w->group * w->n_blocks;
    w->first_block = 0;
    do { /* once even if there are no queries: dK and dV are 0 then */
        w->round_blocks = attention_min(w->blocks_per_round, head_blocks - w->first_block);
        tsr_threads_run(threads, w->round_heads * w->round_blocks, prepare_queries, w);
        tsr_threads_run(threads, w->round_heads * w->n_tiles, backward_keys, w);
        w->first_block += w->round_blocks;
    } while (w->first_block < head_blocks);
}

tsr_status cpu_attention_bwd(void *state, const tsr_attention_bwd_args *g, void *workspace)
{
    const tsr_cpu *cpu = state;
    const tsr_attention_fwd_args *a = &g->fwd;
    TSR_TRY(tsr_check_attention_lengths(a));
    attention_backward w;
    tsr_arena arena = {.base = workspace, .capacity = SIZE_MAX};
    lay_out(&w, cpu, g, &arena);
    const int64_t heads = a->b * a->hkv;
    if (g->dq.data == NULL && g->dk.data == NULL && g->dv.data == NULL) w.first_head = heads;
    for (; w.first_head < heads; w.first_head += w.heads_per_round) {
        w.round_heads = attention_min(w.heads_per_round, heads - w.first_head);
        serve_round(&w, cpu->threads);
    }
    if (g->dsinks.data != NULL) attention_bwd_sinks(&w, cpu->threads);
    if (g->dbias.data != NULL) attention_bwd_bias(&w, cpu->threads);
    return TSR_OK;
}
