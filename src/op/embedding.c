/* op/embedding.c - rows of a table by id, and the gradient of the table */
#include "tessera/embedding.h"

#include <string.h>

#include "op/validate.h"

/* Rows of n numbers, one for each id. */
static tsr_status check_rows(const tsr_context *ctx, const tsr_tensor *rows, const char *name,
                             tsr_dtype dtype, const tsr_tensor *ids, int64_t n)
{
    int64_t shape[TSR_MAX_RANK];
    memcpy(shape, ids->shape, (size_t)ids->rank * sizeof *shape);
    shape[ids->rank] = n;
    return tsr_check_tensor_is(ctx, rows, name, dtype, ids->rank + 1, shape, "the shape of ids and a row");
}

static tsr_status embedding_fwd(tsr_context *ctx, const tsr_tensor *table, const tsr_tensor *ids,
                                const tsr_tensor *out)
{
    TSR_TRY(tsr_check_tensor(ctx, table, "table", TSR_IN_FLOATS, 2, 2));
    TSR_TRY(tsr_check_tensor(ctx, ids, "ids", TSR_IN_I32, 0, TSR_MAX_RANK - 1));
    TSR_TRY(check_rows(ctx, out, "out", table->dtype, ids, table->shape[1]));
    const tsr_output outputs[] = {{out, "out", {NULL}}};
    const tsr_input inputs[] = {{table, "table"}, {ids, "ids"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    return tsr_call_embedding_fwd(ctx, &(tsr_embedding_fwd_args){.table = *table, .ids = *ids, .out = *out},
                                  NULL);
}

tsr_status tsr_embedding_fwd(tsr_context *ctx, const tsr_tensor *table, const tsr_tensor *ids,
                             const tsr_tensor *out)
{
    return tsr_within("embedding_fwd", embedding_fwd(ctx, table, ids, out));
}

static tsr_status embedding_bwd(tsr_context *ctx, const tsr_tensor *ids, const tsr_tensor *dout,
                                int accumulate, const tsr_tensor *dtable)
{
    TSR_TRY(tsr_check_tensor(ctx, ids, "ids", TSR_IN_I32, 0, TSR_MAX_RANK - 1));
    TSR_TRY(tsr_check_tensor(ctx, dout, "dout", TSR_IN_FLOATS, ids->rank + 1, ids->rank + 1));
    TSR_TRY(tsr_check_tensor(ctx, dtable, "dtable", 1u << tsr_wide(dout->dtype), 2, 2));
    TSR_TRY(check_rows(ctx, dout, "dout", dout->dtype, ids, dtable->shape[1]));
    const tsr_output outputs[] = {{dtable, "dtable", {NULL}}};
    const tsr_input inputs[] = {{ids, "ids"}, {dout, "dout"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_embedding_bwd_args args = {
        .ids = *ids, .dout = *dout, .dtable = *dtable, .accumulate = accumulate != 0};
    return tsr_call_embedding_bwd(ctx, &args, NULL);
}

tsr_status tsr_embedding_bwd(tsr_context *ctx, const tsr_tensor *ids, const tsr_tensor *dout, int accumulate,
                             const tsr_tensor *dtable)
{
    return tsr_within("embedding_bwd", embedding_bwd(ctx, ids, dout, accumulate, dtable));
}
