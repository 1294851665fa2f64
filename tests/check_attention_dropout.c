/*
 * check_attention_dropout.c - which probabilities attention drops, seen from outside
 *
 * With V = 1 (Dv = Lk) forward's out is P after dropout itself; with rows of 1 as dO backward's dV is the
 * same, transposed. Both must be 0 exactly where the public function says that the bit is 0.
 */
#include <math.h>

#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "tessera/random.h"

typedef struct sizes {
    int64_t b, hq, hkv, lq, lk;
} sizes;

static tsr_tensor identity(const tsr_tensor *like)
{
    const tsr_tensor t = kit_constant(kit_like(like, like->dtype, kit_any_output()), 0);
    const int64_t n_rows = t.shape[2], n = t.shape[3];
    for (int64_t m = 0; m < t.shape[0] * t.shape[1]; m++)
        for (int64_t i = 0; i < n_rows && i < n; i++) kit_set(&t, (m * n_rows + i) * n + i, 1);
    return t;
}

/* Scores of no more than 2, so that no probability is lost in rounding. */
static kit_attention random_case(const sizes *z, float p)
{
    kit_attention c = {.dtype = TSR_F32, .grad_dtype = TSR_F32, .b = z->b, .hq = z->hq, .hkv = z->hkv};
    c.lq = z->lq, c.lk = z->lk, c.d = 16, c.dv = z->lk;
    c.q = kit_uniform(KIT_NEW(TSR_F32, kit_any_output(), c.b, c.hq, c.lq, c.d), -0.5, 0.5);
    c.k = kit_uniform(KIT_NEW(TSR_F32, kit_any_output(), c.b, c.hkv, c.lk, c.d), -0.5, 0.5);
    const tsr_tensor v = KIT_NEW(TSR_F32, KIT_ROWS, c.b, c.hkv, c.lk, c.dv);
    const tsr_tensor dout = KIT_NEW(TSR_F32, KIT_ROWS, c.b, c.hq, c.lq, c.dv);
    c.v = identity(&v), c.dout = identity(&dout);
    c.options.dropout_p = p, c.options.dropout_offset = (uint32_t)kit_between(0, 1 << 20);
    c.options.dropout_seed = (uint64_t)kit_between(0, INT64_MAX - 1);
    return c;
}

static void expect(const kit_attention *c, double got, double p, bool kept, const char *what,
                   const int64_t *at)
{
    const double factor = 1 / (1 - (double)c->options.dropout_p);
    if (kept ? fabs(got - factor * p) > 1e-5 * p : got != 0)
        kit_fail("%s at %lld, %lld, %lld, %lld is %.9g, P is %.9g and its bit is %d: %s", what,
                 (long long)at[0], (long long)at[1], (long long)at[2], (long long)at[3], got, p, kept,
                 kit_attention_describe(c).text);
}

/* Forward and backward drop what the public function drops; returns how many are kept. */
static double check_bits(const kit_attention *c, const kit_attention_result *got, const tsr_tensor *p)
{
    const tsr_attention_options *o = &c->options;
    const bool alone = c->hq == c->hkv; /* else dv sums over the group */
    double n_kept = 0;
    for (int64_t b = 0; b < c->b; b++)
        for (int64_t h = 0; h < c->hq; h++)
            for (int64_t i = 0; i < c->lq; i++)
                for (int64_t j = 0; j < c->lk; j++) {
                    const int64_t at[] = {b, h, i, j}, head = b * c->hq + h;
                    const int64_t index = (head * c->lq + i) * c->lk + j;
                    const bool kept = tsr_dropout_keep(o->dropout_seed, o->dropout_offset, (uint32_t)head,
                                                       (uint32_t)i, (uint32_t)j, o->dropout_p);
                    n_kept += kept;
                    expect(c, kit_get(&got->out, index), kit_get(p, index), kept, "out", at);
                    if (alone && i < c->dv)
                        expect(c, kit_get(&got->dv, (head * c->lk + j) * c->dv + i), kit_get(p, index), kept,
                               "dv", at);
                }
    return n_kept;
}

/* As many kept as must be, within 5 standard deviations; and with its factor a row still sums to 1 on
 * average. */
static void check_mean(const kit_attention *c, const kit_attention_result *got, double n_kept)
{
    const double p = (double)c->options.dropout_p, n_rows = (double)(c->b * c->hq * c->lq);
    const double n = n_rows * (double)c->lk, deviation = sqrt(n * p * (1 - p));
    if (fabs(n_kept - n * (1 - p)) > 5 * deviation) kit_fail("%.0f of %.0f are kept with p %g", n_kept, n, p);
    double sum = 0;
    for (int64_t i = 0, m = tsr_tensor_numel(&got->out); i < m; i++) sum += kit_get(&got->out, i);
    /* P is at most e^4 / lk, and so a row's variance e^4 / lk * p / (1 - p). */
    const double row_deviation = sqrt(exp(4) / (double)c->lk * p / (1 - p));
    if (fabs(sum / n_rows - 1) > 5 * row_deviation / sqrt(n_rows))
        kit_fail("rows sum to %g on average, p %g", sum / n_rows, p);
}

static void bits_are_the_public_ones(tsr_context *ctx)
{
    static const sizes all[] = {{2, 3, 3, 113, 113}, {1, 4, 2, 70, 257}, {2, 2, 2, 3, 600}, {1, 6, 2, 1, 33}};
    static const float shares[] = {0.1f, 0.5f, 0.9f};
    for (size_t s = 0; s < sizeof all / sizeof *all; s++)
        for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
            kit_attention c = random_case(&all[s], shares[i]);
            const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
            kit_attention plain = c;
            plain.options.dropout_p = 0;
            const kit_attention_result whole = kit_attention_run(ctx, &plain, KIT_FUSED);
            check_mean(&c, &got, check_bits(&c, &got, &whole.out));
            const tsr_tensor lse = kit_f64(&whole.lse);
            kit_check(&got.lse, &lse, (kit_bound){.ulps = 4}, "lse, which dropout comes after");
            kit_free_all();
        }
}

/* Other seeds, offsets and sequences drop others. */
static void streams_differ(tsr_context *ctx)
{
    kit_attention c = random_case(&(sizes){2, 2, 2, 20, 64}, 0.5f);
    const kit_attention_result first = kit_attention_run(ctx, &c, KIT_FUSED);
    c.options.dropout_seed++;
    const kit_attention_result other_seed = kit_attention_run(ctx, &c, KIT_FUSED);
    c.options.dropout_seed--, c.options.dropout_offset++;
    const kit_attention_result other_offset = kit_attention_run(ctx, &c, KIT_FUSED);
    c.options.dropout_offset--;
    const kit_attention_result again = kit_attention_run(ctx, &c, KIT_FUSED);
    assert_false(kit_same_bits(&first.out, &other_seed.out));
    assert_false(kit_same_bits(&first.out, &other_offset.out));
    assert_true(kit_same_bits(&first.out, &again.out) && kit_same_bits(&first.dv, &again.dv));
    kit_free_all();
}

KIT_TEST_OF_EACH(kit_for_each_gemm_isa, bits_are_the_public_ones)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, streams_differ)

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits_are_the_public_ones),
                                       cmocka_unit_test(test_streams_differ)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
