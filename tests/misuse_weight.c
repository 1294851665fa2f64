/*
 * tests/misuse_weight.c - what the packing of a weight refuses
 *
 * `out` stays as it was, and no memory is left behind.
 */
#include <math.h>
#include <stdio.h>

#include "base/error.h"
#include "kit/fenced.h"
#include "kit/isa.h"
#include "kit/misuse.h"
#include "op/context.h"
#include "tessera/linear.h"

enum { N = 5, K = 64 };

static int free_all(void **state)
{
    (void)state;
    kit_free_all();
    return 0;
}

static tsr_tensor input(tsr_dtype dtype, int64_t m, int64_t n)
{
    const tsr_tensor t = KIT_NEW(dtype, KIT_GAPS, m, n);
    return dtype == TSR_S8 ? kit_integers(t, 0, 7) : kit_normal(t);
}

static tsr_tensor vector(tsr_dtype dtype, int64_t n)
{
    return kit_integers(KIT_NEW(dtype, KIT_GAPS, n), 0, 7);
}

/* A source that is right for its format, of floats or of integers that come with scales. */
static tsr_weight_source source(tsr_weight_format format, bool given)
{
    tsr_weight_source s = {.values = input(given ? TSR_S8 : TSR_F32, N, K)};
    if (!given) return s;
    s.scales = format == TSR_WEIGHT_INT8 ? vector(TSR_F32, N) : input(TSR_F32, N, 2);
    if (format == TSR_WEIGHT_INT4_ZERO) s.zeros = input(TSR_S8, N, 2);
    return s;
}

static tsr_weight *const untouched = (tsr_weight *)(uintptr_t)64;

/* Creation fails with the status and the words, `out` and the sources as they were. */
static void refuses(tsr_context *ctx, tsr_status status, const char *words, const tsr_weight_source *w,
                    const tsr_weight_source *gate, const tsr_weight_options *o)
{
    tsr_weight *weight = untouched;
    KIT_REFUSES(status, words, tsr_weight_create(ctx, w, gate, o, &weight));
    KIT_FAILS(status, "weight_create: ", tsr_weight_create(ctx, w, gate, o, &weight));
    assert_ptr_equal(weight, untouched);
}

static void creation_without_arguments(void **state)
{
    tsr_context *ctx = *state;
    const tsr_weight_source w = source(TSR_WEIGHT_AS_IS, false);
    refuses(NULL, TSR_ERR_ARGUMENT, "the context is NULL", &w, NULL, NULL);
    refuses(ctx, TSR_ERR_ARGUMENT, "w is NULL", NULL, NULL, NULL);
    KIT_FAILS(TSR_ERR_ARGUMENT, "weight_create: out is NULL", tsr_weight_create(ctx, &w, NULL, NULL, NULL));
    refuses(ctx, TSR_ERR_SHAPE, "w.values has shape [], must have rank 2",
            &(tsr_weight_source){.values = {.data = &ctx}}, NULL, NULL);
    tsr_weight_source without = w;
    without.values.data = NULL;
    refuses(ctx, TSR_ERR_ARGUMENT, "w.values has no data", &without, NULL, NULL);
    refuses(ctx, TSR_ERR_ARGUMENT, "gate.values has no data", &w, &without, NULL);
    tsr_weight_destroy(ctx, NULL);
    assert_int_equal(tsr_weight_nbytes(NULL), 0);
}

static void formats_and_groups(void **state)
{
    tsr_context *ctx = *state;
    const tsr_weight_source w = source(TSR_WEIGHT_AS_IS, false);
    for (int format = -1; format <= 4; format += 5)
        refuses(ctx, TSR_ERR_ARGUMENT, "must be 0 to 3", &w, NULL,
                &(tsr_weight_options){.format = (tsr_weight_format)format});
    refuses(ctx, TSR_ERR_ARGUMENT, "options.group is 48, must be 32, 64 or 128 (0 means 32)", &w, NULL,
            &(tsr_weight_options){TSR_WEIGHT_INT4, 48});
    refuses(ctx, TSR_ERR_ARGUMENT, "options.group is -32, must be", &w, NULL,
            &(tsr_weight_options){TSR_WEIGHT_INT4_ZERO, -32});
    refuses(ctx, TSR_ERR_SHAPE, "options.group is 128, must divide w.values' second extent, 64", &w, NULL,
            &(tsr_weight_options){TSR_WEIGHT_INT4, 128});
    const tsr_weight_source odd = {.values = input(TSR_F32, N, 33)};
    refuses(ctx, TSR_ERR_SHAPE, "options.group is 32, must divide", &odd, NULL,
            &(tsr_weight_options){TSR_WEIGHT_INT4, 0});
}

static void sources_of_wrong_types(void **state)
{
    tsr_context *ctx = *state;
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0}, int4 = {TSR_WEIGHT_INT4, 0};
    const tsr_weight_source s8 = source(TSR_WEIGHT_INT8, true), f32 = source(TSR_WEIGHT_INT8, false);
    const tsr_weight_source f64 = {.values = input(TSR_F64, N, K)}, i32 = {.values = input(TSR_I32, N, K)};
    refuses(ctx, TSR_ERR_DTYPE, "w.values is s8, must be f32, f64, bf16 or f16", &s8, NULL, NULL);
    refuses(ctx, TSR_ERR_DTYPE, "w.values is i32, must be", &i32, NULL, NULL);
    refuses(ctx, TSR_ERR_DTYPE, "w.values is f64, must be f32, bf16, f16 or s8", &f64, NULL, &int8);
    refuses(kit_cpu(), TSR_ERR_DTYPE, "w.values is f64, which the cpu backend does not compute in", &f64,
            NULL, NULL);
    refuses(ctx, TSR_ERR_DTYPE, "gate.values is f32, must be of w.values's dtype, s8", &s8, &f32, &int8);
    const tsr_weight_source small = {.values = input(TSR_F32, N, K - 1)};
    refuses(ctx, TSR_ERR_SHAPE, "gate.values has shape [5, 63], must have w.values's, [5, 64]", &f32, &small,
            &int8);
    tsr_weight_source away = f32;
    away.values.device = TSR_DEVICE_CUDA;
    refuses(ctx, TSR_ERR_DEVICE, "w.values lives on device 1", &away, NULL, NULL);
    tsr_weight_source bad = s8;
    bad.scales = vector(TSR_F16, N);
    refuses(ctx, TSR_ERR_DTYPE, "w.scales is f16, must be f32", &bad, NULL, &int8);
    bad = source(TSR_WEIGHT_INT4_ZERO, true), bad.zeros = input(TSR_F32, N, 2);
    refuses(ctx, TSR_ERR_DTYPE, "w.zeros is f32, must be s8", &bad, NULL,
            &(tsr_weight_options){TSR_WEIGHT_INT4_ZERO, 0});
    bad = s8, bad.scales.device = TSR_DEVICE_CUDA;
    refuses(ctx, TSR_ERR_DEVICE, "gate.scales lives on device 1", &s8, &bad, &int8);
    bad = f32, bad.values.shape[0] = (int64_t)1 << 40, bad.values.shape[1] = (int64_t)1 << 30;
    refuses(ctx, TSR_ERR_OVERFLOW, "w.values is too large", &bad, NULL, &int4);
}

static void scales_and_zeros(void **state)
{
    tsr_context *ctx = *state;
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0}, int4 = {TSR_WEIGHT_INT4, 32},
                             zero = {TSR_WEIGHT_INT4_ZERO, 32};
    tsr_weight_source w = source(TSR_WEIGHT_INT8, true);
    w.scales = vector(TSR_F32, N + 1);
    refuses(ctx, TSR_ERR_SHAPE, "w.scales has shape [6], must have an entry for each channel, [5]", &w, NULL,
            &int8);
    w = source(TSR_WEIGHT_INT4, true), w.scales = input(TSR_F32, N, 3);
    refuses(ctx, TSR_ERR_SHAPE, "w.scales has shape [5, 3], must have an entry for each group, [5, 2]", &w,
            NULL, &int4);
    w = source(TSR_WEIGHT_INT4_ZERO, true), w.zeros = input(TSR_S8, N, 1);
    refuses(ctx, TSR_ERR_SHAPE, "w.zeros has shape [5, 1], must have", &w, NULL, &zero);
    w.zeros.data = NULL;
    refuses(ctx, TSR_ERR_ARGUMENT, "w.zeros is absent, must be given: the values are quantised already", &w,
            NULL, &zero);
    const tsr_weight_source right = source(TSR_WEIGHT_INT8, true);
    w = right, w.scales.data = NULL;
    refuses(ctx, TSR_ERR_ARGUMENT, "w.scales is absent, must be given", &w, NULL, &int8);
    refuses(ctx, TSR_ERR_ARGUMENT, "gate.scales is absent, must be given", &right, &w, &int8);
    w = source(TSR_WEIGHT_AS_IS, false), w.scales = vector(TSR_F32, N);
    refuses(ctx, TSR_ERR_ARGUMENT, "w.scales is given, must be absent: the weight is packed as it is", &w,
            NULL, NULL);
    refuses(ctx, TSR_ERR_ARGUMENT, "w.scales is given, must be absent: the values are floats", &w, NULL,
            &int8);
    w = source(TSR_WEIGHT_INT4, true), w.zeros = input(TSR_S8, N, 2);
    refuses(ctx, TSR_ERR_ARGUMENT, "w.zeros is given, must be absent: the format has none", &w, NULL, &int4);
}

/* Entry (1, 2) of a matrix, or 1 of a vector, becomes `value`: the message names it. */
static void refuses_value(tsr_context *ctx, const tsr_weight_options *o, const tsr_weight_source *w,
                          const tsr_tensor *t, double value, const char *words)
{
    const int64_t at = t->rank == 1 ? 1 : t->shape[1] + (t->shape[1] > 2 ? 2 : 1);
    const double before = kit_get(t, at);
    const tsr_weight_source right = source(o->format, w->values.dtype == TSR_S8);
    char text[96];
    kit_set(t, at, value);
    snprintf(text, sizeof text, "w.%s", words);
    refuses(ctx, TSR_ERR_ARGUMENT, text, w, NULL, o);
    snprintf(text, sizeof text, "gate.%s", words);
    refuses(ctx, TSR_ERR_ARGUMENT, text, &right, w, o);
    kit_set(t, at, before);
    tsr_weight *weight = NULL;
    KIT_OK(tsr_weight_create(ctx, &right, w, o, &weight));
    tsr_weight_destroy(ctx, weight);
}

static void values_out_of_range(void **state)
{
    tsr_context *ctx = *state;
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0}, int4 = {TSR_WEIGHT_INT4, 0},
                             zero = {TSR_WEIGHT_INT4_ZERO, 0};
    tsr_weight_source w = source(TSR_WEIGHT_INT4, true);
    refuses_value(ctx, &int4, &w, &w.values, 8, "values[1, 2] is 8, must be -8 to 7");
    refuses_value(ctx, &int4, &w, &w.values, -9, "values[1, 2] is -9, must be -8 to 7");
    refuses_value(ctx, &int4, &w, &w.scales, INFINITY, "scales[1, 1] is inf, must be finite");
    w = source(TSR_WEIGHT_INT4_ZERO, true);
    refuses_value(ctx, &zero, &w, &w.values, 16, "values[1, 2] is 16, must be 0 to 15");
    refuses_value(ctx, &zero, &w, &w.values, -1, "values[1, 2] is -1, must be 0 to 15");
    refuses_value(ctx, &zero, &w, &w.zeros, 16, "zeros[1, 1] is 16, must be 0 to 15");
    w = source(TSR_WEIGHT_INT8, true);
    refuses_value(ctx, &int8, &w, &w.scales, -INFINITY, "scales[1] is -inf, must be finite");
    for (int format = TSR_WEIGHT_INT8; format <= TSR_WEIGHT_INT4_ZERO; format++) {
        const tsr_weight_options o = {(tsr_weight_format)format, 0};
        w = source(o.format, false);
        refuses_value(ctx, &o, &w, &w.values, INFINITY, "values[1, 2] is inf, must be finite");
    }
    /* As it is, any value may be packed. */
    w = source(TSR_WEIGHT_AS_IS, false);
    kit_set(&w.values, 3, NAN);
    tsr_weight *weight = NULL;
    KIT_OK(tsr_weight_create(ctx, &w, NULL, NULL, &weight));
    tsr_weight_destroy(ctx, weight);
}

/* --- backends that fail: whatever was taken is given back --- */

static int64_t n_allocated;
static size_t refused_nbytes; /* what does not fit */

static tsr_status counting_allocate(void *state, size_t nbytes, void **out)
{
    if (nbytes == refused_nbytes) return tsr_fail(TSR_ERR_MEMORY, "allocate: no more");
    n_allocated++;
    return tsr_host_allocate(state, nbytes, out);
}

static tsr_status counting_release(void *state, void *data)
{
    n_allocated--;
    return tsr_host_release(state, data);
}

static size_t nbytes_that_do_not_fit(const void *state, const tsr_weight_layout *layout)
{
    (void)state, (void)layout;
    return SIZE_MAX;
}

static void nothing_leaks(void **state)
{
    (void)state;
    static tsr_backend backend;
    backend = tsr_backend_reference;
    backend.name = "counting", backend.allocate = counting_allocate, backend.release = counting_release;
    tsr_context *ctx = NULL;
    n_allocated = 0, refused_nbytes = 0;
    KIT_OK(tsr_context_create_with(&backend, NULL, &ctx));
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0};
    const tsr_weight_source right = source(TSR_WEIGHT_INT8, false), wrong = source(TSR_WEIGHT_INT8, false);
    kit_set(&wrong.values, 9, NAN);
    tsr_weight *weight = NULL;
    KIT_OK(tsr_weight_create(ctx, &right, &right, &int8, &weight));
    assert_int_equal(n_allocated, 1);
    refuses(ctx, TSR_ERR_ARGUMENT, "gate.values[0, 9] is nan, must be finite", &right, &wrong, &int8);
    assert_int_equal(n_allocated, 1);
    KIT_OK(tsr_enter(ctx));
    refuses(ctx, TSR_ERR_BUSY, "the context is serving another call", &right, NULL, &int8);
    tsr_weight_destroy(ctx, weight); /* cannot: the weight stays */
    tsr_leave(ctx, TSR_OK);
    assert_int_equal(n_allocated, 1);
    refused_nbytes = tsr_weight_nbytes(weight);
    refuses(ctx, TSR_ERR_MEMORY, "allocate: no more", &right, &right, &int8);
    tsr_weight_destroy(ctx, weight);
    assert_int_equal(n_allocated, 0);
    backend.weight_nbytes = nbytes_that_do_not_fit;
    refuses(ctx, TSR_ERR_OVERFLOW, "the packed weight does not fit in memory", &right, NULL, &int8);
    backend.weight_nbytes = NULL;
    refuses(ctx, TSR_ERR_UNSUPPORTED, "weight_pack: the counting backend lacks it", &right, NULL, &int8);
    tsr_context_destroy(ctx);
    ctx = kit_without_operators();
    refuses(ctx, TSR_ERR_UNSUPPORTED, "the empty backend lacks it", &right, NULL, &int8);
    tsr_context_destroy(ctx);
    assert_int_equal(n_allocated, 0);
}

/* A device that queues finds the value when it packs: creation says so all the same. */
static void on_the_fenced(void **state)
{
    (void)state;
    tsr_context *ctx = kit_fenced();
    tsr_weight_source w = {.values = input(TSR_F32, N, K)};
    kit_set(&w.values, K + 2, INFINITY);
    w.values = kit_to_device(ctx, &w.values);
    const tsr_weight_options int8 = {TSR_WEIGHT_INT8, 0};
    refuses(ctx, TSR_ERR_ARGUMENT, "w.values[1, 2] is inf, must be finite", &w, NULL, &int8);
    KIT_OK(tsr_synchronise(ctx));
    tsr_context_destroy(ctx);
}

int main(void)
{
    tsr_context *contexts[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = contexts[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate_setup_teardown(creation_without_arguments, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(formats_and_groups, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(sources_of_wrong_types, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(scales_and_zeros, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(values_out_of_range, NULL, free_all, ctx),
            cmocka_unit_test_teardown(nothing_leaks, free_all),
            cmocka_unit_test_teardown(on_the_fenced, free_all),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
