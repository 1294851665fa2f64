/* base/tensor.c - views: shapes, strides, and which bytes they touch */
#include "base/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static const struct {
    const char *name;
    size_t nbytes;
} dtypes[TSR_DTYPE_COUNT] = {
    [TSR_F32] = {"f32", 4}, [TSR_F64] = {"f64", 8}, [TSR_BF16] = {"bf16", 2}, [TSR_F16] = {"f16", 2},
    [TSR_S8] = {"s8", 1},   [TSR_I32] = {"i32", 4}, [TSR_I64] = {"i64", 8},   [TSR_BOOL] = {"bool", 1},
};

static bool is_dtype(tsr_dtype dtype) { return (unsigned)dtype < TSR_DTYPE_COUNT; }

size_t tsr_dtype_nbytes(tsr_dtype dtype) { return is_dtype(dtype) ? dtypes[dtype].nbytes : 0; }
const char *tsr_dtype_name(tsr_dtype dtype) { return is_dtype(dtype) ? dtypes[dtype].name : "invalid"; }

static tsr_tensor row_major(void *data, tsr_dtype dtype, int32_t rank, const int64_t *shape)
{
    tsr_tensor t = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        /* A shape whose product overflows keeps a harmless stride: validation refuses it by its extents. */
        if (tsr_mul_overflows(stride, shape[i] > 0 ? shape[i] : 1, &stride)) stride = INT64_MAX;
    }
    return t;
}

tsr_tensor tsr_tensor_1d(void *data, tsr_dtype dtype, int64_t n0)
{
    return row_major(data, dtype, 1, (const int64_t[]){n0});
}
tsr_tensor tsr_tensor_2d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1)
{
    return row_major(data, dtype, 2, (const int64_t[]){n0, n1});
}
tsr_tensor tsr_tensor_3d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1, int64_t n2)
{
    return row_major(data, dtype, 3, (const int64_t[]){n0, n1, n2});
}
tsr_tensor tsr_tensor_4d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
    return row_major(data, dtype, 4, (const int64_t[]){n0, n1, n2, n3});
}

/* An empty view's other extents may be of any size: their product is never formed. */
static bool is_empty(const tsr_tensor *t)
{
    for (int32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0) return true;
    return false;
}

int64_t tsr_tensor_numel(const tsr_tensor *t)
{
    if (is_empty(t)) return 0;
    int64_t n = 1;
    for (int32_t i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

int tsr_tensor_is_contiguous(const tsr_tensor *t)
{
    if (is_empty(t)) return 1;
    int64_t expected = 1;
    for (int32_t i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != expected) return 0;
        expected *= t->shape[i];
    }
    return 1;
}

tsr_tensor tsr_tensor_transpose(const tsr_tensor *t, int32_t i, int32_t j)
{
    tsr_tensor r = *t;
    r.shape[i] = t->shape[j], r.stride[i] = t->stride[j];
    r.shape[j] = t->shape[i], r.stride[j] = t->stride[i];
    return r;
}

tsr_tensor tsr_tensor_slice(const tsr_tensor *t, int32_t dim, int64_t start, int64_t length)
{
    tsr_tensor r = *t;
    r.data = tsr_tensor_at(t, start * t->stride[dim]);
    r.shape[dim] = length;
    return r;
}

/* Walks both shapes from the left, matching groups of old dimensions whose strides chain with groups of
 * new ones of the same product; a group that does not chain cannot be renamed without a copy. */
tsr_status tsr_tensor_reshape(const tsr_tensor *t, int32_t rank, const int64_t *shape, tsr_tensor *out)
{
    if (t == NULL || out == NULL || (shape == NULL && rank > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "reshape: a null pointer was passed");
    if (t->rank < 0 || t->rank > TSR_MAX_RANK)
        return tsr_fail(TSR_ERR_SHAPE, "reshape: t has rank %d, must be 0 to %d", (int)t->rank, TSR_MAX_RANK);
    if (rank < 0 || rank > TSR_MAX_RANK)
        return tsr_fail(TSR_ERR_SHAPE, "reshape: rank is %d, must be 0 to %d", (int)rank, TSR_MAX_RANK);
    int64_t numel = 1;
    for (int32_t i = 0; i < rank; i++)
        if (shape[i] < 0 || tsr_mul_overflows(numel, shape[i], &numel))
            return tsr_fail(TSR_ERR_SHAPE, "reshape: extent %d is %lld", (int)i, (long long)shape[i]);
    if (numel != tsr_tensor_numel(t))
        return tsr_fail(TSR_ERR_SHAPE, "reshape: %s has %lld elements, the new shape %lld",
                        tsr_shape_of(t).text, (long long)tsr_tensor_numel(t), (long long)numel);
    tsr_tensor r = row_major(t->data, t->dtype, rank, shape);
    r.device = t->device;
    if (numel > 0) {
        int32_t i = 0, j = 0;
        while (i < t->rank || j < rank) {
            int64_t old_n = 1, new_n = 1, run_stride = 0, run_n = 1;
            int32_t j_first = j;
            do {
                if (old_n <= new_n && i < t->rank) {
                    if (t->shape[i] != 1) {
                        if (run_n != 1 && run_stride != t->stride[i] * t->shape[i])
                            return tsr_fail(TSR_ERR_SHAPE, "reshape: %s cannot be renamed without a copy",
                                            tsr_shape_of(t).text);
                        run_stride = t->stride[i], run_n *= t->shape[i];
                    }
                    old_n *= t->shape[i++];
                } else if (j < rank) {
                    new_n *= shape[j++];
                } else {
                    break;
                }
            } while (old_n != new_n);
            while (i < t->rank && t->shape[i] == 1) i++;
            while (j < rank && shape[j] == 1) j++;
            for (int32_t d = j - 1; d >= j_first; d--) {
                r.stride[d] = run_stride;
                run_stride *= shape[d];
            }
        }
    }
    *out = r;
    return TSR_OK;
}

tsr_shape_text tsr_shape_of(const tsr_tensor *t)
{
    tsr_shape_text s = {{'['}};
    size_t n = 1;
    for (int32_t i = 0; i < t->rank && i < TSR_MAX_RANK; i++)
        n += (size_t)snprintf(s.text + n, sizeof s.text - n, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    snprintf(s.text + n, sizeof s.text - n, "]");
    return s;
}

tsr_status tsr_tensor_validate(const tsr_tensor *t, const char *name)
{
    if (t == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "%s is NULL", name);
    if (t->rank < 0 || t->rank > TSR_MAX_RANK)
        return tsr_fail(TSR_ERR_SHAPE, "%s has rank %d, must be 0 to %d", name, (int)t->rank, TSR_MAX_RANK);
    if (!is_dtype(t->dtype))
        return tsr_fail(TSR_ERR_DTYPE, "%s has an unknown dtype (%d)", name, (int)t->dtype);
    int64_t numel = 1, low = 0, high = 0;
    bool empty = false;
    for (int32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] < 0)
            return tsr_fail(TSR_ERR_SHAPE, "%s has a negative extent: %s", name, tsr_shape_of(t).text);
        empty |= t->shape[i] == 0;
    }
    for (int32_t i = 0; i < t->rank && !empty; i++) {
        int64_t span;
        if (tsr_mul_overflows(numel, t->shape[i], &numel) ||
            tsr_mul_overflows(t->shape[i] - 1, t->stride[i], &span) ||
            tsr_add_overflows(span < 0 ? low : high, span, span < 0 ? &low : &high))
            return tsr_fail(TSR_ERR_OVERFLOW, "%s is too large: %s", name, tsr_shape_of(t).text);
    }
    const int64_t nbytes = (int64_t)dtypes[t->dtype].nbytes;
    if (tsr_mul_overflows(numel, nbytes, &numel) || tsr_mul_overflows(low, nbytes, &low) ||
        tsr_mul_overflows(high, nbytes, &high))
        return tsr_fail(TSR_ERR_OVERFLOW, "%s is too large: %s", name, tsr_shape_of(t).text);
    if (t->data == NULL && !empty) return tsr_fail(TSR_ERR_ARGUMENT, "%s has no data (a null pointer)", name);
    return TSR_OK;
}

void tsr_tensor_extent(const tsr_tensor *t, uintptr_t *low, uintptr_t *high)
{
    int64_t first = 0, last = 0;
    *low = *high = (uintptr_t)t->data;
    for (int32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) return;
        const int64_t span = (t->shape[i] - 1) * t->stride[i];
        if (span < 0)
            first += span;
        else
            last += span;
    }
    const int64_t nbytes = (int64_t)dtypes[t->dtype].nbytes;
    *low = (uintptr_t)((intptr_t)t->data + first * nbytes);
    *high = (uintptr_t)((intptr_t)t->data + (last + 1) * nbytes);
}

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* Dimensions with more than one element, largest stride first. */
static int32_t sorted_dims(const tsr_tensor *t, int64_t *shape, int64_t *stride)
{
    int32_t n = 0;
    for (int32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 1) continue;
        const int64_t s = magnitude(t->stride[i]);
        int32_t at = n++;
        for (; at > 0 && stride[at - 1] < s; at--) shape[at] = shape[at - 1], stride[at] = stride[at - 1];
        shape[at] = t->shape[i], stride[at] = s;
    }
    return n;
}

bool tsr_tensor_self_overlap(const tsr_tensor *t)
{
    int64_t shape[TSR_MAX_RANK], stride[TSR_MAX_RANK];
    if (is_empty(t)) return false;
    const int32_t n = sorted_dims(t, shape, stride);
    int64_t inner_span = 0; /* of all smaller dimensions together */
    for (int32_t i = n - 1; i >= 0; i--) {
        if (stride[i] <= inner_span) return true;
        inner_span += (shape[i] - 1) * stride[i];
    }
    return false;
}

/* The bytes from a multiple of `period` on that elements of t begin to touch, if all strides that are
 * multiples of it are left out: these come back to the same places. */
static int64_t places_nbytes(const tsr_tensor *t, int64_t period)
{
    int64_t n = (int64_t)dtypes[t->dtype].nbytes;
    for (int32_t i = 0; i < t->rank; i++) {
        const int64_t stride = magnitude(t->stride[i]) * (int64_t)dtypes[t->dtype].nbytes;
        if (t->shape[i] > 1 && stride % period != 0) n += (t->shape[i] - 1) * stride;
    }
    return n;
}

/*
 * Views that lie between each other, such as two groups of columns of one matrix. Seen modulo a stride, the
 * dimensions whose strides are multiples of it stand still; if what the others span keeps apart there, no
 * element is shared. a_low, b_low: first bytes.
 */
static bool keep_apart_modulo(const tsr_tensor *a, uintptr_t a_low, const tsr_tensor *b, uintptr_t b_low,
                              int64_t period)
{
    int64_t place = (int64_t)(b_low - a_low) % period;
    if (place < 0) place += period;
    return place >= places_nbytes(a, period) && place <= period - places_nbytes(b, period);
}

static bool is_interleaved(const tsr_tensor *a, uintptr_t a_low, const tsr_tensor *b, uintptr_t b_low)
{
    const tsr_tensor *const of[2] = {a, b};
    for (int v = 0; v < 2; v++)
        for (int32_t i = 0; i < of[v]->rank; i++) {
            if (of[v]->shape[i] < 2 || of[v]->stride[i] == 0) continue;
            const int64_t period = magnitude(of[v]->stride[i]) * (int64_t)dtypes[of[v]->dtype].nbytes;
            if (keep_apart_modulo(a, a_low, b, b_low, period)) return true;
        }
    return false;
}

bool tsr_tensor_overlap(const tsr_tensor *a, const tsr_tensor *b)
{
    if (is_empty(a) || is_empty(b)) return false;
    uintptr_t a_low, a_high, b_low, b_high;
    tsr_tensor_extent(a, &a_low, &a_high);
    tsr_tensor_extent(b, &b_low, &b_high);
    return a_low < b_high && b_low < a_high && !is_interleaved(a, a_low, b, b_low);
}

bool tsr_tensor_same_shape(const tsr_tensor *a, const tsr_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0;
}

bool tsr_tensor_same(const tsr_tensor *a, const tsr_tensor *b)
{
    if (a->data != b->data || a->dtype != b->dtype || !tsr_tensor_same_shape(a, b)) return false;
    for (int32_t i = 0; i < a->rank; i++)
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}
