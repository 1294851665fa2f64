/* op/gemm_backward.c - from views to the seam's arguments, and the products that make a backward */
#include "op/gemm.h"

#include "base/arena.h"

static tsr_gemm_matrix matrix_of(const tsr_tensor *t, int64_t group)
{
    return (tsr_gemm_matrix){.data = t->data,
                             .batch = t->stride[0],
                             .head = t->stride[1],
                             .row = t->stride[2],
                             .col = t->stride[3],
                             .group = group,
                             .dtype = t->dtype};
}

tsr_gemm_args tsr_gemm_args_of(const tsr_gemm_views *v)
{
    return (tsr_gemm_args){.m = v->c.shape[2],
                           .n = v->c.shape[3],
                           .k = v->a.shape[3],
                           .batch = v->c.shape[0],
                           .num_heads = v->c.shape[1],
                           .a = matrix_of(&v->a, 1),
                           .b = matrix_of(&v->b, v->group),
                           .c = matrix_of(&v->c, 1),
                           .alpha = v->alpha,
                           .beta = v->beta};
}

tsr_gemm_matrix tsr_gemm_transposed(tsr_gemm_matrix x)
{
    const int64_t row = x.row;
    x.row = x.col, x.col = row;
    x.strides_are_cols = !x.strides_are_cols;
    return x;
}

tsr_status tsr_gemm_check_dtypes(const tsr_context *ctx, tsr_dtype dtype, const char *name, tsr_dtype c_dtype,
                                 const char *c_name)
{
    TSR_TRY(tsr_check_dtype(ctx, dtype, name, TSR_IN_FLOATS | TSR_IN_S8));
    const unsigned outputs = dtype == TSR_S8 ? TSR_IN_I32 : 1u << dtype | 1u << tsr_wide(dtype);
    return tsr_check_dtype(ctx, c_dtype, c_name, outputs);
}

tsr_status tsr_gemm_check_grad_dtype(tsr_dtype dtype, tsr_dtype grad_dtype, const char *name)
{
    if (grad_dtype == dtype || grad_dtype == tsr_wide(dtype)) return TSR_OK;
    return tsr_fail(TSR_ERR_DTYPE, "%s is %s, must be %s%s", name, tsr_dtype_name(grad_dtype),
                    tsr_dtype_name(dtype), dtype == tsr_wide(dtype) ? "" : " or f32");
}

/* A view of every `group`-th head: the first of each group. */
static tsr_tensor first_of_groups(const tsr_tensor *t, int64_t group)
{
    tsr_tensor r = *t;
    r.shape[1] /= group;
    r.stride[1] = r.shape[1] > 1 ? r.stride[1] * group : 0; /* a stride that is never taken may not fit */
    return r;
}

tsr_gemm_backward tsr_gemm_backward_of(const tsr_gemm_views *v, const tsr_tensor *da, const tsr_tensor *db)
{
    tsr_gemm_backward bwd = {.wants_da = da != NULL, .group = v->group};
    bwd.wants_db = db != NULL && tsr_tensor_numel(db) > 0; /* without heads a group may be of any size */
    const int64_t group = v->group;
    if (da != NULL) {
        const tsr_tensor b_t = tsr_tensor_transpose(&v->b, 2, 3);
        const tsr_gemm_views product = {v->c, b_t, *da, group, v->alpha, v->beta};
        bwd.da = tsr_gemm_args_of(&product);
    }
    if (db != NULL) {
        const tsr_tensor a_t = tsr_tensor_transpose(&v->a, 2, 3);
        const tsr_gemm_views product = {
            first_of_groups(&a_t, group), first_of_groups(&v->c, group), *db, 1, v->alpha, v->beta};
        bwd.db = tsr_gemm_args_of(&product);
        bwd.a_head = v->a.stride[1] * (int64_t)tsr_dtype_nbytes(v->a.dtype);
        bwd.dc_head = v->c.stride[1] * (int64_t)tsr_dtype_nbytes(v->c.dtype);
    }
    return bwd;
}

tsr_status tsr_gemm_query_backward(const tsr_context *ctx, const tsr_gemm_backward *bwd, size_t *out)
{
    if (out == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "out is NULL");
    size_t da = 0, db = 0;
    if (bwd->wants_da) TSR_TRY(tsr_query_gemm(ctx, &bwd->da, &da));
    if (bwd->wants_db) TSR_TRY(tsr_query_gemm(ctx, &bwd->db, &db));
    *out = da > db ? da : db;
    return TSR_OK;
}

tsr_status tsr_gemm_run_backward(tsr_context *ctx, const tsr_gemm_backward *bwd, const tsr_workspace *ws)
{
    size_t need;
    void *workspace;
    TSR_TRY(tsr_gemm_query_backward(ctx, bwd, &need));
    /* A query has room for alignment in it, which taking adds by itself. */
    TSR_TRY(tsr_take_workspace(ctx, need == 0 ? 0 : need - TSR_ALIGN, ws, &workspace));
    if (bwd->wants_da) TSR_TRY(tsr_run_gemm(ctx, &bwd->da, ws));
    tsr_gemm_args db = bwd->db;
    for (int64_t member = 0; bwd->wants_db && member < bwd->group; member++) {
        TSR_TRY(tsr_run_gemm(ctx, &db, ws));
        if (member + 1 == bwd->group) break;
        db.a.data = (char *)db.a.data + bwd->a_head;
        db.b.data = (char *)db.b.data + bwd->dc_head;
        db.beta = 1;
    }
    return TSR_OK;
}
