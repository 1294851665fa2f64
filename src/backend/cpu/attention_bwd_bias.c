/*
 * backend/cpu/attention_bwd_bias.c - gradients of attention's bias and sinks, in passes of their own
 *
 *     dbias[b, h, i, j] = dS before the softcap, summed over every dimension that the bias was broadcast
 * along dsinks[h] = sum over b, i of  exp(sink - lse_i) (dlse_i - rowsum(dO O)_i)
 *
 * Each element of an output belongs to one item, which sums over batches, heads, queries and keys in
 * ascending order: any number of threads gives the same bits. S and dP are recomputed tile by tile.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_bwd.h"

typedef struct bias_pass {
    const attention_backward *w;
    int64_t n_heads, n_blocks,
        n_tiles; /* items: [batches][heads][query blocks][key blocks], 1 where summed */
} bias_pass;

/* Adds the tile's dS to the elements of dbias that its rows and columns belong to. */
static void add_tile(const attention_bwd_tile *t, float *dbias)
{
    const attention_backward *w = t->w;
    const tsr_tensor *out = &w->g->dbias;
    const int64_t m = t->queries.end - t->queries.begin, n = t->keys.end - t->keys.begin;
    float *sums = t->s; /* P is not needed any more */
    const float *rows = t->dp;
    int64_t n_rows = m, n_columns = n, stride = w->s_stride;
    if (out->shape[2] == 1 && w->a->lq != 1) {
        memset(sums, 0, (size_t)n * sizeof *sums);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) sums[j] += rows[i * stride + j];
        rows = sums, n_rows = 1;
    }
    if (out->shape[3] == 1 && w->a->lk != 1) {
        for (int64_t i = 0; i < n_rows; i++) {
            float sum = 0;
            for (int64_t j = 0; j < n; j++) sum += rows[i * stride + j];
            sums[i * stride] = sum;
        }
        rows = sums, n_columns = 1;
    }
    float *to = dbias + (out->shape[2] == 1 ? 0 : t->queries.begin) * out->stride[2] +
                (out->shape[3] == 1 ? 0 : t->keys.begin) * out->stride[3];
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n_columns; j++)
            to[i * out->stride[2] + j * out->stride[3]] += rows[i * stride + j];
}

/* What one head of one sequence adds to a region: all its tiles inside. */
static void add_head(attention_bwd_tile *t, int64_t b, int64_t head, attention_span blocks,
                     attention_span tiles, float *dbias)
{
    const attention_backward *w = t->w;
    t->sequence = attention_sequence_of(w->a, b);
    t->features = attention_features_of(w->a, &t->sequence, head);
    for (int64_t y = blocks.begin; y < blocks.end && y * w->bm < t->sequence.lq; y++) {
        t->queries = (attention_span){y * w->bm, attention_min((y + 1) * w->bm, t->sequence.lq)};
        const attention_span seen = attention_keys_seen(&t->features, t->queries);
        attention_bwd_delta(t, head, t->delta);
        attention_bwd_load_queries(t, head);
        for (int64_t x = tiles.begin; x < tiles.end && x * w->bn < t->sequence.lk; x++) {
            t->keys = (attention_span){x * w->bn, attention_min((x + 1) * w->bn, t->sequence.lk)};
            if (seen.begin >= t->keys.end || seen.end <= t->keys.begin) continue;
            attention_bwd_load_keys(t, head / w->group);
            if (attention_bwd_scores(t, t->delta, true)) add_tile(t, dbias);
        }
    }
}

/* [item] where the dimension is the output's own, all of it where it is summed over. */
static attention_span part(int64_t extent, int64_t full, int64_t item)
{
    return extent == 1 && full != 1 ? (attention_span){0, full} : (attention_span){item, item + 1};
}

static void dbias_region(void *arg, int64_t item, int32_t slot)
{
    const bias_pass *p = arg;
    const attention_backward *w = p->w;
    const tsr_attention_fwd_args *a = w->a;
    const tsr_tensor *out = &w->g->dbias;
    const int64_t x = item % p->n_tiles, y = item / p->n_tiles % p->n_blocks;
    const int64_t h = item / (p->n_tiles * p->n_blocks) % p->n_heads;
    const int64_t b = item / (p->n_tiles * p->n_blocks * p->n_heads);
    float *dbias = (float *)out->data + b * out->stride[0] + h * out->stride[1];
    for (int64_t i = y * w->bm; i < attention_min((y + 1) * w->bm, out->shape[2]); i++)
        for (int64_t j = x * w->bn; j < attention_min((x + 1) * w->bn, out->shape[3]); j++)
            dbias[i * out->stride[2] + j * out->stride[3]] = 0;

    const attention_span batches = part(out->shape[0], a->b, b), heads = part(out->shape[1], a->hq, h);
    const attention_span blocks = out->shape[2] == 1 ? (attention_span){0, w->n_blocks}
                                                     : (attention_span){y, y + 1};
    const attention_span tiles = out->shape[3] == 1 ? (attention_span){0, w->n_tiles}
                                                    : (attention_span){x, x + 1};
    attention_bwd_tile t = attention_bwd_tile_in(w, slot);
    char saved[64];
    if (w->gemm->enter != NULL) w->gemm->enter(saved);
    for (int64_t i = batches.begin; i < batches.end; i++)
        for (int64_t j = heads.begin; j < heads.end; j++) add_head(&t, i, j, blocks, tiles, dbias);
    if (w->gemm->leave != NULL) w->gemm->leave(saved);
}

void attention_bwd_bias(attention_backward *w, tsr_threads *threads)
{
    const tsr_tensor *out = &w->g->dbias;
    bias_pass p = {.w = w,
                   .n_heads = out->shape[1],
                   .n_blocks = attention_round_up(out->shape[2], w->bm) / w->bm,
                   .n_tiles = attention_round_up(out->shape[3], w->bn) / w->bn};
    tsr_threads_run(threads, out->shape[0] * p.n_heads * p.n_blocks * p.n_tiles, dbias_region, &p);
}

static void dsinks_of_head(void *arg, int64_t head, int32_t slot)
{
    const attention_backward *w = arg;
    const tsr_tensor *out = &w->g->dsinks, *sinks = &w->a->sinks;
    const double sink = ((const float *)sinks->data)[head * sinks->stride[0]];
    attention_bwd_tile t = attention_bwd_tile_in(w, slot);
    double sum = 0;
    for (int64_t b = 0; b < w->a->b; b++) {
        t.sequence = attention_sequence_of(w->a, b);
        t.features = attention_features_of(w->a, &t.sequence, head);
        for (int64_t first = 0; first < t.sequence.lq; first += w->bm) {
            t.queries = (attention_span){first, attention_min(first + w->bm, t.sequence.lq)};
            attention_bwd_delta(&t, head, t.delta);
            const attention_rows lse = attention_q_rows(&w->a->lse, &t.sequence, head, first);
            for (int64_t i = 0; i < t.queries.end - first; i++) {
                const float at = ((const float *)lse.data)[i * lse.row];
                if (at != -INFINITY)
                    sum -= exp(sink - at) * t.delta[i]; /* else not even the sink has weight */
            }
        }
    }
    ((float *)out->data)[head * out->stride[0]] = (float)sum;
}

void attention_bwd_sinks(attention_backward *w, tsr_threads *threads)
{
    tsr_threads_run(threads, w->a->hq, dsinks_of_head, w);
}
