/*
 * bench/softmax.c - the softmax of rows in three passes over each, in two, and in one with its use
 *
 * The rows lie in memory, together four times the last level of cache. A row that fits in cache comes from
 * memory once, and further passes find it there; one that does not comes from memory in each. The floor
 * counts once: x read and y written, or x and v read.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "bench_impl.h"
#include "kernel/softmax_f32.h"
#include "memory.h"

typedef enum softmax_form { THREE_PASSES, TWO_PASSES, ONE_PASS, N_FORMS } softmax_form;
enum { ITEM_LENGTH = 16384 };
static const char *const form_names[N_FORMS] = {"three passes", "two passes", "one pass"};

typedef struct softmax_case {
    tsr_threads *threads;
    const bench_softmax_kernel *kernel;
    softmax_form form;
    int64_t rows, n;
    const float *x; /* [rows, n] */
    float *y;       /* [rows, n], or the rows' sums [rows] */
    const float *v; /* [n] */
} softmax_case;

static void run_row(const softmax_case *c, int64_t row)
{
    const float *x = c->x + row * c->n;
    switch (c->form) {
    case THREE_PASSES: c->kernel->three_passes(x, c->y + row * c->n, c->n); break;
    case TWO_PASSES: c->kernel->two_passes(x, c->y + row * c->n, c->n); break;
    default: c->y[row] = c->kernel->one_pass(x, c->v, c->n);
    }
}

/* So many rows that to claim them costs nothing beside them. */
static int64_t rows_of_item(const softmax_case *c) { return c->n < ITEM_LENGTH ? ITEM_LENGTH / c->n : 1; }

static void run_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const softmax_case *c = arg;
    const int64_t n = rows_of_item(c);
    for (int64_t row = item * n; row < (item + 1) * n && row < c->rows; row++) run_row(c, row);
}

static tsr_status run_rows(void *arg)
{
    const softmax_case *c = arg;
    const int64_t n = rows_of_item(c);
    tsr_threads_run(c->threads, (c->rows + n - 1) / n, run_item, arg);
    return TSR_OK;
}

/* The last row against the formula in double: y . v for each form. */
static tsr_status check(const softmax_case *c)
{
    const float *x = c->x + (c->rows - 1) * c->n;
    double most = -INFINITY, sum = 0, want = 0, size = 0, got = 0;
    for (int64_t j = 0; j < c->n; j++) most = fmax(most, (double)x[j]);
    for (int64_t j = 0; j < c->n; j++) {
        const double e = exp((double)x[j] - most), y = (double)c->y[(c->rows - 1) * c->n + j];
        sum += e;
        want += e * (double)c->v[j];
        size += e * fabs((double)c->v[j]);
        if (c->form != ONE_PASS) got += y * (double)c->v[j];
    }
    if (c->form == ONE_PASS) got = (double)c->y[c->rows - 1];
    const double error = fabs(got - want / sum) / (1e-4 * size / sum);
    return error <= 1
               ? TSR_OK
               : tsr_fail(TSR_ERR_ARGUMENT, "softmax in %s is wrong: its error is %.3g times what is allowed",
                          form_names[c->form], error);
}

static tsr_status measure(bench *b, softmax_case *c)
{
    const double elements = (double)c->rows * (double)c->n,
                 once = c->form == ONE_PASS ? (double)c->n : elements;
    bench_row row = {.op = "softmax",
                     .nbytes = (elements + once) * sizeof(float),
                     .n_exp = elements,
                     .run = run_rows,
                     .arg = c};
    TSR_TRY(run_rows(c));
    TSR_TRY(check(c));
    snprintf(row.shape, sizeof row.shape, "f32 %s %" PRId64 " x %" PRId64, form_names[c->form], c->rows,
             c->n);
    snprintf(row.json, sizeof row.json,
             "\"form\":\"%s\",\"dtype\":\"f32\",\"rows\":%" PRId64 ",\"n\":%" PRId64 ",\"kernel\":\"%s\"",
             form_names[c->form], c->rows, c->n, c->kernel->name);
    return bench_measure(b, &row, NULL);
}

static tsr_status measure_lengths(bench *b, softmax_case *c, int64_t most)
{
    static const int64_t lengths[] = {64, 1024, 16384, 262144};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths + 1; i++)
        for (int form = 0; form < N_FORMS; form++) {
            const int n_threads = tsr_threads_count(b->threads);
            const bool is_last = i == sizeof lengths / sizeof *lengths;
            c->n = is_last ? most / n_threads : lengths[i]; /* last: a row for each thread */
            if (is_last && c->n <= lengths[i - 1]) return TSR_OK;
            c->rows = most / c->n;
            c->form = (softmax_form)form;
            TSR_TRY(measure(b, c));
        }
    return TSR_OK;
}

tsr_status bench_softmax(bench *b)
{
    const int64_t most = (int64_t)(4 * bench_cache_nbytes() / sizeof(float));
    const size_t nbytes = (size_t)most * sizeof(float);
    tsr_isa isa = TSR_ISA_PORTABLE;
    TSR_TRY(tsr_isa_choose(&isa));
    float *x = bench_map(nbytes), *y = bench_map(nbytes), *v = bench_map(nbytes);
    tsr_status status = TSR_OK;
    if (x == NULL || y == NULL || v == NULL) {
        status = tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    } else {
        for (int64_t i = 0; i < most; i++) {
            const uint64_t bits = bench_mixed((uint64_t)i);
            x[i] = (float)(int16_t)bits * 0x1p-12f; /* [-8, 8) */
            v[i] = (float)(int16_t)(bits >> 16) * 0x1p-15f;
            y[i] = 0;
        }
        softmax_case c = {.threads = b->threads, .kernel = bench_softmax_pick(isa), .x = x, .y = y, .v = v};
        status = measure_lengths(b, &c, most);
    }
    bench_unmap(x, nbytes);
    bench_unmap(y, nbytes);
    bench_unmap(v, nbytes);
    return status;
}
