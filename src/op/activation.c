/* op/activation.c - pointwise activations and the gated product */
#include "tessera/activation.h"

#include "op/validate.h"

static tsr_status check_activation(tsr_activation activation)
{
    if ((unsigned)activation <= TSR_ACTIVATION_SILU) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "activation is %d, must be 0 to %d", (int)activation,
                    TSR_ACTIVATION_SILU);
}

static tsr_status activation_fwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                                 const tsr_tensor *y)
{
    TSR_TRY(check_activation(activation));
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, y, "y", x, "x"));
    const tsr_output outputs[] = {{y, "y", {x}}};
    const tsr_input inputs[] = {{x, "x"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_activation_fwd_args args = {.activation = activation, .x = *x, .y = *y};
    return tsr_call_activation_fwd(ctx, &args, NULL);
}

tsr_status tsr_activation_fwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                              const tsr_tensor *y)
{
    return tsr_within("activation_fwd", activation_fwd(ctx, activation, x, y));
}

static tsr_status activation_bwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                                 const tsr_tensor *dy, const tsr_tensor *dx)
{
    TSR_TRY(check_activation(activation));
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, dy, "dy", x, "x"));
    TSR_TRY(tsr_check_like(ctx, dx, "dx", x, "x"));
    const tsr_output outputs[] = {{dx, "dx", {dy}}};
    const tsr_input inputs[] = {{x, "x"}, {dy, "dy"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_activation_bwd_args args = {.activation = activation, .x = *x, .dy = *dy, .dx = *dx};
    return tsr_call_activation_bwd(ctx, &args, NULL);
}

tsr_status tsr_activation_bwd(tsr_context *ctx, tsr_activation activation, const tsr_tensor *x,
                              const tsr_tensor *dy, const tsr_tensor *dx)
{
    return tsr_within("activation_bwd", activation_bwd(ctx, activation, x, dy, dx));
}

static tsr_status swiglu_fwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up,
                             const tsr_tensor *y)
{
    TSR_TRY(tsr_check_tensor(ctx, gate, "gate", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, up, "up", gate, "gate"));
    TSR_TRY(tsr_check_like(ctx, y, "y", gate, "gate"));
    const tsr_output outputs[] = {{y, "y", {gate, up}}};
    const tsr_input inputs[] = {{gate, "gate"}, {up, "up"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_swiglu_fwd(ctx, &(tsr_swiglu_fwd_args){.gate = *gate, .up = *up, .y = *y}, NULL);
}

tsr_status tsr_swiglu_fwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up, const tsr_tensor *y)
{
    return tsr_within("swiglu_fwd", swiglu_fwd(ctx, gate, up, y));
}

static tsr_status swiglu_bwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up,
                             const tsr_tensor *dy, const tsr_tensor *dgate, const tsr_tensor *dup)
{
    TSR_TRY(tsr_check_tensor(ctx, gate, "gate", TSR_IN_FLOATS, 0, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, up, "up", gate, "gate"));
    TSR_TRY(tsr_check_like(ctx, dy, "dy", gate, "gate"));
    TSR_TRY(tsr_check_like(ctx, dgate, "dgate", gate, "gate"));
    TSR_TRY(tsr_check_like(ctx, dup, "dup", gate, "gate"));
    const tsr_output outputs[] = {{dgate, "dgate", {gate}}, {dup, "dup", {up}}};
    const tsr_input inputs[] = {{gate, "gate"}, {up, "up"}, {dy, "dy"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_swiglu_bwd_args args = {.gate = *gate, .up = *up, .dy = *dy, .dgate = *dgate, .dup = *dup};
    return tsr_call_swiglu_bwd(ctx, &args, NULL);
}

tsr_status tsr_swiglu_bwd(tsr_context *ctx, const tsr_tensor *gate, const tsr_tensor *up,
                          const tsr_tensor *dy, const tsr_tensor *dgate, const tsr_tensor *dup)
{
    return tsr_within("swiglu_bwd", swiglu_bwd(ctx, gate, up, dy, dgate, dup));
}
