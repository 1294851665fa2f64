/* check_gemm_s4.c - every GEMM kernel of the family s4: panels byte by byte, every tile edge */
#include <math.h>

#include "gemm_int.h"

enum { MAX_GROUPS = MAX_K / 32 };

typedef struct s4_case {
    const tsr_gemm_kernel *kernel;
    int64_t k, group, n_groups;
    tsr_tensor a;             /* [mr, k]                                    */
    tsr_tensor q;             /* [nr, k]: -8 .. 7, or 0 .. 15 with zeros    */
    tsr_tensor scales, zeros; /* [nr, n_groups]; zeros.data NULL: no zeros */
    bool exact;               /* scales are powers of two: f32 holds it all */
} s4_case;

static s4_case s4_case_of(const tsr_gemm_kernel *kernel, int64_t k, int64_t group, bool has_zeros, bool exact)
{
    s4_case s = {.kernel = kernel, .k = k, .group = group, .exact = exact};
    s.n_groups = round_up(k, group) / group;
    s.a = any_s8(KIT_NEW(TSR_S8, kit_any_input(), kernel->mr, k));
    s.q = kit_integers(KIT_NEW(TSR_S8, KIT_PADDED, kernel->nr, k), has_zeros ? 0 : -8, has_zeros ? 15 : 7);
    s.scales = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, kernel->nr, s.n_groups), -0.1, 0.1);
    if (has_zeros) s.zeros = kit_integers(KIT_NEW(TSR_S8, KIT_PADDED, kernel->nr, s.n_groups), 0, 15);
    for (int64_t i = 0; exact && i < kernel->nr * s.n_groups; i++)
        kit_set(&s.scales, i, ldexp(1, (int)kit_between(-1, 1)));
    return s;
}

static tsr_tensor s4_panel(const s4_case *s, int64_t n)
{
    const bool has_zeros = s->zeros.data != NULL;
    const int64_t nbytes = tsr_gemm_s4_panel_nbytes(s->kernel->nr, s->k, s->group, has_zeros);
    const tsr_tensor panel = kit_new_at(KIT_AT_END, 0, TSR_S8, KIT_ROWS, 1, &nbytes);
    s->kernel->pack_s4(panel.data, s->q.data, s->q.stride[0], s->k, n, s->scales.data, s->scales.stride[0],
                       s->zeros.data, s->zeros.stride[0], s->group);
    return panel;
}

/* As drawn in gemm.h, byte by byte. */
static void check_s4_panel(const s4_case *s, int64_t n)
{
    const int64_t nr = s->kernel->nr, has_zeros = s->zeros.data != NULL;
    const tsr_tensor panel = s4_panel(s, n);
    const uint8_t *byte = panel.data;
    for (int64_t g = 0; g < s->n_groups; g++) {
        for (int64_t j = 0; j < nr; j++, byte += sizeof(float)) {
            const float scale = j < n ? (float)kit_get(&s->scales, j * s->n_groups + g) : 0;
            float stored;
            memcpy(&stored, byte, sizeof stored);
            if (stored != scale) kit_fail("%s: a scale is wrong", s->kernel->name);
        }
        for (int64_t j = 0; j < nr * has_zeros; j++)
            if (*byte++ != (j < n ? (uint8_t)kit_get(&s->zeros, j * s->n_groups + g) : 0))
                kit_fail("%s: a zero is wrong", s->kernel->name);
        for (int64_t i = 0; i < s->group / 2 * nr; i++) {
            const int64_t j = i / 4 % nr, p = g * s->group + i / 4 / nr * 8 + i % 4;
            int32_t half[2] = {0};
            for (int h = 0; h < 2; h++)
                if (j < n && p + 4 * h < s->k)
                    half[h] = (int32_t)kit_get(&s->q, j * s->k + p + 4 * h) + (has_zeros ? 0 : 8);
            if (*byte++ != (half[0] | half[1] << 4))
                kit_fail("%s: elements %d and %d of column %d are wrong", s->kernel->name, (int)p, (int)p + 4,
                         (int)j);
        }
    }
    kit_check_gaps(&panel, s->kernel->name);
}

/* The sum over groups, and of their magnitudes. */
static void s4_truth(const s4_case *s, double truth[MAX_MR][MAX_NR], double size[MAX_MR][MAX_NR])
{
    for (int64_t i = 0; i < s->kernel->mr; i++)
        for (int64_t j = 0; j < s->kernel->nr; j++) {
            truth[i][j] = size[i][j] = 0;
            for (int64_t g = 0; g < s->n_groups; g++) {
                double sum = 0;
                const double zero = s->zeros.data != NULL ? kit_get(&s->zeros, j * s->n_groups + g) : 0;
                for (int64_t p = g * s->group; p < (g + 1) * s->group && p < s->k; p++)
                    sum += kit_get(&s->a, i * s->k + p) * (kit_get(&s->q, j * s->k + p) - zero);
                sum *= kit_get(&s->scales, j * s->n_groups + g);
                truth[i][j] += sum, size[i][j] += fabs(sum);
            }
        }
}

/* Scales beyond n may be anything. */
static void spoil_scales(const s4_case *s, const tsr_tensor *panel, int64_t n)
{
    const int64_t group_nbytes = s->n_groups > 0 ? panel->shape[0] / s->n_groups : 0;
    const float nan = NAN;
    for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t j = n; j < s->kernel->nr; j++)
            memcpy((char *)panel->data + g * group_nbytes + 4 * j, &nan, sizeof nan);
}

/* Every tile is right, and has the bits that the whole one has. */
static bool s4_is_right(const s4_case *s, tile_run run)
{
    static double truth[MAX_MR][MAX_NR], size[MAX_MR][MAX_NR];
    static c_tile c, before, whole;
    static int32_t sums[MAX_MR][MAX_GROUPS];
    const tsr_gemm_kernel *kernel = s->kernel;
    const int64_t mr = kernel->mr, nr = kernel->nr, k_padded = s->n_groups * s->group;
    const float alpha = s->exact ? 2 : 0.7f, beta = (float)kit_between(0, 2);
    s4_truth(s, truth, size);
    for (int64_t i = 0; i < C_COUNT; i++) before.f32[i] = beta == 0 ? NAN : (float)kit_between(-9, 9);
    tsr_tensor packed[MAX_MR + 1];
    for (int64_t m = 1; m <= mr; m++)
        packed[m] = packed_rows(kernel, &s->a, m, k_padded, s->group, sums[0], MAX_GROUPS);
    bool right = true;
    for (int64_t n = nr; n > 0 && right; n--) {
        const tsr_tensor panel = s4_panel(s, n);
        spoil_scales(s, &panel, n);
        for (int64_t m = mr; m > 0; m--) {
            if (kernel->enter != NULL && m < mr && n < nr && !kit_one_in(8)) continue; /* 1024 are too many */
            c = before;
            const tsr_gemm_tile tile = {
                .k = k_padded / 8,
                .a = packed[m].data,
                .a_row = packed[m].stride[0],
                .b = panel.data,
                .a_sums = sums[0],
                .a_sums_row = MAX_GROUPS,
                .group = (int32_t)s->group,
                .has_zeros = s->zeros.data != NULL,
                .c = &c.f32[at(0, 0)],
                .c_row = C_ROW,
                .alpha = alpha,
                .beta = beta,
            };
            run(&tile, m, n);
            if (m == mr && n == nr) whole = c;
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++) {
                    const double old = beta == 0 ? 0 : beta * (double)before.f32[at(i, j)];
                    const double error = c.f32[at(i, j)] - (alpha * truth[i][j] + old);
                    const double bound = (double)(s->n_groups + 3) * 0x1p-24 * (size[i][j] + fabs(old));
                    right &= fabs(error) <= (s->exact ? 0 : bound);
                    right &= c.s32[at(i, j)] == whole.s32[at(i, j)];
                    c.s32[at(i, j)] = before.s32[at(i, j)];
                }
            right &= memcmp(c.s32, before.s32, sizeof c.s32) == 0;
        }
    }
    return right;
}

static void check_s4_edges(const tsr_gemm_kernel *kernel)
{
    static const int64_t ks[] = {0, 1, 32, 40, 64, 128, 130, 256, 640};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (int64_t group = 32; group <= 128; group *= 2)
            for (int kind = 0; kind < 4; kind++) {
                if (kit_one_in(2) && ks[i] > 0) continue;
                const s4_case s = s4_case_of(kernel, ks[i], group, kind % 2, kind / 2);
                check_s4_panel(&s, kit_between(1, kernel->nr));
                if (!s4_is_right(&s, kernel->run))
                    kit_fail("%s: a tile with k %lld group %lld zeros %d is wrong", kernel->name,
                             (long long)ks[i], (long long)group, kind % 2);
                kit_free_all();
            }
}

/* The largest sums there are, where 16 bits are nearly full. */
static void check_s4_extremes(const tsr_gemm_kernel *kernel)
{
    for (int e = 0; e < 8; e++) {
        const s4_case s = s4_case_of(kernel, 256, 128, true, true);
        kit_constant(s.a, e % 2 ? -128 : 127);
        kit_constant(s.q, e / 2 % 2 ? 15 : 0);
        kit_constant(s.zeros, e / 4 ? 15 : 0);
        if (!s4_is_right(&s, kernel->run)) kit_fail("%s: extremes %d are wrong", kernel->name, e);
        kit_free_all();
    }
}

static void test_s4_edges(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s4_kernels, check_s4_edges);
}
static void test_s4_extremes(void **state)
{
    (void)state;
    for_each_kernel(tsr_gemm_s4_kernels, check_s4_extremes);
}

static void test_wrong_twins_of_s4_are_rejected(void **state)
{
    (void)state;
    const tile_run twins[] = {twin_without_tail, twin_one_word_short, twin_sums_of_another_row,
                              twin_last_row_off_by_one};
    twin_of = tsr_gemm_pick(tsr_gemm_s4_kernels, TSR_ISA_PORTABLE);
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++)
        for (int exact = 0; exact < 2; exact++) {
            const s4_case s = s4_case_of(twin_of, 96, 32, true, exact);
            if (s4_is_right(&s, twins[i])) kit_fail("wrong twin %zu of s4 passed", i);
            kit_free_all();
        }
}

static int announce(void **state)
{
    (void)state;
    announce_skipped(tsr_gemm_s4_kernels);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s4_edges),
        cmocka_unit_test(test_s4_extremes),
        cmocka_unit_test(test_wrong_twins_of_s4_are_rejected),
    };
    return cmocka_run_group_tests_name("gemm of 4-bit weights", tests, announce, NULL);
}
