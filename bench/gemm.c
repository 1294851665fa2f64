/* bench/gemm.c - matrix products of the shapes that transformers have */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bench.h"

typedef struct gemm_shape {
    int64_t m, n, k, batch;
    bool b_transposed;
    tsr_dtype dtype;
} gemm_shape;

static const gemm_shape square[] = {
    {256, 256, 256, 1, false, TSR_F32},    {512, 512, 512, 1, false, TSR_F32},
    {1024, 1024, 1024, 1, false, TSR_F32}, {2048, 2048, 2048, 1, false, TSR_F32},
    {4096, 4096, 4096, 1, false, TSR_F32}, {2048, 2048, 2048, 1, false, TSR_BF16},
    {2048, 2048, 2048, 1, false, TSR_F16}, {0},
};
static const gemm_shape llm[] = {
    {512, 4096, 4096, 1, true, TSR_F32},  {512, 14336, 4096, 1, true, TSR_F32},
    {512, 4096, 14336, 1, true, TSR_F32}, {64, 4096, 4096, 1, true, TSR_F32},
    {16, 4096, 4096, 1, true, TSR_F32},   {1, 4096, 4096, 1, true, TSR_F32},
    {512, 4096, 4096, 1, true, TSR_BF16}, {0},
};
static const gemm_shape batched[] = {
    {512, 512, 128, 32, true, TSR_F32},
    {512, 128, 512, 32, false, TSR_F32},
    {64, 64, 64, 256, false, TSR_F32},
    {0},
};
static const gemm_shape small[] = {
    {2048, 192, 192, 1, true, TSR_F32}, {2048, 512, 192, 1, true, TSR_F32},
    {2048, 192, 512, 1, true, TSR_F32}, {32, 32, 32, 1, false, TSR_F32},
    {8, 512, 192, 1, true, TSR_F32},    {0},
};
static const struct {
    const char *name;
    const gemm_shape *shapes;
} sets[] = {{"square", square}, {"llm", llm}, {"batched", batched}, {"small", small}};
enum { N_SETS = sizeof sets / sizeof *sets };

typedef struct gemm_case {
    tsr_context *ctx;
    tsr_tensor a, b, c;
} gemm_case;

static tsr_status run_gemm(void *arg)
{
    const gemm_case *g = arg;
    return tsr_bmm(g->ctx, 1, &g->a, &g->b, 0, &g->c, NULL);
}

static tsr_status allocate_filled(tsr_context *ctx, tsr_dtype dtype, int64_t n0, int64_t n1, int64_t n2,
                                  tsr_tensor *out)
{
    TSR_TRY(tsr_tensor_allocate(ctx, dtype, 3, (const int64_t[]){n0, n1, n2}, out));
    return tsr_fill(ctx, 0.5, out);
}

static tsr_status measure_shape(bench *b, const gemm_shape *s)
{
    tsr_context *ctx = bench_context(b);
    gemm_case g = {.ctx = ctx};
    tsr_status status = allocate_filled(ctx, s->dtype, s->batch, s->m, s->k, &g.a);
    if (status == TSR_OK)
        status = allocate_filled(ctx, s->dtype, s->batch, s->b_transposed ? s->n : s->k,
                                 s->b_transposed ? s->k : s->n, &g.b);
    if (status == TSR_OK) status = allocate_filled(ctx, TSR_F32, s->batch, s->m, s->n, &g.c);
    if (status == TSR_OK) {
        if (s->b_transposed) g.b = tsr_tensor_transpose(&g.b, 1, 2);
        const double elements = (double)s->batch * (double)(s->m * s->k + s->k * s->n);
        bench_row row = {.op = "gemm",
                         .flop = 2.0 * (double)s->batch * (double)s->m * (double)s->n * (double)s->k,
                         .nbytes = elements * (double)tsr_dtype_nbytes(s->dtype) +
                                   4.0 * (double)s->batch * (double)s->m * (double)s->n,
                         .run = run_gemm,
                         .arg = &g};
        const char *form = s->b_transposed ? "A B^T" : "A B";
        snprintf(row.shape, sizeof row.shape,
                 "%s %s m %" PRId64 " n %" PRId64 " k %" PRId64 " batch %" PRId64, tsr_dtype_name(s->dtype),
                 form, s->m, s->n, s->k, s->batch);
        snprintf(row.json, sizeof row.json,
                 "\"dtype\":\"%s\",\"m\":%" PRId64 ",\"n\":%" PRId64 ",\"k\":%" PRId64 ",\"batch\":%" PRId64
                 ",\"b_transposed\":%s",
                 tsr_dtype_name(s->dtype), s->m, s->n, s->k, s->batch, s->b_transposed ? "true" : "false");
        status = bench_measure(b, &row);
    }
    tsr_free(ctx, g.a.data);
    tsr_free(ctx, g.b.data);
    tsr_free(ctx, g.c.data);
    return status;
}

tsr_status bench_gemm(bench *b, const char *set)
{
    bool found = false;
    for (int i = 0; i < N_SETS; i++) {
        if (set != NULL && strcmp(set, sets[i].name) != 0) continue;
        found = true;
        for (const gemm_shape *s = sets[i].shapes; s->m != 0; s++) TSR_TRY(measure_shape(b, s));
    }
    return found ? TSR_OK
                 : tsr_fail(TSR_ERR_ARGUMENT, "set is '%s', must be square, llm, batched or small", set);
}
