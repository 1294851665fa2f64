/*
 * backend/cpu/attention_unfused_bwd.c - the five products of attention's backward, one after the other
 *
 *     S = Q K^T   dP = dO V^T   P, dS <- rows   dV = P^T dO   dK = scale dS^T Q   dQ = scale dS K
 *
 * dV and dK sum over the query heads of a group: their rows lie one behind the other, so that the group is a
 * longer reduced dimension.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_bwd.h"
#include "backend/cpu/attention_unfused.h"
#include "backend/indices.h"
#include "base/error.h"

typedef struct backward {
    attention_unfused u;
    attention_backward tiles; /* for delta and the sinks */
    const tsr_attention_bwd_args *g;
    float *dout, *dp, *dq, *dk, *dv;
    float *bias_grad; /* dS before the softcap: dp where there is none */
    tsr_gemm_args scores, values, to_dv, to_dk, to_dq;
} backward;

static void plan_products(backward *w)
{
    const attention_unfused *u = &w->u;
    const tsr_attention_fwd_args *a = u->a;
    const int64_t group = a->hkv > 0 ? a->hq / a->hkv : 0, ld = u->s_stride, lq = a->lq, lk = a->lk;
    const int64_t shared_by = group > 0 ? group : 1; /* no query heads: dk and dv are sums over none */
    const unfused_matrix dp = {w->dp, lq * ld, ld, 1, 1};
    w->scores = unfused_scores(u);
    w->values = unfused_product(u, a->hq, lq, lk, a->dv, 1,
                                (unfused_matrix){w->dout, lq * a->dv, a->dv, 1, 1},
                                (unfused_matrix){u->v, lk * a->dv, 1, a->dv, shared_by}, dp);
    w->to_dv = unfused_product(u, a->hkv, lk, a->dv, group * lq, 1,
                               (unfused_matrix){u->s, group * lq * ld, 1, ld, 1},
                               (unfused_matrix){w->dout, group * lq * a->dv, a->dv, 1, 1},
                               (unfused_matrix){w->dv, lk * a->dv, a->dv, 1, 1});
    w->to_dk = unfused_product(u, a->hkv, lk, a->d, group * lq, a->scale,
                               (unfused_matrix){w->dp, group * lq * ld, 1, ld, 1},
                               (unfused_matrix){u->q, group * lq * a->d, a->d, 1, 1},
                               (unfused_matrix){w->dk, lk * a->d, a->d, 1, 1});
    w->to_dq = unfused_product(u, a->hq, lq, a->d, lk, a->scale, dp,
                               (unfused_matrix){u->k, lk * a->d, a->d, 1, shared_by},
                               (unfused_matrix){w->dq, lq * a->d, a->d, 1, 1});
}

static void lay_out(backward *w, const tsr_cpu *cpu, const tsr_attention_bwd_args *g, tsr_arena *arena)
{
    const tsr_attention_fwd_args *a = &g->fwd;
    *w = (backward){.g = g};
    if (!unfused_lay_out(&w->u, cpu, a, arena)) return;
    attention_bwd_lay_out(&w->tiles, cpu, g, arena);
    const size_t heads = (size_t)(w->u.n * a->hq), kv_heads = (size_t)(w->u.n * a->hkv);
    const size_t rows = heads * (size_t)a->lq, row_nbytes = (size_t)w->u.s_stride * sizeof(float);
    w->dout = tsr_arena_take(arena, heads, (size_t)(a->lq * a->dv) * sizeof(float));
    w->dp = tsr_arena_take(arena, rows, row_nbytes);
    w->bias_grad = w->dp;
    if (g->dbias.data != NULL && a->softcap > 0) w->bias_grad = tsr_arena_take(arena, rows, row_nbytes);
    w->dq = tsr_arena_take(arena, heads, (size_t)(a->lq * a->d) * sizeof(float));
    w->dk = tsr_arena_take(arena, kv_heads, (size_t)(a->lk * a->d) * sizeof(float));
    w->dv = tsr_arena_take(arena, kv_heads, (size_t)(a->lk * a->dv) * sizeof(float));
    plan_products(w);
    const tsr_gemm_args *const products[] = {&w->scores, &w->values, &w->to_dv, &w->to_dk, &w->to_dq};
    size_t most = 0;
    for (int i = 0; i < 5; i++) {
        const size_t nbytes = cpu_gemm_workspace(cpu, products[i]);
        if (nbytes > most) most = nbytes;
    }
    w->u.gemm_workspace = tsr_arena_take(arena, 1, most);
}

/* S and dP to P and dS; zeros for what a sequence does not have. */
static void softmax_rows(void *arg, int64_t item, int32_t slot)
{
    const backward *w = arg;
    const attention_unfused *u = &w->u;
    const unfused_item x = unfused_item_of(u, item);
    const int64_t n = attention_max(0, attention_min(x.queries.end, x.sequence.lq) - x.queries.begin);
    const int64_t at = (x.matrix * u->a->lq + x.queries.begin) * u->s_stride;
    float *s = u->s + at, *dp = w->dp + at;
    if (n > 0) {
        attention_bwd_tile t = attention_bwd_tile_in(&w->tiles, slot);
        t.sequence = x.sequence;
        t.features = attention_features_of(u->a, &x.sequence, x.head);
        t.queries = (attention_span){x.queries.begin, x.queries.begin + n};
        attention_bwd_delta(&t, x.head, t.delta);
        attention_bwd_load_queries(&t, x.head);
        const tsr_attention_rows rows = {.features = &t.features,
                                         .row = t.queries.begin,
                                         .n_rows = n,
                                         .end = t.features.lk,
                                         .s = s,
                                         .s_stride = u->s_stride,
                                         .alpha = 1};
        float *dbias = w->bias_grad != w->dp ? w->bias_grad + at : NULL;
        u->cpu->attention_score_f32->backward(&rows, u->a->lk, t.lse, t.delta, dp, dbias, u->s_stride);
    }
    const int64_t rest = (x.queries.end - x.queries.begin - n) * u->s_stride;
    memset(s + n * u->s_stride, 0, (size_t)rest * sizeof *s);
    memset(dp + n * u->s_stride, 0, (size_t)rest * sizeof *dp);
}

/* Item: a head of dbias. Adds what these sequences' scores contribute to it. */
static void add_to_dbias(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const backward *w = arg;
    const tsr_attention_fwd_args *a = w->u.a;
    const tsr_tensor *out = &w->g->dbias;
    const bool one_head = out->shape[1] == 1;
    const int64_t batch_stride = out->shape[0] == 1 ? 0 : out->stride[0];
    const int64_t row_stride = out->shape[2] == 1 ? 0 : out->stride[2];
    const int64_t col_stride = out->shape[3] == 1 ? 0 : out->stride[3];
    for (int64_t b = 0; b < w->u.n; b++)
        for (int64_t h = one_head ? 0 : item; h < (one_head ? a->hq : item + 1); h++) {
            const attention_sequence s = attention_sequence_of(a, w->u.first + b);
            const float *ds = w->bias_grad + (b * a->hq + h) * a->lq * w->u.s_stride;
            float *to = (float *)out->data + s.index * batch_stride + item * out->stride[1];
            for (int64_t i = 0; i < s.lq; i++)
                for (int64_t j = 0; j < s.lk; j++)
                    to[i * row_stride + j * col_stride] += ds[i * w->u.s_stride + j];
        }
}

static void clear_dbias(const tsr_tensor *out)
{
    for (int64_t b = 0; b < out->shape[0]; b++)
        for (int64_t h = 0; h < out->shape[1]; h++) {
            const attention_sequence s = {.batch = b};
            const attention_rows rows = attention_q_rows(out, &s, h, 0);
            attention_clear_rows(&rows, out->shape[2], out->shape[3]);
        }
}

size_t cpu_attention_unfused_bwd_workspace(const void *state, const tsr_attention_unfused_bwd_args *g)
{
    tsr_arena arena = {0};
    backward w;
    lay_out(&w, state, g, &arena);
    return arena.used;
}

static tsr_status run_products(backward *w, void *state)
{
    attention_unfused *u = &w->u;
    const tsr_attention_fwd_args *a = u->a;
    unfused_load(u, &a->q, false, u->q);
    unfused_load(u, &a->k, true, u->k);
    unfused_load(u, &a->v, true, u->v);
    unfused_load(u, &w->g->dout, false, w->dout);
    TSR_TRY(cpu_gemm(state, &w->scores, u->gemm_workspace));
    TSR_TRY(cpu_gemm(state, &w->values, u->gemm_workspace));
    tsr_threads_run(u->cpu->threads, unfused_n_items(u), softmax_rows, w);
    TSR_TRY(cpu_gemm(state, &w->to_dv, u->gemm_workspace));
    TSR_TRY(cpu_gemm(state, &w->to_dk, u->gemm_workspace));
    TSR_TRY(cpu_gemm(state, &w->to_dq, u->gemm_workspace));
    unfused_store(u, &w->g->dq, false, w->dq);
    unfused_store(u, &w->g->dk, true, w->dk);
    unfused_store(u, &w->g->dv, true, w->dv);
    return TSR_OK;
}

tsr_status cpu_attention_unfused_bwd(void *state, const tsr_attention_unfused_bwd_args *g, void *workspace)
{
    const tsr_attention_fwd_args *a = &g->fwd;
    TSR_TRY(tsr_check_attention_lengths(a));
    backward w;
    tsr_arena arena = {.base = workspace, .capacity = SIZE_MAX};
    lay_out(&w, state, g, &arena);
    if (g->dbias.data != NULL) clear_dbias(&g->dbias);
    for (; w.u.n > 0 && w.u.first < a->b; w.u.first += w.u.n) {
        TSR_TRY(run_products(&w, state));
        if (g->dbias.data != NULL) tsr_threads_run(w.u.cpu->threads, g->dbias.shape[1], add_to_dbias, &w);
    }
    if (g->dsinks.data != NULL) attention_bwd_sinks(&w.tiles, w.u.cpu->threads);
    return TSR_OK;
}
