/* tests/kit/operators.c - the operators other than GEMM and attention */
#include "kit/operators.h"

#include <string.h>

#include "kit/tensor.h"
#include "tessera/tessera.h"

kit_argument *kit_add(kit_call *call, kit_role role, const char *name, tsr_tensor t)
{
    assert_in_range(call->n, 0, KIT_MAX_ARGUMENTS - 1);
    kit_argument *a = &call->arg[call->n++];
    *a = (kit_argument){.name = name, .t = t, .role = role, .n_strides = t.rank};
    return a;
}

kit_tensors kit_tensors_of(const kit_call *call)
{
    kit_tensors r = {{NULL}};
    for (int32_t i = 0; i < call->n; i++) r.at[i] = &call->arg[i].t;
    return r;
}

void kit_for_each_operator(void (*fn)(const kit_operator *op, void *arg), void *arg)
{
    const kit_operator *const lists[] = {kit_gemm_operators, kit_attention_operators, kit_other_operators};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const kit_operator *op = lists[i]; op->name != NULL; op++) fn(op, arg);
}

/* An input with normal numbers, an output with poison, something that is read and written. */
#define IN(name, ...)  kit_add(c, KIT_IN, name, kit_normal(KIT_NEW(TSR_F32, kit_any_input(), __VA_ARGS__)))
#define OUT(name, ...) kit_add(c, KIT_OUT, name, KIT_NEW(TSR_F32, kit_any_output(), __VA_ARGS__))
#define INOUT(name, layout, ...)                                                                             \
    kit_add(c, KIT_INOUT, name, kit_uniform(KIT_NEW(TSR_F32, layout, __VA_ARGS__), 0, 1))
#define IDS(name, last, ...)                                                                                 \
    kit_add(c, KIT_IN, name, kit_integers(KIT_NEW(TSR_I32, kit_any_input(), __VA_ARGS__), 0, last))
#define RUN(op)   static tsr_status op(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws)
#define QUERY(op) static tsr_status op(tsr_context *ctx, const tsr_tensor *const *t, size_t *out)
enum { ALL_DIMS = 15 };

static void build_softmax_fwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    OUT("y", 2, 3, 9)->may_be = 1;
}
RUN(softmax_fwd) { return (void)ws, tsr_softmax_fwd(ctx, t[0], t[1]); }

static void build_softmax_bwd(kit_call *c)
{
    IN("y", 2, 3, 9);
    IN("dy", 2, 3, 9);
    OUT("dx", 2, 3, 9)->may_be = 2;
}
RUN(softmax_bwd) { return (void)ws, tsr_softmax_bwd(ctx, t[0], t[1], t[2]); }

static void build_rms_norm_fwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("weight", 9);
    OUT("y", 2, 3, 9)->may_be = 1;
    OUT("rstd", 2, 3)->optional = true;
}
RUN(rms_norm_fwd) { return (void)ws, tsr_rms_norm_fwd(ctx, t[0], t[1], 1e-5f, t[2], t[3]); }

static void build_rms_norm_bwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("weight", 9);
    IN("rstd", 2, 3);
    IN("dy", 2, 3, 9);
    kit_argument *dx = OUT("dx", 2, 3, 9);
    dx->optional = true, dx->may_be = 1 << 3;
    OUT("dweight", 9)->optional = true;
}
RUN(rms_norm_bwd) { return tsr_rms_norm_bwd(ctx, t[0], t[1], t[2], t[3], 0, t[4], t[5], ws); }
QUERY(rms_norm_bwd_workspace) { return tsr_rms_norm_bwd_workspace(ctx, t[0], out); }

static void build_layer_norm_fwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("weight", 9);
    IN("bias", 9)->optional = true;
    OUT("y", 2, 3, 9)->may_be = 1;
    OUT("mean", 2, 3)->optional = true;
    OUT("rstd", 2, 3)->optional = true;
}
RUN(layer_norm_fwd) { return (void)ws, tsr_layer_norm_fwd(ctx, t[0], t[1], t[2], 1e-5f, t[3], t[4], t[5]); }

static void build_layer_norm_bwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("weight", 9);
    IN("mean", 2, 3);
    IN("rstd", 2, 3);
    IN("dy", 2, 3, 9);
    kit_argument *dx = INOUT("dx", kit_any_output(), 2, 3, 9);
    dx->optional = true, dx->may_be = 1 << 4;
    OUT("dweight", 9)->optional = true;
    OUT("dbias", 9)->optional = true;
}
RUN(layer_norm_bwd) { return tsr_layer_norm_bwd(ctx, t[0], t[1], t[2], t[3], t[4], 1, t[5], t[6], t[7], ws); }
QUERY(layer_norm_bwd_workspace) { return tsr_layer_norm_bwd_workspace(ctx, t[0], out); }

static void build_rope_table(kit_call *c)
{
    OUT("cos", 11, 3);
    OUT("sin", 11, 3);
}
RUN(rope_table) { return (void)ws, tsr_rope_table(ctx, 10000, t[0], t[1]); }

static void build_rope(kit_call *c)
{
    IN("x", 2, 3, 5, 6);
    IN("cos", 11, 3);
    IN("sin", 11, 3);
    IDS("positions", 10, 2, 5)->optional = true;
    OUT("y", 2, 3, 5, 6)->may_be = 1;
}
RUN(rope)
{
    const tsr_rope_options options = {.interleaved = 1, .start = 3, .positions = t[3]};
    return (void)ws, tsr_rope(ctx, t[0], t[1], t[2], &options, t[4]);
}

static void build_embedding_fwd(kit_call *c)
{
    IN("table", 7, 5)->free_dims = 1;
    IDS("ids", 6, 2, 3);
    OUT("out", 2, 3, 5);
}
RUN(embedding_fwd) { return (void)ws, tsr_embedding_fwd(ctx, t[0], t[1], t[2]); }

static void build_embedding_bwd(kit_call *c)
{
    IDS("ids", 6, 2, 3);
    IN("dout", 2, 3, 5);
    INOUT("dtable", kit_any_output(), 7, 5)->free_dims = 1;
}
RUN(embedding_bwd) { return (void)ws, tsr_embedding_bwd(ctx, t[0], t[1], 1, t[2]); }

static void build_activation_fwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    OUT("y", 2, 3, 9)->may_be = 1;
}
RUN(activation_fwd) { return (void)ws, tsr_activation_fwd(ctx, TSR_ACTIVATION_GELU, t[0], t[1]); }

static void build_activation_bwd(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("dy", 2, 3, 9);
    OUT("dx", 2, 3, 9)->may_be = 2;
}
RUN(activation_bwd) { return (void)ws, tsr_activation_bwd(ctx, TSR_ACTIVATION_GELU_TANH, t[0], t[1], t[2]); }

static void build_swiglu_fwd(kit_call *c)
{
    IN("gate", 2, 3, 9);
    IN("up", 2, 3, 9);
    OUT("y", 2, 3, 9)->may_be = 3;
}
RUN(swiglu_fwd) { return (void)ws, tsr_swiglu_fwd(ctx, t[0], t[1], t[2]); }

static void build_swiglu_bwd(kit_call *c)
{
    IN("gate", 2, 3, 9);
    IN("up", 2, 3, 9);
    IN("dy", 2, 3, 9);
    OUT("dgate", 2, 3, 9)->may_be = 1;
    OUT("dup", 2, 3, 9)->may_be = 2;
}
RUN(swiglu_bwd) { return (void)ws, tsr_swiglu_bwd(ctx, t[0], t[1], t[2], t[3], t[4]); }

static void build_copy(kit_call *c)
{
    IN("x", 2, 3, 9)->any_dtype = true;
    kit_add(c, KIT_OUT, "y", KIT_NEW(TSR_F16, kit_any_output(), 2, 3, 9))->any_dtype = true;
}
RUN(copy) { return (void)ws, tsr_copy(ctx, t[0], t[1]); }

static void build_fill(kit_call *c)
{
    kit_argument *y = OUT("y", 2, 3, 9);
    y->any_dtype = true, y->free_dims = ALL_DIMS;
}
RUN(fill) { return (void)ws, tsr_fill(ctx, 1.5, t[0]); }

static void build_add(kit_call *c)
{
    IN("a", 2, 3, 9);
    IN("b", 2, 3, 9);
    OUT("y", 2, 3, 9)->may_be = 3;
}
RUN(add) { return (void)ws, tsr_add(ctx, 2, t[0], -0.5f, t[1], t[2]); }

static void build_sum(kit_call *c)
{
    IN("x", 2, 3, 9)->free_dims = ALL_DIMS;
    INOUT("out", KIT_ROWS, 1, 1);
}
RUN(sum) { return (void)ws, tsr_sum(ctx, t[0], 1, t[1]); }
RUN(sum_squares) { return (void)ws, tsr_sum_squares(ctx, t[0], 1, t[1]); }

static void build_sum_rows(kit_call *c)
{
    IN("x", 2, 3, 9)->free_dims = 3;
    OUT("out", 9);
}
RUN(sum_rows) { return (void)ws, tsr_sum_rows(ctx, t[0], 0, t[1]); }

static void build_dropout_add(kit_call *c)
{
    IN("x", 2, 3, 9);
    IN("residual", 2, 3, 9)->optional = true;
    OUT("y", 2, 3, 9)->may_be = 3;
}
RUN(dropout_add)
{
    const tsr_dropout dropout = {.p = 0.25f, .seed = 7, .offset = 3};
    return (void)ws, tsr_dropout_add(ctx, t[0], t[1], &dropout, t[2]);
}

static void build_linear_cross_entropy_fwd(kit_call *c)
{
    IN("x", 5, 6);
    IN("w", 11, 6)->free_dims = 1;
    IDS("targets", 10, 5);
    OUT("loss", 1);
    OUT("lse", 5);
}
RUN(linear_cross_entropy_fwd)
{
    return tsr_linear_cross_entropy_fwd(ctx, t[0], t[1], t[2], -100, t[3], t[4], ws);
}
QUERY(linear_cross_entropy_fwd_workspace)
{
    return tsr_linear_cross_entropy_fwd_workspace(ctx, t[0], t[1], out);
}

static void build_linear_cross_entropy_bwd(kit_call *c)
{
    IN("x", 5, 6);
    IN("w", 11, 6);
    IDS("targets", 10, 5);
    IN("lse", 5);
    IN("dloss", 1);
    OUT("dx", 5, 6);
    INOUT("dw", kit_any_output(), 11, 6);
}
RUN(linear_cross_entropy_bwd)
{
    return tsr_linear_cross_entropy_bwd(ctx, t[0], t[1], t[2], -100, t[3], t[4], 1, t[5], t[6], ws);
}
QUERY(linear_cross_entropy_bwd_workspace)
{
    return tsr_linear_cross_entropy_bwd_workspace(ctx, t[0], t[1], out);
}

static void build_kv_append(kit_call *c)
{
    IN("x", 2, 3, 4, 5)->free_dims = 1 << 2;
    IDS("start", 7, 2);
    IDS("lengths", 4, 2)->optional = true;
    INOUT("cache", kit_any_output(), 2, 3, 11, 5)->free_dims = 1 << 2;
}
RUN(kv_append) { return (void)ws, tsr_kv_append(ctx, t[0], t[1], t[2], t[3]); }

static void build_adamw(kit_call *c)
{
    kit_add(c, KIT_OUT, "p", KIT_NEW(TSR_BF16, KIT_ROWS, 3, 7));
    INOUT("master", KIT_ROWS, 3, 7);
    kit_add(c, KIT_IN, "g", kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 3, 7)));
    INOUT("m", KIT_ROWS, 3, 7);
    INOUT("v", KIT_ROWS, 3, 7);
    for (int32_t i = 0; i < c->n; i++) c->arg[i].contiguous = true;
}
RUN(adamw)
{
    const tsr_adamw_options options = {
        .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 3};
    return (void)ws, tsr_adamw(ctx, &options, t[0], t[1], t[2], t[3], t[4]);
}

#define ENTRY(op)                                                                                            \
    {                                                                                                        \
        .name = #op, .build = build_##op, .run = op                                                          \
    }
#define ENTRY_WITH_QUERY(op)                                                                                 \
    {                                                                                                        \
        .name = #op, .build = build_##op, .run = op, .query = op##_workspace                                 \
    }
const kit_operator kit_other_operators[] = {
    ENTRY(softmax_fwd),
    ENTRY(softmax_bwd),
    ENTRY(rms_norm_fwd),
    ENTRY_WITH_QUERY(rms_norm_bwd),
    ENTRY(layer_norm_fwd),
    ENTRY_WITH_QUERY(layer_norm_bwd),
    ENTRY(rope_table),
    ENTRY(rope),
    ENTRY(embedding_fwd),
    ENTRY(embedding_bwd),
    ENTRY(activation_fwd),
    ENTRY(activation_bwd),
    ENTRY(swiglu_fwd),
    ENTRY(swiglu_bwd),
    ENTRY(copy),
    ENTRY(fill),
    ENTRY(add),
    ENTRY(sum),
    {.name = "sum_squares", .build = build_sum, .run = sum_squares},
    ENTRY(sum_rows),
    ENTRY(dropout_add),
    ENTRY_WITH_QUERY(linear_cross_entropy_fwd),
    ENTRY_WITH_QUERY(linear_cross_entropy_bwd),
    ENTRY(kv_append),
    ENTRY(adamw),
    {0},
};
