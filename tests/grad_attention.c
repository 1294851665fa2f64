/*
 * grad_attention.c - attention's backward against finite differences of the reference, features combined
 *
 * Shapes, layouts and features are drawn at random for each trial; the loss is sum(out * dout) + sum(lse *
 * dlse) over the rows whose lse is finite. Forward and backward see the same tensors, so that a feature that
 * backward forgets, or applies in another order, shows in at least one gradient.
 */
#include <math.h>
#include <stdio.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/gradient.h"
#include "kit/isa.h"
#include "tessera/attention.h"

enum { BIAS = 1, MASK = 2, ALIBI = 4, SINKS = 8, LENGTHS = 16, PACKED = 32, DROPOUT = 64, SOFTCAP = 128 };
enum { CAUSAL = 256, WINDOW = 512, ALL_FEATURES = 1023 };

typedef struct problem {
    int features;
    int64_t b, hq, hkv, lq, lk, d, dv;
    tsr_tensor q, k, v, out, lse, dout, dlse;
    tsr_tensor bias, mask, alibi, sinks, lengths_q, lengths_k;
    tsr_attention_options options;
    char name[128];
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    KIT_OK(tsr_attention_fwd(kit_reference(), &p->q, &p->k, &p->v, &p->out, &p->lse, &p->options, NULL));
    return kit_dot(&p->out, &p->dout) + kit_dot(&p->lse, &p->dlse);
}

static tsr_tensor normal(int32_t rank, const int64_t *shape)
{
    return kit_normal(kit_new(TSR_F64, kit_any_output(), rank, shape));
}

/* Starts of b sequences, none above `longest`; the total is their last. */
static tsr_tensor random_starts(int64_t b, int64_t longest)
{
    const tsr_tensor starts = KIT_NEW(TSR_I32, kit_any_output(), b + 1);
    int64_t at = 0;
    for (int64_t i = 0; i <= b; i++) {
        kit_set(&starts, i, (double)at);
        at += kit_between(0, longest);
    }
    return starts;
}

static void make_lengths(problem *p)
{
    if (p->features & PACKED) {
        p->lengths_q = random_starts(p->b, p->lq), p->lengths_k = random_starts(p->b, p->lk);
        p->options.cu_seqlens_q = &p->lengths_q, p->options.cu_seqlens_k = &p->lengths_k;
        p->options.max_lq = p->lq, p->options.max_lk = p->lk;
    } else if (p->features & LENGTHS) {
        p->lengths_q = kit_integers(KIT_NEW(TSR_I32, kit_any_output(), p->b), 0, p->lq);
        p->lengths_k = kit_integers(KIT_NEW(TSR_I32, kit_any_output(), p->b), 0, p->lk);
        p->options.seqlens_q = &p->lengths_q, p->options.seqlens_k = &p->lengths_k;
    }
}

static void make_inputs(problem *p)
{
    const int64_t b = p->b, hq = p->hq, hkv = p->hkv;
    if (p->features & PACKED) {
        const int64_t nq = (int64_t)kit_get(&p->lengths_q, b), nk = (int64_t)kit_get(&p->lengths_k, b);
        p->q = normal(3, (const int64_t[]){nq, hq, p->d});
        p->k = normal(3, (const int64_t[]){nk, hkv, p->d});
        p->v = normal(3, (const int64_t[]){nk, hkv, p->dv});
        p->dout = normal(3, (const int64_t[]){nq, hq, p->dv});
        p->dlse = normal(2, (const int64_t[]){hq, nq});
    } else {
        p->q = normal(4, (const int64_t[]){b, hq, p->lq, p->d});
        p->k = normal(4, (const int64_t[]){b, hkv, p->lk, p->d});
        p->v = normal(4, (const int64_t[]){b, hkv, p->lk, p->dv});
        p->dout = normal(4, (const int64_t[]){b, hq, p->lq, p->dv});
        p->dlse = normal(3, (const int64_t[]){b, hq, p->lq});
    }
    p->out = kit_like(&p->dout, TSR_F64, kit_any_output());
    p->lse = kit_like(&p->dlse, TSR_F64, kit_any_output());
}

/* [b, hq, lq, lk], a random extent of each being 1. */
static void broadcast_shape(const problem *p, int64_t *shape)
{
    const int64_t full[] = {p->b, p->hq, p->lq, p->lk};
    for (int i = 0; i < 4; i++) shape[i] = kit_one_in(3) ? 1 : full[i];
}

static void make_features(problem *p)
{
    int64_t shape[4];
    broadcast_shape(p, shape);
    p->bias = normal(4, shape);
    broadcast_shape(p, shape);
    p->mask = kit_integers(kit_new(TSR_BOOL, kit_any_output(), 4, shape), 0, 3); /* 3 of 4 are visible */
    p->alibi = kit_uniform(KIT_NEW(TSR_F64, kit_any_output(), p->hq), 0, 1);
    p->sinks = kit_normal(KIT_NEW(TSR_F64, kit_any_output(), p->hq));
    tsr_attention_options *o = &p->options;
    if (p->features & BIAS) o->bias = &p->bias;
    if (p->features & MASK) o->mask = &p->mask;
    if (p->features & ALIBI) o->alibi = &p->alibi;
    if (p->features & SINKS) o->sinks = &p->sinks;
    if (p->features & DROPOUT) o->dropout_p = 0.3f, o->dropout_seed = 11, o->dropout_offset = 4;
    if (p->features & SOFTCAP) o->softcap = 1.5f;
    if (p->features & CAUSAL) o->causal = 1;
    if (p->features & WINDOW)
        o->window = (tsr_attention_window){.on = 1, .left = kit_between(-1, 3), .right = kit_between(-1, 3)};
    if (kit_one_in(2)) o->scale = 0.7f;
}

static problem random_problem(int features)
{
    problem p = {.features = features, .b = kit_between(1, 3), .hkv = kit_between(1, 2)};
    p.hq = p.hkv * kit_between(1, 3);
    p.lq = kit_between(1, 6), p.lk = kit_between(1, 7);
    p.d = kit_between(1, 5), p.dv = kit_between(1, 5);
    snprintf(p.name, sizeof p.name, "attention, features %d, b %lld hq %lld hkv %lld lq %lld lk %lld",
             features, (long long)p.b, (long long)p.hq, (long long)p.hkv, (long long)p.lq, (long long)p.lk);
    return p;
}

static void check_problem(int features)
{
    problem p = random_problem(features);
    make_lengths(&p);
    make_inputs(&p);
    make_features(&p);
    const tsr_tensor dq = kit_like(&p.q, TSR_F64, kit_any_output());
    const tsr_tensor dk = kit_like(&p.k, TSR_F64, kit_any_output());
    const tsr_tensor dv = kit_like(&p.v, TSR_F64, kit_any_output());
    const tsr_tensor dbias = kit_like(&p.bias, TSR_F64, kit_any_output());
    const tsr_tensor dsinks = kit_like(&p.sinks, TSR_F64, kit_any_output());
    const bool has_bias = (features & BIAS) != 0, has_sinks = (features & SINKS) != 0;
    const tsr_attention_saved saved = {.out = &p.out, .lse = &p.lse, .dout = &p.dout, .dlse = &p.dlse};
    const tsr_attention_grads grads = {.dq = &dq,
                                       .dk = &dk,
                                       .dv = &dv,
                                       .dbias = has_bias ? &dbias : NULL,
                                       .dsinks = has_sinks ? &dsinks : NULL};
    loss(&p);
    KIT_OK(tsr_attention_bwd(kit_reference(), &p.q, &p.k, &p.v, &saved, &grads, &p.options, NULL));
    kit_check_gradient(&p.q, &dq, loss, &p, "%s: dq", p.name);
    kit_check_gradient(&p.k, &dk, loss, &p, "%s: dk", p.name);
    kit_check_gradient(&p.v, &dv, loss, &p, "%s: dv", p.name);
    if (has_bias) kit_check_gradient(&p.bias, &dbias, loss, &p, "%s: dbias", p.name);
    if (has_sinks) kit_check_gradient(&p.sinks, &dsinks, loss, &p, "%s: dsinks", p.name);
    kit_free_all();
}

static void test_plain(void **state)
{
    (void)state;
    for (int trial = 0; trial < 5; trial++) check_problem(0);
}

static void test_each_feature(void **state)
{
    (void)state;
    for (int feature = 1; feature < ALL_FEATURES; feature *= 2)
        for (int trial = 0; trial < 4; trial++) check_problem(feature);
}

static void test_features_combined(void **state)
{
    (void)state;
    check_problem(ALL_FEATURES);
    check_problem(ALL_FEATURES & ~PACKED);
    for (int trial = 0; trial < 40; trial++) check_problem((int)kit_between(0, ALL_FEATURES));
}

/* Each gradient asked for alone, dlse absent. */
static void test_gradients_one_by_one(void **state)
{
    (void)state;
    problem p = random_problem(BIAS | SINKS | CAUSAL);
    make_inputs(&p);
    make_features(&p);
    kit_constant(p.dlse, 0);
    const tsr_tensor *inputs[] = {&p.q, &p.k, &p.v, &p.bias, &p.sinks};
    for (int wanted = 0; wanted < 5; wanted++) {
        const tsr_tensor gradient = kit_like(inputs[wanted], TSR_F64, kit_any_output());
        const tsr_attention_saved saved = {.out = &p.out, .lse = &p.lse, .dout = &p.dout};
        const tsr_attention_grads grads = {.dq = wanted == 0 ? &gradient : NULL,
                                           .dk = wanted == 1 ? &gradient : NULL,
                                           .dv = wanted == 2 ? &gradient : NULL,
                                           .dbias = wanted == 3 ? &gradient : NULL,
                                           .dsinks = wanted == 4 ? &gradient : NULL};
        loss(&p);
        KIT_OK(tsr_attention_bwd(kit_reference(), &p.q, &p.k, &p.v, &saved, &grads, &p.options, NULL));
        kit_check_gradient(inputs[wanted], &gradient, loss, &p, "%s: gradient %d alone", p.name, wanted);
    }
    kit_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_each_feature),
        cmocka_unit_test(test_features_combined),
        cmocka_unit_test(test_gradients_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
