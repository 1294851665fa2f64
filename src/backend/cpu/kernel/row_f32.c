/*
 * row_f32.c - kernels along a row: maximum, sums, softmax, norms, RoPE
 *
 * Compiled once per instruction set; VL lanes. Sums keep NS vectors, so that the latency of one addition
 * hides behind the others:
 *
 *     lane sums    s[k] = sum over i of x[(i NS + k) VL ...], k < NS; the tail goes to s[0]
 *     folding      (s[0] + s[1]) + (s[2] + s[3]), then vf32_sum
 */
#include "backend/cpu/kernel/row_f32.h"

#include <float.h>

#include "backend/cpu/vec.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

enum { NS = 4 };

TSR_INLINE vf32 fold(const vf32 s[NS]) { return (s[0] + s[1]) + (s[2] + s[3]); }

/* What is summed: f(x, y, c) of each element. Lanes beyond n are given zeros and must be cleared by mask. */
typedef vf32 (*term)(vf32 x, vf32 y, float c);

TSR_INLINE vf32 first_lanes(vf32 v, int64_t n)
{
    return vf32_select(vi32_iota() < (int32_t)n, v, vf32_splat(0));
}

TSR_INLINE float sum_terms(term f, int64_t n, const float *x, const float *y, float c)
{
    vf32 s[NS];
    UNROLL for (int k = 0; k < NS; k++) s[k] = vf32_splat(0);
    int64_t i = 0;
    for (; i + NS * VL <= n; i += NS * VL) {
        UNROLL for (int k = 0; k < NS; k++)
            s[k] += f(vf32_load(x + i + k * VL), vf32_load(y + i + k * VL), c);
    }
    for (; i + VL <= n; i += VL) s[0] += f(vf32_load(x + i), vf32_load(y + i), c);
    if (i < n) s[0] += first_lanes(f(vf32_load_n(x + i, n - i), vf32_load_n(y + i, n - i), c), n - i);
    return vf32_sum(fold(s));
}

TSR_INLINE vf32 itself(vf32 x, vf32 y, float c) { return (void)y, x - c; }
TSR_INLINE vf32 square(vf32 x, vf32 y, float c) { return (void)y, (x - c) * (x - c); }
TSR_INLINE vf32 product(vf32 x, vf32 y, float c) { return (void)c, x * y; }
TSR_INLINE vf32 exponential(vf32 x, vf32 y, float c) { return (void)y, vf32_exp(x - c); }

static float sum(int64_t n, const float *x, float centre) { return sum_terms(itself, n, x, x, centre); }
static float sum_squares(int64_t n, const float *x, float centre)
{
    return sum_terms(square, n, x, x, centre);
}
static float dot(int64_t n, const float *a, const float *b) { return sum_terms(product, n, a, b, 0); }
static float exp_sum(int64_t n, const float *x, float max) { return sum_terms(exponential, n, x, x, max); }

static float max(int64_t n, const float *x)
{
    const vf32 lowest = vf32_splat(-__builtin_inff());
    vf32 m[NS];
    UNROLL for (int k = 0; k < NS; k++) m[k] = lowest;
    int64_t i = 0;
    for (; i + NS * VL <= n; i += NS * VL) {
        UNROLL for (int k = 0; k < NS; k++) m[k] = vf32_max(vf32_load(x + i + k * VL), m[k]);
    }
    for (; i + VL <= n; i += VL) m[0] = vf32_max(vf32_load(x + i), m[0]);
    if (i < n) {
        const vf32 tail = vf32_select(vi32_iota() < (int32_t)(n - i), vf32_load_n(x + i, n - i), lowest);
        m[0] = vf32_max(tail, m[0]);
    }
    return vf32_max_lane(vf32_max(vf32_max(m[0], m[1]), vf32_max(m[2], m[3])));
}

static void accumulate(int64_t n, const float *x, float *sums)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(sums + i, vf32_load(sums + i) + vf32_load(x + i));
    if (i < n) vf32_store_n(sums + i, vf32_load_n(sums + i, n - i) + vf32_load_n(x + i, n - i), n - i);
}

/* --- softmax --- */

static void exp_scale(int64_t n, const float *x, float shift, float scale, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(y + i, vf32_exp(vf32_load(x + i) - shift) * scale);
    if (i < n) vf32_store_n(y + i, vf32_exp(vf32_load_n(x + i, n - i) - shift) * scale, n - i);
}

static void softmax_bwd(int64_t n, const float *y, const float *dy, float dot_y_dy, float *dx)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(dx + i, vf32_load(y + i) * (vf32_load(dy + i) - dot_y_dy));
    if (i < n)
        vf32_store_n(dx + i, vf32_load_n(y + i, n - i) * (vf32_load_n(dy + i, n - i) - dot_y_dy), n - i);
}

/* --- norms --- */

TSR_INLINE vf32 normalised(const tsr_norm_row *row, const float *x, int64_t left)
{
    return (vf32_load_up_to(x, left) - row->mean) * row->rstd + row->offset;
}

TSR_INLINE void norm_fwd_at(const tsr_norm_row *row, const float *x, const float *weight, const float *bias,
                            float *y, int64_t left)
{
    vf32 v = normalised(row, x, left) * vf32_load_up_to(weight, left);
    if (bias != NULL) v += vf32_load_up_to(bias, left);
    vf32_store_up_to(y, v, left);
}

TSR_INLINE void norm_fwd_with(const tsr_norm_row *row, int64_t n, const float *x, const float *weight,
                              const float *bias, float *y)
{
    const tsr_norm_row r = *row; /* a copy that no store can change */
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        norm_fwd_at(&r, x + i, weight + i, bias == NULL ? NULL : bias + i, y + i, VL);
    if (i < n) norm_fwd_at(&r, x + i, weight + i, bias == NULL ? NULL : bias + i, y + i, n - i);
}

static void norm_fwd(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                     const float *bias, float *y)
{
    if (bias == NULL)
        norm_fwd_with(row, n, x, weight, NULL, y);
    else
        norm_fwd_with(row, n, x, weight, bias, y);
}

/* sums[0] += g, sums[1] += g * x'; lanes beyond `left` have dy = 0, whatever x' is there. */
TSR_INLINE void norm_sums_at(const tsr_norm_row *row, const float *x, const float *weight, const float *dy,
                             vf32 sums[2], int64_t left)
{
    const vf32 g = vf32_load_up_to(dy, left) * vf32_load_up_to(weight, left);
    vf32 gx = g * normalised(row, x, left);
    if (left < VL) gx = first_lanes(gx, left);
    sums[0] += g, sums[1] += gx;
}

static void norm_sums(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                      const float *dy, float *sum_g, float *sum_gx)
{
    vf32 s[NS][2];
    UNROLL for (int k = 0; k < NS; k++) s[k][0] = s[k][1] = vf32_splat(0);
    int64_t i = 0;
    for (; i + NS * VL <= n; i += NS * VL) {
        UNROLL for (int k = 0; k < NS; k++)
            norm_sums_at(row, x + i + k * VL, weight + i + k * VL, dy + i + k * VL, s[k], VL);
    }
    for (; i + VL <= n; i += VL) norm_sums_at(row, x + i, weight + i, dy + i, s[0], VL);
    if (i < n) norm_sums_at(row, x + i, weight + i, dy + i, s[0], n - i);
    *sum_g = vf32_sum((s[0][0] + s[1][0]) + (s[2][0] + s[3][0]));
    *sum_gx = vf32_sum((s[0][1] + s[1][1]) + (s[2][1] + s[3][1]));
}

TSR_INLINE void norm_dx_at(const tsr_norm_row *row, const float *x, const float *weight, const float *dy,
                           int accumulate_dx, float *dx, int64_t left)
{
    const vf32 g = vf32_load_up_to(dy, left) * vf32_load_up_to(weight, left);
    vf32 v = (g - row->mean_g - normalised(row, x, left) * row->mean_gx) * row->rstd;
    if (accumulate_dx) v += vf32_load_up_to(dx, left);
    vf32_store_up_to(dx, v, left);
}

TSR_INLINE void norm_dx_with(const tsr_norm_row *row, int64_t n, const float *x, const float *weight,
                             const float *dy, int accumulate_dx, float *dx)
{
    const tsr_norm_row r = *row;
    int64_t i = 0;
    for (; i + VL <= n; i += VL) norm_dx_at(&r, x + i, weight + i, dy + i, accumulate_dx, dx + i, VL);
    if (i < n) norm_dx_at(&r, x + i, weight + i, dy + i, accumulate_dx, dx + i, n - i);
}

static void norm_dx(int64_t n, const tsr_norm_row *row, const float *x, const float *weight, const float *dy,
                    int accumulate_dx, float *dx)
{
    if (accumulate_dx)
        norm_dx_with(row, n, x, weight, dy, 1, dx);
    else
        norm_dx_with(row, n, x, weight, dy, 0, dx);
}

TSR_INLINE void norm_dweight_at(const tsr_norm_row *row, const float *x, const float *dy, float *dweight,
                                int64_t left)
{
    const vf32 term_of_row = vf32_load_up_to(dy, left) * normalised(row, x, left);
    vf32_store_up_to(dweight, vf32_load_up_to(dweight, left) + term_of_row, left);
}

static void norm_dweight(int64_t n, const tsr_norm_row *row, const float *x, const float *dy, float *dweight)
{
    const tsr_norm_row r = *row;
    int64_t i = 0;
    for (; i + VL <= n; i += VL) norm_dweight_at(&r, x + i, dy + i, dweight + i, VL);
    if (i < n) norm_dweight_at(&r, x + i, dy + i, dweight + i, n - i);
}

/* --- RoPE --- */

TSR_INLINE void rope_at(const float *u, const float *w, const float *cos, const float *sin, float sign,
                        float *yu, float *yw, int64_t left)
{
    const vf32 c = vf32_load_up_to(cos, left), s = vf32_load_up_to(sin, left) * sign;
    const vf32 a = vf32_load_up_to(u, left), b = vf32_load_up_to(w, left);
    vf32_store_up_to(yu, a * c - b * s, left);
    vf32_store_up_to(yw, a * s + b * c, left);
}

static void rope(int64_t n, const float *u, const float *w, const float *cos, const float *sin, int inverse,
                 float *yu, float *yw)
{
    const float sign = inverse ? -1.0f : 1.0f;
    int64_t i = 0;
    for (; i + VL <= n; i += VL) rope_at(u + i, w + i, cos + i, sin + i, sign, yu + i, yw + i, VL);
    if (i < n) rope_at(u + i, w + i, cos + i, sin + i, sign, yu + i, yw + i, n - i);
}

static void rope_interleaved(int64_t n, const float *x, const float *cos, const float *sin, int inverse,
                             float *y)
{
    const float sign = inverse ? -1.0f : 1.0f;
    for (int64_t p = 0; p < n; p++) {
        const float u = x[2 * p], w = x[2 * p + 1], s = sin[p] * sign;
        y[2 * p] = u * cos[p] - w * s;
        y[2 * p + 1] = u * s + w * cos[p];
    }
}

TSR_INLINE vf32 load_up_to(const void *x, tsr_dtype dtype, int64_t i, int64_t n)
{
    return n >= VL ? vf32_load_as(x, dtype, i) : vf32_load_as_n(x, dtype, i, n);
}

/* max |x|, NaN where an element is NaN or infinite. */
TSR_INLINE float largest_as(int64_t n, const void *x, tsr_dtype dtype)
{
    vf32 most = vf32_splat(0), not_finite = vf32_splat(0);
    for (int64_t i = 0; i < n; i += VL) {
        const vf32 v = load_up_to(x, dtype, i, n - i);
        most = vf32_max(most, vf32_abs(v));
        not_finite += v - v;
    }
    return vf32_max_lane(most) + vf32_sum(not_finite);
}

/* The first n of VL integers, each within 8 bits, from the sums that left them in their low bits. */
TSR_INLINE void store_integers(int8_t *q, vf32 shifted, int64_t n)
{
    int8_t t[VL];
    s8_from_vi32(t, (vi32)shifted - (vi32)vf32_splat(VF32_ROUND));
    memcpy(q, t, (size_t)(n < VL ? n : VL));
}

TSR_INLINE float quantise_as(int64_t n, const void *x, tsr_dtype dtype, float levels, int8_t *q)
{
    const float largest = largest_as(n, x, dtype), factor = levels / largest;
    if (!(factor <= FLT_MAX)) {
        if (n > 0) memset(q, 0, (size_t)n);
        return largest != largest ? largest : 0;
    }
    for (int64_t i = 0; i < n; i += VL)
        store_integers(q + i, vf32_rounded(load_up_to(x, dtype, i, n - i) * factor) + VF32_ROUND, n - i);
    return largest / levels;
}

static float quantise(int64_t n, const void *x, tsr_dtype dtype, float levels, int8_t *q)
{
    switch (dtype) {
    case TSR_F32: return quantise_as(n, x, TSR_F32, levels, q);
    case TSR_BF16: return quantise_as(n, x, TSR_BF16, levels, q);
    default: return quantise_as(n, x, TSR_F16, levels, q);
    }
}

TSR_INLINE float quantise_from_zero_as(int64_t n, const void *x, tsr_dtype dtype, int8_t *q, int8_t *zero)
{
    vf32 lowest = vf32_splat(0), highest = vf32_splat(0);
    for (int64_t i = 0; i < n; i += VL) {
        const vf32 v = load_up_to(x, dtype, i, n - i);
        lowest = vf32_max(lowest, -v), highest = vf32_max(highest, v);
    }
    const float minus_low = vf32_max_lane(lowest), high = vf32_max_lane(highest);
    const float scale = (float)(((double)high + minus_low) / 15);
    *zero = 0;
    if (scale == 0) {
        if (n > 0) memset(q, 0, (size_t)n);
        return 0;
    }
    const float nearest = __builtin_rintf(minus_low / scale);
    *zero = (int8_t)(nearest < 15 ? nearest : 15);
    for (int64_t i = 0; i < n; i += VL) {
        const vf32 steps = load_up_to(x, dtype, i, n - i) / vf32_splat(scale);
        const vf32 whole = (steps + VF32_ROUND) - VF32_ROUND + (float)*zero;
        store_integers(q + i, vf32_max(vf32_splat(0), vf32_min(vf32_splat(15), whole)) + VF32_ROUND, n - i);
    }
    return scale;
}

static float quantise_from_zero(int64_t n, const void *x, tsr_dtype dtype, int8_t *q, int8_t *zero)
{
    switch (dtype) {
    case TSR_F32: return quantise_from_zero_as(n, x, TSR_F32, q, zero);
    case TSR_BF16: return quantise_from_zero_as(n, x, TSR_BF16, q, zero);
    default: return quantise_from_zero_as(n, x, TSR_F16, q, zero);
    }
}

const tsr_row_f32_kernel TSR_NAME(tsr_row_f32) = {
    .name = "row_f32_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .max = max,
    .sum = sum,
    .sum_squares = sum_squares,
    .dot = dot,
    .accumulate = accumulate,
    .exp_sum = exp_sum,
    .exp_scale = exp_scale,
    .softmax_bwd = softmax_bwd,
    .norm_fwd = norm_fwd,
    .norm_sums = norm_sums,
    .norm_dx = norm_dx,
    .norm_dweight = norm_dweight,
    .rope = rope,
    .rope_interleaved = rope_interleaved,
    .quantise = quantise,
    .quantise_from_zero = quantise_from_zero,
};
