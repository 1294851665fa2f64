/* tests/kit/operators_gemm.c - the entries of GEMM: tensors, strided batches, arrays of pointers; linear */
#include "kit/operators.h"
#include "kit/tensor.h"
#include "tessera/gemm.h"
#include "tessera/linear.h"

#define IN(name, ...) kit_add(c, KIT_IN, name, kit_normal(KIT_NEW(TSR_F32, kit_any_input(), __VA_ARGS__)))
#define INOUT(name, ...)                                                                                     \
    kit_add(c, KIT_INOUT, name, kit_normal(KIT_NEW(TSR_F32, kit_any_output(), __VA_ARGS__)))
#define RUN(op)   static tsr_status op(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws)
#define QUERY(op) static tsr_status op(tsr_context *ctx, const tsr_tensor *const *t, size_t *out)

static const float alpha = 1.5f, beta = -0.5f;

static void build_matmul2d(kit_call *c)
{
    IN("a", 5, 7);
    IN("b", 7, 9);
    INOUT("c", 5, 9);
}
RUN(matmul2d) { return tsr_matmul2d(ctx, alpha, t[0], t[1], beta, t[2], ws); }
QUERY(matmul2d_workspace) { return tsr_matmul2d_workspace(ctx, t[0], t[1], t[2], out); }

static void build_matmul2d_bwd(kit_call *c)
{
    IN("a", 5, 7);
    IN("b", 7, 9);
    IN("dc", 5, 9);
    INOUT("da", 5, 7)->optional = true;
    INOUT("db", 7, 9)->optional = true;
}
RUN(matmul2d_bwd) { return tsr_matmul2d_bwd(ctx, alpha, t[0], t[1], t[2], beta, t[3], t[4], ws); }
QUERY(matmul2d_bwd_workspace) { return tsr_matmul2d_bwd_workspace(ctx, t[0], t[1], t[2], t[3], t[4], out); }

static void build_bmm(kit_call *c)
{
    IN("a", 3, 5, 7);
    IN("b", 3, 7, 9);
    INOUT("c", 3, 5, 9);
}
RUN(bmm) { return tsr_bmm(ctx, alpha, t[0], t[1], beta, t[2], ws); }
QUERY(bmm_workspace) { return tsr_bmm_workspace(ctx, t[0], t[1], t[2], out); }

static void build_bmm_bwd(kit_call *c)
{
    IN("a", 3, 5, 7);
    IN("b", 3, 7, 9);
    IN("dc", 3, 5, 9);
    INOUT("da", 3, 5, 7)->optional = true;
    INOUT("db", 3, 7, 9)->optional = true;
}
RUN(bmm_bwd) { return tsr_bmm_bwd(ctx, alpha, t[0], t[1], t[2], beta, t[3], t[4], ws); }
QUERY(bmm_bwd_workspace) { return tsr_bmm_bwd_workspace(ctx, t[0], t[1], t[2], t[3], t[4], out); }

/* Operands of the strided and the pointer form: [batch, heads, rows, columns], columns contiguous. */
enum { M = 5, N = 9, K = 7, BATCH = 2, HEADS = 4, GROUP = 2 };

static kit_argument *raw(kit_call *c, kit_role role, const char *name, kit_layout layout, int64_t heads,
                         int64_t rows, int64_t columns)
{
    kit_argument *a = kit_add(c, role, name,
                              kit_normal(KIT_NEW(TSR_F32, layout, BATCH, heads, rows, columns)));
    a->raw = true, a->n_strides = 3;
    return a;
}

static void build_gemm_strided_fwd(kit_call *c)
{
    raw(c, KIT_IN, "a", KIT_PADDED, HEADS, M, K);
    raw(c, KIT_IN, "b", KIT_PADDED, HEADS / GROUP, N, K);
    raw(c, KIT_INOUT, "c", KIT_PADDED, HEADS, M, N);
}

static tsr_gemm_operand operand_of(const tsr_tensor *t)
{
    if (t == NULL) return (tsr_gemm_operand){0};
    return (tsr_gemm_operand){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

static tsr_gemm_strided strided(const tsr_tensor *const *t)
{
    return (tsr_gemm_strided){.dtype = TSR_F32,
                              .c_dtype = TSR_F32,
                              .m = M,
                              .n = N,
                              .k = K,
                              .batch = BATCH,
                              .num_heads = HEADS,
                              .a = operand_of(t[0]),
                              .b = operand_of(t[1]),
                              .c = operand_of(t[2]),
                              .b_transposed = 1,
                              .b_group = GROUP,
                              .alpha = alpha,
                              .beta = beta};
}

RUN(gemm_strided_fwd)
{
    const tsr_gemm_strided g = strided(t);
    return tsr_gemm_strided_fwd(ctx, &g, ws);
}
QUERY(gemm_strided_workspace)
{
    const tsr_gemm_strided g = strided(t);
    return tsr_gemm_strided_workspace(ctx, &g, out);
}

static void build_gemm_strided_bwd(kit_call *c)
{
    raw(c, KIT_IN, "a", KIT_PADDED, HEADS, M, K);
    raw(c, KIT_IN, "b", KIT_PADDED, HEADS / GROUP, N, K);
    raw(c, KIT_IN, "dc", KIT_PADDED, HEADS, M, N);
    raw(c, KIT_INOUT, "da", KIT_PADDED, HEADS, M, K)->optional = true;
    raw(c, KIT_INOUT, "db", KIT_PADDED, HEADS / GROUP, N, K)->optional = true;
}
RUN(gemm_strided_bwd)
{
    const tsr_gemm_strided g = strided(t);
    const tsr_gemm_operand da = operand_of(t[3]), db = operand_of(t[4]);
    return tsr_gemm_strided_bwd(ctx, &g, TSR_F32, &da, &db, ws);
}
QUERY(gemm_strided_bwd_workspace)
{
    const tsr_gemm_strided g = strided(t);
    const tsr_gemm_operand da = operand_of(t[3]), db = operand_of(t[4]);
    return tsr_gemm_strided_bwd_workspace(ctx, &g, TSR_F32, &da, &db, out);
}

/* A pointer to each matrix of a tensor, and the rows' stride for each. */
typedef struct pointers {
    void *to[BATCH * HEADS];
    int64_t row_stride[BATCH * HEADS];
} pointers;

static pointers pointers_to(const tsr_tensor *t)
{
    pointers p = {{NULL}, {0}};
    for (int64_t i = 0; t != NULL && i < BATCH * HEADS; i++) {
        if (t->data != NULL) p.to[i] = (float *)t->data + i / HEADS * t->stride[0] + i % HEADS * t->stride[1];
        p.row_stride[i] = t->stride[2];
    }
    return p;
}

static void build_gemm_pointers_fwd(kit_call *c)
{
    raw(c, KIT_IN, "a", KIT_PADDED, HEADS, M, K);
    raw(c, KIT_IN, "b", KIT_PADDED, HEADS, N, K);
    raw(c, KIT_INOUT, "c", KIT_PADDED, HEADS, M, N);
}

static tsr_status with_pointers(tsr_context *ctx, const tsr_tensor *const *t, bool backward,
                                const tsr_workspace *ws, size_t *query)
{
    const pointers a = pointers_to(t[0]), b = pointers_to(t[1]), c = pointers_to(t[2]);
    const pointers da = pointers_to(backward ? t[3] : NULL), db = pointers_to(backward ? t[4] : NULL);
    const tsr_gemm_pointers g = {.dtype = TSR_F32,
                                 .c_dtype = TSR_F32,
                                 .m = M,
                                 .n = N,
                                 .k = K,
                                 .batch = BATCH,
                                 .num_heads = HEADS,
                                 .a = t[0] != NULL ? (const void *const *)a.to : NULL,
                                 .b = t[1] != NULL ? (const void *const *)b.to : NULL,
                                 .c = t[2] != NULL ? c.to : NULL,
                                 .a_row_stride = a.row_stride,
                                 .b_row_stride = b.row_stride,
                                 .c_row_stride = c.row_stride,
                                 .b_transposed = 1,
                                 .alpha = alpha,
                                 .beta = beta};
    if (!backward)
        return query != NULL ? tsr_gemm_pointers_workspace(ctx, &g, query)
                             : tsr_gemm_pointers_fwd(ctx, &g, ws);
    void *const *to_da = t[3] != NULL ? da.to : NULL, *const *to_db = t[4] != NULL ? db.to : NULL;
    return query != NULL ? tsr_gemm_pointers_bwd_workspace(ctx, &g, TSR_F32, to_da, to_db, query)
                         : tsr_gemm_pointers_bwd(ctx, &g, TSR_F32, to_da, to_db, ws);
}

RUN(gemm_pointers_fwd) { return with_pointers(ctx, t, false, ws, NULL); }

static void build_gemm_pointers_bwd(kit_call *c)
{
    raw(c, KIT_IN, "a", KIT_PADDED, HEADS, M, K);
    raw(c, KIT_IN, "b", KIT_PADDED, HEADS, N, K);
    raw(c, KIT_IN, "dc", KIT_PADDED, HEADS, M, N);
    kit_argument *da = raw(c, KIT_INOUT, "da", KIT_ROWS, HEADS, M, K);
    kit_argument *db = raw(c, KIT_INOUT, "db", KIT_ROWS, HEADS, N, K);
    da->optional = db->optional = true;
    da->n_strides = db->n_strides = 2; /* rows of gradients are contiguous */
}
RUN(gemm_pointers_bwd) { return with_pointers(ctx, t, true, ws, NULL); }

QUERY(gemm_pointers_workspace)
{
    return out == NULL ? tsr_gemm_pointers_workspace(ctx, NULL, out)
                       : with_pointers(ctx, t, false, NULL, out);
}
QUERY(gemm_pointers_bwd_workspace)
{
    return out == NULL ? tsr_gemm_pointers_bwd_workspace(ctx, NULL, TSR_F32, NULL, NULL, out)
                       : with_pointers(ctx, t, true, NULL, out);
}

/* A packed weight is no tensor: check_linear and misuse_linear have it. */
static void build_linear_plain_fwd(kit_call *c)
{
    IN("x", 5, 7);
    IN("w", 9, 7);
    IN("bias", 9)->optional = true;
    IN("residual", 5, 9)->optional = true;
    kit_add(c, KIT_OUT, "y", KIT_NEW(TSR_F32, kit_any_output(), 5, 9))->may_be = 1 << 3;
}

static tsr_linear_options linear_options(const tsr_tensor *const *t)
{
    return (tsr_linear_options){
        .bias = t[2], .residual = t[3], .activation = TSR_ACTIVATION_GELU, .scale = alpha};
}
RUN(linear_plain_fwd)
{
    const tsr_linear_options o = linear_options(t);
    return tsr_linear_plain_fwd(ctx, t[0], t[1], &o, t[4], ws);
}
QUERY(linear_plain_workspace)
{
    const tsr_linear_options o = linear_options(t);
    return tsr_linear_plain_workspace(ctx, t[0], t[1], &o, t[4], out);
}

#define ENTRY(op, workspace)                                                                                 \
    {                                                                                                        \
        .name = #op, .build = build_##op, .run = op, .query = workspace                                      \
    }
const kit_operator kit_gemm_operators[] = {
    ENTRY(matmul2d, matmul2d_workspace),
    ENTRY(matmul2d_bwd, matmul2d_bwd_workspace),
    ENTRY(bmm, bmm_workspace),
    ENTRY(bmm_bwd, bmm_bwd_workspace),
    ENTRY(gemm_strided_fwd, gemm_strided_workspace),
    ENTRY(gemm_strided_bwd, gemm_strided_bwd_workspace),
    ENTRY(gemm_pointers_fwd, gemm_pointers_workspace),
    ENTRY(gemm_pointers_bwd, gemm_pointers_bwd_workspace),
    ENTRY(linear_plain_fwd, linear_plain_workspace),
    {0},
};
