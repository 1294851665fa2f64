/*
 * check_training.c - the same training on every backend
 *
 * Steps of a small model with gradient accumulation, the gradient's norm and AdamW. The fenced device gives
 * the reference's bits without the host touching a tensor; the cpu backend gives its own bits for any number
 * of threads, and the reference's numbers within bounds.
 */
#include "kit/kit.h"

#include <math.h>
#include <string.h>

#include "kit/compare.h"
#include "kit/fenced.h"
#include "kit/isa.h"
#include "kit/llama.h"
#include "kit/tensor.h"
#include "tessera/optimizer.h"

enum { STEPS = 3, MICRO_BATCHES = 2, MAX_VALUES = 16384 };

/* Losses, norms and at last every parameter, as double. */
typedef struct outcome {
    int64_t n;
    double value[MAX_VALUES];
} outcome;

static const kit_llama_sizes small = {.dtype = TSR_F32,
                                      .vocabulary = 29,
                                      .dim = 20,
                                      .n_layers = 2,
                                      .n_heads = 4,
                                      .n_kv_heads = 2,
                                      .head_dim = 6,
                                      .feed_forward = 36,
                                      .n_positions = 20};

static void keep(outcome *o, tsr_context *ctx, const tsr_tensor *t)
{
    assert_true(o->n + tsr_tensor_numel(t) <= MAX_VALUES);
    for (int64_t i = 0; i < tsr_tensor_numel(t); i++) o->value[o->n++] = kit_device_get(ctx, t, i);
}

static tsr_tensor like(tsr_context *ctx, const tsr_tensor *t)
{
    tsr_tensor made;
    KIT_OK(tsr_tensor_allocate(ctx, TSR_F32, t->rank, t->shape, &made));
    KIT_OK(tsr_fill(ctx, 0, &made));
    return made;
}

static void accumulate(const kit_llama *m, tsr_tape *tape, outcome *o)
{
    const int64_t shape[] = {2, 17};
    tsr_var loss;
    tsr_tensor value;
    const tsr_tensor ids = kit_device_ids(m->ctx, m->sizes.vocabulary, 2, shape);
    KIT_OK(kit_llama_loss(m, tape, &ids, &ids, &loss));
    KIT_OK(tsr_tape_backward(tape, loss, 1.0 / MICRO_BATCHES));
    KIT_OK(tsr_tape_value(tape, loss, &value));
    keep(o, m->ctx, &value);
    KIT_OK(tsr_tape_reset(tape)); /* nothing is queued since the loss was read */
    KIT_OK(tsr_free(m->ctx, ids.data));
}

static void train(tsr_context *ctx, const kit_llama_sizes *sizes, outcome *o)
{
    static kit_llama m;
    tsr_tape *tape;
    tsr_tensor momentum[KIT_LLAMA_MAX_PARAMETERS], variance[KIT_LLAMA_MAX_PARAMETERS], norm;
    kit_random_restart();
    o->n = 0;
    KIT_OK(tsr_tape_create(ctx, &tape));
    kit_llama_make(&m, ctx, sizes, 1);
    KIT_OK(tsr_tensor_allocate(ctx, TSR_F32, 0, NULL, &norm));
    for (int32_t i = 0; i < m.n_parameters; i++)
        momentum[i] = like(ctx, &m.parameters[i].value), variance[i] = like(ctx, &m.parameters[i].value);
    tsr_adamw_options adamw = {
        .lr = 0.02f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-6f, .weight_decay = 0.1f};
    for (int step = 1; step <= STEPS; step++) {
        m.dropout = (tsr_dropout){.p = 0.1f, .seed = (uint64_t)step};
        kit_llama_clear_grads(&m);
        for (int k = 0; k < MICRO_BATCHES; k++) accumulate(&m, tape, o);
        for (int32_t i = 0; i < m.n_parameters; i++)
            KIT_OK(tsr_sum_squares(ctx, &m.parameters[i].grad, i > 0, &norm));
        keep(o, ctx, &norm);
        adamw.step = step;
        for (int32_t i = 0; i < m.n_parameters; i++)
            KIT_OK(tsr_adamw(ctx, &adamw, &m.parameters[i].value, NULL, &m.parameters[i].grad, &momentum[i],
                             &variance[i]));
    }
    for (int32_t i = 0; i < m.n_parameters; i++) keep(o, ctx, &m.parameters[i].value);
    for (int32_t i = 0; i < m.n_parameters; i++) {
        KIT_OK(tsr_free(ctx, momentum[i].data));
        KIT_OK(tsr_free(ctx, variance[i].data));
    }
    KIT_OK(tsr_free(ctx, norm.data));
    kit_llama_free(&m);
    tsr_tape_destroy(tape);
}

static outcome expected, got;

static void test_loss_falls(void **state)
{
    (void)state;
    train(kit_reference(), &small, &expected);
    /* loss, loss, norm for each step: the last loss is below the first, and no norm is 0 or absurd. */
    assert_true(expected.value[3 * (STEPS - 1)] < expected.value[0]);
    for (int step = 0; step < STEPS; step++) {
        const double norm = expected.value[3 * step + 2];
        assert_true(norm > 1e-3 && norm < 1e3);
    }
}

static void test_fenced_gives_the_references_bits(void **state)
{
    (void)state;
    train(kit_reference(), &small, &expected);
    tsr_context *ctx = kit_fenced();
    train(ctx, &small, &got);
    tsr_context_destroy(ctx);
    assert_int_equal(got.n, expected.n);
    assert_memory_equal(got.value, expected.value, (size_t)got.n * sizeof *got.value);
}

static void on_this_isa(tsr_context *ctx)
{
    train(ctx, &small, &got);
    assert_int_equal(got.n, expected.n);
    for (int64_t i = 0; i < got.n; i++)
        if (!(fabs(got.value[i] - expected.value[i]) <= 2e-3 * (1 + fabs(expected.value[i]))))
            kit_fail("training: value %d is %.9g, the reference has %.9g", (int)i, got.value[i],
                     expected.value[i]);
    static outcome again;
    for (int32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
        tsr_context *other = kit_cpu_with_threads(n_threads);
        train(other, &small, &again);
        tsr_context_destroy(other);
        if (memcmp(again.value, got.value, (size_t)got.n * sizeof *got.value) != 0)
            kit_fail("training: %d threads give other bits than 2", (int)n_threads);
    }
}

static void test_cpu_follows_the_reference(void **state)
{
    (void)state;
    train(kit_reference(), &small, &expected);
    kit_for_each_isa(on_this_isa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls),
        cmocka_unit_test(test_fenced_gives_the_references_bits),
        cmocka_unit_test(test_cpu_follows_the_reference),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
