/* op/softmax.c - softmax over the last dimension, and its backward */
#include "tessera/softmax.h"

#include "op/validate.h"

static tsr_status softmax_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y)
{
    TSR_TRY(tsr_check_tensor(ctx, x, "x", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, y, "y", x, "x"));
    const tsr_output outputs[] = {{y, "y", {x}}};
    const tsr_input inputs[] = {{x, "x"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_softmax_fwd(ctx, &(tsr_softmax_fwd_args){.x = *x, .y = *y}, NULL);
}

tsr_status tsr_softmax_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *y)
{
    return tsr_within("softmax_fwd", softmax_fwd(ctx, x, y));
}

static tsr_status softmax_bwd(tsr_context *ctx, const tsr_tensor *y, const tsr_tensor *dy,
                              const tsr_tensor *dx)
{
    TSR_TRY(tsr_check_tensor(ctx, y, "y", TSR_IN_FLOATS, 1, TSR_MAX_RANK));
    TSR_TRY(tsr_check_like(ctx, dy, "dy", y, "y"));
    TSR_TRY(tsr_check_like(ctx, dx, "dx", y, "y"));
    const tsr_output outputs[] = {{dx, "dx", {dy}}};
    const tsr_input inputs[] = {{y, "y"}, {dy, "dy"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_softmax_bwd(ctx, &(tsr_softmax_bwd_args){.y = *y, .dy = *dy, .dx = *dx}, NULL);
}

tsr_status tsr_softmax_bwd(tsr_context *ctx, const tsr_tensor *y, const tsr_tensor *dy, const tsr_tensor *dx)
{
    return tsr_within("softmax_bwd", softmax_bwd(ctx, y, dy, dx));
}
