/* check_base.c - conversions, random numbers, views, the threads' door */
#define _DEFAULT_SOURCE
#include "kit/kit.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/random.h"
#include "base/tensor.h"
#include "base/threads.h"

/* Every 16-bit pattern survives the way to f32 and back; NaN stays NaN. */
static void test_halves_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float b = tsr_f32_from_bf16((uint16_t)h), f = tsr_f32_from_f16((uint16_t)h);
        if (isnan(b))
            assert_true(isnan(tsr_f32_from_bf16(tsr_bf16_from_f32(b))));
        else
            assert_int_equal(tsr_bf16_from_f32(b), h);
        if (isnan(f))
            assert_true(isnan(tsr_f32_from_f16(tsr_f16_from_f32(f))));
        else
            assert_int_equal(tsr_f16_from_f32(f), h);
    }
}

/* Nearest, ties to even: judged by the two neighbours in double, for f16 and bf16, subnormals included. */
static void check_nearest(double x, tsr_dtype dtype)
{
    uint16_t h;
    tsr_store_f64(&h, dtype, 0, x);
    const double got = tsr_load_f64(&h, dtype, 0);
    const double error = fabs(got - x);
    for (int step = -1; step <= 1; step += 2) {
        const uint16_t neighbour = (uint16_t)(h + step);
        if ((neighbour & 0x7fff) > (dtype == TSR_F16 ? 0x7c00 : 0x7f80)) continue; /* wrapped, or NaN */
        const double other = tsr_load_f64(&neighbour, dtype, 0);
        if (isinf(other) || isinf(got)) continue;
        if (fabs(other - x) < error || (fabs(other - x) == error && other != got && (h & 1)))
            fail_msg("%s of %.17g: got %.17g, nearer or even is %.17g", tsr_dtype_name(dtype), x, got, other);
    }
}

static void test_conversion_rounds_to_nearest_even(void **state)
{
    (void)state;
    tsr_random r = {.seed = 1};
    for (int i = 0; i < 200000; i++) {
        const double x = ldexp(tsr_random_uniform(&r) - 0.5, (int)tsr_random_below(&r, 44) - 28);
        check_nearest(x, TSR_F16);
        check_nearest(x, TSR_BF16);
        /* Just beside and exactly at a tie, where rounding twice goes wrong. */
        const double tie = tsr_f32_from_f16((uint16_t)tsr_random_below(&r, 0x7bff)) * (1 + 0x1p-11);
        check_nearest(tie, TSR_F16);
        check_nearest(tie * (1 + 0x1p-40), TSR_F16);
        check_nearest(tie * (1 - 0x1p-40), TSR_F16);
    }
    assert_int_equal(tsr_f16_from_f32(65519.996f), 0x7bff);
    assert_int_equal(tsr_f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(tsr_f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(tsr_bf16_from_f32(3.4028235e38f), 0x7f80);
    assert_int_equal(tsr_f16_from_f32(0x1p-25f), 0);
    assert_int_equal(tsr_f16_from_f32(0x1.8p-25f), 1);
}

static void test_integers_clamp(void **state)
{
    (void)state;
    int8_t s8[4];
    const double x[4] = {-1000, 127.5, 0.5, NAN};
    for (int i = 0; i < 4; i++) tsr_store_f64(s8, TSR_S8, i, x[i]);
    assert_int_equal(s8[0], -128);
    assert_int_equal(s8[1], 127);
    assert_int_equal(s8[2], 0);
    assert_int_equal(s8[3], 0);
}

/* Known answers of Philox4x32-10 (Random123's kat_vectors). */
static void test_philox_known_answers(void **state)
{
    (void)state;
    const tsr_philox_words zero = tsr_philox(0, (const uint32_t[4]){0, 0, 0, 0});
    assert_int_equal(zero.word[0], 0x6627e8d5u);
    assert_int_equal(zero.word[1], 0xe169c58du);
    assert_int_equal(zero.word[2], 0xbc57ac4cu);
    assert_int_equal(zero.word[3], 0x9b00dbd8u);
    const uint32_t pi[4] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
    const tsr_philox_words w = tsr_philox(0x299f31d0a4093822ull, pi);
    assert_int_equal(w.word[0], 0xd16cfe09u);
    assert_int_equal(w.word[1], 0x94fdccebu);
    assert_int_equal(w.word[2], 0x5001e420u);
    assert_int_equal(w.word[3], 0x24126ea1u);
}

static void test_views_reshape(void **state)
{
    (void)state;
    float x[24];
    const tsr_tensor t = tsr_tensor_3d(x, TSR_F32, 2, 3, 4);
    tsr_tensor r;
    KIT_OK(tsr_tensor_reshape(&t, 2, (const int64_t[]){6, 4}, &r));
    assert_int_equal(r.stride[0], 4);
    KIT_OK(tsr_tensor_reshape(&t, 4, (const int64_t[]){2, 3, 2, 2}, &r));
    assert_int_equal(r.stride[2], 2);
    /* [2, 3, 4] with the heads in front: B and L no longer merge. */
    const tsr_tensor s = tsr_tensor_transpose(&t, 0, 1);
    KIT_FAILS(TSR_ERR_SHAPE, "without a copy", tsr_tensor_reshape(&s, 2, (const int64_t[]){6, 4}, &r));
    KIT_OK(tsr_tensor_reshape(&s, 4, (const int64_t[]){3, 2, 2, 2}, &r));
    assert_int_equal(r.stride[0], 4);
    assert_int_equal(r.stride[1], 12);
    KIT_FAILS(TSR_ERR_SHAPE, "24 elements", tsr_tensor_reshape(&t, 1, (const int64_t[]){23}, &r));
}

static void test_overlap(void **state)
{
    (void)state;
    float x[100];
    const tsr_tensor m = tsr_tensor_2d(x, TSR_F32, 10, 10);
    const tsr_tensor left = tsr_tensor_slice(&m, 1, 0, 5), right = tsr_tensor_slice(&m, 1, 5, 5);
    const tsr_tensor middle = tsr_tensor_slice(&m, 1, 4, 3), top = tsr_tensor_slice(&m, 0, 0, 4);
    assert_false(tsr_tensor_overlap(&left, &right));
    assert_false(tsr_tensor_overlap(&right, &left));
    assert_true(tsr_tensor_overlap(&left, &middle));
    assert_true(tsr_tensor_overlap(&right, &top));
    const tsr_tensor column = tsr_tensor_slice(&m, 1, 9, 1), none = tsr_tensor_slice(&m, 1, 3, 0);
    assert_false(tsr_tensor_overlap(&left, &column));
    assert_true(tsr_tensor_overlap(&right, &column));
    assert_false(tsr_tensor_overlap(&none, &left));
    assert_false(tsr_tensor_overlap(&left, &none));
    tsr_tensor upwards = left;
    upwards.data = &x[90], upwards.stride[0] = -10;
    assert_false(tsr_tensor_overlap(&upwards, &right));
    assert_true(tsr_tensor_overlap(&upwards, &middle));
    /* Heads of q, k and v in one row, k and v with one head each: [L, 3 + 1 + 1, 4]. */
    const tsr_tensor qkv = tsr_tensor_3d(x, TSR_F32, 5, 5, 4);
    const tsr_tensor q = tsr_tensor_slice(&qkv, 1, 0, 3), k = tsr_tensor_slice(&qkv, 1, 3, 1),
                     v = tsr_tensor_slice(&qkv, 1, 4, 1);
    assert_false(tsr_tensor_overlap(&q, &k));
    assert_false(tsr_tensor_overlap(&v, &q));
    assert_false(tsr_tensor_overlap(&k, &v));
    tsr_tensor same = top;
    same.stride[1] = 2;
    assert_false(tsr_tensor_same(&top, &same));
    tsr_tensor row = tsr_tensor_slice(&m, 0, 0, 1);
    same = row, same.stride[0] = 3;
    assert_true(tsr_tensor_same(&row, &same));
    tsr_tensor repeated = m;
    repeated.stride[0] = 0;
    assert_true(tsr_tensor_self_overlap(&repeated));
    assert_false(tsr_tensor_self_overlap(&m));
}

/* Against every pair of elements, for small random views of f32 and of f64 or bf16. */
static void test_overlap_never_misses(void **state)
{
    (void)state;
    static float x[4096];
    static const tsr_dtype dtypes[6] = {TSR_F32, TSR_F32, TSR_F32, TSR_F32, TSR_BF16, TSR_F64};
    tsr_random r = {.seed = 2};
    int n_apart = 0;
    for (int trial = 0; trial < 20000; trial++) {
        tsr_tensor t[2];
        for (int i = 0; i < 2; i++) {
            t[i] = tsr_tensor_2d(x + 1000 + tsr_random_below(&r, 12), dtypes[tsr_random_below(&r, 6)],
                                 (int64_t)tsr_random_below(&r, 5), 1 + (int64_t)tsr_random_below(&r, 4));
            t[i].stride[0] = i && tsr_random_below(&r, 2) ? t[0].stride[0]
                                                          : (int64_t)tsr_random_below(&r, 24) - 8;
            t[i].stride[1] = i && tsr_random_below(&r, 2) ? t[0].stride[1]
                                                          : (int64_t)tsr_random_below(&r, 6) - 2;
        }
        bool shared = false;
        for (int64_t i = 0; i < t[0].shape[0] * t[0].shape[1]; i++)
            for (int64_t j = 0; j < t[1].shape[0] * t[1].shape[1]; j++) {
                const int64_t a[2] = {i / t[0].shape[1], i % t[0].shape[1]};
                const int64_t b[2] = {j / t[1].shape[1], j % t[1].shape[1]};
                const char *p = tsr_tensor_at(&t[0], tsr_tensor_offset(&t[0], a));
                const char *q = tsr_tensor_at(&t[1], tsr_tensor_offset(&t[1], b));
                shared |= p < q + tsr_dtype_nbytes(t[1].dtype) && q < p + tsr_dtype_nbytes(t[0].dtype);
            }
        n_apart += !tsr_tensor_overlap(&t[0], &t[1]);
        if (shared && !tsr_tensor_overlap(&t[0], &t[1]))
            fail_msg("trial %d: a shared element was missed", trial);
    }
    assert_in_range(n_apart, 4000, 16000);
}

static void test_validation_finds_overflow(void **state)
{
    (void)state;
    float x;
    tsr_tensor t = tsr_tensor_2d(&x, TSR_F32, INT64_MAX / 2, 4);
    KIT_FAILS(TSR_ERR_OVERFLOW, "weights", tsr_tensor_validate(&t, "weights"));
    t = tsr_tensor_2d(&x, TSR_F32, -1, 4);
    KIT_FAILS(TSR_ERR_SHAPE, "negative", tsr_tensor_validate(&t, "weights"));
    t = tsr_tensor_2d(NULL, TSR_F32, 1, 4);
    KIT_FAILS(TSR_ERR_ARGUMENT, "null", tsr_tensor_validate(&t, "weights"));
    t = tsr_tensor_2d(NULL, TSR_F32, 0, 4);
    KIT_OK(tsr_tensor_validate(&t, "weights"));
    t.dtype = (tsr_dtype)99;
    KIT_FAILS(TSR_ERR_DTYPE, "unknown dtype", tsr_tensor_validate(&t, "weights"));
}

static void test_arena_counts_and_gives(void **state)
{
    (void)state;
    char memory[1000];
    tsr_arena count = {0};
    tsr_arena_take(&count, 3, 4);
    tsr_arena_take(&count, 100, 4);
    assert_true(tsr_arena_nbytes(&count) <= sizeof memory);
    tsr_arena a = tsr_arena_over(memory + 1, tsr_arena_nbytes(&count));
    char *first = tsr_arena_take(&a, 3, 4), *second = tsr_arena_take(&a, 100, 4);
    assert_non_null(second);
    assert_int_equal((uintptr_t)first % TSR_ALIGN, 0);
    assert_int_equal((uintptr_t)second % TSR_ALIGN, 0);
    assert_null(tsr_arena_take(&a, 1000, 1));
    tsr_arena_take(&count, SIZE_MAX / 2, 4);
    assert_true(tsr_arena_nbytes(&count) == SIZE_MAX);
}

typedef struct sum_job {
    _Atomic int64_t sum, items;
    _Atomic int32_t in_slot[64];
    _Atomic int clash;
} sum_job;

static void add_item(void *arg, int64_t item, int32_t slot)
{
    sum_job *j = arg;
    if (atomic_fetch_add(&j->in_slot[slot], 1) != 0) j->clash = 1;
    j->sum += item;
    j->items++;
    atomic_fetch_sub(&j->in_slot[slot], 1);
}

static void check_runs(tsr_threads *t)
{
    for (int64_t n = 0; n < 300; n++) {
        sum_job j = {0};
        tsr_threads_run(t, n, add_item, &j);
        assert_int_equal(j.items, n);
        assert_int_equal(j.sum, n * (n - 1) / 2);
        assert_int_equal(j.clash, 0);
    }
}

static void test_threads_run_every_item_once(void **state)
{
    (void)state;
    for (int32_t count = 1; count <= 5; count++) {
        tsr_threads *t;
        KIT_OK(tsr_threads_create(count, NULL, NULL, &t));
        check_runs(t);
        usleep(20000); /* let them fall asleep */
        check_runs(t);
        tsr_threads_destroy(t);
    }
}

static void backwards_for(void *user, int64_t n, void (*body)(void *, int64_t), void *arg)
{
    (void)user;
    for (int64_t i = n - 1; i >= 0; i--) body(arg, i);
}

static void test_threads_take_the_callers_loop(void **state)
{
    (void)state;
    tsr_threads *t;
    KIT_OK(tsr_threads_create(3, backwards_for, NULL, &t));
    check_runs(t);
    tsr_threads_destroy(t);
    KIT_FAILS(TSR_ERR_ARGUMENT, "n_threads is -1", tsr_threads_create(-1, NULL, NULL, &t));
}

static void test_threads_survive_fork(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__)
    puts("skipped: the thread sanitizer cannot start threads in a forked child");
    skip();
#endif
    tsr_threads *t;
    KIT_OK(tsr_threads_create(3, NULL, NULL, &t));
    check_runs(t);
    const pid_t child = fork();
    if (child == 0) {
        sum_job j = {0};
        for (int i = 0; i < 100; i++) tsr_threads_run(t, 100, add_item, &j);
        tsr_threads_destroy(t);
        _exit(j.items == 10000 ? 0 : 1);
    }
    int exit_status = -1;
    waitpid(child, &exit_status, 0);
    assert_int_equal(exit_status, 0);
    check_runs(t);
    tsr_threads_destroy(t);
}

/* A child that never ran anything lets go of a pool whose workers slept when it was forked. */
static void test_threads_end_in_a_forked_child(void **state)
{
    (void)state;
    tsr_threads *t;
    KIT_OK(tsr_threads_create(3, NULL, NULL, &t));
    usleep(20000); /* let them fall asleep */
    const pid_t child = fork();
    if (child == 0) {
        alarm(5);
        tsr_threads_destroy(t);
        _exit(0);
    }
    int exit_status = -1;
    waitpid(child, &exit_status, 0);
    assert_int_equal(exit_status, 0);
    tsr_threads_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves_round_trip),
        cmocka_unit_test(test_conversion_rounds_to_nearest_even),
        cmocka_unit_test(test_integers_clamp),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_views_reshape),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_overlap_never_misses),
        cmocka_unit_test(test_validation_finds_overflow),
        cmocka_unit_test(test_arena_counts_and_gives),
        cmocka_unit_test(test_threads_run_every_item_once),
        cmocka_unit_test(test_threads_take_the_callers_loop),
        cmocka_unit_test(test_threads_survive_fork),
        cmocka_unit_test(test_threads_end_in_a_forked_child),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
