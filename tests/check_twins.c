/*
 * check_twins.c - wrong twins of the elementwise and row kernels: the trials of this project must reject each
 *
 * A twin is the real record with one function that makes a mistake a kernel might make: a tail left out, a
 * row not scaled, a place off by one, the neighbouring formula.
 */
#include "backend/cpu/cpu.h"
#include "kit/trial.h"
#include "op/context.h"
#include "tessera/tessera.h"

static tsr_elementwise_f32_kernel e, e_twin; /* the real ones, and what the context at hand runs */
static tsr_row_f32_kernel r, r_twin;

/* --- operators, on inputs as their checks have them --- */

#define RUN(name)                                                                                            \
    static tsr_status name(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options)
static const tsr_dropout dropout = {.p = 0.5f, .seed = 3};
static const tsr_adamw_options adamw_options = {
    .lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .step = 1};
static const tsr_rope_options rope_options = {.start = 1};

RUN(gelu) { return (void)options, tsr_activation_fwd(ctx, TSR_ACTIVATION_GELU, &in[0], &out[0]); }
RUN(gelu_bwd) { return (void)options, tsr_activation_bwd(ctx, TSR_ACTIVATION_GELU, &in[0], &in[1], &out[0]); }
RUN(swiglu_bwd) { return (void)options, tsr_swiglu_bwd(ctx, &in[0], &in[1], &in[2], &out[0], &out[1]); }
RUN(add) { return (void)options, tsr_add(ctx, 2, &in[0], 3, &in[1], &out[0]); }
RUN(drop) { return (void)options, tsr_dropout_add(ctx, &in[0], &in[1], &dropout, &out[0]); }
RUN(adamw) { return (void)options, tsr_adamw(ctx, &adamw_options, &out[0], NULL, &in[0], &out[1], &out[2]); }
RUN(softmax) { return (void)options, tsr_softmax_fwd(ctx, &in[0], &out[0]); }
RUN(softmax_bwd) { return (void)options, tsr_softmax_bwd(ctx, &in[0], &in[1], &out[0]); }
RUN(sum_rows) { return (void)options, tsr_sum_rows(ctx, &in[0], 0, &out[3]); }
RUN(layer_norm)
{
    return (void)options, tsr_layer_norm_fwd(ctx, &in[0], &in[3], &in[4], 1e-5f, &out[0], NULL, NULL);
}
RUN(rms_norm_bwd)
{
    return (void)options, tsr_rms_norm_bwd(ctx, &in[0], &in[3], &in[5], &in[1], 0, &out[0], &out[3], NULL);
}
RUN(rope) /* [M, N] as [M, 1, 1, N]: every row at position 1 */
{
    (void)options;
    tsr_tensor x, y, c, s;
    const int64_t shape[] = {in[0].shape[0], 1, 1, in[0].shape[1]}, table[] = {2, in[0].shape[1] / 2};
    KIT_OK(tsr_tensor_reshape(&in[0], 4, shape, &x));
    KIT_OK(tsr_tensor_reshape(&out[0], 4, shape, &y));
    KIT_OK(tsr_tensor_reshape(&in[3], 2, table, &c));
    KIT_OK(tsr_tensor_reshape(&in[4], 2, table, &s));
    return tsr_rope(ctx, &x, &c, &s, &rope_options, &y);
}

enum { M = 5, N = 38 }; /* a tail at every number of lanes */

/* in: three [M, N], weight, bias, rstd; out: three [M, N], [N] */
static bool agrees(tsr_context *ctx, const char *what, tsr_dtype dtype,
                   tsr_status (*run)(tsr_context *, const tsr_tensor *, const tsr_tensor *, const void *))
{
    kit_trial t = {.what = what, .run = run, .n_in = 6, .n_out = 4, .bound = {.rel = 4e-6, .of_largest = 8}};
    for (int i = 0; i < 3; i++) t.in[i] = kit_normal(KIT_NEW(dtype, KIT_ROWS, M, N));
    t.in[3] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, N)), t.in[4] = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, N));
    t.in[5] = kit_uniform(KIT_NEW(TSR_F32, KIT_ROWS, M), 0.5, 2);
    for (int i = 0; i < 3; i++) t.out[i] = kit_uniform(KIT_NEW(dtype, KIT_ROWS, M, N), 0.5, 1);
    t.out[3] = kit_uniform(KIT_NEW(TSR_F32, KIT_ROWS, N), 0.5, 1);
    const bool agreed = kit_trial_agrees(ctx, &t);
    kit_free_all();
    return agreed;
}

/* --- mistakes --- */

static void load_short(float *y, const void *x, tsr_dtype dtype, int64_t stride, int64_t n)
{
    e.load(y, x, dtype, stride, n - n % 4);
    for (int64_t i = n - n % 4; i < n; i++) y[i] = 0;
}
static void store_short(void *y, tsr_dtype dtype, int64_t stride, const float *x, int64_t n)
{
    e.store(y, dtype, stride, x, n - n % 4);
}
static void gelu_short(int64_t n, const float *x, float *y)
{
    e.activation_fwd[TSR_ACTIVATION_GELU](n - 1, x, y);
}
static void swiglu_bwd_exchanged(int64_t n, const float *gate, const float *up, const float *dy, float *dgate,
                                 float *dup)
{
    e.swiglu_bwd(n, gate, up, dy, dup, dgate);
}
static void add_unscaled(int64_t n, float alpha, const float *a, float beta, const float *b, float *y)
{
    (void)beta;
    e.add(n, alpha, a, 1, b, y);
}
static void dropout_off(int64_t n, const tsr_dropout_row *row, uint32_t column, const float *x,
                        const float *residual, float *y)
{
    e.dropout_add(n, row, column + 4, x, residual, y);
}
static void adamw_without_correction(int64_t n, const tsr_adamw_step *step, float *p, const float *g,
                                     float *m, float *v)
{
    tsr_adamw_step s = *step;
    s.v_scale = 1;
    e.adamw(n, &s, p, g, m, v);
}
static float max_too_large(int64_t n, const float *x) { return r.max(n - 1, x) + 100; }
static float exp_sum_short(int64_t n, const float *x, float max) { return r.exp_sum(n - 1, x, max); }
static void exp_unscaled(int64_t n, const float *x, float max, float scale, float *y)
{
    r.exp_scale(n, x, max, 1, y);
    r.exp_scale(n - 1, x, max, scale, y);
}
static float dot_short(int64_t n, const float *a, const float *b) { return r.dot(n - n % 4, a, b); }
static float sum_squares_of_x(int64_t n, const float *x, float centre)
{
    return (void)centre, r.sum_squares(n, x, 0);
}
static void norm_without_bias(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                              const float *bias, float *y)
{
    (void)bias;
    r.norm_fwd(n, row, x, weight, NULL, y);
}
static void norm_dx_without_mean(int64_t n, const tsr_norm_row *row, const float *x, const float *weight,
                                 const float *dy, int accumulate, float *dx)
{
    tsr_norm_row without = *row;
    without.mean_gx = 0;
    r.norm_dx(n, &without, x, weight, dy, accumulate, dx);
}
static void norm_dweight_short(int64_t n, const tsr_norm_row *row, const float *x, const float *dy,
                               float *dweight)
{
    r.norm_dweight(n - 1, row, x, dy, dweight);
}
static void accumulate_short(int64_t n, const float *x, float *sums) { r.accumulate(n - n % 4, x, sums); }
static void rope_backwards(int64_t n, const float *u, const float *w, const float *cos, const float *sin,
                           int inverse, float *yu, float *yw)
{
    r.rope(n, u, w, cos, sin, !inverse, yu, yw);
}

/* The mistake in place, the operator runs; then the record is right again. */
#define REJECTS(slot, mistake, dtype, op)                                                                    \
    do {                                                                                                     \
        assert_true(agrees(ctx, #op, dtype, op));                                                            \
        slot = mistake;                                                                                      \
        if (agrees(ctx, #op, dtype, op)) kit_fail(#mistake " passed as " #op);                               \
        e_twin = e, r_twin = r;                                                                              \
    } while (0)

static void twins(tsr_context *ctx)
{
    tsr_cpu *cpu = ctx->state;
    e = e_twin = *cpu->elementwise_f32, r = r_twin = *cpu->row_f32;
    cpu->elementwise_f32 = &e_twin, cpu->row_f32 = &r_twin;
    REJECTS(e_twin.load, load_short, TSR_F16, add);
    REJECTS(e_twin.store, store_short, TSR_BF16, add);
    REJECTS(e_twin.activation_fwd[TSR_ACTIVATION_GELU], gelu_short, TSR_F32, gelu);
    REJECTS(e_twin.activation_fwd[TSR_ACTIVATION_GELU], e.activation_fwd[TSR_ACTIVATION_GELU_TANH], TSR_F32,
            gelu);
    REJECTS(e_twin.activation_bwd[TSR_ACTIVATION_GELU], e.activation_bwd[TSR_ACTIVATION_GELU_TANH], TSR_F32,
            gelu_bwd);
    REJECTS(e_twin.swiglu_bwd, swiglu_bwd_exchanged, TSR_F32, swiglu_bwd);
    REJECTS(e_twin.add, add_unscaled, TSR_F32, add);
    REJECTS(e_twin.dropout_add, dropout_off, TSR_F32, drop);
    REJECTS(e_twin.adamw, adamw_without_correction, TSR_F32, adamw);
    REJECTS(r_twin.max, max_too_large, TSR_F32, softmax);
    REJECTS(r_twin.exp_sum, exp_sum_short, TSR_F32, softmax);
    REJECTS(r_twin.exp_scale, exp_unscaled, TSR_F32, softmax);
    REJECTS(r_twin.dot, dot_short, TSR_F32, softmax_bwd);
    REJECTS(r_twin.sum_squares, sum_squares_of_x, TSR_F32, layer_norm);
    REJECTS(r_twin.norm_fwd, norm_without_bias, TSR_F32, layer_norm);
    REJECTS(r_twin.norm_dx, norm_dx_without_mean, TSR_F32, rms_norm_bwd);
    REJECTS(r_twin.norm_dweight, norm_dweight_short, TSR_F32, rms_norm_bwd);
    REJECTS(r_twin.accumulate, accumulate_short, TSR_F32, sum_rows);
    REJECTS(r_twin.rope, rope_backwards, TSR_F32, rope);
}

static void test_wrong_twins_are_rejected(void **state)
{
    (void)state;
    kit_for_each_isa(twins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_twins_are_rejected)};
    return cmocka_run_group_tests_name("twins", tests, NULL, NULL);
}
