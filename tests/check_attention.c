/*
 * check_attention.c - flash attention of the cpu backend, forward and backward
 *
 * Against the reference in double: the error may be twice that of the unfused form in the same dtype, and 2
 * units in the last place of the largest element. Then what must not change a single bit: threads, company,
 * packing, and NaN or Inf where nothing depends on them.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "op/context.h"

/* --- against the reference --- */

static void against_reference(tsr_context *ctx)
{
    for (int trial = 0; trial < 40; trial++) {
        const kit_attention c = kit_attention_random(trial % 4 == 0), exact = kit_attention_f64(&c);
        const kit_attention_result truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
        const kit_attention_result unfused = kit_attention_run(ctx, &c, KIT_UNFUSED);
        const kit_attention_result fused = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_check(&c, &fused, &truth, &unfused);
        kit_attention_poison_hidden(&c);
        const kit_attention_result poisoned = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_same_bits(&c, &fused, &poisoned, "NaN where nothing depends on it");
        kit_free_all();
    }
}

/* One value that results do depend on becomes NaN: it reaches what the reference says, and nothing else. */
static void nan_goes_where_it_should(tsr_context *ctx)
{
    for (int trial = 0; trial < 20; trial++) {
        const kit_attention c = kit_attention_random(trial % 3 == 0);
        const tsr_tensor *const inputs[] = {&c.q, &c.k, &c.v, &c.dout};
        const tsr_tensor *x = inputs[kit_between(0, 3)];
        const int64_t n = tsr_tensor_numel(x);
        if (n > 0) kit_set(x, kit_between(0, n - 1), NAN);
        const kit_attention exact = kit_attention_f64(&c);
        const kit_attention_result truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
        const kit_attention_result fused = kit_attention_run(ctx, &c, KIT_FUSED);
        kit_attention_check(&c, &fused, &truth, NULL);
        kit_free_all();
    }
}

/* --- what must not change a bit --- */

/* A parallel-for that runs its bodies one after the other, the last first: no body may wait for another. */
static void run_serially(void *user, int64_t n, void (*body)(void *arg, int64_t i), void *arg)
{
    (void)user;
    while (n-- > 0) body(arg, n);
}

static void threads_change_nothing(tsr_context *ctx)
{
    tsr_context *const one = kit_cpu_with_threads(1), *const three = kit_cpu_with_threads(3);
    tsr_context *serial = NULL;
    const tsr_context_options options = {.n_threads = 4, .parallel_for = run_serially};
    KIT_OK(tsr_context_create(&options, &serial));
    for (int trial = 0; trial < 20; trial++) {
        const kit_attention c = kit_attention_random(trial % 3 == 0);
        const kit_attention_result two = kit_attention_run(ctx, &c, KIT_FUSED);
        const kit_attention_result a = kit_attention_run(one, &c, KIT_FUSED);
        const kit_attention_result b = kit_attention_run(three, &c, KIT_FUSED);
        kit_attention_same_bits(&c, &a, &two, "1 and 2 threads");
        const kit_attention_result d = kit_attention_run(serial, &c, KIT_FUSED);
        kit_attention_same_bits(&c, &b, &two, "3 and 2 threads");
        kit_attention_same_bits(&c, &d, &two, "4 lanes, one after the other, and 2 threads");
        kit_free_all();
    }
    tsr_context_destroy(serial);
    tsr_context_destroy(one);
    tsr_context_destroy(three);
}

static void company_changes_nothing(tsr_context *ctx)
{
    for (int trial = 0; trial < 20; trial++) {
        const kit_attention c = kit_attention_random(trial % 3 == 0);
        const kit_attention_result all = kit_attention_run(ctx, &c, KIT_FUSED);
        /* Dropout's bits follow the index of the sequence and of the query. */
        for (int64_t b = 0; b < (c.options.dropout_p > 0 ? 1 : c.b); b++) {
            const kit_attention alone = kit_attention_sequence(&c, b);
            const kit_attention_result got = kit_attention_run(ctx, &alone, KIT_FUSED);
            const kit_attention_result part = kit_attention_result_sequence(&all, b);
            kit_attention_same_bits(&alone, &part, &got, "a sequence alone and in a batch");
        }
        if (c.lq > 0 && c.seqlens_q.data == NULL && c.options.dropout_p == 0) {
            /* Few queries and many need not agree to the bit. */
            const int64_t n = c.lq <= TSR_DECODE_LQ ? 1 : TSR_DECODE_LQ + 1;
            const kit_attention last = kit_attention_last_queries(&c, n);
            const kit_attention_result got = kit_attention_run(ctx, &last, KIT_FUSED);
            kit_attention_result part = kit_attention_result_last_queries(&all, n);
            /* Where a row sees nothing, the sign of dq's zeros follows its layout. */
            kit_check(&got.dq, &part.dq, KIT_EXACT, "dq of the last queries, %s",
                      kit_attention_describe(&last).text);
            part.dq.data = NULL;
            kit_attention_same_bits(&last, &part, &got, "the last queries alone and among others");
        }
        kit_free_all();
    }
}

static void packing_changes_nothing(tsr_context *ctx)
{
    for (int trial = 0; trial < 20; trial++) {
        const kit_attention c = kit_attention_random(trial % 3 == 0), packed = kit_attention_packed(&c);
        const kit_attention_result padded = kit_attention_run(ctx, &c, KIT_FUSED);
        const kit_attention_result got = kit_attention_run(ctx, &packed, KIT_FUSED);
        const kit_attention_result expected = kit_attention_result_packed(&packed, &padded);
        kit_attention_same_bits(&packed, &expected, &got, "packed and padded");
        kit_free_all();
    }
}

/*
 * One thread's dQ in 16 bits fills what a workspace may take before the head's queries end, in the middle of
 * one of them; four threads' does not.
 */
static void parts_of_dtype(tsr_dtype dtype)
{
    const int64_t hq = 36, lq = 256, lk = 200, d = 64;
    kit_attention c = {
        .dtype = dtype, .grad_dtype = dtype, .b = 1, .hq = hq, .hkv = 1, .lq = lq, .lk = lk, .d = d, .dv = d};
    c.q = kit_normal(KIT_NEW(dtype, KIT_ROWS, 1, hq, lq, d));
    c.k = kit_normal(KIT_NEW(dtype, KIT_ROWS, 1, 1, lk, d));
    c.v = kit_normal(KIT_NEW(dtype, KIT_ROWS, 1, 1, lk, d));
    c.dout = kit_normal(KIT_NEW(dtype, KIT_ROWS, 1, hq, lq, d));
    tsr_context *const one = kit_cpu_with_threads(1), *const four = kit_cpu_with_threads(4);
    const kit_attention_result parts = kit_attention_run(one, &c, KIT_FUSED);
    const kit_attention_result whole = kit_attention_run(four, &c, KIT_FUSED);
    kit_attention_same_bits(&c, &parts, &whole, "a head in parts and as a whole");
    tsr_context_destroy(one);
    tsr_context_destroy(four);
    kit_free_all();
}
static void parts_change_nothing(tsr_context *ctx)
{
    (void)ctx;
    parts_of_dtype(TSR_F16);
    parts_of_dtype(TSR_BF16);
}

/* Keys behind `query` have the gradient that they have without its Inf or NaN; the others show it in
 * column 5. */
static void shows_up_to(int64_t query, const char *name, const tsr_tensor *with, const tsr_tensor *without)
{
    const int64_t d = with->shape[3];
    for (int64_t i = 0; i < tsr_tensor_numel(with); i++) {
        const double x = kit_get(with, i), y = kit_get(without, i);
        if (i / d > query ? x != y : i % d == 5 && isfinite(x))
            kit_fail("%s of key %lld is %g, %g without query %lld", name, (long long)(i / d), x, y,
                     (long long)query);
    }
}

/* dO or Q with Inf or NaN in a query that some keys of its tile do not see. */
static void infinite_query(tsr_context *ctx, int trial)
{
    static const double what[] = {NAN, INFINITY, -INFINITY};
    const int64_t lq = trial % 3 == 0 ? 40 : 225, lk = lq, d = 64, dv = 48, query = kit_between(0, lq - 2);
    kit_attention c = {.dtype = TSR_BF16, .grad_dtype = TSR_F32, .b = 1, .hq = 1, .hkv = 1, .lq = lq};
    c.lk = lk, c.d = d, c.dv = dv, c.options.causal = true;
    c.q = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lq, d));
    c.k = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lk, d));
    c.v = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lk, dv));
    c.dout = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lq, dv));
    const kit_attention_result clean = kit_attention_run(ctx, &c, KIT_FUSED);
    const bool is_q = trial % 2 == 0;
    kit_set(is_q ? &c.q : &c.dout, query * (is_q ? d : dv) + 5, what[trial / 2 % 3]);
    const kit_attention_result r = kit_attention_run(ctx, &c, KIT_FUSED);
    shows_up_to(query, "dk", &r.dk, &clean.dk);
    shows_up_to(query, "dv", &r.dv, &clean.dv);
    kit_free_all();
}
static void infinite_queries(tsr_context *ctx)
{
    for (int trial = 0; trial < 12; trial++) infinite_query(ctx, trial);
}

/* --- the softmax along with the product before it --- */

static const tsr_gemm_kernel *counted;
static _Atomic int64_t n_counted, n_with_values, n_counted_bwd, n_far;

static void count_scores(const tsr_attention_group *group)
{
    n_counted++;
    if (group->values != NULL) n_with_values++;
    counted->run_scores(group);
}

static bool count_gradients(const tsr_attention_bwd_group *group)
{
    const bool is_near = counted->run_gradients(group);
    *(is_near ? &n_counted_bwd : &n_far) += 1;
    return is_near;
}

/* Keys grow along the sequence, so that maxima rise, or not; scores are all far from 0, or no numbers. */
static kit_attention rising_case(int trial)
{
    static const int64_t widths[] = {64, 128, 32, 96, 160, 256, 40, 200, 0};
    const int64_t lq = kit_one_in(4) ? 32 : kit_between(1, 160); /* 32: one group, and the next tile's too */
    const int64_t lk = 32 * kit_between(1, 40) + (kit_one_in(3) ? 7 : 0);
    const int64_t d = widths[trial % 9], dv = kit_one_in(2) ? d : kit_one_in(2) ? 48 : 160;
    kit_attention c = {.dtype = TSR_BF16, .grad_dtype = TSR_BF16, .b = 1, .hq = 2, .hkv = 1, .lq = lq};
    c.lk = lk, c.d = d, c.dv = dv, c.options.causal = kit_one_in(3);
    c.q = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 2, lq, d));
    c.k = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lk, d));
    c.v = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 1, lk, dv));
    c.dout = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, 2, lq, dv));
    const double last = trial % 4 == 1 ? 12 : trial % 4 == 2 ? 400 : 1;
    for (int64_t i = 0; i < lk * d; i++)
        kit_set(&c.k, i, kit_get(&c.k, i) * pow(last, floor((double)i / (double)d) / (double)lk));
    for (int64_t i = 0; i < 2 * lq * d && trial % 4 == 3; i += d) kit_set(&c.q, i, 16);
    for (int64_t i = 0; i < lk * d && trial % 4 == 3; i += d) kit_set(&c.k, i, 128);
    /* One key whose scores are some hundreds: a power of two far beyond f32's. */
    for (int64_t i = 0, key = kit_between(0, lk - 1); i < d && trial % 8 == 4; i++)
        kit_set(&c.k, key * d + i, 40 * kit_get(&c.q, i));
    if (trial % 6 == 5) c.options.window = (tsr_attention_window){1, kit_between(0, lk), kit_between(-1, lk)};
    if (d > 0 && trial % 5 == 4) kit_set(&c.k, kit_between(0, lk * d - 1), kit_one_in(2) ? NAN : INFINITY);
    if (trial % 7 == 6) c.sinks = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 2));
    return c;
}

/* Backward from lse too low, so that P is far above 1: dq, dk and dv. */
static void run_from_low_lse(tsr_context *ctx, const kit_attention *c, double by, tsr_tensor grads[3])
{
    const tsr_tensor out = KIT_NEW(TSR_BF16, KIT_ROWS, 1, 2, c->lq, c->dv);
    const tsr_tensor lse = KIT_NEW(TSR_F32, KIT_ROWS, 1, 2, c->lq);
    const tsr_attention_saved saved = {.out = &out, .lse = &lse, .dout = &c->dout};
    KIT_OK(tsr_attention_fwd(ctx, &c->q, &c->k, &c->v, &out, &lse, &c->options, NULL));
    for (int64_t i = 0; i < 2 * c->lq; i++) kit_set(&lse, i, kit_get(&lse, i) - (i % 2 == 0 ? by : 0));
    grads[0] = KIT_NEW(TSR_F32, KIT_ROWS, 1, 2, c->lq, c->d);
    grads[1] = KIT_NEW(TSR_F32, KIT_ROWS, 1, 1, c->lk, c->d);
    grads[2] = KIT_NEW(TSR_F32, KIT_ROWS, 1, 1, c->lk, c->dv);
    const tsr_attention_grads to = {.dq = &grads[0], .dk = &grads[1], .dv = &grads[2]};
    KIT_OK(tsr_attention_bwd(ctx, &c->q, &c->k, &c->v, &saved, &to, &c->options, NULL));
}

static void low_lse_changes_nothing(tsr_context *ctx, const tsr_gemm_kernel *fusing,
                                    const tsr_gemm_kernel *apart)
{
    static const double lower_by[] = {0, 4, 12, 40};
    tsr_cpu *const cpu = ctx->state;
    for (int trial = 0; trial < 8; trial++) {
        const kit_attention c = rising_case(0);
        tsr_tensor of_one[3], of_two[3];
        /* From the fifth on a key whose scores are all -Inf, for which 2^x has no number of its own. */
        for (int64_t i = 0; i < 2 * c.lq * c.d && trial >= 4; i += c.d)
            kit_set(&c.q, i, -1 - fabs(kit_get(&c.q, i)));
        if (trial >= 4) kit_set(&c.k, kit_between(0, c.lk - 1) * c.d, INFINITY);
        cpu->gemm_bf16 = fusing;
        run_from_low_lse(ctx, &c, lower_by[trial % 4], of_one);
        cpu->gemm_bf16 = apart;
        run_from_low_lse(ctx, &c, lower_by[trial % 4], of_two);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(of_one[i].data, of_two[i].data, 4 * (size_t)tsr_tensor_numel(&of_one[i]));
        kit_free_all();
    }
}

/* A NaN's sign is no result: which of a sum's two NaN it comes from is the compiler's choice. */
static void make_nan_alike(const kit_attention_result *r)
{
    for (int i = 0; i < KIT_ATTENTION_RESULTS; i++) {
        const tsr_tensor *t = kit_attention_result_at(r, i);
        for (int64_t j = 0; t->data != NULL && j < tsr_tensor_numel(t); j++)
            if (isnan(kit_get(t, j))) kit_set(t, j, NAN);
    }
}

/* The same bits from run_scores and run_gradients as from products and the softmax one after the other. */
static void fusing_changes_nothing(tsr_context *ctx)
{
    tsr_cpu *const cpu = ctx->state;
    const tsr_gemm_kernel *const chosen = cpu->gemm_bf16;
    if (chosen == NULL || chosen->run_scores == NULL || chosen->lanes != cpu->attention_score_f32->lanes)
        return;
    tsr_gemm_kernel fusing = *chosen, apart = *chosen;
    fusing.run_scores = count_scores, apart.run_scores = NULL;
    fusing.run_gradients = count_gradients, apart.run_gradients = NULL;
    counted = chosen, n_counted = n_with_values = n_counted_bwd = n_far = 0;
    for (int trial = 0; trial < 48; trial++) {
        const kit_attention c = rising_case(trial);
        kit_attention_poison_hidden(&c);
        /* Values go along with the softmax as they do, and with every D. */
        fusing.attention.values_words = trial % 2 == 0 ? chosen->attention.values_words : INT32_MAX;
        cpu->gemm_bf16 = &fusing;
        const kit_attention_result a = kit_attention_run(ctx, &c, KIT_FUSED);
        cpu->gemm_bf16 = &apart;
        const kit_attention_result b = kit_attention_run(ctx, &c, KIT_FUSED);
        cpu->gemm_bf16 = chosen;
        make_nan_alike(&a), make_nan_alike(&b);
        kit_attention_same_bits(&c, &a, &b, "the softmax with its product and after it");
        kit_free_all();
    }
    low_lse_changes_nothing(ctx, &fusing, &apart);
    cpu->gemm_bf16 = chosen;
    if (n_counted == 0) kit_fail("no softmax ran with its product");
    if (n_with_values == 0) kit_fail("no product with V went along with a softmax");
    if (n_counted_bwd == 0) kit_fail("no softmax ran with its products in backward");
    if (n_far == 0) kit_fail("no lse was far from 0");
}

/* --- the checks themselves --- */

/* Wrong twins of the score kernel, each with a mistake that a real one might have. */
static const tsr_attention_score_f32_kernel *twin_of;

static void twin_diagonal_off_by_one(const tsr_attention_rows *t, float *m, float *l, float *o,
                                     int64_t o_stride, int64_t dv)
{
    tsr_attention_features f = *t->features;
    tsr_attention_rows rows = *t;
    f.right++;
    rows.features = &f;
    twin_of->forward(&rows, m, l, o, o_stride, dv);
}

static void twin_without_last_key(const tsr_attention_rows *t, float *m, float *l, float *o, int64_t o_stride,
                                  int64_t dv)
{
    tsr_attention_rows rows = *t;
    if (t->end > t->begin) rows.end--, rows.s[t->end - 1] = 0;
    twin_of->forward(&rows, m, l, o, o_stride, dv);
}

static void twin_output_not_rescaled(const tsr_attention_rows *t, float *m, float *l, float *o,
                                     int64_t o_stride, int64_t dv)
{
    (void)dv;
    twin_of->forward(t, m, l, o, o_stride, 0);
}

static void twin_neighbours_maximum(const tsr_attention_rows *t, float *m, float *l, float *o,
                                    int64_t o_stride, int64_t dv)
{
    twin_of->forward(t, m, l, o, o_stride, dv);
    if (t->n_rows > 1) m[0] = m[1];
}

static void test_wrong_twins_are_rejected(void **state)
{
    (void)state;
    tsr_context *const ctx = kit_cpu();
    tsr_cpu *const cpu = ctx->state;
    void (*const twins[])(const tsr_attention_rows *, float *, float *, float *, int64_t, int64_t) = {
        twin_diagonal_off_by_one, twin_without_last_key, twin_output_not_rescaled, twin_neighbours_maximum};
    twin_of = cpu->attention_score_f32;
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++) {
        tsr_attention_score_f32_kernel wrong = *twin_of;
        wrong.forward = twins[i];
        int n_rejected = 0;
        for (int trial = 0; trial < 400 && n_rejected == 0; trial++) {
            const kit_attention c = kit_attention_random(true), exact = kit_attention_f64(&c);
            const kit_attention_result truth = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
            cpu->attention_score_f32 = &wrong;
            const kit_attention_result got = kit_attention_run(ctx, &c, KIT_FUSED);
            cpu->attention_score_f32 = twin_of;
            n_rejected += !kit_attention_agrees(&c, &got, &truth);
            kit_free_all();
        }
        if (n_rejected == 0) kit_fail("wrong twin %zu passed every trial", i);
    }
}

/* --- memory --- */

typedef struct memory_case {
    int64_t hq, lq, lk, d;
    tsr_dtype dtype;
} memory_case;

/* Bytes for one KV head; strides of 0 stand for memory that a query never reads. */
static size_t workspace(tsr_context *ctx, const memory_case *c, bool backward)
{
    static float one;
    const tsr_tensor q = {.data = &one, .dtype = c->dtype, .rank = 4, .shape = {1, c->hq, c->lq, c->d}};
    tsr_tensor k = q, dq = q;
    k.shape[1] = 1, k.shape[2] = c->lk;
    tsr_tensor dk = k;
    dq.stride[1] = c->lq * c->d, dk.stride[1] = c->lk * c->d;
    dq.stride[2] = dk.stride[2] = c->d, dq.stride[3] = dk.stride[3] = 1;
    const tsr_attention_grads grads = {.dq = &dq, .dk = &dk, .dv = &dk};
    size_t nbytes = 0;
    if (backward)
        KIT_OK(tsr_attention_bwd_workspace(ctx, &q, &k, &k, &grads, NULL, &nbytes));
    else
        KIT_OK(tsr_attention_fwd_workspace(ctx, &q, &k, &k, NULL, &nbytes));
    return nbytes;
}

/* A KV head's packed K and V and 4 MiB, per thread; backward: four times that. */
static size_t bound_of_workspace(int32_t n_threads, const memory_case *c, bool backward)
{
    const size_t head = (size_t)(c->lk * 2 * c->d) * sizeof(float), a_thread = (size_t)4 << 20;
    return (size_t)n_threads * (head + a_thread) * (backward ? 4 : 1);
}

static void test_memory_is_bounded(void **state)
{
    (void)state;
    static const memory_case cases[] = {
        {1, 4096, 4096, 128, TSR_F32},      {1, 131072, 131072, 128, TSR_F32},
        {1, 131072, 131072, 128, TSR_BF16}, {32, 131072, 131072, 128, TSR_BF16}, /* dQ alone: 2 GiB */
        {8, 131072, 16, 64, TSR_F16},       {4096, 4096, 16, 16, TSR_F32},
        {1, 1, 131072, 256, TSR_BF16},      {1, 64, 64, 1024, TSR_F32},
    };
    for (int32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
        tsr_context *const ctx = kit_cpu_with_threads(n_threads);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            for (int backward = 0; backward < 2; backward++) {
                const memory_case *c = &cases[i];
                const size_t allowed = bound_of_workspace(n_threads, c, backward);
                const size_t got = workspace(ctx, c, backward);
                if (got > allowed)
                    kit_fail("%s, %d threads, hq %d lq %d lk %d d %d %s takes %zu bytes, may take %zu",
                             backward ? "backward" : "forward", (int)n_threads, (int)c->hq, (int)c->lq,
                             (int)c->lk, (int)c->d, tsr_dtype_name(c->dtype), got, allowed);
            }
        tsr_context_destroy(ctx);
    }
}

static void test_memory_is_linear(void **state)
{
    (void)state;
    tsr_context *const ctx = kit_cpu();
    for (int backward = 0; backward < 2; backward++)
        for (int64_t n = 1024; n <= 131072; n *= 2) {
            const memory_case c = {1, n, n, 64, TSR_F32};
            const size_t allowed = bound_of_workspace(2, &c, false) + (size_t)n / 16;
            const size_t got = workspace(ctx, &c, backward);
            if (got > allowed)
                kit_fail("%s of %lld tokens takes %zu bytes, may take %zu", backward ? "backward" : "forward",
                         (long long)n, got, allowed);
        }
}

static void test_lengths_are_checked_first(void **state)
{
    (void)state;
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 2, 1, 5, 4));
    const tsr_tensor out = kit_like(&x, TSR_F32, KIT_ROWS), lengths = KIT_NEW(TSR_I32, KIT_ROWS, 2);
    kit_set(&lengths, 0, 5), kit_set(&lengths, 1, 6);
    const tsr_attention_options o = {.seqlens_k = &lengths};
    kit_seal();
    KIT_FAILS(TSR_ERR_INDEX, "seqlens_k[1] is 6",
              tsr_attention_fwd(kit_cpu(), &x, &x, &x, &out, NULL, &o, NULL));
    kit_check_sealed("attention_fwd");
    kit_free_all();
}

KIT_TEST_OF_EACH(kit_for_each_gemm_isa, against_reference)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, nan_goes_where_it_should)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, threads_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, company_changes_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, packing_changes_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, parts_change_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, fusing_changes_nothing)
KIT_TEST_OF_EACH(kit_for_each_gemm_isa, infinite_queries)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),       cmocka_unit_test(test_nan_goes_where_it_should),
        cmocka_unit_test(test_threads_change_nothing),  cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_packing_changes_nothing), cmocka_unit_test(test_wrong_twins_are_rejected),
        cmocka_unit_test(test_parts_change_nothing),    cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_memory_is_linear),        cmocka_unit_test(test_lengths_are_checked_first),
        cmocka_unit_test(test_fusing_changes_nothing),  cmocka_unit_test(test_infinite_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
