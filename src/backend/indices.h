/*
 * backend/indices.h - ids, lengths and positions, checked before an operator writes anything
 *
 * They are data, which only the operator may read; these checks serve every backend in the host's memory.
 * All return TSR_ERR_INDEX with a message that names the entry, its value and the range.
 */
#ifndef TSR_BACKEND_INDICES_H
#define TSR_BACKEND_INDICES_H

#include "backend/args.h"

/* Entry i of a 1-D i32 view. */
static inline int32_t tsr_index_at(const tsr_tensor *t, int64_t i)
{
    return ((const int32_t *)t->data)[i * t->stride[0]];
}

/* Entry i of a sequence in a block table [B, n]. */
static inline int32_t tsr_page_at(const tsr_tensor *table, int64_t b, int64_t i)
{
    return ((const int32_t *)table->data)[b * table->stride[0] + i * table->stride[1]];
}

/* Every entry in [0, n), or equal to *exempt where that is not NULL. `name`: "ids". */
tsr_status tsr_check_ids(const tsr_tensor *ids, int64_t n, const int32_t *exempt, const char *name);

/*
 * seqlens within lq and lk; cu_seqlens from 0 up to the number of packed rows, no sequence above lq or lk;
 * every page that a sequence uses one of the pool's.
 */
tsr_status tsr_check_attention_lengths(const tsr_attention_fwd_args *args);

/* start[b] >= 0, 0 <= lengths[b] <= L, and the last row inside the cache. */
tsr_status tsr_check_kv_append(const tsr_kv_append_args *args);

#endif
