/*
 * tessera/tensor.h - a view of an array: data, element type, device, shape, strides
 *
 * A view owns nothing. Any stride is legal: a transpose is a view with two
 * strides exchanged, and a stride of 0 repeats an input along a dimension.
 *
 *     shape [2, 3], stride [3, 1]     shape [3, 2], stride [1, 3]
 *        a b c                           a d
 *        d e f                           b e        the same six elements
 *                                        c f
 */
#ifndef TESSERA_TENSOR_H
#define TESSERA_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "tessera/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TSR_MAX_RANK = 4 };

typedef enum tsr_dtype {
    TSR_F32 = 0,
    TSR_F64, /* computed by the reference backend only: finite differences run on it */
    TSR_BF16,
    TSR_F16,
    TSR_S8,
    TSR_I32,
    TSR_I64,
    TSR_BOOL, /* one byte, 0 or 1 */
    TSR_DTYPE_COUNT
} tsr_dtype;

/* Where data lives. The cpu and reference backends share the host's memory. */
typedef enum tsr_device { TSR_DEVICE_CPU = 0, TSR_DEVICE_CUDA, TSR_DEVICE_FENCED } tsr_device;

typedef struct tsr_tensor {
    void *data;
    tsr_dtype dtype;
    tsr_device device;
    int32_t rank;                 /* 0 (one element) to TSR_MAX_RANK                 */
    int64_t shape[TSR_MAX_RANK];  /* extents; only the first `rank` are read         */
    int64_t stride[TSR_MAX_RANK]; /* in elements, may be 0 or negative               */
} tsr_tensor;

/* Bytes of one element; 0 for a value that is no dtype. */
TSR_API size_t tsr_dtype_nbytes(tsr_dtype dtype);

/* "f32", "bf16" ...; "invalid" for a value that is no dtype. */
TSR_API const char *tsr_dtype_name(tsr_dtype dtype);

/* A row-major view over host memory: the last stride is 1. Extents beyond `rank` are ignored. */
TSR_API tsr_tensor tsr_tensor_1d(void *data, tsr_dtype dtype, int64_t n0);
TSR_API tsr_tensor tsr_tensor_2d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1);
TSR_API tsr_tensor tsr_tensor_3d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1, int64_t n2);
TSR_API tsr_tensor tsr_tensor_4d(void *data, tsr_dtype dtype, int64_t n0, int64_t n1, int64_t n2, int64_t n3);

/* Product of the extents; 1 for rank 0. */
TSR_API int64_t tsr_tensor_numel(const tsr_tensor *t);

/* True if the elements lie in row-major order without gaps. */
TSR_API int tsr_tensor_is_contiguous(const tsr_tensor *t);

/* The same data with dimensions i and j exchanged. */
TSR_API tsr_tensor tsr_tensor_transpose(const tsr_tensor *t, int32_t i, int32_t j);

/* The same data, `length` elements of dimension `dim` from `start`. */
TSR_API tsr_tensor tsr_tensor_slice(const tsr_tensor *t, int32_t dim, int64_t start, int64_t length);

/*
 * The same elements in the same order under another shape. Works for every view whose
 * dimensions can be merged and split without a copy; TSR_ERR_SHAPE otherwise.
 */
TSR_API tsr_status tsr_tensor_reshape(const tsr_tensor *t, int32_t rank, const int64_t *shape,
                                      tsr_tensor *out);

#ifdef __cplusplus
}
#endif
#endif
