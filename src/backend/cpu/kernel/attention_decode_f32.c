/*
 * attention_decode_f32.c - attention of few queries: K and V stream past, each element read once
 *
 * Compiled once per instruction set; VL lanes. Query heads of a group, and their queries, are the rows: R of
 * them (4, then 2, 1) share what is loaded.
 *
 *     scores   lanes along D       k_j k_j+1 ..  KB = VL / R keys       values   lanes along Dv, NV vectors
 *              acc[R][KB]       q_r  +=  +=                                      acc[R][NV]  v_j  v_j+VL ..
 *                               ..                                         p_rj               +=   +=
 *
 * The VL sums of scores become one vector (vf32_sums). Memory bounds both: per element of K or V there are R
 * multiply-adds and, unless it is f32, a conversion; while a tile is at work the next one is on its way to
 * the second cache.
 */
#include "backend/cpu/kernel/attention_decode_f32.h"

#include "backend/cpu/vec_bf16.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

TSR_INLINE vf32 load(const void *row, const tsr_dtype dtype, int64_t i)
{
    return dtype == TSR_S8 ? vf32_from_s8((const int8_t *)row + i) : vf32_load_as(row, dtype, i);
}

TSR_INLINE vf32 load_n(const void *row, const tsr_dtype dtype, int64_t i, int64_t n)
{
    if (dtype != TSR_S8) return vf32_load_as_n(row, dtype, i, n);
    int8_t t[VL] = {0};
    memcpy(t, (const int8_t *)row + i, (size_t)n);
    return vf32_from_s8(t);
}

enum { LINE_NBYTES = 64 };

TSR_INLINE int size_of(const tsr_dtype dtype) { return dtype == TSR_F32 ? 4 : dtype == TSR_S8 ? 1 : 2; }

/* Does a line begin in columns [c, c + n), c a multiple of n, if one begins with the row? */
TSR_INLINE bool begins_line(const tsr_dtype dtype, int64_t c, const int n)
{
    return n * size_of(dtype) >= LINE_NBYTES || c % (LINE_NBYTES / size_of(dtype)) == 0;
}

/* Asks for the lines of columns [c, c + n). */
TSR_INLINE void fetch(const void *row, const tsr_dtype dtype, int64_t c, const int n)
{
    const char *p = (const char *)row + c * size_of(dtype);
    UNROLL for (int b = 0; b < n * size_of(dtype); b += LINE_NBYTES) __builtin_prefetch(p + b, 0, 2);
}

/* acc[r][i] += q_r k_i over columns [c, c + VL), of which `lanes` are there. */
TSR_INLINE void scores_step(const void *const *row, const tsr_dtype dtype, const int R, int64_t c,
                            int64_t lanes, const float *q, int64_t q_stride, vf32 acc[VL])
{
    const int KB = VL / R;
    vf32 x[VL];
    UNROLL for (int i = 0; i < KB; i++) x[i] = lanes >= VL ? load(row[i], dtype, c)
                                                           : load_n(row[i], dtype, c, lanes);
    UNROLL for (int r = 0; r < R; r++)
    {
        const vf32 qr = vf32_load(q + r * q_stride + c);
        UNROLL for (int i = 0; i < KB; i++) acc[r * KB + i] += qr * x[i];
    }
}

TSR_INLINE vu32 load_pairs(const void *row, int64_t c)
{
    return vu32_load_up_to((const uint16_t *)row + c, VL);
}

/* The same over columns [c, c + 2 VL) of bf16, of which pairs lie in a word; q's even columns come first. */
TSR_INLINE void scores_step_of_pairs(const void *const *row, const int R, int64_t c, const float *q,
                                     int64_t q_stride, vf32 acc[VL])
{
    const int KB = VL / R;
    vu32 pairs[VL];
    UNROLL for (int i = 0; i < KB; i++) pairs[i] = load_pairs(row[i], c);
    UNROLL for (int half = 0; half < 2; half++)
    {
        vf32 qr[VL];
        UNROLL for (int r = 0; r < R; r++) qr[r] = vf32_load(q + r * q_stride + c + half * VL);
        UNROLL for (int i = 0; i < KB; i++)
        {
            const vf32 x = half == 0 ? vf32_bf16_even(pairs[i]) : vf32_bf16_odd(pairs[i]);
            UNROLL for (int r = 0; r < R; r++) acc[r * KB + i] += qr[r] * x;
        }
    }
}

/* Columns that a step of scores takes. */
TSR_INLINE int step_of(const tsr_dtype dtype) { return dtype == TSR_BF16 ? 2 * VL : VL; }

/*
 * R rows with KB = VL / R keys from j on. Many rows share what is loaded, a few columns of all keys at a
 * time; a single one takes key after key, in the order of memory.
 */
TSR_INLINE void scores_block(const tsr_attention_decode_rows *k, const tsr_dtype dtype, const int R,
                             int64_t j, const float *q, int64_t q_stride, float *s, int64_t s_stride,
                             const bool fetches)
{
    const int KB = VL / R, step = step_of(dtype);
    const int64_t whole = k->d - k->d % step;
    vf32 acc[VL] = {{0}};
    if (R == 1) {
        UNROLL for (int i = 0; i < KB; i++) for (int64_t c = 0; c < whole; c += step)
        {
            if (fetches)
                fetch(k->next[j + i], dtype, c, step); /* a line more than once, rather than branch */
            if (dtype == TSR_BF16) {
                const vu32 pairs = load_pairs(k->row[j + i], c);
                acc[i] += vf32_load(q + c) * vf32_bf16_even(pairs);
                acc[i] += vf32_load(q + c + VL) * vf32_bf16_odd(pairs);
            } else {
                acc[i] += vf32_load(q + c) * load(k->row[j + i], dtype, c);
            }
        }
    } else {
        for (int64_t c = 0; c < whole; c += step) {
            if (fetches && begins_line(dtype, c, step)) {
                UNROLL for (int i = 0; i < KB; i++) fetch(k->next[j + i], dtype, c, step);
            }
            if (dtype == TSR_BF16)
                scores_step_of_pairs(k->row + j, R, c, q, q_stride, acc);
            else
                scores_step(k->row + j, dtype, R, c, VL, q, q_stride, acc);
        }
    }
    for (int64_t c = whole; c < k->d; c += VL) {
        for (int i = 0; fetches && i < KB; i++) fetch(k->next[j + i], dtype, c, VL);
        scores_step(k->row + j, dtype, R, c, k->d - c, q, q_stride, acc);
    }
    float t[VL];
    vf32_store(t, vf32_sums(acc));
    UNROLL for (int r = 0; r < R; r++) memcpy(s + r * s_stride + j, t + r * KB, (size_t)KB * sizeof *t);
}

TSR_INLINE void scores_rows(const tsr_attention_decode_rows *k, const tsr_dtype dtype, const int R,
                            const float *q, int64_t q_stride, float *s, int64_t s_stride, bool fetches)
{
    if (fetches && k->next != NULL)
        for (int64_t j = 0; j < k->n; j += VL / R)
            scores_block(k, dtype, R, j, q, q_stride, s, s_stride, true);
    else
        for (int64_t j = 0; j < k->n; j += VL / R)
            scores_block(k, dtype, R, j, q, q_stride, s, s_stride, false);
}

TSR_INLINE void scores_as(const tsr_attention_decode_rows *k, const tsr_dtype dtype, const float *q,
                          int64_t q_stride, int64_t n_rows, float *s, int64_t s_stride)
{
    int64_t r = 0;
    for (; r + 4 <= n_rows; r += 4)
        scores_rows(k, dtype, 4, q + r * q_stride, q_stride, s + r * s_stride, s_stride, r == 0);
    if (r + 2 <= n_rows) {
        scores_rows(k, dtype, 2, q + r * q_stride, q_stride, s + r * s_stride, s_stride, r == 0);
        r += 2;
    }
    if (r < n_rows) scores_rows(k, dtype, 1, q + r * q_stride, q_stride, s + r * s_stride, s_stride, r == 0);
}

static void unzip_q(float *q, int64_t d, tsr_dtype dtype)
{
    if (dtype != TSR_BF16) return;
    for (int64_t c = 0; c + 2 * VL <= d; c += 2 * VL) {
        vf32 x[2] = {vf32_load(q + c), vf32_load(q + c + VL)};
        vf32_unzip(x);
        vf32_store(q + c, x[0]), vf32_store(q + c + VL, x[1]);
    }
}

static void scores(const tsr_attention_decode_rows *k, const float *q, int64_t q_stride, int64_t n_rows,
                   float *s, int64_t s_stride)
{
    switch (k->dtype) {
    case TSR_F32: scores_as(k, TSR_F32, q, q_stride, n_rows, s, s_stride); break;
    case TSR_BF16: scores_as(k, TSR_BF16, q, q_stride, n_rows, s, s_stride); break;
    case TSR_F16: scores_as(k, TSR_F16, q, q_stride, n_rows, s, s_stride); break;
    default: scores_as(k, TSR_S8, q, q_stride, n_rows, s, s_stride); break;
    }
}

/* NV vectors of a row of V, from column c on: of bf16 two at a time, their even columns and their odd ones.
 */
TSR_INLINE void load_values(vf32 x[8], const void *row, const tsr_dtype dtype, const int NV, int64_t c)
{
    if (dtype == TSR_BF16 && NV > 1) {
        UNROLL for (int i = 0; i < NV; i += 2)
        {
            const vu32 pairs = load_pairs(row, c + i * VL);
            x[i] = vf32_bf16_even(pairs), x[i + 1] = vf32_bf16_odd(pairs);
        }
    } else {
        UNROLL for (int i = 0; i < NV; i++) x[i] = load(row, dtype, c + i * VL);
    }
}

/* Columns c .. c + NV VL of R rows (the last vector's first `lanes` alone, where NV is 1). */
TSR_INLINE void values_block(const tsr_attention_decode_rows *v, const tsr_dtype dtype, const int R,
                             const int NV, int64_t c, int64_t lanes, const float *p, int64_t p_stride,
                             float *o, int64_t o_stride, const bool fetches)
{
    const bool unzips = dtype == TSR_BF16 && NV > 1;
    vf32 acc[4 * 8];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < NV; i++)
        acc[r * NV + i] = vf32_load_up_to(o + r * o_stride + c + i * VL, lanes);
    if (unzips) UNROLL for (int i = 0; i < R * NV; i += 2) vf32_unzip(acc + i);
    for (int64_t j = 0; j < v->n; j++) {
        vf32 x[8];
        if (lanes >= VL)
            load_values(x, v->row[j], dtype, NV, c);
        else
            x[0] = load_n(v->row[j], dtype, c, lanes);
        if (fetches) fetch(v->next[j], dtype, c, NV * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            const float pr = p[r * p_stride + j];
            UNROLL for (int i = 0; i < NV; i++) acc[r * NV + i] += pr * x[i];
        }
    }
    if (unzips) UNROLL for (int i = 0; i < R * NV; i += 2) vf32_zip(acc + i);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < NV; i++)
        vf32_store_up_to(o + r * o_stride + c + i * VL, acc[r * NV + i], lanes);
}

/* n_blocks blocks of R rows: a strip of V stays in the first cache for all of them. */
TSR_INLINE void values_rows(const tsr_attention_decode_rows *v, const tsr_dtype dtype, const int R,
                            int64_t n_blocks, const float *p, int64_t p_stride, float *o, int64_t o_stride,
                            bool fetches)
{
    const int NV = VL == 16 && R > 1 ? 16 / R : 8 / R;
    int64_t c = 0;
    for (; c + NV * VL <= v->d; c += NV * VL) {
        const bool fetches_strip = fetches && v->next != NULL && begins_line(dtype, c, NV * VL);
        for (int64_t b = 0; b < n_blocks; b++) {
            const float *pb = p + b * R * p_stride;
            float *ob = o + b * R * o_stride;
            if (b == 0 && fetches_strip)
                values_block(v, dtype, R, NV, c, VL, pb, p_stride, ob, o_stride, true);
            else
                values_block(v, dtype, R, NV, c, VL, pb, p_stride, ob, o_stride, false);
        }
    }
    for (; c < v->d; c += VL) {
        const int64_t lanes = v->d - c < VL ? v->d - c : VL;
        for (int64_t j = 0; fetches && v->next != NULL && j < v->n; j++) fetch(v->next[j], dtype, c, VL);
        for (int64_t b = 0; b < n_blocks; b++)
            values_block(v, dtype, R, 1, c, lanes, p + b * R * p_stride, p_stride, o + b * R * o_stride,
                         o_stride, false);
    }
}

TSR_INLINE void values_as(const tsr_attention_decode_rows *v, const tsr_dtype dtype, const float *p,
                          int64_t p_stride, int64_t n_rows, float *o, int64_t o_stride)
{
    int64_t r = n_rows & ~3;
    if (r > 0) values_rows(v, dtype, 4, r / 4, p, p_stride, o, o_stride, true);
    if (n_rows & 2) {
        values_rows(v, dtype, 2, 1, p + r * p_stride, p_stride, o + r * o_stride, o_stride, r == 0);
        r += 2;
    }
    if (n_rows & 1)
        values_rows(v, dtype, 1, 1, p + r * p_stride, p_stride, o + r * o_stride, o_stride, r == 0);
}

static void values(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride, int64_t n_rows,
                   float *o, int64_t o_stride)
{
    switch (v->dtype) {
    case TSR_F32: values_as(v, TSR_F32, p, p_stride, n_rows, o, o_stride); break;
    case TSR_BF16: values_as(v, TSR_BF16, p, p_stride, n_rows, o, o_stride); break;
    case TSR_F16: values_as(v, TSR_F16, p, p_stride, n_rows, o, o_stride); break;
    default: values_as(v, TSR_S8, p, p_stride, n_rows, o, o_stride); break;
    }
}

static void weigh(float *s, int64_t s_stride, int64_t n_rows, const float *factor, int64_t n)
{
    for (int64_t r = 0; r < n_rows; r++, s += s_stride)
        for (int64_t j = 0; j < n; j += VL)
            vf32_store_up_to(s + j, vf32_load_up_to(s + j, n - j) * vf32_load_up_to(factor + j, n - j),
                             n - j);
}

/* b^(m - top); 1 where both are -Inf, as there is nothing to scale */
static float factor_of(float unit, float m, float top)
{
    if (m == top && m < 0) return 1;
    float f[VL];
    vf32_store(f, vf32_exp2(vf32_splat((m - top) * unit)));
    return f[0];
}

static void merge(float unit, float *m, float *l, float *o, float m2, float l2, const float *o2, int64_t dv)
{
    if (l2 == 0) return;
    if (*l == 0) {
        *m = m2, *l = l2;
        memcpy(o, o2, (size_t)dv * sizeof *o);
        return;
    }
    const float top = *m > m2 ? *m : m2, a = factor_of(unit, *m, top), b = factor_of(unit, m2, top);
    const vf32 scaled = vf32_rounded(vf32_splat(l2 * b));
    *l = *l * a + scaled[0];
    *m = top;
    for (int64_t c = 0; c < dv; c += VL) {
        const vf32 x = vf32_rounded(vf32_load_up_to(o2 + c, dv - c) * b);
        vf32_store_up_to(o + c, vf32_load_up_to(o + c, dv - c) * a + x, dv - c);
    }
}

const tsr_attention_decode_f32_kernel TSR_NAME(tsr_attention_decode_f32) = {
    .name = "attention_decode_f32_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .unzip_q = unzip_q,
    .scores = scores,
    .values = values,
    .weigh = weigh,
    .merge = merge,
};
