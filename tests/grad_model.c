/*
 * grad_model.c - the gradients of a whole two-layer model, by the tape, against finite differences
 *
 * In f64 on the reference backend, every element of every parameter:
 *     dloss/dp = (loss(p + h) - loss(p - h)) / 2h + O(h^2)
 */
#include "kit/kit.h"

#include <math.h>

#include "kit/llama.h"
#include "kit/tensor.h"
#include "tessera/tape_ops.h"

enum { BATCH = 2, LENGTH = 5 };

typedef struct fixture {
    tsr_context *ctx;
    tsr_tape *tape;
    kit_llama model;
    tsr_tensor ids, targets;
} fixture;

static const kit_llama_sizes small = {.dtype = TSR_F64,
                                      .vocabulary = 7,
                                      .dim = 6,
                                      .n_layers = 2,
                                      .n_heads = 4,
                                      .n_kv_heads = 2,
                                      .head_dim = 2,
                                      .feed_forward = 5,
                                      .n_positions = LENGTH};

static void set_up(fixture *f, const kit_llama_sizes *sizes)
{
    const int64_t shape[] = {BATCH, LENGTH};
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &f->ctx));
    KIT_OK(tsr_tape_create(f->ctx, &f->tape));
    kit_llama_make(&f->model, f->ctx, sizes, 1);
    f->ids = kit_device_ids(f->ctx, sizes->vocabulary, 2, shape);
    f->targets = kit_device_ids(f->ctx, sizes->vocabulary, 2, shape);
    kit_device_set(f->ctx, &f->targets, 3, -100); /* ignored */
}

static void tear_down(fixture *f)
{
    kit_llama_free(&f->model);
    KIT_OK(tsr_free(f->ctx, f->ids.data));
    KIT_OK(tsr_free(f->ctx, f->targets.data));
    tsr_tape_destroy(f->tape);
    tsr_context_destroy(f->ctx);
}

static double loss_of(fixture *f)
{
    tsr_var loss;
    tsr_tensor value;
    tsr_tape_set_recording(f->tape, 0);
    KIT_OK(kit_llama_loss(&f->model, f->tape, &f->ids, &f->targets, &loss));
    KIT_OK(tsr_tape_value(f->tape, loss, &value));
    const double x = kit_device_get(f->ctx, &value, 0);
    KIT_OK(tsr_tape_reset(f->tape));
    tsr_tape_set_recording(f->tape, 1);
    return x;
}

static void check_element(fixture *f, const tsr_parameter *p, int32_t which, int64_t i, double factor)
{
    const double h = 1e-5, here = kit_device_get(f->ctx, &p->value, i);
    kit_device_set(f->ctx, &p->value, i, here + h);
    const double above = loss_of(f);
    kit_device_set(f->ctx, &p->value, i, here - h);
    const double below = loss_of(f);
    kit_device_set(f->ctx, &p->value, i, here);
    const double expected = factor * (above - below) / (2 * h), got = kit_device_get(f->ctx, &p->grad, i);
    if (!(fabs(got - expected) <= 1e-7 * (1 + fabs(expected))))
        fail_msg("parameter %d element %d: gradient %.12g, finite differences %.12g; TSR_SEED=%llu",
                 (int)which, (int)i, got, expected, (unsigned long long)kit_seed());
}

/* factor: the sum of the scales of the backwards. */
static void check_gradients(fixture *f, double factor)
{
    for (int32_t which = 0; which < f->model.n_parameters; which++) {
        const tsr_parameter *p = &f->model.parameters[which];
        double largest = 0;
        for (int64_t i = 0; i < tsr_tensor_numel(&p->value); i++) {
            check_element(f, p, which, i, factor);
            largest = fmax(largest, fabs(kit_device_get(f->ctx, &p->grad, i)));
        }
        assert_true(largest > 1e-4); /* every parameter matters */
    }
}

static void backward(fixture *f, double scale)
{
    tsr_var loss;
    KIT_OK(kit_llama_loss(&f->model, f->tape, &f->ids, &f->targets, &loss));
    KIT_OK(tsr_tape_backward(f->tape, loss, scale));
    KIT_OK(tsr_tape_reset(f->tape));
}

static void test_plain(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &small);
    backward(&f, 1);
    check_gradients(&f, 1);
    tear_down(&f);
}

/* Two micro-batches, here the same one, add up; one table serves both ends; residuals drop out. */
static void test_tied_with_dropout_and_accumulation(void **state)
{
    (void)state;
    fixture f;
    kit_llama_sizes sizes = small;
    sizes.tied = 1;
    set_up(&f, &sizes);
    f.model.dropout = (tsr_dropout){.p = 0.3f, .seed = 5, .offset = 9};
    backward(&f, 0.5);
    backward(&f, 0.25);
    check_gradients(&f, 0.75);
    tear_down(&f);
}

/* Takes a parameter out of the model. */
static void drop_parameter(kit_llama *m, tsr_parameter *p)
{
    int32_t i = 0;
    while (m->parameters[i].value.data != p->value.data) i++;
    m->parameters[i] = m->parameters[--m->n_parameters];
    KIT_OK(tsr_free(m->ctx, p->value.data));
    KIT_OK(tsr_free(m->ctx, p->grad.data));
    *p = (tsr_parameter){0};
}

/* Windowed, capped attention without rotation; LayerNorm; the plain feed-forward; biases everywhere. */
static void test_other_kinds_of_layers(void **state)
{
    (void)state;
    fixture f;
    kit_llama_sizes sizes = small;
    set_up(&f, &sizes);
    kit_llama *m = &f.model;
    tsr_parameter bias[3];
    const int64_t dim = sizes.dim;
    for (int k = 0; k < 3; k++) {
        KIT_OK(tsr_tensor_allocate(f.ctx, TSR_F64, 1, &dim, &bias[k].value));
        KIT_OK(tsr_tensor_allocate(f.ctx, TSR_F64, 1, &dim, &bias[k].grad));
        KIT_OK(tsr_fill(f.ctx, 0.25 * (k + 1), &bias[k].value));
        KIT_OK(tsr_fill(f.ctx, 0, &bias[k].grad));
        m->parameters[m->n_parameters++] = bias[k];
    }
    m->blocks[0].attention.rope_cos.data = NULL;
    m->blocks[0].attention.window = (tsr_attention_window){.on = 1, .left = 1, .right = -1};
    m->blocks[0].attention.softcap = 2;
    m->blocks[0].attention.o.bias = bias[0];
    m->blocks[1].attention_norm.centred = 1;
    m->blocks[1].attention_norm.bias = bias[1];
    m->blocks[1].feed_forward.down.bias = bias[2];
    drop_parameter(m, &m->blocks[1].feed_forward.gate.weight);
    m->blocks[1].feed_forward.activation = TSR_ACTIVATION_GELU;
    m->norm.centred = 1;
    backward(&f, 1);
    check_gradients(&f, 1);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_tied_with_dropout_and_accumulation),
        cmocka_unit_test(test_other_kinds_of_layers),
    };
    return cmocka_run_group_tests_name("grad_model", tests, NULL, NULL);
}
