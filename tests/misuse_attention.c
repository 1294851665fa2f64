/* tests/misuse_attention.c - options of attention that contradict each other, the shapes, or the data */
#include <math.h>

#include "kit/isa.h"
#include "kit/misuse.h"
#include "tessera/attention.h"

enum { B = 2, HQ = 4, HKV = 2, LQ = 3, LK = 5, D = 4 };

static int free_all(void **state)
{
    (void)state;
    kit_free_all();
    return 0;
}

/* A right call, padded or packed, whose options and gradients a test spoils one at a time. */
typedef struct trial {
    tsr_context *ctx;
    tsr_tensor q, k, v, out, lse, dout, dq, dbias, dsinks;
    tsr_attention_options o;
    tsr_attention_saved saved;
    tsr_attention_grads grads;
} trial;

static tsr_tensor normal3(int64_t a, int64_t b, int64_t c)
{
    return kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, a, b, c));
}
static tsr_tensor normal4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, a, b, c, d));
}

static void make(trial *t, tsr_context *ctx, bool packed)
{
    *t = (trial){.ctx = ctx};
    t->q = packed ? normal3(LQ, HQ, D) : normal4(B, HQ, LQ, D);
    t->k = packed ? normal3(LK, HKV, D) : normal4(B, HKV, LK, D);
    t->v = packed ? normal3(LK, HKV, D) : normal4(B, HKV, LK, D);
    t->out = packed ? normal3(LQ, HQ, D) : normal4(B, HQ, LQ, D);
    t->lse = packed ? kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, HQ, LQ)) : normal3(B, HQ, LQ);
    t->dout = kit_copy(&t->out, TSR_F32, KIT_ROWS);
    t->dq = kit_copy(&t->q, TSR_F32, KIT_ROWS);
    t->dbias = normal4(1, HQ, LQ, LK);
    t->dsinks = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, HQ));
    t->saved = (tsr_attention_saved){.out = &t->out, .lse = &t->lse, .dout = &t->dout};
    t->grads = (tsr_attention_grads){.dq = &t->dq};
}

static tsr_status fwd(const trial *t)
{
    return tsr_attention_fwd(t->ctx, &t->q, &t->k, &t->v, &t->out, &t->lse, &t->o, NULL);
}
static tsr_status bwd(const trial *t)
{
    return tsr_attention_bwd(t->ctx, &t->q, &t->k, &t->v, &t->saved, &t->grads, &t->o, NULL);
}

/* All entries refuse the options; the fused forward says `words`. */
static void refuses(const trial *t, tsr_status status, const char *words)
{
    KIT_REFUSES(status, words, fwd(t));
    KIT_REFUSES(status, "attention_bwd: ", bwd(t));
    KIT_REFUSES(status, "attention_unfused_fwd: ",
                tsr_attention_unfused_fwd(t->ctx, &t->q, &t->k, &t->v, &t->out, &t->lse, &t->o, NULL));
    KIT_REFUSES(status, "attention_unfused_bwd: ",
                tsr_attention_unfused_bwd(t->ctx, &t->q, &t->k, &t->v, &t->saved, &t->grads, &t->o, NULL));
}

static void numbers(void **state)
{
    trial t;
    make(&t, *state, false);
    KIT_OK(fwd(&t));
    KIT_OK(bwd(&t));
    KIT_OK(tsr_attention_fwd(t.ctx, &t.q, &t.k, &t.v, &t.out, &t.lse, NULL, NULL));
    const struct {
        tsr_attention_options o;
        const char *words;
    } wrong[] = {
        {{.scale = NAN}, "scale is nan"},
        {{.scale = INFINITY}, "scale is inf"},
        {{.softcap = -1}, "softcap is -1"},
        {{.softcap = NAN}, "softcap is nan"},
        {{.dropout_p = 1}, "dropout_p is 1, must be at least 0 and below 1"},
        {{.dropout_p = -0.1f}, "dropout_p is -0.1"},
        {{.dropout_p = NAN}, "dropout_p is nan"},
        {{.window = {1, -2, 0}}, "window.left is -2, must be at least -1"},
        {{.window = {1, 0, -2}}, "window.right is -2"},
        {{.max_lq = 3}, "max_lq is 3"},
        {{.max_lk = 3}, "max_lk 3, must be 0 without cu_seqlens"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        t.o = wrong[i].o;
        refuses(&t, TSR_ERR_ARGUMENT, wrong[i].words);
    }
}

static void heads_and_shapes(void **state)
{
    trial t;
    make(&t, *state, false);
    const tsr_tensor k = t.k, v = t.v;
    t.k = normal4(B, 3, LK, D), t.v = normal4(B, 3, LK, D);
    refuses(&t, TSR_ERR_SHAPE, "q has 4 heads, must have a multiple of k's 3");
    t.k = normal4(B, 0, LK, D), t.v = normal4(B, 0, LK, D);
    refuses(&t, TSR_ERR_SHAPE, "a multiple of k's 0");
    t.k = k, t.v = v;
    const tsr_tensor mask = kit_constant(KIT_NEW(TSR_BOOL, KIT_ROWS, B, HQ, LQ, LK - 1), 1);
    t.o.mask = &mask;
    refuses(&t, TSR_ERR_SHAPE,
            "mask has shape [2, 4, 3, 4], must have [2, 4, 3, 5], or 1 where it broadcasts");
    const tsr_tensor bias = kit_normal(KIT_NEW(TSR_BF16, KIT_ROWS, 1, HQ, LQ, LK));
    t.o.mask = NULL, t.o.bias = &bias;
    refuses(&t, TSR_ERR_DTYPE, "bias is bf16, must be f32");
}

static void gradients_of_what_is_not_there(void **state)
{
    trial t;
    make(&t, *state, false);
    t.grads.dbias = &t.dbias;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "dbias is given, must be NULL without a bias", bwd(&t));
    t.grads.dbias = NULL, t.grads.dsinks = &t.dsinks;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "dsinks is given, must be NULL without sinks", bwd(&t));
    const tsr_tensor bias = normal4(B, HQ, LQ, LK);
    t.grads.dsinks = NULL, t.grads.dbias = &t.dbias, t.o.bias = &bias;
    KIT_REFUSES(TSR_ERR_SHAPE, "dbias has shape [1, 4, 3, 5], must have [2, 4, 3, 5]", bwd(&t));
    const tsr_tensor shared = normal4(1, HQ, LQ, LK);
    t.o.bias = &shared; /* broadcasts over the batch: its gradient may sum over it */
    KIT_OK(bwd(&t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "saved is NULL",
              tsr_attention_bwd(t.ctx, &t.q, &t.k, &t.v, NULL, &t.grads, &t.o, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "grads is NULL",
              tsr_attention_bwd(t.ctx, &t.q, &t.k, &t.v, &t.saved, NULL, &t.o, NULL));
    t.grads = (tsr_attention_grads){.dq = NULL};
    KIT_OK(bwd(&t)); /* nothing is wanted */
}

static tsr_tensor numbers_of(int32_t n, const int *values)
{
    const tsr_tensor t = KIT_NEW(TSR_I32, KIT_GAPS, n);
    for (int32_t i = 0; i < n; i++) kit_set(&t, i, values[i]);
    return t;
}

static void lengths_out_of_range(void **state)
{
    trial t;
    make(&t, *state, false);
    const tsr_tensor too_long = numbers_of(B, (const int[]){LQ, LQ + 1}),
                     negative = numbers_of(B, (const int[]){-1, 2});
    t.o.seqlens_q = &too_long;
    refuses(&t, TSR_ERR_INDEX, "seqlens_q[1] is 4, must be 0 to 3");
    t.o.seqlens_q = NULL, t.o.seqlens_k = &negative;
    refuses(&t, TSR_ERR_INDEX, "seqlens_k[0] is -1, must be 0 to 5");
}

static void packed_sequences(void **state)
{
    trial t;
    make(&t, *state, true);
    const tsr_tensor q_starts = numbers_of(3, (const int[]){0, 1, LQ}),
                     k_starts = numbers_of(3, (const int[]){0, 2, LK});
    t.o.cu_seqlens_q = &q_starts;
    refuses(&t, TSR_ERR_ARGUMENT, "cu_seqlens_k is NULL, must be given with cu_seqlens_q");
    t.o.cu_seqlens_k = &k_starts;
    KIT_OK(fwd(&t));
    KIT_OK(bwd(&t));
    t.o.max_lq = -1;
    refuses(&t, TSR_ERR_ARGUMENT, "max_lq is -1");
    t.o.max_lq = 1;
    refuses(&t, TSR_ERR_INDEX, "cu_seqlens_q");
    t.o.max_lq = 0, t.o.seqlens_q = &q_starts;
    refuses(&t, TSR_ERR_ARGUMENT, "seqlens are given, must be NULL with cu_seqlens");
    t.o.seqlens_q = NULL;
    const int wrong[][3] = {{1, 1, LK}, {0, 3, 2}, {0, 2, LK + 1}, {0, 2, LK - 1}, {0, -1, LK}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const tsr_tensor starts = numbers_of(3, wrong[i]);
        t.o.cu_seqlens_k = &starts;
        refuses(&t, TSR_ERR_INDEX, "cu_seqlens_k");
    }
    const tsr_tensor none = KIT_NEW(TSR_I32, KIT_ROWS, 0), short_one = numbers_of(2, (const int[]){0, LK});
    t.o.cu_seqlens_k = &short_one;
    refuses(&t, TSR_ERR_SHAPE, "cu_seqlens_k has shape [2], must have cu_seqlens_q's, [3]");
    t.o.cu_seqlens_q = &none;
    refuses(&t, TSR_ERR_SHAPE, "cu_seqlens_q has no element");
}

static void f64_off_the_reference(void **state)
{
    (void)state;
    const tsr_tensor q = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B, HQ, LQ, D)),
                     out = kit_like(&q, TSR_F64, KIT_ROWS);
    KIT_REFUSES(TSR_ERR_DTYPE, "q is f64, which the cpu backend does not compute in",
                tsr_attention_fwd(kit_cpu(), &q, &q, &q, &out, NULL, NULL, NULL));
}

/* All of S would have a little over 2^64 bytes, though q, k and v have no element. */
static void scores_that_fit_no_memory(void **state)
{
    (void)state;
    float x;
    const tsr_tensor q = tsr_tensor_4d(&x, TSR_F32, 1, 1, ((int64_t)1 << 31) - 15, 0),
                     k = tsr_tensor_4d(&x, TSR_F32, 1, 1, ((int64_t)1 << 31) - 1, 0);
    const tsr_attention_grads grads = {.dq = &q};
    size_t need;
    KIT_FAILS(TSR_ERR_OVERFLOW, "does not fit",
              tsr_attention_unfused_fwd_workspace(kit_cpu(), &q, &k, &k, NULL, &need));
    KIT_FAILS(TSR_ERR_OVERFLOW, "does not fit",
              tsr_attention_unfused_bwd_workspace(kit_cpu(), &q, &k, &k, &grads, NULL, &need));
}

int main(void)
{
    tsr_context *contexts[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = contexts[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate_setup_teardown(numbers, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(heads_and_shapes, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(gradients_of_what_is_not_there, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(lengths_out_of_range, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(packed_sequences, NULL, free_all, ctx),
            cmocka_unit_test_teardown(f64_off_the_reference, free_all),
            cmocka_unit_test(scores_that_fit_no_memory),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
