/* base/tensor.h - what operators ask of views: sizes, extents in memory, overlap */
#ifndef TSR_BASE_TENSOR_H
#define TSR_BASE_TENSOR_H

#include <stdbool.h>

#include "tessera/tensor.h"

/* Sums and products of sizes that say when they do not fit. */
static inline bool tsr_mul_overflows(int64_t a, int64_t b, int64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}
static inline bool tsr_add_overflows(int64_t a, int64_t b, int64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

/*
 * Rank in range, dtype known, extents >= 0, and every element's offset and the number of
 * elements within 63 bits; data not NULL unless the view is empty. `name` is the
 * argument's name in messages.
 */
tsr_status tsr_tensor_validate(const tsr_tensor *t, const char *name);

/* The bytes [*low, *high) that the view touches, relative to nothing: addresses. Empty: low == high. */
void tsr_tensor_extent(const tsr_tensor *t, uintptr_t *low, uintptr_t *high);

/*
 * True if the views may share an element. Empty views share none, nor do views that lie between each other
 * (groups of columns of one matrix, heads of one row); otherwise compares the spanned bytes.
 */
bool tsr_tensor_overlap(const tsr_tensor *a, const tsr_tensor *b);

/* True if two elements of the view are surely or possibly the same: a stride of 0, or strides that cross. */
bool tsr_tensor_self_overlap(const tsr_tensor *t);

/* Same data, dtype, rank, shape and strides (but for those of a single element, which are never taken). */
bool tsr_tensor_same(const tsr_tensor *a, const tsr_tensor *b);

bool tsr_tensor_same_shape(const tsr_tensor *a, const tsr_tensor *b);

/* "[2, 3, 4]" into a fixed buffer, for messages. */
typedef struct tsr_shape_text {
    char text[96];
} tsr_shape_text;
tsr_shape_text tsr_shape_of(const tsr_tensor *t);

/* Element offset of an index (rank entries). */
static inline int64_t tsr_tensor_offset(const tsr_tensor *t, const int64_t *index)
{
    int64_t offset = 0;
    for (int32_t i = 0; i < t->rank; i++) offset += index[i] * t->stride[i];
    return offset;
}

/* Pointer to the element at `offset` elements from the view's data. */
static inline void *tsr_tensor_at(const tsr_tensor *t, int64_t offset)
{
    return (char *)t->data + offset * (int64_t)tsr_dtype_nbytes(t->dtype);
}

#endif
