/* backend/indices.c - checks of ids, lengths and positions */
#include "backend/indices.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/tensor.h"

/* "[2, 3]": where entry number i of a view lies. */
static tsr_shape_text position_of(const tsr_tensor *t, int64_t i)
{
    tsr_tensor at = {.rank = t->rank};
    for (int32_t d = t->rank - 1; d >= 0; d--) {
        at.shape[d] = i % t->shape[d];
        i /= t->shape[d];
    }
    return tsr_shape_of(&at);
}

tsr_status tsr_check_ids(const tsr_tensor *ids, int64_t n, const int32_t *exempt, const char *name)
{
    const int64_t count = tsr_tensor_numel(ids);
    for (int64_t i = 0; i < count; i++) {
        int64_t offset = 0, rest = i;
        for (int32_t d = ids->rank - 1; d >= 0; d--) {
            offset += rest % ids->shape[d] * ids->stride[d];
            rest /= ids->shape[d];
        }
        const int32_t id = ((const int32_t *)ids->data)[offset];
        if ((id >= 0 && id < n) || (exempt != NULL && id == *exempt)) continue;
        return tsr_fail(TSR_ERR_INDEX, "%s%s is %" PRId32 ", must be 0 to %" PRId64, name,
                        position_of(ids, i).text, id, n - 1);
    }
    return TSR_OK;
}

static tsr_status check_lengths(const tsr_tensor *lengths, int64_t longest, const char *name)
{
    if (lengths->data == NULL) return TSR_OK;
    for (int64_t b = 0; b < lengths->shape[0]; b++) {
        const int32_t length = tsr_index_at(lengths, b);
        if (length < 0 || length > longest)
            return tsr_fail(TSR_ERR_INDEX, "%s[%" PRId64 "] is %" PRId32 ", must be 0 to %" PRId64, name, b,
                            length, longest);
    }
    return TSR_OK;
}

static tsr_status check_starts(const tsr_tensor *starts, int64_t total, int64_t longest, const char *name)
{
    const int64_t last = starts->shape[0] - 1;
    if (tsr_index_at(starts, 0) != 0)
        return tsr_fail(TSR_ERR_INDEX, "%s[0] is %" PRId32 ", must be 0", name, tsr_index_at(starts, 0));
    for (int64_t b = 0; b < last; b++) {
        const int64_t from = tsr_index_at(starts, b), to = tsr_index_at(starts, b + 1);
        if (to < from)
            return tsr_fail(TSR_ERR_INDEX,
                            "%s[%" PRId64 "] is %" PRId64 ", must not be below the one before, %" PRId64,
                            name, b + 1, to, from);
        if (to - from > longest)
            return tsr_fail(TSR_ERR_INDEX,
                            "%s[%" PRId64 "] is %" PRId64 ", must be %" PRId64 " to %" PRId64
                            " (a sequence has at most %" PRId64 " rows)",
                            name, b + 1, to, from, from + longest, longest);
    }
    if (tsr_index_at(starts, last) != total)
        return tsr_fail(TSR_ERR_INDEX, "%s[%" PRId64 "] is %" PRId32 ", must be the number of rows, %" PRId64,
                        name, last, tsr_index_at(starts, last), total);
    return TSR_OK;
}

static tsr_status check_pages(const tsr_attention_fwd_args *args)
{
    const tsr_tensor *table = &args->block_table;
    const int64_t page = args->k.shape[2], n_pages = args->k.shape[0];
    for (int64_t b = 0; b < args->b; b++)
        for (int64_t i = 0; i * page < tsr_index_at(&args->seqlens_k, b); i++) {
            const int32_t entry = tsr_page_at(table, b, i);
            if (entry >= 0 && entry < n_pages) continue;
            return tsr_fail(TSR_ERR_INDEX,
                            "block_table[%" PRId64 ", %" PRId64 "] is %" PRId32 ", must be 0 to %" PRId64, b,
                            i, entry, n_pages - 1);
        }
    return TSR_OK;
}

tsr_status tsr_check_attention_lengths(const tsr_attention_fwd_args *args)
{
    if (args->cu_seqlens_q.data != NULL)
        TSR_TRY(check_starts(&args->cu_seqlens_q, args->q.shape[2], args->lq, "cu_seqlens_q"));
    if (args->cu_seqlens_k.data != NULL)
        return check_starts(&args->cu_seqlens_k, args->k.shape[2], args->lk, "cu_seqlens_k");
    TSR_TRY(check_lengths(&args->seqlens_q, args->lq, "seqlens_q"));
    TSR_TRY(check_lengths(&args->seqlens_k, args->lk, "seqlens_k"));
    return args->block_table.data != NULL ? check_pages(args) : TSR_OK;
}

tsr_status tsr_check_kv_append(const tsr_kv_append_args *args)
{
    const int64_t l = args->x.shape[2], capacity = args->cache.shape[2];
    TSR_TRY(check_lengths(&args->lengths, l, "lengths"));
    for (int64_t b = 0; b < args->x.shape[0]; b++) {
        const int64_t length = args->lengths.data != NULL ? tsr_index_at(&args->lengths, b) : l;
        const int64_t start = tsr_index_at(&args->start, b);
        if (start < 0 || start > capacity - length)
            return tsr_fail(TSR_ERR_INDEX,
                            "start[%" PRId64 "] is %" PRId64 ", must be 0 to %" PRId64 " (%" PRId64
                            " rows into a cache of %" PRId64 ")",
                            b, start, capacity - length, length, capacity);
    }
    return TSR_OK;
}
