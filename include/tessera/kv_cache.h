/*
 * tessera/kv_cache.h - append keys and values to a cache
 */
#ifndef TESSERA_KV_CACHE_H
#define TESSERA_KV_CACHE_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * cache[b, :, start[b] + i, :] = x[b, :, i, :] for i < lengths[b]. x [B, H, L, D], cache [B, H, capacity, D],
 * same dtype or converted; start [B] i32; lengths [B] i32 or NULL = L. TSR_ERR_INDEX if a row does not fit;
 * nothing is then written.
 */
TSR_API tsr_status tsr_kv_append(tsr_context *ctx, const tsr_tensor *x, const tsr_tensor *start,
                                 const tsr_tensor *lengths, const tsr_tensor *cache);

#ifdef __cplusplus
}
#endif
#endif
