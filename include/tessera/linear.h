/*
 * tessera/linear.h - y = x W^T with a weight that is packed once and used often
 *
 *     y = activation(scale * x W^T + bias) + residual          x [m, k]  W [n, k]  y [m, n]
 *     y = activation(scale * x G^T + gate_bias) * (scale * x W^T + bias) + residual
 *
 * the second where the weight is gated by G [n, k].
 *
 * All of it happens as a result is stored: no intermediate reaches memory. Bitwise equal for any number of
 * threads, and a row's result does not depend on m.
 *
 * A packed weight holds W in the order in which kernels read it: as it is (f32, bf16, f16), or quantised:
 *
 *     INT8         w = scale[n] * q                     q in -127 .. 127 (-128 is taken)
 *     INT4         w = scale[n, g] * q                  q in -8 .. 7
 *     INT4_ZERO    w = scale[n, g] * (q - zero[n, g])   q and zero in 0 .. 15
 *
 * with one scale a channel, or one a group of 32, 64 or 128 along k.
 *
 * Activations that meet a quantised weight are quantised as they are packed, row by row:
 *     s = max |x| / 127      q = x * (127 / max |x|), rounded to nearest even       (all in f32)
 * and the product of integers is exact within a channel or group. A row that holds a NaN or an infinity gives
 * NaN throughout. (Dettmers et al., 2022, "LLM.int8()"; Frantar et al., 2022, "GPTQ".)
 *
 * Packed weights serve inference; training multiplies plain ones (gemm.h, tape_ops.h), which have a backward.
 */
#ifndef TESSERA_LINEAR_H
#define TESSERA_LINEAR_H

#include "tessera/activation.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_weight_format {
    TSR_WEIGHT_AS_IS = 0,
    TSR_WEIGHT_INT8,
    TSR_WEIGHT_INT4,
    TSR_WEIGHT_INT4_ZERO
} tsr_weight_format;

typedef struct tsr_weight_options {
    tsr_weight_format format;
    int64_t group; /* INT4: 32, 64 or 128, which must divide k; 0 means 32 */
} tsr_weight_options;

/*
 * values [n, k], any strides. f32, bf16 or f16: packed as they are, or quantised here (INT8: scale = max |w|
 * / 127 of the channel; INT4: max |w| / 7 of the group; INT4_ZERO: from the least to the greatest, 0 among
 * them). s8: already quantised, then scales are given: INT8 [n] f32, INT4 [n, k / group] f32, INT4_ZERO also
 * zeros [n, k / group] s8. A tensor whose data is NULL is absent.
 */
typedef struct tsr_weight_source {
    tsr_tensor values, scales, zeros;
} tsr_weight_source;

typedef struct tsr_weight tsr_weight;

/*
 * gate: NULL, or G of the same shape and type, packed between W's columns. options NULL = as it is. The
 * weight lives in memory of the context's device and works with contexts of the same backend and instruction
 * set (TSR_ERR_ARGUMENT otherwise); destroy it before the context that made it. f64 is packed by the
 * reference backend alone. TSR_ERR_SHAPE, _DTYPE, _DEVICE, _ARGUMENT, _MEMORY, _OVERFLOW; TSR_ERR_ARGUMENT
 * names the first value that is out of its range or not finite.
 */
TSR_API tsr_status tsr_weight_create(tsr_context *ctx, const tsr_weight_source *w,
                                     const tsr_weight_source *gate, const tsr_weight_options *options,
                                     tsr_weight **out);
/* NULL is allowed. On a context that is serving a call nothing is freed. */
TSR_API void tsr_weight_destroy(tsr_context *ctx, tsr_weight *weight);

/* Bytes of the packed form: what a product with one row reads. */
TSR_API size_t tsr_weight_nbytes(const tsr_weight *weight);

/* All-zero is the plain product. */
typedef struct tsr_linear_options {
    const tsr_tensor *bias, *gate_bias; /* [n], f32 or y's type (y of s8: f32); NULL = none */
    tsr_activation activation;
    const tsr_tensor *residual; /* [m, n], y's type (y of s8: f32); may be y; NULL = none */
    float scale;                /* 0 means 1 */
    float y_scale;              /* y of s8: what 1 stands for, y = result / y_scale, rounded and clamped to
                                   -128 .. 127; 0 means 1 */
} tsr_linear_options;

/*
 * x [m, k], f32, bf16 or f16; a weight that was packed as it is has x's type, or is of 16 bits and x is f32.
 * y [m, n], x's type, f32 or s8. Any strides. options NULL = all-zero.
 * TSR_ERR_ARGUMENT, _SHAPE, _DTYPE, _DEVICE, _OVERLAP, _WORKSPACE; y untouched.
 */
TSR_API tsr_status tsr_linear_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                                  const tsr_linear_options *options, const tsr_tensor *y,
                                  const tsr_workspace *ws);
TSR_API tsr_status tsr_linear_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                                        const tsr_linear_options *options, const tsr_tensor *y, size_t *out);

/* The same with a weight [n, k] that lies as a tensor, of x's type: nothing is kept between calls. */
TSR_API tsr_status tsr_linear_plain_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                        const tsr_linear_options *options, const tsr_tensor *y,
                                        const tsr_workspace *ws);
TSR_API tsr_status tsr_linear_plain_workspace(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *w,
                                              const tsr_linear_options *options, const tsr_tensor *y,
                                              size_t *out);

#ifdef __cplusplus
}
#endif
#endif
