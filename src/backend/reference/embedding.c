/* backend/reference/embedding.c - out[i, :] = table[ids[i], :], and the sum of rows that is its gradient */
#include "backend/indices.h"
#include "backend/reference/reference.h"
#include "base/error.h"

static int64_t id_at(const tsr_tensor *ids, int64_t i) { return (int64_t)ref_get_nth(ids, i); }

tsr_status ref_embedding_fwd(void *state, const tsr_embedding_fwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_tensor *table = &args->table, *out = &args->out;
    const int32_t last = out->rank - 1;
    const int64_t n_ids = tsr_tensor_numel(&args->ids), n = table->shape[1];
    TSR_TRY(tsr_check_ids(&args->ids, table->shape[0], NULL, "ids"));
    for (int64_t i = 0; i < n_ids; i++) {
        const int64_t from = id_at(&args->ids, i) * table->stride[0], to = ref_offset(out, last, i);
        for (int64_t j = 0; j < n; j++)
            ref_set(out, to + j * out->stride[last], ref_get(table, from + j * table->stride[1]));
    }
    return TSR_OK;
}

/* The workspace: the double sum of one row of dtable. */
size_t ref_embedding_bwd_workspace(const void *state, const tsr_embedding_bwd_args *args)
{
    (void)state;
    const size_t n = (size_t)args->dtable.shape[1];
    return n > SIZE_MAX / sizeof(double) ? SIZE_MAX : n * sizeof(double);
}

tsr_status ref_embedding_bwd(void *state, const tsr_embedding_bwd_args *args, void *workspace)
{
    (void)state;
    const tsr_tensor *dout = &args->dout, *dtable = &args->dtable;
    const int32_t last = dout->rank - 1;
    const int64_t n_ids = tsr_tensor_numel(&args->ids), n = dtable->shape[1];
    double *sum = workspace;
    TSR_TRY(tsr_check_ids(&args->ids, dtable->shape[0], NULL, "ids"));
    for (int64_t v = 0; v < dtable->shape[0]; v++) {
        const int64_t to = v * dtable->stride[0];
        for (int64_t j = 0; j < n; j++)
            sum[j] = args->accumulate ? ref_get(dtable, to + j * dtable->stride[1]) : 0;
        for (int64_t i = 0; i < n_ids; i++) {
            if (id_at(&args->ids, i) != v) continue;
            const int64_t from = ref_offset(dout, last, i);
            for (int64_t j = 0; j < n; j++) sum[j] += ref_get(dout, from + j * dout->stride[last]);
        }
        for (int64_t j = 0; j < n; j++) ref_set(dtable, to + j * dtable->stride[1], sum[j]);
    }
    return TSR_OK;
}
