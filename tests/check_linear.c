/*
 * tests/check_linear.c - linear with packed and plain weights on every backend and instruction set
 *
 * Every format and type, strided and padded, against the loops of kit/linear.h; whole numbers to the bit;
 * rows that are not finite; the bits of a row for any number of threads and among any others.
 */
#include <math.h>
#include <stdlib.h>

#include "backend/weight_values.h"
#include "base/tensor.h"
#include "kit/fenced.h"
#include "kit/isa.h"
#include "kit/kit.h"
#include "kit/linear.h"

static int64_t one_of(const int64_t *list, size_t n) { return list[kit_between(0, (int64_t)n - 1)]; }
#define ONE_OF(...) one_of((const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void check(tsr_context *ctx, const kit_linear *l)
{
    kit_bound bound;
    const tsr_tensor expected = kit_linear_expected(l, &bound);
    kit_linear_run(ctx, l);
    kit_check(&l->y, &expected, bound, "linear on %s, %s", tsr_context_backend(ctx),
              kit_linear_describe(l).text);
}

static kit_linear random_layer(const kit_linear_kind *what)
{
    const int64_t m = ONE_OF(0, 1, 2, 3, 16, 17, 40, 113), n = ONE_OF(1, 2, 5, 15, 16, 17, 33, 64, 65, 70);
    if (!kit_linear_in_groups(what->format))
        return kit_linear_random(what, m, n, ONE_OF(1, 2, 3, 7, 16, 31, 64, 65, 129, 200, 513, 601), 0);
    const int64_t group = ONE_OF(32, 64, 128), longest = kit_one_in(3) ? 1100 : 300;
    return kit_linear_random(what, m, n, group * kit_between(1, longest / group), group);
}

static void check_kind(tsr_context *ctx, const kit_linear_kind *what)
{
    const kit_linear l = random_layer(what);
    check(ctx, &l);
}

/* Nothing to multiply: k = 0 leaves bias and residual; no row or no column, nothing. */
static void check_empty(tsr_context *ctx, const kit_linear_kind *what)
{
    const int64_t group = kit_linear_in_groups(what->format) ? 32 : 0;
    kit_linear_kind quantised_here = *what; /* integers of no group come without scales */
    quantised_here.given = false;
    const int64_t shapes[][3] = {{3, 5, 0}, {0, 5, 32}, {3, 0, 32}, {0, 0, 0}};
    for (int i = 0; i < 4; i++) {
        const kit_linear l = kit_linear_random(&quantised_here, shapes[i][0], shapes[i][1], shapes[i][2],
                                               group);
        check(ctx, &l);
    }
}

/* Whole numbers that every step can hold: no bit may be wrong, of any format. */
static void check_exact(tsr_context *ctx, const kit_linear_kind *what)
{
    const bool groups = kit_linear_in_groups(what->format);
    kit_linear_kind whole = *what;
    whole.given = what->format != TSR_WEIGHT_AS_IS, whole.y = TSR_F32;
    kit_linear l = kit_linear_random(&whole, kit_between(1, 20), kit_between(1, 70),
                                     groups ? 64 : kit_between(1, 70), groups ? 32 : 0);
    l.activation = TSR_ACTIVATION_NONE, l.scale = 0.5f, l.residual.data = NULL;
    l.x = kit_integers(kit_copy(&l.x, l.x.dtype, kit_any_output()), -9, 9);
    for (int64_t i = 0; i < l.m; i++) kit_set(&l.x, i * l.k + kit_between(0, l.k - 1), 127);
    tsr_weight_source *const sources[] = {&l.w, &l.gate};
    for (int s = 0; s < 1 + l.gated; s++)
        if (whole.given)
            kit_constant(sources[s]->scales, 0.25);
        else
            kit_integers(sources[s]->values, -3, 3);
    if (l.gated) { /* the product of two sums must fit, too */
        if (what->format == TSR_WEIGHT_INT8) kit_integers(l.w.values, -8, 7);
        kit_constant(l.gate.values, 1);
        if (l.gate.zeros.data != NULL) kit_constant(l.gate.zeros, 0);
    }
    if (l.bias.data != NULL) kit_integers(l.bias, -4, 4);
    if (l.gate_bias.data != NULL) kit_integers(l.gate_bias, -4, 4);
    kit_bound bound;
    const tsr_tensor expected = kit_linear_expected(&l, &bound);
    kit_linear_run(ctx, &l);
    kit_check(&l.y, &expected, KIT_EXACT, "linear of whole numbers, %s%s", kit_linear_formats[what->format],
              l.gated ? " gated" : "");
}

/* A NaN or an infinity in a row of x: that row alone is spoilt, a quantised one throughout. */
static void check_not_finite(tsr_context *ctx, const kit_linear_kind *what)
{
    const bool groups = kit_linear_in_groups(what->format), quantised = what->format != TSR_WEIGHT_AS_IS;
    kit_linear l = kit_linear_random(what, 17, 33, groups ? 192 : kit_between(1, 150), groups ? 64 : 0);
    l.x = kit_copy(&l.x, l.x.dtype, KIT_GAPS); /* no row twice */
    kit_set(&l.x, 3 * l.k + kit_between(0, l.k - 1), NAN);
    if (quantised || (l.activation == TSR_ACTIVATION_NONE && !l.gated)) {
        kit_set(&l.x, kit_between(0, l.k - 1), INFINITY);
        kit_set(&l.x, 16 * l.k + kit_between(0, l.k - 1), -INFINITY);
    }
    check(ctx, &l);
}

static void each_case(tsr_context *ctx)
{
    for (int i = 0; i < 2; i++) kit_linear_for_each_kind(ctx, check_kind);
    kit_linear_for_each_kind(ctx, check_empty);
    kit_linear_for_each_kind(ctx, check_exact);
    kit_linear_for_each_kind(ctx, check_not_finite);
}

/* --- bits --- */

static void same_bits_of_kind(tsr_context *ctx, const kit_linear_kind *what)
{
    const int64_t group = kit_linear_in_groups(what->format) ? ONE_OF(32, 64, 128) : 0;
    const kit_linear l = kit_linear_random(what, ONE_OF(2, 16, 17, 40, 113), ONE_OF(33, 150),
                                           group > 0 ? 640 : ONE_OF(40, 601), group);
    tsr_weight *weight = l.plain ? NULL : kit_linear_pack(ctx, &l);
    const tsr_tensor before = kit_copy(&l.y, l.y.dtype, KIT_ROWS);
    tsr_tensor y[3];
    for (int t = 0; t < 3; t++) {
        tsr_context *threads = kit_cpu_with_threads(t + 1);
        y[t] = kit_copy(&before, l.y.dtype, KIT_ROWS);
        KIT_OK(kit_linear_run_into(threads, &l, weight, &l.x, kit_linear_or_null(&l.residual), &y[t]));
        if (!kit_same_bits(&y[0], &y[t]))
            kit_fail("linear, %s: %d threads give other bits than 1", kit_linear_formats[what->format],
                     t + 1);
        const int64_t first = kit_between(0, l.m - 1), count = kit_between(1, l.m - first);
        const tsr_tensor x = tsr_tensor_slice(&l.x, 0, first, count),
                         whole = tsr_tensor_slice(&y[t], 0, first, count);
        tsr_tensor residual = l.residual;
        if (residual.data != NULL) residual = tsr_tensor_slice(&residual, 0, first, count);
        const tsr_tensor alone = kit_like(&whole, whole.dtype, kit_any_output());
        KIT_OK(kit_linear_run_into(threads, &l, weight, &x, kit_linear_or_null(&residual), &alone));
        if (!kit_same_bits(&alone, &whole))
            kit_fail("linear, %s x %s: rows %d.. (%d of %d) have other bits",
                     kit_linear_formats[what->format], tsr_dtype_name(what->x), (int)first, (int)count,
                     (int)l.m);
        tsr_context_destroy(threads);
    }
    tsr_weight_destroy(ctx, weight);
}

static void same_bits(tsr_context *ctx) { kit_linear_for_each_kind(ctx, same_bits_of_kind); }

/* --- quantisation itself --- */

/* A value is at most half a step from what it stands for, and 0 is 0. */
static void check_steps(tsr_weight_format format, double low, double high)
{
    enum { N = 64, GROUP = 32 };
    const tsr_weight_layout layout = {
        .format = format, .dtype = TSR_S8, .n = 1, .k = N, .group = kit_linear_in_groups(format) ? GROUP : 0};
    tsr_weight_source src = {.values = kit_uniform(KIT_NEW(TSR_F32, KIT_GAPS, 1, N), low, high)};
    kit_set(&src.values, 5, 0);
    int8_t q[N], zeros[N / GROUP] = {0};
    float scales[N / GROUP];
    tsr_weight_quantise_row(&layout, &src, 0, q, scales, zeros);
    for (int p = 0; p < N; p++) {
        const int g = kit_linear_in_groups(format) ? p / GROUP : 0;
        const double step = (double)scales[g], value = kit_get(&src.values, p);
        /* The zero point is rounded, too: a value may be a whole step away at the ends of the range. */
        const double most = format == TSR_WEIGHT_INT4_ZERO ? 1.001 : 0.501;
        if (!(fabs(step * (q[p] - zeros[g]) - value) <= most * step + 1e-40))
            kit_fail("%s of %g..%g: %g becomes %d - %d times %g", kit_linear_formats[format], low, high,
                     value, q[p], zeros[g], step);
    }
    assert_int_equal(q[5], zeros[0]);
    kit_free_all();
}

static void values_are_near_what_they_stand_for(void **state)
{
    (void)state;
    for (int format = TSR_WEIGHT_INT8; format <= TSR_WEIGHT_INT4_ZERO; format++) {
        check_steps((tsr_weight_format)format, -1, 1);
        check_steps((tsr_weight_format)format, 2, 3);
        check_steps((tsr_weight_format)format, -3, -2);
        check_steps((tsr_weight_format)format, -3e38, 3e38);
        check_steps((tsr_weight_format)format, -1e-30, 3e-30);
        check_steps((tsr_weight_format)format, 0, 0);
    }
}

static void rows_that_have_no_scale(void **state)
{
    (void)state;
    int8_t q[4];
    const float tiny[] = {1e-40f, -1e-40f, 0, 1e-38f}, spoilt[] = {1, NAN, 2, 3},
                row[] = {0.5f, -1, 1.5f, 127};
    assert_true(tsr_quantise_row(tiny, TSR_F32, 1, 4, q) == 0 && q[0] == 0 && q[3] == 0);
    assert_true(isnan(tsr_quantise_row(spoilt, TSR_F32, 1, 4, q)) && q[3] == 0);
    assert_false(isnan(tsr_quantise_row(spoilt, TSR_F32, 2, 2, q)));
    assert_true(tsr_quantise_row(row, TSR_F32, 1, 0, q) == 0);
    assert_true(tsr_quantise_row(row, TSR_F32, 1, 4, q) == 1);
    assert_true(q[0] == 0 && q[1] == -1 && q[2] == 2 && q[3] == 127); /* ties to even */
}

/* --- backends --- */

static void in_f64(void **state)
{
    (void)state;
    const kit_linear_kind what = {
        .format = TSR_WEIGHT_AS_IS, .gated = true, .x = TSR_F64, .w = TSR_F64, .y = TSR_F64};
    kit_linear l = kit_linear_random(&what, 7, 9, 30, 0);
    l.bias.data = l.gate_bias.data = NULL;
    kit_bound bound;
    const tsr_tensor expected = kit_linear_expected(&l, &bound);
    kit_linear_run(kit_reference(), &l);
    kit_check(&l.y, &expected, (kit_bound){.abs = 1e-13}, "linear in f64");
    kit_free_all();
}

static tsr_weight_source source_to_device(tsr_context *ctx, const tsr_weight_source *s)
{
    tsr_weight_source r = *s;
    r.values = kit_to_device(ctx, &s->values);
    if (s->scales.data != NULL) r.scales = kit_to_device(ctx, &s->scales);
    if (s->zeros.data != NULL) r.zeros = kit_to_device(ctx, &s->zeros);
    return r;
}

/* A device that queues: creation waits, the product does not; a weight may go while a product is queued. */
static void on_fenced_kind(tsr_context *unused, const kit_linear_kind *what)
{
    (void)unused;
    if (what->plain) return;
    tsr_context *ctx = kit_fenced();
    kit_linear l = random_layer(what);
    l.residual.data = l.bias.data = l.gate_bias.data = NULL;
    const tsr_tensor x = kit_to_device(ctx, &l.x), y = kit_to_device(ctx, &l.y);
    const tsr_weight_source w = source_to_device(ctx, &l.w);
    const tsr_weight_source gate = l.gated ? source_to_device(ctx, &l.gate) : w;
    tsr_weight *weight = NULL;
    KIT_OK(tsr_weight_create(ctx, &w, l.gated ? &gate : NULL, &l.format, &weight));
    assert_int_equal(kit_fenced_queued(ctx), 0);
    KIT_OK(kit_linear_run_into(ctx, &l, weight, &x, NULL, &y));
    assert_int_equal(kit_fenced_queued(ctx), 1);
    tsr_weight_destroy(ctx, weight);
    const tsr_tensor got = kit_clone(&l.y);
    kit_from_device(ctx, &y, &got);
    kit_linear_run(kit_reference(), &l);
    if (!kit_same_bits(&got, &l.y)) kit_fail("linear on fenced, %s", kit_linear_formats[what->format]);
    tsr_context_destroy(ctx);
}

static void on_the_fenced(void **state)
{
    (void)state;
    kit_linear_for_each_kind(NULL, on_fenced_kind);
}

static void on_the_reference(void **state)
{
    (void)state;
    each_case(kit_reference());
}

static void on_the_cpu(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(each_case);
}

static void bits_do_not_depend_on_threads_or_rows(void **state)
{
    (void)state;
    kit_for_each_gemm_isa(same_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_near_what_they_stand_for),
        cmocka_unit_test(rows_that_have_no_scale),
        cmocka_unit_test(on_the_reference),
        cmocka_unit_test(in_f64),
        cmocka_unit_test(on_the_fenced),
        cmocka_unit_test(on_the_cpu),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
