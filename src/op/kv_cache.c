/* op/kv_cache.c - rows appended to a cache of keys or values */
#include "tessera/kv_cache.h"

#include "op/validate.h"

static tsr_status kv_append(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *start,
                            const tsr_tensor *lengths, const tsr_tensor *cache)
{
    const unsigned floats = TSR_IN_FLOATS;
    TSR_TRY(tsr_check_view(ctx, x, "x", floats, 4, 4));
    TSR_TRY(tsr_check_view(ctx, cache, "cache", floats, 4, 4));
    TSR_TRY(tsr_check_extent(cache, "cache", 0, x->shape[0], "x's"));
    TSR_TRY(tsr_check_extent(cache, "cache", 1, x->shape[1], "x's"));
    TSR_TRY(tsr_check_extent(cache, "cache", 3, x->shape[3], "x's"));
    TSR_TRY(tsr_check_tensor_is(ctx, start, "start", TSR_I32, 1, x->shape, "an entry for each sequence"));
    if (lengths != NULL)
        TSR_TRY(
            tsr_check_tensor_is(ctx, lengths, "lengths", TSR_I32, 1, x->shape, "an entry for each sequence"));
    const tsr_output outputs[] = {{cache, "cache", {NULL}}};
    const tsr_input inputs[] = {{x, "x"}, {start, "start"}, {lengths, "lengths"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    tsr_kv_append_args args = {.x = *x, .start = *start, .cache = *cache};
    if (lengths != NULL) args.lengths = *lengths;
    return tsr_call_kv_append(ctx, &args, NULL);
}

tsr_status tsr_kv_append(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *start,
                         const tsr_tensor *lengths, const tsr_tensor *cache)
{
    return tsr_within("kv_append", kv_append(ctx, x, start, lengths, cache));
}
