/* check_gemm_int.c - how the GEMM families of integers pack, word by word; every kernel of s8, every tile
 * edge */
#include "gemm_int.h"

/* --- packing --- */

static int32_t word_of(const int32_t byte[4])
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word |= (uint32_t)(byte[i] & 0xff) << (8 * i);
    return (int32_t)word;
}

/* As drawn in gemm.h, for one word row and column of s8. */
static int32_t expected_b(const tsr_tensor *x, int64_t p, int64_t j)
{
    int32_t byte[4] = {0};
    for (int64_t i = 0; i < 4; i++)
        if (4 * p + i < x->shape[0] && j < x->shape[1])
            byte[i] = (int32_t)kit_get(x, (4 * p + i) * x->shape[1] + j) + 128;
    return word_of(byte);
}

static void check_panel_of(const tsr_gemm_kernel *kernel, kit_layout layout, int64_t k, int64_t n)
{
    const tsr_tensor x = any_s8(KIT_NEW(TSR_S8, layout, k, n));
    const int64_t rows = round_up(k, 4) / 4;
    const tsr_tensor panel = KIT_NEW(TSR_I32, KIT_ROWS, rows, kernel->nr);
    const tsr_tensor expected = KIT_NEW(TSR_F64, KIT_ROWS, rows, kernel->nr);
    for (int64_t p = 0; p < rows; p++)
        for (int64_t j = 0; j < kernel->nr; j++) kit_set(&expected, p * kernel->nr + j, expected_b(&x, p, j));
    kernel->pack_b(panel.data, x.data, TSR_S8, x.stride[0], x.stride[1], k, n);
    kit_check(&panel, &expected, KIT_EXACT, "%s: panel of %s", kernel->name, kit_describe(&x).text);
    kit_free_all();
}

static void check_panels(const tsr_gemm_kernel *kernel)
{
    for (int64_t n = 1; n <= kernel->nr; n++)
        for (int trial = 0; trial < 6; trial++)
            check_panel_of(kernel, trial < 2 ? (kit_layout)(trial * KIT_TRANSPOSED) : kit_any_input(),
                           kit_between(0, 40), n);
    check_panel_of(kernel, KIT_ROWS, 130, kernel->nr);
    check_panel_of(kernel, KIT_TRANSPOSED, 130, kernel->nr);
}

static void test_panels_of_s8(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s8_kernels, check_panels);
}

static int32_t expected_a(const tsr_tensor *x, int64_t i, int64_t word, int32_t a_words)
{
    int32_t byte[4] = {0};
    for (int64_t e = 0; e < 4; e++) {
        const int64_t p = word / a_words * 4 + e;
        if (p < x->shape[1]) byte[e] = (int32_t)kit_get(x, i * x->shape[1] + p);
    }
    if (a_words == 1) return word_of(byte);
    const int32_t low = byte[word % 2], high = byte[2 + word % 2];
    return (int32_t)((uint32_t)(low & 0xffff) | (uint32_t)high << 16);
}

static void check_rows_of(const tsr_gemm_kernel *kernel, int64_t m, int64_t k, int64_t sum_every)
{
    const bool whole_groups = kernel->k_word == 8;
    const int64_t n_sums = sum_every > 0 ? round_up(k, sum_every) / sum_every : 1;
    const int64_t k_padded = round_up(k, !whole_groups ? 4 : sum_every > 0 ? sum_every : 8);
    const tsr_tensor x = any_s8(KIT_NEW(TSR_S8, kit_any_input(), m, k));
    const tsr_tensor sums = KIT_NEW(TSR_I32, KIT_PADDED, m, n_sums);
    const tsr_tensor packed = packed_rows(kernel, &x, m, k_padded, sum_every, sums.data, sums.stride[0]);
    const tsr_tensor expected = kit_like(&packed, TSR_F64, KIT_ROWS);
    const tsr_tensor expected_sums = kit_constant(kit_like(&sums, TSR_F64, KIT_ROWS), 0);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t w = 0; w < packed.shape[1]; w++)
            kit_set(&expected, i * packed.shape[1] + w, expected_a(&x, i, w, kernel->a_words));
        for (int64_t p = 0; p < k; p++) {
            const int64_t at = i * n_sums + (sum_every > 0 ? p / sum_every : 0);
            kit_set(&expected_sums, at, kit_get(&expected_sums, at) + kit_get(&x, i * k + p));
        }
    }
    kit_check(&packed, &expected, KIT_EXACT, "%s: packed rows of %s", kernel->name, kit_describe(&x).text);
    kit_check(&sums, &expected_sums, KIT_EXACT, "%s: sums every %lld of rows of %s", kernel->name,
              (long long)sum_every, kit_describe(&x).text);
    kit_free_all();
}

static void check_rows(const tsr_gemm_kernel *kernel)
{
    static const int64_t every[] = {0, 32, 64, 128, 8, 24};
    for (int64_t k = 0; k < 140; k++)
        for (int trial = 0; trial < 3; trial++)
            check_rows_of(kernel, kit_between(1, kernel->mr), k, every[kit_between(0, 5)]);
}

static void test_packed_rows(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s8_kernels, check_rows);
    for_each_kernel(tsr_gemm_s4_kernels, check_rows);
}

/* --- s8: every m and n of the tile --- */

/* The whole product A B, from plain loops, modulo 2^32. */
static void multiply(const tsr_tensor *a, const tsr_tensor *b, int32_t offset, c_tile *dots)
{
    const int64_t m = a->shape[0], k = a->shape[1], n = b->shape[1];
    static int64_t row[MAX_K];
    for (int64_t i = 0; i < m; i++) {
        for (int64_t p = 0; p < k; p++) row[p] = (int64_t)kit_get(a, i * k + p);
        for (int64_t j = 0; j < n; j++) dots->s32[at(i, j)] = 0;
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < n; j++)
                dots->s32[at(i, j)] += (int32_t)row[p] * (((const int8_t *)b->data)[p * n + j] + offset);
    }
}

/* All tiles of one A [mr, k] and B [k, nr], B contiguous; sums are left out now and then. */
static bool s8_is_right(const tsr_gemm_kernel *kernel, tile_run run, const tsr_tensor *a, const tsr_tensor *b)
{
    const int64_t k = a->shape[1], k_padded = round_up(k, 4);
    static c_tile dots[2], c, before;
    multiply(a, b, 0, &dots[0]);
    multiply(a, b, 128, &dots[1]);
    tsr_tensor packed[MAX_MR + 1];
    int32_t sums[MAX_MR];
    for (int64_t m = 1; m <= kernel->mr; m++) packed[m] = packed_rows(kernel, a, m, k_padded, 0, sums, 1);
    for (int64_t i = 0; i < C_COUNT; i++) before.s32[i] = (int32_t)kit_between(-99999, 99999);
    bool right = true;
    for (int64_t n = 1; n <= kernel->nr && right; n++) {
        const tsr_tensor panel = kit_new_at(KIT_AT_END, 0, TSR_I32, KIT_ROWS, 2,
                                            (int64_t[]){k_padded / 4, kernel->nr});
        kernel->pack_b(panel.data, b->data, TSR_S8, b->stride[0], b->stride[1], k, n);
        for (int64_t m = 1; m <= kernel->mr; m++) {
            const bool with_sums = !kit_one_in(4), add = kit_one_in(2);
            c = before;
            const tsr_gemm_tile tile = {
                .k = k_padded / 4,
                .a = packed[m].data,
                .a_row = packed[m].stride[0],
                .b = panel.data,
                .a_sums = with_sums ? sums : NULL,
                .c = &c.s32[at(0, 0)],
                .c_row = C_ROW,
                .alpha = 1,
                .beta = add ? 1 : 0,
            };
            run(&tile, m, n);
            for (int64_t i = -1; i <= kernel->mr; i++)
                for (int64_t j = -MARGIN; j < kernel->nr + MARGIN; j++) {
                    const bool inside = i >= 0 && i < m && j >= 0 && j < n;
                    const int32_t old = before.s32[at(i, j)];
                    right &= c.s32[at(i, j)] ==
                             (!inside ? old : dots[with_sums ? 0 : 1].s32[at(i, j)] + (add ? old : 0));
                }
        }
    }
    return right;
}

static bool s8_is_right_for(const tsr_gemm_kernel *kernel, tile_run run, int64_t k)
{
    const tsr_tensor a = any_s8(KIT_NEW(TSR_S8, kit_any_input(), kernel->mr, k));
    const tsr_tensor b = any_s8(KIT_NEW(TSR_S8, KIT_ROWS, k, kernel->nr));
    const bool right = s8_is_right(kernel, run, &a, &b);
    kit_free_all();
    return right;
}

static void check_s8_edges(const tsr_gemm_kernel *kernel)
{
    static const int64_t ks[] = {0, 1, 2, 3, 4, 5, 7, 8, 64, 130};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        if (!s8_is_right_for(kernel, kernel->run, ks[i]))
            kit_fail("%s: a tile with k %lld is wrong", kernel->name, (long long)ks[i]);
}

/* The largest sums there are, where 16 bits saturate. */
static void check_s8_extremes(const tsr_gemm_kernel *kernel)
{
    for (int e = 0; e < 4; e++) {
        const int32_t x = e & 1 ? 127 : -128, y = e & 2 ? 127 : -128;
        const tsr_tensor a = kit_constant(KIT_NEW(TSR_S8, KIT_ROWS, kernel->mr, MAX_K), x);
        const tsr_tensor b = kit_constant(KIT_NEW(TSR_S8, KIT_ROWS, MAX_K, kernel->nr), y);
        if (!s8_is_right(kernel, kernel->run, &a, &b))
            kit_fail("%s: %d times %d is wrong", kernel->name, x, y);
        kit_free_all();
    }
}

static void test_s8_edges(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s8_kernels, check_s8_edges);
}
static void test_s8_extremes(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s8_kernels, check_s8_extremes);
}

static void twin_never_adds(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.beta = 0;
    twin_of->run(&s, m, n);
}
/* What the saturating multiplication of bytes would make of it. */
static void twin_saturates(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            const uint8_t *b = t->b;
            const int16_t *a = (const int16_t *)t->a + i * t->a_row * 2;
            int32_t sum = t->a_sums != NULL ? -128 * t->a_sums[i] : 0;
            for (int64_t p = 0; p < t->k; p++, a += 4, b += 4 * twin_of->nr)
                for (int half = 0; half < 2; half++) { /* a: elements 0, 2, 1, 3 */
                    const int32_t pair = b[4 * j + 2 * half] * a[half] +
                                         b[4 * j + 2 * half + 1] * a[2 + half];
                    sum += pair > INT16_MAX ? INT16_MAX : pair < INT16_MIN ? INT16_MIN : pair;
                }
            int32_t *c = (int32_t *)t->c + i * t->c_row + j;
            *c = sum + (t->beta != 0 ? *c : 0);
        }
}

static void test_wrong_twins_of_s8_are_rejected(void **state)
{
    (void)state;
    const tile_run twins[] = {twin_without_tail, twin_one_word_short,      twin_sums_of_another_row,
                              twin_never_adds,   twin_last_row_off_by_one, twin_saturates};
    twin_of = tsr_gemm_pick(tsr_gemm_s8_kernels, TSR_ISA_PORTABLE);
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++)
        if (s8_is_right_for(twin_of, twins[i], 40)) kit_fail("wrong twin %zu of s8 passed", i);
}

static int announce(void **state)
{
    (void)state;
    announce_skipped(tsr_gemm_s8_kernels);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panels_of_s8),
        cmocka_unit_test(test_packed_rows),
        cmocka_unit_test(test_s8_edges),
        cmocka_unit_test(test_s8_extremes),
        cmocka_unit_test(test_wrong_twins_of_s8_are_rejected),
    };
    return cmocka_run_group_tests_name("gemm of integers", tests, announce, NULL);
}
