/*
 * gemm_store.c - the last store of a product: scales, bias, activation, gate, residual, conversion
 *
 * Compiled once per instruction set; VL lanes. Sums come from the first or second cache, where the
 * micro-kernel has just left them; each is read once, and C written once. What is absent is a branch that is
 * the same for the whole part.
 */
#include "backend/cpu/kernel/gemm_store.h"

#include "backend/cpu/vec.h"
#include "backend/cpu/vec_math.h"

/* Elements i.. (n of them, VL at most) of a vector with a stride. */
TSR_INLINE vf32 load_vector(const void *x, tsr_dtype dtype, int64_t i, int64_t stride, int64_t n)
{
    if (stride == 1) {
        if (dtype == TSR_F32) return vf32_load_up_to((const float *)x + i, n);
        return n >= VL ? vf32_load_as(x, dtype, i) : vf32_load_as_n(x, dtype, i, n);
    }
    float t[VL] = {0};
    for (int64_t j = 0; j < n && j < VL; j++) t[j] = (float)tsr_load_f64(x, dtype, (i + j) * stride);
    return vf32_load(t);
}

TSR_INLINE vf32 load_sums(const tsr_gemm_store_args *a, int64_t at, int64_t n)
{
    if (!a->sums_are_s32) return vf32_load_up_to((const float *)a->sums + at, n);
    const vf32 bits = vf32_load_up_to((const float *)a->sums + at, n);
    return __builtin_convertvector((vi32)bits, vf32);
}

static vf32 activated(tsr_activation activation, vf32 v)
{
    switch (activation) {
    case TSR_ACTIVATION_RELU: return vf32_relu(v);
    case TSR_ACTIVATION_GELU: return vf32_gelu(v);
    case TSR_ACTIVATION_GELU_TANH: return vf32_gelu_tanh(v);
    case TSR_ACTIVATION_SILU: return vf32_silu(v);
    default: return v;
    }
}

/* One of the two products of a gated layer, or the only one: scaled, with its bias. */
TSR_INLINE vf32 scaled(const tsr_gemm_store_args *a, int64_t at, int64_t j, int64_t n, float row_scale,
                       const float *column_scale, const void *bias, tsr_dtype bias_dtype, int64_t bias_stride)
{
    vf32 v = load_sums(a, at, n);
    if (column_scale != NULL)
        v *= vf32_rounded(vf32_load_up_to(column_scale + j, n) * row_scale);
    else
        v *= row_scale;
    v = vf32_rounded(v) * a->scale;
    v = vf32_rounded(v); /* whether a bias is added or not */
    if (bias != NULL) v += load_vector(bias, bias_dtype, j, bias_stride, n);
    return v;
}

TSR_INLINE void store_s8(const tsr_gemm_store_args *a, int64_t at, vf32 v, int64_t n)
{
    v /= a->step;
    const vf32 clamped = vf32_min(vf32_splat(127), vf32_max(vf32_splat(-128), v)) + VF32_ROUND;
    const vi32 whole = ((vi32)clamped - (vi32)vf32_splat(VF32_ROUND)) & (vi32)(v == v);
    int8_t t[VL];
    s8_from_vi32(t, whole);
    memcpy((int8_t *)a->c + at, t, (size_t)(n < VL ? n : VL));
}

/* Columns j.. of row i, n of them, VL at most; C's columns contiguous. */
TSR_INLINE void store_vector(const tsr_gemm_store_args *a, int64_t i, int64_t j, int64_t n)
{
    const float row_scale = a->row_scale != NULL ? a->row_scale[i] : 1;
    const int64_t half = a->panel / 2;
    const int64_t at = i * a->sums_row + (half > 0 ? j / half * a->panel + j % half : j);
    vf32 v = scaled(a, at + half, j, n, row_scale, a->column_scale, a->bias, a->bias_dtype, a->bias_stride);
    if (half > 0) {
        const vf32 gate = scaled(a, at, j, n, row_scale, a->gate_scale, a->gate_bias, a->gate_bias_dtype,
                                 a->gate_bias_stride);
        v *= activated(a->activation, gate);
    } else if (a->activation != TSR_ACTIVATION_NONE) {
        v = activated(a->activation, v);
    }
    v = vf32_rounded(v);
    if (a->residual != NULL) {
        const int64_t offset = i * a->residual_row * (int64_t)tsr_dtype_nbytes(a->residual_dtype);
        v += load_vector((const char *)a->residual + offset, a->residual_dtype, j, a->residual_col, n);
        v = vf32_rounded(v);
    }
    const int64_t c = i * a->c_row + j * a->c_col;
    if (a->beta != 0)
        v += load_vector((const char *)a->c + c * (int64_t)tsr_dtype_nbytes(a->c_dtype), a->c_dtype, 0,
                         a->c_col, n) *
             a->beta;
    if (a->c_dtype == TSR_S8)
        store_s8(a, c, v, n);
    else if (n >= VL)
        vf32_store_as(a->c, a->c_dtype, c, v);
    else
        vf32_store_as_n(a->c, a->c_dtype, c, v, n);
}

/* A row of s32 sums as they are, alone or added to C, wrapping. */
TSR_INLINE void store_wrapping(int32_t *c, const int64_t c_col, const int32_t *sums, int64_t n, bool adds)
{
    for (int64_t j = 0; j < n; j++)
        c[j * c_col] = (int32_t)((adds ? (uint32_t)c[j * c_col] : 0) + (uint32_t)sums[j]);
}

/* s32 sums; alpha and other betas go through doubles, as the reference has it. */
static void store_i32(const tsr_gemm_store_args *a, int64_t m, int64_t n)
{
    const bool wraps = a->scale == 1 && (a->beta == 0 || a->beta == 1);
    const int32_t *sums = a->sums;
    int32_t *c = a->c;
    for (int64_t i = 0; i < m; i++, sums += a->sums_row, c += a->c_row) {
        if (wraps && a->c_col == 1)
            store_wrapping(c, 1, sums, n, a->beta != 0);
        else if (wraps)
            store_wrapping(c, a->c_col, sums, n, a->beta != 0);
        else
            for (int64_t j = 0; j < n; j++) {
                int32_t *to = c + j * a->c_col;
                tsr_store_f64(to, TSR_I32, 0,
                              (double)a->scale * sums[j] + (a->beta != 0 ? (double)a->beta * *to : 0));
            }
    }
}

/* True if nothing happens to a sum on its way to C, but for a conversion; C's columns contiguous. */
static bool is_plain(const tsr_gemm_store_args *a)
{
    return !a->sums_are_s32 && a->row_scale == NULL && a->column_scale == NULL && a->scale == 1 &&
           a->bias == NULL && a->activation == TSR_ACTIVATION_NONE && a->panel == 0 && a->residual == NULL &&
           a->beta == 0 && a->c_col == 1;
}

static void store_plain_f32(const tsr_gemm_store_args *a, int64_t m, int64_t n)
{
    const float *sums = a->sums;
    float *c = a->c;
    const int64_t sums_row = a->sums_row, c_row = a->c_row;
    for (int64_t i = 0; i < m; i++, sums += sums_row, c += c_row) {
        int64_t j = 0;
        for (; j + VL <= n; j += VL) vf32_store(c + j, vf32_load(sums + j));
        if (j < n) vf32_store_n(c + j, vf32_load_n(sums + j, n - j), n - j);
    }
}

/* Rows of 2 VL columns. */
static void store_pairs_bf16(const float *sums, int64_t sums_row, uint16_t *c, int64_t c_row, int64_t m)
{
    for (int64_t i = 0; i < m; i++, sums += sums_row, c += c_row)
        bf16_from_two_vf32(c, vf32_load(sums), vf32_load(sums + VL));
}

static void store_plain_bf16(const tsr_gemm_store_args *a, int64_t m, int64_t n)
{
    const float *sums = a->sums;
    uint16_t *c = a->c;
    const int64_t sums_row = a->sums_row, c_row = a->c_row;
    if (n == 2 * VL) {
        store_pairs_bf16(sums, sums_row, c, c_row, m);
        return;
    }
    for (int64_t i = 0; i < m; i++, sums += sums_row, c += c_row) {
        int64_t j = 0;
        for (; j + 2 * VL <= n; j += 2 * VL)
            bf16_from_two_vf32(c + j, vf32_load(sums + j), vf32_load(sums + j + VL));
        for (; j < n; j += VL) {
            const int64_t left = n - j < VL ? n - j : VL;
            vf32_store_as_n(c + j, TSR_BF16, 0, vf32_load_up_to(sums + j, left), left);
        }
    }
}

static void store(const tsr_gemm_store_args *a, int64_t m, int64_t n)
{
    if (a->c_dtype == TSR_I32) {
        store_i32(a, m, n);
        return;
    }
    if (is_plain(a) && a->c_dtype == TSR_F32) {
        store_plain_f32(a, m, n);
        return;
    }
    if (is_plain(a) && a->c_dtype == TSR_BF16) {
        store_plain_bf16(a, m, n);
        return;
    }
    /* Columns that are apart go one by one; the halves of a gated panel are whole vectors. */
    const int64_t step = a->c_col == 1 || n == 1 ? VL : 1;
    for (int64_t i = 0; i < m; i++) {
        int64_t j = 0;
        if (step == VL)
            for (; j + VL <= n; j += VL) store_vector(a, i, j, VL);
        for (; j < n; j += step) store_vector(a, i, j, step == 1 ? 1 : n - j);
    }
}

const tsr_gemm_store_kernel TSR_NAME(tsr_gemm_store) = {
    .name = "gemm_store_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .store = store,
};
