/*
 * check_attention_grid.c - attention over a random grid of configurations
 *
 * Lengths at and around the edges of tiles and chunks, head sizes from 1 to 256, every dtype, layouts with
 * gaps, grouped heads, every feature with every other. A case has a number and draws from a stream of its
 * own, so that any one can be run again by itself: a failure prints TESSERA_ISA=.. TSR_SEED=.. TSR_CASE=.. to
 * set. TSR_CASE=100-9999 runs a range, as long as one likes.
 *
 * Each case runs on the set that would be chosen here and on one of the others in turn; small ones also on
 * those in plain C. Held against the reference in double: all results, by what the unfused form in the same
 * dtype errs by. Held to the bit: threads, splits, fewer gradients, NaN wherever nothing depends on it,
 * packing, pages, company.
 */
#include <math.h>
#include <stdlib.h>

#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"

enum { DEFAULT_CASES = 120 };

static tsr_context *one_thread, *three_threads;

/* --- drawing a case --- */

static int64_t cost(const kit_attention *c) { return c->b * c->hq * c->lq * c->lk * (c->d + c->dv + 16); }

static int64_t any_width(void)
{
    static const int64_t widths[] = {1, 8, 16, 32, 40, 64, 80, 96, 128, 160, 192, 256};
    return kit_one_in(3) ? kit_between(1, 256) : widths[kit_between(0, 11)];
}

/* Multiply-adds within the limit; and no more than 4 Mi scores, as bias and its gradient have as many. */
static bool fits(const kit_attention *c, int64_t limit)
{
    return cost(c) <= limit && c->b * c->hq * c->lq * c->lk <= 1 << 22;
}

static void choose_sizes(kit_attention *c)
{
    static const int64_t lengths[] = {0, 1, 3, 113, 239, 799, 1023, 1024, 1025};
    static const int64_t groups[] = {1, 1, 2, 3, 4, 8};
    const int64_t limit = (int64_t)1 << kit_between(17, 27);
    do {
        c->lq = lengths[kit_between(0, 8)];
        c->lk = kit_one_in(2) ? c->lq : lengths[kit_between(0, 8)];
        c->b = kit_between(1, 3), c->hkv = kit_between(1, 3), c->hq = c->hkv * groups[kit_between(0, 5)];
        c->d = any_width(), c->dv = kit_one_in(2) ? c->d : any_width();
    } while (!fits(c, limit));
}

static void multiply(const tsr_tensor *t, double factor)
{
    for (int64_t i = 0, n = tsr_tensor_numel(t); i < n; i++) kit_set(t, i, factor * kit_get(t, i));
}

/* k and v with a stride of 0 somewhere: rows, heads or sequences in common. */
static void share_keys(kit_attention *c)
{
    c->k = kit_normal(kit_like(&c->k, c->dtype, KIT_BROADCAST));
    c->v = kit_normal(kit_like(&c->v, c->dtype, KIT_BROADCAST));
}

static kit_attention draw(bool *shares)
{
    kit_attention c = kit_attention_of_sizes(kit_one_in(8), choose_sizes);
    *shares = kit_one_in(8);
    if (*shares) share_keys(&c);
    /* Scores of about 1e4, and of 1e-4. */
    const double size = kit_one_in(8) ? 100 : kit_one_in(8) ? 0.01 : 1;
    if (size != 1 && !*shares) multiply(&c.q, size), multiply(&c.k, size);
    return c;
}

/* --- what must be the same to the bit --- */

static void same_with_other_threads(const kit_attention *c, const kit_attention_result *fused)
{
    kit_attention split = *c;
    split.options.splits = kit_between(1, 9);
    const kit_attention_result one = kit_attention_run(one_thread, &split, KIT_FUSED);
    kit_attention_same_bits(c, fused, &one, "1 and 2 threads");
    const kit_attention_result three = kit_attention_run(three_threads, c, KIT_FUSED);
    kit_attention_same_bits(c, fused, &three, "3 and 2 threads");
}

static void same_with_fewer_results(tsr_context *ctx, const kit_attention *c,
                                    const kit_attention_result *fused)
{
    kit_attention some = *c;
    some.unwanted = (unsigned)kit_between(1, (1 << KIT_ATTENTION_RESULTS) - 1);
    const kit_attention_result got = kit_attention_run(ctx, &some, KIT_FUSED);
    kit_attention_same_bits(c, fused, &got, "some and all results");
}

/* Packed, with what is hidden spoiled: cases without a sequence's padding have none to leave out. */
static void same_packed_or_in_pages(tsr_context *ctx, const kit_attention *c,
                                    const kit_attention_result *fused)
{
    if (kit_one_in(2)) {
        const kit_attention packed = kit_attention_packed(c);
        const kit_attention_result got = kit_attention_run(ctx, &packed, KIT_FUSED);
        const kit_attention_result expected = kit_attention_result_packed(&packed, fused);
        kit_attention_same_bits(&packed, &expected, &got, "packed and padded");
    } else {
        const kit_attention paged = kit_attention_paged(c);
        const kit_attention_result got = kit_attention_run(ctx, &paged, KIT_FUSED);
        kit_attention_same_bits(c, fused, &got, "in pages and in line");
    }
}

static void same_alone(tsr_context *ctx, const kit_attention *c, const kit_attention_result *fused)
{
    if (c->options.dropout_p > 0) return; /* its bits follow the index of the sequence */
    const int64_t b = kit_between(0, c->b - 1);
    const kit_attention alone = kit_attention_sequence(c, b);
    const kit_attention_result got = kit_attention_run(ctx, &alone, KIT_FUSED);
    const kit_attention_result part = kit_attention_result_sequence(fused, b);
    kit_attention_same_bits(&alone, &part, &got, "a sequence alone and in a batch");
}

/* --- one case --- */

/* The set that would be chosen, and one of the others where the case is small enough for it. */
static int sets_of(int64_t number, const kit_attention *c, int sets[2])
{
    int n = 0;
    while (kit_isa_context(n) != NULL) n++;
    sets[0] = 0;
    if (n == 1) return 1;
    sets[1] = 1 + (int)(number % (n - 1));
    return kit_isa_is_plain(sets[1]) && cost(c) > 1 << 22 ? 1 : 2;
}

static void check_case(int64_t number)
{
    bool shares;
    int sets[2];
    kit_attention_result fused[2];
    kit_random_case((uint32_t)number, 0);
    const kit_attention c = draw(&shares), exact = kit_attention_f64(&c);
    const kit_attention_result truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
    const int n_sets = sets_of(number, &c, sets);
    for (int i = 0; i < n_sets; i++) {
        tsr_context *ctx = kit_isa_context(sets[i]);
        kit_random_case((uint32_t)number, 1 + (uint32_t)sets[i]);
        const kit_attention_result unfused = kit_attention_run(ctx, &c, KIT_UNFUSED);
        fused[i] = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_check(&c, &fused[i], &truth, &unfused);
    }
    if (!shares) kit_attention_poison_hidden(&c);
    for (int i = 0; i < n_sets; i++) {
        tsr_context *ctx = kit_isa_context(sets[i]);
        const kit_attention_result again = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_same_bits(&c, &fused[i], &again, "NaN where nothing depends on it");
        if (i == 0) same_with_other_threads(&c, &fused[i]);
        same_with_fewer_results(ctx, &c, &fused[i]);
        same_packed_or_in_pages(ctx, &c, &fused[i]);
        same_alone(ctx, &c, &fused[i]);
    }
    kit_free_all();
}

static void test_grid(void **state)
{
    (void)state;
    int64_t first = 0, last = DEFAULT_CASES - 1;
    const char *range = getenv("TSR_CASE");
    if (range != NULL) {
        char *end;
        first = last = strtoll(range, &end, 10);
        if (*end == '-') last = strtoll(end + 1, NULL, 10);
    }
    kit_isa_context(0);
    one_thread = kit_cpu_with_threads(1), three_threads = kit_cpu_with_threads(3);
    for (int64_t number = first; number <= last; number++) check_case(number);
    tsr_context_destroy(one_thread);
    tsr_context_destroy(three_threads);
    kit_random_restart();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_grid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
