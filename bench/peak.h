/* bench/peak.h - what this machine can do at best, measured: the floors of the rows */
#ifndef TSR_BENCH_PEAK_H
#define TSR_BENCH_PEAK_H

#include <stddef.h>

#include "backend/cpu/kernel/peak.h"
#include "base/threads.h"

/* What a kernel multiplies in. */
typedef enum bench_compute { BENCH_F32, BENCH_BF16, BENCH_S8, BENCH_N_COMPUTES } bench_compute;
/* The floors: the rate of a compute type, or reading memory. */
enum { BENCH_READ = BENCH_N_COMPUTES, BENCH_N_FLOORS };

/* "f32", "bf16", "s8", "read" */
extern const char *const bench_floor_names[BENCH_N_FLOORS];

typedef struct bench_spread {
    double median, least, most;
} bench_spread;

/* Sorts the n values. */
bench_spread bench_spread_of(double *values, int n);

/* Seconds on a clock that only goes forward. */
double bench_seconds(void);

/* Bytes of the last level of cache. */
size_t bench_cache_nbytes(void);

/* The loop of a compute type; NULL if the instruction set has none. */
typedef double (*bench_multiply)(int64_t reps, float *sink);
bench_multiply bench_multiply_of(const tsr_peak_kernel *kernel, bench_compute compute);

/* GFLOP/s of all threads of the door; nine rounds. A limit is what the best one reached. */
bench_spread bench_multiply_peak(tsr_threads *threads, bench_multiply multiply);

/* GB/s of reading nbytes, which is a multiple of 64 KiB and much larger than the cache. */
bench_spread bench_read_peak(tsr_threads *threads, const tsr_peak_kernel *kernel, const char *memory,
                             size_t nbytes);

#endif
