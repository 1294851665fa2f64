/*
 * grad_tape.c - every operator on variables: its gradients on the tape against finite differences
 *
 * A case makes one result from a few parameters; with a random dy the scalar is sum(dy * y). In f64 on the
 * reference backend. Each case runs once with parameters alone, and once with each replaced by p + p, so that
 * gradients of the tape's own variables (written, added, over other memory) are made too.
 */
#include "kit/kit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/tensor.h"
#include "tessera/rope.h"
#include "tessera/tape_ops.h"

enum { MAX_PARAMETERS = 5 };

static tsr_tape *tape;

typedef struct grad_case {
    const char *name;
    int32_t n;                                   /* parameters                      */
    int64_t shape[MAX_PARAMETERS][TSR_MAX_RANK]; /* up to the first 0               */
    tsr_status (*apply)(const tsr_var *p, tsr_var *y);
} grad_case;

static tsr_var constant(const tsr_tensor *t)
{
    tsr_var x;
    KIT_OK(tsr_tape_input(tape, t, &x));
    return x;
}

static tsr_var i32(int32_t *values, int64_t n)
{
    const tsr_tensor t = tsr_tensor_1d(values, TSR_I32, n);
    return constant(&t);
}

/* ---- the cases ---- */

static tsr_status matmul2d(const tsr_var *p, tsr_var *y) { return tsr_tape_matmul2d(tape, p[0], p[1], y); }
static tsr_status bmm(const tsr_var *p, tsr_var *y) { return tsr_tape_bmm(tape, p[0], p[1], y); }
static tsr_status linear(const tsr_var *p, tsr_var *y) { return tsr_tape_linear(tape, p[0], p[1], p[2], y); }
static tsr_status add(const tsr_var *p, tsr_var *y) { return tsr_tape_add(tape, p[0], p[1], 0, y); }
static tsr_status softmax(const tsr_var *p, tsr_var *y) { return tsr_tape_softmax(tape, p[0], y); }
static tsr_status swiglu(const tsr_var *p, tsr_var *y) { return tsr_tape_swiglu(tape, p[0], p[1], y); }
static tsr_status sum(const tsr_var *p, tsr_var *y) { return tsr_tape_sum(tape, p[0], y); }

static tsr_status gelu(const tsr_var *p, tsr_var *y)
{
    return tsr_tape_activation(tape, TSR_ACTIVATION_GELU_TANH, p[0], y);
}

static tsr_status rms_norm(const tsr_var *p, tsr_var *y)
{
    return tsr_tape_rms_norm(tape, p[0], p[1], 1e-3f, y);
}

static tsr_status layer_norm(const tsr_var *p, tsr_var *y)
{
    return tsr_tape_layer_norm(tape, p[0], p[1], p[2], 1e-3f, y);
}

static tsr_status layer_norm_without_bias(const tsr_var *p, tsr_var *y)
{
    return tsr_tape_layer_norm(tape, p[0], p[1], (tsr_var){0}, 1e-3f, y);
}

/* Rows of a view: every second row of p[0], every second column of p[1]'s transpose. */
static tsr_status linear_of_views(const tsr_var *p, tsr_var *y)
{
    tsr_var x, w;
    tsr_tensor t;
    TSR_TRY(tsr_tape_value(tape, p[0], &t));
    t.shape[0] = 2, t.stride[0] *= 2;
    TSR_TRY(tsr_tape_view(tape, p[0], &t, &x));
    TSR_TRY(tsr_tape_transpose(tape, p[1], 0, 1, &w));
    return tsr_tape_linear(tape, x, w, (tsr_var){0}, y);
}

static tsr_status copy_of_a_transpose(const tsr_var *p, tsr_var *y)
{
    tsr_var turned;
    TSR_TRY(tsr_tape_transpose(tape, p[0], 0, 1, &turned));
    return tsr_tape_copy(tape, turned, TSR_F64, y);
}

static tsr_status dropout(const tsr_var *p, tsr_var *y)
{
    return tsr_tape_dropout_add(tape, p[0], p[1], &(tsr_dropout){.p = 0.4f, .seed = 3}, 0, y);
}

/* x = a + b in place of a's copy; dropout without a residual in place of that. */
static tsr_status in_place(const tsr_var *p, tsr_var *y)
{
    tsr_var a, b;
    TSR_TRY(tsr_tape_copy(tape, p[0], TSR_F64, &a));
    TSR_TRY(tsr_tape_add(tape, a, p[1], 1, &b));
    return tsr_tape_dropout_add(tape, b, (tsr_var){0}, &(tsr_dropout){.p = 0.4f, .seed = 3}, 1, y);
}

static tsr_status rope_with(const tsr_var *p, const tsr_tape_rope_options *options, tsr_var *y)
{
    const tsr_tensor cos = KIT_NEW(TSR_F64, KIT_ROWS, 8, 2), sin = KIT_NEW(TSR_F64, KIT_ROWS, 8, 2);
    TSR_TRY(tsr_rope_table(tsr_tape_context(tape), 100, &cos, &sin));
    return tsr_tape_rope(tape, p[0], constant(&cos), constant(&sin), options, y);
}

static tsr_status rope(const tsr_var *p, tsr_var *y)
{
    return rope_with(p, &(tsr_tape_rope_options){.start = 3}, y);
}

static tsr_status rope_by_positions(const tsr_var *p, tsr_var *y)
{
    static int32_t at[] = {7, 0, 3, 3};
    const tsr_tensor positions = tsr_tensor_2d(at, TSR_I32, 2, 2);
    const tsr_tape_rope_options o = {.interleaved = 1, .positions = constant(&positions)};
    return rope_with(p, &o, y);
}

static tsr_status attention(const tsr_var *p, tsr_var *y)
{
    const tsr_tape_attention_options o = {.causal = 1, .softcap = 3, .sinks = p[3]};
    return tsr_tape_attention(tape, p[0], p[1], p[2], &o, y);
}

static tsr_status attention_with_bias(const tsr_var *p, tsr_var *y)
{
    static int32_t q[] = {3, 2}, k[] = {4, 3};
    static uint8_t visible[] = {1, 0, 1, 1};
    static double slopes[] = {0.5, 0.25};
    const tsr_tensor mask = tsr_tensor_4d(visible, TSR_BOOL, 1, 1, 1, 4);
    const tsr_tensor alibi = tsr_tensor_1d(slopes, TSR_F64, 2);
    const tsr_tape_attention_options o = {.scale = 0.7f,
                                          .bias = p[3],
                                          .mask = constant(&mask),
                                          .alibi = constant(&alibi),
                                          .seqlens_q = i32(q, 2),
                                          .seqlens_k = i32(k, 2),
                                          .dropout = {.p = 0.2f, .seed = 11}};
    return tsr_tape_attention(tape, p[0], p[1], p[2], &o, y);
}

static tsr_status attention_packed(const tsr_var *p, tsr_var *y)
{
    static int32_t starts[] = {0, 2, 5};
    const tsr_tape_attention_options o = {.cu_seqlens_q = i32(starts, 3),
                                          .cu_seqlens_k = i32(starts, 3),
                                          .window_on = 1,
                                          .window_left = 1,
                                          .window_right = -1};
    return tsr_tape_attention(tape, p[0], p[1], p[2], &o, y);
}

static tsr_status embedding(const tsr_var *p, tsr_var *y)
{
    static int32_t ids[] = {2, 0, 2, 4};
    return tsr_tape_embedding(tape, p[0], i32(ids, 4), y);
}

static tsr_status cross_entropy(const tsr_var *p, tsr_var *y)
{
    static int32_t targets[] = {2, -1, 0, 4};
    return tsr_tape_linear_cross_entropy(tape, p[0], p[1], i32(targets, 4), -1, y);
}

static const grad_case cases[] = {
    {"matmul2d", 2, {{3, 4}, {4, 2}}, matmul2d},
    {"bmm", 2, {{2, 3, 4}, {2, 4, 2}}, bmm},
    {"linear", 3, {{2, 3, 4}, {5, 4}, {5}}, linear},
    {"linear of views", 2, {{4, 3}, {3, 5}}, linear_of_views},
    {"add", 2, {{2, 3}, {2, 3}}, add},
    {"softmax", 1, {{2, 5}}, softmax},
    {"swiglu", 2, {{2, 5}, {2, 5}}, swiglu},
    {"gelu", 1, {{2, 5}}, gelu},
    {"sum", 1, {{2, 5}}, sum},
    {"rms_norm", 2, {{2, 3, 4}, {4}}, rms_norm},
    {"layer_norm", 3, {{2, 3, 4}, {4}, {4}}, layer_norm},
    {"layer_norm without bias", 2, {{3, 4}, {4}}, layer_norm_without_bias},
    {"copy of a transpose", 1, {{3, 4}}, copy_of_a_transpose},
    {"dropout_add", 2, {{4, 5}, {4, 5}}, dropout},
    {"in place", 2, {{4, 5}, {4, 5}}, in_place},
    {"rope", 1, {{2, 3, 2, 4}}, rope},
    {"rope by positions", 1, {{2, 3, 2, 4}}, rope_by_positions},
    {"attention", 4, {{2, 4, 3, 4}, {2, 2, 4, 4}, {2, 2, 4, 3}, {4}}, attention},
    {"attention with bias", 4, {{2, 2, 3, 4}, {2, 2, 4, 4}, {2, 2, 4, 4}, {1, 2, 1, 4}}, attention_with_bias},
    {"attention packed", 3, {{5, 2, 4}, {5, 1, 4}, {5, 1, 4}}, attention_packed},
    {"embedding", 1, {{5, 3}}, embedding},
    {"linear_cross_entropy", 2, {{4, 3}, {5, 3}}, cross_entropy},
};

/* ---- checking one ---- */

typedef struct grad_run {
    const grad_case *c;
    bool doubled; /* p + p takes the place of each p */
    tsr_parameter p[MAX_PARAMETERS];
    tsr_tensor dy;
} grad_run;

static tsr_var result_of(const grad_run *r)
{
    tsr_var v[MAX_PARAMETERS], y;
    for (int32_t i = 0; i < r->c->n; i++) {
        KIT_OK(tsr_tape_parameter(tape, &r->p[i], &v[i]));
        if (r->doubled) KIT_OK(tsr_tape_add(tape, v[i], v[i], 0, &v[i]));
    }
    if (r->c->apply(v, &y) != TSR_OK) kit_fail("%s: %s", r->c->name, tsr_last_error());
    for (int32_t i = 0; i < r->c->n; i++) tsr_tape_release(tape, v[i]);
    return y;
}

/* sum(dy * y) */
static double scalar_of(const grad_run *r)
{
    tsr_tensor y;
    double s = 0;
    tsr_tape_set_recording(tape, 0);
    KIT_OK(tsr_tape_value(tape, result_of(r), &y));
    for (int64_t i = 0; i < tsr_tensor_numel(&y); i++) s += kit_get(&r->dy, i) * kit_get(&y, i);
    KIT_OK(tsr_tape_reset(tape));
    tsr_tape_set_recording(tape, 1);
    return s;
}

static void check_element(const grad_run *r, int32_t which, int64_t i)
{
    const double h = 1e-5, here = kit_get(&r->p[which].value, i);
    kit_set(&r->p[which].value, i, here + h);
    const double above = scalar_of(r);
    kit_set(&r->p[which].value, i, here - h);
    const double below = scalar_of(r);
    kit_set(&r->p[which].value, i, here);
    const double expected = 1 + (above - below) / (2 * h), got = kit_get(&r->p[which].grad, i);
    if (!(fabs(got - expected) <= 1e-8 * (1 + fabs(expected))))
        kit_fail("%s%s: parameter %d element %d: gradient %.12g, finite differences %.12g", r->c->name,
                 r->doubled ? " of p + p" : "", (int)which, (int)i, got - 1, expected - 1);
}

static void check_case(const grad_case *c, bool doubled)
{
    grad_run r = {.c = c, .doubled = doubled};
    for (int32_t i = 0; i < c->n; i++) {
        int32_t rank = 0;
        while (rank < TSR_MAX_RANK && c->shape[i][rank] > 0) rank++;
        r.p[i].value = kit_normal(kit_new(TSR_F64, KIT_ROWS, rank, c->shape[i]));
        r.p[i].grad = kit_constant(kit_new(TSR_F64, KIT_ROWS, rank, c->shape[i]), 1); /* to be added to */
    }
    tsr_tensor value;
    const tsr_var y = result_of(&r);
    KIT_OK(tsr_tape_value(tape, y, &value));
    r.dy = kit_normal(kit_new(TSR_F64, KIT_ROWS, value.rank, value.shape));
    KIT_OK(tsr_tape_backward_from(tape, y, &r.dy));
    KIT_OK(tsr_tape_reset(tape));
    for (int32_t which = 0; which < c->n; which++)
        for (int64_t i = 0; i < tsr_tensor_numel(&r.p[which].value); i++) check_element(&r, which, i);
    kit_free_all();
}

static void test_every_operator(void **state)
{
    (void)state;
    KIT_OK(tsr_tape_create(kit_reference(), &tape));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case(&cases[i], false);
        check_case(&cases[i], true);
    }
    tsr_tape_destroy(tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_operator)};
    return cmocka_run_group_tests_name("grad_tape", tests, NULL, NULL);
}
