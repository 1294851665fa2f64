/*
 * check_attention_decode.c - attention of few queries: splits, pages, int8, parts
 *
 * check_attention.c holds this regime against the reference, as it does the other. Here is what only it has:
 * results that are the same to the bit however the keys are cut, and wherever they lie.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "op/context.h"

static void expect_same_bits(const kit_attention *c, const kit_attention_result *a,
                             const kit_attention_result *b, const char *what)
{
    if (!kit_same_bits(&a->out, &b->out))
        kit_fail("%s: out differs, %s", what, kit_attention_describe(c).text);
    if (!kit_same_bits(&a->lse, &b->lse))
        kit_fail("%s: lse differs, %s", what, kit_attention_describe(c).text);
}

static void splits_change_nothing(tsr_context *ctx)
{
    tsr_context *const one = kit_cpu_with_threads(1), *const three = kit_cpu_with_threads(3);
    static const int64_t splits[] = {1, 2, 3, 7, (int64_t)1 << 62};
    for (int trial = 0; trial < 16; trial++) {
        kit_attention c = kit_attention_decoding(trial % 3 == 0);
        if (trial % 2 == 0) c = kit_attention_int8(&c);
        const kit_attention_result automatic = kit_attention_run(ctx, &c, KIT_FUSED);
        for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
            c.options.splits = splits[i];
            const kit_attention_result got = kit_attention_run(i % 2 == 0 ? one : three, &c, KIT_FUSED);
            expect_same_bits(&c, &automatic, &got, "automatic splits and others");
        }
        kit_free_all();
    }
    tsr_context_destroy(one);
    tsr_context_destroy(three);
}

/* In line, in pages, packed queries over pages; f32, bf16, f16 and int8; few queries and many. */
static void pages_change_nothing(tsr_context *ctx)
{
    for (int trial = 0; trial < 32; trial++) {
        kit_attention c = trial % 4 == 3 ? kit_attention_random(false)
                                         : kit_attention_decoding(trial % 3 == 0);
        if (trial % 2 == 0) {
            c = kit_attention_decoding(trial % 3 == 0);
            c = kit_attention_int8(&c);
        }
        const kit_attention_result clean = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_poison_hidden(&c);
        const kit_attention paged = kit_attention_paged(&c);
        const kit_attention_result in_line = kit_attention_run(ctx, &c, KIT_FUSED);
        expect_same_bits(&c, &clean, &in_line, "nothing hidden and NaN hidden");
        const kit_attention_result got = kit_attention_run(ctx, &paged, KIT_FUSED);
        expect_same_bits(&c, &in_line, &got, "in line and in pages");
        kit_free_all();
    }
}

/* Three chunks of each of two sequences or more, so that a thread has items enough and heads take turns. */
static void sizes_of_many_heads(kit_attention *c)
{
    static const int64_t heads[] = {2, 3, 8, 18, 20};
    const bool wide = kit_one_in(3); /* pairs of columns, of several vectors */
    c->b = kit_between(2, 3), c->hkv = wide ? 2 : heads[kit_between(0, 4)];
    c->hq = c->hkv * kit_between(1, 2);
    c->lq = kit_between(1, 4), c->lk = kit_between(1025, 1100);
    c->d = wide ? kit_between(64, 170) : kit_between(1, 10);
    c->dv = wide ? kit_between(64, 170) : kit_between(1, 10);
}

/* [b, h, l, d], in memory [b, l, h, d] */
static tsr_tensor key_by_key(const tsr_tensor *t)
{
    const tsr_tensor view = tsr_tensor_transpose(t, 1, 2), copy = kit_copy(&view, t->dtype, KIT_ROWS);
    return tsr_tensor_transpose(&copy, 1, 2);
}

/* The same bits head by head and key by key, where heads take turns. */
static void turns_change_nothing(tsr_context *ctx)
{
    tsr_context *const one = kit_cpu_with_threads(1), *const three = kit_cpu_with_threads(3);
    for (int trial = 0; trial < 6; trial++) {
        kit_attention c = kit_attention_of_sizes(trial % 3 == 0, sizes_of_many_heads);
        if (trial % 2 == 0) c = kit_attention_int8(&c);
        const tsr_tensor k = kit_copy(&c.k, c.k.dtype, KIT_ROWS), v = kit_copy(&c.v, c.v.dtype, KIT_ROWS);
        c.k = k, c.v = v;
        const kit_attention_result by_head = kit_attention_run(ctx, &c, KIT_FUSED);
        c.k = key_by_key(&k), c.v = key_by_key(&v);
        const kit_attention_result in_turn = kit_attention_run(one, &c, KIT_FUSED),
                                   shared = kit_attention_run(three, &c, KIT_FUSED);
        expect_same_bits(&c, &by_head, &in_turn, "head by head and key by key");
        expect_same_bits(&c, &by_head, &shared, "head by head and key by key, three threads");
        if (trial % 3 == 2) continue;
        const kit_attention paged = kit_attention_paged(&c);
        const kit_attention_result in_pages = kit_attention_run(one, &paged, KIT_FUSED);
        expect_same_bits(&c, &by_head, &in_pages, "head by head and in pages");
        kit_free_all();
    }
    tsr_context_destroy(one);
    tsr_context_destroy(three);
}

static double max_abs(const tsr_tensor *t) { return t->data == NULL ? 0 : kit_max_abs(t); }

/*
 * Against the reference on the same numbers. With u = 2^-24, a score's dot product of d terms errs by at most
 * (d + 2) u sum |q k|, each later step by a few u of its size; P's relative error is twice the scores' error
 * plus that of 2^x and of l, (lk + 20) u, and so is O's, relative to the largest |v|. One rounding to out.
 */
static kit_bound bound_of(const kit_attention *c, const kit_attention *exact, bool lse)
{
    const double u = 0x1p-24, d = (double)c->d, lk = (double)c->lk;
    const double scale = c->options.scale != 0 ? fabs((double)c->options.scale) : 1 / sqrt(d);
    const double product = scale * d * kit_max_abs(&exact->q) * kit_max_abs(&exact->k);
    const double score = product + max_abs(&c->bias) + max_abs(&c->alibi) * (lk + (double)c->lq) +
                         max_abs(&c->sinks);
    const double score_error = (d + 16) * u * score, p_error = 2 * score_error + (lk + 20) * u;
    if (lse) return (kit_bound){.abs = score_error + (lk + 20) * u, .ulps = 2};
    const double kept = 1 / (1 - (double)c->options.dropout_p);
    return (kit_bound){.abs = p_error * kept * kit_max_abs(&exact->v), .ulps = 1, .of_largest = 1};
}

static bool is_right(const kit_attention *c, const kit_attention *exact, const kit_attention_result *got,
                     bool fail)
{
    const kit_attention_result truth = kit_attention_run(kit_reference(), exact, KIT_FUSED);
    const kit_bound out = bound_of(c, exact, false), lse = bound_of(c, exact, true);
    if (!fail) return kit_agrees(&got->out, &truth.out, out) && kit_agrees(&got->lse, &truth.lse, lse);
    kit_check(&got->out, &truth.out, out, "out, %s", kit_attention_describe(c).text);
    kit_check(&got->lse, &truth.lse, lse, "lse, %s", kit_attention_describe(c).text);
    return true;
}

static tsr_tensor dequantised(const tsr_tensor *t, const tsr_tensor *scale)
{
    const tsr_tensor r = kit_like(t, TSR_F64, KIT_ROWS);
    const int64_t n = tsr_tensor_numel(t);
    for (int64_t i = 0; i < n; i++) kit_set(&r, i, kit_get(t, i) * kit_get(scale, i / t->shape[3]));
    return r;
}

/* The case in f64, its int8 keys and values multiplied by their scales. */
static kit_attention exact_int8(const kit_attention *c)
{
    kit_attention exact = kit_attention_f64(c);
    exact.k = dequantised(&c->k, &c->k_scale), exact.v = dequantised(&c->v, &c->v_scale);
    exact.k_scale.data = exact.v_scale.data = NULL;
    return exact;
}

static void int8_is_right(tsr_context *ctx)
{
    for (int trial = 0; trial < 24; trial++) {
        const kit_attention plain = trial % 4 == 3 ? kit_attention_random(false)
                                                   : kit_attention_decoding(trial % 3 == 0);
        const kit_attention c = kit_attention_int8(&plain), exact = exact_int8(&c);
        const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
        is_right(&c, &exact, &got, true);
        kit_free_all();
    }
}

/* A sequence by itself, and a part of its queries, give the same bits as they do in company. */
static void int8_companions_change_nothing(tsr_context *ctx)
{
    for (int trial = 0; trial < 16; trial++) {
        const kit_attention plain = kit_attention_decoding(false), c = kit_attention_int8(&plain);
        const kit_attention_result all = kit_attention_run(ctx, &c, KIT_FUSED);
        for (int64_t b = 0; b < c.b && c.options.dropout_p == 0; b++) {
            kit_attention one = kit_attention_sequence(&c, b);
            one.k_scale = tsr_tensor_slice(&c.k_scale, 0, b, 1);
            one.v_scale = tsr_tensor_slice(&c.v_scale, 0, b, 1);
            const kit_attention_result alone = kit_attention_run(ctx, &one, KIT_FUSED);
            const kit_attention_result in_company = {.out = tsr_tensor_slice(&all.out, 0, b, 1),
                                                     .lse = tsr_tensor_slice(&all.lse, 0, b, 1)};
            expect_same_bits(&one, &in_company, &alone, "a sequence in company and alone");
        }
        const bool decodes = c.lq <= TSR_DECODE_LQ; /* all of them: more queries take the other path */
        if (c.options.dropout_p == 0 && c.seqlens_q.data == NULL && c.lq > 1 && decodes) {
            const int64_t n = kit_between(1, c.lq - 1);
            const kit_attention last = kit_attention_last_queries(&c, n);
            const kit_attention_result got = kit_attention_run(ctx, &last, KIT_FUSED);
            const kit_attention_result of_all = {.out = tsr_tensor_slice(&all.out, 2, c.lq - n, n),
                                                 .lse = tsr_tensor_slice(&all.lse, 2, c.lq - n, n)};
            expect_same_bits(&last, &of_all, &got, "all queries and the last");
        }
        kit_free_all();
    }
}

/* NaN in the scale of one key or value makes the rows that see it NaN, and leaves the others as they are. */
static void nan_scale_stays_in_its_rows(tsr_context *ctx)
{
    for (int trial = 0; trial < 24; trial++) {
        const kit_attention plain = kit_attention_decoding(false), c = kit_attention_int8(&plain);
        if (c.lk == 0 || c.lq == 0) continue;
        const tsr_tensor before = kit_attention_run(ctx, &c, KIT_FUSED).out;
        const int64_t at = kit_between(0, c.b * c.hkv * c.lk - 1);
        kit_set(trial % 2 == 0 ? &c.k_scale : &c.v_scale, at, NAN);
        const tsr_tensor after = kit_attention_run(ctx, &c, KIT_FUSED).out;
        for (int64_t i = 0; i < tsr_tensor_numel(&after); i++) {
            const int64_t row = i / c.dv, head = row / c.lq % c.hq, b = row / c.lq / c.hq;
            const bool depends = (b * c.hkv + head / (c.hq / c.hkv)) == at / c.lk &&
                                 kit_attention_sees(&c, b, head, row % c.lq, at % c.lk);
            const double x = kit_get(&before, i), y = kit_get(&after, i);
            if (depends ? !isnan(y) : !(x == y || (isnan(x) && isnan(y))))
                kit_fail("out[%d] was %g and is %g beside a NaN scale, %s", (int)i, x, y,
                         kit_attention_describe(&c).text);
        }
        kit_free_all();
    }
}

/* One query of bf16 and one head against int8 keys, all 0, with scales of 1. */
static kit_attention one_query(int64_t lk, int64_t d)
{
    return (kit_attention){
        .dtype = TSR_BF16,
        .grad_dtype = TSR_BF16,
        .b = 1,
        .hq = 1,
        .hkv = 1,
        .lq = 1,
        .lk = lk,
        .d = d,
        .dv = d,
        .q = kit_constant(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, 1, d), 0),
        .k = kit_constant(KIT_NEW(TSR_S8, KIT_ROWS, 1, 1, lk, d), 0),
        .v = kit_constant(KIT_NEW(TSR_S8, KIT_ROWS, 1, 1, lk, d), 0),
        .k_scale = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, 1, 1, lk), 1),
        .v_scale = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, 1, 1, lk), 1),
        .dout = kit_constant(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, 1, d), 0),
        .options = {.scale = 1},
    };
}

/* What integers of 16 bits cost at worst: a query, or weights, of which all but the largest element round to
 * 0, each by nearly half a unit. */
static void int8_errs_at_most(tsr_context *ctx)
{
    enum { D = 128, L = 64 };
    const double half = 0.49 * 0x1p-14; /* of a unit where the largest is 1 */
    kit_attention c = one_query(2, D);
    for (int i = 0; i < D; i++) {
        kit_set(&c.q, i, i == 0 ? 1 : half);
        kit_set(&c.k, D + i, i == 0 ? 0 : -128);
    }
    kit_attention exact = exact_int8(&c);
    kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED),
                         truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
    kit_check(&got.lse, &truth.lse, (kit_bound){.abs = D * 128 * (0x1p-15 + (D + 16) * 0x1p-24)},
              "lse of a query that rounds to 0");

    c = one_query(L, D);
    kit_set(&c.q, 0, 1);
    for (int j = 1; j < L; j++) {
        kit_set(&c.k, j * D, -1);
        kit_set(&c.k_scale, j, -log(half));
        for (int i = 0; i < D; i++) kit_set(&c.v, j * D + i, 127);
    }
    exact = exact_int8(&c);
    got = kit_attention_run(ctx, &c, KIT_FUSED),
    truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
    kit_check(&got.out, &truth.out, (kit_bound){.abs = 127 * 0x1p-9, .ulps = 1},
              "out of weights that round to 0");
    kit_free_all();
}

/* The keys in up to five ranges, each attended to by itself. */
static void parts_are_the_whole(tsr_context *ctx)
{
    for (int trial = 0; trial < 16; trial++) {
        kit_attention c = kit_attention_decoding(true);
        c.options.causal = 0;
        c.sinks = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, c.hq));
        const kit_attention exact = kit_attention_f64(&c);
        kit_attention_result results[5];
        const tsr_tensor *outs[5], *lses[5];
        const int64_t n = kit_between(1, 5);
        for (int64_t i = 0; i < n; i++) {
            const int64_t begin = c.lk * i / n, end = c.lk * (i + 1) / n;
            kit_attention part = c;
            part.k = tsr_tensor_slice(&c.k, 2, begin, end - begin);
            part.v = tsr_tensor_slice(&c.v, 2, begin, end - begin);
            part.lk = end - begin;
            if (i > 0) part.sinks.data = NULL;
            results[i] = kit_attention_run(ctx, &part, KIT_FUSED);
            outs[i] = &results[i].out, lses[i] = &results[i].lse;
        }
        const tsr_tensor out = kit_like(outs[0], c.dtype, kit_any_output());
        const tsr_tensor lse = kit_like(lses[0], TSR_F32, kit_any_output());
        KIT_OK(tsr_attention_merge(ctx, n, outs, lses, &out, &lse));
        kit_attention_result merged = {.out = out, .lse = lse};
        const kit_attention_result truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
        kit_bound bound = bound_of(&c, &exact, false);
        bound.of_largest += 2,
            bound.abs += 0x1p-20 * kit_max_abs(&exact.v); /* parts in their dtype; n weights */
        kit_check(&out, &truth.out, bound, "out of %d parts, %s", (int)n, kit_attention_describe(&c).text);
        kit_check(&lse, &truth.lse, (kit_bound){.abs = bound_of(&c, &exact, true).abs + 0x1p-20, .ulps = 4},
                  "lse of %d parts, %s", (int)n, kit_attention_describe(&c).text);
        if (n == 1) expect_same_bits(&c, &results[0], &merged, "one part and the whole");
        kit_free_all();
    }
}

/* NaN in a part that has no weight goes nowhere; in one that has, to its own row. */
static void nan_in_parts(tsr_context *ctx)
{
    const tsr_tensor a = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 1, 1, 3, 5)),
                     b = kit_copy(&a, TSR_F32, KIT_ROWS);
    const tsr_tensor la = kit_constant(KIT_NEW(TSR_F32, KIT_ROWS, 1, 1, 3), 0),
                     lb = kit_copy(&la, TSR_F32, KIT_ROWS);
    const tsr_tensor out = kit_like(&a, TSR_F32, KIT_ROWS), lse = kit_like(&la, TSR_F32, KIT_ROWS);
    kit_constant(b, NAN);
    kit_set(&lb, 0, -INFINITY), kit_set(&lb, 1, -INFINITY), kit_set(&la, 1, -INFINITY);
    KIT_OK(tsr_attention_merge(ctx, 2, (const tsr_tensor *[]){&a, &b}, (const tsr_tensor *[]){&la, &lb}, &out,
                               &lse));
    for (int i = 0; i < 5; i++) {
        assert_true(kit_get(&out, i) == kit_get(&a, i));
        assert_true(kit_get(&out, 5 + i) == 0);
        assert_true(isnan(kit_get(&out, 10 + i)));
    }
    assert_true(kit_get(&lse, 0) == 0 && kit_get(&lse, 1) == -INFINITY);
    kit_free_all();
}

/* --- the checks themselves --- */

static const tsr_attention_decode_f32_kernel *twin_of;

static void twin_of_next_key(const tsr_attention_decode_rows *k, const float *q, int64_t q_stride,
                             int64_t n_rows, float *s, int64_t s_stride)
{
    tsr_attention_decode_rows rows = *k;
    const void *shifted[TSR_DECODE_TILE];
    for (int64_t j = 0; j < TSR_DECODE_TILE; j++) shifted[j] = k->row[j + 1 < k->n ? j + 1 : k->n - 1];
    rows.row = shifted;
    twin_of->scores(&rows, q, q_stride, n_rows, s, s_stride);
}

static void twin_without_last_value(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride,
                                    int64_t n_rows, float *o, int64_t o_stride)
{
    tsr_attention_decode_rows rows = *v;
    if (rows.n > 0) rows.n--;
    twin_of->values(&rows, p, p_stride, n_rows, o, o_stride);
}

static void twin_unweighed(float *s, int64_t s_stride, int64_t n_rows, const float *factor, int64_t n)
{
    twin_of->weigh(s, s_stride, n_rows, factor, n - 1);
}

static void twin_not_rescaled(float unit, float *m, float *l, float *o, float m2, float l2, const float *o2,
                              int64_t dv)
{
    (void)m2;
    twin_of->merge(unit, m, l, o, *m, l2, o2, dv);
}

static void twin_not_unzipped(float *q, int64_t d, tsr_dtype dtype) { (void)q, (void)d, (void)dtype; }

static const tsr_attention_decode_s8_kernel *s8_twin_of;

static float s8_twin_of_half_the_unit(int16_t *to, const float *x, int64_t n)
{
    return s8_twin_of->quantise(to, x, n) / 2;
}

static void s8_twin_without_last_value(const tsr_attention_decode_rows *v, const float *p, int64_t p_stride,
                                       int64_t n_rows, float *o, int64_t o_stride)
{
    tsr_attention_decode_rows rows = *v;
    if (rows.n > 0) rows.n--;
    s8_twin_of->values(&rows, p, p_stride, n_rows, o, o_stride);
}

/* With the kernels that are in place, is some result wrong, of int8 or of others? */
static bool is_rejected(tsr_context *ctx)
{
    bool rejected = false;
    for (int trial = 0; trial < 100 && !rejected; trial++) {
        const kit_attention plain = kit_attention_decoding(true);
        const bool int8 = trial % 2 == 0;
        const kit_attention c = int8 ? kit_attention_int8(&plain) : plain;
        const kit_attention exact = int8 ? exact_int8(&c) : kit_attention_f64(&c);
        const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
        rejected = !is_right(&c, &exact, &got, false);
        kit_free_all();
    }
    return rejected;
}

static void s8_twins_are_rejected(tsr_context *ctx)
{
    tsr_cpu *const cpu = ctx->state;
    s8_twin_of = cpu->attention_decode_s8;
    if (s8_twin_of == NULL) return;
    tsr_attention_decode_s8_kernel twins[2] = {*s8_twin_of, *s8_twin_of};
    twins[0].quantise = s8_twin_of_half_the_unit, twins[1].values = s8_twin_without_last_value;
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++) {
        cpu->attention_decode_s8 = &twins[i];
        const bool rejected = is_rejected(ctx);
        cpu->attention_decode_s8 = s8_twin_of;
        if (!rejected) kit_fail("wrong twin %zu of attention_decode_s8 passed every trial", i);
    }
}

static void test_wrong_twins_are_rejected(void **state)
{
    (void)state;
    tsr_context *const ctx = kit_cpu();
    tsr_cpu *const cpu = ctx->state;
    twin_of = cpu->attention_decode_f32;
    tsr_attention_decode_f32_kernel twins[5] = {*twin_of, *twin_of, *twin_of, *twin_of, *twin_of};
    twins[0].scores = twin_of_next_key, twins[1].values = twin_without_last_value;
    twins[2].weigh = twin_unweighed, twins[3].merge = twin_not_rescaled;
    twins[4].unzip_q = twin_not_unzipped;
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++) {
        cpu->attention_decode_f32 = &twins[i];
        const bool rejected = is_rejected(ctx);
        cpu->attention_decode_f32 = twin_of;
        if (!rejected) kit_fail("wrong twin %zu passed every trial", i);
    }
}

/* --- memory --- */

/* Partial results alone: a few MiB a thread, however many keys, heads and sequences there are. */
static void test_nothing_is_packed(void **state)
{
    (void)state;
    static float one;
    tsr_context *const ctx = kit_cpu();
    for (int64_t lq = 1; lq <= 16; lq *= 4)
        for (int64_t b = 1; b <= 256; b *= 16) {
            const tsr_tensor q = {.data = &one, .rank = 4, .shape = {b, 32, lq, 128}};
            tsr_tensor k = {.data = &one, .rank = 4, .shape = {b, 8, 32768, 128}};
            for (int in_turn = 0; in_turn < 2; in_turn++) {
                size_t nbytes = 0;
                k.stride[1] = in_turn ? 128 : 0, k.stride[2] = in_turn ? 8 * 128 : 0; /* heads side by side */
                KIT_OK(tsr_attention_fwd_workspace(ctx, &q, &k, &k, NULL, &nbytes));
                if (nbytes > (size_t)2 * 4 << 20)
                    kit_fail("b %d lq %d takes %zu bytes, may take 4 MiB a thread", (int)b, (int)lq, nbytes);
            }
        }
}

KIT_TEST_OF_EACH(kit_for_each_gemm_isa, splits_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, pages_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, turns_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, int8_is_right)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, int8_companions_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, nan_scale_stays_in_its_rows)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, int8_errs_at_most)
KIT_TEST_OF_EACH(kit_for_each_isa, parts_are_the_whole)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, s8_twins_are_rejected)
KIT_TEST_OF_EACH(kit_for_each_isa, nan_in_parts)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits_change_nothing),
        cmocka_unit_test(test_pages_change_nothing),
        cmocka_unit_test(test_turns_change_nothing),
        cmocka_unit_test(test_int8_is_right),
        cmocka_unit_test(test_parts_are_the_whole),
        cmocka_unit_test(test_nan_in_parts),
        cmocka_unit_test(test_wrong_twins_are_rejected),
        cmocka_unit_test(test_nothing_is_packed),
        cmocka_unit_test(test_s8_twins_are_rejected),
        cmocka_unit_test(test_int8_companions_change_nothing),
        cmocka_unit_test(test_nan_scale_stays_in_its_rows),
        cmocka_unit_test(test_int8_errs_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
