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
        {{.splits = -1}, "splits is -1, must be at least 0"},
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

/* A right call over pools of int8: 4 pages of 3 keys, 2 to a sequence. */
typedef struct paged_trial {
    trial t;
    tsr_tensor k_scale, v_scale, lengths, table;
} paged_trial;

static void make_paged(paged_trial *p, tsr_context *ctx, tsr_dtype dtype)
{
    make(&p->t, ctx, false);
    p->t.k = kit_integers(KIT_NEW(dtype, KIT_PADDED, 4, 3, HKV, D), -9, 9);
    p->t.v = kit_integers(KIT_NEW(dtype, KIT_PADDED, 4, 3, HKV, D), -9, 9);
    p->k_scale = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, 4, 3, HKV), 0, 1);
    p->v_scale = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, 4, 3, HKV), 0, 1);
    p->lengths = numbers_of(B, (const int[]){5, 2});
    p->table = KIT_NEW(TSR_I32, KIT_GAPS, B, 2);
    const int entries[] = {3, 0, 2, -7}; /* the last is not used */
    for (int i = 0; i < 4; i++) kit_set(&p->table, i, entries[i]);
    p->t.o.seqlens_k = &p->lengths, p->t.o.block_table = &p->table;
    if (dtype == TSR_S8) p->t.o.k_scale = &p->k_scale, p->t.o.v_scale = &p->v_scale;
}

static void refuses_fwd(const paged_trial *p, tsr_status status, const char *words)
{
    KIT_REFUSES(status, words, fwd(&p->t));
}

static void pages(void **state)
{
    paged_trial p;
    make_paged(&p, *state, TSR_F32);
    KIT_OK(fwd(&p.t));
    p.t.dq = kit_copy(&p.t.q, TSR_F32, KIT_ROWS);
    KIT_REFUSES(TSR_ERR_ARGUMENT, "block_table is given, must be NULL but for the fused forward", bwd(&p.t));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "block_table is given",
                tsr_attention_unfused_fwd(p.t.ctx, &p.t.q, &p.t.k, &p.t.v, &p.t.out, NULL, &p.t.o, NULL));
    const struct {
        int at, entry;
        const char *words;
    } wrong[] = {{0, 4, "block_table[0, 0] is 4, must be 0 to 3"},
                 {1, -1, "block_table[0, 1] is -1"},
                 {2, 1 << 30, "block_table[1, 0] is 1073741824"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int right = (int)kit_get(&p.table, wrong[i].at);
        kit_set(&p.table, wrong[i].at, wrong[i].entry);
        refuses_fwd(&p, TSR_ERR_INDEX, wrong[i].words);
        kit_set(&p.table, wrong[i].at, right);
    }
    kit_set(&p.lengths, 0, 7);
    refuses_fwd(&p, TSR_ERR_INDEX, "seqlens_k[0] is 7, must be 0 to 6");
    p.t.o.seqlens_k = NULL;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "seqlens_k (needed with block_table) is NULL");
    make_paged(&p, *state, TSR_F32);
    const tsr_tensor one = KIT_NEW(TSR_I32, KIT_ROWS, 1, 2), flat = KIT_NEW(TSR_I32, KIT_ROWS, 4);
    p.t.o.block_table = &one;
    refuses_fwd(&p, TSR_ERR_SHAPE, "block_table has shape [1, 2], its first extent must be");
    p.t.o.block_table = &flat;
    refuses_fwd(&p, TSR_ERR_SHAPE, "block_table has shape [4], must have rank 2");
    p.t.o.block_table = &p.table;
    p.t.v = normal4(4, 2, HKV, D);
    refuses_fwd(&p, TSR_ERR_SHAPE, "v has shape [4, 2, 2, 4], its second extent must be k's second, 3");
    p.t.v = normal4(5, 3, HKV, D);
    refuses_fwd(&p, TSR_ERR_SHAPE, "its first extent must be k's first, 4");
    make_paged(&p, *state, TSR_F32);
    p.t.o.cu_seqlens_k = &p.lengths;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "cu_seqlens_");
}

static void pages_of_packed_queries(void **state)
{
    paged_trial p;
    make_paged(&p, *state, TSR_F32);
    const tsr_tensor starts = numbers_of(3, (const int[]){0, 1, LQ});
    p.t.q = normal3(LQ, HQ, D), p.t.out = normal3(LQ, HQ, D);
    p.t.lse = kit_normal(KIT_NEW(TSR_F32, KIT_PADDED, HQ, LQ));
    p.t.o.cu_seqlens_q = &starts;
    KIT_OK(fwd(&p.t));
    p.t.o.cu_seqlens_k = &starts;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "cu_seqlens_k is given, must be NULL with block_table");
    p.t.o.cu_seqlens_k = NULL, p.t.o.max_lk = 6;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "max_lk is 6, must be 0 with block_table");
}

static void int8_keys(void **state)
{
    paged_trial p;
    make_paged(&p, *state, TSR_S8);
    KIT_OK(fwd(&p.t));
    const tsr_tensor short_scale = KIT_NEW(TSR_F32, KIT_ROWS, 4, 2, HKV);
    p.t.o.k_scale = NULL;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "k_scale is NULL");
    p.t.o.k_scale = &short_scale;
    refuses_fwd(&p, TSR_ERR_SHAPE,
                "k_scale has shape [4, 2, 2], must have a number for each row of k, [4, 3, 2]");
    p.t.o.k_scale = &p.k_scale, p.t.o.v_scale = NULL;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "v_scale is NULL");
    p.t.o.v_scale = &p.v_scale;
    p.t.v = normal4(4, 3, HKV, D);
    refuses_fwd(&p, TSR_ERR_DTYPE, "v is f32, must be s8");
    make_paged(&p, *state, TSR_F32);
    p.t.o.k_scale = &p.k_scale;
    refuses_fwd(&p, TSR_ERR_ARGUMENT, "k_scale is given, must be NULL where k is not s8");
    make(&p.t, *state, false);
    p.t.k = kit_integers(KIT_NEW(TSR_S8, KIT_PADDED, B, HKV, LK, D), -9, 9), p.t.v = p.t.k;
    p.k_scale = kit_uniform(KIT_NEW(TSR_F32, KIT_PADDED, B, HKV, LK), 0, 1);
    p.t.o.k_scale = p.t.o.v_scale = &p.k_scale;
    KIT_OK(fwd(&p.t));
    KIT_REFUSES(TSR_ERR_DTYPE, "k is s8, must be f32 but for the fused forward", bwd(&p.t));
}

static void parts(void **state)
{
    trial t;
    make(&t, *state, false);
    const tsr_tensor *outs[] = {&t.dout, &t.dout}, *lses[] = {&t.lse, &t.lse};
    const tsr_tensor out = kit_copy(&t.out, TSR_F32, KIT_ROWS), wrong = normal4(B, HQ, LQ, D + 1);
    KIT_OK(tsr_attention_merge(t.ctx, 2, outs, lses, &out, NULL));
    KIT_OK(tsr_attention_merge(t.ctx, 1, outs, lses, &out, NULL));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "n_parts is 0, must be 1 to 32",
                tsr_attention_merge(t.ctx, 0, outs, lses, &out, NULL));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "n_parts is 33", tsr_attention_merge(t.ctx, 33, outs, lses, &out, NULL));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "outs is NULL", tsr_attention_merge(t.ctx, 2, NULL, lses, &out, NULL));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "lses is NULL", tsr_attention_merge(t.ctx, 2, outs, NULL, &out, NULL));
    outs[1] = &wrong;
    KIT_REFUSES(TSR_ERR_SHAPE, "outs[1] has shape", tsr_attention_merge(t.ctx, 2, outs, lses, &out, NULL));
    outs[1] = &out;
    KIT_REFUSES(TSR_ERR_OVERLAP, "out shares memory with outs[1]",
                tsr_attention_merge(t.ctx, 2, outs, lses, &out, NULL));
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
            cmocka_unit_test_prestate_setup_teardown(pages, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(pages_of_packed_queries, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(int8_keys, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(parts, NULL, free_all, ctx),
            cmocka_unit_test_teardown(f64_off_the_reference, free_all),
            cmocka_unit_test(scores_that_fit_no_memory),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
