/* bench/peak.c - rates of multiply-adds and exponentials, and read bandwidth, of all threads */
#define _GNU_SOURCE
#include "peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { PARTS = 64, ROUNDS = 9, READ_ROUNDS = 5 };

const char *const bench_floor_names[BENCH_N_FLOORS] = {"f32", "bf16", "s8", "read", "exp"};

double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_spread bench_spread_of(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_size);
    return (bench_spread){.median = values[n / 2], .least = values[0], .most = values[n - 1]};
}

/* What the kernel says comes first: glibc counts the cache of every die of some processors. */
static size_t cache_nbytes(void)
{
    long largest = 0;
    for (int level = 0; largest <= 0 && level < 5; level++) {
        char path[80], unit = 'K';
        long kilobytes = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", 4 - level);
        FILE *f = fopen(path, "r");
        if (f == NULL) continue;
        if (fscanf(f, "%ld%c", &kilobytes, &unit) >= 1) largest = kilobytes << (unit == 'M' ? 20 : 10);
        fclose(f);
    }
#if defined(_SC_LEVEL3_CACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
    if (largest <= 0) largest = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (largest <= 0) largest = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return largest > 0 ? (size_t)largest : (size_t)32 << 20;
}

static size_t cache_limit = SIZE_MAX;
void bench_limit_cache(size_t nbytes) { cache_limit = nbytes; }

size_t bench_cache_nbytes(void)
{
    const size_t nbytes = cache_nbytes();
    return nbytes < cache_limit ? nbytes : cache_limit;
}

tsr_peak_loop bench_loop_of(const tsr_peak_kernel *kernel, int floor)
{
    switch (floor) {
    case BENCH_F32: return kernel->multiply_add;
    case BENCH_BF16: return kernel->multiply_add_bf16;
    case BENCH_S8: return kernel->multiply_add_s8;
    case BENCH_EXP: return kernel->exp2;
    default: return NULL;
    }
}

typedef struct peak_job {
    tsr_peak_loop loop;
    int64_t reps;
    const tsr_peak_kernel *reader;
    const char *memory;
    size_t part_nbytes;
    float sink[PARTS]; /* per item, apart enough not to matter */
    double operations; /* of one item */
} peak_job;

static void loop_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    peak_job *job = arg;
    const double operations = job->loop(job->reps, &job->sink[item % PARTS]);
    if (item == 0) job->operations = operations;
}

static void read_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    peak_job *job = arg;
    job->sink[item % PARTS] += job->reader->read(job->memory + (size_t)item * job->part_nbytes,
                                                 job->part_nbytes);
}

bench_spread bench_loop_peak(tsr_threads *threads, tsr_peak_loop loop)
{
    peak_job job = {.loop = loop, .reps = 20000};
    const int32_t n = tsr_threads_count(threads);
    double rates[ROUNDS], start = bench_seconds();
    tsr_threads_run(threads, n, loop_item, &job);
    const double longer = 2e-3 / (bench_seconds() - start); /* a round of about 2 ms */
    if (longer > 1) job.reps = (int64_t)((double)job.reps * longer);
    for (int round = 0; round < ROUNDS; round++) {
        start = bench_seconds();
        tsr_threads_run(threads, n, loop_item, &job);
        rates[round] = n * job.operations / (bench_seconds() - start) * 1e-9;
    }
    return bench_spread_of(rates, ROUNDS);
}

bench_spread bench_read_peak(tsr_threads *threads, const tsr_peak_kernel *kernel, const char *memory,
                             size_t nbytes)
{
    peak_job job = {.reader = kernel, .memory = memory, .part_nbytes = nbytes / PARTS};
    double rates[READ_ROUNDS];
    for (int round = 0; round < READ_ROUNDS; round++) {
        const double start = bench_seconds();
        tsr_threads_run(threads, PARTS, read_item, &job);
        rates[round] = (double)nbytes / (bench_seconds() - start) * 1e-9;
    }
    return bench_spread_of(rates, READ_ROUNDS);
}
