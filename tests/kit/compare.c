/* tests/kit/compare.c - comparison with a bound; the one line that a failure prints */
#include "kit/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/isa.h"
#include "kit/tensor.h"

double kit_ulp(tsr_dtype dtype, double x)
{
    int digits, min_exponent; /* of the significand; of the smallest normal number */
    switch (dtype) {
    case TSR_F32: digits = 24, min_exponent = -126; break;
    case TSR_F64: digits = 53, min_exponent = -1022; break;
    case TSR_BF16: digits = 8, min_exponent = -126; break;
    case TSR_F16: digits = 11, min_exponent = -14; break;
    default: return 1;
    }
    const int exponent = x == 0 || !isfinite(x) ? min_exponent : ilogb(x);
    return ldexp(1, (exponent > min_exponent ? exponent : min_exponent) - digits + 1);
}

double kit_max_abs(const tsr_tensor *t)
{
    double max = 0;
    for (int64_t i = 0, n = tsr_tensor_numel(t); i < n; i++) {
        const double x = fabs(kit_get(t, i));
        if (isfinite(x) && x > max) max = x;
    }
    return max;
}

kit_difference kit_compare(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound)
{
    kit_difference d = {.worst = -1};
    double worst_ratio = -1;
    const double common = bound.abs + bound.of_largest * kit_ulp(got->dtype, kit_max_abs(expected));
    for (int64_t i = 0, n = tsr_tensor_numel(got); i < n; i++) {
        const double g = kit_get(got, i), e = kit_get(expected, i);
        if (g == e || (isnan(g) && isnan(e))) continue;
        const bool finite = isfinite(g) && isfinite(e);
        const double error = finite ? fabs(g - e) : NAN;
        const double allowed = common + bound.rel * fabs(e) + bound.ulps * kit_ulp(got->dtype, e);
        const bool wrong = !(error <= allowed);
        const double ratio = !finite ? INFINITY : allowed > 0 ? error / allowed : 1e300;
        if (finite && error > d.max_error) d.max_error = error;
        d.n_wrong += wrong;
        if (ratio <= worst_ratio) continue;
        worst_ratio = ratio;
        d.worst = i, d.got = g, d.expected = e, d.error = error, d.allowed = allowed;
    }
    return d;
}

bool kit_agrees(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound)
{
    return tsr_tensor_same_shape(got, expected) && kit_compare(got, expected, bound).n_wrong == 0;
}

bool kit_same_bits(const tsr_tensor *a, const tsr_tensor *b)
{
    if (a->dtype != b->dtype || !tsr_tensor_same_shape(a, b)) return false;
    const size_t nbytes = tsr_dtype_nbytes(a->dtype);
    int64_t index[TSR_MAX_RANK] = {0};
    for (int64_t i = 0, n = tsr_tensor_numel(a); i < n; i++) {
        for (int64_t rest = i, dim = a->rank - 1; dim >= 0; rest /= a->shape[dim--])
            index[dim] = rest % a->shape[dim];
        if (memcmp(tsr_tensor_at(a, tsr_tensor_offset(a, index)),
                   tsr_tensor_at(b, tsr_tensor_offset(b, index)), nbytes) != 0)
            return false;
    }
    return true;
}

static void append_list(kit_text *t, const int64_t *list, int32_t n)
{
    size_t used = strlen(t->text);
    for (int32_t i = 0; i < n; i++)
        used += (size_t)snprintf(t->text + used, sizeof t->text - used, "%s%lld", i == 0 ? "[" : ", ",
                                 (long long)list[i]);
    snprintf(t->text + used, sizeof t->text - used, n == 0 ? "[]" : "]");
}

kit_text kit_describe(const tsr_tensor *t)
{
    kit_text r = {""};
    append_list(&r, t->shape, t->rank);
    strcat(r.text, " strides ");
    append_list(&r, t->stride, t->rank);
    snprintf(r.text + strlen(r.text), sizeof r.text - strlen(r.text), " at %d",
             (int)((uintptr_t)t->data % 64));
    return r;
}

void kit_fail(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (kit_case() < 0)
        print_error("%s; ISA %s, TSR_SEED=%llu\n", line, kit_isa(), (unsigned long long)kit_seed());
    else
        print_error("%s; repeat with TESSERA_ISA=%s TSR_SEED=%llu TSR_CASE=%lld\n", line, kit_isa(),
                    (unsigned long long)kit_seed(), (long long)kit_case());
    fail();
    abort(); /* fail() does not return */
}

void kit_check(const tsr_tensor *got, const tsr_tensor *expected, kit_bound bound, const char *what, ...)
{
    char name[512];
    va_list args;
    va_start(args, what);
    vsnprintf(name, sizeof name, what, args);
    va_end(args);
    if (!tsr_tensor_same_shape(got, expected))
        kit_fail("%s: shape is %s, expected %s", name, kit_describe(got).text, kit_describe(expected).text);
    const kit_difference d = kit_compare(got, expected, bound);
    if (d.n_wrong > 0) {
        kit_text at = {""};
        int64_t index[TSR_MAX_RANK] = {0};
        for (int64_t rest = d.worst, dim = got->rank - 1; dim >= 0; rest /= got->shape[dim--])
            index[dim] = rest % got->shape[dim];
        append_list(&at, index, got->rank);
        kit_fail("%s: %s %s: %lld wrong, the worst at %s is %.9g, expected %.9g, off by %.3g, allowed %.3g",
                 name, tsr_dtype_name(got->dtype), kit_describe(got).text, (long long)d.n_wrong, at.text,
                 d.got, d.expected, d.error, d.allowed);
    }
    kit_check_gaps(got, name);
}
