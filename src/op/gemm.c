/* op/gemm.c - matrix products of tensors: one (matmul2d) and a batch (bmm) */
#include "tessera/gemm.h"

#include "op/gemm.h"

/* [m, k] or [batch, m, k] as [batch, 1, m, k] */
static tsr_tensor lifted(const tsr_tensor *t)
{
    tsr_tensor r = *t;
    const int32_t skip = t->rank - 2; /* leading dimensions that there are: 0 or 1 */
    r.rank = 4;
    for (int i = 0; i < 2; i++) r.shape[2 + i] = t->shape[skip + i], r.stride[2 + i] = t->stride[skip + i];
    r.shape[1] = 1, r.stride[1] = 0;
    r.shape[0] = skip == 1 ? t->shape[0] : 1;
    r.stride[0] = skip == 1 ? t->stride[0] : 0;
    return r;
}

/* Shapes and dtypes of a product; `rank` 2, or 3 with a batch. */
static tsr_status check_product(const tsr_context *ctx, int32_t rank, const tsr_tensor *a,
                                const tsr_tensor *b, const tsr_tensor *c, const char *c_name)
{
    static const char *const whose_rows[] = {"a's first", "a's second"},
                             *const whose_depth[] = {"a's second", "a's third"},
                             *const whose_columns[] = {"b's second", "b's third"};
    const int32_t row = rank - 2, col = rank - 1;
    TSR_TRY(tsr_check_tensor(ctx, a, "a", TSR_IN_FLOATS | TSR_IN_S8, rank, rank));
    TSR_TRY(tsr_check_tensor(ctx, b, "b", 1u << a->dtype, rank, rank));
    TSR_TRY(tsr_check_tensor(ctx, c, c_name, TSR_IN_ALL, rank, rank));
    TSR_TRY(tsr_gemm_check_dtypes(ctx, a->dtype, "a", c->dtype, c_name));
    TSR_TRY(tsr_check_extent(b, "b", row, a->shape[col], whose_depth[row]));
    TSR_TRY(tsr_check_extent(c, c_name, row, a->shape[row], whose_rows[row]));
    TSR_TRY(tsr_check_extent(c, c_name, col, b->shape[col], whose_columns[row]));
    if (rank == 2) return TSR_OK;
    TSR_TRY(tsr_check_extent(b, "b", 0, a->shape[0], "a's first"));
    return tsr_check_extent(c, c_name, 0, a->shape[0], "a's first");
}

static tsr_gemm_views views_of(float alpha, const tsr_tensor *a, const tsr_tensor *b, float beta,
                               const tsr_tensor *c)
{
    return (tsr_gemm_views){
        .a = lifted(a), .b = lifted(b), .c = lifted(c), .group = 1, .alpha = alpha, .beta = beta};
}

static tsr_status product(tsr_context *ctx, int32_t rank, float alpha, const tsr_tensor *a,
                          const tsr_tensor *b, float beta, const tsr_tensor *c, const tsr_workspace *ws)
{
    TSR_TRY(check_product(ctx, rank, a, b, c, "c"));
    const tsr_output outputs[] = {{c, "c", {NULL}}};
    const tsr_input inputs[] = {{a, "a"}, {b, "b"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_gemm_views v = views_of(alpha, a, b, beta, c);
    const tsr_gemm_args args = tsr_gemm_args_of(&v);
    return tsr_call_gemm(ctx, &args, ws);
}

static tsr_status product_workspace(tsr_context *ctx, int32_t rank, const tsr_tensor *a, const tsr_tensor *b,
                                    const tsr_tensor *c, size_t *out)
{
    TSR_TRY(check_product(ctx, rank, a, b, c, "c"));
    const tsr_gemm_views v = views_of(1, a, b, 1, c);
    const tsr_gemm_args args = tsr_gemm_args_of(&v);
    return tsr_query_gemm(ctx, &args, out);
}

/* Checks a backward and describes its products. */
static tsr_status plan_backward(const tsr_context *ctx, int32_t rank, float alpha, const tsr_tensor *a,
                                const tsr_tensor *b, const tsr_tensor *dc, float beta, const tsr_tensor *da,
                                const tsr_tensor *db, tsr_gemm_backward *out)
{
    TSR_TRY(check_product(ctx, rank, a, b, dc, "dc"));
    TSR_TRY(tsr_check_dtype(ctx, a->dtype, "a", TSR_IN_FLOATS));
    TSR_TRY(tsr_check_dtype(ctx, dc->dtype, "dc", 1u << a->dtype));
    const tsr_tensor *inputs_of[] = {a, b}, *grads[] = {da, db};
    static const char *const input_names[] = {"a", "b"}, *const grad_names[] = {"da", "db"};
    tsr_tensor lifted_grads[2];
    for (int i = 0; i < 2; i++) {
        if (grads[i] == NULL) continue;
        TSR_TRY(tsr_check_tensor(ctx, grads[i], grad_names[i], TSR_IN_FLOATS, rank, rank));
        TSR_TRY(tsr_check_same_shape(grads[i], grad_names[i], inputs_of[i], input_names[i]));
        TSR_TRY(tsr_gemm_check_grad_dtype(a->dtype, grads[i]->dtype, grad_names[i]));
        lifted_grads[i] = lifted(grads[i]);
    }
    const tsr_output outputs[] = {{da, "da", {NULL}}, {db, "db", {NULL}}};
    const tsr_input inputs[] = {{a, "a"}, {b, "b"}, {dc, "dc"}};
    TSR_TRY(TSR_CHECK_MEMORY(outputs, inputs));
    const tsr_gemm_views v = views_of(alpha, a, b, beta, dc);
    *out = tsr_gemm_backward_of(&v, da != NULL ? &lifted_grads[0] : NULL,
                                db != NULL ? &lifted_grads[1] : NULL);
    return TSR_OK;
}

static tsr_status product_bwd(tsr_context *ctx, int32_t rank, float alpha, const tsr_tensor *a,
                              const tsr_tensor *b, const tsr_tensor *dc, float beta, const tsr_tensor *da,
                              const tsr_tensor *db, const tsr_workspace *ws)
{
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, rank, alpha, a, b, dc, beta, da, db, &bwd));
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, tsr_gemm_run_backward(ctx, &bwd, ws));
}

static tsr_status product_bwd_workspace(tsr_context *ctx, int32_t rank, const tsr_tensor *a,
                                        const tsr_tensor *b, const tsr_tensor *dc, const tsr_tensor *da,
                                        const tsr_tensor *db, size_t *out)
{
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, rank, 1, a, b, dc, 1, da, db, &bwd));
    return tsr_gemm_query_backward(ctx, &bwd, out);
}

tsr_status tsr_matmul2d(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b, float beta,
                        const tsr_tensor *c, const tsr_workspace *ws)
{
    return tsr_within("matmul2d", product(ctx, 2, alpha, a, b, beta, c, ws));
}

tsr_status tsr_matmul2d_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                  const tsr_tensor *c, size_t *out)
{
    return tsr_within("matmul2d_workspace", product_workspace(ctx, 2, a, b, c, out));
}

tsr_status tsr_matmul2d_bwd(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                            const tsr_tensor *dc, float beta, const tsr_tensor *da, const tsr_tensor *db,
                            const tsr_workspace *ws)
{
    return tsr_within("matmul2d_bwd", product_bwd(ctx, 2, alpha, a, b, dc, beta, da, db, ws));
}

tsr_status tsr_matmul2d_bwd_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                      const tsr_tensor *dc, const tsr_tensor *da, const tsr_tensor *db,
                                      size_t *out)
{
    return tsr_within("matmul2d_bwd_workspace", product_bwd_workspace(ctx, 2, a, b, dc, da, db, out));
}

tsr_status tsr_bmm(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b, float beta,
                   const tsr_tensor *c, const tsr_workspace *ws)
{
    return tsr_within("bmm", product(ctx, 3, alpha, a, b, beta, c, ws));
}

tsr_status tsr_bmm_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b, const tsr_tensor *c,
                             size_t *out)
{
    return tsr_within("bmm_workspace", product_workspace(ctx, 3, a, b, c, out));
}

tsr_status tsr_bmm_bwd(tsr_context *ctx, float alpha, const tsr_tensor *a, const tsr_tensor *b,
                       const tsr_tensor *dc, float beta, const tsr_tensor *da, const tsr_tensor *db,
                       const tsr_workspace *ws)
{
    return tsr_within("bmm_bwd", product_bwd(ctx, 3, alpha, a, b, dc, beta, da, db, ws));
}

tsr_status tsr_bmm_bwd_workspace(tsr_context *ctx, const tsr_tensor *a, const tsr_tensor *b,
                                 const tsr_tensor *dc, const tsr_tensor *da, const tsr_tensor *db,
                                 size_t *out)
{
    return tsr_within("bmm_bwd_workspace", product_bwd_workspace(ctx, 3, a, b, dc, da, db, out));
}
