/* bench/weight_missing.c - stands in for packed weights (linear.h) until the library has them */
#include "base/error.h"
#include "tessera/linear.h"

tsr_status tsr_weight_create(tsr_context *ctx, const tsr_weight_source *w, const tsr_weight_source *gate,
                             const tsr_weight_options *options, tsr_weight **out)
{
    (void)ctx, (void)w, (void)gate, (void)options, (void)out;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "tsr_weight_create is not in this build");
}

void tsr_weight_destroy(tsr_context *ctx, tsr_weight *weight) { (void)ctx, (void)weight; }

size_t tsr_weight_nbytes(const tsr_weight *weight)
{
    (void)weight;
    return 0;
}

tsr_status tsr_linear_fwd(tsr_context *ctx, const tsr_tensor *x, const tsr_weight *weight,
                          const tsr_linear_options *options, const tsr_tensor *y, const tsr_workspace *ws)
{
    (void)ctx, (void)x, (void)weight, (void)options, (void)y, (void)ws;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "tsr_linear_fwd is not in this build");
}
