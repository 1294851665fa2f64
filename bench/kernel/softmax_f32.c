/*
 * softmax_f32.c - the softmax of a row in three passes, in two, and in one together with its use
 *
 *     three passes   m = max_j x_j         l = sum_j exp(x_j - m)        y_j = exp(x_j - m) / l
 *     two passes     m and l together                                    y_j = exp(x_j - m) / l
 *     one pass       m, l and o = sum_j exp(x_j - m) v_j together        o / l
 *
 * Where m, l and o stand for the elements so far and the next ones raise the maximum to m', both sums shrink
 * by exp(m - m'):   l' = l exp(m - m') + sum exp(x_j - m')   and o alike.
 * (Milakov and Gimelshein, 2018, "Online normalizer calculation for softmax")
 *
 * A step takes BLOCK vectors and rescales once for them; every lane keeps its own m, l and o, which are
 * brought to the row's maximum at the end.
 */
#include "kernel/softmax_f32.h"

#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

enum { BLOCK = TSR_LANES == 16 ? 8 : 4, STEP = BLOCK * VL };

/* Below every score, and finite: less another such it is 0, not NaN. */
#define LOWEST (-0x1p126f)

/* BLOCK vectors of p; beyond the n-th element `padding`. */
TSR_INLINE void load_block(const float *p, int64_t n, float padding, vf32 x[BLOCK])
{
    UNROLL for (int i = 0; i < BLOCK; i++)
    {
        const int64_t left = n - i * VL;
        if (left >= VL) {
            x[i] = vf32_load(p + i * VL);
        } else {
            const int64_t some = left > 0 ? left : 0;
            const vi32 inside = vi32_iota() < vi32_splat((int32_t)some);
            x[i] = vf32_select(inside, vf32_load_n(p + (left > 0 ? i * VL : 0), some), vf32_splat(padding));
        }
    }
}

TSR_INLINE vf32 max_of(vf32 m, const vf32 x[BLOCK])
{
    UNROLL for (int i = 0; i < BLOCK; i++) m = vf32_max(m, x[i]);
    return m;
}

typedef struct running {
    vf32 m, l, o; /* of each lane */
} running;

/* v NULL: without o. */
TSR_INLINE running add_block(running r, const float *x, const float *v, int64_t n)
{
    vf32 block[BLOCK], value[BLOCK] = {{0}};
    load_block(x, n, LOWEST, block);
    if (v != NULL) load_block(v, n, 0, value);
    const vf32 m = max_of(r.m, block), factor = vf32_exp(r.m - m);
    r = (running){m, r.l * factor, r.o * factor};
    UNROLL for (int i = 0; i < BLOCK; i++)
    {
        const vf32 e = vf32_exp(block[i] - m);
        r.l += e;
        if (v != NULL) r.o += e * value[i];
    }
    return r;
}

TSR_INLINE running add_row(const float *x, const float *v, int64_t n)
{
    running r = {vf32_splat(LOWEST), vf32_splat(0), vf32_splat(0)};
    int64_t j = 0;
    for (; j + STEP <= n; j += STEP) r = add_block(r, x + j, v == NULL ? NULL : v + j, STEP);
    if (j < n) r = add_block(r, x + j, v == NULL ? NULL : v + j, n - j);
    return r;
}

/* The pass that writes. */
static void write_quotients(const float *x, float *y, int64_t n, float m, float l)
{
    const vf32 maximum = vf32_splat(m), factor = vf32_splat(1 / l);
    int64_t j = 0;
    for (; j + VL <= n; j += VL) vf32_store(y + j, vf32_exp(vf32_load(x + j) - maximum) * factor);
    if (j < n) vf32_store_n(y + j, vf32_exp(vf32_load_n(x + j, n - j) - maximum) * factor, n - j);
}

static void three_passes(const float *x, float *y, int64_t n)
{
    vf32 block[BLOCK], m = vf32_splat(LOWEST), l = vf32_splat(0);
    for (int64_t j = 0; j < n; j += STEP) {
        load_block(x + j, n - j, LOWEST, block);
        m = max_of(m, block);
    }
    const float maximum = vf32_max_lane(m);
    for (int64_t j = 0; j < n; j += STEP) {
        load_block(x + j, n - j, LOWEST, block);
        UNROLL for (int i = 0; i < BLOCK; i++) l += vf32_exp(block[i] - maximum);
    }
    write_quotients(x, y, n, maximum, vf32_sum(l));
}

static void two_passes(const float *x, float *y, int64_t n)
{
    const running r = add_row(x, NULL, n);
    const float m = vf32_max_lane(r.m);
    write_quotients(x, y, n, m, vf32_sum(r.l * vf32_exp(r.m - m)));
}

static float one_pass(const float *x, const float *v, int64_t n)
{
    const running r = add_row(x, v, n);
    const vf32 factor = vf32_exp(r.m - vf32_max_lane(r.m));
    return vf32_sum(r.o * factor) / vf32_sum(r.l * factor);
}

static void gradient(const float *p, float *dp, int64_t n)
{
    vf32 sum = vf32_splat(0);
    int64_t j = 0;
    for (; j + VL <= n; j += VL) sum += vf32_load(p + j) * vf32_load(dp + j);
    if (j < n) sum += vf32_load_n(p + j, n - j) * vf32_load_n(dp + j, n - j);
    const float delta = vf32_sum(sum);
    for (j = 0; j + VL <= n; j += VL) vf32_store(dp + j, vf32_load(p + j) * (vf32_load(dp + j) - delta));
    if (j < n) vf32_store_n(dp + j, vf32_load_n(p + j, n - j) * (vf32_load_n(dp + j, n - j) - delta), n - j);
}

const bench_softmax_kernel TSR_NAME(bench_softmax_f32) = {
    .name = "bench_softmax_f32_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .three_passes = three_passes,
    .two_passes = two_passes,
    .one_pass = one_pass,
    .gradient = gradient,
};
