/*
 * check_fixtures.c - the operators against PyTorch, so that reference and kernels cannot share one misreading
 *
 * Every case runs on the reference in f64 (bounds of f64) and on the cpu backend in f32 for each instruction
 * set.
 */
#include <string.h>

#include "kit/compare.h"
#include "kit/fixture.h"
#include "kit/isa.h"
#include "tessera/tessera.h"

/* The case at hand: where it runs, and in what. */
typedef struct runner {
    tsr_context *ctx;
    tsr_dtype dtype;
    kit_bound bound;
    kit_fixture fixture;
} runner;

static runner runner_on(tsr_context *ctx, const char *file)
{
    runner r = {.ctx = ctx, .dtype = TSR_F32, .bound = {.rel = 2e-6, .of_largest = 32}};
    if (ctx == kit_reference()) r.dtype = TSR_F64, r.bound = (kit_bound){.rel = 1e-13, .of_largest = 64};
    r.fixture = kit_fixture_open(file);
    return r;
}

static bool next_case(runner *r)
{
    kit_free_all();
    return kit_fixture_next(&r->fixture);
}

/* An input in the runner's dtype, ids and masks in their own. */
static tsr_tensor input(const runner *r, const char *name)
{
    return kit_fixture_get(&r->fixture, name, r->dtype, kit_any_output());
}
static tsr_tensor input_as(const runner *r, const char *name, tsr_dtype dtype)
{
    return kit_fixture_get(&r->fixture, name, dtype, kit_any_output());
}

/* A poisoned tensor for a result, in a layout of its own. */
static tsr_tensor output(const runner *r, const char *expected)
{
    const tsr_tensor e = kit_fixture_get(&r->fixture, expected, TSR_F64, KIT_ROWS);
    return kit_like(&e, r->dtype, kit_any_output());
}

static float number(const runner *r, const char *name)
{
    return (float)kit_fixture_number(&r->fixture, name, 0);
}

static void expect(const runner *r, const tsr_tensor *got, const char *name)
{
    const tsr_tensor e = kit_fixture_get(&r->fixture, name, TSR_F64, KIT_ROWS);
    kit_check(got, &e, r->bound, "%s %s: %s", r->fixture.file, r->fixture.name, name);
}

/* The operator runs; a failure is one of the case. */
#define RUN(r, call) run(r, #call, call)
static void run(const runner *r, const char *call, tsr_status status)
{
    if (status != TSR_OK) kit_fail("%s %s: %s: %s", r->fixture.file, r->fixture.name, call, tsr_last_error());
}

static void on_every_backend(void (*fn)(tsr_context *ctx))
{
    kit_random_restart();
    fn(kit_reference());
    kit_free_all();
    kit_for_each_isa(fn);
}

static tsr_activation activation_named(const char *name)
{
    static const struct {
        const char *name;
        tsr_activation activation;
    } all[] = {{"relu", TSR_ACTIVATION_RELU},
               {"gelu", TSR_ACTIVATION_GELU},
               {"gelu_tanh", TSR_ACTIVATION_GELU_TANH},
               {"silu", TSR_ACTIVATION_SILU}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0) return all[i].activation;
    return TSR_ACTIVATION_NONE;
}

static void swiglu(const runner *r)
{
    const tsr_tensor gate = input(r, "gate"), up = input(r, "up"), dy = input(r, "dy");
    const tsr_tensor y = output(r, "y"), dgate = output(r, "dgate"), dup = output(r, "dup");
    RUN(r, tsr_swiglu_fwd(r->ctx, &gate, &up, &y));
    expect(r, &y, "y");
    RUN(r, tsr_swiglu_bwd(r->ctx, &gate, &up, &dy, &dgate, &dup));
    expect(r, &dgate, "dgate");
    expect(r, &dup, "dup");
}

static void activations(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "activation"); next_case(&r);) {
        const tsr_activation activation = activation_named(r.fixture.name);
        if (activation == TSR_ACTIVATION_NONE) {
            swiglu(&r);
            continue;
        }
        const tsr_tensor x = input(&r, "x"), dy = input(&r, "dy"), y = output(&r, "y"), dx = output(&r, "dx");
        RUN(&r, tsr_activation_fwd(ctx, activation, &x, &y));
        expect(&r, &y, "y");
        RUN(&r, tsr_activation_bwd(ctx, activation, &x, &dy, &dx));
        expect(&r, &dx, "dx");
    }
}

static void softmaxes(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "softmax"); next_case(&r);) {
        const tsr_tensor x = input(&r, "x"), dy = input(&r, "dy"), y = output(&r, "y"), dx = output(&r, "dx");
        RUN(&r, tsr_softmax_fwd(ctx, &x, &y));
        expect(&r, &y, "y");
        RUN(&r, tsr_softmax_bwd(ctx, &y, &dy, &dx));
        expect(&r, &dx, "dx");
    }
}

static void norms(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "norm"); next_case(&r);) {
        const bool centred = kit_fixture_has(&r.fixture, "bias");
        const tsr_tensor x = input(&r, "x"), weight = input(&r, "weight"), dy = input(&r, "dy");
        const tsr_tensor y = output(&r, "y"), dx = output(&r, "dx"), dweight = output(&r, "dweight");
        const tsr_tensor mean = KIT_NEW(r.dtype, KIT_ROWS, x.shape[0], x.shape[1]);
        const tsr_tensor rstd = kit_like(&mean, r.dtype, KIT_ROWS);
        const float eps = number(&r, "eps");
        if (!centred) {
            RUN(&r, tsr_rms_norm_fwd(ctx, &x, &weight, eps, &y, &rstd));
            expect(&r, &y, "y");
            RUN(&r, tsr_rms_norm_bwd(ctx, &x, &weight, &rstd, &dy, 0, &dx, &dweight, NULL));
        } else {
            const tsr_tensor bias = input(&r, "bias"), dbias = output(&r, "dbias");
            RUN(&r, tsr_layer_norm_fwd(ctx, &x, &weight, &bias, eps, &y, &mean, &rstd));
            expect(&r, &y, "y");
            RUN(&r, tsr_layer_norm_bwd(ctx, &x, &weight, &mean, &rstd, &dy, 0, &dx, &dweight, &dbias, NULL));
            expect(&r, &dbias, "dbias");
        }
        expect(&r, &dx, "dx");
        expect(&r, &dweight, "dweight");
    }
}

static void ropes(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "rope"); next_case(&r);) {
        const tsr_tensor x = input(&r, "x"), dy = input(&r, "dy"), y = output(&r, "y"), dx = output(&r, "dx");
        const tsr_tensor positions = input_as(&r, "positions", TSR_I32);
        const tsr_tensor cos = KIT_NEW(r.dtype, kit_any_output(), 90, x.shape[3] / 2);
        const tsr_tensor sin = kit_like(&cos, r.dtype, kit_any_output());
        tsr_rope_options options = {.positions = &positions, .interleaved = number(&r, "interleaved") != 0};
        RUN(&r, tsr_rope_table(ctx, number(&r, "theta"), &cos, &sin));
        RUN(&r, tsr_rope(ctx, &x, &cos, &sin, &options, &y));
        expect(&r, &y, "y");
        options.inverse = 1;
        RUN(&r, tsr_rope(ctx, &dy, &cos, &sin, &options, &dx));
        expect(&r, &dx, "dx");
    }
}

static void embeddings(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "embedding"); next_case(&r);) {
        const tsr_tensor table = input(&r, "table"), ids = input_as(&r, "ids", TSR_I32);
        const tsr_tensor dout = input(&r, "dout"), out = output(&r, "out"), dtable = output(&r, "dtable");
        RUN(&r, tsr_embedding_fwd(ctx, &table, &ids, &out));
        expect(&r, &out, "out");
        RUN(&r, tsr_embedding_bwd(ctx, &ids, &dout, 0, &dtable));
        expect(&r, &dtable, "dtable");
    }
}

static void cross_entropies(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "cross_entropy"); next_case(&r);) {
        const tsr_tensor x = input(&r, "x"), w = input(&r, "w"), targets = input_as(&r, "targets", TSR_I32);
        const tsr_tensor dloss = input(&r, "dloss"), loss = output(&r, "loss"), lse = output(&r, "lse");
        const tsr_tensor dx = output(&r, "dx"), dw = output(&r, "dw");
        const int32_t ignore = (int32_t)number(&r, "ignore_index");
        RUN(&r, tsr_linear_cross_entropy_fwd(ctx, &x, &w, &targets, ignore, &loss, &lse, NULL));
        expect(&r, &loss, "loss");
        expect(&r, &lse, "lse");
        RUN(&r, tsr_linear_cross_entropy_bwd(ctx, &x, &w, &targets, ignore, &lse, &dloss, 0, &dx, &dw, NULL));
        expect(&r, &dx, "dx");
        expect(&r, &dw, "dw");
    }
}

static void optimisers(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "adamw"); next_case(&r);) {
        const tsr_tensor p = kit_fixture_get(&r.fixture, "p", r.dtype, KIT_ROWS);
        const tsr_tensor gradients = kit_fixture_get(&r.fixture, "g", r.dtype, KIT_ROWS);
        const tsr_tensor m = kit_constant(kit_like(&p, r.dtype, KIT_ROWS), 0);
        const tsr_tensor v = kit_constant(kit_like(&p, r.dtype, KIT_ROWS), 0);
        tsr_adamw_options options = {.lr = number(&r, "lr"),
                                     .beta1 = number(&r, "beta1"),
                                     .beta2 = number(&r, "beta2"),
                                     .eps = number(&r, "eps"),
                                     .weight_decay = number(&r, "weight_decay")};
        for (int64_t i = 0; i < gradients.shape[0]; i++) {
            const tsr_tensor step = tsr_tensor_slice(&gradients, 0, i, 1);
            tsr_tensor g;
            KIT_OK(tsr_tensor_reshape(&step, p.rank, p.shape, &g));
            options.step = i + 1;
            RUN(&r, tsr_adamw(ctx, &options, &p, NULL, &g, &m, &v));
        }
        expect(&r, &p, "p_after");
        expect(&r, &m, "m_after");
        expect(&r, &v, "v_after");
    }
}

static void products(tsr_context *ctx)
{
    for (runner r = runner_on(ctx, "bmm"); next_case(&r);) {
        const tsr_tensor a = input(&r, "a"), b = input(&r, "b"), c = input(&r, "c"), dc = input(&r, "dc");
        const tsr_tensor da = output(&r, "da"), db = output(&r, "db");
        const float alpha = number(&r, "alpha"), beta = number(&r, "beta");
        RUN(&r, tsr_bmm(ctx, alpha, &a, &b, beta, &c, NULL));
        expect(&r, &c, "result");
        RUN(&r, tsr_bmm_bwd(ctx, alpha, &a, &b, &dc, 0, &da, &db, NULL));
        expect(&r, &da, "da");
        expect(&r, &db, "db");
    }
}

/* A case of attention: tensors, and the options that point at them. */
typedef struct attention_case {
    tsr_tensor q, k, v, out, lse, dout, dlse;
    tsr_tensor alibi, bias, mask, sinks, cu_seqlens_q, cu_seqlens_k;
    tsr_attention_options options;
} attention_case;

/* An optional input; NULL if the case has none. */
static const tsr_tensor *option(const runner *r, const char *name, tsr_dtype dtype, tsr_tensor *slot)
{
    if (!kit_fixture_has(&r->fixture, name)) return NULL;
    *slot = input_as(r, name, dtype);
    return slot;
}

static void read_attention(const runner *r, attention_case *a)
{
    *a = (attention_case){.q = input(r, "q"), .k = input(r, "k"), .v = input(r, "v")};
    a->dout = input(r, "dout"), a->dlse = input(r, "dlse");
    a->out = output(r, "out"), a->lse = output(r, "lse");
    a->options = (tsr_attention_options){
        .scale = number(r, "scale"),
        .causal = number(r, "causal") != 0,
        .window = {.on = kit_fixture_has(&r->fixture, "window_left"),
                   .left = (int64_t)number(r, "window_left"),
                   .right = (int64_t)number(r, "window_right")},
        .softcap = number(r, "softcap"),
        .alibi = option(r, "alibi", r->dtype, &a->alibi),
        .bias = option(r, "bias", r->dtype, &a->bias),
        .mask = option(r, "mask", TSR_BOOL, &a->mask),
        .sinks = option(r, "sinks", r->dtype, &a->sinks),
        .dropout_p = number(r, "dropout_p"),
        .dropout_seed = (uint64_t)kit_fixture_number(&r->fixture, "dropout_seed", 0),
        .dropout_offset = (uint32_t)number(r, "dropout_offset"),
        .cu_seqlens_q = option(r, "cu_seqlens_q", TSR_I32, &a->cu_seqlens_q),
        .cu_seqlens_k = option(r, "cu_seqlens_k", TSR_I32, &a->cu_seqlens_k),
        .max_lq = (int64_t)number(r, "max_lq"),
        .max_lk = (int64_t)number(r, "max_lk")};
}

static void attention_backward(const runner *r, const attention_case *a, bool fused)
{
    const tsr_attention_saved saved = {.out = &a->out, .lse = &a->lse, .dout = &a->dout, .dlse = &a->dlse};
    const tsr_tensor dq = output(r, "dq"), dk = output(r, "dk"), dv = output(r, "dv");
    tsr_tensor dbias, dsinks;
    tsr_attention_grads grads = {.dq = &dq, .dk = &dk, .dv = &dv};
    if (a->options.bias != NULL) dbias = output(r, "dbias"), grads.dbias = &dbias;
    if (a->options.sinks != NULL) dsinks = output(r, "dsinks"), grads.dsinks = &dsinks;
    RUN(r, (fused ? tsr_attention_bwd : tsr_attention_unfused_bwd)(r->ctx, &a->q, &a->k, &a->v, &saved,
                                                                   &grads, &a->options, NULL));
    expect(r, &dq, "dq");
    expect(r, &dk, "dk");
    expect(r, &dv, "dv");
    if (grads.dbias != NULL) expect(r, &dbias, "dbias");
    if (grads.dsinks != NULL) expect(r, &dsinks, "dsinks");
}

static void attention_cases(tsr_context *ctx, const char *file, bool fused)
{
    for (runner r = runner_on(ctx, file); next_case(&r);) {
        attention_case a;
        read_attention(&r, &a);
        RUN(&r, (fused ? tsr_attention_fwd : tsr_attention_unfused_fwd)(ctx, &a.q, &a.k, &a.v, &a.out, &a.lse,
                                                                        &a.options, NULL));
        expect(&r, &a.out, "out");
        expect(&r, &a.lse, "lse");
        attention_backward(&r, &a, fused);
    }
}

static void attentions(tsr_context *ctx) { attention_cases(ctx, "attention", true); }
static void packed_attentions(tsr_context *ctx) { attention_cases(ctx, "attention_packed", true); }
static void unfused_attentions(tsr_context *ctx) { attention_cases(ctx, "attention", false); }
static void unfused_packed_attentions(tsr_context *ctx) { attention_cases(ctx, "attention_packed", false); }

#define CHECK(operators)                                                                                     \
    static void test_##operators(void **state)                                                               \
    {                                                                                                        \
        (void)state;                                                                                         \
        on_every_backend(operators);                                                                         \
    }
CHECK(activations)
CHECK(softmaxes)
CHECK(norms)
CHECK(ropes)
CHECK(embeddings)
CHECK(cross_entropies)
CHECK(optimisers)
CHECK(products)
CHECK(attentions)
CHECK(packed_attentions)
CHECK(unfused_attentions)
CHECK(unfused_packed_attentions)
#undef CHECK

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_softmaxes),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_ropes),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_cross_entropies),
        cmocka_unit_test(test_optimisers),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_attentions),
        cmocka_unit_test(test_packed_attentions),
        cmocka_unit_test(test_unfused_attentions),
        cmocka_unit_test(test_unfused_packed_attentions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
