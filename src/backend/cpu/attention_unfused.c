/*
 * backend/cpu/attention_unfused.c - S = Q K^T, a safe softmax in three passes, O = P V
 *
 * The passes over a row of S: features and maximum; exponential and sum; division by the sum.
 */
#include "backend/cpu/attention_unfused.h"

#include <math.h>
#include <string.h>

#include "backend/indices.h"
#include "base/error.h"

bool unfused_lay_out(attention_unfused *u, const tsr_cpu *cpu, const tsr_attention_fwd_args *a,
                     tsr_arena *arena)
{
    *u = (attention_unfused){.cpu = cpu, .a = a};
    if (!attention_size_fits(a)) {
        arena->used = SIZE_MAX;
        return false;
    }
    const bool one_length = a->cu_seqlens_q.data == NULL && a->seqlens_q.data == NULL &&
                            a->seqlens_k.data == NULL;
    u->n = one_length ? a->b : attention_min(a->b, 1);
    u->s_stride = attention_stride(a->lk, 16);
    u->n_blocks = attention_round_up(a->lq, UNFUSED_ROWS) / UNFUSED_ROWS;
    u->q = tsr_arena_take(arena, (size_t)(u->n * a->hq), (size_t)(a->lq * a->d) * sizeof(float));
    u->k = tsr_arena_take(arena, (size_t)(u->n * a->hkv), (size_t)(a->lk * a->d) * sizeof(float));
    u->v = tsr_arena_take(arena, (size_t)(u->n * a->hkv), (size_t)(a->lk * a->dv) * sizeof(float));
    u->s = tsr_arena_take(arena, (size_t)(u->n * a->hq * a->lq), (size_t)u->s_stride * sizeof(float));
    return true;
}

tsr_gemm_args unfused_product(const attention_unfused *u, int64_t heads, int64_t m, int64_t n, int64_t k,
                              float alpha, unfused_matrix a, unfused_matrix b, unfused_matrix c)
{
    tsr_gemm_args g = {.m = m, .n = n, .k = k, .batch = u->n, .num_heads = heads, .alpha = alpha};
    const unfused_matrix from[3] = {a, b, c};
    tsr_gemm_matrix *const to[3] = {&g.a, &g.b, &g.c};
    for (int i = 0; i < 3; i++)
        *to[i] = (tsr_gemm_matrix){.data = from[i].data,
                                   .batch = heads / from[i].group * from[i].head,
                                   .head = from[i].head,
                                   .row = from[i].row,
                                   .col = from[i].col,
                                   .group = from[i].group,
                                   .dtype = TSR_F32};
    return g;
}

tsr_gemm_args unfused_scores(const attention_unfused *u)
{
    const tsr_attention_fwd_args *a = u->a;
    const attention_sequence s = {.lq = a->lq, .lk = a->lk};
    tsr_attention_fwd_args plain = *a; /* alpha depends on scale and softcap alone */
    plain.alibi.data = plain.bias.data = plain.mask.data = NULL;
    const float alpha = attention_features_of(&plain, &s, 0).alpha;
    return unfused_product(u, a->hq, a->lq, a->lk, a->d, alpha,
                           (unfused_matrix){u->q, a->lq * a->d, a->d, 1, 1},
                           (unfused_matrix){u->k, a->lk * a->d, 1, a->d, a->hq > 0 ? a->hq / a->hkv : 1},
                           (unfused_matrix){u->s, a->lq * u->s_stride, u->s_stride, 1, 1});
}

/* Items: heads of a tensor. */
typedef struct copy_job {
    const attention_unfused *u;
    const tsr_tensor *t;
    bool of_keys, back;
    float *copy;
} copy_job;

static void copy_head(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const copy_job *job = arg;
    const attention_unfused *u = job->u;
    const int64_t heads = job->t->shape[1], d = job->t->shape[3];
    const attention_sequence s = attention_sequence_of(u->a, u->first + item / heads);
    const int64_t n = job->of_keys ? s.lk : s.lq, extent = job->of_keys ? u->a->lk : u->a->lq;
    float *copy = job->copy + item * extent * d;
    const attention_rows rows = job->of_keys ? attention_k_rows(job->t, &s, item % heads, 0)
                                             : attention_q_rows(job->t, &s, item % heads, 0);
    if (!job->back) {
        u->cpu->gemm_f32->pack(copy, d, rows.data, rows.dtype, rows.row, rows.col, n, d);
        if (n < extent && d > 0) memset(copy + n * d, 0, (size_t)((extent - n) * d) * sizeof *copy);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        u->cpu->attention_score_f32->store(attention_row(&rows, i), rows.dtype, rows.col, copy + i * d, d, 1);
    const attention_rows padding = job->of_keys ? attention_k_rows(job->t, &s, item % heads, n)
                                                : attention_q_rows(job->t, &s, item % heads, n);
    attention_clear_rows(&padding, (job->of_keys ? s.k_rows : s.q_rows) - n, d);
}

static void copy_heads(const attention_unfused *u, const tsr_tensor *t, bool of_keys, float *copy, bool back)
{
    copy_job job = {.u = u, .t = t, .of_keys = of_keys, .back = back, .copy = copy};
    if (t->data != NULL) tsr_threads_run(u->cpu->threads, u->n * t->shape[1], copy_head, &job);
}

void unfused_load(const attention_unfused *u, const tsr_tensor *t, bool of_keys, float *to)
{
    copy_heads(u, t, of_keys, to, false);
}

void unfused_store(const attention_unfused *u, const tsr_tensor *t, bool of_keys, float *from)
{
    copy_heads(u, t, of_keys, from, true);
}

unfused_item unfused_item_of(const attention_unfused *u, int64_t item)
{
    const int64_t first = item % u->n_blocks * UNFUSED_ROWS;
    unfused_item x = {.matrix = item / u->n_blocks};
    x.head = x.matrix % u->a->hq;
    x.sequence = attention_sequence_of(u->a, u->first + x.matrix / u->a->hq);
    x.queries = (attention_span){first, attention_min(first + UNFUSED_ROWS, u->a->lq)};
    return x;
}

/* Row i of S to P over the sum, and its lse. */
static void softmax_row(const attention_unfused *u, const unfused_item *x, const tsr_attention_features *f,
                        int64_t i)
{
    const tsr_attention_score_f32_kernel *score = u->cpu->attention_score_f32;
    const tsr_tensor *sinks = &u->a->sinks;
    const float sink = sinks->data != NULL ? ((const float *)sinks->data)[x->head * sinks->stride[0]]
                                           : -INFINITY;
    float *s = u->s + (x->matrix * u->a->lq + i) * u->s_stride;
    float m = sink * 1.44269504f, l = sink == -INFINITY ? 0 : 1;
    const tsr_attention_rows row = {.features = f, .row = i, .n_rows = 1, .end = f->lk, .s = s, .alpha = 1};
    if (i < f->lq) score->forward(&row, &m, &l, NULL, 0, 0);
    const int64_t seen = i < f->lq && l != 0 ? f->lk : 0;
    score->store(s, TSR_F32, 1, s, seen, 1 / l);
    memset(s + seen, 0, (size_t)(u->a->lk - seen) * sizeof *s);
    const attention_rows lse = attention_q_rows(&u->a->lse, &x->sequence, x->head, i);
    if (lse.data != NULL && i < x->sequence.q_rows)
        *(float *)lse.data = i < f->lq && l != 0 ? m * 0.693147181f + logf(l) : -INFINITY;
}

static void softmax_rows(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const attention_unfused *u = arg;
    const unfused_item x = unfused_item_of(u, item);
    const tsr_attention_features f = attention_features_of(u->a, &x.sequence, x.head);
    for (int64_t i = x.queries.begin; i < x.queries.end; i++) softmax_row(u, &x, &f, i);
}

/* The workspace, and O = P V in f32. */
static tsr_gemm_args lay_out(attention_unfused *u, const tsr_cpu *cpu, const tsr_attention_fwd_args *a,
                             tsr_arena *arena)
{
    if (!unfused_lay_out(u, cpu, a, arena)) return (tsr_gemm_args){0};
    float *out = tsr_arena_take(arena, (size_t)(u->n * a->hq), (size_t)(a->lq * a->dv) * sizeof(float));
    const tsr_gemm_args scores = unfused_scores(u);
    const tsr_gemm_args values = unfused_product(
        u, a->hq, a->lq, a->dv, a->lk, 1, (unfused_matrix){u->s, a->lq * u->s_stride, u->s_stride, 1, 1},
        (unfused_matrix){u->v, a->lk * a->dv, a->dv, 1, a->hq > 0 ? a->hq / a->hkv : 1},
        (unfused_matrix){out, a->lq * a->dv, a->dv, 1, 1});
    const size_t nbytes[2] = {cpu_gemm_workspace(cpu, &scores), cpu_gemm_workspace(cpu, &values)};
    u->gemm_workspace = tsr_arena_take(arena, 1, nbytes[0] > nbytes[1] ? nbytes[0] : nbytes[1]);
    return values;
}

size_t cpu_attention_unfused_fwd_workspace(const void *state, const tsr_attention_unfused_fwd_args *a)
{
    tsr_arena arena = {0};
    attention_unfused u;
    lay_out(&u, state, a, &arena);
    return arena.used;
}

tsr_status cpu_attention_unfused_fwd(void *state, const tsr_attention_unfused_fwd_args *a, void *workspace)
{
    TSR_TRY(tsr_check_attention_lengths(a));
    attention_unfused u;
    tsr_arena arena = {.base = workspace, .capacity = SIZE_MAX};
    const tsr_gemm_args values = lay_out(&u, state, a, &arena), scores = unfused_scores(&u);
    for (; u.n > 0 && u.first < a->b; u.first += u.n) {
        unfused_load(&u, &a->q, false, u.q);
        unfused_load(&u, &a->k, true, u.k);
        unfused_load(&u, &a->v, true, u.v);
        TSR_TRY(cpu_gemm(state, &scores, u.gemm_workspace));
        tsr_threads_run(u.cpu->threads, unfused_n_items(&u), softmax_rows, &u);
        TSR_TRY(cpu_gemm(state, &values, u.gemm_workspace));
        unfused_store(&u, &a->out, false, values.c.data);
    }
    return TSR_OK;
}
