/* bench/bench.c - peaks, timing, rows */
#define _POSIX_C_SOURCE 200809L
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/kernel/peak.h"
#include "base/error.h"
#include "base/threads.h"

enum { MAX_ROUNDS = 64, LEAST_ROUNDS = 7, READ_NBYTES = 256 << 20, MAX_REPEATS = 3 };

struct bench {
    bench_options options;
    tsr_context *ctx;
    tsr_threads *threads;
    const tsr_peak_kernel *peak; /* of the set in use */
    char *memory;                /* READ_NBYTES, to be read */
    double best_fma;             /* the highest peak seen: a machine that is disturbed never shows more */
    bool header_printed;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct peak_job {
    const tsr_peak_kernel *kernel;
    int64_t reps;
    const char *memory;
    size_t part_nbytes;
    float sink[64]; /* per item, apart enough not to matter */
    double flop;    /* of one item */
} peak_job;

static void multiply_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    peak_job *job = arg;
    const double flop = job->kernel->multiply_add(job->reps, &job->sink[item % 64]);
    if (item == 0) job->flop = flop;
}

static void read_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    peak_job *job = arg;
    job->sink[item % 64] += job->kernel->read(job->memory + (size_t)item * job->part_nbytes,
                                              job->part_nbytes);
}

/* GFLOP/s of all threads of the door: the best of a few, as a limit is. */
static double fma_peak(tsr_threads *threads, const tsr_peak_kernel *kernel)
{
    peak_job job = {.kernel = kernel, .reps = 400000};
    const int32_t n = tsr_threads_count(threads);
    double best = 0;
    for (int round = 0; round < 9; round++) {
        const double start = seconds();
        tsr_threads_run(threads, n, multiply_item, &job);
        const double rate = n * job.flop / (seconds() - start) * 1e-9;
        if (rate > best) best = rate;
    }
    return best;
}

/* GB/s from memory: parts much larger than what a thread claims at a time. */
static double read_peak(tsr_threads *threads, const tsr_peak_kernel *kernel, const char *memory)
{
    enum { PARTS = 64 };
    peak_job job = {.kernel = kernel, .memory = memory, .part_nbytes = READ_NBYTES / PARTS};
    double best = 0;
    for (int round = 0; round < 4; round++) {
        const double start = seconds();
        tsr_threads_run(threads, PARTS, read_item, &job);
        const double rate = READ_NBYTES / (seconds() - start) * 1e-9;
        if (rate > best) best = rate;
    }
    return best;
}

void bench_close(bench *b)
{
    if (b == NULL) return;
    tsr_context_destroy(b->ctx);
    tsr_threads_destroy(b->threads);
    free(b->memory);
    free(b);
}

tsr_status bench_open(const bench_options *options, bench **out)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    b->options = *options;
    const tsr_context_options context = {.backend = options->backend, .n_threads = options->n_threads};
    tsr_isa isa = TSR_ISA_PORTABLE;
    tsr_status status = tsr_isa_choose(&isa);
    if (status == TSR_OK) status = tsr_context_create(&context, &b->ctx);
    if (status == TSR_OK) status = tsr_threads_create(options->n_threads, NULL, NULL, &b->threads);
    if (status == TSR_OK) {
        b->memory = malloc(READ_NBYTES);
        if (b->memory == NULL) status = tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    }
    if (status != TSR_OK) {
        bench_close(b);
        return status;
    }
    memset(b->memory, 1, READ_NBYTES);
    const tsr_peak_kernel *const *kernel = tsr_peak_kernels;
    while (kernel[1] != NULL && !tsr_isa_serves((*kernel)->isa, isa)) kernel++;
    b->peak = *kernel;
    *out = b;
    return TSR_OK;
}

tsr_context *bench_context(bench *b) { return b->ctx; }

void bench_print_machine(bench *b)
{
    tsr_threads *one = NULL;
    if (tsr_threads_create(1, NULL, NULL, &one) != TSR_OK) return;
    const int32_t n = tsr_threads_count(b->threads);
    for (int i = 0; tsr_peak_kernels[i] != NULL; i++) {
        const tsr_peak_kernel *kernel = tsr_peak_kernels[i];
        const char *isa = tsr_isa_name(kernel->isa), *missing = tsr_isa_missing(kernel->isa);
        if (missing != NULL) {
            fprintf(stderr, "%-9s not here: %s\n", isa, missing);
            continue;
        }
        const double single = fma_peak(one, kernel), all = fma_peak(b->threads, kernel);
        if (b->options.json)
            printf(
                "{\"op\":\"peak\",\"isa\":\"%s\",\"threads\":%d,\"gflops_one\":%.1f,\"gflops_all\":%.1f}\n",
                isa, (int)n, single, all);
        else
            printf("%-9s f32 multiply-add  %7.1f GFLOP/s on one thread, %7.1f on %d\n", isa, single, all,
                   (int)n);
    }
    const double single = read_peak(one, b->peak, b->memory), all = read_peak(b->threads, b->peak, b->memory);
    if (b->options.json)
        printf("{\"op\":\"peak\",\"read\":true,\"threads\":%d,\"gbytes_per_s_one\":%.1f,\"gbytes_per_s_all\":"
               "%.1f}\n",
               (int)n, single, all);
    else
        printf("memory    read              %7.1f GB/s on one thread,    %7.1f on %d\n", single, all, (int)n);
    tsr_threads_destroy(one);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct timing {
    double median, least, most;
} timing;

/* Rounds of as many calls as take a hundredth of a second at least; sorted, the middle one. */
static tsr_status time_rounds(const bench_row *row, double scale, timing *out)
{
    double round[MAX_ROUNDS];
    int n = 0;
    TSR_TRY(row->run(row->arg));
    const double first = seconds();
    TSR_TRY(row->run(row->arg));
    const double once = seconds() - first;
    const int calls = once < 0.01 * scale ? (int)(0.01 * scale / (once + 1e-9)) + 1 : 1;
    const double end = seconds() + scale;
    while (n < MAX_ROUNDS && (n < LEAST_ROUNDS || seconds() < end)) {
        const double start = seconds();
        for (int i = 0; i < calls; i++) TSR_TRY(row->run(row->arg));
        round[n++] = (seconds() - start) / calls;
    }
    qsort(round, (size_t)n, sizeof *round, by_size);
    *out = (timing){.median = round[n / 2], .least = round[0], .most = round[n - 1]};
    return TSR_OK;
}

static void print_row(bench *b, const bench_row *row, const timing *t, bench_floor floor, double peak)
{
    const double gflops = row->flop / t->median * 1e-9, gbytes = row->nbytes / t->median * 1e-9;
    const double share = (floor == BENCH_FLOOR_FMA ? gflops : gbytes) / peak;
    const char *floor_name = floor == BENCH_FLOOR_FMA ? "fma" : "read";
    const int32_t threads = tsr_context_n_threads(b->ctx);
    if (b->options.json) {
        printf(
            "{\"op\":\"%s\",%s,\"threads\":%d,\"ms\":%.4f,\"ms_least\":%.4f,\"ms_most\":%.4f,\"gflops\":%.2f,"
            "\"gbytes_per_s\":%.2f,\"floor\":\"%s\",\"floor_peak\":%.1f,\"share\":%.3f}\n",
            row->op, row->json, (int)threads, 1e3 * t->median, 1e3 * t->least, 1e3 * t->most, gflops, gbytes,
            floor_name, peak, share);
    } else {
        if (!b->header_printed)
            printf("\n%-10s %-44s %10s %15s %9s %7s %5s %6s\n", "op", "shape", "ms", "(least-most)",
                   "GFLOP/s", "GB/s", "floor", "share");
        b->header_printed = true;
        char spread[32];
        snprintf(spread, sizeof spread, "(%.3g-%.3g)", 1e3 * t->least, 1e3 * t->most);
        printf("%-10s %-44s %10.3f %15s %9.1f %7.1f %5s %6.2f\n", row->op, row->shape, 1e3 * t->median,
               spread, gflops, gbytes, floor_name, share);
    }
    fflush(stdout);
}

tsr_status bench_measure(bench *b, const bench_row *row)
{
    timing t = {0};
    double fma = 0, read = 0;
    for (int repeat = 0; repeat < MAX_REPEATS; repeat++) {
        const double before = fma_peak(b->threads, b->peak);
        TSR_TRY(time_rounds(row, b->options.scale, &t));
        fma = fma_peak(b->threads, b->peak);
        const double moved = fma > before ? fma / before : before / fma;
        if (before > b->best_fma) b->best_fma = before;
        if (fma > b->best_fma) b->best_fma = fma;
        if (moved < 1.03 || b->options.scale < 0.5) break;
        fprintf(stderr, "%s %s: the machine's peak moved by %.0f %%, measuring again\n", row->op, row->shape,
                100 * (moved - 1));
    }
    fma = b->best_fma;
    read = read_peak(b->threads, b->peak, b->memory);
    const bench_floor floor = row->flop / fma >= row->nbytes / read ? BENCH_FLOOR_FMA : BENCH_FLOOR_READ;
    print_row(b, row, &t, floor, floor == BENCH_FLOOR_FMA ? fma : read);
    return TSR_OK;
}
