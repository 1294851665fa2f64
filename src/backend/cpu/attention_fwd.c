/*
 * backend/cpu/attention_fwd.c - flash attention, forward
 *
 *     for key tiles:   S = Q K^T     (m, P, l) <- softmax(S)     O = (rescaled O) + P V          out = O / l
 *
 * K and V of a KV head are packed once for all query blocks:
 *
 *     K   per nr keys a panel [D][nr]
 *     V   per tile and nr columns a strip [keys][nr], unless its rows serve where they lie
 *
 * in words of 32 bits: an f32, or two bf16 where the set multiplies them. Those sums are f32 too; P is
 * rounded to bf16 for its product with V.
 *
 * Many heads are an item each, all of which one thread does: what it packed is still in its own cache. Few
 * heads are served in rounds: their K and V are packed by all threads, then every query block of every query
 * head is an item. Q [BM, D], O [BM, Dv], m and l of a block live in the slot's scratch, where the second
 * cache holds them; S only of the group of rows, as many as the micro-kernel has, that is under way, in the
 * first (on AMX, whose tiles have more keys, in the second, but where run_scores makes P of it block by
 * block: then a group's P V may wait for the next group's softmax, beside which it is multiplied, and P takes
 * turns in two places). Key tiles are counted from each sequence's key 0 and have a length that is a constant
 * of the kernels, so that a row's result depends on nothing but its data. Sequences of few queries are
 * attention_decode.c's; the two share the workspace, one after the other.
 *
 * workspace   | head (slot) 0: K V | head 1: K V | .. | v_finite | slot 0: Q P S O m l gather | ..
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_decode.h"
#include "backend/cpu/attention_product.h"
#include "backend/indices.h"
#include "base/error.h"

/* Heads are items from so many on: the last to finish is then a small part of a thread's work. */
enum { HEADS_PER_THREAD = 16 };

typedef struct forward {
    const tsr_cpu *cpu;
    const tsr_attention_fwd_args *a;
    const tsr_gemm_kernel *gemm;
    const tsr_attention_score_f32_kernel *score;
    int64_t group;                        /* query heads to a KV head */
    int64_t bm, bn;                       /* queries and keys of a tile */
    int64_t n_blocks, n_tiles;            /* of the longest sequence, padding included */
    bool bf16;                            /* the products' operands are; else f32 */
    int64_t q_words;                      /* of a row of Q and K */
    int64_t q_stride, s_stride, o_stride; /* words between rows */
    int64_t l_row;                        /* floats of a row of l, whose sum is meant */
    bool fuses_softmax;                   /* with the product before it, where groups are whole */
    bool values_wait;                     /* P V goes along with the next group's softmax */
    int64_t p_words;                      /* between rows of P, which lies apart then */
    int64_t group_floats;                 /* of a group's scores, and P */
    int64_t v_at, head_floats;            /* in a packed head: where V begins, its length */
    int64_t scratch_floats;               /* of a slot */
    bool v_in_place;                      /* V is read where it lies */
    bool gathers;                         /* k and v are in pages or int8: a tile becomes rows first */
    bool by_head;                         /* heads are items; a round's places are the slots' */
    int64_t heads_per_round, first_head;  /* KV heads, counted over the batch: b * hkv + head */
    float *packed, *scratch;
    uint8_t *v_finite; /* [heads_per_round][n_tiles] */
} forward;

/* One of many sequences may be most of the work, which a single thread is not to do. */
static bool lengths_differ(const tsr_attention_fwd_args *a)
{
    return a->seqlens_q.data != NULL || a->seqlens_k.data != NULL || a->cu_seqlens_q.data != NULL ||
           a->cu_seqlens_k.data != NULL;
}

/* Lays the workspace out; over an arena that counts, only measures it. */
static void lay_out(forward *w, const tsr_cpu *cpu, const tsr_attention_fwd_args *a, tsr_arena *arena)
{
    *w = (forward){.cpu = cpu, .a = a, .score = cpu->attention_score_f32};
    w->gemm = attention_gemm(cpu, a);
    w->bf16 = w->gemm != cpu->gemm_f32;
    if (!attention_size_fits(a)) {
        arena->used = SIZE_MAX;
        return;
    }
    const int64_t nr = w->gemm->nr, n_threads = tsr_threads_count(cpu->threads), heads = a->b * a->hkv;
    w->group = heads > 0 ? a->hq / a->hkv : 0;
    w->bm = attention_max(1, w->gemm->attention.fwd_queries / w->gemm->mr) * w->gemm->mr;
    w->bn = w->gemm->attention.fwd_keys;
    assert(!w->bf16 || w->gemm->nr % (2 * w->score->lanes) == 0);
    assert(w->bm <= ATTENTION_MAX_GROUPS * w->gemm->mr && w->bn % (w->gemm->k_word * w->gemm->k_align) == 0);
    w->n_blocks = attention_round_up(a->lq, w->bm) / w->bm;
    w->n_tiles = attention_round_up(a->lk, w->bn) / w->bn;
    w->q_words = attention_words(w->gemm, a->d);
    w->q_stride = attention_stride(w->q_words, 16);
    w->s_stride = attention_stride(w->bn, nr);
    w->o_stride = attention_stride(a->dv, nr);
    w->v_at = attention_round_up(a->lk, nr) * w->q_words;
    w->gathers = attention_is_paged(a) || a->k.dtype == TSR_S8;
    const attention_rows v = {.dtype = a->v.dtype, .row = a->v.stride[2], .col = a->v.stride[3]};
    w->v_in_place = !w->bf16 && !w->gathers && attention_in_place(w->gemm, &v, a->dv);
    const int64_t v_words = attention_words(w->gemm, a->lk) * attention_round_up(a->dv, nr);
    w->head_floats = attention_round_up(w->v_at + (w->v_in_place ? 0 : v_words), 16);
    w->l_row = w->bf16 ? w->score->lanes : 1;
    w->fuses_softmax = a->d > 0 && w->gemm->run_scores != NULL && w->gemm->lanes == w->score->lanes;
    w->p_words = attention_stride(w->bn / w->gemm->k_word, 16);
    assert(!w->fuses_softmax || w->s_stride >= TSR_ATTENTION_BLOCKS * nr);
    w->values_wait = w->fuses_softmax && a->dv > 0 && w->q_words <= w->gemm->attention.values_words;
    w->group_floats = w->gemm->mr * (w->s_stride + (w->fuses_softmax ? 2 * w->p_words : 0));
    w->scratch_floats = w->bm * (w->q_stride + w->o_stride + 1 + w->l_row) + w->group_floats + w->bn * nr;
    if (w->gathers) w->scratch_floats = attention_max(w->scratch_floats, w->bn * attention_max(a->d, a->dv));
    w->scratch_floats = attention_round_up(w->scratch_floats, 16);
    /* As many heads as one per thread and 1 MiB take, the same number in every round. */
    const int64_t spare = ((int64_t)1 << 20) / (int64_t)sizeof(float);
    const int64_t most = n_threads + n_threads * spare / attention_max(w->head_floats, 1);
    const int64_t n_rounds = attention_max(1, (heads + most - 1) / most);
    w->by_head = (lengths_differ(a) ? a->hkv : heads) >= HEADS_PER_THREAD * n_threads;
    w->heads_per_round = w->by_head ? n_threads : (heads + n_rounds - 1) / n_rounds;

    w->packed = tsr_arena_take(arena, (size_t)w->heads_per_round, (size_t)w->head_floats * sizeof(float));
    w->v_finite = tsr_arena_take(arena, (size_t)w->heads_per_round, (size_t)w->n_tiles);
    w->scratch = tsr_arena_take(arena, (size_t)n_threads, (size_t)w->scratch_floats * sizeof(float));
}

size_t cpu_attention_fwd_workspace(const void *state, const tsr_attention_fwd_args *a)
{
    tsr_arena arena = {0};
    forward w;
    if (!attention_only_decodes(a)) lay_out(&w, state, a, &arena);
    const size_t decoding = attention_may_decode(a) ? attention_decode_workspace(state, a) : 0;
    return decoding > arena.used ? decoding : arena.used;
}

/* A tile's rows of k or v: where they lie, or gathered as what is multiplied. */
static attention_rows rows_of_tile(const forward *w, const attention_kv *x, attention_span keys,
                                   float *scratch)
{
    if (!w->gathers) return attention_k_rows(x->t, x->s, x->head, keys.begin);
    const int64_t d = x->t->shape[3];
    attention_rows rows = {.data = scratch, .dtype = w->bf16 ? TSR_BF16 : TSR_F32, .row = d, .col = 1};
    if (w->bf16)
        attention_gather_kv_as_is(x, keys, rows.data);
    else
        attention_gather_kv(w->cpu, x, keys, scratch);
    return rows;
}

/* One key tile of one KV head to place `index`: K as panels, V as strips. */
static void pack_tile(const forward *w, int64_t kv_head, int64_t index, int64_t tile, int32_t slot)
{
    const tsr_attention_fwd_args *a = w->a;
    const int64_t head = kv_head % a->hkv, nr = w->gemm->nr;
    const attention_sequence s = attention_sequence_of(a, kv_head / a->hkv);
    const int64_t begin = tile * w->bn, end = attention_min(begin + w->bn, s.lk), n = end - begin;
    if (n <= 0 || attention_decodes(&s)) return;

    float *packed = w->packed + index * w->head_floats, *scratch = w->scratch + slot * w->scratch_floats;
    const attention_kv keys = {a, &s, &a->k, &a->k_scale, head}, values = {a, &s, &a->v, &a->v_scale, head};
    const attention_rows k = rows_of_tile(w, &keys, (attention_span){begin, end}, scratch);
    for (int64_t j = 0; j < n; j += nr)
        w->gemm->pack_b(packed + (begin + j) * w->q_words, attention_row(&k, j), k.dtype, k.col, k.row, a->d,
                        attention_min(nr, n - j));
    const attention_rows v = rows_of_tile(w, &values, (attention_span){begin, end}, scratch);
    const bool hidden_keys = a->mask.data != NULL || a->window_left >= 0 || a->window_right >= 0;
    float *strips = packed + w->v_at + begin / w->gemm->k_word * attention_round_up(a->dv, nr);
    const attention_right right = w->v_in_place ? (attention_right){v.data, v.row, nr}
                                                : attention_pack_right(w->gemm, &v, n, a->dv, strips);
    w->v_finite[index * w->n_tiles + tile] = hidden_keys &&
                                             attention_right_is_finite(w->cpu, w->gemm, &right, n, a->dv);
}

/* Memory that will be wanted. */
typedef struct attention_part {
    const void *from;
    int64_t nbytes;
} attention_part;

/* A query block, with its scratch. */
typedef struct block {
    const forward *w;
    tsr_attention_features features;
    attention_span queries;
    attention_left q;
    const float *k;     /* packed */
    attention_matrix v; /* packed; or rows */
    const uint8_t *v_finite;
    float *s, *o, *m, *l, *gather;
    int32_t turn;                               /* of P's two places, where P V waits */
    tsr_attention_values waiting;               /* the last group's P V; n_strips 0: none */
    bool begun[ATTENTION_MAX_GROUPS];           /* groups of rows that have an O to add to */
    attention_part wanted[TSR_ATTENTION_AHEAD]; /* K, V, out and Q, fetched along with the softmax */
} block;

/* What the group from row i on fetches of a part: all groups as much. */
static attention_part share_of(const block *b, int64_t i, const attention_part *part)
{
    const int64_t mr = b->w->gemm->mr, n_groups = (b->queries.end - b->queries.begin + mr - 1) / mr;
    const int64_t share = attention_round_up((part->nbytes + n_groups - 1) / n_groups, 64);
    return (attention_part){(const char *)part->from + i / mr * share, share};
}

/* Which block of queries: `number` counts a KV head's blocks, from the last queries back (the longest under a
 * causal mask), the heads of its group innermost. kv_head -1: none. */
typedef struct block_id {
    int64_t kv_head, number;
} block_id;

static int64_t first_query(const forward *w, int64_t number)
{
    return (w->n_blocks - 1 - number / w->group) * w->bm;
}

static int64_t query_head(const forward *w, const block_id *x)
{
    return x->kv_head % w->a->hkv * w->group + x->number % w->group;
}

/* n rows of d elements, if they lie in line. */
static attention_part part_of_rows(const attention_rows *rows, int64_t n, int64_t d)
{
    const bool in_line = n > 0 && rows->col == 1 && rows->row == d;
    return (attention_part){rows->data, in_line ? n * d * (int64_t)tsr_dtype_nbytes(rows->dtype) : 0};
}

/* K and V of a key tile, as they are packed. */
static void want_tile(block *b, int64_t tile)
{
    const forward *w = b->w;
    const int64_t begin = tile * w->bn, n = attention_min(w->bn, b->features.lk - begin), nr = w->gemm->nr;
    const int64_t k_words = attention_round_up(n, nr) * w->q_words;
    const int64_t v_words = attention_words(w->gemm, n) * attention_round_up(w->a->dv, nr);
    b->wanted[0] = (attention_part){b->k + begin * w->q_words, k_words * 4};
    b->wanted[1] = (attention_part){b->v.data + begin / w->gemm->k_word * b->v.stride, v_words * 4};
}

/* Beside the last tile: the rows of out that the block will write; the next one's Q; and if that is another
 * head's, which this thread packs, the first tile of its K and V. */
static void want_next(block *b, const attention_sequence *s, int64_t head, const block_id *now,
                      const block_id *next)
{
    const forward *w = b->w;
    const tsr_attention_fwd_args *a = w->a;
    const int64_t first = b->queries.begin;
    const attention_rows out = attention_q_rows(&a->out, s, head, first);
    b->wanted[2] = part_of_rows(&out, b->queries.end - first, a->dv);
    if (next->kv_head < 0) return;
    const attention_sequence s_next = attention_sequence_of(a, next->kv_head / a->hkv);
    const int64_t first_next = first_query(w, next->number), n = attention_min(w->bn, s_next.lk);
    if (first_next >= s_next.lq) return;
    const attention_rows q = attention_q_rows(&a->q, &s_next, query_head(w, next), first_next);
    b->wanted[3] = part_of_rows(&q, attention_min(w->bm, s_next.lq - first_next), a->d);
    if (!w->by_head || w->gathers || next->kv_head == now->kv_head) return;
    const attention_rows k = attention_k_rows(&a->k, &s_next, next->kv_head % a->hkv, 0);
    const attention_rows v = attention_k_rows(&a->v, &s_next, next->kv_head % a->hkv, 0);
    b->wanted[0] = part_of_rows(&k, n, a->d);
    b->wanted[1] = part_of_rows(&v, n, a->dv);
}

/* The product that waits for a softmax to go along with goes by itself. */
static void multiply_waiting(block *b)
{
    const forward *w = b->w;
    const tsr_attention_values *x = &b->waiting;
    if (x->n_strips == 0) return;
    const attention_product out = {.gemm = w->gemm,
                                   .a = x->p,
                                   .a_row = x->p_stride,
                                   .a_k = 1,
                                   .b = x->v,
                                   .b_row = w->gemm->nr,
                                   .b_strip = x->v_strip,
                                   .c = x->o,
                                   .c_row = x->o_stride,
                                   .m = w->gemm->mr,
                                   .n = w->a->dv,
                                   .k = x->depth * w->gemm->k_word,
                                   .alpha = 1,
                                   .beta = x->adds ? 1 : 0};
    const attention_span depth = {0, out.k};
    attention_product_depth(&out, &depth);
    b->waiting.n_strips = 0;
}

/* P of a group of rows, from row i on, and a key tile; its scores stay in the cache. ahead: this tile's V,
 * fetched unless the softmax goes along with the product (*fused), which fetches what is `wanted`. */
static attention_left softmax_of_group(block *b, int64_t i, attention_span keys, attention_span seen,
                                       const float *ahead, bool *fused)
{
    const forward *w = b->w;
    const int64_t nr = w->gemm->nr, mr = w->gemm->mr, k_word = w->gemm->k_word;
    const int64_t rows = attention_min(mr, b->queries.end - b->queries.begin - i);
    const void *q = attention_left_row(w->gemm, &b->q, i);
    const float *k = b->k + keys.begin * w->q_words;
    float *m = b->m + i, *l = b->l + i * w->l_row, *o = b->o + i * w->o_stride;
    const int64_t dv = b->begun[i / mr] ? w->a->dv : 0; /* columns of O to scale when m rises */
    float *s = b->s, *p_at = b->s;
    if (w->fuses_softmax) s += 2 * mr * w->p_words, p_at += b->turn * mr * w->p_words;
    tsr_attention_rows t = {.features = &b->features,
                            .row = b->queries.begin + i,
                            .n_rows = rows,
                            .key = keys.begin,
                            .begin = seen.begin,
                            .end = seen.end,
                            .s = s,
                            .s_stride = w->s_stride,
                            .alpha = b->features.alpha,
                            .to_bf16 = w->bf16,
                            .p = (uint16_t *)(void *)p_at,
                            .p_stride = (w->fuses_softmax ? w->p_words : w->s_stride) * k_word};
    const attention_left p = {t.p, t.p_stride};
    tsr_attention_group group = {.rows = t};
    *fused = w->fuses_softmax && rows == mr && w->score->is_windowed(&t, group.whole);
    if (*fused) {
        for (int j = 0; j < TSR_ATTENTION_AHEAD; j++) {
            if (b->wanted[j].nbytes == 0) continue;
            const attention_part share = share_of(b, i, &b->wanted[j]);
            group.ahead[j] = share.from, group.ahead_nbytes[j] = share.nbytes;
        }
        group.q = q, group.q_row = b->q.row;
        group.k = k, group.k_words = w->q_words;
        group.m = m, group.l = l;
        group.o = o, group.o_stride = w->o_stride, group.dv = dv;
        group.score = w->score;
        if (b->waiting.o == o) multiply_waiting(b); /* a maximum that rises scales O */
        group.values = b->waiting.n_strips > 0 ? &b->waiting : NULL;
        w->gemm->run_scores(&group);
        b->waiting.n_strips = 0;
        return p;
    }
    multiply_waiting(b);
    const attention_product scores = {.gemm = w->gemm,
                                      .a = q,
                                      .a_row = b->q.row,
                                      .a_k = 1,
                                      .b = k,
                                      .b_row = nr,
                                      .b_strip = nr * w->q_words,
                                      .c = s,
                                      .c_row = w->s_stride,
                                      .m = rows,
                                      .n = keys.end - keys.begin,
                                      .k = w->a->d,
                                      .alpha = 1,
                                      .beta = 0,
                                      .ahead = ahead};
    attention_product_columns(&scores, &seen);
    w->score->forward(&t, m, l, o, w->o_stride, dv);
    return p;
}

/* One group of rows, from row i on, against a key tile. */
static void attend_as_group(block *b, int64_t i, attention_span keys, attention_span seen, bool all)
{
    const forward *w = b->w;
    const int64_t nr = w->gemm->nr, k_word = w->gemm->k_word, n = keys.end - keys.begin;
    const bool lies_in_line = !w->v_in_place || b->v.stride == w->a->dv;
    const float *k = b->k + keys.begin * w->q_words, *v = b->v.data + keys.begin / k_word * b->v.stride;
    bool fused;
    const attention_left p = softmax_of_group(b, i, keys, seen, i == 0 && lies_in_line ? v : NULL, &fused);
    const attention_product out = {.gemm = w->gemm,
                                   .a = p.data,
                                   .a_row = p.row,
                                   .a_k = 1,
                                   .b = v,
                                   .b_row = w->v_in_place ? b->v.stride : nr,
                                   .b_strip = w->v_in_place ? nr : nr * attention_words(w->gemm, n),
                                   .c = b->o + i * w->o_stride,
                                   .c_row = w->o_stride,
                                   .m = attention_min(w->gemm->mr, b->queries.end - b->queries.begin - i),
                                   .n = w->a->dv,
                                   .k = n,
                                   .alpha = 1,
                                   .beta = b->begun[i / w->gemm->mr] ? 1 : 0,
                                   .ahead = i == 0 && !fused && keys.end < b->features.lk ? k + n * w->q_words
                                                                                          : NULL};
    if (fused && all && w->values_wait) {
        b->turn = !b->turn;
        b->waiting = (tsr_attention_values){.p = (const uint16_t *)p.data + seen.begin,
                                            .p_stride = p.row,
                                            .v = v + seen.begin / k_word * nr,
                                            .v_strip = out.b_strip,
                                            .depth = attention_words(w->gemm, seen.end - seen.begin),
                                            .o = out.c,
                                            .o_stride = out.c_row,
                                            .n_strips = attention_round_up(w->a->dv, nr) / nr,
                                            .adds = out.beta != 0};
    } else if (all) {
        attention_product_depth(&out, &seen);
    } else {
        const attention_pairs pairs = {&b->features, b->queries.begin + i, keys.begin, false};
        attention_product_visible(&out, &seen, &pairs, b->gather);
    }
    b->begun[i / w->gemm->mr] = true;
}

static void attend_to_tile(block *b, int64_t tile)
{
    const forward *w = b->w;
    const int64_t mr = w->gemm->mr, rows = b->queries.end - b->queries.begin;
    const attention_span keys = {tile * w->bn, attention_min((tile + 1) * w->bn, b->features.lk)};
    if (!attention_mask_shows(&b->features, b->queries, keys)) return;

    attention_span seen[ATTENTION_MAX_GROUPS];
    attention_columns_seen(&b->features, b->queries, keys, mr, w->gemm->nr, seen);
    const bool all = b->v_finite[tile] || attention_sees_all(&b->features, b->queries, keys);
    for (int64_t i = 0, g = 0; i < rows; i += mr, g++)
        if (seen[g].begin < seen[g].end) attend_as_group(b, i, keys, seen[g], all);
}

/* out = O / l and lse of the rows from `first` on; rows that are padding are empty. */
static void finish(const block *b, const attention_sequence *s, int64_t head, int64_t first, int64_t n_rows)
{
    const forward *w = b->w;
    const int64_t used = b->queries.end - b->queries.begin, mr = w->gemm->mr;
    for (int64_t i = 0; i < used; i += mr) /* groups that saw no key: with a sink l is 1, so that O is read */
        if (!b->begun[i / mr])
            memset(b->o + i * w->o_stride, 0,
                   (size_t)(attention_min(mr, used - i) * w->o_stride) * sizeof *b->o);
    const attention_rows lse = attention_q_rows(&w->a->lse, s, head, first);
    attention_rows out = attention_q_rows(&w->a->out, s, head, first);
    const tsr_attention_outputs outputs = {.n_rows = used,
                                           .dv = w->a->dv,
                                           .o = b->o,
                                           .m = b->m,
                                           .l = b->l,
                                           .o_stride = w->o_stride,
                                           .l_row = w->l_row,
                                           .kept = w->bf16 ? attention_keep_scale(w->a) : 1,
                                           .out = out.data,
                                           .dtype = out.dtype,
                                           .out_row = out.row,
                                           .out_col = out.col,
                                           .lse = lse.data,
                                           .lse_row = lse.row};
    w->score->finish(&outputs);
    out.data = attention_row(&out, used);
    attention_clear_rows(&out, n_rows - used, w->a->dv);
    for (int64_t i = used; i < n_rows && lse.data != NULL; i++) ((float *)lse.data)[i * lse.row] = -INFINITY;
}

static void start(block *b, const attention_sequence *s, int64_t head, float *q, float *packed)
{
    const forward *w = b->w;
    const tsr_tensor *sinks = &w->a->sinks;
    const int64_t n = b->queries.end - b->queries.begin;
    const attention_rows rows = attention_q_rows(&w->a->q, s, head, b->queries.begin);
    b->q = attention_left_of(w->gemm, &rows, n, w->a->d, q, w->q_stride);
    b->k = packed;
    b->v = (attention_matrix){packed + w->v_at, attention_round_up(w->a->dv, w->gemm->nr)};
    if (w->v_in_place) {
        const attention_rows v = attention_k_rows(&w->a->v, s, head / w->group, 0);
        b->v = (attention_matrix){v.data, v.row};
    }
    memset(b->l, 0, (size_t)(n * w->l_row) * sizeof *b->l);
    /* A sink is a key that came first and has no value. */
    const float sink = sinks->data != NULL ? ((const float *)sinks->data)[head * sinks->stride[0]]
                                           : -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        b->m[i] = sink * 1.44269504f;
        b->l[i * w->l_row] = sink == -INFINITY ? 0 : 1;
    }
}

/* A block of queries, whose packed K and V are at place `index`; this thread's next one is probably `next`.
 */
static void attend_to_block(const forward *w, block_id now, int64_t index, block_id next, int32_t slot)
{
    const tsr_attention_fwd_args *a = w->a;
    const int64_t head = query_head(w, &now), first = first_query(w, now.number);
    const attention_sequence s = attention_sequence_of(a, now.kv_head / a->hkv);
    const int64_t n_rows = attention_min(w->bm, s.q_rows - first);
    if (n_rows <= 0 || attention_decodes(&s)) return;

    float *q = w->scratch + slot * w->scratch_floats;
    block b = {.w = w,
               .features = attention_features_of(a, &s, head),
               .queries = {first, attention_max(first, attention_min(first + n_rows, s.lq))},
               .v_finite = w->v_finite + index * w->n_tiles,
               .s = q + w->bm * w->q_stride};
    b.o = b.s + w->group_floats;
    b.m = b.o + w->bm * w->o_stride;
    b.l = b.m + w->bm;
    b.gather = b.l + w->bm * w->l_row;

    if (b.queries.begin < b.queries.end) {
        char tiles[64];
        if (w->gemm->enter != NULL) w->gemm->enter(tiles);
        start(&b, &s, head, q, w->packed + index * w->head_floats);
        const attention_span keys = attention_keys_seen(&b.features, b.queries);
        for (int64_t t = keys.begin / w->bn; t * w->bn < keys.end; t++) {
            const bool is_last = (t + 1) * w->bn >= keys.end;
            want_tile(&b, is_last ? keys.begin / w->bn : t + 1);
            if (is_last) want_next(&b, &s, head, &now, &next);
            attend_to_tile(&b, t);
        }
        multiply_waiting(&b);
        if (w->gemm->leave != NULL) w->gemm->leave(tiles);
    }
    finish(&b, &s, head, first, n_rows);
}

static void pack_item(void *arg, int64_t item, int32_t slot)
{
    const forward *w = arg;
    const int64_t index = item / w->n_tiles;
    pack_tile(w, w->first_head + index, index, item % w->n_tiles, slot);
}

static void attend_to_item(void *arg, int64_t item, int32_t slot)
{
    const forward *w = arg;
    const int64_t per_head = w->n_blocks * w->group, after = item + tsr_threads_count(w->cpu->threads);
    const int64_t heads = attention_min(w->heads_per_round, w->a->b * w->a->hkv - w->first_head);
    const block_id now = {w->first_head + item / per_head, item % per_head};
    const block_id next = {after < heads * per_head ? w->first_head + after / per_head : -1,
                           after % per_head};
    attend_to_block(w, now, item / per_head, next, slot);
}

static void attend_to_head(void *arg, int64_t head, int32_t slot)
{
    const forward *w = arg;
    const int64_t n = w->n_blocks * w->group, after = head + tsr_threads_count(w->cpu->threads);
    for (int64_t tile = 0; tile < w->n_tiles; tile++) pack_tile(w, head, slot, tile, slot);
    for (int64_t i = 0; i < n; i++) {
        const block_id other = {after < w->a->b * w->a->hkv ? after : -1, 0};
        attend_to_block(w, (block_id){head, i}, slot, i + 1 < n ? (block_id){head, i + 1} : other, slot);
    }
}

tsr_status cpu_attention_fwd(void *state, const tsr_attention_fwd_args *a, void *workspace)
{
    const tsr_cpu *cpu = state;
    TSR_TRY(tsr_check_attention_lengths(a));
    if (attention_may_decode(a)) attention_decode(cpu, a, workspace);
    if (attention_only_decodes(a)) return TSR_OK;
    forward w;
    tsr_arena arena = {.base = workspace, .capacity = SIZE_MAX};
    lay_out(&w, cpu, a, &arena);
    const int64_t heads = a->b * a->hkv;
    if (w.by_head) {
        tsr_threads_run(cpu->threads, heads, attend_to_head, &w);
        return TSR_OK;
    }
    for (w.first_head = 0; w.first_head < heads; w.first_head += w.heads_per_round) {
        const int64_t n = attention_min(w.heads_per_round, heads - w.first_head);
        tsr_threads_run(cpu->threads, n * w.n_tiles, pack_item, &w);
        tsr_threads_run(cpu->threads, n * w.n_blocks * w.group, attend_to_item, &w);
    }
    return TSR_OK;
}
