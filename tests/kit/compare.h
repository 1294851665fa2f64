/*
 * tests/kit/compare.h - is a result as close to the truth as it must be?
 *
 * An element agrees if |got - expected| <= abs + rel |expected| + ulps * ulp(expected) + of_largest *
 * ulp(largest |expected|), ulp being that of got's dtype. NaN agrees with NaN only, Inf with the same Inf.
 * All-zero bounds mean equal.
 */
#ifndef TSR_KIT_COMPARE_H
#define TSR_KIT_COMPARE_H

#include <stdbool.h>

#include "kit/kit.h"
#include "tessera/tensor.h"

typedef struct kit_bound {
    double abs, rel;
    double ulps;       /* of the element itself          */
    double of_largest; /* ulps of the largest of them all */
} kit_bound;

#define KIT_EXACT ((kit_bound){0})

typedef struct kit_difference {
    int64_t n_wrong;       /* elements out of bounds                          */
    int64_t worst;         /* row-major index of the one that is worst        */
    double got, expected;  /* there                                           */
    double error, allowed; /* there; NaN for a NaN or Inf that does not agree */
    double max_error;      /* over all elements that are finite in both       */
} kit_difference;

/* Compares tensors of one shape; expected is f64 as a rule. */
kit_difference kit_compare(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound);

/* True if all agree: for tests that a wrong result is rejected. */
bool kit_agrees(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound);

/*
 * Fails the test with one line that repeats it (what, shape, strides, dtype, ISA, seed, worst element) unless
 * all agree and nothing around or between got's elements was written. `what` names operator, argument, case.
 */
void kit_check(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

double kit_max_abs(const tsr_tensor *t);   /* largest finite magnitude */
double kit_ulp(tsr_dtype dtype, double x); /* distance between neighbours at x; 1 for integers */
bool kit_same_bits(const tsr_tensor *a, const tsr_tensor *b); /* one shape and dtype, any strides */

/* Fails with the line given, followed by ISA, seed and, where cases have numbers, the case. */
void kit_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* "[2, 3] strides [3, 1] at 16": a view's layout, and its address modulo 64. */
typedef struct kit_text {
    char text[160];
} kit_text;
kit_text kit_describe(const tsr_tensor *t);

#endif
