/*
 * backend/cpu/vec.h - the words that kernels are written in
 *
 * Included by files of kernel/ only, which are compiled once per instruction set: TSR_SET is the
 * set's name, TSR_LANES the number of f32 lanes. Arithmetic is C's own on vector types; here is what
 * C lacks, each word with an instruction form and a plain-C form that gives the same result.
 * Everything is static; a kernel file's globals end in the set's name: TSR_NAME(gemm_f32) is gemm_f32_avx2.
 */
#ifndef TSR_BACKEND_CPU_VEC_H
#define TSR_BACKEND_CPU_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "backend/cpu/isa.h"
#include "base/dtype.h"

#define TSR_PASTE_(a, b) a##_##b
#define TSR_PASTE(a, b)  TSR_PASTE_(a, b)
#define TSR_NAME(name)   TSR_PASTE(name, TSR_SET)
#define TSR_QUOTE_(x)    #x
#define TSR_QUOTE(x)     TSR_QUOTE_(x)
#define TSR_SET_NAME     TSR_QUOTE(TSR_SET)
#define TSR_INLINE       static inline __attribute__((always_inline, unused))

/* In the plain-C form of wide sets registers do not matter, and unrolling would take the compiler a minute.
 */
#if TSR_LANES > 4 && !defined(__AVX2__)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)") /* "GCC unroll" leaves it accumulators in memory */
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
/* A loop over vectors of a row, whose work is too short for its own upkeep. */
#if TSR_LANES > 4 && !defined(__AVX2__)
#define UNROLL_BY_4
#else
#define UNROLL_BY_4 _Pragma("GCC unroll 4")
#endif

#define TSR_ISA_OF_portable   TSR_ISA_PORTABLE
#define TSR_ISA_OF_avx2       TSR_ISA_AVX2
#define TSR_ISA_OF_avxvnni    TSR_ISA_AVXVNNI
#define TSR_ISA_OF_avx512     TSR_ISA_AVX512
#define TSR_ISA_OF_avx512vnni TSR_ISA_AVX512VNNI
#define TSR_ISA_OF_avx512bf16 TSR_ISA_AVX512BF16
#define TSR_ISA_OF_amx        TSR_ISA_AMX
#define TSR_ISA_OF_plain8     TSR_ISA_PLAIN8
#define TSR_ISA_OF_plain16    TSR_ISA_PLAIN16
#define TSR_ISA_OF_plainamx   TSR_ISA_PLAINAMX
#define TSR_ISA_HERE          TSR_PASTE(TSR_ISA_OF, TSR_SET)

enum { VL = TSR_LANES };

typedef float vf32 __attribute__((vector_size(4 * TSR_LANES)));
typedef int32_t vi32 __attribute__((vector_size(4 * TSR_LANES)));
typedef uint32_t vu32 __attribute__((vector_size(4 * TSR_LANES)));
typedef uint16_t vu16 __attribute__((vector_size(2 * TSR_LANES)));

/* Loads and stores take any alignment. The _n forms touch the first n elements only, 0 <= n <= VL; lanes
 * beyond are loaded as zero. */

TSR_INLINE vf32 vf32_load(const float *p)
{
    vf32 v;
    memcpy(&v, p, sizeof v);
    return v;
}

TSR_INLINE void vf32_store(float *p, vf32 v) { memcpy(p, &v, sizeof v); }

TSR_INLINE vf32 vf32_splat(float x) { return x - (vf32){0}; }
TSR_INLINE vi32 vi32_splat(int32_t x) { return x - (vi32){0}; }
TSR_INLINE vu32 vu32_splat(uint32_t x) { return x - (vu32){0}; }

/* 0, 1, 2 ... */
TSR_INLINE vi32 vi32_iota(void)
{
    vi32 v = {0};
    UNROLL for (int i = 0; i < VL; i++) v[i] = i;
    return v;
}

#if TSR_LANES == 16 && defined(__AVX512F__)

TSR_INLINE __mmask16 first_n(int64_t n) { return (__mmask16)((1u << n) - 1); }
TSR_INLINE vf32 vf32_load_n(const float *p, int64_t n) { return (vf32)_mm512_maskz_loadu_ps(first_n(n), p); }
TSR_INLINE void vf32_store_n(float *p, vf32 v, int64_t n) { _mm512_mask_storeu_ps(p, first_n(n), (__m512)v); }
TSR_INLINE vf32 vf32_max(vf32 a, vf32 b) { return (vf32)_mm512_max_ps((__m512)a, (__m512)b); }
TSR_INLINE vf32 vf32_min(vf32 a, vf32 b) { return (vf32)_mm512_min_ps((__m512)a, (__m512)b); }
TSR_INLINE vf32 vf32_sqrt(vf32 a) { return (vf32)_mm512_sqrt_ps((__m512)a); }
TSR_INLINE vf32 vf32_select(vi32 mask, vf32 yes, vf32 no)
{
    return (vf32)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), (__m512)no, (__m512)yes);
}
TSR_INLINE vf32 vf32_from_f16(const uint16_t *p)
{
    return (vf32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
TSR_INLINE void f16_from_vf32(uint16_t *p, vf32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
TSR_INLINE vu32 vu32_from_u16(const uint16_t *p)
{
    return (vu32)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
TSR_INLINE void u16_from_vu32(uint16_t *p, vu32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v));
}

#elif TSR_LANES == 8 && defined(__AVX2__)

TSR_INLINE __m256i first_n(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TSR_INLINE vf32 vf32_load_n(const float *p, int64_t n) { return (vf32)_mm256_maskload_ps(p, first_n(n)); }
TSR_INLINE void vf32_store_n(float *p, vf32 v, int64_t n) { _mm256_maskstore_ps(p, first_n(n), (__m256)v); }
TSR_INLINE vf32 vf32_max(vf32 a, vf32 b) { return (vf32)_mm256_max_ps((__m256)a, (__m256)b); }
TSR_INLINE vf32 vf32_min(vf32 a, vf32 b) { return (vf32)_mm256_min_ps((__m256)a, (__m256)b); }
TSR_INLINE vf32 vf32_sqrt(vf32 a) { return (vf32)_mm256_sqrt_ps((__m256)a); }
TSR_INLINE vf32 vf32_select(vi32 mask, vf32 yes, vf32 no)
{
    return (vf32)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
}
TSR_INLINE vf32 vf32_from_f16(const uint16_t *p)
{
    return (vf32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
TSR_INLINE void f16_from_vf32(uint16_t *p, vf32 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
TSR_INLINE vu32 vu32_from_u16(const uint16_t *p)
{
    return (vu32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
}
TSR_INLINE void u16_from_vu32(uint16_t *p, vu32 v)
{
    const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v); /* within each half */
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8)));
}

#else /* plain C */

TSR_INLINE vf32 vf32_load_n(const float *p, int64_t n)
{
    float t[VL] = {0};
    for (int64_t i = 0; i < n; i++) t[i] = p[i];
    return vf32_load(t);
}
TSR_INLINE void vf32_store_n(float *p, vf32 v, int64_t n)
{
    float t[VL];
    vf32_store(t, v);
    for (int64_t i = 0; i < n; i++) p[i] = t[i];
}
TSR_INLINE vf32 vf32_select(vi32 mask, vf32 yes, vf32 no)
{
    return (vf32)(((vi32)yes & mask) | ((vi32)no & ~mask));
}
TSR_INLINE vf32 vf32_max(vf32 a, vf32 b) { return vf32_select(a > b, a, b); }
TSR_INLINE vf32 vf32_min(vf32 a, vf32 b) { return vf32_select(a < b, a, b); }
TSR_INLINE vf32 vf32_sqrt(vf32 a)
{
    UNROLL for (int i = 0; i < VL; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
TSR_INLINE vf32 vf32_from_f16(const uint16_t *p)
{
    float t[VL];
    for (int i = 0; i < VL; i++) t[i] = tsr_f32_from_f16(p[i]);
    return vf32_load(t);
}
TSR_INLINE void f16_from_vf32(uint16_t *p, vf32 v)
{
    float t[VL];
    vf32_store(t, v);
    for (int i = 0; i < VL; i++) p[i] = tsr_f16_from_f32(t[i]);
}
TSR_INLINE vu32 vu32_from_u16(const uint16_t *p)
{
    vu32 v = {0};
    UNROLL for (int i = 0; i < VL; i++) v[i] = p[i];
    return v;
}
TSR_INLINE void u16_from_vu32(uint16_t *p, vu32 v)
{
    UNROLL for (int i = 0; i < VL; i++) p[i] = (uint16_t)v[i];
}

#endif

/*
 * Fetches the `step` bytes at p, two vectors at most, into the second cache; returns where the next are. With
 * 4 lanes a step is too short for it to pay.
 */
TSR_INLINE const char *fetch_step(const char *p, int64_t step)
{
    if (VL > 4) __builtin_prefetch(p, 0, 2);
    if (2 * sizeof(vf32) > 64) __builtin_prefetch(p + step / 2, 0, 2);
    return p + step;
}

/*
 * The same with all VL lanes where n is VL or more: a loop's body, written once as an inline function, serves
 * whole vectors (n the constant VL) and the tail.
 */
TSR_INLINE vf32 vf32_load_up_to(const float *p, int64_t n)
{
    return n >= VL ? vf32_load(p) : vf32_load_n(p, n);
}
TSR_INLINE void vf32_store_up_to(float *p, vf32 v, int64_t n)
{
    if (n >= VL)
        vf32_store(p, v);
    else
        vf32_store_n(p, v, n);
}

/* vf32_max(a, b), vf32_min(a, b): b where either is NaN, as the x86 instructions have it. */

/* The high word of the 64-bit product of each lane with b. */
TSR_INLINE vu32 vu32_mulhi(vu32 a, uint32_t b)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    const __m512i w = _mm512_set1_epi32((int)b);
    const __m512i even = _mm512_mul_epu32((__m512i)a, w);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), w);
    return (vu32)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
#elif TSR_LANES == 8 && defined(__AVX2__)
    const __m256i w = _mm256_set1_epi32((int)b);
    const __m256i even = _mm256_mul_epu32((__m256i)a, w);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), w);
    return (vu32)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
    vu32 r = {0};
    UNROLL for (int i = 0; i < VL; i++) r[i] = (uint32_t)(((uint64_t)a[i] * b) >> 32);
    return r;
#endif
}

/* a b - c, rounded once where there is an instruction for it. (A compiler may make two of them where it takes
 * the product and the difference apart, and then two paths differ in a bit.) */
TSR_INLINE vf32 vf32_multiply_subtract(vf32 a, vf32 b, vf32 c)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vf32)_mm512_fmsub_ps((__m512)a, (__m512)b, (__m512)c);
#elif TSR_LANES == 8 && defined(__AVX2__)
    return (vf32)_mm256_fmsub_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b - c;
#endif
}

TSR_INLINE vf32 vf32_abs(vf32 v) { return (vf32)((vi32)v & 0x7fffffff); }

TSR_INLINE vf32 vf32_from_bf16(const uint16_t *p) { return (vf32)(vu32_from_u16(p) << 16); }

TSR_INLINE void bf16_from_vf32(uint16_t *p, vf32 v)
{
#if TSR_LANES == 16 && defined(__AVX512BF16__)
    enum { SUBNORMAL = 0x20 };
    if (_mm512_fpclass_ps_mask((__m512)v, SUBNORMAL) == 0) { /* which the instruction takes for zeros */
        const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
        memcpy(p, &rounded, sizeof rounded);
        return;
    }
#endif
    const vu32 u = (vu32)v;
    const vu32 rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
    const vu32 is_nan = (vu32)(v != v);
    u16_from_vu32(p, (quiet & is_nan) | (rounded & ~is_nan));
}

/* The same of 2 VL values, in half the instructions where there are some for it. */
TSR_INLINE void bf16_from_two_vf32(uint16_t *p, vf32 first, vf32 second)
{
#if TSR_LANES == 16 && defined(__AVX512BF16__)
    enum { SUBNORMAL = 0x20 };
    const __mmask16 a = _mm512_fpclass_ps_mask((__m512)first, SUBNORMAL);
    const __mmask16 b = _mm512_fpclass_ps_mask((__m512)second, SUBNORMAL);
    if (_mm512_kortestz(a, b)) {
        const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
        memcpy(p, &rounded, sizeof rounded);
        return;
    }
#endif
    bf16_from_vf32(p, first);
    bf16_from_vf32(p + VL, second);
}

/* Element i.. of an array of dtype f32, bf16 or f16 as f32 lanes, and back; the _n forms as above. */

TSR_INLINE vf32 vf32_load_as(const void *p, tsr_dtype dtype, int64_t i)
{
    if (dtype == TSR_F32) return vf32_load((const float *)p + i);
    if (dtype == TSR_BF16) return vf32_from_bf16((const uint16_t *)p + i);
    return vf32_from_f16((const uint16_t *)p + i);
}

TSR_INLINE void vf32_store_as(void *p, tsr_dtype dtype, int64_t i, vf32 v)
{
    if (dtype == TSR_F32)
        vf32_store((float *)p + i, v);
    else if (dtype == TSR_BF16)
        bf16_from_vf32((uint16_t *)p + i, v);
    else
        f16_from_vf32((uint16_t *)p + i, v);
}

TSR_INLINE vf32 vf32_load_as_n(const void *p, tsr_dtype dtype, int64_t i, int64_t n)
{
    if (dtype == TSR_F32) return vf32_load_n((const float *)p + i, n);
    uint16_t t[VL] = {0};
    memcpy(t, (const uint16_t *)p + i, (size_t)n * sizeof *t);
    return vf32_load_as(t, dtype, 0);
}

TSR_INLINE void vf32_store_as_n(void *p, tsr_dtype dtype, int64_t i, vf32 v, int64_t n)
{
    if (dtype == TSR_F32) {
        vf32_store_n((float *)p + i, v, n);
        return;
    }
    uint16_t t[VL];
    vf32_store_as(t, dtype, 0, v);
    memcpy((uint16_t *)p + i, t, (size_t)n * sizeof *t);
}

/* The lowest bytes of the lanes: values of -128 .. 127 as s8. */
TSR_INLINE void s8_from_vi32(int8_t *p, vi32 v)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
#else
    int32_t t[VL];
    memcpy(t, &v, sizeof t);
    UNROLL for (int i = 0; i < VL; i++) p[i] = (int8_t)t[i];
#endif
}

/*
 * v, rounded as it stands. Of two products that are added, the compiler rounds one and contracts the other,
 * and may choose otherwise in the next copy of a loop; this says which one is rounded.
 */
TSR_INLINE vf32 vf32_rounded(vf32 v)
{
#if (TSR_LANES == 16 && defined(__AVX512F__)) || (TSR_LANES == 8 && defined(__AVX2__)) ||                    \
    (TSR_LANES == 4 && defined(__SSE2__))
    __asm__("" : "+x"(v));
#elif TSR_LANES == 4 && defined(__aarch64__)
    __asm__("" : "+w"(v));
#else
    __asm__("" : "+m"(v));
#endif
    return v;
}

/* VL numbers of 8 bits. */
TSR_INLINE vf32 vf32_from_s8(const int8_t *p)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vf32)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif TSR_LANES == 8 && defined(__AVX2__)
    return (vf32)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    vf32 v = {0};
    UNROLL for (int i = 0; i < VL; i++) v[i] = p[i];
    return v;
#endif
}

#endif
