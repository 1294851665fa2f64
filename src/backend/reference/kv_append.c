/* backend/reference/kv_append.c - cache[b, :, start[b] + i, :] = x[b, :, i, :] for i < lengths[b] */
#include "backend/indices.h"
#include "backend/reference/reference.h"
#include "base/error.h"

tsr_status ref_kv_append(void *state, const tsr_kv_append_args *args, void *workspace)
{
    (void)state, (void)workspace;
    TSR_TRY(tsr_check_kv_append(args));
    const tsr_tensor *x = &args->x, *cache = &args->cache;
    for (int64_t b = 0; b < x->shape[0]; b++) {
        const int64_t start = tsr_index_at(&args->start, b);
        const int64_t length = args->lengths.data != NULL ? tsr_index_at(&args->lengths, b) : x->shape[2];
        for (int64_t h = 0; h < x->shape[1]; h++)
            for (int64_t i = 0; i < length; i++)
                for (int64_t c = 0; c < x->shape[3]; c++)
                    ref_set(cache, tsr_tensor_offset(cache, (int64_t[]){b, h, start + i, c}),
                            ref_get(x, tsr_tensor_offset(x, (int64_t[]){b, h, i, c})));
    }
    return TSR_OK;
}
