/* tests/kit/linear.c - random cases of linear, and the loops in double that they are held against */
#include "kit/linear.h"

#include <math.h>
#include <stdio.h>

#include "kit/kit.h"

const char *const kit_linear_formats[] = {"as it is", "int8", "int4", "int4_zero"};

static const double eps = 0x1p-24; /* half a unit in the last place of f32 */

/* --- the truth --- */

/* x or W as whole numbers and scales of groups along k, or as it is: one group, scales of 1. */
typedef struct numbers {
    int64_t n_groups;
    const double *q, *scale; /* [rows, k], [rows, n_groups] */
} numbers;

static float symmetric(const tsr_tensor *t, int64_t first, int64_t n, float levels, double *q)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        const float value = (float)kit_get(t, first + i);
        if (!isfinite(value)) return NAN;
        if (fabsf(value) > most) most = fabsf(value);
    }
    for (int64_t i = 0; i < n; i++)
        q[i] = most > 0 ? nearbyintf((float)kit_get(t, first + i) * (levels / most)) : 0;
    return most / levels;
}

static float from_zero(const tsr_tensor *t, int64_t first, int64_t n, double *q)
{
    float low = 0, high = 0;
    for (int64_t i = 0; i < n; i++) {
        const float value = (float)kit_get(t, first + i);
        if (value < low) low = value;
        if (value > high) high = value;
    }
    const float scale = (float)(((double)high - low) / 15);
    const float zero = scale > 0 ? nearbyintf(-low / scale) : 0;
    for (int64_t i = 0; i < n; i++) {
        const float at = scale > 0 ? nearbyintf((float)kit_get(t, first + i) / scale) + zero : 0;
        q[i] = (double)(at < 0 ? 0 : at > 15 ? 15 : at) - (double)zero;
    }
    return scale;
}

static numbers numbers_of(const tsr_tensor *t, tsr_weight_format format, int64_t group)
{
    const int64_t rows = t->shape[0], k = t->shape[1];
    const int64_t n_groups = group > 0 ? k / group : 1, length = group > 0 ? group : k;
    double *q = KIT_NEW(TSR_F64, KIT_ROWS, rows, k).data;
    double *scale = KIT_NEW(TSR_F64, KIT_ROWS, rows, n_groups).data;
    for (int64_t i = 0; i < rows * n_groups; i++) {
        const int64_t first = i * length;
        double *to = q + first;
        scale[i] = 1;
        if (format == TSR_WEIGHT_INT8)
            scale[i] = (double)symmetric(t, first, length, 127, to);
        else if (format == TSR_WEIGHT_INT4)
            scale[i] = (double)symmetric(t, first, length, 7, to);
        else if (format == TSR_WEIGHT_INT4_ZERO)
            scale[i] = (double)from_zero(t, first, length, to);
        else
            for (int64_t p = 0; p < length; p++) to[p] = kit_get(t, first + p);
        if (!isfinite(scale[i]))
            for (int64_t p = 0; p < length; p++) to[p] = 1;
    }
    return (numbers){n_groups, q, scale};
}

/* Integers that were given: in groups, whatever the format. */
static numbers given_numbers(const kit_linear *l, const tsr_weight_source *src)
{
    const int64_t length = l->format.group > 0 ? l->format.group : l->k, n_groups = l->k / length;
    double *q = KIT_NEW(TSR_F64, KIT_ROWS, l->n, l->k).data;
    double *scale = KIT_NEW(TSR_F64, KIT_ROWS, l->n, n_groups).data;
    for (int64_t i = 0; i < l->n * l->k; i++) {
        const double zero = src->zeros.data != NULL ? kit_get(&src->zeros, i / length) : 0;
        q[i] = kit_get(&src->values, i) - zero;
    }
    for (int64_t i = 0; i < l->n * n_groups; i++) scale[i] = kit_get(&src->scales, i);
    return (numbers){n_groups, q, scale};
}

static numbers weight_numbers(const kit_linear *l, const tsr_weight_source *src)
{
    if (src->values.dtype == TSR_S8) return given_numbers(l, src);
    return numbers_of(&src->values, l->format.format, l->format.group);
}

/* A number, and how far from it an f32 computation may end. */
typedef struct estimate {
    double value, error;
} estimate;

static estimate product(const kit_linear *l, const numbers *x, const numbers *w, int64_t i, int64_t j)
{
    const bool quantised = l->format.format != TSR_WEIGHT_AS_IS;
    const int64_t length = w->n_groups > 0 ? l->k / w->n_groups : 0;
    double sum = 0, magnitude = 0;
    for (int64_t g = 0; g < w->n_groups; g++) {
        double group = 0, terms = 0;
        const double *xq = x->q + i * l->k + g * length, *wq = w->q + j * l->k + g * length;
        for (int64_t p = 0; p < length; p++) {
            group += xq[p] * wq[p];
            terms += fabs(xq[p] * wq[p]);
        }
        sum += w->scale[j * w->n_groups + g] * group;
        magnitude += fabs(w->scale[j * w->n_groups + g]) * (quantised ? fabs(group) : terms);
    }
    const double factor = x->scale[i] * (l->scale != 0 ? (double)l->scale : 1);
    /* Roundings: of each step along k, or each group; and of the factors that follow. */
    const double steps = (double)(quantised ? w->n_groups : l->k) + 8;
    return (estimate){factor * sum, steps * eps * fabs(factor) * magnitude};
}

static estimate with_bias(estimate e, const tsr_tensor *bias, int64_t j)
{
    if (bias->data != NULL) e.value += kit_get(bias, j);
    e.error += eps * fabs(e.value);
    return e;
}

/* No slope is above 1.13; the function itself is as exact as NUMERICS.md says. */
static estimate activated(tsr_activation activation, estimate e)
{
    const double x = e.value;
    double y = x;
    if (activation == TSR_ACTIVATION_NONE) return e;
    if (activation == TSR_ACTIVATION_RELU) y = x < 0 ? 0 : x;
    if (activation == TSR_ACTIVATION_GELU) y = x / 2 * (1 + erf(x * sqrt(0.5)));
    if (activation == TSR_ACTIVATION_GELU_TANH)
        y = x / 2 * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    if (activation == TSR_ACTIVATION_SILU) y = x / (1 + exp(-x));
    return (estimate){y, 1.13 * e.error + 2e-7 + 4e-7 * fabs(y)};
}

static estimate times(estimate a, estimate b)
{
    const double y = a.value * b.value;
    return (estimate){y,
                      fabs(a.value) * b.error + fabs(b.value) * a.error + a.error * b.error + eps * fabs(y)};
}

tsr_tensor kit_linear_expected(const kit_linear *l, kit_bound *bound)
{
    const bool quantised = l->format.format != TSR_WEIGHT_AS_IS, s8 = l->y.dtype == TSR_S8;
    const numbers x = numbers_of(&l->x, quantised ? TSR_WEIGHT_INT8 : TSR_WEIGHT_AS_IS, 0);
    const numbers w = weight_numbers(l, &l->w);
    const numbers gate = l->gated ? weight_numbers(l, &l->gate) : w;
    const tsr_tensor expected = KIT_NEW(TSR_F64, KIT_ROWS, l->m, l->n);
    const double step = s8 && l->y_scale != 0 ? (double)l->y_scale : 1;
    double worst = 0;
    for (int64_t i = 0; i < l->m; i++)
        for (int64_t j = 0; j < l->n; j++) {
            estimate e = with_bias(product(l, &x, &w, i, j), &l->bias, j);
            if (l->gated) {
                const estimate g = with_bias(product(l, &x, &gate, i, j), &l->gate_bias, j);
                e = times(activated(l->activation, g), e);
            } else {
                e = activated(l->activation, e);
            }
            if (l->residual.data != NULL) {
                e.value += kit_get(&l->residual, i * l->n + j);
                e.error += eps * fabs(e.value);
            }
            double value = e.value / step;
            const double error = e.error / step + 2 * eps * fabs(value);
            if (error > worst) worst = error;
            if (s8) value = isnan(value) ? 0 : fmin(127, fmax(-128, value));
            kit_set(&expected, i * l->n + j, value);
        }
    *bound = (kit_bound){.abs = worst + (s8 ? 0.5 : 0), .ulps = s8 ? 0 : 0.51};
    return expected;
}

/* --- the call --- */

tsr_weight *kit_linear_pack(tsr_context *ctx, const kit_linear *l)
{
    tsr_weight *weight = NULL;
    KIT_OK(tsr_weight_create(ctx, &l->w, l->gated ? &l->gate : NULL, &l->format, &weight));
    assert_true(tsr_weight_nbytes(weight) > 0 || l->n * l->k == 0);
    return weight;
}

tsr_status kit_linear_run_into(tsr_context *ctx, const kit_linear *l, const tsr_weight *weight,
                               const tsr_tensor *x, const tsr_tensor *residual, const tsr_tensor *y)
{
    const tsr_linear_options o = {.bias = kit_linear_or_null(&l->bias),
                                  .gate_bias = kit_linear_or_null(&l->gate_bias),
                                  .activation = l->activation,
                                  .residual = residual,
                                  .scale = l->scale,
                                  .y_scale = l->y_scale};
    return l->plain ? tsr_linear_plain_fwd(ctx, x, &l->w.values, &o, y, NULL)
                    : tsr_linear_fwd(ctx, x, weight, &o, y, NULL);
}

void kit_linear_run(tsr_context *ctx, const kit_linear *l)
{
    tsr_weight *weight = l->plain ? NULL : kit_linear_pack(ctx, l);
    KIT_OK(kit_linear_run_into(ctx, l, weight, &l->x, kit_linear_or_null(&l->residual), &l->y));
    tsr_weight_destroy(ctx, weight);
}

kit_linear_line kit_linear_describe(const kit_linear *l)
{
    kit_linear_line line;
    snprintf(line.text, sizeof line.text,
             "%s%s%s, m %lld n %lld k %lld group %lld, x %s %s, w %s, activation %d%s%s%s",
             l->plain ? "plain" : kit_linear_formats[l->format.format],
             l->w.scales.data != NULL ? " given" : "", l->gated ? " gated" : "", (long long)l->m,
             (long long)l->n, (long long)l->k, (long long)l->format.group, tsr_dtype_name(l->x.dtype),
             kit_describe(&l->x).text, tsr_dtype_name(l->w.values.dtype), (int)l->activation,
             l->bias.data != NULL ? ", bias" : "", l->gate_bias.data != NULL ? ", gate_bias" : "",
             l->residual.data == NULL        ? ""
             : l->residual.data == l->y.data ? ", upon its residual"
                                             : ", residual");
    return line;
}

/* --- cases --- */

static tsr_tensor absent(void) { return (tsr_tensor){.data = NULL}; }

static tsr_weight_source random_source(const kit_linear *l, tsr_dtype dtype, bool given)
{
    tsr_weight_source s = {absent(), absent(), absent()};
    if (!given) {
        s.values = kit_uniform(KIT_NEW(dtype, kit_any_input(), l->n, l->k), -0.3, 0.5);
        return s;
    }
    const tsr_weight_format format = l->format.format;
    const bool has_zeros = format == TSR_WEIGHT_INT4_ZERO;
    const int64_t low = format == TSR_WEIGHT_INT8 ? -128 : has_zeros ? 0 : -8;
    const int64_t high = format == TSR_WEIGHT_INT8 ? 127 : has_zeros ? 15 : 7;
    s.values = kit_integers(KIT_NEW(TSR_S8, kit_any_input(), l->n, l->k), low, high);
    const double most = format == TSR_WEIGHT_INT8 ? 0.004 : 0.05;
    if (format == TSR_WEIGHT_INT8) {
        s.scales = kit_uniform(KIT_NEW(TSR_F32, kit_any_input(), l->n), -most, most);
        return s;
    }
    const int64_t n_groups = l->k / l->format.group;
    s.scales = kit_uniform(KIT_NEW(TSR_F32, kit_any_input(), l->n, n_groups), -most, most);
    if (has_zeros) s.zeros = kit_integers(KIT_NEW(TSR_S8, kit_any_input(), l->n, n_groups), 0, 15);
    return s;
}

/* Now and then a row is zero. */
static tsr_tensor random_x(tsr_dtype dtype, int64_t m, int64_t k)
{
    const tsr_tensor x = kit_uniform(KIT_NEW(dtype, kit_any_input(), m, k), -1, 1);
    const bool zero = m > 2 && kit_one_in(3);
    for (int64_t p = 0; p < k && zero; p++) kit_set(&x, k + p, 0);
    return x;
}

static tsr_tensor random_bias(tsr_dtype y_dtype, int64_t n)
{
    if (kit_one_in(3)) return absent();
    const tsr_dtype dtype = kit_one_in(2) || y_dtype == TSR_S8 ? TSR_F32 : y_dtype;
    return kit_uniform(KIT_NEW(dtype, kit_any_input(), n), -1, 1);
}

kit_linear kit_linear_random(const kit_linear_kind *what, int64_t m, int64_t n, int64_t k, int64_t group)
{
    kit_linear l = {.m = m, .n = n, .k = k, .plain = what->plain, .gated = what->gated};
    l.format = (tsr_weight_options){what->format, group};
    l.w = random_source(&l, what->w, what->given);
    if (l.gated) l.gate = random_source(&l, what->w, what->given);
    l.x = random_x(what->x, m, k);
    l.y = KIT_NEW(what->y, kit_any_output(), m, n);
    l.bias = random_bias(what->y, n);
    l.gate_bias = l.gated ? random_bias(what->y, n) : absent();
    l.activation = (tsr_activation)kit_between(TSR_ACTIVATION_NONE, TSR_ACTIVATION_SILU);
    l.scale = kit_one_in(2) ? 0 : kit_one_in(2) ? -0.5f : 1.25f;
    l.y_scale = kit_one_in(2) ? 0 : 0.0625f;
    if (kit_one_in(2)) {
        l.residual = what->y == TSR_S8 ? kit_like(&l.y, TSR_F32, kit_any_input())
                     : kit_one_in(2)   ? l.y
                                       : kit_like(&l.y, l.y.dtype, kit_any_input());
        kit_uniform(l.residual, -1, 1);
    }
    return l;
}

void kit_linear_for_each_kind(tsr_context *ctx, void (*fn)(tsr_context *ctx, const kit_linear_kind *what))
{
    static const tsr_dtype floats[] = {TSR_F32, TSR_BF16, TSR_F16};
    for (int format = -1; format <= TSR_WEIGHT_INT4_ZERO; format++)
        for (int x = 0; x < 3; x++)
            for (int y = 0; y < 3; y++)
                for (int gated = 0; gated <= (format < 0 ? 0 : 1); gated++) {
                    kit_linear_kind what = {
                        .plain = format < 0, .gated = gated, .x = floats[x], .w = floats[x]};
                    what.format = format < 0 ? TSR_WEIGHT_AS_IS : (tsr_weight_format)format;
                    what.y = y == 0 ? floats[x] : y == 1 ? TSR_F32 : TSR_S8;
                    if (format > 0) what.w = floats[kit_between(0, 2)], what.given = kit_one_in(2);
                    if (format == 0 && x == 0) what.w = floats[kit_between(0, 2)];
                    fn(ctx, &what);
                    kit_free_all();
                }
}
