/*
 * base/dtype.h - scalar conversions between storage types and f32 / f64
 *
 * Rounding is to nearest, ties to even; NaN stays NaN (quiet); subnormals and
 * overflow to infinity are right. bf16 and f16 travel as uint16_t.
 */
#ifndef TSR_BASE_DTYPE_H
#define TSR_BASE_DTYPE_H

#include <stdint.h>
#include <string.h>

#include "tessera/tensor.h"

static inline uint32_t tsr_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float tsr_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float tsr_f32_from_bf16(uint16_t h) { return tsr_f32_from_bits((uint32_t)h << 16); }

static inline uint16_t tsr_bf16_from_f32(float x)
{
    const uint32_t u = tsr_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40); /* NaN: keep it one */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static inline float tsr_f32_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) /* Inf, NaN (made quiet, as the instruction does) */
        return tsr_f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 |
                                 (rest > 0x7c00u ? 0x400000u : 0));
    if (rest >= 0x0400u) return tsr_f32_from_bits(sign | ((rest << 13) + 0x38000000u));
    const float magnitude = (float)rest * 0x1p-24f; /* subnormal: exact */
    return tsr_f32_from_bits(sign | tsr_f32_bits(magnitude));
}

static inline uint16_t tsr_f16_from_f32(float x)
{
    const uint32_t u = tsr_f32_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to Inf */
    if (a < 0x38800000u) {
        /* Below 2^-14: adding 0.5 puts one unit of the result, 2^-24, at the last bit of the sum. */
        const uint32_t r = tsr_f32_bits(tsr_f32_from_bits(a) + 0.5f);
        return (uint16_t)(sign | (r - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1)) >> 13));
}

/* One rounding from f64: through f32 rounded to odd, so that the second rounding cannot err. */
static inline float tsr_f32_odd_from_f64(double x)
{
    float r = (float)x;
    const double back = (double)r;
    if (back == x || x != x) return r;
    uint32_t u = tsr_f32_bits(r);
    /* Step back towards zero if rounding went away from it, then set the last bit. */
    if ((back > x) == (x > 0)) u -= 1;
    return tsr_f32_from_bits(u | 1);
}

static inline double tsr_load_f64(const void *data, tsr_dtype dtype, int64_t i)
{
    switch (dtype) {
    case TSR_F32: return ((const float *)data)[i];
    case TSR_F64: return ((const double *)data)[i];
    case TSR_BF16: return tsr_f32_from_bf16(((const uint16_t *)data)[i]);
    case TSR_F16: return tsr_f32_from_f16(((const uint16_t *)data)[i]);
    case TSR_S8: return ((const int8_t *)data)[i];
    case TSR_I32: return ((const int32_t *)data)[i];
    case TSR_I64: return (double)((const int64_t *)data)[i];
    case TSR_BOOL: return ((const uint8_t *)data)[i] != 0;
    case TSR_DTYPE_COUNT: break;
    }
    return 0;
}

/* Integers: rounded to nearest even, clamped to the type's range, NaN to 0. */
static inline int64_t tsr_integer_from_f64(double x, double low, double high)
{
    if (!(x > low)) return x != x ? 0 : (int64_t)low;
    if (x >= high) return high >= 0x1p63 ? INT64_MAX : (int64_t)high;
    return (int64_t)__builtin_nearbyint(x);
}

static inline void tsr_store_f64(void *data, tsr_dtype dtype, int64_t i, double x)
{
    switch (dtype) {
    case TSR_F32: ((float *)data)[i] = (float)x; break;
    case TSR_F64: ((double *)data)[i] = x; break;
    case TSR_BF16: ((uint16_t *)data)[i] = tsr_bf16_from_f32(tsr_f32_odd_from_f64(x)); break;
    case TSR_F16: ((uint16_t *)data)[i] = tsr_f16_from_f32(tsr_f32_odd_from_f64(x)); break;
    case TSR_S8: ((int8_t *)data)[i] = (int8_t)tsr_integer_from_f64(x, -128, 127); break;
    case TSR_I32: ((int32_t *)data)[i] = (int32_t)tsr_integer_from_f64(x, -0x1p31, 0x1p31 - 1); break;
    case TSR_I64: ((int64_t *)data)[i] = tsr_integer_from_f64(x, -0x1p63, 0x1p63); break;
    case TSR_BOOL: ((uint8_t *)data)[i] = x != 0; break;
    case TSR_DTYPE_COUNT: break;
    }
}

#endif
