/* tests/kit/gradient.c - finite differences */
#include "kit/gradient.h"

#include <math.h>
#include <stdio.h>

#include "base/tensor.h"
#include "kit/compare.h"

static const double step = 0x1p-10;
enum { SAMPLE = 40 };

double kit_dot(const tsr_tensor *a, const tsr_tensor *b)
{
    double sum = 0;
    for (int64_t i = 0, n = tsr_tensor_numel(a); i < n; i++)
        if (kit_get(a, i) != -INFINITY) sum += kit_get(a, i) * kit_get(b, i);
    return sum;
}

static double loss_at(const tsr_tensor *x, int64_t i, double value, kit_loss loss, void *arg)
{
    kit_set(x, i, value);
    return loss(arg);
}

static double difference(const tsr_tensor *x, int64_t i, kit_loss loss, void *arg)
{
    const double at = kit_get(x, i);
    const double near = loss_at(x, i, at + step, loss, arg) - loss_at(x, i, at - step, loss, arg);
    const double far = loss_at(x, i, at + 2 * step, loss, arg) - loss_at(x, i, at - 2 * step, loss, arg);
    kit_set(x, i, at);
    return (8 * near - far) / (12 * step);
}

void kit_check_gradient(const tsr_tensor *x, const tsr_tensor *dx, kit_loss loss, void *arg, const char *what,
                        ...)
{
    char name[256];
    va_list args;
    va_start(args, what);
    vsnprintf(name, sizeof name, what, args);
    va_end(args);
    if (!tsr_tensor_same_shape(x, dx)) kit_fail("%s: the gradient has another shape", name);
    const int64_t n = tsr_tensor_numel(x);
    const double scale = 1 + kit_max_abs(dx);
    for (int64_t k = 0; k < n && k < SAMPLE; k++) {
        const int64_t i = n <= SAMPLE ? k : kit_between(0, n - 1);
        const double expected = difference(x, i, loss, arg), got = kit_get(dx, i);
        if (!(fabs(got - expected) <= 1e-8 * scale))
            kit_fail("%s %s: element %lld is %.12g, differences say %.12g", name, kit_describe(x).text,
                     (long long)i, got, expected);
    }
    kit_check_gaps(dx, name);
}
