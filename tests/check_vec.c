/*
 * check_vec.c - every word of vec.h, vec_lanes.h and vec_int.h on every instruction set, against libm in
 * double and base/'s scalars
 *
 * Inputs of the mathematical words: bit patterns spread evenly over all of f32 (subnormals, infinities and
 * NaN of many payloads among them), and numbers spread evenly over where the function bends.
 */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/random.h"
#include "kit/compare.h"
#include "kit/kit.h"
#include "kit/tensor.h"
#include "vec_words.h"

extern const vec_words vec_words_portable, vec_words_avx2, vec_words_avxvnni, vec_words_avx512,
    vec_words_avx512vnni, vec_words_plain8, vec_words_plain16;

static const vec_words *const sets[] = {
    &vec_words_portable,
#if defined(TSR_WITH_AVX2)
    &vec_words_avx2,     &vec_words_avxvnni,
#endif
#if defined(TSR_WITH_AVX512)
    &vec_words_avx512,   &vec_words_avx512vnni,
#endif
    &vec_words_plain8,   &vec_words_plain16,
};
enum { N_SETS = sizeof sets / sizeof sets[0], MAX_LANES = 16 };

typedef void (*word1)(int64_t n, const float *x, float *y);

static void for_each_set(void (*check)(const vec_words *w))
{
    for (int i = 0; i < N_SETS; i++)
        if (tsr_isa_missing(sets[i]->isa) == NULL) check(sets[i]);
}

static int announce(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        const char *why = tsr_isa_missing(sets[i]->isa);
        if (why != NULL) printf("skipped: vec words of %s (%s)\n", sets[i]->name, why);
    }
    return 0;
}

/* The i-th of N_INPUTS: patterns of all of f32, then [-scale, scale], then the neighbourhood of 0. */
enum {
    N_PATTERNS = 1 << 17,
    N_EVEN = 1 << 16,
    N_SPECIAL = 16,
    N_INPUTS = N_PATTERNS + 2 * N_EVEN + N_SPECIAL
};

static const float *inputs(double scale)
{
    static float x[N_INPUTS];
    static const float special[N_SPECIAL] = {
        0,     -0.0f,  INFINITY,        -INFINITY, NAN,        -NAN,       0x1p-149f, -0x1p-149f,
        128.f, -127.f, 0x1.fffffep127f, 0x1p-126f, -0x1p-126f, 127.99999f, -126.f,    -150.f,
    };
    for (uint32_t i = 0; i < N_PATTERNS; i++) x[i] = tsr_f32_from_bits(i * 32768u + (i * 7919u) % 32768u);
    for (int i = 0; i < N_EVEN; i++) {
        const double u = (i + 0.5) / N_EVEN * 2 - 1;
        x[N_PATTERNS + i] = (float)(u * scale);
        x[N_PATTERNS + N_EVEN + i] = (float)u;
    }
    memcpy(x + N_PATTERNS + 2 * N_EVEN, special, sizeof special);
    return x;
}

/* How far a result may be from the truth at x. */
typedef double (*allowance)(double x, double truth);

static void check_word(const vec_words *w, const char *name, word1 word, double (*truth)(double),
                       allowance allowed, double scale)
{
    static float y[N_INPUTS];
    const float *x = inputs(scale);
    word(N_INPUTS, x, y);
    for (int i = 0; i < N_INPUTS; i++) {
        const double t = truth(x[i]), error = fabs(y[i] - t);
        const float rounded = (float)t;
        if ((float)t == y[i] || (isnan(t) && isnan(y[i]))) continue;
        if (isnan(t) || isnan(y[i]) || (isinf(rounded) && !isfinite(y[i])) || !(error <= allowed(x[i], t)))
            fail_msg("%s of %s at %.9g (%a): got %.9g, truth %.9g, off by %.3g, allowed %.3g", name, w->name,
                     x[i], x[i], y[i], t, error, allowed(x[i], t));
    }
}

/* Where a result is next to overflow, the infinity is as near as the largest number. */
static double of_result(double bound, double truth)
{
    return fabs(truth) > 0x1.fffffcp127 ? INFINITY : bound * fabs(truth);
}
static double exp2_allowed(double x, double truth)
{
    (void)x;
    return truth >= 0x1p-126 ? of_result(0x1p-23, truth) : 0x1p-127;
}
static double exp2_up_to_127(double x) { return isnan(x) ? x : exp2(fmin(x, 127)); }
static double exp2_below_127_allowed(double x, double truth)
{
    return truth >= 0x1p-126 ? exp2_allowed(x, truth) : 0x1p-126;
}
static double exp2_for_bf16_allowed(double x, double truth)
{
    (void)x;
    return truth >= 0x1p-126 ? of_result(0x1p-20, truth) : 0x1p-126;
}
static double exp_allowed(double x, double truth)
{
    return truth >= 0x1p-126 ? of_result(0x1p-23 * (1 + fabs(x)), truth) : 0x1p-127;
}
static double sigmoid_allowed(double x, double truth)
{
    return x < 0 ? 0x1p-126 + 0x1p-23 * (2 - x) * truth : 0x1p-23;
}
static double tanh_allowed(double x, double truth) { return (void)x, 0x1p-22 * fabs(truth); }
static double normal_allowed(double x, double truth)
{
    const double in_tail = 0x1p-126 + (4 + x * x) * 0x1p-23 * truth;
    return x < 0 && in_tail < 0x1p-22 ? in_tail : 0x1p-22;
}
static double density_allowed(double x, double truth) { return 0x1p-126 + (4 + x * x) * 0x1p-23 * truth; }
static double half_ulp(double x, double truth) { return (void)x, 0.5 * kit_ulp(TSR_F32, truth); }
static double nothing(double x, double truth) { return (void)x, (void)truth, 0; }

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double normal(double x) { return erfc(-x * M_SQRT1_2) / 2; }
static double density(double x) { return exp(-x * x / 2) / sqrt(2 * M_PI); }

/* Beyond what it is for: a large x gives no small number, and all low ones give none but 0, or nearly. */
static void check_exp2_for_bf16_unlimited(const vec_words *w)
{
    static float y[N_INPUTS];
    for (double scale = 64; scale < 1e38; scale *= 3) {
        const float *x = inputs(scale);
        w->exp2_for_bf16_unlimited(N_INPUTS, x, y);
        for (int i = 0; i < N_INPUTS; i++)
            if ((x[i] > 127 && y[i] < 0x1p127f) || (x[i] < -151 && !(y[i] >= 0 && y[i] <= 0x1p-126f)))
                fail_msg("exp2_for_bf16 of %s at %.9g: got %.9g", w->name, x[i], y[i]);
    }
    float lowest[16], zeros[16];
    for (int i = 0; i < 16; i++) lowest[i] = -INFINITY;
    w->exp2_for_bf16_unlimited(16, lowest, zeros);
    for (int i = 0; i < 16; i++)
        if (!(zeros[i] >= 0 && zeros[i] <= 0x1p-126f))
            fail_msg("exp2_for_bf16 of %s at -Inf: %.9g", w->name, zeros[i]);
}

static void check_mathematics(const vec_words *w)
{
    check_exp2_for_bf16_unlimited(w);
    check_word(w, "exp2", w->exp2, exp2, exp2_allowed, 160);
    check_word(w, "exp2_below_127", w->exp2_below_127, exp2_up_to_127, exp2_below_127_allowed, 160);
    check_word(w, "exp2_for_bf16", w->exp2_for_bf16, exp2_up_to_127, exp2_for_bf16_allowed, 160);
    check_word(w, "exp", w->exp, exp, exp_allowed, 110);
    check_word(w, "sigmoid", w->sigmoid, sigmoid, sigmoid_allowed, 110);
    check_word(w, "tanh", w->tanh, tanh, tanh_allowed, 10);
    check_word(w, "normal", w->normal, normal, normal_allowed, 15);
    check_word(w, "density", w->density, density, density_allowed, 15);
    check_word(w, "sqrt", w->sqrt, sqrt, half_ulp, 1e6);
    check_word(w, "abs", w->abs, fabs, nothing, 1e6);
}

static void test_mathematics(void **state)
{
    (void)state;
    for_each_set(check_mathematics);
}

/* What softmax and masks rely on. */
static void check_exact_points(const vec_words *w)
{
    float x[16] = {-INFINITY, 0, 1, -1, 10, -126, 127, INFINITY, 128, -1e30f, 1e30f, -1000}, y[16];
    const float powers[12] = {0, 1, 2, 0.5f, 1024, 0x1p-126f, 0x1p127f, INFINITY, INFINITY, 0, INFINITY, 0};
    w->exp2(16, x, y);
    assert_memory_equal(y, powers, sizeof powers);
    w->exp(16, x, y);
    assert_true(y[0] == 0 && y[1] == 1 && y[7] == INFINITY && y[9] == 0);
    w->tanh(16, x, y);
    assert_true(y[0] == -1 && y[1] == 0 && y[7] == 1);
    w->sigmoid(16, x, y);
    assert_true(y[0] == 0 && y[1] == 0.5f && y[7] == 1);
    w->normal(16, x, y);
    assert_true(y[0] == 0 && fabsf(y[1] - 0.5f) <= 0x1p-24f && y[7] == 1);
}

static void test_exact_points(void **state)
{
    (void)state;
    for_each_set(check_exact_points);
}

/* The second argument where either is NaN, as the x86 instructions have it. */
static void check_max(const vec_words *w)
{
    const float values[] = {NAN, -INFINITY, -2, -0x1p-149f, 0x1p-149f, 3, INFINITY};
    enum { N = sizeof values / sizeof values[0] };
    float a[64] = {0}, b[64] = {0}, max[64], min[64], less[64];
    for (int i = 0; i < N * N; i++) a[i] = values[i / N], b[i] = values[i % N];
    w->max(64, a, b, max);
    w->min(64, a, b, min);
    w->select_less(64, a, b, less);
    for (int i = 0; i < N * N; i++) {
        const float big = a[i] > b[i] ? a[i] : b[i], small = a[i] < b[i] ? a[i] : b[i];
        assert_memory_equal(&max[i], &big, sizeof big);
        assert_memory_equal(&min[i], &small, sizeof small);
        assert_memory_equal(&less[i], &small, sizeof small);
    }
}

static void test_max_and_select(void **state)
{
    (void)state;
    for_each_set(check_max);
}

/* All 2^16 patterns to f32; from f32 every pattern spread over the range, ties and their neighbours. */
static void check_conversions(const vec_words *w)
{
    enum { N = 1 << 16 };
    static uint16_t half[N], back[N];
    static float x[N];
    for (int i = 0; i < N; i++) half[i] = (uint16_t)i;
    for (int d = 0; d < 2; d++) {
        const tsr_dtype dtype = d == 0 ? TSR_BF16 : TSR_F16;
        w->load_as(N, half, dtype, x);
        for (int i = 0; i < N; i++) {
            const float truth = d == 0 ? tsr_f32_from_bf16(half[i]) : tsr_f32_from_f16(half[i]);
            if (tsr_f32_bits(x[i]) != tsr_f32_bits(truth))
                fail_msg("%s of %04x is %a on %s, must be %a", tsr_dtype_name(dtype), i, x[i], w->name,
                         truth);
        }
        /* Beside every value, at the tie above it, and beside that. */
        const uint32_t step = d == 0 ? 0x8000 : 0x1000;
        for (int32_t shift = 0; shift < 5; shift++) {
            static const uint32_t beside[5] = {0, 0, 1, (uint32_t)-1, 1};
            static float near[N];
            for (int i = 0; i < N; i++)
                near[i] = tsr_f32_from_bits(tsr_f32_bits(x[i]) + (shift > 0 && shift < 4 ? step : 0) +
                                            beside[shift]);
            w->store_as(N, back, dtype, near);
            for (int i = 0; i < N; i++) {
                const uint16_t truth = d == 0 ? tsr_bf16_from_f32(near[i]) : tsr_f16_from_f32(near[i]);
                if (back[i] != truth)
                    fail_msg("%a to %s is %04x on %s, must be %04x", near[i], tsr_dtype_name(dtype), back[i],
                             w->name, truth);
            }
            if (d == 1) continue;
            enum { OFFSET = 8 }; /* so that vectors are subnormal in part */
            w->bf16_from_two(N - 32, back, near + OFFSET);
            for (int i = 0; i < N - 32; i++)
                if (back[i] != tsr_bf16_from_f32(near[OFFSET + i]))
                    fail_msg("%a to bf16, two at a time, is %04x on %s", near[OFFSET + i], back[i], w->name);
        }
    }
}

static void test_conversions(void **state)
{
    (void)state;
    for_each_set(check_conversions);
}

/* Flush against forbidden pages at both ends; poison around must survive. */
static void check_edges(const vec_words *w)
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    for (int d = 0; d < 3; d++)
        for (int64_t n = 0; n <= w->lanes; n++)
            for (int place = KIT_AT_END; place <= KIT_AT_START; place++) {
                const tsr_tensor x = kit_new_at((kit_place)place, 0, dtypes[d], KIT_ROWS, 1, &n);
                const tsr_tensor y = kit_new_at((kit_place)place, 0, dtypes[d], KIT_ROWS, 1, &n);
                kit_integers(x, -100, 100);
                float lanes[MAX_LANES];
                w->load_as_n(n, x.data, dtypes[d], lanes);
                for (int i = 0; i < w->lanes; i++)
                    assert_true(lanes[i] == (i < n ? (float)kit_get(&x, i) : 0.0f));
                w->store_as_n(n, y.data, dtypes[d], lanes);
                kit_check(&y, &x, KIT_EXACT, "store of %lld lanes on %s", (long long)n, w->name);
                kit_free_all();
            }
}

static void test_edges(void **state)
{
    (void)state;
    for_each_set(check_edges);
}

static void check_folds(const vec_words *w)
{
    float x[MAX_LANES];
    for (int trial = 0; trial < 100; trial++) {
        float sum = 0, max = -INFINITY;
        for (int i = 0; i < w->lanes; i++) {
            x[i] = (float)kit_between(-1000, 1000);
            sum += x[i];
            if (x[i] > max) max = x[i];
        }
        assert_true(w->sum(x) == sum);
        assert_true(w->max_lane(x) == max);
    }
}

static void test_folds(void **state)
{
    (void)state;
    for_each_set(check_folds);
}

static void check_mulhi(const vec_words *w)
{
    enum { N = 4096 };
    uint32_t a[N], y[N];
    const uint32_t factors[] = {TSR_PHILOX_M0, TSR_PHILOX_M1, 0, 1, 0x80000000u, 0xffffffffu};
    for (int i = 0; i < N; i++) a[i] = (uint32_t)tsr_random_u64(kit_random());
    a[0] = 0, a[1] = 0xffffffffu, a[2] = 0x80000000u;
    for (size_t f = 0; f < sizeof factors / sizeof factors[0]; f++) {
        w->mulhi(N, a, factors[f], y);
        for (int i = 0; i < N; i++) assert_int_equal(y[i], ((uint64_t)a[i] * factors[f]) >> 32);
    }
}

static void test_mulhi(void **state)
{
    (void)state;
    for_each_set(check_mulhi);
}

static void check_dropout_words(const vec_words *w)
{
    uint32_t words[4 * MAX_LANES];
    for (int trial = 0; trial < 200; trial++) {
        const uint64_t seed = tsr_random_u64(kit_random());
        const uint32_t row = (uint32_t)kit_between(0, 1 << 20), head = (uint32_t)kit_between(0, 99);
        const uint32_t offset = (uint32_t)kit_between(0, UINT32_MAX);
        const uint32_t column = trial == 0 ? 0xffffffc0u - 4 * MAX_LANES
                                           : (uint32_t)kit_between(0, 1 << 20) * 4;
        w->dropout_words(words, seed, offset, head, row, column);
        for (uint32_t i = 0; i < 4 * (uint32_t)w->lanes; i++) {
            const uint32_t counter[4] = {(column + i) >> 2, row, head, offset};
            assert_int_equal(words[i], tsr_philox(seed, counter).word[(column + i) & 3]);
        }
    }
}

static void test_dropout_words(void **state)
{
    (void)state;
    for_each_set(check_dropout_words);
}

/* The products of words x and y, added to `to`: of quads to all of it, of pairs, of quads to its halves. */
static uint32_t plain_dot(int kind, uint32_t x, uint32_t y, uint32_t to)
{
    uint32_t sum[2] = {0, 0};
    for (int i = 0; i < 4; i++)
        sum[i / 2] += (uint32_t)((int32_t)(uint8_t)(x >> 8 * i) * (int8_t)(uint8_t)(y >> 8 * i));
    if (kind == 0) return to + sum[0] + sum[1];
    if (kind == 2) return ((to + sum[0]) & 0xffffu) | ((to >> 16) + sum[1]) << 16;
    const int32_t low = (int16_t)(uint16_t)x * (int16_t)(uint16_t)y;
    return to + (uint32_t)low + (uint32_t)((int16_t)(uint16_t)(x >> 16) * (int16_t)(uint16_t)(y >> 16));
}

/* A byte or a half, its ends often. */
static uint32_t any_bits(int n_bits)
{
    const int64_t top = (int64_t)1 << (n_bits - 1);
    return (uint32_t)(kit_one_in(3) ? top : kit_one_in(3) ? top - 1 : kit_between(0, 2 * top - 1));
}

static void check_dots(const vec_words *w)
{
    enum { N = 512 };
    static const char *const names[] = {"dot of quads", "dot of pairs", "dot of quads to pairs"};
    void (*const words[])(int64_t, const uint32_t *, const uint32_t *,
                          uint32_t *) = {w->dot_quads, w->dot_pairs, w->dot_quads_to_pairs};
    uint32_t x[N], y[N], to[N], got[N];
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < N; i++) {
            const int n_bits = kind == 1 ? 16 : 8;
            x[i] = y[i] = 0;
            for (int bit = 0; bit < 32; bit += n_bits)
                x[i] |= any_bits(n_bits) << bit, y[i] |= any_bits(n_bits) << bit;
            if (kind == 1 && x[i] == 0x80008000u) x[i] = 0; /* 2^31 is no s32 */
            if (kind == 2) x[i] &= 0x7f7f7f7fu;
            got[i] = to[i] = (uint32_t)tsr_random_u64(kit_random());
        }
        words[kind](N, x, y, got);
        for (int i = 0; i < N; i++)
            if (got[i] != plain_dot(kind, x[i], y[i], to[i]))
                fail_msg("%s of %s: %08x %08x to %08x gave %08x", names[kind], w->name, x[i], y[i], to[i],
                         got[i]);
    }
}

static void check_words(const vec_words *w)
{
    uint8_t bytes[256];
    uint32_t words[256], lanes[MAX_LANES];
    for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
    w->from_u8(256, bytes, words);
    for (int i = 0; i < 256; i++) assert_int_equal(words[i], i);
    for (int half = 0; half < 2; half++) {
        uint8_t halves[256];
        int8_t less_8[256];
        memcpy(words, bytes, sizeof bytes);
        w->half_bytes(64, words, half, words + 64);
        w->half_bytes_less_8(64, words, half, words + 128);
        memcpy(halves, words + 64, sizeof halves);
        memcpy(less_8, words + 128, sizeof less_8);
        for (int i = 0; i < 256; i++) {
            assert_int_equal(halves[i], i >> 4 * half & 15);
            assert_int_equal(less_8[i], (i >> 4 * half & 15) - 8);
        }
    }
    for (int64_t n = 0; n <= w->lanes; n++) {
        const tsr_tensor x = kit_integers(kit_new_at(KIT_AT_END, 0, TSR_I32, KIT_ROWS, 1, &n), -9, -1);
        const tsr_tensor y = kit_like(&x, TSR_I32, KIT_ROWS);
        w->load_words_n(n, x.data, lanes);
        for (int i = 0; i < w->lanes; i++)
            assert_int_equal((int32_t)lanes[i], i < n ? (int32_t)kit_get(&x, i) : 0);
        w->store_words_n(n, y.data, lanes);
        kit_check(&y, &x, KIT_EXACT, "store of %lld words on %s", (long long)n, w->name);
        kit_free_all();
    }
}

static void check_pairs(const vec_words *w)
{
    enum { N = 1 << 16 };
    static uint16_t x[N];
    static float y[N], unzipped[N];
    for (int i = 0; i < N; i++) x[i] = (uint16_t)i;
    w->from_bf16_pairs(N, x, y);
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, y + i, sizeof bits);
        assert_int_equal(bits, (uint32_t)i << 16);
        y[i] = (float)i;
    }
    w->unzip(N, y, unzipped);
    for (int i = 0; i < N; i++) {
        const int two = 2 * w->lanes, first = i - i % two, odd = i % two >= w->lanes;
        assert_true(unzipped[i] == (float)(first + i % w->lanes * 2 + odd));
    }
}

static void test_pairs(void **state)
{
    (void)state;
    for_each_set(check_pairs);
}

static void test_words_of_integers(void **state)
{
    (void)state;
    for_each_set(check_dots);
    for_each_set(check_words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mathematics),    cmocka_unit_test(test_exact_points),
        cmocka_unit_test(test_max_and_select), cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_folds),
        cmocka_unit_test(test_mulhi),          cmocka_unit_test(test_dropout_words),
        cmocka_unit_test(test_pairs),          cmocka_unit_test(test_words_of_integers),
    };
    return cmocka_run_group_tests_name("vec", tests, announce, NULL);
}
