/*
 * backend/cpu/attention_decode.c - attention of few queries against many keys: read K and V once, pack
 * nothing
 *
 *     chunk of keys -> its own m, l, O from zero        chunks in order: m, l, O merged        out = O / l
 *
 * A KV head's rows are all queries of all query heads of its group. Its keys, counted from the sequence's
 * first, fall into chunks of constant length, of which an item has a range (attention_decode_plan.h). Inside
 * a chunk, tile by tile: S = Q K^T, features and softmax (of one query head at a time where heads differ in
 * them), O += P V.
 */
#include "backend/cpu/attention_decode.h"

#include <math.h>
#include <string.h>

#include "backend/indices.h"

size_t attention_decode_workspace(const tsr_cpu *cpu, const tsr_attention_fwd_args *a)
{
    tsr_arena arena = {0};
    attention_decode_plan(cpu, a, &arena);
    return arena.used;
}

/* m [n_rows], l [n_rows], o [n_rows][o_stride]; row of head g of the group and query i: g * lq + i. */
typedef struct part {
    float *m, *l, *o;
} part;

static part part_of(const attention_decoding *w, int64_t index, int64_t chunk)
{
    float *p = w->parts + (index * w->n_chunks + chunk) * w->part_floats;
    return (part){.o = p, .m = p + w->n_rows * w->o_stride, .l = p + w->n_rows * (w->o_stride + 1)};
}

/* A tile's rows of k or v, found ahead of their use. */
typedef struct tile_rows {
    const void *row[TSR_DECODE_TILE];
    attention_span keys;
} tile_rows;

/* What an item works on: some chunks of one KV head; or of each of several, one of these for each. */
typedef struct range {
    const attention_decoding *w;
    attention_sequence s;
    int64_t kv_head, lq, n_rows;
    attention_span keys; /* of all chunks, as far as some query's window reaches */
    attention_kv k, v;
    bool gathers;                    /* elements of a row do not lie side by side */
    tsr_attention_features features; /* of the group's first head */
    bool alike;                      /* all heads have those, and all queries but for the window */
    float *q, *p, *hidden, *gather;
    int16_t *q_integers; /* times a unit for each row: Q */
    float *q_unit;
    part part;
} range;

/* Pointers to the rows of a tile's keys; the last is repeated. */
static void find_rows(const attention_kv *x, attention_span keys, tile_rows *to)
{
    const int64_t step = x->t->stride[2] * (int64_t)tsr_dtype_nbytes(x->t->dtype);
    const void **row = to->row;
    to->keys = keys;
    for (int64_t j = keys.begin; j < keys.end;) {
        const int64_t n = attention_kv_run(x, j, keys.end);
        const char *first = attention_kv_row(x, j);
        for (int64_t i = 0; i < n; i++) *row++ = first + i * step;
        j += n;
    }
    if (row == to->row) return;
    for (const void *last = row[-1]; row < to->row + TSR_DECODE_TILE;) *row++ = last;
}

/* Asks for the scales of a tile's keys: a tile has few lines of them, but each would be waited for. */
static void fetch_scales(const attention_kv *x, attention_span keys)
{
    if (x->scale->data == NULL) return;
    const int64_t stride = x->scale->stride[2];
    const int64_t step = stride >= 16 ? stride : stride * (16 / attention_max(stride, 1)); /* a line */
    for (int64_t j = keys.begin; j < keys.end;) {
        const int64_t n = attention_kv_run(x, j, keys.end);
        const float *first = attention_kv_scale(x, j), *end = first + n * stride;
        for (const float *scale = first; scale < end; scale += step) __builtin_prefetch(scale, 0, 2);
        j += n;
    }
}

/* A range's first tile, which no tile before it has fetched. */
static void fetch_rows(const attention_kv *x, const tile_rows *rows)
{
    const int64_t nbytes = x->t->shape[3] * (int64_t)tsr_dtype_nbytes(x->t->dtype);
    for (int64_t j = 0; j < rows->keys.end - rows->keys.begin; j++)
        for (int64_t b = 0; b < nbytes; b += 64) __builtin_prefetch((const char *)rows->row[j] + b, 0, 2);
}

static tsr_attention_decode_rows rows_of(const range *r, const attention_kv *x, tile_rows *now,
                                         const tile_rows *next)
{
    const int64_t n = now->keys.end - now->keys.begin, d = x->t->shape[3];
    tsr_attention_decode_rows rows = {.row = now->row,
                                      .next = next->keys.begin < next->keys.end ? next->row : NULL,
                                      .n = n,
                                      .d = d,
                                      .dtype = x->t->dtype};
    if (!r->gathers) return rows;
    attention_gather_kv_as_is(x, now->keys, r->gather);
    const int64_t row_nbytes = d * (int64_t)tsr_dtype_nbytes(x->t->dtype);
    for (int64_t j = 0; j < attention_round_up(n, 16); j++)
        now->row[j] = (char *)r->gather + attention_min(j, n - 1) * row_nbytes;
    rows.next = NULL;
    return rows;
}

static tsr_attention_features features_of(const range *r, int64_t g)
{
    return attention_features_of(r->w->a, &r->s, r->kv_head * r->w->group + g);
}

/* scale times what each int8 key of a tile is worth */
static void factors_of(const attention_kv *x, attention_span keys, float scale, float *factor)
{
    const int64_t step = x->scale->stride[2];
    for (int64_t j = keys.begin; j < keys.end;) {
        const int64_t n = attention_kv_run(x, j, keys.end);
        const float *of_key = attention_kv_scale(x, j);
        for (int64_t i = 0; i < n; i++) *factor++ = scale * of_key[i * step];
        j += n;
    }
}

static void multiply_keys(const range *r, const tsr_attention_decode_rows *k)
{
    const attention_decoding *w = r->w;
    if (w->of_k != NULL)
        w->of_k->scores(k, r->q_integers, w->q_integers_stride, r->q_unit, r->n_rows, r->p, TSR_DECODE_TILE);
    else
        w->kernel->scores(k, r->q, w->q_stride, r->n_rows, r->p, TSR_DECODE_TILE);
}

static void multiply_values(const attention_decoding *w, const tsr_attention_decode_rows *v, const float *p,
                            int64_t n_rows, float *o)
{
    if (w->of_v != NULL)
        w->of_v->values(v, p, TSR_DECODE_TILE, n_rows, o, w->o_stride);
    else
        w->kernel->values(v, p, TSR_DECODE_TILE, n_rows, o, w->o_stride);
}

/*
 * O += P V over a tile with keys that some row does not see: those are left out of its sum, not multiplied by
 * 0, as their v may be NaN or Inf.
 */
static void add_visible_values(const range *r, const tsr_attention_decode_rows *v, attention_span keys)
{
    for (int64_t g = 0; g < r->w->group; g++) {
        const tsr_attention_features f = features_of(r, g);
        for (int64_t i = 0; i < r->lq; i++) {
            const int64_t row = g * r->lq + i;
            const void *seen[TSR_DECODE_TILE];
            tsr_attention_decode_rows visible = *v;
            visible.row = seen, visible.n = 0, visible.next = NULL;
            for (int64_t j = 0; j < v->n; j++) {
                if (!attention_sees(&f, i, keys.begin + j)) continue;
                seen[visible.n] = v->row[j];
                r->hidden[visible.n++] = r->p[row * TSR_DECODE_TILE + j];
            }
            multiply_values(r->w, &visible, r->hidden, 1, r->part.o + row * r->w->o_stride);
        }
    }
}

/* S -> P of n_rows rows, the first of them `row` of the part. */
static void softmax_rows(const range *r, const tsr_attention_features *f, attention_span keys, int64_t row,
                         int64_t n_rows)
{
    const attention_decoding *w = r->w;
    const tsr_attention_rows t = {.features = f,
                                  .n_rows = n_rows,
                                  .key = keys.begin,
                                  .end = keys.end - keys.begin,
                                  .s = r->p + row * TSR_DECODE_TILE,
                                  .s_stride = TSR_DECODE_TILE,
                                  .alpha = w->a->k_scale.data != NULL ? 1 : f->alpha};
    w->cpu->attention_score_f32->forward(&t, r->part.m + row, r->part.l + row, r->part.o + row * w->o_stride,
                                         w->o_stride, w->a->dv);
}

/* S -> P of all rows; do they see all of the tile? */
static bool softmax(const range *r, attention_span keys)
{
    const attention_span queries = {0, r->lq};
    if (r->alike && attention_sees_all(&r->features, queries, keys)) {
        tsr_attention_features f = r->features; /* rows of several heads: a window must not tell them apart */
        f.left = f.right = (int64_t)1 << 62;
        softmax_rows(r, &f, keys, 0, r->n_rows);
        return true;
    }
    bool all_seen = true;
    for (int64_t g = 0; g < r->w->group; g++) {
        const tsr_attention_features f = features_of(r, g);
        softmax_rows(r, &f, keys, g * r->lq, r->lq);
        all_seen = all_seen && attention_sees_all(&f, queries, keys);
    }
    return all_seen;
}

/* One tile: S, softmax, O. */
static void attend_to_tile(const range *r, tile_rows *k, tile_rows *v, const tile_rows *next_k,
                           const tile_rows *next_v)
{
    const attention_decoding *w = r->w;
    const tsr_attention_decode_f32_kernel *kernel = w->kernel;
    const attention_span keys = k->keys;
    const int64_t n = keys.end - keys.begin;
    float factor[TSR_DECODE_TILE];

    const tsr_attention_decode_rows k_rows = rows_of(r, &r->k, k, next_k);
    multiply_keys(r, &k_rows);
    if (w->a->k_scale.data != NULL) {
        factors_of(&r->k, keys, r->features.alpha, factor);
        kernel->weigh(r->p, TSR_DECODE_TILE, r->n_rows, factor, n);
    }
    const bool all_seen = softmax(r, keys);
    if (w->a->v_scale.data != NULL) {
        factors_of(&r->v, keys, 1, factor);
        kernel->weigh(r->p, TSR_DECODE_TILE, r->n_rows, factor, n);
    }
    const tsr_attention_decode_rows v_rows = rows_of(r, &r->v, v, next_v);
    if (all_seen)
        multiply_values(w, &v_rows, r->p, r->n_rows, r->part.o);
    else
        add_visible_values(r, &v_rows, keys);
}

/* The tile that key `key` falls in, as far as it is in sight: from a multiple of 16 on, as vectors begin
 * there. */
static attention_span tile_at(attention_span keys, int64_t key)
{
    const int64_t first = key - key % TSR_DECODE_TILE;
    const attention_span tile = {attention_max(first, keys.begin - keys.begin % 16),
                                 attention_min(first + TSR_DECODE_TILE, keys.end)};
    return tile.begin < tile.end ? tile : (attention_span){key, key};
}

static void start_part(range *r, int64_t index, int64_t chunk)
{
    r->part = part_of(r->w, index, chunk);
    memset(r->part.o, 0, (size_t)(r->n_rows * r->w->o_stride) * sizeof(float));
    for (int64_t i = 0; i < r->n_rows; i++) r->part.m[i] = -INFINITY, r->part.l[i] = 0;
}

/* All queries of the group's heads as f32, zeros up to the stride; as integers, where those are multiplied.
 */
static void load_queries(const range *r)
{
    const attention_decoding *w = r->w;
    for (int64_t g = 0; g < w->group; g++) {
        const attention_rows q = attention_q_rows(&w->a->q, &r->s, r->kv_head * w->group + g, 0);
        for (int64_t i = 0; i < r->lq; i++) {
            float *to = r->q + (g * r->lq + i) * w->q_stride;
            w->cpu->elementwise_f32->load(to, attention_row(&q, i), q.dtype, q.col, w->a->d);
            memset(to + w->a->d, 0, (size_t)(w->q_stride - w->a->d) * sizeof *to);
            w->kernel->unzip_q(to, w->a->d, w->a->k.dtype);
        }
    }
    for (int64_t row = 0; w->of_k != NULL && row < r->n_rows; row++)
        r->q_unit[row] = w->of_k->quantise(r->q_integers + row * w->q_integers_stride,
                                           r->q + row * w->q_stride, w->a->d);
}

/* Chunks [begin, end) of KV head first_head + index, the i-th of an item; false if there is nothing to do. */
static bool begin_range(range *r, const attention_decoding *w, int64_t index, int64_t i, int64_t begin,
                        int64_t end, int32_t slot)
{
    const tsr_attention_fwd_args *a = w->a;
    const int64_t head = w->first_head + index;
    *r = (range){.w = w, .s = attention_sequence_of(a, head / a->hkv), .kv_head = head % a->hkv};
    r->lq = r->s.lq, r->n_rows = r->lq * w->group;
    if (!attention_decodes(&r->s) || begin >= end || r->n_rows == 0) return false;
    r->k = (attention_kv){a, &r->s, &a->k, &a->k_scale, r->kv_head};
    r->v = (attention_kv){a, &r->s, &a->v, &a->v_scale, r->kv_head};
    r->gathers = a->k.stride[3] != 1 || a->v.stride[3] != 1;
    r->p = w->scratch + slot * w->scratch_floats;
    r->hidden = r->p + w->n_rows * TSR_DECODE_TILE;
    r->gather = r->hidden + TSR_DECODE_TILE;
    r->q = r->gather + TSR_DECODE_TILE * attention_max(w->q_stride, w->o_stride) + i * w->q_floats;
    r->q_unit = r->q + w->n_rows * w->q_stride;
    r->q_integers = (int16_t *)(void *)(r->q_unit + w->n_rows);
    load_queries(r);

    r->features = features_of(r, 0);
    r->alike = a->alibi.data == NULL && a->bias.data == NULL && a->mask.data == NULL && !r->features.dropout;
    const attention_span seen = attention_keys_seen(&r->features, (attention_span){0, r->lq});
    r->keys = (attention_span){attention_max(seen.begin, begin * TSR_DECODE_CHUNK),
                               attention_min(seen.end, end * TSR_DECODE_CHUNK)};
    return true;
}

/* K's and V's rows of one head and tile. */
typedef struct tile_of_head {
    tile_rows k, v;
} tile_of_head;

static void find_tile(const range *r, attention_span keys, tile_of_head *to)
{
    find_rows(&r->k, keys, &to->k);
    find_rows(&r->v, keys, &to->v);
}

/* Chunk c of the heads' keys, from `key` on; tiles[*now] is the first one's. Returns the key behind. */
static int64_t attend_to_chunk(range *heads, int64_t c, int64_t key, tile_of_head tiles[2], int *now)
{
    const attention_span keys = heads->keys;
    const int64_t n = heads->w->in_turn, last = attention_min((c + 1) * TSR_DECODE_CHUNK, keys.end);
    while (key < last) {
        const attention_span tile = tile_at(keys, key);
        key = tile.end;
        const attention_span after = key < keys.end ? tile_at(keys, key) : (attention_span){key, key};
        for (int64_t i = 0; i < n; i++, *now = !*now) {
            const range *next = &heads[i + 1 < n ? i + 1 : 0];
            tile_of_head *const mine = &tiles[*now], *const ahead = &tiles[!*now];
            find_tile(next, i + 1 < n ? tile : after, ahead);
            fetch_scales(&next->k, ahead->k.keys), fetch_scales(&next->v, ahead->v.keys);
            attend_to_tile(&heads[i], &mine->k, &mine->v, &ahead->k, &ahead->v);
        }
    }
    return key;
}

static void attend_to_range(void *arg, int64_t item, int32_t slot)
{
    const attention_decoding *w = arg;
    const int64_t n_groups = w->n_heads / w->in_turn, first = item % n_groups * w->in_turn;
    const attention_sequence s = attention_sequence_of(w->a, (w->first_head + first) / w->a->hkv);
    const int64_t n_chunks = attention_ceil_div(s.lk, TSR_DECODE_CHUNK),
                  per_range = attention_ceil_div(n_chunks, w->n_ranges);
    const int64_t begin = item / n_groups * per_range, end = attention_min(begin + per_range, n_chunks);
    range heads[ATTENTION_DECODE_MOST_IN_TURN];
    for (int64_t i = 0; i < w->in_turn; i++)
        if (!begin_range(&heads[i], w, first + i, i, begin, end, slot)) return;
    tile_of_head tiles[2];
    int now = 0;
    int64_t key = heads->keys.begin;
    if (key < heads->keys.end) {
        find_tile(heads, tile_at(heads->keys, key), &tiles[now]);
        fetch_rows(&heads->k, &tiles[now].k), fetch_rows(&heads->v, &tiles[now].v);
    }
    for (int64_t c = begin; c < end; c++) {
        for (int64_t i = 0; i < w->in_turn; i++) start_part(&heads[i], first + i, c);
        key = attend_to_chunk(heads, c, key, tiles, &now);
    }
}

/* Merges the chunks of one query head's rows, in order, after the sink: a key that came first, without value.
 */
static void finish(void *arg, int64_t item, int32_t slot)
{
    const attention_decoding *w = arg;
    const tsr_attention_fwd_args *a = w->a;
    const int64_t index = item / w->group, g = item % w->group, kv_head = w->first_head + index;
    const int64_t head = kv_head % a->hkv * w->group + g;
    const attention_sequence s = attention_sequence_of(a, kv_head / a->hkv);
    if (!attention_decodes(&s)) return;
    const float sink = a->sinks.data != NULL ? ((const float *)a->sinks.data)[head * a->sinks.stride[0]]
                                             : -INFINITY;
    const attention_rows lse = attention_q_rows(&a->lse, &s, head, 0);
    attention_rows out = attention_q_rows(&a->out, &s, head, 0);
    float *o = w->scratch + slot * w->scratch_floats;
    for (int64_t i = 0; i < s.q_rows; i++, out.data = attention_row(&out, 1)) {
        float m = sink * 1.44269504f, l = sink == -INFINITY || i >= s.lq ? 0 : 1;
        memset(o, 0, (size_t)a->dv * sizeof *o);
        for (int64_t c = 0; i < s.lq && c * TSR_DECODE_CHUNK < s.lk; c++) {
            const part p = part_of(w, index, c);
            const int64_t row = g * s.lq + i;
            w->kernel->merge(1, &m, &l, o, p.m[row], p.l[row], p.o + row * w->o_stride, a->dv);
        }
        if (l == 0)
            attention_clear_rows(&out, 1, a->dv);
        else
            w->cpu->attention_score_f32->store(out.data, out.dtype, out.col, o, a->dv, 1 / l);
        if (lse.data != NULL)
            ((float *)lse.data)[i * lse.row] = l == 0 ? -INFINITY : m * 0.693147181f + logf(l);
    }
}

void attention_decode(const tsr_cpu *cpu, const tsr_attention_fwd_args *a, void *workspace)
{
    tsr_arena arena = {.base = workspace, .capacity = SIZE_MAX};
    attention_decoding w = attention_decode_plan(cpu, a, &arena);
    attention_decode_deal(&w);
    const int64_t heads = a->b * a->hkv;
    for (w.first_head = 0; w.first_head < heads; w.first_head += w.heads_per_round) {
        const int64_t n = w.n_heads = attention_min(w.heads_per_round, heads - w.first_head);
        tsr_threads_run(cpu->threads, n / w.in_turn * w.n_ranges, attend_to_range, &w);
        tsr_threads_run(cpu->threads, n * w.group, finish, &w);
    }
}
