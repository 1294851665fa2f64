/*
 * tests/kit/linear.h - random cases of linear, what they must give, and how far from it f32 may end
 *
 * The truth is loops in double that quantise by themselves, as tessera/linear.h says, so that integers are
 * the same and the bound is that of what happens in f32: the sums of a weight as it is; of a quantised one,
 * whose sums of integers are exact, a few roundings for each group; then bias, activation, gate, residual.
 */
#ifndef TSR_KIT_LINEAR_H
#define TSR_KIT_LINEAR_H

#include "kit/compare.h"
#include "kit/tensor.h"
#include "tessera/linear.h"

/* One call: data NULL is absent. */
typedef struct kit_linear {
    int64_t m, n, k;
    bool plain, gated;
    tsr_weight_options format;
    tsr_weight_source w, gate;
    tsr_tensor x, y, bias, gate_bias, residual;
    tsr_activation activation;
    float scale, y_scale;
} kit_linear;

/* What a case is; given: its weight comes as integers. */
typedef struct kit_linear_kind {
    bool plain, gated, given;
    tsr_weight_format format;
    tsr_dtype x, w, y;
} kit_linear_kind;

extern const char *const kit_linear_formats[];
static inline bool kit_linear_in_groups(tsr_weight_format format)
{
    return format == TSR_WEIGHT_INT4 || format == TSR_WEIGHT_INT4_ZERO;
}

/* Every format, x and y's types, gated and not; a weight of 16 bits under an x of f32 too. */
void kit_linear_for_each_kind(tsr_context *ctx, void (*fn)(tsr_context *ctx, const kit_linear_kind *what));

/* A case of these extents; the rest is random. group 0: not in groups. */
kit_linear kit_linear_random(const kit_linear_kind *what, int64_t m, int64_t n, int64_t k, int64_t group);

/* What y must be, in double and not rounded to its type, and a bound that holds for all of it. */
tsr_tensor kit_linear_expected(const kit_linear *l, kit_bound *bound);

/* The packed weight; the call with other rows (weight NULL where plain); both. Errors fail the test. */
tsr_weight *kit_linear_pack(tsr_context *ctx, const kit_linear *l);
tsr_status kit_linear_run_into(tsr_context *ctx, const kit_linear *l, const tsr_weight *weight,
                               const tsr_tensor *x, const tsr_tensor *residual, const tsr_tensor *y);
void kit_linear_run(tsr_context *ctx, const kit_linear *l);

static inline const tsr_tensor *kit_linear_or_null(const tsr_tensor *t) { return t->data != NULL ? t : NULL; }

/* One line that says which case it is. */
typedef struct kit_linear_line {
    char text[320];
} kit_linear_line;
kit_linear_line kit_linear_describe(const kit_linear *l);

#endif
