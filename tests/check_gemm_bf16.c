/*
 * check_gemm_bf16.c - the GEMM kernels on bf16, and those of s8 on AMX: every tile edge, packing, every bit
 *
 * All of them run here in plain C at least. Where the machine has the instructions, they must give the bits
 * that the plain form gives.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernel/gemm.h"
#include "base/dtype.h"
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/kit.h"
#include "kit/tensor.h"

typedef void (*tile_run)(const tsr_gemm_tile *tile, int64_t m, int64_t n);

/* The AMX kernels of s8; the others of that family have their own test. */
static bool is_of_amx(const tsr_gemm_kernel *kernel) { return kernel->enter != NULL; }
static bool is_of_s8(const tsr_gemm_kernel *kernel) { return kernel->k_word == 4; }

static void for_each_kernel(void (*check)(const tsr_gemm_kernel *kernel))
{
    for (int i = 0; tsr_gemm_bf16_kernels[i] != NULL; i++)
        if (tsr_isa_missing(tsr_gemm_bf16_kernels[i]->isa) == NULL) check(tsr_gemm_bf16_kernels[i]);
    for (int i = 0; tsr_gemm_s8_kernels[i] != NULL; i++)
        if (is_of_amx(tsr_gemm_s8_kernels[i]) && tsr_isa_missing(tsr_gemm_s8_kernels[i]->isa) == NULL)
            check(tsr_gemm_s8_kernels[i]);
}

static int announce(void **state)
{
    (void)state;
    for (int i = 0; tsr_gemm_bf16_kernels[i] != NULL; i++) {
        const char *missing = tsr_isa_missing(tsr_gemm_bf16_kernels[i]->isa);
        if (missing != NULL)
            print_message("skipped natively: %s (%s)\n", tsr_gemm_bf16_kernels[i]->name, missing);
    }
    return 0;
}

static void run_tile(const tsr_gemm_kernel *kernel, tile_run run, const tsr_gemm_tile *tile, int64_t m,
                     int64_t n)
{
    char saved[64];
    if (kernel->enter != NULL) kernel->enter(saved);
    run(tile, m, n);
    if (kernel->leave != NULL) kernel->leave(saved);
}

/* --- operands --- */

static int64_t words_of(const tsr_gemm_kernel *kernel, int64_t k)
{
    const int64_t words = (k + kernel->k_word - 1) / kernel->k_word;
    return (words + kernel->k_align - 1) / kernel->k_align * kernel->k_align;
}

/* B's panel, at rows some words longer where the family allows it; what lies beyond n is NaN in bf16. */
static void use_panel(tsr_gemm_tile *tile, const tsr_gemm_kernel *kernel, const tsr_tensor *b)
{
    const int64_t k = b->shape[0], n = b->shape[1], nr = kernel->nr, words = words_of(kernel, k);
    const tsr_tensor packed = KIT_NEW(TSR_I32, KIT_ROWS, words, nr);
    kernel->pack_b(packed.data, b->data, b->dtype, b->stride[0], b->stride[1], k, n);
    for (int64_t p = 0; p < words; p++)
        for (int64_t j = n; j < nr; j++)
            if (kit_get(&packed, p * nr + j) != 0) kit_fail("%s: padding of a panel is not 0", kernel->name);
    const tsr_tensor panel = is_of_s8(kernel) ? packed : kit_copy(&packed, TSR_I32, KIT_PADDED);
    if (n < nr && words > 0) kit_constant(tsr_tensor_slice(&panel, 1, n, nr - n), 0x7fc07fc0);
    tile->k = words, tile->b = panel.data, tile->b_row = panel.stride[0];
}

/* A in place where it can be, half of the time; else packed. */
static void use_rows(tsr_gemm_tile *tile, const tsr_gemm_kernel *kernel, const tsr_tensor *a)
{
    const int64_t m = a->shape[0], k = a->shape[1], words = words_of(kernel, k);
    if (a->stride[1] == 1 && words * kernel->k_word == k && kit_one_in(2)) {
        tile->a = a->data, tile->a_row = a->stride[0], tile->a_k = 1;
        return;
    }
    const tsr_tensor rows = KIT_NEW(TSR_I32, KIT_PADDED, m, words);
    kernel->pack_a(rows.data, rows.stride[0], a->data, a->stride[0], a->stride[1], m, k, 0, NULL, 0);
    kit_check_gaps(&rows, kernel->name);
    tile->a = rows.data, tile->a_row = rows.stride[0] * kernel->k_word, tile->a_k = 1;
}

/* alpha a b + beta c, in double. */
static tsr_tensor product_of(const tsr_tensor *a, const tsr_tensor *b, const tsr_tensor *c, double alpha,
                             double beta)
{
    const tsr_tensor a64 = kit_f64(a), b64 = kit_f64(b), c64 = kit_f64(c);
    const int64_t m = a->shape[0], k = a->shape[1], n = b->shape[1];
    const double *x = a64.data, *y = b64.data;
    double *z = c64.data;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += x[i * k + p] * y[p * n + j];
            z[i * n + j] = alpha * sum + (beta == 0 ? 0 : beta * z[i * n + j]);
        }
    return c64;
}

/* Small integers, s8 of any value: exact. Any layouts; C's gaps and what beta = 0 must not read are poison.
 */
static bool tile_is_right(const tsr_gemm_kernel *kernel, tile_run run, int64_t m, int64_t n, int64_t k)
{
    const bool s8 = is_of_s8(kernel);
    const tsr_dtype dtype = s8 ? TSR_S8 : TSR_BF16;
    const int64_t low = s8 ? -128 : -3, high = s8 ? 127 : 3;
    const tsr_tensor a = kit_integers(KIT_NEW(dtype, kit_any_input(), m, k), low, high);
    const tsr_tensor b = kit_integers(KIT_NEW(dtype, kit_any_input(), k, n), low, high);
    const tsr_tensor c = kit_integers(KIT_NEW(s8 ? TSR_I32 : TSR_F32, KIT_PADDED, m, n), -9, 9);
    tsr_gemm_tile tile = {.c = c.data, .c_row = c.stride[0], .alpha = 1};
    tile.beta = (float)kit_between(0, s8 ? 1 : 2);
    if (!s8 && kit_one_in(2)) tile.alpha = 2;
    use_panel(&tile, kernel, &b);
    use_rows(&tile, kernel, &a);
    const tsr_tensor expected = product_of(&a, &b, &c, tile.alpha, tile.beta);
    if (tile.beta == 0) kit_constant(c, s8 ? 0x7f7f7f7f : NAN);
    run_tile(kernel, run, &tile, m, n);
    const bool right = kit_agrees(&c, &expected, KIT_EXACT) && kit_gaps_intact(&c);
    kit_free_all();
    return right;
}

/* --- tests --- */

static void every_edge(const tsr_gemm_kernel *kernel)
{
    const int64_t depth = (int64_t)kernel->k_word * kernel->k_align;
    for (int64_t m = 1; m <= kernel->mr; m++)
        for (int64_t n = 1; n <= kernel->nr; n++)
            for (int trial = 0; trial < 3; trial++) {
                const int64_t k = trial == 0 ? kit_between(0, 3) : depth * kit_between(1, 3) - trial + 1;
                if (!tile_is_right(kernel, kernel->run, m, n, k))
                    kit_fail("%s: m %lld n %lld k %lld is wrong", kernel->name, (long long)m, (long long)n,
                             (long long)k);
            }
    for (int trial = 0; trial < 20; trial++) {
        const int64_t k = kit_between(1, 300);
        if (!tile_is_right(kernel, kernel->run, kernel->mr, kernel->nr, k))
            kit_fail("%s: k %lld is wrong", kernel->name, (long long)k);
    }
}
static void test_every_tile_edge(void **state)
{
    (void)state;
    for_each_kernel(every_edge);
}

/* bf16: each of k steps rounds a partial sum, which is taken to be no larger than the largest result. */
static void matches_double(const tsr_gemm_kernel *kernel)
{
    if (is_of_s8(kernel)) return;
    for (int trial = 0; trial < 10; trial++) {
        const int64_t m = kit_between(1, kernel->mr), n = kit_between(1, kernel->nr), k = kit_between(1, 600);
        const tsr_tensor a = kit_normal(KIT_NEW(TSR_BF16, kit_any_input(), m, k));
        const tsr_tensor b = kit_normal(KIT_NEW(TSR_BF16, kit_any_input(), k, n));
        const tsr_tensor c = kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, m, n));
        tsr_gemm_tile tile = {.c = c.data, .c_row = c.stride[0], .alpha = -0.75f, .beta = 0.3f};
        use_panel(&tile, kernel, &b);
        use_rows(&tile, kernel, &a);
        const tsr_tensor expected = product_of(&a, &b, &c, tile.alpha, tile.beta);
        run_tile(kernel, kernel->run, &tile, m, n);
        const kit_bound bound = {.abs = 0x1p-24 * (double)(k + 8) * fmax(1, kit_max_abs(&expected))};
        kit_check(&c, &expected, bound, "%s m %d n %d k %d", kernel->name, (int)m, (int)n, (int)k);
        kit_free_all();
    }
}
static void test_random_products_match_double(void **state)
{
    (void)state;
    for_each_kernel(matches_double);
}

/* A row has the same bits in every tile: alone or with others, with all columns or some. */
static void no_bit_depends_with(const tsr_gemm_kernel *kernel, float alpha, float beta)
{
    const int64_t mr = kernel->mr, nr = kernel->nr, k = 70;
    const bool s8 = is_of_s8(kernel);
    const tsr_dtype dtype = s8 ? TSR_S8 : TSR_BF16, c_dtype = s8 ? TSR_I32 : TSR_F32;
    const tsr_tensor a = kit_uniform(KIT_NEW(dtype, KIT_ROWS, mr, k), -100, 100);
    const tsr_tensor b = kit_uniform(KIT_NEW(dtype, KIT_ROWS, k, nr), -100, 100);
    const tsr_tensor before = kit_uniform(KIT_NEW(c_dtype, KIT_ROWS, mr, nr), -100, 100);
    const tsr_tensor whole = kit_copy(&before, c_dtype, KIT_ROWS);
    tsr_gemm_tile tile = {.c = whole.data, .c_row = nr, .alpha = alpha, .beta = beta};
    use_panel(&tile, kernel, &b);
    use_rows(&tile, kernel, &a);
    run_tile(kernel, kernel->run, &tile, mr, nr);
    const tsr_tensor c = kit_copy(&before, c_dtype, KIT_ROWS);
    const size_t nbytes = (size_t)(mr * nr) * 4;
    tile.c = c.data;
    for (int64_t m = 1; m <= mr; m++)
        for (int64_t n = 1; n <= nr; n++) {
            memcpy(c.data, before.data, nbytes);
            run_tile(kernel, kernel->run, &tile, m, n);
            tsr_tensor part = tsr_tensor_slice(&c, 0, 0, m), expected = tsr_tensor_slice(&whole, 0, 0, m);
            part = tsr_tensor_slice(&part, 1, 0, n), expected = tsr_tensor_slice(&expected, 1, 0, n);
            if (!kit_same_bits(&part, &expected))
                kit_fail("%s: m %lld n %lld has other bits", kernel->name, (long long)m, (long long)n);
        }
    kit_free_all();
}
static void no_bit_depends(const tsr_gemm_kernel *kernel)
{
    no_bit_depends_with(kernel, 1, 0);
    no_bit_depends_with(kernel, 1, 1);
    if (!is_of_s8(kernel)) no_bit_depends_with(kernel, 0.3f, 0.7f);
}
static void test_no_bit_depends_on_the_tile(void **state)
{
    (void)state;
    for_each_kernel(no_bit_depends);
}

/* --- instruction form = plain form --- */

/*
 * bf16 of one kind: any bits; products about where sums become subnormal, of ordinary size, about where they
 * overflow; subnormals, infinities, NaN and neighbours of them.
 */
static uint16_t hard_bf16(int64_t kind)
{
    static const uint16_t special[] = {0,      0x8000, 0x0001, 0x807f, 0x0080, 0x8080, 0x3f80,
                                       0xbf80, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xff81};
    static const int64_t exponents[][2] = {{0, 255}, {50, 67}, {50, 52}, {118, 136}, {186, 193}};
    enum { N_SPECIAL = sizeof special / sizeof *special, N_KINDS = sizeof exponents / sizeof *exponents };
    if (kind >= N_KINDS || kit_one_in(16)) return special[kit_between(0, kind < N_KINDS ? 9 : N_SPECIAL - 1)];
    const int64_t exponent = kit_between(exponents[kind][0], exponents[kind][1]);
    return (uint16_t)(kit_between(0, 1) << 15 | exponent << 7 | kit_between(0, 127));
}

static void fill_hard(const tsr_tensor *words, bool s8, int64_t kind)
{
    uint16_t *halves = words->data;
    for (int64_t i = 0; i < 2 * words->shape[0] * words->shape[1]; i++)
        halves[i] = s8 ? (uint16_t)kit_between(0, 0xffff) : hard_bf16(kind);
}

static bool same_or_both_nan(uint32_t x, uint32_t y)
{
    const uint32_t infinity = 0x7f800000, magnitude = 0x7fffffff;
    return x == y || ((x & magnitude) > infinity && (y & magnitude) > infinity);
}

static void same_bits_as(const tsr_gemm_kernel *kernel, const tsr_gemm_kernel *plain)
{
    const bool s8 = is_of_s8(kernel);
    for (int trial = 0; trial < 240; trial++) {
        const int64_t kind = trial % 6, words = kernel->k_align * kit_between(1, kind % 5 == 0 ? 1 : 9);
        const tsr_tensor a = KIT_NEW(TSR_I32, KIT_ROWS, kernel->mr, words);
        const tsr_tensor b = KIT_NEW(TSR_I32, KIT_ROWS, words, kernel->nr);
        const tsr_tensor c[2] = {KIT_NEW(TSR_I32, KIT_ROWS, kernel->mr, kernel->nr),
                                 KIT_NEW(TSR_I32, KIT_ROWS, kernel->mr, kernel->nr)};
        fill_hard(&a, s8, kind), fill_hard(&b, s8, kind), fill_hard(&c[0], s8, kind);
        memcpy(c[1].data, c[0].data, (size_t)(kernel->mr * kernel->nr) * 4);
        tsr_gemm_tile tile = {.k = words, .a = a.data, .a_row = kernel->k_word * words, .b = b.data};
        tile.b_row = tile.c_row = kernel->nr, tile.alpha = 1, tile.beta = (float)(trial / 6 % 2);
        tile.c = c[0].data;
        run_tile(kernel, kernel->run, &tile, kernel->mr, kernel->nr);
        tile.c = c[1].data;
        run_tile(plain, plain->run, &tile, kernel->mr, kernel->nr);
        const uint32_t *x = c[0].data, *y = c[1].data;
        for (int64_t i = 0; i < (int64_t)kernel->mr * kernel->nr; i++)
            if (s8 ? x[i] != y[i] : !same_or_both_nan(x[i], y[i]))
                kit_fail("%s gives %08x, %s %08x, for k %lld, kind %lld of numbers", kernel->name, x[i],
                         plain->name, y[i], (long long)words, (long long)kind);
        kit_free_all();
    }
}

/* Tiles in a row whose sums may stay, of all shapes, some summed to twice: C is right after `finish`. */
static void sums_that_stay(const tsr_gemm_kernel *kernel)
{
    if (kernel->finish == NULL) return;
    enum { N = 12 };
    const bool s8 = is_of_s8(kernel);
    const tsr_dtype dtype = s8 ? TSR_S8 : TSR_BF16;
    tsr_tensor c[N], expected[N];
    char saved[64];
    for (int trial = 0; trial < 60; trial++) {
        kernel->enter(saved);
        for (int i = 0; i < N; i++) {
            const int64_t m = kit_one_in(2) ? kernel->mr : kit_between(1, kernel->mr),
                          k = kit_between(0, 200);
            const int64_t n = kit_one_in(2) ? kernel->nr : kit_between(1, kernel->nr);
            const bool twice = kit_one_in(3);
            const tsr_tensor a = kit_integers(KIT_NEW(dtype, kit_any_input(), m, k), -3, 3);
            const tsr_tensor b = kit_integers(KIT_NEW(dtype, kit_any_input(), k, n), -3, 3);
            c[i] = kit_constant(KIT_NEW(s8 ? TSR_I32 : TSR_F32, KIT_PADDED, m, n), s8 ? 0x7f7f7f7f : NAN);
            tsr_gemm_tile tile = {.c = c[i].data, .c_row = c[i].stride[0], .alpha = 1};
            if (!s8 && !twice && kit_one_in(4)) tile.alpha = 2;
            expected[i] = product_of(&a, &b, &c[i], twice ? 2 : tile.alpha, 0);
            use_panel(&tile, kernel, &b);
            use_rows(&tile, kernel, &a);
            tile.sums_may_stay = true;
            kernel->run(&tile, m, n);
            tile.beta = 1;
            if (twice) kernel->run(&tile, m, n);
        }
        kernel->finish();
        kernel->leave(saved);
        for (int i = 0; i < N; i++)
            if (!kit_agrees(&c[i], &expected[i], KIT_EXACT) || !kit_gaps_intact(&c[i]))
                kit_fail("%s: tile %d of a row is wrong", kernel->name, i);
        kit_free_all();
    }
}
static void test_sums_that_stay(void **state)
{
    (void)state;
    for_each_kernel(sums_that_stay);
}

/* The kernel of the same tile in plain C. */
static const tsr_gemm_kernel *plain_form(const tsr_gemm_kernel *kernel)
{
    const tsr_isa isa = is_of_amx(kernel) ? TSR_ISA_PLAINAMX : TSR_ISA_PLAIN16;
    return tsr_gemm_pick(is_of_s8(kernel) ? tsr_gemm_s8_kernels : tsr_gemm_bf16_kernels, isa);
}

static void same_bits_as_plain(const tsr_gemm_kernel *kernel)
{
    if (!tsr_isa_is_plain(kernel->isa)) same_bits_as(kernel, plain_form(kernel));
}
static void test_instructions_give_the_bits_of_plain_c(void **state)
{
    (void)state;
    for_each_kernel(same_bits_as_plain);
}

/* --- the rest of the record --- */

/* enter keeps what the tiles were configured for, leave gives it back, one inside the other too. */
static void tiles_given_back(const tsr_gemm_kernel *kernel)
{
    if (!is_of_amx(kernel)) return;
    const char none[64] = {0};
    char outer[64], inner[64], after[64];
    kernel->enter(outer);
    assert_memory_equal(outer, none, 64);
    if (!tile_is_right(kernel, kernel->run, 20, 20, 20)) kit_fail("%s: wrong inside", kernel->name);
    const bool s8 = is_of_s8(kernel);
    const int64_t k = kernel->k_align * kernel->k_word;
    const tsr_tensor a = KIT_NEW(s8 ? TSR_S8 : TSR_BF16, KIT_ROWS, 7, k);
    const tsr_tensor b = KIT_NEW(TSR_F32, KIT_ROWS, kernel->k_align, kernel->nr);
    const tsr_tensor c = KIT_NEW(s8 ? TSR_I32 : TSR_F32, KIT_ROWS, 7, 9);
    const tsr_gemm_tile tile = {.k = kernel->k_align,
                                .a = a.data,
                                .a_row = k,
                                .b = b.data,
                                .b_row = kernel->nr,
                                .c = c.data,
                                .c_row = 9,
                                .alpha = 1};
    kernel->run(&tile, 7, 9);
    kernel->enter(inner);
    assert_memory_not_equal(inner, none, 64);
    kernel->run(&tile, 3, 9);
    kernel->leave(inner);
    kernel->enter(after);
    assert_memory_equal(after, inner, 64);
    kernel->leave(outer);
    kernel->enter(after);
    assert_memory_equal(after, none, 64);
    kernel->leave(after);
    kit_free_all();
}
static void test_tiles_are_given_back(void **state)
{
    (void)state;
    for_each_kernel(tiles_given_back);
}

/* --- wrong twins, each with a mistake that a real kernel might have: the check above must see it --- */

static const tsr_gemm_kernel *twin_of;
static void twin_without_tail(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    if (n > twin_of->lanes) n -= n % twin_of->lanes;
    twin_of->run(t, m, n);
}
static void twin_one_step_short(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.k -= twin_of->k_align;
    twin_of->run(&s, m, n);
}
static void twin_a_one_step_ahead(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.a = (const char *)s.a + 4 * (int64_t)twin_of->k_align;
    s.k -= twin_of->k_align;
    twin_of->run(&s, m, n);
}
static void last_row_by(const tsr_gemm_tile *t, int64_t m, int64_t n, int64_t a_rows, bool plainly)
{
    tsr_gemm_tile last = *t;
    twin_of->run(t, m - 1, n);
    last.a = (const char *)t->a + a_rows * t->a_row * (is_of_s8(twin_of) ? 1 : 2);
    last.c = (char *)t->c + (m - 1) * t->c_row * 4;
    if (plainly) last.alpha = 1;
    twin_of->run(&last, 1, n);
}
static void twin_last_row_unscaled(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    last_row_by(t, m, n, m - 1, true);
}
static void twin_last_row_off_by_one(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    last_row_by(t, m, n, m - 2, false);
}

static void twin_without_c(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.beta = 0;
    twin_of->run(&s, m, n);
}

static void twins_rejected(const tsr_gemm_kernel *kernel)
{
    const tile_run twins[] = {twin_without_tail,        twin_one_step_short, twin_a_one_step_ahead,
                              twin_last_row_off_by_one, twin_without_c,      twin_last_row_unscaled};
    const size_t n_twins = sizeof twins / sizeof *twins - is_of_s8(kernel); /* s8 has no scale */
    twin_of = kernel;
    for (size_t i = 0; i < n_twins; i++) {
        int n_rejected = 0;
        for (int trial = 0; trial < 20; trial++) n_rejected += !tile_is_right(kernel, twins[i], 4, 21, 80);
        if (n_rejected == 0) kit_fail("%s: wrong twin %zu passed every trial", kernel->name, i);
    }
}
static void test_wrong_twins_are_rejected(void **state)
{
    (void)state;
    for_each_kernel(twins_rejected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tile_edge),
        cmocka_unit_test(test_random_products_match_double),
        cmocka_unit_test(test_no_bit_depends_on_the_tile),
        cmocka_unit_test(test_instructions_give_the_bits_of_plain_c),
        cmocka_unit_test(test_tiles_are_given_back),
        cmocka_unit_test(test_sums_that_stay),
        cmocka_unit_test(test_wrong_twins_are_rejected),
    };
    return cmocka_run_group_tests_name("gemm_bf16", tests, announce, NULL);
}
