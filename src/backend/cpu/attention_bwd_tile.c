/* backend/cpu/attention_bwd_tile.c - one tile of attention's backward: load, recompute P, find dS */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_bwd.h"

static float *take(tsr_arena *memory, int64_t n_floats)
{
    return tsr_arena_take(memory, (size_t)n_floats, sizeof(float));
}

/* A slot's pieces, each at a line's edge; counted where memory has no base. */
static attention_bwd_tile tile_in(const attention_backward *w, tsr_arena *memory)
{
    const int64_t nr = w->gemm->nr, rows = w->block_rows;
    const int64_t keys = attention_round_up(w->tile_rows, nr),
                  widest = attention_max(w->d_stride, w->dv_stride);
    const int64_t block_words = attention_words(w->gemm, rows),
                  blocks = 2 * TSR_ATTENTION_BLOCKS * w->gemm->mr * nr;
    const int64_t tile_words = attention_words(w->gemm, w->tile_rows);
    attention_bwd_tile t = {.w = w};
    t.blocks = take(memory, w->fuses ? blocks : 0);
    t.k_copy = take(memory, tile_words * w->d_stride);
    t.dk = take(memory, w->dk_floats);
    t.dv = take(memory, w->key_floats - w->dk_floats);
    t.k_panels = take(memory, keys * w->q_words);
    t.v_panels = take(memory, keys * w->dout_words);
    t.s = take(memory, rows * w->s_stride);
    t.dp = take(memory, rows * w->s_stride);
    t.lse = take(memory, rows);
    t.delta = take(memory, rows);
    t.gather = take(memory, attention_max(block_words, tile_words) * nr);
    t.two_rows = take(memory, 2 * w->dv_stride);
    if (w->bf16) {
        t.turned = take(memory, attention_max(w->a->d, w->a->dv) * w->turned_stride);
        t.q_pairs = take(memory, rows * w->q_words);
        t.dout_pairs = take(memory, rows * w->dout_words);
        t.panels = take(memory, attention_max(keys * block_words, BWD_STORED_KEYS * widest));
    } else {
        t.q_copy = take(memory, rows * w->d_stride);
        t.dout_copy = take(memory, rows * w->dv_stride);
    }
    return t;
}

void attention_bwd_lay_out(attention_backward *w, const tsr_cpu *cpu, const tsr_attention_bwd_args *g,
                           tsr_arena *arena)
{
    const tsr_attention_fwd_args *a = &g->fwd;
    *w = (attention_backward){
        .g = g, .a = a, .cpu = cpu, .gemm = attention_gemm(cpu, a), .score = cpu->attention_score_f32};
    const int64_t nr = w->gemm->nr;
    w->bf16 = w->gemm->k_word == 2;
    assert(!w->bf16 || nr % (2 * w->score->lanes) == 0);
    w->fuses = w->gemm->run_gradients != NULL && w->gemm->lanes == w->score->lanes && a->d > 0 && a->dv > 0;
    /* Rows that a strip of keys meets begin with a group, all of which has P and dS there. */
    assert(!w->fuses || w->gemm->mr == w->gemm->k_word * w->gemm->k_align);
    w->q_words = attention_words(w->gemm, a->d);
    w->dout_words = attention_words(w->gemm, a->dv);
    w->group = a->hkv > 0 ? a->hq / a->hkv : 0;
    w->bm = w->gemm->attention.bwd_queries, w->bn = w->gemm->attention.bwd_keys;
    assert(attention_max(w->bm, w->bn) <= ATTENTION_MAX_GROUPS * w->gemm->mr);
    w->n_blocks = attention_round_up(a->lq, w->bm) / w->bm;
    w->n_tiles = attention_round_up(a->lk, w->bn) / w->bn;
    w->block_rows = attention_min(w->bm, a->lq), w->tile_rows = attention_min(w->bn, a->lk);
    w->d_stride = attention_stride(a->d, nr);
    w->dv_stride = attention_stride(a->dv, nr);
    w->s_stride = attention_stride(w->tile_rows, nr);
    w->turned_stride = w->bf16 ? attention_stride(attention_words(w->gemm, w->block_rows), 16) : 0;
    w->dk_floats = attention_round_up(w->bf16 ? a->d * w->s_stride : w->tile_rows * w->d_stride, 16);
    w->key_floats = w->dk_floats + (w->bf16 ? a->dv * w->s_stride : w->tile_rows * w->dv_stride);
    tsr_arena slot = {0};
    tile_in(w, &slot);
    w->slot_nbytes = slot.used;
    w->scratch = tsr_arena_take(arena, (size_t)tsr_threads_count(cpu->threads), slot.used);
}

attention_bwd_tile attention_bwd_tile_in(const attention_backward *w, int32_t slot)
{
    tsr_arena memory = tsr_arena_over(w->scratch + (size_t)slot * w->slot_nbytes, w->slot_nbytes);
    return tile_in(w, &memory);
}

static void load_panels(const tsr_gemm_kernel *gemm, float *panels, const attention_rows *rows, int64_t n,
                        int64_t d)
{
    const int64_t words = attention_words(gemm, d);
    for (int64_t j = 0; j < n; j += gemm->nr)
        gemm->pack_b(panels + j * words, attention_row(rows, j), rows->dtype, rows->col, rows->row, d,
                     attention_min(gemm->nr, n - j));
}

void attention_bwd_load_keys(attention_bwd_tile *t, int64_t kv_head)
{
    const attention_backward *w = t->w;
    const tsr_attention_fwd_args *a = w->a;
    const int64_t n = t->keys.end - t->keys.begin;
    const attention_rows k = attention_k_rows(&a->k, &t->sequence, kv_head, t->keys.begin);
    const attention_rows v = attention_k_rows(&a->v, &t->sequence, kv_head, t->keys.begin);
    load_panels(w->gemm, t->k_panels, &k, n, a->d);
    load_panels(w->gemm, t->v_panels, &v, n, a->dv);
}

void attention_bwd_load_k(attention_bwd_tile *t, int64_t kv_head)
{
    const attention_backward *w = t->w;
    const int64_t n = t->keys.end - t->keys.begin, d = w->a->d;
    const attention_rows k = attention_k_rows(&w->a->k, &t->sequence, kv_head, t->keys.begin);
    if (w->bf16) {
        t->k = attention_right_of(w->gemm, &k, n, d, t->k_copy, w->d_stride);
    } else {
        t->k = (attention_right){t->k_copy, w->d_stride, w->gemm->nr};
        w->gemm->pack(t->k_copy, w->d_stride, k.data, k.dtype, k.row, k.col, n, d);
        for (int64_t j = 0; j < n; j++) {
            float *row = t->k_copy + j * w->d_stride;
            w->score->store(row, TSR_F32, 1, row, d, w->a->scale);
        }
    }
    t->k_finite = attention_right_is_finite(w->cpu, w->gemm, &t->k, n, d);
}

void attention_bwd_load_queries(attention_bwd_tile *t, int64_t head)
{
    const attention_backward *w = t->w;
    const tsr_attention_fwd_args *a = w->a;
    const int64_t first = t->queries.begin, n = t->queries.end - first;
    const attention_rows q = attention_q_rows(&a->q, &t->sequence, head, first);
    const attention_rows dout = attention_q_rows(&w->g->dout, &t->sequence, head, first);
    const attention_rows lse = attention_q_rows(&a->lse, &t->sequence, head, first);
    if (w->bf16) {
        t->q_left = attention_left_of(w->gemm, &q, n, a->d, t->q_pairs, w->q_words);
        t->dout_left = attention_left_of(w->gemm, &dout, n, a->dv, t->dout_pairs, w->dout_words);
    } else { /* the same rows */
        t->q = attention_right_of(w->gemm, &q, n, a->d, t->q_copy, w->d_stride);
        t->dout = attention_right_of(w->gemm, &dout, n, a->dv, t->dout_copy, w->dv_stride);
        t->q_left = (attention_left){t->q.data, t->q.row};
        t->dout_left = (attention_left){t->dout.data, t->dout.row};
    }
    for (int64_t i = 0; i < n; i++) t->lse[i] = ((const float *)lse.data)[i * lse.row];
}

static bool sees_nothing(const tsr_attention_features *f, int64_t query)
{
    const attention_span row = {query, query + 1}, keys = attention_keys_seen(f, row);
    return keys.begin == keys.end || !attention_mask_shows(f, row, keys);
}

static const float *f32_row(const attention_backward *w, const attention_rows *rows, int64_t i, float *copy)
{
    const void *row = attention_row(rows, i);
    if (rows->dtype == TSR_F32 && rows->col == 1) return row;
    w->cpu->elementwise_f32->load(copy, row, rows->dtype, rows->col, w->a->dv);
    return copy;
}

/* A row that sees nothing has O = 0, and with it delta = 0, whatever its dO is. */
void attention_bwd_delta(attention_bwd_tile *t, int64_t head, float *delta)
{
    const attention_backward *w = t->w;
    const int64_t first = t->queries.begin, n = t->queries.end - first;
    const attention_rows out = attention_q_rows(&w->a->out, &t->sequence, head, first);
    const attention_rows dout = attention_q_rows(&w->g->dout, &t->sequence, head, first);
    const attention_rows dlse = attention_q_rows(&w->g->dlse, &t->sequence, head, first);
    float *const copies = t->two_rows;
    for (int64_t i = 0; i < n; i++) {
        delta[i] = w->score->dot(f32_row(w, &out, i, copies), f32_row(w, &dout, i, copies + w->dv_stride),
                                 w->a->dv);
        if (!isfinite(delta[i]) && sees_nothing(&t->features, first + i)) delta[i] = 0;
        if (dlse.data != NULL) delta[i] -= ((const float *)dlse.data)[i * dlse.row];
    }
}

/* S and dP of the rows from i on, before alpha, in `columns`, to within a strip. */
static void multiply_scores(attention_bwd_tile *t, int64_t i, attention_span columns)
{
    const attention_backward *w = t->w;
    const int64_t nr = w->gemm->nr;
    attention_product p = {.gemm = w->gemm,
                           .a = attention_left_row(w->gemm, &t->q_left, i),
                           .a_row = t->q_left.row,
                           .a_k = 1,
                           .b = t->k_panels,
                           .b_row = nr,
                           .b_strip = nr * w->q_words,
                           .c = t->s + i * w->s_stride,
                           .c_row = w->s_stride,
                           .m = attention_min(w->gemm->mr, t->queries.end - t->queries.begin - i),
                           .n = t->keys.end - t->keys.begin,
                           .k = w->a->d,
                           .alpha = 1,
                           .beta = 0,
                           .fetch = &t->fetch};
    attention_product_columns(&p, &columns);
    p.a = attention_left_row(w->gemm, &t->dout_left, i), p.a_row = t->dout_left.row;
    p.b = t->v_panels, p.b_strip = nr * w->dout_words;
    p.c = t->dp + i * w->s_stride, p.k = w->a->dv;
    attention_product_columns(&p, &columns);
}

/*
 * P and dS of a group's rows, if they need no more than products, a window and a softmax. Only of the blocks
 * that some row sees something of: to the others no product comes, of these rows or of those keys.
 */
static bool find_at_once(attention_bwd_tile *t, const tsr_attention_rows *rows, int64_t i, const float *delta)
{
    const attention_backward *w = t->w;
    if (!w->fuses || !rows->to_bf16 || rows->n_rows != w->gemm->mr) return false;
    tsr_attention_bwd_group group = {.rows = *rows,
                                     .q = attention_left_row(w->gemm, &t->q_left, i),
                                     .q_row = t->q_left.row,
                                     .dout = attention_left_row(w->gemm, &t->dout_left, i),
                                     .dout_row = t->dout_left.row,
                                     .k = t->k_panels,
                                     .v = t->v_panels,
                                     .k_words = w->q_words,
                                     .v_words = w->dout_words,
                                     .lse = t->lse + i,
                                     .delta = delta,
                                     .score = w->score,
                                     .ds = (uint16_t *)(void *)(t->dp + i * w->s_stride),
                                     .fetch = attention_fetch_some,
                                     .fetch_later = &t->fetch};
    group.rows.s = t->blocks;
    group.rows.p = (uint16_t *)(void *)rows->s, group.rows.p_stride = 2 * rows->s_stride;
    return w->score->is_windowed(rows, group.whole) && w->gemm->run_gradients(&group);
}

bool attention_bwd_scores(attention_bwd_tile *t, const float *delta, bool dbias)
{
    const attention_backward *w = t->w;
    const int64_t mr = w->gemm->mr, nr = w->gemm->nr;
    const int64_t m = t->queries.end - t->queries.begin, n = t->keys.end - t->keys.begin;
    const int64_t width = attention_round_up(n, nr);
    if (!attention_mask_shows(&t->features, t->queries, t->keys)) {
        for (int64_t g = 0; g * mr < m; g++) t->columns[g] = (attention_span){0, 0};
        return false;
    }
    attention_columns_seen(&t->features, t->queries, t->keys, mr, nr, t->columns);
    for (int64_t i = 0, g = 0; i < m; i += mr, g++) { /* S and dP of a group are still near */
        tsr_attention_rows rows = {.features = &t->features,
                                   .row = t->queries.begin + i,
                                   .n_rows = attention_min(mr, m - i),
                                   .key = t->keys.begin,
                                   .begin = t->columns[g].begin,
                                   .end = t->columns[g].end,
                                   .s = t->s + i * w->s_stride,
                                   .s_stride = w->s_stride,
                                   .alpha = t->features.alpha,
                                   .to_bf16 = w->bf16 && !dbias};
        if (find_at_once(t, &rows, i, delta + i)) continue;
        multiply_scores(t, i, (attention_span){rows.begin, rows.end});
        float *dp = t->dp + i * w->s_stride;
        w->score->backward(&rows, width, t->lse + i, delta + i, dp, dbias ? dp : NULL, w->s_stride);
    }
    return true;
}
