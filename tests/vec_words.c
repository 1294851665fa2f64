/* tests/vec_words.c - the words of vec.h and vec_int.h over arrays; compiled once per instruction set */
#include "vec_words.h"

#include "backend/cpu/vec.h"
#include "backend/cpu/vec_bf16.h"
#include "backend/cpu/vec_dropout.h"
#include "backend/cpu/vec_int.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

typedef vf32 (*word1)(vf32);
typedef vf32 (*word2)(vf32, vf32);

TSR_INLINE void map1(word1 word, int64_t n, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i += VL) vf32_store(y + i, word(vf32_load(x + i)));
}

TSR_INLINE void map2(word2 word, int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i += VL) vf32_store(y + i, word(vf32_load(a + i), vf32_load(b + i)));
}

TSR_INLINE vf32 probability(vf32 x)
{
    vf32 density;
    return vf32_normal(x, &density);
}

TSR_INLINE vf32 density_of(vf32 x)
{
    vf32 density;
    (void)vf32_normal(x, &density);
    return density;
}

TSR_INLINE vf32 lesser(vf32 a, vf32 b) { return vf32_select(a < b, a, b); }

static void run_exp2(int64_t n, const float *x, float *y) { map1(vf32_exp2, n, x, y); }
static vf32 exp2_of_at_most_127(vf32 x) { return vf32_exp2_below_127(vf32_min(vf32_splat(127), x)); }
static void run_exp2_below_127(int64_t n, const float *x, float *y) { map1(exp2_of_at_most_127, n, x, y); }
static vf32 exp2_for_bf16(vf32 x) { return vf32_exp2_for_bf16(vf32_min(vf32_splat(127), x)); }
static void run_exp2_for_bf16(int64_t n, const float *x, float *y) { map1(exp2_for_bf16, n, x, y); }
static vf32 exp2_unlimited(vf32 x) { return vf32_exp2_for_bf16(x); }
static void run_exp2_unlimited(int64_t n, const float *x, float *y) { map1(exp2_unlimited, n, x, y); }
static void run_exp(int64_t n, const float *x, float *y) { map1(vf32_exp, n, x, y); }
static void run_sigmoid(int64_t n, const float *x, float *y) { map1(vf32_sigmoid, n, x, y); }
static void run_tanh(int64_t n, const float *x, float *y) { map1(vf32_tanh, n, x, y); }
static void run_sqrt(int64_t n, const float *x, float *y) { map1(vf32_sqrt, n, x, y); }
static void run_abs(int64_t n, const float *x, float *y) { map1(vf32_abs, n, x, y); }
static void run_normal(int64_t n, const float *x, float *y) { map1(probability, n, x, y); }
static void run_density(int64_t n, const float *x, float *y) { map1(density_of, n, x, y); }
static void run_max(int64_t n, const float *a, const float *b, float *y) { map2(vf32_max, n, a, b, y); }
static void run_min(int64_t n, const float *a, const float *b, float *y) { map2(vf32_min, n, a, b, y); }
static void run_select_less(int64_t n, const float *a, const float *b, float *y) { map2(lesser, n, a, b, y); }

static void run_load_as(int64_t n, const void *x, tsr_dtype dtype, float *y)
{
    for (int64_t i = 0; i < n; i += VL) vf32_store(y + i, vf32_load_as(x, dtype, i));
}

static void run_store_as(int64_t n, void *x, tsr_dtype dtype, const float *y)
{
    for (int64_t i = 0; i < n; i += VL) vf32_store_as(x, dtype, i, vf32_load(y + i));
}

static void run_load_as_n(int64_t n, const void *x, tsr_dtype dtype, float *y)
{
    vf32_store(y, vf32_load_as_n(x, dtype, 0, n));
}

static void run_bf16_from_two(int64_t n, uint16_t *x, const float *y)
{
    for (int64_t i = 0; i < n; i += 2 * VL)
        bf16_from_two_vf32(x + i, vf32_load(y + i), vf32_load(y + i + VL));
}
static void run_store_as_n(int64_t n, void *x, tsr_dtype dtype, const float *y)
{
    vf32_store_as_n(x, dtype, 0, vf32_load(y), n);
}

static float run_sum(const float *x) { return vf32_sum(vf32_load(x)); }
static float run_max_lane(const float *x) { return vf32_max_lane(vf32_load(x)); }

static void run_mulhi(int64_t n, const uint32_t *a, uint32_t b, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL) {
        vu32 v;
        memcpy(&v, a + i, sizeof v);
        v = vu32_mulhi(v, b);
        memcpy(y + i, &v, sizeof v);
    }
}

static void run_dropout_words(uint32_t *words, uint64_t seed, uint32_t offset, uint32_t head, uint32_t row,
                              uint32_t column)
{
    vu32 w[4];
    vu32_dropout_words(w, seed, offset, head, row, column);
    memcpy(words, w, sizeof w);
}

static void run_dot_quads(int64_t n, const uint32_t *u, const uint32_t *s, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL)
        vu32_store(y + i, (vu32)vi32_dot_quads((vi32)vu32_load(y + i), vu32_load(u + i), vu32_load(s + i)));
}

static void run_dot_pairs(int64_t n, const uint32_t *a, const uint32_t *b, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL)
        vu32_store(y + i, (vu32)vi32_dot_pairs((vi32)vu32_load(y + i), (vi16x2)vu32_load(a + i),
                                               (vi16x2)vu32_load(b + i)));
}

static void run_dot_quads_to_pairs(int64_t n, const uint32_t *u, const uint32_t *s, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL)
        vu32_store(y + i,
                   (vu32)vi16x2_dot_quads((vi16x2)vu32_load(y + i), vu32_load(u + i), vu32_load(s + i)));
}

static void run_from_u8(int64_t n, const uint8_t *x, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL) vu32_store(y + i, vu32_from_u8(x + i));
}

static void run_from_bf16_pairs(int64_t n, const uint16_t *x, float *y)
{
    for (int64_t i = 0; i < n; i += 2 * VL) {
        const vu32 pairs = vu32_load_up_to(x + i, VL);
        vf32 v[2] = {vf32_bf16_even(pairs), vf32_bf16_odd(pairs)};
        vf32_zip(v);
        vf32_store(y + i, v[0]), vf32_store(y + i + VL, v[1]);
    }
}

static void run_unzip(int64_t n, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i += 2 * VL) {
        vf32 v[2] = {vf32_load(x + i), vf32_load(x + i + VL)};
        vf32_unzip(v);
        vf32_store(y + i, v[0]), vf32_store(y + i + VL, v[1]);
    }
}

static void run_half_bytes(int64_t n, const uint32_t *x, int half, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL) {
        const vu32 v = vu32_load(x + i);
        vu32_store(y + i, half == 0 ? vu32_half_bytes(v, 0) : vu32_half_bytes(v, 1));
    }
}

static void run_half_bytes_less_8(int64_t n, const uint32_t *x, int half, uint32_t *y)
{
    for (int64_t i = 0; i < n; i += VL) {
        const vu32 v = vu32_load(x + i);
        vu32_store(y + i, half == 0 ? vu32_half_bytes_less_8(v, 0) : vu32_half_bytes_less_8(v, 1));
    }
}

static void run_load_words_n(int64_t n, const uint32_t *x, uint32_t *y) { vu32_store(y, vu32_load_n(x, n)); }
static void run_store_words_n(int64_t n, uint32_t *x, const uint32_t *y) { vu32_store_n(x, vu32_load(y), n); }

const vec_words TSR_NAME(vec_words) = {
    .name = TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .exp2 = run_exp2,
    .exp2_below_127 = run_exp2_below_127,
    .exp2_for_bf16 = run_exp2_for_bf16,
    .exp2_for_bf16_unlimited = run_exp2_unlimited,
    .exp = run_exp,
    .sigmoid = run_sigmoid,
    .tanh = run_tanh,
    .sqrt = run_sqrt,
    .abs = run_abs,
    .normal = run_normal,
    .density = run_density,
    .max = run_max,
    .min = run_min,
    .select_less = run_select_less,
    .load_as = run_load_as,
    .store_as = run_store_as,
    .bf16_from_two = run_bf16_from_two,
    .load_as_n = run_load_as_n,
    .store_as_n = run_store_as_n,
    .sum = run_sum,
    .max_lane = run_max_lane,
    .mulhi = run_mulhi,
    .dropout_words = run_dropout_words,
    .dot_quads = run_dot_quads,
    .dot_pairs = run_dot_pairs,
    .dot_quads_to_pairs = run_dot_quads_to_pairs,
    .from_u8 = run_from_u8,
    .from_bf16_pairs = run_from_bf16_pairs,
    .unzip = run_unzip,
    .half_bytes = run_half_bytes,
    .half_bytes_less_8 = run_half_bytes_less_8,
    .load_words_n = run_load_words_n,
    .store_words_n = run_store_words_n,
};
