/*
 * backend/reference/activation.c - relu, gelu (erf, tanh), silu, swiglu, and their derivatives
 *
 * A NaN passes through all of them; what relu cuts off has gradient 0, even where dy is Inf.
 */
#include <math.h>

#include "backend/reference/reference.h"

static const double sqrt_half = 0.70710678118654752440, inv_sqrt_2pi = 0.39894228040143267794;
static const double sqrt_2_over_pi = 0.79788456080286535588, cubic = 0.044715;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double silu(double x) { return x * sigmoid(x); }
static double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

double ref_activate(tsr_activation activation, double x)
{
    switch (activation) {
    case TSR_ACTIVATION_NONE: break;
    case TSR_ACTIVATION_RELU: return x < 0 ? 0 : x;
    case TSR_ACTIVATION_GELU: return x / 2 * (1 + erf(x * sqrt_half));
    case TSR_ACTIVATION_GELU_TANH: return x / 2 * (1 + tanh(sqrt_2_over_pi * (x + cubic * x * x * x)));
    case TSR_ACTIVATION_SILU: return silu(x);
    }
    return x;
}

static double slope_of(tsr_activation activation, double x)
{
    switch (activation) {
    case TSR_ACTIVATION_NONE:
    case TSR_ACTIVATION_RELU: break;
    case TSR_ACTIVATION_GELU: return (1 + erf(x * sqrt_half)) / 2 + x * inv_sqrt_2pi * exp(-x * x / 2);
    case TSR_ACTIVATION_GELU_TANH: {
        const double t = tanh(sqrt_2_over_pi * (x + cubic * x * x * x));
        return (1 + t) / 2 + x / 2 * (1 - t * t) * sqrt_2_over_pi * (1 + 3 * cubic * x * x);
    }
    case TSR_ACTIVATION_SILU: return silu_slope(x);
    }
    return 1;
}

tsr_status ref_activation_fwd(void *state, const tsr_activation_fwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *x = &args->x, *y = &args->y;
    const int64_t n = tsr_tensor_numel(x);
    for (int64_t i = 0; i < n; i++) ref_set_nth(y, i, ref_activate(args->activation, ref_get_nth(x, i)));
    return TSR_OK;
}

tsr_status ref_activation_bwd(void *state, const tsr_activation_bwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->x);
    for (int64_t i = 0; i < n; i++) {
        const double x = ref_get_nth(&args->x, i), dy = ref_get_nth(&args->dy, i);
        const bool cut_off = args->activation == TSR_ACTIVATION_RELU && x <= 0;
        ref_set_nth(&args->dx, i, cut_off ? 0 : dy * slope_of(args->activation, x));
    }
    return TSR_OK;
}

tsr_status ref_swiglu_fwd(void *state, const tsr_swiglu_fwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->y);
    for (int64_t i = 0; i < n; i++)
        ref_set_nth(&args->y, i, silu(ref_get_nth(&args->gate, i)) * ref_get_nth(&args->up, i));
    return TSR_OK;
}

tsr_status ref_swiglu_bwd(void *state, const tsr_swiglu_bwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = tsr_tensor_numel(&args->dy);
    for (int64_t i = 0; i < n; i++) {
        const double gate = ref_get_nth(&args->gate, i), up = ref_get_nth(&args->up, i);
        const double dy = ref_get_nth(&args->dy, i);
        if (args->dgate.data != NULL) ref_set_nth(&args->dgate, i, dy * up * silu_slope(gate));
        if (args->dup.data != NULL) ref_set_nth(&args->dup, i, dy * silu(gate));
    }
    return TSR_OK;
}
