/*
 * backend/cpu/vec_math.h - words of mathematics for kernels, and the activations
 *
 * Included after vec.h. tests/check_vec.c holds each to its bound over the whole range. NaN gives NaN.
 * Adding 1.5 * 2^23 to a number leaves the nearest integer in the low bits of the sum. Coefficients are
 * minimax fits, their own error well below the bounds.
 */
#ifndef TSR_BACKEND_CPU_VEC_MATH_H
#define TSR_BACKEND_CPU_VEC_MATH_H

#include "backend/cpu/vec.h"

#define VF32_ROUND 0x1.8p23f

#if TSR_LANES == 16 && defined(__AVX512F__)
#define VF32_EXP2_LOWEST -151.0f /* half of the least subnormal is 2^-150: it rounds to 0 */
#else
#define VF32_EXP2_LOWEST -127.0f /* where 2^n's exponent field becomes 0 */
#endif

/* 2^f, f in [-0.5, 0.5] */
TSR_INLINE vf32 exp2_of_fraction(vf32 f)
{
    vf32 p = f * 1.53524293e-4f + 1.33989953e-3f;
    p = p * f + 9.61844224e-3f;
    p = p * f + 5.55033222e-2f;
    p = p * f + 2.40226479e-1f;
    p = p * f + 6.93147203e-1f;
    return p * f + 1.0f;
}

/*
 * 2^x = 2^n 2^f, f in [-0.5, 0.5]. Relative error below 2^-23 where the result is 2^-126 or more; a smaller
 * one is within 2^-127 of the truth. -Inf gives 0, 128 and above Inf.
 */
TSR_INLINE vf32 vf32_exp2(vf32 x)
{
    const vf32 t = vf32_min(vf32_splat(128), vf32_max(vf32_splat(VF32_EXP2_LOWEST), x));
    const vf32 shifted = t + VF32_ROUND, n = shifted - VF32_ROUND;
    const vf32 p = exp2_of_fraction(t - n);
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vf32)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return vf32_select(x == x, (vf32)((vu32)p + ((vu32)shifted << 23)), x);
#endif
}

/* The same in fewer instructions for x <= 127, which is not checked; a result below 2^-126 is within 2^-126.
 */
TSR_INLINE vf32 vf32_exp2_below_127(vf32 x)
{
    const vf32 t = vf32_max(vf32_splat(VF32_EXP2_LOWEST), x);
    const vf32 shifted = t + VF32_ROUND, n = shifted - VF32_ROUND;
    const vf32 p = exp2_of_fraction(t - n);
#if TSR_LANES == 16 && defined(__AVX512F__)
    return (vf32)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vf32)(((vu32)shifted << 23) + 0x3f800000u);
#endif
}

/*
 * 2^x, x <= 127, for what is rounded to bf16: relative error below 2^-20, a result below 2^-126 within
 * 2^-126. Of higher x it gives 2^127 or more, or NaN.
 *
 * 16 lanes: 2^x = 2^k 2^(j / 16) 2^f, |f| <= 1 / 32, the second from a table. That is as many instructions as
 * a polynomial alone takes, but only five of them are for the first vector unit, which is all that there is
 * for multiply-adds while tiles multiply; additions and permutations are for the other. Below -2^18, where n
 * and f are no longer what they are meant to be, 2^n is 0, and so is the result, also of -Inf, where f is
 * NaN.
 */
TSR_INLINE vf32 vf32_exp2_for_bf16(vf32 x)
{
#if TSR_LANES == 16 && defined(__AVX512F__)
    static const float powers[16] = {1.0f,        1.04427373f, 1.09050775f, 1.13878858f,
                                     1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f,
                                     1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
                                     1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f}; /* 2^(j / 16) */
    const vf32 shifted = x + 0x1.8p19f, n = shifted - 0x1.8p19f, f = x - n; /* n in sixteenths */
    const vf32 power = (vf32)_mm512_permutexvar_ps((__m512i)shifted, _mm512_loadu_ps(powers));
    return (vf32)_mm512_scalef_ps((__m512)(power * ((f * 2.40226433e-1f + 6.93187714e-1f) * f) + power),
                                  (__m512)n);
#else
    return vf32_exp2_below_127(vf32_min(vf32_splat(127), x));
#endif
}

/* e^x. Relative error below (1 + |x|) 2^-23: x log2(e) is rounded once; small and large results as in exp2.
 */
TSR_INLINE vf32 vf32_exp(vf32 x) { return vf32_exp2(x * 1.44269504f); }

/* 1 / (1 + e^-x). Absolute error below 2^-23; for x < 0 relative error below (2 + |x|) 2^-23. */
TSR_INLINE vf32 vf32_sigmoid(vf32 x) { return 1 / (1 + vf32_exp(-x)); }

/*
 * tanh x = u / (u + 2), u = e^2|x| - 1 = 2^n (e^r - 1) + 2^n - 1, |r| <= ln(2) / 2: nothing cancels near 0.
 * Relative error below 2^-22 everywhere, subnormals included.
 */
TSR_INLINE vf32 vf32_tanh(vf32 x)
{
    const vf32 t = 2 * vf32_min(vf32_splat(9.5f), vf32_abs(x)); /* beyond 9.02 the result is 1 */
    const vf32 shifted = t * 1.44269504f + VF32_ROUND;
    const vf32 n = shifted - VF32_ROUND;
    const vf32 r = (t - n * 0x1.62e4p-1f) -
                   n * 1.42860682e-6f; /* ln 2 in two parts, n times the first exact */
    vf32 p = r * 1.38823254e-3f + 8.36664568e-3f;
    p = p * r + 4.16672076e-2f;
    p = p * r + 1.66665427e-1f;
    p = p * r + 4.99999981e-1f;
    const vf32 power = (vf32)(((vu32)shifted << 23) + 0x3f800000u);
    const vf32 u = (p * r * r + r) * power + (power - 1);
    const vf32 y = u / (u + 2);
    return (vf32)((vi32)y | ((vi32)x & INT32_MIN));
}

/*
 * The normal distribution: the probability of a value below x, and through `density` exp(-x^2 / 2) /
 * sqrt(2 pi). The tail beyond |x| is the density times a smooth function (Mills' ratio), here a polynomial in
 * 1 / (1 + 0.345 |x|). Absolute error below 2^-22, in the left tail relative error below (4 + x^2) 2^-23.
 */
TSR_INLINE vf32 vf32_normal(vf32 x, vf32 *density)
{
    const vf32 a = vf32_abs(x), t = 1 / (1 + 0.345f * a), s = t - 0.5f; /* centred: it sums better */
    const vf32 e = vf32_exp2(a * a * -0.721347520f);                    /* log2(e) / 2 */
    vf32 p = s * -2.79331166e-2f + 3.15041980e-2f;
    p = p * s + 3.85632648e-2f;
    p = p * s - 6.22190111e-2f;
    p = p * s - 7.50671518e-2f;
    p = p * s + 9.47886337e-2f;
    p = p * s + 2.91230341e-1f;
    p = p * s + 3.42078416e-1f;
    p = p * s + 2.50201115e-1f;
    const vf32 tail = e * t * p;
    *density = e * 0.398942280f;
    return vf32_select(x < 0, tail, 1 - tail);
}

/* --- activations --- */

TSR_INLINE vf32 vf32_identity(vf32 x) { return x; }
TSR_INLINE vf32 vf32_relu(vf32 x) { return vf32_max(vf32_splat(0), x); /* x where it is NaN */ }

TSR_INLINE vf32 vf32_gelu(vf32 x)
{
    vf32 density;
    return x * vf32_normal(x, &density);
}

/* (1 + tanh u) / 2 is sigmoid(2 u): no cancellation where tanh is near -1. */
TSR_INLINE vf32 vf32_gelu_tanh(vf32 x) { return x * vf32_sigmoid(1.59576912f * x * (1 + 0.044715f * x * x)); }

TSR_INLINE vf32 vf32_silu(vf32 x) { return x * vf32_sigmoid(x); }

#endif
