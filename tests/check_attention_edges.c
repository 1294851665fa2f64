/*
 * check_attention_edges.c - where attention's answer is known without a reference
 *
 * Scores of 1e4 and of 1e-4, rows that see nothing, sequences of length 0, and 250 runs of one call. Random
 * cases of all this are in check_attention.c and check_attention_grid.c.
 */
#include <math.h>

#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"

enum { D = 33 }; /* a panel and one column more */

/* One head; q and k hold zeros but for the first element of a row. */
static kit_attention one_head(tsr_dtype dtype, int64_t lq, int64_t lk)
{
    kit_attention c = {.dtype = dtype, .grad_dtype = TSR_F32, .b = 1, .hq = 1, .hkv = 1, .lq = lq, .lk = lk};
    c.d = c.dv = D, c.options.scale = 1;
    c.q = kit_constant(KIT_NEW(dtype, kit_any_output(), 1, 1, lq, D), 0);
    c.k = kit_constant(KIT_NEW(dtype, kit_any_output(), 1, 1, lk, D), 0);
    c.v = kit_integers(KIT_NEW(dtype, kit_any_output(), 1, 1, lk, D), -8, 8);
    c.dout = kit_integers(KIT_NEW(dtype, kit_any_output(), 1, 1, lq, D), -8, 8);
    return c;
}

/* --- large and small scores --- */

static double column_mean(const tsr_tensor *v, int64_t n, int64_t column)
{
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += kit_get(v, j * D + column) / (double)n;
    return sum;
}

/* All scores of one size: out is the mean of v, lse = score + log lk, and dv the mean of dout times lq / lk.
 */
static void scores_of(tsr_context *ctx, tsr_dtype dtype, int64_t lq, int64_t lk, double score)
{
    const kit_attention c = one_head(dtype, lq, lk);
    for (int64_t i = 0; i < lq; i++) kit_set(&c.q, i * D, score < 0 ? -64 : 64);
    for (int64_t j = 0; j < lk; j++) kit_set(&c.k, j * D, fabs(score) / 64);
    const double s = kit_get(&c.q, 0) * kit_get(&c.k, 0); /* k is rounded to its dtype */
    const tsr_tensor out = KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lq, D),
                     lse = KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lq);
    const tsr_tensor dv = KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lk, D);
    for (int64_t d = 0; d < D; d++) {
        const double v = column_mean(&c.v, lk, d), dout = column_mean(&c.dout, lq, d);
        for (int64_t i = 0; i < lq; i++) kit_set(&out, i * D + d, v);
        for (int64_t j = 0; j < lk; j++) kit_set(&dv, j * D + d, dout * (double)lq / (double)lk);
    }
    kit_constant(lse, s + log((double)lk));
    const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
    const double relative = 1e-5 + 1e-7 * fabs(s);  /* P = 2^(s - lse), lse being as large as s */
    const double rounded = got.rounds ? 0x1p-9 : 0; /* all P are, and alike */
    kit_check(&got.out, &out, (kit_bound){.abs = 1e-5, .ulps = 1}, "out of scores of %g", s);
    kit_check(&got.lse, &lse, (kit_bound){.abs = 1e-6, .rel = 2e-7}, "lse of scores of %g", s);
    kit_check(&got.dv, &dv, (kit_bound){.abs = 8 * relative, .rel = relative + rounded}, "dv of scores of %g",
              s);
    kit_free_all();
}

/* Scores that rise from -1e4 to 1e4 every `each` keys: these outweigh all before them, and the last, which is
 * alone, is the answer. */
static void rising_scores(tsr_context *ctx, tsr_dtype dtype, int64_t lq, int64_t lk, int64_t each)
{
    const kit_attention c = one_head(dtype, lq, lk);
    const int64_t stairs = (lk - 1) / each;
    for (int64_t i = 0; i < lq; i++) kit_set(&c.q, i * D, 100);
    for (int64_t j = 0; j < lk; j++) {
        const int64_t stair = j / each;
        kit_set(&c.k, j * D, -100 + 200 * (double)stair / (double)stairs);
    }
    const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
    const tsr_tensor out = KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lq, D);
    for (int64_t i = 0; i < lq * D; i++) kit_set(&out, i, kit_get(&c.v, (lk - 1) * D + i % D));
    const tsr_tensor lse = kit_constant(KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lq), 1e4);
    const tsr_tensor dq = kit_constant(KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, lq, D), 0);
    /* dP and delta are equal numbers of up to 1024, each rounded; k is 100. */
    const double dq_error = 100 * 4 * kit_ulp(TSR_F32, 1024);
    kit_check(&got.out, &out, (kit_bound){.ulps = 1}, "out of rising scores");
    kit_check(&got.lse, &lse, (kit_bound){.ulps = 1}, "lse of rising scores");
    kit_check(&got.dq, &dq, (kit_bound){.abs = dq_error}, "dq of rising scores");
    kit_free_all();
}

/* Far beyond what f32 resolves: the largest score's key is the answer still. */
static void huge_scores(tsr_context *ctx)
{
    for (double size = 1e5; size < 1e18; size *= 10) {
        const kit_attention c = one_head(TSR_F32, 20, 37);
        for (int64_t i = 0; i < c.lq; i++) kit_set(&c.q, i * D, sqrt(size) * (1 + 0.37 * (double)i));
        for (int64_t j = 0; j < c.lk; j++) kit_set(&c.k, j * D, sqrt(size) * (double)(j * 7 % 37));
        const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
        const tsr_tensor out = KIT_NEW(TSR_F64, KIT_ROWS, 1, 1, c.lq, D);
        for (int64_t i = 0; i < c.lq * D; i++) kit_set(&out, i, kit_get(&c.v, 36 * 16 % 37 * D + i % D));
        kit_check(&got.out, &out, (kit_bound){.ulps = 1}, "out of scores of %g", size);
        kit_free_all();
    }
}

/* --- what some rows of a tile see and others do not --- */

static void nan_after_a_row(tsr_context *ctx, tsr_dtype dtype, int64_t lq, int64_t lk, int64_t key)
{
    kit_attention c = one_head(dtype, lq, lk);
    c.options.causal = 1;
    const kit_attention_result clean = kit_attention_run(ctx, &c, KIT_FUSED);
    kit_set(&c.v, key * D + 3, NAN);
    const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
    for (int64_t i = 0; i < lq; i++) {
        const double value = kit_get(&got.out, i * D + 3), expected = kit_get(&clean.out, i * D + 3);
        const bool sees = i + lk - lq >= key;
        if (sees ? !isnan(value) : value != expected)
            kit_fail("%s, lq %d lk %d, v[%d] is NaN: row %d is %g, without it %g", tsr_dtype_name(dtype),
                     (int)lq, (int)lk, (int)key, (int)i, value, expected);
    }
    kit_free_all();
}

static void nan_hidden_from_some_rows(tsr_context *ctx)
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
        for (int64_t more = 0; more < 34; more += 3)
            for (int64_t key = more; key < 40 + more; key += 2)
                nan_after_a_row(ctx, dtypes[t], 40, 40 + more, key);
}

static void large_and_small_scores(tsr_context *ctx)
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    static const double scores[] = {1e4, -1e4, 1e-4, 0};
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < 3; n++) {
            const int64_t lq = (int64_t[]){1, 20, 120}[n];
            for (int s = 0; s < 4; s++) scores_of(ctx, dtypes[i], lq, 600, scores[s]);
            rising_scores(ctx, dtypes[i], lq, 41, 1); /* steps of 5 in k: exact in bf16 */
            rising_scores(ctx, dtypes[i], lq, 601, 120);
        }
}

/* --- rows that see nothing --- */

/* Every third query sees no key, by its mask; the rest see all. With sinks, the sink is all there is. */
static void masked_rows(tsr_context *ctx, int64_t lq, bool sinks)
{
    kit_attention c = {
        .dtype = TSR_F32, .grad_dtype = TSR_F32, .b = 1, .hq = 2, .hkv = 1, .lq = lq, .lk = 300};
    c.d = c.dv = D;
    c.q = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), 1, 2, lq, D));
    c.k = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), 1, 1, c.lk, D));
    c.v = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), 1, 1, c.lk, D));
    c.dout = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), 1, 2, lq, D));
    c.mask = kit_constant(KIT_NEW(TSR_BOOL, kit_any_output(), 1, 1, lq, c.lk), 1);
    for (int64_t i = 0; i < lq * c.lk; i++)
        if (i / c.lk % 3 == 0) kit_set(&c.mask, i, 0);
    if (sinks) c.sinks = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, 2), 0.75);
    const kit_attention_result before = kit_attention_run(ctx, &c, KIT_FUSED);
    kit_attention_poison_hidden(&c);
    const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
    kit_attention_same_bits(&c, &before, &got, "NaN and Inf in rows that see nothing");
    for (int64_t row = 0; row < 2 * lq; row++) {
        const bool empty = row % lq % 3 == 0;
        const double lse = kit_get(&got.lse, row);
        if (empty ? lse != (sinks ? 0.75 : -INFINITY) : !isfinite(lse))
            kit_fail("lse of row %d is %g", (int)row, lse);
        for (int64_t j = row * D; j < (row + 1) * D && empty; j++)
            if (kit_get(&got.out, j) != 0 || kit_get(&got.dq, j) != 0)
                kit_fail("row %d sees nothing: out %g, dq %g", (int)row, kit_get(&got.out, j),
                         kit_get(&got.dq, j));
    }
    kit_free_all();
}

/* No keys at all; and with a causal mask and more queries than keys, the first ones see none. */
static void no_keys(tsr_context *ctx, int64_t lq, int64_t lk)
{
    kit_attention c = one_head(TSR_F32, lq, lk);
    kit_normal(c.q), kit_normal(c.k);
    c.options.causal = 1;
    const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
    for (int64_t i = 0; i < lq * D; i++) {
        const bool empty = i / D < lq - lk;
        if (empty &&
            (kit_get(&got.out, i) != 0 || kit_get(&got.dq, i) != 0 || kit_get(&got.lse, i / D) != -INFINITY))
            kit_fail("query %d of %d sees none of %d keys: out %g, dq %g, lse %g", (int)(i / D), (int)lq,
                     (int)lk, kit_get(&got.out, i), kit_get(&got.dq, i), kit_get(&got.lse, i / D));
        if (!empty && !isfinite(kit_get(&got.lse, i / D)))
            kit_fail("query %d has lse %g", (int)(i / D), kit_get(&got.lse, i / D));
    }
    kit_free_all();
}

static void rows_that_see_nothing(tsr_context *ctx)
{
    static const int64_t lengths[] = {1, 16, 17, 200};
    for (int i = 0; i < 4; i++) {
        masked_rows(ctx, lengths[i], false);
        masked_rows(ctx, lengths[i], true);
        no_keys(ctx, lengths[i], 0);
        no_keys(ctx, lengths[i], lengths[i] / 2);
    }
}

/* --- sequences of length 0 --- */

static tsr_tensor starts(int32_t n, const int *values)
{
    const tsr_tensor t = KIT_NEW(TSR_I32, KIT_GAPS, n);
    for (int32_t i = 0; i < n; i++) kit_set(&t, i, values[i]);
    return t;
}

/*
 * Packed: queries without keys, keys without queries, and neither, between two whole sequences. What the two
 * come to is the same as without the others, and the others' rows are empty.
 */
static void empty_sequences(tsr_context *ctx)
{
    enum { H = 2, N = 100, MORE = 30 };
    kit_attention c = {
        .dtype = TSR_F32, .grad_dtype = TSR_F32, .b = 2, .hq = H, .hkv = H, .lq = 60, .lk = 60};
    c.d = c.dv = D, c.options.causal = 1;
    c.q = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), N, H, D));
    c.k = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), N, H, D));
    c.v = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), N, H, D));
    c.dout = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), N, H, D));
    c.cu_seqlens_q = c.cu_seqlens_k = starts(3, (const int[]){0, 60, N});
    const kit_attention_result whole = kit_attention_run(ctx, &c, KIT_FUSED);

    kit_attention more = c;
    more.b = 5;
    tsr_tensor *const inputs[] = {&more.q, &more.k, &more.v, &more.dout};
    const tsr_tensor *const from[] = {&c.q, &c.k, &c.v, &c.dout};
    for (int t = 0; t < 4; t++) {
        *inputs[t] = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), N + MORE, H, D));
        for (int64_t i = 0; i < N * H * D; i++)
            kit_set(inputs[t], i < 60 * H * D ? i : i + MORE * H * D, kit_get(from[t], i));
    }
    more.cu_seqlens_q = starts(6, (const int[]){0, 60, 60 + MORE, 60 + MORE, 60 + MORE, N + MORE});
    more.cu_seqlens_k = starts(6, (const int[]){0, 60, 60, 60, 60 + MORE, N + MORE});
    const kit_attention_result got = kit_attention_run(ctx, &more, KIT_FUSED);

    const int compared[] = {0, 2, 3, 4}; /* out, dq, dk, dv */
    for (int t = 0; t < 4; t++) {
        const tsr_tensor *w = kit_attention_result_at(&whole, compared[t]);
        const tsr_tensor *g = kit_attention_result_at(&got, compared[t]);
        const tsr_tensor first = tsr_tensor_slice(g, 0, 0, 60), w_first = tsr_tensor_slice(w, 0, 0, 60);
        const tsr_tensor rest = tsr_tensor_slice(g, 0, 60 + MORE, N - 60),
                         w_rest = tsr_tensor_slice(w, 0, 60, N - 60);
        const tsr_tensor between = tsr_tensor_slice(g, 0, 60, MORE);
        if (!kit_same_bits(&first, &w_first) || !kit_same_bits(&rest, &w_rest))
            kit_fail("%s: sequences of length 0 change their neighbours",
                     kit_attention_result_names[compared[t]]);
        if (kit_max_abs(&between) != 0)
            kit_fail("%s of sequences of length 0 reaches %g", kit_attention_result_names[compared[t]],
                     kit_max_abs(&between));
    }
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 60; i < 60 + MORE; i++)
            assert_true(kit_get(&got.lse, h * (N + MORE) + i) == -INFINITY);
    kit_free_all();
}

/* --- many heads --- */

static void choose_many_heads(kit_attention *c)
{
    c->b = kit_one_in(2) ? 1 : 3, c->hkv = c->b == 1 ? 19 : 7, c->hq = c->hkv * kit_between(1, 2);
    c->lq = kit_between(17, 40), c->lk = kit_between(1, 40);
    c->d = kit_between(1, 33), c->dv = kit_between(1, 33);
}

/* One thread takes head after head, many threads take them apart: the bits are the same. */
static void many_heads(tsr_context *ctx)
{
    tsr_context *const one = kit_cpu_with_threads(1), *const three = kit_cpu_with_threads(3);
    (void)ctx;
    for (int trial = 0; trial < 6; trial++) {
        kit_attention c = kit_attention_of_sizes(trial % 2 == 0, choose_many_heads);
        kit_attention_poison_hidden(&c);
        const kit_attention_result a = kit_attention_run(one, &c, KIT_FUSED);
        const kit_attention_result b = kit_attention_run(three, &c, KIT_FUSED);
        kit_attention_same_bits(&c, &a, &b, "one thread and three");
        kit_free_all();
    }
    tsr_context_destroy(one);
    tsr_context_destroy(three);
}

/* --- again and again --- */

/* Everything at once, many queries and few: 250 runs on two threads that meet in no particular order. */
static void test_250_runs(void **state)
{
    (void)state;
    for (int regime = 0; regime < 2; regime++) {
        kit_attention c = kit_attention_decoding(true);
        do {
            kit_free_all();
            c = regime == 0 ? kit_attention_random(false) : kit_attention_decoding(false);
        } while (c.b * c.hq * c.lq * c.lk < 20000 || (regime == 0) != (c.lq > 64) ||
                 c.seqlens_q.data != NULL);
        const kit_attention_result first = kit_attention_run(kit_cpu(), &c, KIT_FUSED);
        for (int run = 1; run < 250; run++) {
            const kit_attention_result again = kit_attention_run(kit_cpu(), &c, KIT_FUSED);
            kit_attention_same_bits(&c, &first, &again, "two of 250 runs");
        }
        kit_free_all();
    }
}

KIT_TEST_OF_EACH(kit_for_each_gemm_isa, large_and_small_scores)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, huge_scores)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, nan_hidden_from_some_rows)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, rows_that_see_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, empty_sequences)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, many_heads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_and_small_scores),
        cmocka_unit_test(test_huge_scores),
        cmocka_unit_test(test_nan_hidden_from_some_rows),
        cmocka_unit_test(test_rows_that_see_nothing),
        cmocka_unit_test(test_empty_sequences),
        cmocka_unit_test(test_many_heads),
        cmocka_unit_test(test_250_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
