/* bench/attention.c - fused attention, forward, backward and decoding, beside other ways to compute it */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention_impl.h"
#include "base/error.h"
#include "bench_impl.h"

double attention_flop(const attention_problem *p)
{
    const double scores = (double)(p->b * p->hq) * (double)p->lq * (double)p->lk * attention_visible(p);
    if (p->pass == ATTENTION_BACKWARD) /* S, dQ, dK; dP, dV */
        return 2 * scores * (3 * (double)p->d + 2 * (double)p->dv);
    return 2 * scores * ((double)p->d + (double)p->dv);
}

double attention_n_exp(const attention_problem *p)
{
    return (double)(p->b * p->hq) * (double)p->lq * (double)p->lk * attention_visible(p);
}

/* For people: "forward bf16 B1 H8/8 L4096 D128 causal". */
static void name_problem(const attention_problem *p, char *out, size_t size)
{
    char lengths[48], sizes[48], more[80] = "";
    snprintf(lengths, sizeof lengths, p->lq == p->lk ? "L%" PRId64 : "L%" PRId64 ",%" PRId64, p->lq, p->lk);
    snprintf(sizes, sizeof sizes, p->d == p->dv ? "D%" PRId64 : "D%" PRId64 ",%" PRId64, p->d, p->dv);
    size_t used = 0;
    if (p->causal) used += (size_t)snprintf(more, sizeof more, " causal");
    if (p->dropout > 0) used += (size_t)snprintf(more + used, sizeof more - used, " dropout %g", p->dropout);
    if (p->kv_dtype != p->dtype)
        used += (size_t)snprintf(more + used, sizeof more - used, " kv %s",
                                 tsr_dtype_name((tsr_dtype)p->kv_dtype));
    if (p->page > 0) snprintf(more + used, sizeof more - used, " page %" PRId64, p->page);
    snprintf(out, size, "%s %s B%" PRId64 " H%" PRId64 "/%" PRId64 " %s %s%s", attention_pass_names[p->pass],
             tsr_dtype_name((tsr_dtype)p->dtype), p->b, p->hq, p->hkv, lengths, sizes, more);
}

static void describe(const attention_case *c, bench_row *row)
{
    const attention_problem *p = &c->operands.p;
    char kernel[128], unfused[96] = "", note[48] = "";
    attention_case_kernel(c, kernel, sizeof kernel);
    name_problem(p, row->shape, sizeof row->shape);
    if (c->unfused.is_ready) {
        snprintf(unfused, sizeof unfused, ",\"unfused_workspace_nbytes\":%zu,\"unfused_peak_rss_nbytes\":%zu",
                 c->unfused.ws.nbytes, c->unfused.peak_nbytes);
        snprintf(note, sizeof note, "; unfused %.2f, %.1f MiB", (double)c->unfused.ws.nbytes * 0x1p-20,
                 (double)c->unfused.peak_nbytes * 0x1p-20);
    }
    snprintf(row->note, sizeof row->note, "; workspace %.2f, peak RSS %.1f MiB%s",
             (double)c->fused.ws.nbytes * 0x1p-20, (double)c->fused.peak_nbytes * 0x1p-20, note);
    snprintf(row->json, sizeof row->json,
             "\"pass\":\"%s\",\"dtype\":\"%s\",\"b\":%" PRId64 ",\"hq\":%" PRId64 ",\"hkv\":%" PRId64
             ",\"lq\":%" PRId64 ",\"lk\":%" PRId64 ",\"d\":%" PRId64 ",\"dv\":%" PRId64
             ",\"causal\":%s,\"dropout\":%g,\"kv_dtype\":\"%s\",\"page\":%" PRId64 ",\"kernel\":\"%s\","
             "\"workspace_nbytes\":%zu,\"peak_rss_nbytes\":%zu%s",
             attention_pass_names[p->pass], tsr_dtype_name((tsr_dtype)p->dtype), p->b, p->hq, p->hkv, p->lq,
             p->lk, p->d, p->dv, p->causal ? "true" : "false", p->dropout,
             tsr_dtype_name((tsr_dtype)p->kv_dtype), p->page, kernel, c->fused.ws.nbytes,
             c->fused.peak_nbytes, unfused);
}

static const char attention_unfused_name[] = "unfused";

/* The unfused path takes its turn as a rival does. */
static bool time_unfused(void *arg, double least_seconds, double *out)
{
    attention_case *c = arg;
    double start = bench_seconds();
    if (c->unfused.seconds < BENCH_LONG_CALL_SECONDS) { /* not known yet, or worth warming up for */
        if (attention_case_run_unfused(c) != TSR_OK) return false;
        c->unfused.seconds = bench_seconds() - start;
    }
    const double once = c->unfused.seconds;
    const int64_t n = once < least_seconds ? (int64_t)(least_seconds / (once + 1e-9)) + 1 : 1;
    start = bench_seconds();
    for (int64_t i = 0; i < n; i++)
        if (attention_case_run_unfused(c) != TSR_OK) return false;
    *out = c->unfused.seconds = (bench_seconds() - start) / (double)n;
    return true;
}

static tsr_status measure_case(bench *b, attention_case *c, bool is_quick, attention_figures *out)
{
    const attention_problem *p = &c->operands.p;
    const double nbytes = attention_nbytes(p);
    bench_rival rivals[BENCH_MAX_PEERS];
    bench_row row = {.op = "attention",
                     .flop = attention_flop(p),
                     .nbytes = nbytes,
                     .n_exp = attention_n_exp(p),
                     .compute = attention_case_compute(c),
                     .in_cache = p->copies == 1 && nbytes < (double)bench_cache_nbytes(),
                     .run = attention_case_run,
                     .arg = c,
                     .rivals = rivals,
                     .is_quick = is_quick};
    describe(c, &row);
    if (c->unfused.is_ready)
        rivals[row.n_rivals++] = (bench_rival){
            .name = attention_unfused_name,
            .how = p->pass == ATTENTION_BACKWARD ? "tsr_attention_unfused_bwd" : "tsr_attention_unfused_fwd",
            .round = time_unfused,
            .arg = c};
    row.n_rivals += bench_peers_prepare_attention(b->peers, p, c->truth, rivals + row.n_rivals);
    if (out == NULL) return bench_measure(b, &row, NULL);
    *out = (attention_figures){.has_unfused = c->unfused.is_ready,
                               .fused_nbytes = (double)c->fused.ws.nbytes,
                               .unfused_nbytes = (double)c->unfused.ws.nbytes,
                               .operands_nbytes = nbytes,
                               .n_rivals = row.n_rivals};
    for (int r = 0; r < row.n_rivals; r++) out->rivals[r] = rivals[r].name;
    return bench_measure(b, &row, &out->time);
}

tsr_status attention_measure(bench *b, const attention_problem *p, const attention_effort *effort,
                             attention_figures *out)
{
    attention_case c;
    char name[128], why_not[128];
    name_problem(p, name, sizeof name);
    tsr_status status = attention_case_open(b->ctx, p, effort, &c, why_not);
    if (out != NULL) *out = (attention_figures){.has_unfused = false};
    if (status == TSR_ERR_UNSUPPORTED || status == TSR_ERR_DTYPE || status == TSR_ERR_MEMORY) {
        fprintf(stderr, "left out: %s: %s\n", name, tsr_last_error());
        return TSR_OK;
    }
    if (status != TSR_OK) return tsr_fail_within(status, "%s", name);
    if (why_not[0] != '\0') fprintf(stderr, "%s: not unfused: %s\n", name, why_not);
    status = measure_case(b, &c, effort->is_quick, out);
    attention_case_close(&c);
    return status;
}

/* A line for people who wait: each row on a terminal, else every tenth. */
static void show_progress(const attention_problem *p, int i, int n)
{
    char name[128];
    if (n < 3 || (!isatty(STDERR_FILENO) && i % 10 != 0)) return;
    name_problem(p, name, sizeof name);
    fprintf(stderr, "[%d/%d] %s\n", i + 1, n, name);
}

tsr_status bench_check_attention(const bench_attention_options *options)
{
    attention_list list = {0};
    const tsr_status status = options->svg != NULL ? attention_check_scaling(options)
                              : options->lk > 0    ? attention_list_shape(options, &list)
                                                   : attention_list_set(options->set, &list);
    free(list.items);
    return status;
}

tsr_status bench_attention(bench *b, const bench_attention_options *options)
{
    const attention_effort effort = {.most_unfused_nbytes = (double)INFINITY};
    const int64_t n_rows = b->n_rows;
    attention_list list = {0};
    if (options->svg != NULL) return attention_scaling(b, options);
    tsr_status status = options->lk > 0 ? attention_list_shape(options, &list)
                                        : attention_list_set(options->set, &list);
    for (int i = 0; i < list.n && status == TSR_OK; i++) {
        show_progress(&list.items[i], i, list.n);
        status = attention_measure(b, &list.items[i], &effort, NULL);
    }
    free(list.items);
    return status == TSR_OK ? bench_check_rows(b, n_rows) : status;
}
