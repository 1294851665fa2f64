/*
 * attention_decode_s8.c - attention of few queries over K and V of int8, in integers of 16 bits
 *
 * Compiled for sets of 16 lanes that add two products of 16 bits to one of 32 in one instruction (VNNI).
 * Query heads of a group, and their queries, are the rows: R of them (4, then 2, 1) share what is loaded.
 *
 *     scores   lanes along D, pairs of columns      values   lanes along Dv, pairs of keys
 *
 *              acc[R][KB]    k_j  k_j+1 ..                   acc[R][NV]         (v_j, v_j+1)  ..
 *                       q_r  +=   +=                               (p_rj, p_rj+1)    +=
 *
 * Against widening to f32: half of the products, and 1 or 2 instructions for 32 elements instead of 4. From
 * the first cache 64 elements of K and of V take 25 cycles with 4 rows where attention_decode_f32 takes 39
 * (Zen 4).
 */
#include "backend/cpu/kernel/attention_decode_s8.h"

#include "backend/cpu/vec_int.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

enum { STEP = 2 * VL, KB = 4, NV = 4, LINE_NBYTES = 64 };

static float quantise(int16_t *to, const float *x, int64_t n)
{
    vu32 most = {0}; /* magnitudes as integers: NaN is above Inf, Inf above all numbers */
    for (int64_t i = 0; i < n; i += VL) {
        const vu32 size = (vu32)vf32_load_up_to(x + i, n - i) & 0x7fffffffu;
        most = (vu32)vf32_select((vi32)(size > most), (vf32)size, (vf32)most);
    }
    uint32_t top = 0;
    for (int i = 0; i < VL; i++) top = most[i] > top ? most[i] : top;
    const bool finite = top < 0x7f800000u;
    /* The largest comes to lie in [2^14, 2^15); what is below 2^-112 may lose more, lest the unit vanish. */
    const uint32_t exponent = top >> 23 < 15 ? 15 : top >> 23;
    const float per_unit = tsr_f32_from_bits((268 - exponent) << 23);
    for (int64_t i = 0; i < n || i % STEP != 0; i += VL) {
        const vf32 scaled = vf32_min(vf32_splat(32767),
                                     vf32_load_up_to(x + i, n - i < 0 ? 0 : n - i) * per_unit);
        const vu32 whole = (vu32)(scaled + 0x1.8p23f); /* the nearest integer, in the low bits */
        u16_from_vu32((uint16_t *)to + i, finite ? whole & 0xffffu : vu32_splat(0));
    }
    return finite ? tsr_f32_from_bits((exponent - 14) << 23) : __builtin_nanf("");
}

/* Columns [c, c + STEP), those from d on as 0; `whole`: there are none of those. */
TSR_INLINE vi16x2 load(const void *row, int64_t c, int64_t d, const bool whole)
{
    const int8_t *p = (const int8_t *)row + c;
    if (whole) return vi16x2_from_s8(p);
    int8_t t[STEP] = {0};
    if (c < d) memcpy(t, p, (size_t)(d - c < STEP ? d - c : STEP));
    return vi16x2_from_s8(t);
}

/* acc[r][i] += q_r k_j+i over columns [c, c + STEP). */
TSR_INLINE void scores_step(const tsr_attention_decode_rows *k, const int R, int64_t j, int64_t c,
                            const int16_t *q, int64_t q_stride, vi32 acc[4 * KB], const bool whole)
{
    vi16x2 x[KB];
    if (k->next != NULL && c % LINE_NBYTES == 0) {
        UNROLL for (int i = 0; i < KB; i++) __builtin_prefetch((const char *)k->next[j + i] + c, 0, 2);
    }
    UNROLL for (int i = 0; i < KB; i++) x[i] = load(k->row[j + i], c, k->d, whole);
    UNROLL for (int r = 0; r < R; r++)
    {
        const vi16x2 qr = (vi16x2)vu32_load(q + r * q_stride + c);
        UNROLL for (int i = 0; i < KB; i++) acc[r * KB + i] = vi32_dot_pairs(acc[r * KB + i], qr, x[i]);
    }
}

/* R rows with KB keys from j on; lane r KB + i of `units` is row r's. */
TSR_INLINE void scores_block(const tsr_attention_decode_rows *k, const int R, int64_t j, const int16_t *q,
                             int64_t q_stride, vf32 units, float *s, int64_t s_stride)
{
    vi32 acc[4 * KB] = {{0}};
    int64_t c = 0;
    for (; c + STEP <= k->d; c += STEP) scores_step(k, R, j, c, q, q_stride, acc, true);
    if (c < k->d) scores_step(k, R, j, c, q, q_stride, acc, false);
    vf32 sums[VL];
    UNROLL for (int i = 0; i < VL; i++) sums[i] = __builtin_convertvector(acc[i], vf32);
    float t[VL];
    vf32_store(t, vf32_sums(sums) * units);
    UNROLL for (int r = 0; r < R; r++) memcpy(s + r * s_stride + j, t + r * KB, KB * sizeof *t);
}

TSR_INLINE void scores_rows(const tsr_attention_decode_rows *k, const int R, const int16_t *q,
                            int64_t q_stride, const float *unit, float *s, int64_t s_stride, bool fetches)
{
    tsr_attention_decode_rows rows = *k;
    if (!fetches) rows.next = NULL;
    float units[VL];
    for (int i = 0; i < VL; i++) units[i] = i < R * KB ? unit[i / KB] : 0;
    for (int64_t j = 0; j < k->n; j += KB)
        scores_block(&rows, R, j, q, q_stride, vf32_load(units), s, s_stride);
}

static void scores(const tsr_attention_decode_rows *k, const int16_t *q, int64_t q_stride, const float *unit,
                   int64_t n_rows, float *s, int64_t s_stride)
{
    int64_t r = 0;
    for (; r + 4 <= n_rows; r += 4)
        scores_rows(k, 4, q + r * q_stride, q_stride, unit + r, s + r * s_stride, s_stride, r == 0);
    if (r + 2 <= n_rows) {
        scores_rows(k, 2, q + r * q_stride, q_stride, unit + r, s + r * s_stride, s_stride, r == 0);
        r += 2;
    }
    if (r < n_rows)
        scores_rows(k, 1, q + r * q_stride, q_stride, unit + r, s + r * s_stride, s_stride, r == 0);
}

/* Columns c .. c + NV VL of R rows, `whole` if all are there: p in pairs of keys. */
TSR_INLINE void values_block(const tsr_attention_decode_rows *v, const int R, int64_t c, const bool whole,
                             int16_t p[][TSR_DECODE_TILE], const float *unit, float *o, int64_t o_stride)
{
    vi32 acc[4][NV] = {{{0}}};
    for (int64_t j = 0; j < v->n; j += 2) {
        const int64_t second = j + 1 < v->n ? j + 1 : j; /* p is 0 there */
        if (v->next != NULL) {
            __builtin_prefetch((const char *)v->next[j] + c, 0, 2);
            __builtin_prefetch((const char *)v->next[second] + c, 0, 2);
        }
        vi16x2 x[NV];
        UNROLL for (int i = 0; i < NV; i += 2)
        {
            const int64_t at = c + i * VL;
            vi16x2_zip(x + i, load(v->row[j], at, v->d, whole), load(v->row[second], at, v->d, whole));
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            uint32_t pair;
            memcpy(&pair, &p[r][j], sizeof pair);
            UNROLL for (int i = 0; i < NV; i++)
                acc[r][i] = vi32_dot_pairs(acc[r][i], (vi16x2)vu32_splat(pair), x[i]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < NV; i++)
    {
        const int64_t at = c + i * VL, left = v->d - at;
        float *to = o + r * o_stride + at;
        if (left <= 0) continue;
        const vf32 sum = vf32_rounded(__builtin_convertvector(acc[r][i], vf32) * unit[r]);
        vf32_store_up_to(to, vf32_load_up_to(to, left) + sum, left);
    }
}

TSR_INLINE void values_rows(const tsr_attention_decode_rows *v, const int R, const float *p, int64_t p_stride,
                            float *o, int64_t o_stride, bool fetches)
{
    _Alignas(64) int16_t integers[4][TSR_DECODE_TILE];
    float unit[4];
    tsr_attention_decode_rows rows = *v;
    if (!fetches) rows.next = NULL;
    for (int r = 0; r < R; r++) unit[r] = quantise(integers[r], p + r * p_stride, v->n);
    int64_t c = 0;
    for (; c + NV * VL <= v->d; c += NV * VL) values_block(&rows, R, c, true, integers, unit, o, o_stride);
    if (c < v->d) values_block(&rows, R, c, false, integers, unit, o, o_stride);
}

static void values(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride, int64_t n_rows,
                   float *o, int64_t o_stride)
{
    int64_t r = 0;
    for (; r + 4 <= n_rows; r += 4)
        values_rows(v, 4, p + r * p_stride, p_stride, o + r * o_stride, o_stride, r == 0);
    if (r + 2 <= n_rows) {
        values_rows(v, 2, p + r * p_stride, p_stride, o + r * o_stride, o_stride, r == 0);
        r += 2;
    }
    if (r < n_rows) values_rows(v, 1, p + r * p_stride, p_stride, o + r * o_stride, o_stride, r == 0);
}

const tsr_attention_decode_s8_kernel TSR_NAME(tsr_attention_decode_s8) = {
    .name = "attention_decode_s8_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .quantise = quantise,
    .scores = scores,
    .values = values,
};
