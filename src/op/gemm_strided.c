/*
 * op/gemm_strided.c - a batch of products described by strides
 *
 * The description becomes views of rank 4, which know how to check themselves: sizes that overflow, rows of C
 * that collide, operands that overlap.
 */
#include "op/gemm.h"
#include "tessera/gemm.h"

static tsr_tensor view_of(const tsr_context *ctx, const tsr_gemm_strided *g, const tsr_gemm_operand *x,
                          tsr_dtype dtype, int64_t heads, int64_t rows, int64_t columns)
{
    return (tsr_tensor){.data = x->data,
                        .dtype = dtype,
                        .device = ctx->backend->device,
                        .rank = 4,
                        .shape = {g->batch, heads, rows, columns},
                        .stride = {x->batch_stride, x->head_stride, x->row_stride, 1}};
}

static int64_t group_of(const tsr_gemm_strided *g) { return g->b_group > 0 ? g->b_group : 1; }

static tsr_tensor view_of_b(const tsr_context *ctx, const tsr_gemm_strided *g, const tsr_gemm_operand *x,
                            tsr_dtype dtype)
{
    const int64_t heads = g->num_heads / group_of(g);
    const tsr_tensor rows_first = view_of(ctx, g, x, dtype, heads, g->b_transposed ? g->n : g->k,
                                          g->b_transposed ? g->k : g->n);
    return g->b_transposed ? tsr_tensor_transpose(&rows_first, 2, 3) : rows_first;
}

static tsr_status check_counts(const tsr_gemm_strided *g)
{
    TSR_TRY(tsr_check_count(g->m, "m", 0));
    TSR_TRY(tsr_check_count(g->n, "n", 0));
    TSR_TRY(tsr_check_count(g->k, "k", 0));
    TSR_TRY(tsr_check_count(g->batch, "batch", 0));
    TSR_TRY(tsr_check_count(g->num_heads, "num_heads", 0));
    TSR_TRY(tsr_check_count(g->b_group, "b_group", 0));
    if (g->num_heads % group_of(g) == 0) return TSR_OK;
    return tsr_fail(TSR_ERR_SHAPE, "b_group is %lld, must divide num_heads, %lld", (long long)g->b_group,
                    (long long)g->num_heads);
}

static tsr_status views_of(const tsr_context *ctx, const tsr_gemm_strided *g, const char *c_name,
                           tsr_gemm_views *out)
{
    TSR_TRY(tsr_check_context(ctx));
    TSR_TRY(tsr_check_not_null(g, "g"));
    TSR_TRY(check_counts(g));
    TSR_TRY(tsr_gemm_check_dtypes(ctx, g->dtype, "dtype", g->c_dtype, "c_dtype"));
    *out = (tsr_gemm_views){.a = view_of(ctx, g, &g->a, g->dtype, g->num_heads, g->m, g->k),
                            .b = view_of_b(ctx, g, &g->b, g->dtype),
                            .c = view_of(ctx, g, &g->c, g->c_dtype, g->num_heads, g->m, g->n),
                            .group = group_of(g),
                            .alpha = g->alpha,
                            .beta = g->beta};
    TSR_TRY(tsr_tensor_validate(&out->a, "a"));
    TSR_TRY(tsr_tensor_validate(&out->b, "b"));
    return tsr_tensor_validate(&out->c, c_name);
}

static tsr_status strided_fwd(tsr_context *ctx, const tsr_gemm_strided *g, const tsr_workspace *ws)
{
    tsr_gemm_views v;
    TSR_TRY(views_of(ctx, g, "c", &v));
    const tsr_output outputs[] = {{&v.c, "c", {NULL}}};
    const tsr_input inputs[] = {{&v.a, "a"}, {&v.b, "b"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_gemm_args args = tsr_gemm_args_of(&v);
    return tsr_call_gemm(ctx, &args, ws);
}

tsr_status tsr_gemm_strided_fwd(tsr_context *ctx, const tsr_gemm_strided *g, const tsr_workspace *ws)
{
    return tsr_within("gemm_strided_fwd", strided_fwd(ctx, g, ws));
}

static tsr_status strided_workspace(tsr_context *ctx, const tsr_gemm_strided *g, size_t *out)
{
    tsr_gemm_views v;
    TSR_TRY(views_of(ctx, g, "c", &v));
    const tsr_gemm_args args = tsr_gemm_args_of(&v);
    return tsr_query_gemm(ctx, &args, out);
}

tsr_status tsr_gemm_strided_workspace(tsr_context *ctx, const tsr_gemm_strided *g, size_t *out)
{
    return tsr_within("gemm_strided_workspace", strided_workspace(ctx, g, out));
}

static bool is_wanted(const tsr_gemm_operand *grad) { return grad != NULL && grad->data != NULL; }

static tsr_status plan_backward(const tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                                const tsr_gemm_operand *da, const tsr_gemm_operand *db,
                                tsr_gemm_backward *out)
{
    tsr_gemm_views v;
    TSR_TRY(views_of(ctx, g, "dc", &v));
    TSR_TRY(tsr_check_dtype(ctx, g->dtype, "dtype", TSR_IN_FLOATS));
    TSR_TRY(tsr_check_dtype(ctx, g->c_dtype, "c_dtype", 1u << g->dtype));
    TSR_TRY(tsr_gemm_check_grad_dtype(g->dtype, grad_dtype, "grad_dtype"));
    tsr_tensor da_view, db_view;
    const tsr_tensor *wanted_da = NULL, *wanted_db = NULL;
    if (is_wanted(da)) {
        da_view = view_of(ctx, g, da, grad_dtype, g->num_heads, g->m, g->k);
        TSR_TRY(tsr_tensor_validate(&da_view, "da"));
        wanted_da = &da_view;
    }
    if (is_wanted(db)) {
        db_view = view_of_b(ctx, g, db, grad_dtype);
        TSR_TRY(tsr_tensor_validate(&db_view, "db"));
        wanted_db = &db_view;
    }
    const tsr_output outputs[] = {{wanted_da, "da", {NULL}}, {wanted_db, "db", {NULL}}};
    const tsr_input inputs[] = {{&v.a, "a"}, {&v.b, "b"}, {&v.c, "dc"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    *out = tsr_gemm_backward_of(&v, wanted_da, wanted_db);
    return TSR_OK;
}

static tsr_status strided_bwd(tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                              const tsr_gemm_operand *da, const tsr_gemm_operand *db, const tsr_workspace *ws)
{
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, g, grad_dtype, da, db, &bwd));
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, tsr_gemm_run_backward(ctx, &bwd, ws));
}

tsr_status tsr_gemm_strided_bwd(tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                                const tsr_gemm_operand *da, const tsr_gemm_operand *db,
                                const tsr_workspace *ws)
{
    return tsr_within("gemm_strided_bwd", strided_bwd(ctx, g, grad_dtype, da, db, ws));
}

static tsr_status strided_bwd_workspace(tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                                        const tsr_gemm_operand *da, const tsr_gemm_operand *db, size_t *out)
{
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, g, grad_dtype, da, db, &bwd));
    return tsr_gemm_query_backward(ctx, &bwd, out);
}

tsr_status tsr_gemm_strided_bwd_workspace(tsr_context *ctx, const tsr_gemm_strided *g, tsr_dtype grad_dtype,
                                          const tsr_gemm_operand *da, const tsr_gemm_operand *db, size_t *out)
{
    return tsr_within("gemm_strided_bwd_workspace", strided_bwd_workspace(ctx, g, grad_dtype, da, db, out));
}
