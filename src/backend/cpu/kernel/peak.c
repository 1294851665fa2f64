/*
 * peak.c - the multiply-add rate and the read bandwidth, as high as this instruction set can show them
 *
 * multiply_add: more independent accumulators than latency x ports (4 x 2 on most cores), no memory at all.
 * read: four streams of additions behind a prefetch that runs 2 KiB ahead.
 */
#include "backend/cpu/kernel/peak.h"

#include "backend/cpu/vec.h"

enum { N_ACC = TSR_LANES == 16 ? 24 : 12, AHEAD_NBYTES = 2048 };

static double multiply_add(int64_t reps, float *sink)
{
    vf32 acc[N_ACC];
    vf32 x = vf32_splat(1.0000001f), y = vf32_splat(1e-9f);
    __asm__("" : "+m"(x), "+m"(y)); /* unknown to the compiler */
    UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = vf32_splat((float)i);
    for (int64_t r = 0; r < reps; r++) UNROLL for (int i = 0; i < N_ACC; i++) acc[i] = acc[i] * x + y;
    UNROLL for (int i = 1; i < N_ACC; i++) acc[0] += acc[i];
    *sink += vf32_sum(acc[0]);
    return 2.0 * (double)reps * N_ACC * VL;
}

static float read_all(const void *data, size_t nbytes)
{
    const float *p = data, *end = p + nbytes / sizeof *p;
    vf32 sum[4] = {{0}, {0}, {0}, {0}};
    for (; p < end; p += 32) { /* two cache lines */
        __builtin_prefetch((const char *)p + AHEAD_NBYTES);
        __builtin_prefetch((const char *)p + AHEAD_NBYTES + 64);
        UNROLL for (int i = 0; i < 32 / VL; i++) sum[i % 4] += vf32_load(p + i * VL);
    }
    return vf32_sum(sum[0] + sum[1] + (sum[2] + sum[3]));
}

const tsr_peak_kernel TSR_NAME(tsr_peak) = {
    .name = "peak_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .multiply_add = multiply_add,
    .read = read_all,
};
