/*
 * gemm_f32.c - f32 GEMM micro-kernel: C[MR, NR] = alpha A[MR, k] B[k, NR] + beta C
 *
 * Compiled once per instruction set; VL lanes, NR = 2 VL. Columns that end within the first vector, as those
 * of head sizes 40 and 80 do, are multiplied by that one alone.
 *
 *                  b   k-th row of the panel: 2 vectors       registers     AVX2 (16)   AVX-512 (32)
 *          +------------------+                               C             12, 6 x 2   28, 14 x 2
 *     a    | C  MR x 2 vectors|  one a[i] is broadcast        b              2           2
 *     MR   |                  |  against both of them         a              1           1
 *          +------------------+
 *
 * A is read through (a_row, a_k) strides: a transposed A is the same kernel. B is f32, in place or packed, or
 * a panel of 16 bits that is widened on the way: bf16 in pairs (a shift for the even row, a mask for the odd
 * one), f16 row by row. Per k: 2 MR multiply-adds, 2 loads, MR broadcasts; bound by the FMA ports, and with
 * few rows by how fast B comes from memory. C's rows are fetched before the first step.
 */
#include "backend/cpu/kernel/gemm.h"

#include "backend/cpu/kernel/gemm_result.h"
#include "backend/cpu/kernel/pack_bf16.h"
#include "backend/cpu/vec.h"
#include "backend/cpu/vec_lanes.h"

enum { MR = TSR_LANES == 16 ? 14 : 6, NV = 2, NR = NV * TSR_LANES };
#if TSR_LANES == 16
#define TILE_NAME "14x32"
#elif TSR_LANES == 8
#define TILE_NAME "6x16"
#else
#define TILE_NAME "6x8"
#endif

/*
 * Where A's rows are, in bytes. A row's address is one of two bases plus 1, 2, 3, 4, 5 or 6 strides, which
 * takes three registers with the scales that x86 addresses have; left alone, gcc keeps one for every row, and
 * spills accumulators for them.
 */
typedef struct a_rows {
    const char *low, *high; /* rows 0 and 7 */
    int64_t r, r3, r5;      /* 1, 3 and 5 strides */
} a_rows;

TSR_INLINE a_rows rows_of(const tsr_gemm_tile *t)
{
    const int64_t r = t->a_row * (int64_t)sizeof(float);
    int64_t r3 = 3 * r, r5 = 5 * r, r7 = 7 * r;
    __asm__("" : "+r"(r3), "+r"(r5), "+r"(r7)); /* or they are computed from r again */
    return (a_rows){t->a, (const char *)t->a + r7, r, r3, r5};
}

TSR_INLINE float a_at(const a_rows *a, const int i)
{
    const int s = i % 7;
    const int64_t offset = s == 3 ? a->r3 : s == 5 ? a->r5 : s == 6 ? 2 * a->r3 : s * a->r;
    float x;
    memcpy(&x, (i < 7 ? a->low : a->high) + offset, sizeof x);
    return x;
}

/* One step along k: the column of A that `a` stands at, against nv vectors of B. */
TSR_INLINE void step(vf32 acc[MR][NV], a_rows *a, int64_t a_k, const vf32 b[NV], const int rows, const int nv)
{
    UNROLL for (int i = 0; i < rows; i++)
    {
        const float x = a_at(a, i);
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] += x * b[j];
    }
    a->low += a_k, a->high += a_k;
}

TSR_INLINE void multiply_f32(vf32 acc[MR][NV], const tsr_gemm_tile *t, const int rows, const int nv)
{
    a_rows a = rows_of(t);
    const char *ahead = t->ahead;
    const int64_t a_k = t->a_k * (int64_t)sizeof(float), b_row = t->b_row;
    const float *b = t->b;
    for (int64_t p = t->k; p > 0; p--, b += b_row) {
        vf32 row[NV];
        ahead = fetch_step(ahead, t->ahead_step);
        UNROLL for (int j = 0; j < nv; j++) row[j] = vf32_load(b + j * VL);
        step(acc, &a, a_k, row, rows, nv);
    }
}

TSR_INLINE void multiply_bf16(vf32 acc[MR][NV], const tsr_gemm_tile *t, const int rows, const int nv)
{
    a_rows a = rows_of(t);
    const char *ahead = t->ahead;
    const int64_t a_k = t->a_k * (int64_t)sizeof(float);
    const float *b = t->b; /* pairs, by their bits */
    for (int64_t p = t->k; p > 0; p -= 2, b += NR) {
        vf32 row[NV];
        ahead = fetch_step(ahead, t->ahead_step);
        UNROLL for (int j = 0; j < nv; j++) row[j] = vf32_bf16_even(vu32_load_up_to(b + j * VL, VL));
        step(acc, &a, a_k, row, rows, nv);
        if (p == 1) break;
        __asm__("" ::: "memory"); /* loads them again: there is no register to keep the pairs in */
        UNROLL for (int j = 0; j < nv; j++) row[j] = vf32_bf16_odd(vu32_load_up_to(b + j * VL, VL));
        step(acc, &a, a_k, row, rows, nv);
    }
}

TSR_INLINE void multiply_f16(vf32 acc[MR][NV], const tsr_gemm_tile *t, const int rows, const int nv)
{
    a_rows a = rows_of(t);
    const char *ahead = t->ahead;
    const int64_t a_k = t->a_k * (int64_t)sizeof(float);
    const uint16_t *b = t->b;
    for (int64_t p = t->k; p > 0; p--, b += NR) {
        vf32 row[NV];
        ahead = fetch_step(ahead, t->ahead_step);
        UNROLL for (int j = 0; j < nv; j++) row[j] = vf32_from_f16(b + j * VL);
        step(acc, &a, a_k, row, rows, nv);
    }
}

/* C = alpha acc + beta C, for the first n columns of nv vectors. */
TSR_INLINE void store_rows(vf32 acc[MR][NV], const tsr_gemm_tile *t, const int rows, const int nv, int64_t n)
{
    if (store_plain_sums(acc, rows, nv, t->c, t->c_row, t->alpha, t->beta, n)) return;
    float *c = t->c;
    UNROLL for (int i = 0; i < rows; i++, c += t->c_row) UNROLL for (int j = 0; j < nv; j++)
        store_result(c + j * VL, acc[i][j], t->alpha, t->beta, n - j * VL);
}

/* rows, nv and b_dtype are constants at every call, so that acc lives in registers. */
TSR_INLINE void run_rows(const tsr_gemm_tile *t, const int rows, const int nv, const tsr_dtype b_dtype,
                         int64_t n)
{
    vf32 acc[MR][NV];
    const float *c = t->c;
    if (!t->c_is_near) UNROLL for (int i = 0; i < rows; i++, c += t->c_row)
        {
            __builtin_prefetch(c, 1);
            __builtin_prefetch(c + n - 1, 1);
        }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf32_splat(0);
    if (b_dtype == TSR_F32)
        multiply_f32(acc, t, rows, nv);
    else if (b_dtype == TSR_BF16)
        multiply_bf16(acc, t, rows, nv);
    else
        multiply_f16(acc, t, rows, nv);
    store_rows(acc, t, rows, nv, n);
}

TSR_INLINE void run_vectors(const tsr_gemm_tile *t, const int nv, const tsr_dtype b_dtype, int64_t m,
                            int64_t n)
{
    switch (m) {
    case 1: run_rows(t, 1, nv, b_dtype, n); break;
    case 2: run_rows(t, 2, nv, b_dtype, n); break;
    case 3: run_rows(t, 3, nv, b_dtype, n); break;
    case 4: run_rows(t, 4, nv, b_dtype, n); break;
    case 5: run_rows(t, 5, nv, b_dtype, n); break;
    case 6: run_rows(t, 6, nv, b_dtype, n); break;
#if TSR_LANES == 16
    case 7: run_rows(t, 7, nv, b_dtype, n); break;
    case 8: run_rows(t, 8, nv, b_dtype, n); break;
    case 9: run_rows(t, 9, nv, b_dtype, n); break;
    case 10: run_rows(t, 10, nv, b_dtype, n); break;
    case 11: run_rows(t, 11, nv, b_dtype, n); break;
    case 12: run_rows(t, 12, nv, b_dtype, n); break;
    case 13: run_rows(t, 13, nv, b_dtype, n); break;
    case 14: run_rows(t, 14, nv, b_dtype, n); break;
#endif
    default: __builtin_unreachable();
    }
}

TSR_INLINE void run_as(const tsr_gemm_tile *t, const tsr_dtype b_dtype, int64_t m, int64_t n)
{
    if (n > VL)
        run_vectors(t, NV, b_dtype, m, n);
    else
        run_vectors(t, 1, b_dtype, m, n);
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    switch (t->b_dtype) {
    case TSR_F32: run_as(t, TSR_F32, m, n); break;
    case TSR_BF16: run_as(t, TSR_BF16, m, n); break;
    default: run_as(t, TSR_F16, m, n); break;
    }
}

/*
 * Few rows against columns that lie contiguous, a weight as models have it: to pack it would cost more than
 * to multiply. Blocks of VL columns x VL steps are turned in registers, and multiplied in order of k.
 */
enum { COLUMNS_MR = 4 };

TSR_INLINE void load_turned(vf32 block[VL], const void *b, tsr_dtype dtype, int64_t stride, int64_t columns,
                            int64_t steps)
{
    UNROLL for (int i = 0; i < VL; i++)
    {
        block[i] = i >= columns  ? vf32_splat(0)
                   : steps >= VL ? vf32_load_as(b, dtype, i * stride)
                                 : vf32_load_as_n(b, dtype, i * stride, steps);
    }
    vf32_transpose(block);
}

TSR_INLINE void run_columns_rows(const tsr_gemm_tile *t, const int rows, const tsr_dtype dtype, int64_t n)
{
    const int64_t nbytes = (int64_t)tsr_dtype_nbytes(dtype);
    for (int64_t j = 0; j < n; j += VL) {
        vf32 acc[COLUMNS_MR], block[VL];
        UNROLL for (int i = 0; i < rows; i++) acc[i] = vf32_splat(0);
        const char *b = (const char *)t->b + j * t->b_row * nbytes;
        for (int64_t p = 0; p < t->k; p += VL, b += VL * nbytes) {
            const float *a = (const float *)t->a + p * t->a_k;
            const int64_t steps = t->k - p;
            if (n - j >= VL && steps >= VL) {
                load_turned(block, b, dtype, t->b_row, VL, VL);
                UNROLL for (int q = 0; q < VL; q++) UNROLL for (int i = 0; i < rows; i++)
                    acc[i] += a[i * t->a_row + q * t->a_k] * block[q];
            } else {
                load_turned(block, b, dtype, t->b_row, n - j, steps);
                for (int q = 0; q < VL && q < steps; q++)
                    UNROLL for (int i = 0; i < rows; i++) acc[i] += a[i * t->a_row + q * t->a_k] * block[q];
            }
        }
        float *c = (float *)t->c + j;
        UNROLL for (int i = 0; i < rows; i++, c += t->c_row)
            store_result(c, acc[i], t->alpha, t->beta, n - j);
    }
}

TSR_INLINE void run_columns_as(const tsr_gemm_tile *t, const tsr_dtype dtype, int64_t m, int64_t n)
{
    switch (m) {
    case 1: run_columns_rows(t, 1, dtype, n); break;
    case 2: run_columns_rows(t, 2, dtype, n); break;
    case 3: run_columns_rows(t, 3, dtype, n); break;
    case 4: run_columns_rows(t, 4, dtype, n); break;
    default: __builtin_unreachable();
    }
}

static void run_columns(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    switch (t->b_dtype) {
    case TSR_F32: run_columns_as(t, TSR_F32, m, n); break;
    case TSR_BF16: run_columns_as(t, TSR_BF16, m, n); break;
    default: run_columns_as(t, TSR_F16, m, n); break;
    }
}

/* Rows of x are contiguous: convert and copy. */
TSR_INLINE void pack_rows(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                          int64_t k, int64_t w)
{
    for (int64_t p = 0; p < k; p++, dst += width) {
        int64_t j = 0;
        for (; j + VL <= w; j += VL) vf32_store(dst + j, vf32_load_as(x, dtype, p * k_stride + j));
        if (j < w) {
            vf32_store_n(dst + j, vf32_load_as_n(x, dtype, p * k_stride + j, w - j), w - j);
            j = w;
        }
        for (; j < width; j++) dst[j] = 0;
    }
}

/* Columns of x are contiguous: blocks of VL x VL are read down VL columns and turned. */
TSR_INLINE void pack_columns(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t w_stride,
                             int64_t k, int64_t w)
{
    for (int64_t j = 0; j < width; j += VL) {
        const int64_t columns = w - j < VL ? w - j : VL, stored = width - j < VL ? width - j : VL;
        for (int64_t p = 0; p < k; p += VL) {
            const int64_t steps = k - p < VL ? k - p : VL;
            vf32 block[VL];
            UNROLL for (int i = 0; i < VL; i++)
            {
                const int64_t at = (j + i) * w_stride + p;
                block[i] = i >= columns  ? vf32_splat(0)
                           : steps == VL ? vf32_load_as(x, dtype, at)
                                         : vf32_load_as_n(x, dtype, at, steps);
            }
            vf32_transpose(block);
            float *d = dst + p * width + j;
            for (int64_t i = 0; i < steps; i++) {
                if (stored == VL)
                    vf32_store(d + i * width, block[i]);
                else
                    vf32_store_n(d + i * width, block[i], stored);
            }
        }
    }
}

/* Nothing is contiguous. */
static void pack_scattered(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                           int64_t w_stride, int64_t k, int64_t w)
{
    for (int64_t p = 0; p < k; p++, dst += width)
        for (int64_t j = 0; j < width; j++)
            dst[j] = j < w ? (float)tsr_load_f64(x, dtype, p * k_stride + j * w_stride) : 0;
}

TSR_INLINE void pack_as(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                        int64_t w_stride, int64_t k, int64_t w)
{
    if (w_stride == 1)
        pack_rows(dst, width, x, dtype, k_stride, k, w);
    else if (k_stride == 1)
        pack_columns(dst, width, x, dtype, w_stride, k, w);
    else
        pack_scattered(dst, width, x, dtype, k_stride, w_stride, k, w);
}

static void pack(float *dst, int64_t width, const void *x, tsr_dtype dtype, int64_t k_stride,
                 int64_t w_stride, int64_t k, int64_t w)
{
    switch (dtype) {
    case TSR_F32: pack_as(dst, width, x, TSR_F32, k_stride, w_stride, k, w); break;
    case TSR_BF16: pack_as(dst, width, x, TSR_BF16, k_stride, w_stride, k, w); break;
    default: pack_as(dst, width, x, TSR_F16, k_stride, w_stride, k, w); break;
    }
}

static void pack_b(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride, int64_t k,
                   int64_t n)
{
    pack(panel, NR, x, dtype, k_stride, n_stride, k, n);
}

/* Two rows of halves from the pairs that a panel of bf16 would have there; the second if k has it. */
TSR_INLINE void store_halves(uint16_t *rows, vu32 pairs, int64_t steps)
{
    u16_from_vu32(rows, pairs & 0xffff);
    if (steps > 1) u16_from_vu32(rows + NR, pairs >> 16);
}

static void pack_halves(uint16_t *panel, const uint16_t *x, int64_t k_stride, int64_t n_stride, int64_t k,
                        int64_t n)
{
    if (k_stride != 1 && n_stride != 1) {
        for (int64_t p = 0; p < k; p++, panel += NR)
            for (int64_t j = 0; j < NR; j++) panel[j] = j < n ? x[p * k_stride + j * n_stride] : 0;
        return;
    }
    for (int64_t j = 0; j < NR; j += VL)
        for (int64_t p = 0; p < k; p += k_stride == 1 ? 2 * VL : 2) {
            uint16_t *to = panel + p * NR + j;
            if (k_stride != 1) {
                store_halves(to, pairs_across(x + p * k_stride + j, k_stride, k - p, n - j), k - p);
                continue;
            }
            vu32 block[VL];
            UNROLL for (int i = 0; i < VL; i++)
                block[i] = j + i < n ? pairs_along(x + (j + i) * n_stride + p, k - p) : vu32_splat(0);
            turn(block);
            for (int64_t i = 0; i < VL && p + 2 * i < k; i++)
                store_halves(to + 2 * i * NR, block[i], k - p - 2 * i);
        }
}

static void pack_16(void *panel, const void *x, tsr_dtype dtype, int64_t k_stride, int64_t n_stride,
                    int64_t k, int64_t n)
{
    if (dtype == TSR_BF16)
        pack_bf16_panel(panel, NR, 1, x, k_stride, n_stride, k, n);
    else
        pack_halves(panel, x, k_stride, n_stride, k, n);
}

static void widen(float *panel, const void *panel_16, tsr_dtype dtype, int64_t k)
{
    const uint16_t *x = panel_16;
    if (dtype == TSR_F16) {
        for (int64_t i = 0; i < k * NR; i += VL) vf32_store(panel + i, vf32_from_f16(x + i));
        return;
    }
    for (int64_t p = 0; p < k; p += 2, panel += 2 * NR, x += 2 * NR) UNROLL for (int j = 0; j < NR; j += VL)
        {
            const vu32 pairs = (vu32)vf32_load((const float *)(const void *)(x + 2 * j));
            vf32_store(panel + j, vf32_bf16_even(pairs));
            if (p + 1 < k) vf32_store(panel + NR + j, vf32_bf16_odd(pairs));
        }
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_f32) = {
    .name = "gemm_f32_" TSR_SET_NAME "_" TILE_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = 1,
    .k_align = 1,
    .chunk_words = TSR_GEMM_CHUNK_WORDS,
    .block_rows = TSR_GEMM_BLOCK_ROWS,
    .block_columns = TSR_GEMM_BLOCK_COLUMNS,
    .attention = {.fwd_queries = TSR_LANES == 16 ? 112 : 96,
                  .fwd_keys = 256,
                  .bwd_queries = TSR_LANES == 16 ? 224 : 192,
                  .bwd_keys = TSR_LANES == 16 ? 256 : 192},
    .run = run,
    .columns_mr = COLUMNS_MR,
    .run_columns = run_columns,
    .pack_b = pack_b,
    .pack = pack,
    .pack_16 = pack_16,
    .widen = widen,
};
