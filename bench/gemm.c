/* bench/gemm.c - matrix products of the shapes that transformers have, beside other libraries' */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "bench_impl.h"
#include "gemm_impl.h"

/* The line of the context's kernels that serves: of the compute type, where the set has none of it, of f32.
 */
static void kernel_name(tsr_context *ctx, bench_compute compute, char *out, size_t size)
{
    static const char *const families[] = {"gemm_f32", "gemm_bf16", "gemm_s8"};
    const int wanted[] = {(int)compute, BENCH_F32};
    snprintf(out, size, "%s", tsr_context_backend(ctx));
    for (int i = 0; i < 2; i++) {
        const char *line = strstr(tsr_context_kernels(ctx), families[wanted[i]]);
        if (line == NULL) continue;
        snprintf(out, size, "%.*s", (int)strcspn(line, " \n"), line);
        return;
    }
}

static void describe(const gemm_problem *p, tsr_context *ctx, bench_row *row)
{
    char kernel[64], batch[64] = "";
    const char *form = p->is_packing && p->form == GEMM_PACKED ? "as is" : gemm_form_names[p->form];
    const char *cache = p->cold ? "cold" : "warm", *dtype = tsr_dtype_name(p->dtype);
    kernel_name(ctx, gemm_case_compute(p), kernel, sizeof kernel);
    if (p->batch * p->heads > 1) snprintf(batch, sizeof batch, " x %" PRId64, p->batch * p->heads);
    snprintf(row->shape, sizeof row->shape, "%s %s m %" PRId64 " n %" PRId64 " k %" PRId64 "%s %s%s", dtype,
             form, p->m, p->n, p->k, batch, p->b_transposed ? "B^T " : "", cache);
    snprintf(row->json, sizeof row->json,
             "\"dtype\":\"%s\",\"m\":%" PRId64 ",\"n\":%" PRId64 ",\"k\":%" PRId64 ",\"batch\":%" PRId64
             ",\"heads\":%" PRId64 ",\"form\":\"%s\",\"b\":\"%s\",\"b_transposed\":%s,\"cache\":\"%s\","
             "\"kernel\":\"%s\"",
             dtype, p->m, p->n, p->k, p->batch, p->heads, form,
             gemm_form_is_packed(p->form) ? "packed" : "plain", p->b_transposed ? "true" : "false", cache,
             kernel);
}

static tsr_status measure_case(bench *b, gemm_case *g)
{
    const gemm_problem *p = &g->operands.p;
    const double products = (double)p->batch * (double)p->heads;
    bench_rival rivals[BENCH_MAX_PEERS];
    bench_row row = {.op = p->is_packing ? "pack" : "gemm",
                     .flop = 2 * products * (double)p->m * (double)p->n * (double)p->k,
                     .nbytes = gemm_case_nbytes(g),
                     .compute = gemm_case_compute(p),
                     .in_cache = !p->cold && gemm_case_nbytes(g) < (double)bench_cache_nbytes(),
                     .run = gemm_case_run,
                     .arg = g,
                     .rivals = rivals};
    describe(p, b->ctx, &row);
    if (p->is_packing) {
        TSR_TRY(bench_time(b, gemm_case_run, g, &row.unit_seconds));
        row.unit = "product with m 512";
        row.run = gemm_case_pack;
        row.flop = 0;
        row.in_cache = false;
    } else if (p->form <= GEMM_PACKED) { /* no peer has our quantised weights */
        row.n_rivals = bench_peers_prepare(b->peers, p, g->truth, rivals);
    }
    return bench_measure(b, &row, NULL);
}

/* A line for people who wait: each row on a terminal, else every tenth. */
static void show_progress(const gemm_problem *p, int i, int n)
{
    if (n < 2 || (!isatty(STDERR_FILENO) && i % 10 != 0)) return;
    fprintf(stderr, "[%d/%d] %s %s %s m %" PRId64 " n %" PRId64 " k %" PRId64 "\n", i + 1, n,
            tsr_dtype_name(p->dtype), gemm_form_names[p->form], p->cold ? "cold" : "warm", p->m, p->n, p->k);
}

static tsr_status measure_problem(bench *b, const gemm_problem *p)
{
    gemm_case g;
    tsr_status status = gemm_case_open(b->ctx, p, &g);
    if (status == TSR_ERR_UNSUPPORTED || status == TSR_ERR_DTYPE || status == TSR_ERR_MEMORY) {
        fprintf(stderr, "left out: %s %s %s m %" PRId64 " n %" PRId64 " k %" PRId64 ": %s\n",
                tsr_dtype_name(p->dtype), gemm_form_names[p->form], p->cold ? "cold" : "warm", p->m, p->n,
                p->k, tsr_last_error());
        return TSR_OK;
    }
    if (status != TSR_OK)
        return tsr_fail_within(status, "%s %s m %" PRId64 " n %" PRId64 " k %" PRId64,
                               tsr_dtype_name(p->dtype), gemm_form_names[p->form], p->m, p->n, p->k);
    status = measure_case(b, &g);
    gemm_case_close(&g);
    return status;
}

tsr_status bench_gemm(bench *b, const bench_gemm_options *options)
{
    const int64_t n_rows = b->n_rows;
    gemm_list list = {0};
    tsr_status status = options->m > 0 ? gemm_list_shape(options, &list)
                                       : gemm_list_set(options->set, options->cache, &list);
    for (int i = 0; i < list.n && status == TSR_OK; i++) {
        show_progress(&list.items[i], i, list.n);
        status = measure_problem(b, &list.items[i]);
    }
    free(list.items);
    return status == TSR_OK ? bench_check_rows(b, n_rows) : status;
}
