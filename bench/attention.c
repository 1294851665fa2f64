/* bench/attention.c - fused attention, forward and backward, beside the unfused path */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bench.h"

typedef struct attention_shape {
    int64_t b, hq, hkv, l, d;
    bool causal;
    tsr_dtype dtype;
} attention_shape;

static const attention_shape long_set[] = {
    {1, 8, 8, 4096, 128, false, TSR_F32},  {1, 8, 8, 4096, 128, true, TSR_F32},
    {1, 8, 8, 4096, 64, false, TSR_F32},   {1, 8, 8, 4096, 64, true, TSR_F32},
    {1, 8, 8, 4096, 128, false, TSR_BF16}, {0},
};
static const attention_shape short_set[] = {
    {8, 12, 12, 512, 64, false, TSR_F32},
    {1, 8, 8, 1024, 64, true, TSR_F32},
    {8, 6, 3, 256, 32, true, TSR_F32},
    {8, 6, 3, 256, 32, true, TSR_BF16},
    {0},
};
/* One query against many keys: lq 1. */
static const attention_shape decode_set[] = {
    {1, 32, 8, 32768, 128, false, TSR_F32},
    {1, 32, 8, 32768, 128, false, TSR_BF16},
    {1, 1, 1, 131072, 128, false, TSR_F32},
    {1, 1, 1, 131072, 128, false, TSR_BF16},
    {0},
};
static const struct {
    const char *name;
    const attention_shape *shapes;
} sets[] = {{"long", long_set}, {"short", short_set}, {"decode", decode_set}};

enum { Q, K, V, OUT, DOUT, DQ, DK, DV, LSE, N_TENSORS };
typedef struct attention_case {
    tsr_context *ctx;
    tsr_tensor t[N_TENSORS];
    tsr_attention_options options;
    int64_t lq;
} attention_case;

static tsr_status run_fwd(void *arg)
{
    attention_case *c = arg;
    return tsr_attention_fwd(c->ctx, &c->t[Q], &c->t[K], &c->t[V], &c->t[OUT], &c->t[LSE], &c->options, NULL);
}

static tsr_status run_unfused_fwd(void *arg)
{
    attention_case *c = arg;
    return tsr_attention_unfused_fwd(c->ctx, &c->t[Q], &c->t[K], &c->t[V], &c->t[OUT], &c->t[LSE],
                                     &c->options, NULL);
}

static tsr_status run_bwd(void *arg)
{
    attention_case *c = arg;
    const tsr_attention_saved saved = {.out = &c->t[OUT], .lse = &c->t[LSE], .dout = &c->t[DOUT]};
    const tsr_attention_grads grads = {.dq = &c->t[DQ], .dk = &c->t[DK], .dv = &c->t[DV]};
    return tsr_attention_bwd(c->ctx, &c->t[Q], &c->t[K], &c->t[V], &saved, &grads, &c->options, NULL);
}

/* Values that differ from one another, so that the softmax has something to do: a short ramp, on the host. */
static tsr_status allocate_ramp(tsr_context *ctx, tsr_dtype dtype, const int64_t *shape, tsr_tensor *out)
{
    TSR_TRY(tsr_tensor_allocate(ctx, dtype, 4, shape, out));
    const int64_t n = tsr_tensor_numel(out);
    float *ramp = malloc((size_t)n * sizeof *ramp);
    if (ramp == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    for (int64_t i = 0; i < n; i++) ramp[i] = (float)((i * 7919 + i / 64 * 104729) % 2001) * 1e-3f - 1.0f;
    const tsr_tensor host = tsr_tensor_4d(ramp, TSR_F32, shape[0], shape[1], shape[2], shape[3]);
    const tsr_status status = tsr_copy(ctx, &host, out);
    free(ramp);
    return status;
}

static tsr_status allocate_case(attention_case *c, const attention_shape *s)
{
    const int64_t q_shape[] = {s->b, s->hq, c->lq, s->d}, k_shape[] = {s->b, s->hkv, s->l, s->d};
    for (int i = Q; i < LSE; i++) {
        const bool is_key = i == K || i == V || i == DK || i == DV;
        TSR_TRY(allocate_ramp(c->ctx, s->dtype, is_key ? k_shape : q_shape, &c->t[i]));
    }
    return tsr_tensor_allocate(c->ctx, TSR_F32, 3, q_shape, &c->t[LSE]);
}

static tsr_status measure_pass(bench *b, attention_case *c, const attention_shape *s, const char *pass,
                               double share, tsr_status (*run)(void *))
{
    const double scores = (double)(s->b * s->hq) * (double)c->lq * (double)s->l * (s->causal ? 0.5 : 1);
    const double values = 2.0 * (double)(s->b * s->d) * (double)(s->hq * c->lq + s->hkv * s->l);
    bench_row row = {.op = "attention",
                     .flop = 4 * scores * (double)s->d * share,
                     .nbytes = values * (double)tsr_dtype_nbytes(s->dtype) * share,
                     .run = run,
                     .arg = c};
    snprintf(row.shape, sizeof row.shape,
             "%s %s B%" PRId64 " H%" PRId64 "/%" PRId64 " L%" PRId64 " D%" PRId64 "%s", pass,
             tsr_dtype_name(s->dtype), s->b, s->hq, s->hkv, s->l, s->d, s->causal ? " causal" : "");
    snprintf(row.json, sizeof row.json,
             "\"pass\":\"%s\",\"dtype\":\"%s\",\"b\":%" PRId64 ",\"hq\":%" PRId64 ",\"hkv\":%" PRId64
             ",\"lq\":%" PRId64 ",\"lk\":%" PRId64 ",\"d\":%" PRId64 ",\"dv\":%" PRId64 ",\"causal\":%s",
             pass, tsr_dtype_name(s->dtype), s->b, s->hq, s->hkv, c->lq, s->l, s->d, s->d,
             s->causal ? "true" : "false");
    return bench_measure(b, &row, NULL);
}

static tsr_status measure_shape(bench *b, const attention_shape *s, bool decodes)
{
    attention_case c = {.ctx = bench_context(b), .options.causal = s->causal, .lq = decodes ? 1 : s->l};
    tsr_status status = allocate_case(&c, s);
    if (status == TSR_OK) status = measure_pass(b, &c, s, decodes ? "decode" : "forward", 1, run_fwd);
    if (status == TSR_OK && !decodes) status = measure_pass(b, &c, s, "backward", 2.5, run_bwd);
    if (status == TSR_OK && !decodes) status = measure_pass(b, &c, s, "unfused forward", 1, run_unfused_fwd);
    for (int i = 0; i < N_TENSORS; i++) tsr_free(c.ctx, c.t[i].data);
    return status;
}

tsr_status bench_attention(bench *b, const char *set)
{
    bool found = false;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (set != NULL && strcmp(set, sets[i].name) != 0) continue;
        found = true;
        for (const attention_shape *s = sets[i].shapes; s->b != 0; s++)
            TSR_TRY(measure_shape(b, s, sets[i].shapes == decode_set));
    }
    return found ? TSR_OK : tsr_fail(TSR_ERR_ARGUMENT, "set is '%s', must be long, short or decode", set);
}
