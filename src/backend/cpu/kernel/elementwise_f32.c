/*
 * elementwise_f32.c - kernels that treat each element alone: conversions, activations, sums of two, dropout,
 * AdamW
 *
 * Compiled once per instruction set; VL lanes. All are bound by memory once their data leaves the caches:
 * the dearest, gelu, needs about 30 instructions a vector, dropout 130 for four vectors.
 */
#include "backend/cpu/kernel/elementwise_f32.h"

#include "backend/cpu/vec.h"
#include "backend/cpu/vec_dropout.h"
#include "backend/cpu/vec_math.h"

/* --- storage types --- */

TSR_INLINE float load_one(const void *x, tsr_dtype dtype, int64_t i)
{
    if (dtype == TSR_F32) return ((const float *)x)[i];
    const uint16_t h = ((const uint16_t *)x)[i];
    return dtype == TSR_BF16 ? tsr_f32_from_bf16(h) : tsr_f32_from_f16(h);
}

TSR_INLINE void store_one(void *y, tsr_dtype dtype, int64_t i, float value)
{
    if (dtype == TSR_F32)
        ((float *)y)[i] = value;
    else
        ((uint16_t *)y)[i] = dtype == TSR_BF16 ? tsr_bf16_from_f32(value) : tsr_f16_from_f32(value);
}

TSR_INLINE void load_as(float *y, const void *x, tsr_dtype dtype, int64_t stride, int64_t n)
{
    int64_t i = 0;
    if (stride == 1) {
        for (; i + VL <= n; i += VL) vf32_store(y + i, vf32_load_as(x, dtype, i));
        if (i < n) vf32_store_n(y + i, vf32_load_as_n(x, dtype, i, n - i), n - i);
    } else {
        for (; i < n; i++) y[i] = load_one(x, dtype, i * stride);
    }
}

TSR_INLINE void store_as(void *y, tsr_dtype dtype, int64_t stride, const float *x, int64_t n)
{
    int64_t i = 0;
    if (stride == 1) {
        for (; i + VL <= n; i += VL) vf32_store_as(y, dtype, i, vf32_load(x + i));
        if (i < n) vf32_store_as_n(y, dtype, i, vf32_load_n(x + i, n - i), n - i);
    } else {
        for (; i < n; i++) store_one(y, dtype, i * stride, x[i]);
    }
}

static void load(float *y, const void *x, tsr_dtype dtype, int64_t stride, int64_t n)
{
    switch (dtype) {
    case TSR_F32: load_as(y, x, TSR_F32, stride, n); break;
    case TSR_BF16: load_as(y, x, TSR_BF16, stride, n); break;
    default: load_as(y, x, TSR_F16, stride, n); break;
    }
}

static void store(void *y, tsr_dtype dtype, int64_t stride, const float *x, int64_t n)
{
    switch (dtype) {
    case TSR_F32: store_as(y, TSR_F32, stride, x, n); break;
    case TSR_BF16: store_as(y, TSR_BF16, stride, x, n); break;
    default: store_as(y, TSR_F16, stride, x, n); break;
    }
}

/* --- activations: f and its derivative --- */

TSR_INLINE vf32 gelu_slope(vf32 x)
{
    vf32 density;
    const vf32 probability = vf32_normal(x, &density);
    return probability + x * density;
}

enum { GELU_TANH_CLAMP = 1 << 20 }; /* of x^2, where the slope is 0 or 1 long since: keeps 0 * Inf out */

/* sigmoid(z), and its slope s (1 - s) from e^-|z|: where s is near 1, 1 - s would have lost its bits. */
TSR_INLINE vf32 sigmoid_with_slope(vf32 z, vf32 *slope)
{
    const vf32 q = vf32_exp(-vf32_abs(z)), r = 1 / (1 + q);
    *slope = q * r * r;
    return vf32_select(z < 0, q * r, r);
}

TSR_INLINE vf32 gelu_tanh_slope(vf32 x)
{
    vf32 slope;
    const vf32 s = sigmoid_with_slope(1.59576912f * x * (1 + 0.044715f * x * x), &slope);
    const vf32 square = vf32_min(vf32_splat(GELU_TANH_CLAMP), x * x);
    return s + x * slope * (1.59576912f + 0.214064449f * square);
}

TSR_INLINE vf32 silu_slope(vf32 x)
{
    vf32 slope;
    const vf32 s = sigmoid_with_slope(x, &slope);
    return s + x * slope;
}

typedef vf32 (*function)(vf32);

TSR_INLINE void map(function f, int64_t n, const float *x, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(y + i, f(vf32_load(x + i)));
    if (i < n) vf32_store_n(y + i, f(vf32_load_n(x + i, n - i)), n - i);
}

/* y = f(x) * factor */
TSR_INLINE void map_product(function f, int64_t n, const float *x, const float *factor, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(y + i, vf32_load(factor + i) * f(vf32_load(x + i)));
    if (i < n) vf32_store_n(y + i, vf32_load_n(factor + i, n - i) * f(vf32_load_n(x + i, n - i)), n - i);
}

static void identity_fwd(int64_t n, const float *x, float *y) { map(vf32_identity, n, x, y); }
static void relu_fwd(int64_t n, const float *x, float *y) { map(vf32_relu, n, x, y); }
static void gelu_fwd(int64_t n, const float *x, float *y) { map(vf32_gelu, n, x, y); }
static void gelu_tanh_fwd(int64_t n, const float *x, float *y) { map(vf32_gelu_tanh, n, x, y); }
static void silu_fwd(int64_t n, const float *x, float *y) { map(vf32_silu, n, x, y); }

static void identity_bwd(int64_t n, const float *x, const float *dy, float *dx)
{
    (void)x;
    map(vf32_identity, n, dy, dx);
}

/* What relu cut off gets 0 whatever dy is; a NaN of x lets dy through. */
TSR_INLINE void relu_bwd_at(const float *x, const float *dy, float *dx, int64_t left)
{
    const vi32 cut_off = vf32_load_up_to(x, left) <= 0;
    vf32_store_up_to(dx, vf32_select(cut_off, vf32_splat(0), vf32_load_up_to(dy, left)), left);
}

static void relu_bwd(int64_t n, const float *x, const float *dy, float *dx)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) relu_bwd_at(x + i, dy + i, dx + i, VL);
    if (i < n) relu_bwd_at(x + i, dy + i, dx + i, n - i);
}

static void gelu_bwd(int64_t n, const float *x, const float *dy, float *dx)
{
    map_product(gelu_slope, n, x, dy, dx);
}
static void gelu_tanh_bwd(int64_t n, const float *x, const float *dy, float *dx)
{
    map_product(gelu_tanh_slope, n, x, dy, dx);
}
static void silu_bwd(int64_t n, const float *x, const float *dy, float *dx)
{
    map_product(silu_slope, n, x, dy, dx);
}

/* --- two and more operands --- */

static void swiglu_fwd(int64_t n, const float *gate, const float *up, float *y)
{
    map_product(vf32_silu, n, gate, up, y);
}

TSR_INLINE void swiglu_bwd_at(const float *gate, const float *up, const float *dy, float *dgate, float *dup,
                              int64_t left)
{
    const vf32 g = vf32_load_up_to(gate, left), d = vf32_load_up_to(dy, left), s = vf32_sigmoid(g);
    const vf32 dg = d * vf32_load_up_to(up, left) * (s + g * (s * (1 - s)));
    vf32_store_up_to(dgate, dg, left);
    vf32_store_up_to(dup, d * (g * s), left);
}

static void swiglu_bwd(int64_t n, const float *gate, const float *up, const float *dy, float *dgate,
                       float *dup)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) swiglu_bwd_at(gate + i, up + i, dy + i, dgate + i, dup + i, VL);
    if (i < n) swiglu_bwd_at(gate + i, up + i, dy + i, dgate + i, dup + i, n - i);
}

static void add(int64_t n, float alpha, const float *a, float beta, const float *b, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf32_store(y + i, vf32_load(a + i) * alpha + vf32_load(b + i) * beta);
    if (i < n)
        vf32_store_n(y + i, vf32_load_n(a + i, n - i) * alpha + vf32_load_n(b + i, n - i) * beta, n - i);
}

/* One vector of y = residual + dropout(x), word an element. */
TSR_INLINE void dropout_add_at(const tsr_dropout_row *row, vu32 word, const float *x, const float *residual,
                               float *y, int64_t left)
{
    const vi32 keep = (vi32)(word >= row->threshold);
    vf32 v = vf32_select(keep, vf32_load_up_to(x, left) * row->scale, vf32_splat(0));
    if (residual != NULL) v += vf32_load_up_to(residual, left);
    vf32_store_up_to(y, v, left);
}

static void dropout_add(int64_t n, const tsr_dropout_row *row, uint32_t column, const float *x,
                        const float *residual, float *y)
{
    for (int64_t i = 0; i < n; i += 4 * VL) {
        vu32 words[4];
        vu32_dropout_words(words, row->seed, row->offset, 0, row->row, column + (uint32_t)i);
        for (int64_t k = 0, at = i; k < 4 && at < n; k++, at += VL)
            dropout_add_at(row, words[k], x + at, residual == NULL ? NULL : residual + at, y + at, n - at);
    }
}

TSR_INLINE void adamw_at(const tsr_adamw_step *s, float *p, const float *g, float *m, float *v, int64_t left)
{
    const vf32 gi = vf32_load_up_to(g, left) * s->grad_scale, pi = vf32_load_up_to(p, left);
    const vf32 mi = vf32_load_up_to(m, left) * s->beta1 + gi * s->one_minus_beta1;
    const vf32 vi = vf32_load_up_to(v, left) * s->beta2 + gi * gi * s->one_minus_beta2;
    const vf32 direction = mi * s->m_scale / (vf32_sqrt(vi * s->v_scale) + s->eps);
    vf32_store_up_to(m, mi, left);
    vf32_store_up_to(v, vi, left);
    vf32_store_up_to(p, pi - (pi * s->weight_decay + direction) * s->lr, left);
}

static void adamw(int64_t n, const tsr_adamw_step *step, float *p, const float *g, float *m, float *v)
{
    const tsr_adamw_step s = *step; /* a copy that no store can change */
    int64_t i = 0;
    for (; i + VL <= n; i += VL) adamw_at(&s, p + i, g + i, m + i, v + i, VL);
    if (i < n) adamw_at(&s, p + i, g + i, m + i, v + i, n - i);
}

const tsr_elementwise_f32_kernel TSR_NAME(tsr_elementwise_f32) = {
    .name = "elementwise_f32_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .load = load,
    .store = store,
    .activation_fwd = {identity_fwd, relu_fwd, gelu_fwd, gelu_tanh_fwd, silu_fwd},
    .activation_bwd = {identity_bwd, relu_bwd, gelu_bwd, gelu_tanh_bwd, silu_bwd},
    .swiglu_fwd = swiglu_fwd,
    .swiglu_bwd = swiglu_bwd,
    .add = add,
    .dropout_add = dropout_add,
    .adamw = adamw,
};
