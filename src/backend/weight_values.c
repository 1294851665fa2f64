/* backend/weight_values.c - checks and quantisation of weights, and of the rows that meet them */
#include "backend/weight_values.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/tensor.h"

/* --- checks --- */

/* "w.values[2, 3]": an element of a vector or a matrix. */
typedef struct element_name {
    char text[80];
} element_name;

static element_name name_of(const char *whose, const char *part, const tsr_tensor *t, int64_t i, int64_t j)
{
    element_name name;
    if (t->rank == 1)
        snprintf(name.text, sizeof name.text, "%s.%s[%" PRId64 "]", whose, part, i);
    else
        snprintf(name.text, sizeof name.text, "%s.%s[%" PRId64 ", %" PRId64 "]", whose, part, i, j);
    return name;
}

static int64_t columns_of(const tsr_tensor *t) { return t->rank == 1 ? 1 : t->shape[1]; }

/* Is every element of a row within [low, high]? In a form that compilers turn into vectors. */
static bool row_in_range(const int8_t *row, int64_t stride, int64_t n, int low, int high)
{
    bool outside = false;
    if (stride == 1)
        for (int64_t j = 0; j < n; j++) outside |= (row[j] < low) | (row[j] > high);
    else
        for (int64_t j = 0; j < n; j++) outside |= (row[j * stride] < low) | (row[j * stride] > high);
    return !outside;
}

static tsr_status check_range(const char *whose, const char *part, const tsr_tensor *t, int low, int high)
{
    if (tsr_tensor_numel(t) == 0) return TSR_OK;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        const int8_t *row = tsr_tensor_at(t, i * t->stride[0]);
        if (row_in_range(row, t->stride[1], t->shape[1], low, high)) continue;
        int64_t j = 0;
        while (row[j * t->stride[1]] >= low && row[j * t->stride[1]] <= high) j++;
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is %d, must be %d to %d", name_of(whose, part, t, i, j).text,
                        row[j * t->stride[1]], low, high);
    }
    return TSR_OK;
}

/* None of n contiguous elements is Inf or NaN. */
static bool row_is_finite(const void *row, tsr_dtype dtype, int64_t n)
{
    bool found = false;
    if (dtype == TSR_F32) {
        const float *x = row;
        for (int64_t j = 0; j < n; j++) found |= !(fabsf(x[j]) <= FLT_MAX);
    } else {
        const uint16_t *bits = row, exponent = dtype == TSR_BF16 ? 0x7f80 : 0x7c00;
        for (int64_t j = 0; j < n; j++) found |= (bits[j] & exponent) == exponent;
    }
    return !found;
}

static tsr_status check_finite(const char *whose, const char *part, const tsr_tensor *t)
{
    if (tsr_tensor_numel(t) == 0) return TSR_OK;
    const int64_t columns = columns_of(t), column_stride = t->rank == 1 ? 0 : t->stride[1];
    const bool has_bits = t->dtype == TSR_F32 || t->dtype == TSR_BF16 || t->dtype == TSR_F16;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        const int64_t first = i * t->stride[0];
        if (has_bits && (columns == 1 || column_stride == 1) &&
            row_is_finite(tsr_tensor_at(t, first), t->dtype, columns))
            continue;
        for (int64_t j = 0; j < columns; j++) {
            const double value = tsr_load_f64(t->data, t->dtype, first + j * column_stride);
            if (!isfinite(value))
                return tsr_fail(TSR_ERR_ARGUMENT, "%s is %g, must be finite",
                                name_of(whose, part, t, i, j).text, value);
        }
    }
    return TSR_OK;
}

static tsr_status check_source(const char *whose, const tsr_weight_source *src, tsr_weight_format format)
{
    if (src->values.dtype != TSR_S8) return check_finite(whose, "values", &src->values);
    if (format == TSR_WEIGHT_INT4) TSR_TRY(check_range(whose, "values", &src->values, -8, 7));
    if (format == TSR_WEIGHT_INT4_ZERO) {
        TSR_TRY(check_range(whose, "values", &src->values, 0, 15));
        if (src->zeros.data != NULL) TSR_TRY(check_range(whose, "zeros", &src->zeros, 0, 15));
    }
    return src->scales.data != NULL ? check_finite(whose, "scales", &src->scales) : TSR_OK;
}

tsr_status tsr_check_weight_values(const tsr_weight_pack_args *args)
{
    const tsr_weight_layout *layout = &args->layout;
    if (layout->format == TSR_WEIGHT_AS_IS) return TSR_OK;
    TSR_TRY(check_source("w", &args->w, layout->format));
    return layout->gated ? check_source("gate", &args->gate, layout->format) : TSR_OK;
}

/* --- quantisation --- */

/* n floats that lie `stride` apart */
typedef struct span {
    const void *x;
    tsr_dtype dtype;
    int64_t stride, n;
} span;

static float at(const span *s, int64_t i) { return (float)tsr_load_f64(s->x, s->dtype, i * s->stride); }

/* NaN if an element is not finite */
static float largest_magnitude(const span *s)
{
    float largest = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const float magnitude = fabsf(at(s, i));
        if (!isfinite(magnitude)) return NAN;
        if (magnitude > largest) largest = magnitude;
    }
    return largest;
}

/* q in -levels .. levels; returns the scale */
static float quantise(const span *s, float levels, int8_t *q)
{
    const float largest = largest_magnitude(s), factor = levels / largest;
    if (!isfinite(factor)) {
        if (s->n > 0) memset(q, 0, (size_t)s->n);
        return isnan(largest) ? NAN : 0;
    }
    for (int64_t i = 0; i < s->n; i++) q[i] = (int8_t)rintf(at(s, i) * factor);
    return largest / levels;
}

/* The range, widened to hold 0, in 15 steps; in double, where the range of any two floats fits. */
static float quantise_from_zero(const span *s, int8_t *q, int8_t *zero)
{
    float low = 0, high = 0;
    for (int64_t i = 0; i < s->n; i++) {
        low = fminf(low, at(s, i));
        high = fmaxf(high, at(s, i));
    }
    const float scale = (float)(((double)high - low) / 15);
    *zero = scale == 0 ? 0 : (int8_t)fminf(rintf(-low / scale), 15);
    for (int64_t i = 0; i < s->n; i++)
        q[i] = scale == 0 ? 0 : (int8_t)fmaxf(0, fminf(15, rintf(at(s, i) / scale) + (float)*zero));
    return scale;
}

float tsr_quantise_row(const void *x, tsr_dtype dtype, int64_t stride, int64_t n, int8_t *q)
{
    return quantise(&(span){x, dtype, stride, n}, 127, q);
}

static void copy_row(const tsr_weight_layout *layout, const tsr_weight_source *src, int64_t row, int8_t *q,
                     float *scales, int8_t *zeros)
{
    const int8_t *values = tsr_tensor_at(&src->values, row * src->values.stride[0]);
    for (int64_t p = 0; p < layout->k; p++) q[p] = values[p * src->values.stride[1]];
    const tsr_tensor *s = &src->scales, *z = &src->zeros;
    for (int64_t g = 0, n = tsr_weight_n_groups(layout); g < n; g++) {
        scales[g] = *(const float *)tsr_tensor_at(s, row * s->stride[0] + g * s->stride[1]);
        if (zeros != NULL)
            zeros[g] = *(const int8_t *)tsr_tensor_at(z, row * z->stride[0] + g * z->stride[1]);
    }
}

void tsr_weight_quantise_row(const tsr_weight_layout *layout, const tsr_weight_source *src, int64_t row,
                             int8_t *q, float *scales, int8_t *zeros)
{
    const tsr_tensor *values = &src->values;
    if (values->dtype == TSR_S8) {
        copy_row(layout, src, row, q, scales, zeros);
        return;
    }
    const int64_t n_groups = tsr_weight_n_groups(layout);
    const int64_t length = n_groups > 0 ? layout->k / n_groups : 0;
    for (int64_t g = 0; g < n_groups; g++) {
        const int64_t first = row * values->stride[0] + g * length * values->stride[1];
        const span s = {tsr_tensor_at(values, first), values->dtype, values->stride[1], length};
        int8_t *group = q + g * length;
        if (layout->format == TSR_WEIGHT_INT4_ZERO)
            scales[g] = quantise_from_zero(&s, group, &zeros[g]);
        else
            scales[g] = quantise(&s, layout->format == TSR_WEIGHT_INT8 ? 127 : 7, group);
    }
}
