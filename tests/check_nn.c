/*
 * check_nn.c - layers against plain loops, generation against the full forward, memory against its formula
 */
#include "kit/kit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kit/fenced.h"
#include "kit/llama.h"
#include "kit/tensor.h"
#include "tessera/rope.h"
#include "tessera/tape_ops.h"

static tsr_context *ctx;
static tsr_tape *tape;

static int set_up(void **state)
{
    (void)state;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "reference"}, &ctx));
    KIT_OK(tsr_tape_create(ctx, &tape));
    return 0;
}

static int set_up_cpu(void **state)
{
    (void)state;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = "cpu", .n_threads = 3}, &ctx));
    KIT_OK(tsr_tape_create(ctx, &tape));
    return 0;
}

static int set_up_fenced(void **state)
{
    (void)state;
    ctx = kit_fenced();
    KIT_OK(tsr_tape_create(ctx, &tape));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tsr_tape_destroy(tape);
    tsr_context_destroy(ctx);
    kit_free_all();
    return 0;
}

/* ---- multi-head attention against loops ---- */

enum { B = 2, L = 4, LS = 3, DIM = 6, DIM_S = 5, HQ = 4, HKV = 2, D = 4, OUT = 3 };

/* y [rows, n] = x [rows, k] @ w [n, k]^T + bias */
static void project(const double *x, int64_t n_rows, const tsr_linear *l, double *y)
{
    const int64_t n = l->weight.value.shape[0], k = l->weight.value.shape[1];
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n; i++) {
            double sum = l->bias.value.data != NULL ? kit_get(&l->bias.value, i) : 0;
            for (int64_t j = 0; j < k; j++) sum += x[r * k + j] * kit_get(&l->weight.value, i * k + j);
            y[r * n + i] = sum;
        }
}

/* Rows [B, length, n_heads, D] turned by their positions from `start`: pairs (p, p + D/2). */
static void turn(double *x, int length, int n_heads, int start)
{
    for (int row = 0; row < B * length; row++)
        for (int h = 0; h < n_heads; h++)
            for (int p = 0; p < D / 2; p++) {
                double *u = x + (row * n_heads + h) * D + p, *w = u + D / 2;
                const double angle = (start + row % length) * pow(10000, -2.0 * p / D);
                const double a = *u, b = *w;
                *u = a * cos(angle) - b * sin(angle);
                *w = b * cos(angle) + a * sin(angle);
            }
}

/* One query head's row: softmax over the keys that it sees, then their values. */
static void attend(const double *q, const double *k, const double *v, int n_keys, double *out)
{
    double p[LS + L], sum = 0;
    for (int j = 0; j < n_keys; j++) {
        double s = 0;
        for (int d = 0; d < D; d++) s += q[d] * k[j * HKV * D + d];
        sum += p[j] = exp(s / sqrt(D));
    }
    for (int d = 0; d < D; d++) {
        out[d] = 0;
        for (int j = 0; j < n_keys; j++) out[d] += p[j] / sum * v[j * HKV * D + d];
    }
}

static void attention_by_loops(const tsr_attention_layer *l, const double *x, const double *source, int ls,
                               int start, double *y)
{
    double q[B * L * HQ * D], k[B * (L + LS) * HKV * D], v[B * (L + LS) * HKV * D], out[B * L * HQ * D];
    project(x, B * L, &l->q, q);
    project(source, (int64_t)B * ls, &l->k, k);
    project(source, (int64_t)B * ls, &l->v, v);
    if (l->rope_cos.data != NULL) turn(q, L, HQ, start), turn(k, ls, HKV, start);
    for (int b = 0; b < B; b++)
        for (int i = 0; i < L; i++)
            for (int h = 0; h < HQ; h++) {
                const int at_kv = b * ls * HKV * D + h / (HQ / HKV) * D;
                const int64_t at = ((b * L + i) * HQ + h) * D;
                attend(q + at, k + at_kv, v + at_kv, l->causal ? i + 1 : ls, out + at);
            }
    project(out, B * L, &l->o, y);
}

static tsr_linear random_linear(int64_t n_out, int64_t n_in, int bias)
{
    tsr_linear l = {.weight.value = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, n_out, n_in))};
    if (bias) l.bias.value = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, n_out));
    return l;
}

static tsr_attention_layer random_attention(int64_t dim_s, int bias)
{
    return (tsr_attention_layer){.q = random_linear((int64_t)HQ * D, DIM, bias),
                                 .k = random_linear((int64_t)HKV * D, dim_s, bias),
                                 .v = random_linear((int64_t)HKV * D, dim_s, bias),
                                 .o = random_linear(OUT, (int64_t)HQ * D, bias),
                                 .n_heads = HQ,
                                 .n_kv_heads = HKV,
                                 .head_dim = D};
}

static void check_close(const tsr_tensor *got, const double *expected, double tolerance, const char *what)
{
    const int64_t n = tsr_tensor_numel(got);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(kit_get(got, i) - expected[i]) <= tolerance * (1 + fabs(expected[i]))))
            fail_msg("%s: element %d is %.12g, must be %.12g; TSR_SEED=%llu", what, (int)i, kit_get(got, i),
                     expected[i], (unsigned long long)kit_seed());
}

static tsr_var input(const tsr_tensor *t)
{
    tsr_var x;
    KIT_OK(tsr_tape_input(tape, t, &x));
    return x;
}

static void test_self_attention(void **state)
{
    (void)state;
    tsr_attention_layer l = random_attention(DIM, 1);
    const int start = 3;
    l.causal = 1;
    l.rope_cos = KIT_NEW(TSR_F64, KIT_ROWS, L + start, D / 2);
    l.rope_sin = KIT_NEW(TSR_F64, KIT_ROWS, L + start, D / 2);
    KIT_OK(tsr_rope_table(ctx, 10000, &l.rope_cos, &l.rope_sin));
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B, L, DIM));
    double expected[B * L * OUT];
    attention_by_loops(&l, x.data, x.data, L, start, expected);
    tsr_var y;
    tsr_tensor value;
    KIT_OK(tsr_attention_layer_forward(tape, &l, input(&x), &(tsr_attention_inputs){.start = start}, &y));
    KIT_OK(tsr_tape_value(tape, y, &value));
    check_close(&value, expected, 1e-12, "self attention");
}

static void test_cross_attention(void **state)
{
    (void)state;
    const tsr_attention_layer l = random_attention(DIM_S, 0);
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B, L, DIM));
    const tsr_tensor source = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B, LS, DIM_S));
    double expected[B * L * OUT];
    attention_by_loops(&l, x.data, source.data, LS, 0, expected);
    tsr_var y;
    tsr_tensor value;
    const tsr_attention_inputs in = {.source = input(&source)};
    KIT_OK(tsr_attention_layer_forward(tape, &l, input(&x), &in, &y));
    KIT_OK(tsr_tape_value(tape, y, &value));
    check_close(&value, expected, 1e-12, "cross attention");
    /* A padded source: its last row is never seen, so that attention over the first two is the same. */
    double short_source[B * 2 * DIM_S];
    for (int b = 0; b < B; b++)
        memcpy(short_source + (ptrdiff_t)b * 2 * DIM_S, (double *)source.data + (ptrdiff_t)b * LS * DIM_S,
               2 * DIM_S * sizeof(double));
    attention_by_loops(&l, x.data, short_source, 2, 0, expected);
    const tsr_tensor lengths = kit_constant(KIT_NEW(TSR_I32, KIT_ROWS, B), 2);
    const tsr_attention_inputs padded = {.source = input(&source), .seqlens_k = input(&lengths)};
    KIT_OK(tsr_attention_layer_forward(tape, &l, input(&x), &padded, &y));
    KIT_OK(tsr_tape_value(tape, y, &value));
    check_close(&value, expected, 1e-12, "padded cross attention");
}

static void test_feed_forward(void **state)
{
    (void)state;
    enum { ROWS = 3, INNER = 7 };
    tsr_feed_forward l = {.gate = random_linear(INNER, DIM, 1),
                          .up = random_linear(INNER, DIM, 1),
                          .down = random_linear(OUT, INNER, 1)};
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, ROWS, DIM));
    double gate[ROWS * INNER], up[ROWS * INNER], expected[ROWS * OUT];
    tsr_var y;
    tsr_tensor value;
    project(x.data, ROWS, &l.gate, gate);
    project(x.data, ROWS, &l.up, up);
    for (int i = 0; i < ROWS * INNER; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    project(gate, ROWS, &l.down, expected);
    KIT_OK(tsr_feed_forward_forward(tape, &l, input(&x), &y));
    KIT_OK(tsr_tape_value(tape, y, &value));
    check_close(&value, expected, 1e-12, "gated feed-forward");
    l.gate = (tsr_linear){0};
    l.activation = TSR_ACTIVATION_RELU;
    for (int i = 0; i < ROWS * INNER; i++) up[i] = fmax(up[i], 0);
    project(up, ROWS, &l.down, expected);
    KIT_OK(tsr_feed_forward_forward(tape, &l, input(&x), &y));
    KIT_OK(tsr_tape_value(tape, y, &value));
    check_close(&value, expected, 1e-12, "plain feed-forward");
}

/* ---- generation ---- */

static const kit_llama_sizes small = {.dtype = TSR_F32,
                                      .vocabulary = 13,
                                      .dim = 16,
                                      .n_layers = 2,
                                      .n_heads = 4,
                                      .n_kv_heads = 2,
                                      .head_dim = 4,
                                      .feed_forward = 24,
                                      .n_positions = 12};

/* Hidden states of one sequence, all at once: [length, dim] into `out`. */
static void full_forward(const kit_llama *m, const int32_t *ids, int64_t length, double *out)
{
    tsr_tape *own;
    tsr_var hidden;
    tsr_tensor value;
    KIT_OK(tsr_tape_create(m->ctx, &own));
    const tsr_tensor t = kit_device_i32(m->ctx, ids, 2, (const int64_t[]){1, length});
    KIT_OK(kit_llama_hidden(m, own, &t, NULL, &hidden));
    KIT_OK(tsr_tape_value(own, hidden, &value));
    for (int64_t i = 0; i < length * m->sizes.dim; i++) out[i] = kit_device_get(m->ctx, &value, i);
    tsr_tape_destroy(own);
    KIT_OK(tsr_free(m->ctx, t.data));
}

enum { SEQUENCES = 3, MAX_LENGTH = 12, STEP_ROWS = 5 };

typedef struct generation {
    kit_llama *m;
    tsr_kv_cache *cache;
    int32_t ids[SEQUENCES][MAX_LENGTH];
} generation;

/* Feeds lengths[b] more ids of each sequence (n_rows of each, the rest padding); checks every row. */
static void step(generation *g, int64_t n_rows, const int32_t *lengths)
{
    int32_t rows[SEQUENCES * STEP_ROWS];
    const int64_t dim = g->m->sizes.dim;
    for (int b = 0; b < SEQUENCES; b++)
        for (int64_t i = 0; i < n_rows; i++) {
            const int64_t at = tsr_kv_cache_length(g->cache, b) + i;
            rows[b * n_rows + i] = i < lengths[b] ? g->ids[b][at] : 0;
        }
    bool all = true;
    for (int b = 0; b < SEQUENCES; b++) all &= lengths[b] == n_rows;
    KIT_OK(tsr_kv_cache_extend(g->cache, n_rows, all ? NULL : lengths));
    const tsr_tensor t = kit_device_i32(g->m->ctx, rows, 2, (const int64_t[]){SEQUENCES, n_rows});
    tsr_var hidden;
    tsr_tensor value;
    KIT_OK(kit_llama_hidden(g->m, tape, &t, g->cache, &hidden));
    KIT_OK(tsr_tape_value(tape, hidden, &value));
    for (int b = 0; b < SEQUENCES; b++) {
        double expected[MAX_LENGTH * 16];
        const int64_t total = tsr_kv_cache_length(g->cache, b), first = total - lengths[b];
        full_forward(g->m, g->ids[b], total, expected);
        for (int64_t i = 0; i < lengths[b] * dim; i++) {
            const double got = kit_device_get(g->m->ctx, &value, b * n_rows * dim + i);
            if (!(fabs(got - expected[first * dim + i]) <= 2e-5))
                fail_msg("sequence %d row %d: %.9g, the full forward has %.9g; TSR_SEED=%llu", b,
                         (int)(first + i / dim), got, expected[first * dim + i],
                         (unsigned long long)kit_seed());
        }
    }
    KIT_OK(tsr_tape_reset(tape));
    KIT_OK(tsr_free(g->m->ctx, t.data));
}

/* Prompts of different lengths, then token by token, then some taken back, then several at once. */
static void test_cache_gives_the_full_forward(void **state)
{
    (void)state;
    kit_llama m;
    generation g = {.m = &m};
    kit_llama_make(&m, ctx, &small, 0);
    const tsr_kv_cache_options o = {.n_layers = small.n_layers,
                                    .batch = SEQUENCES,
                                    .n_kv_heads = small.n_kv_heads,
                                    .capacity = MAX_LENGTH,
                                    .head_dim = small.head_dim,
                                    .dtype = small.dtype};
    KIT_OK(tsr_kv_cache_create(ctx, &o, &g.cache));
    assert_int_equal(tsr_kv_cache_nbytes(g.cache), 2 * 2 * SEQUENCES * 2 * MAX_LENGTH * 4 * 4);
    for (int b = 0; b < SEQUENCES; b++)
        for (int i = 0; i < MAX_LENGTH; i++) g.ids[b][i] = (int32_t)kit_between(0, small.vocabulary - 1);
    step(&g, 5, (const int32_t[]){5, 3, 1});
    for (int i = 0; i < 3; i++) step(&g, 1, (const int32_t[]){1, 1, 1});
    const uint64_t n_allocations = tsr_tape_memory_use(tape).n_allocations;
    step(&g, 1, (const int32_t[]){1, 0, 1});
    KIT_OK(tsr_kv_cache_shorten(g.cache, 0, 6));
    for (int i = 6; i < MAX_LENGTH; i++) g.ids[0][i] = (g.ids[0][i] + 1) % (int32_t)small.vocabulary;
    step(&g, 4, (const int32_t[]){4, 4, 4});
    step(&g, 2, (const int32_t[]){2, 0, 1});
    assert_int_equal(tsr_kv_cache_length(g.cache, 0), 12);
    assert_int_equal(tsr_tape_memory_use(tape).n_allocations, n_allocations);
    tsr_kv_cache_destroy(g.cache);
    kit_llama_free(&m);
}

/* A sequence alone and in a batch: the same bits. */
static void test_rows_do_not_see_their_batch(void **state)
{
    (void)state;
    kit_llama m;
    int32_t ids[SEQUENCES * 7];
    double alone[7 * 16];
    tsr_var hidden;
    tsr_tensor value;
    kit_llama_make(&m, ctx, &small, 0);
    for (int i = 0; i < SEQUENCES * 7; i++) ids[i] = (int32_t)kit_between(0, small.vocabulary - 1);
    const tsr_tensor t = kit_device_i32(ctx, ids, 2, (const int64_t[]){SEQUENCES, 7});
    KIT_OK(kit_llama_hidden(&m, tape, &t, NULL, &hidden));
    KIT_OK(tsr_tape_value(tape, hidden, &value));
    for (int64_t b = 0; b < SEQUENCES; b++) {
        full_forward(&m, ids + 7 * b, 7, alone);
        for (int64_t i = 0; i < 7 * small.dim; i++)
            assert_true(kit_device_get(ctx, &value, b * 7 * small.dim + i) == alone[i]);
    }
    KIT_OK(tsr_free(ctx, t.data));
    kit_llama_free(&m);
}

/* ---- memory ---- */

/* Exactly what kit/llama.h says, and nothing is allocated once two steps have been seen. */
static void check_memory(tsr_dtype dtype, int64_t feed_forward)
{
    kit_llama m;
    kit_llama_sizes sizes = small;
    sizes.dtype = dtype;
    sizes.feed_forward = feed_forward;
    kit_llama_make(&m, ctx, &sizes, 1);
    const int64_t shape[] = {2, 9}, n = 18;
    const tsr_tensor ids = kit_device_ids(ctx, sizes.vocabulary, 2, shape);
    uint64_t n_allocations = 0;
    for (int i = 0; i < 3; i++) {
        tsr_var loss;
        KIT_OK(kit_llama_loss(&m, tape, &ids, &ids, &loss));
        assert_int_equal(tsr_tape_memory_use(tape).in_use_nbytes, kit_llama_saved_nbytes(&sizes, n));
        KIT_OK(tsr_tape_backward(tape, loss, 1));
        assert_int_equal(tsr_tape_memory_use(tape).step_peak_nbytes, kit_llama_peak_nbytes(&sizes, n));
        KIT_OK(tsr_tape_reset(tape));
        if (i == 1) n_allocations = tsr_tape_memory_use(tape).n_allocations;
    }
    assert_int_equal(tsr_tape_memory_use(tape).n_allocations, n_allocations);
    KIT_OK(tsr_synchronise(ctx));
    KIT_OK(tsr_free(ctx, ids.data));
    kit_llama_free(&m);
}

static void test_memory_of_a_step(void **state)
{
    (void)state;
    check_memory(TSR_F32, 24);
    check_memory(TSR_F32, 64);
    check_memory(TSR_BF16, 24);
    check_memory(TSR_BF16, 64);
}

/* ---- bf16 ---- */

/* The same parameters in bf16 and in f32 (rounded to bf16): losses and gradients are close. */
static void test_bf16_follows_f32(void **state)
{
    (void)state;
    kit_llama narrow, wide;
    kit_llama_sizes sizes = small;
    const int64_t shape[] = {2, 8};
    tsr_var loss;
    tsr_tensor value;
    double losses[2];
    sizes.dtype = TSR_BF16;
    kit_llama_make(&narrow, ctx, &sizes, 1);
    kit_llama_make(&wide, ctx, &small, 1);
    for (int32_t i = 0; i < wide.n_parameters; i++)
        KIT_OK(tsr_copy(ctx, &narrow.parameters[i].value, &wide.parameters[i].value));
    const tsr_tensor ids = kit_device_ids(ctx, small.vocabulary, 2, shape);
    const kit_llama *models[] = {&narrow, &wide};
    for (int k = 0; k < 2; k++) {
        KIT_OK(kit_llama_loss(models[k], tape, &ids, &ids, &loss));
        KIT_OK(tsr_tape_value(tape, loss, &value));
        losses[k] = kit_device_get(ctx, &value, 0);
        KIT_OK(tsr_tape_backward(tape, loss, 1));
        KIT_OK(tsr_tape_reset(tape));
    }
    assert_true(fabs(losses[0] - losses[1]) < 0.02 * losses[1]);
    for (int32_t i = 0; i < wide.n_parameters; i++) {
        double error = 0, size = 0;
        for (int64_t j = 0; j < tsr_tensor_numel(&wide.parameters[i].grad); j++) {
            const double g = kit_device_get(ctx, &wide.parameters[i].grad, j);
            const double d = kit_device_get(ctx, &narrow.parameters[i].grad, j) - g;
            error += d * d, size += g * g;
        }
        if (!(error <= 0.05 * 0.05 * size)) fail_msg("parameter %d: off by %g of %g", (int)i, error, size);
    }
    KIT_OK(tsr_free(ctx, ids.data));
    kit_llama_free(&narrow);
    kit_llama_free(&wide);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
/* The same on other backends. */
#define ON(backend, name)                                                                                    \
    {                                                                                                        \
#name " on " #backend, name, set_up_##backend, tear_down, NULL                                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_self_attention),
        TEST(test_cross_attention),
        TEST(test_feed_forward),
        TEST(test_cache_gives_the_full_forward),
        ON(cpu, test_cache_gives_the_full_forward),
        ON(fenced, test_cache_gives_the_full_forward),
        ON(cpu, test_rows_do_not_see_their_batch),
        TEST(test_memory_of_a_step),
        ON(cpu, test_memory_of_a_step),
        ON(fenced, test_memory_of_a_step),
        TEST(test_bf16_follows_f32),
        ON(cpu, test_bf16_follows_f32),
    };
    return cmocka_run_group_tests_name("nn", tests, NULL, NULL);
}
