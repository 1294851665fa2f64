/* backend/cpu/attention_decode_plan.c - attention of few queries: sizes, items and the workspace */
#include "backend/cpu/attention_decode_plan.h"

/* q of 16 bits has no more to lose than what K and V in integers cost. */
static void choose_integers(attention_decoding *w)
{
    const tsr_attention_fwd_args *a = w->a;
    if (a->q.dtype == TSR_F32) return;
    if (a->k.dtype == TSR_S8 && a->d <= TSR_DECODE_S8_MAX_D) w->of_k = w->cpu->attention_decode_s8;
    if (a->v.dtype == TSR_S8) w->of_v = w->cpu->attention_decode_s8;
    if (w->of_k != NULL) w->q_integers_stride = attention_round_up(a->d, 32);
}

/*
 * How many KV heads take turns, where they are nearer to each other than keys are: equal groups, which a
 * round has room for, whose Q and O stay in the second cache, and which leave the threads items enough.
 */
static int64_t heads_in_turn(const attention_decoding *w, int64_t n_threads, int64_t n_chunks)
{
    enum { ITEMS_PER_THREAD = 4, NEAR_NBYTES = 256 << 10 };
    const tsr_attention_fwd_args *a = w->a;
    if (a->k.stride[1] >= a->k.stride[2] || a->v.stride[1] >= a->v.stride[2]) return 1;
    const int64_t near = (w->q_floats + w->part_floats) * (int64_t)sizeof(float);
    int64_t n = attention_min(attention_max(a->hkv, 1), ATTENTION_DECODE_MOST_IN_TURN);
    while (n > 1 && (a->hkv % n != 0 || n > w->heads_per_round || n * near > NEAR_NBYTES ||
                     a->hkv / n * n_chunks < ITEMS_PER_THREAD * n_threads))
        n--;
    return n;
}

/*
 * n_chunks: of all sequences. The fewer they are the fewer heads take turns; then there are enough ranges
 * that the last to finish matters little, each as long as that allows.
 */
static void deal_items(attention_decoding *w, int64_t n_chunks)
{
    const int64_t n_threads = tsr_threads_count(w->cpu->threads);
    w->in_turn = heads_in_turn(w, n_threads, n_chunks);
    w->heads_per_round -= w->heads_per_round % w->in_turn;
    const int64_t groups = attention_max(w->heads_per_round / w->in_turn, 1);
    const int64_t wanted = w->a->splits > 0 ? w->a->splits : attention_ceil_div(16 * n_threads, groups);
    w->n_ranges = attention_max(1, attention_min(wanted, w->n_chunks));
}

attention_decoding attention_decode_plan(const tsr_cpu *cpu, const tsr_attention_fwd_args *a,
                                         tsr_arena *arena)
{
    attention_decoding w = {.cpu = cpu, .a = a, .kernel = cpu->attention_decode_f32};
    if (!attention_size_fits(a)) {
        arena->used = SIZE_MAX;
        return w;
    }
    const int64_t heads = a->b * a->hkv, n_threads = tsr_threads_count(cpu->threads);
    w.group = heads > 0 ? a->hq / a->hkv : 0;
    w.n_rows = w.group * attention_min(a->lq, TSR_DECODE_LQ);
    w.n_chunks = attention_ceil_div(a->lk, TSR_DECODE_CHUNK);
    w.q_stride = attention_round_up(a->d, 16);
    w.o_stride = attention_round_up(a->dv, 16);
    w.part_floats = attention_round_up(w.n_rows * (w.o_stride + 2), 16);
    choose_integers(&w);
    w.q_floats = attention_round_up(w.n_rows * (w.q_stride + 1 + w.q_integers_stride / 2), 16);
    /* As many heads as 2 MiB of parts per thread take: short sequences are many to a round. */
    const int64_t room = n_threads * ((int64_t)2 << 20) / (int64_t)sizeof(float);
    const int64_t head_floats = attention_max(w.n_chunks * w.part_floats, 1);
    w.heads_per_round = attention_min(heads, attention_max(1, room / head_floats));
    deal_items(&w, a->b * w.n_chunks);
    w.scratch_floats = w.n_rows * TSR_DECODE_TILE + TSR_DECODE_TILE +
                       TSR_DECODE_TILE * attention_max(w.q_stride, w.o_stride) + w.in_turn * w.q_floats;

    w.parts = tsr_arena_take(arena, (size_t)(w.heads_per_round * w.n_chunks),
                             (size_t)w.part_floats * sizeof(float));
    w.scratch = tsr_arena_take(arena, (size_t)n_threads, (size_t)w.scratch_floats * sizeof(float));
    return w;
}

/* Chunks that some query of a sequence sees, and that may be an item's of their own; of all sequences. */
static int64_t chunks_to_read(const attention_decoding *w)
{
    const tsr_attention_fwd_args *a = w->a;
    int64_t n = 0;
    for (int64_t b = 0; b < a->b && w->n_rows > 0; b++) {
        const attention_sequence s = attention_sequence_of(a, b);
        const tsr_attention_features f = attention_features_of(a, &s, 0);
        const attention_span seen = attention_keys_seen(&f, (attention_span){0, s.lq});
        if (!attention_decodes(&s) || seen.begin >= seen.end) continue;
        const int64_t chunks = attention_ceil_div(seen.end, TSR_DECODE_CHUNK) - seen.begin / TSR_DECODE_CHUNK;
        n += a->splits > 0 ? attention_min(a->splits, chunks) : chunks;
    }
    return n;
}

void attention_decode_deal(attention_decoding *w) { deal_items(w, chunks_to_read(w)); }
