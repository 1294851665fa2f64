/* bench/peak.h - what this machine can do at best, measured: the floors of the rows */
#ifndef TSR_BENCH_PEAK_H
#define TSR_BENCH_PEAK_H

#include <stddef.h>

#include "backend/cpu/kernel/peak.h"
#include "base/threads.h"

/* What a kernel multiplies in. */
typedef enum bench_compute { BENCH_F32, BENCH_BF16, BENCH_S8, BENCH_N_COMPUTES } bench_compute;
/* The floors: the rate of a compute type, reading memory, or the exponentials. */
enum { BENCH_READ = BENCH_N_COMPUTES, BENCH_EXP, BENCH_N_FLOORS };

/* "f32", "bf16", "s8", "read", "exp" */
extern const char *const bench_floor_names[BENCH_N_FLOORS];

typedef struct bench_spread {
    double median, least, most;
} bench_spread;

/* Sorts the n values. */
bench_spread bench_spread_of(double *values, int n);

/* Seconds on a clock that only goes forward. */
double bench_seconds(void);

/* Bytes of the last level of cache, or of as much of it as the benchmarks are to care for. */
size_t bench_cache_nbytes(void);
void bench_limit_cache(size_t nbytes);

/* The loop of a compute type, or of BENCH_EXP; NULL if the instruction set has none. */
tsr_peak_loop bench_loop_of(const tsr_peak_kernel *kernel, int floor);

/* 10^9 operations a second (of a multiply-add two, of an exponential one) of all threads of the door; nine
 * rounds. A limit is what the best one reached. */
bench_spread bench_loop_peak(tsr_threads *threads, tsr_peak_loop loop);

/* GB/s of reading nbytes, which is a multiple of 64 KiB and much larger than the cache. */
bench_spread bench_read_peak(tsr_threads *threads, const tsr_peak_kernel *kernel, const char *memory,
                             size_t nbytes);

#endif
