/*
 * check_llama.c - what training optimises is what generation samples from
 *
 * The loss of a batch against the logits that reading token by token gives; reading in one piece, in several,
 * and from a stored model; texts that outgrow the model.
 */
#define _XOPEN_SOURCE 700
#include "kit/kit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dtype.h"
#include "kit/compare.h"
#include "kit/fenced.h"
#include "kit/files.h"
#include "kit/isa.h"
#include "kit/model.h"
#include "kit/tensor.h"
#include "model/generate.h"

enum { VOCAB = 37, POSITIONS = 12, BATCH = 2, LENGTH = 9, IGNORED = -100, MAX_TEXT = 64 };

/* A model that has opinions: the first values times ten. */
static tsr_weights make(tsr_context *ctx, tsr_dtype dtype, bool tied)
{
    const tsr_llama_config config = kit_config(dtype, tied);
    tsr_weights w;
    KIT_OK(tsr_weights_create(ctx, &config, dtype, false, &w));
    KIT_OK(tsr_weights_init(&w, 11));
    void *row = kit_row(&w);
    for (int64_t i = 0; i < w.n_decayed; i++) tsr_store_f64(row, dtype, i, 10 * tsr_load_f64(row, dtype, i));
    KIT_OK(tsr_upload(ctx, w.values.data, row, (size_t)w.row_n * tsr_dtype_nbytes(dtype)));
    free(row);
    return w;
}

static tsr_tape *make_tape(tsr_context *ctx, int recording)
{
    tsr_tape *tape;
    KIT_OK(tsr_tape_create(ctx, &tape));
    tsr_tape_set_recording(tape, recording);
    return tape;
}

/* Reads ids [batch, n] in pieces of `piece` tokens; logits [batch, VOCAB] after the last. */
static void read_in_pieces(const tsr_weights *w, int64_t batch, const int32_t *ids, int64_t n, int64_t piece,
                           float *logits)
{
    tsr_tape *tape = make_tape(w->ctx, 0);
    tsr_kv_cache *cache;
    int32_t part[BATCH * POSITIONS];
    KIT_OK(tsr_llama_cache_create(w, batch, n, &cache));
    for (int64_t at = 0; at < n; at += piece) {
        const int64_t length = piece < n - at ? piece : n - at;
        for (int64_t b = 0; b < batch; b++)
            memcpy(part + b * length, ids + b * n + at, (size_t)length * sizeof *ids);
        KIT_OK(tsr_llama_read(w, tape, cache, batch, part, length, logits));
    }
    tsr_kv_cache_destroy(cache);
    tsr_tape_destroy(tape);
}

static double loss_of(const tsr_weights *w, const int32_t *ids, const int32_t *targets)
{
    const int64_t shape[] = {BATCH, LENGTH};
    tsr_tensor device[2], value;
    for (int i = 0; i < 2; i++) {
        KIT_OK(tsr_tensor_allocate(w->ctx, TSR_I32, 2, shape, &device[i]));
        KIT_OK(tsr_upload(w->ctx, device[i].data, i == 0 ? ids : targets, sizeof(int32_t[BATCH * LENGTH])));
    }
    tsr_tape *tape = make_tape(w->ctx, 0);
    tsr_var loss;
    float result;
    KIT_OK(tsr_llama_loss(w, tape, &device[0], &device[1], IGNORED, NULL, &loss));
    KIT_OK(tsr_tape_value(tape, loss, &value));
    KIT_OK(tsr_download(w->ctx, &result, value.data, sizeof result));
    tsr_tape_destroy(tape);
    KIT_OK(tsr_free(w->ctx, device[0].data));
    KIT_OK(tsr_free(w->ctx, device[1].data));
    return (double)result;
}

static double nats(const float *logits, int32_t target)
{
    double sum = 0;
    for (int v = 0; v < VOCAB; v++) sum += exp((double)logits[v]);
    return log(sum) - (double)logits[target];
}

/* The mean over targets of what the logits after each position say of them. */
static double loss_by_reading(const tsr_weights *w, const int32_t *ids, const int32_t *targets)
{
    tsr_tape *tape = make_tape(w->ctx, 0);
    tsr_kv_cache *cache;
    double sum = 0;
    int n = 0;
    KIT_OK(tsr_llama_cache_create(w, BATCH, LENGTH, &cache));
    for (int i = 0; i < LENGTH; i++) {
        const int32_t column[BATCH] = {ids[i], ids[LENGTH + i]};
        float logits[BATCH * VOCAB];
        KIT_OK(tsr_llama_read(w, tape, cache, BATCH, column, 1, logits));
        for (int b = 0; b < BATCH; b++) {
            const int32_t target = targets[b * LENGTH + i];
            if (target == IGNORED) continue;
            sum += nats(logits + b * VOCAB, target);
            n++;
        }
    }
    tsr_kv_cache_destroy(cache);
    tsr_tape_destroy(tape);
    return sum / n;
}

static void random_ids(int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) ids[i] = (int32_t)kit_between(0, VOCAB - 1);
}

static void loss_is_of_the_logits(tsr_context *ctx)
{
    int32_t ids[BATCH * LENGTH], targets[BATCH * LENGTH];
    random_ids(ids, BATCH * LENGTH);
    random_ids(targets, BATCH * LENGTH);
    targets[3] = targets[BATCH * LENGTH - 1] = IGNORED;
    for (int tied = 0; tied < 2; tied++) {
        tsr_weights w = make(ctx, TSR_F32, tied);
        const double loss = loss_of(&w, ids, targets), expected = loss_by_reading(&w, ids, targets);
        assert_true(fabs(expected - log(VOCAB)) > 0.01); /* it does not know nothing */
        if (!(fabs(loss - expected) < 1e-5))
            kit_fail("llama: the loss is %.9g, by its logits %.9g", loss, expected);
        tsr_weights_free(&w);
    }
}

static void pieces_agree(tsr_context *ctx)
{
    int32_t ids[BATCH * LENGTH];
    float whole[BATCH * VOCAB], pieces[BATCH * VOCAB], alone[VOCAB];
    random_ids(ids, BATCH * LENGTH);
    tsr_weights w = make(ctx, TSR_F32, true);
    read_in_pieces(&w, BATCH, ids, LENGTH, LENGTH, whole);
    for (int64_t piece = 1; piece < LENGTH; piece += 3) {
        read_in_pieces(&w, BATCH, ids, LENGTH, piece, pieces);
        for (int i = 0; i < BATCH * VOCAB; i++)
            if (!(fabsf(pieces[i] - whole[i]) <= 1e-5f * (1 + fabsf(whole[i]))))
                kit_fail("llama: logit %d is %.9g in pieces of %d, %.9g in one", i, pieces[i], (int)piece,
                         whole[i]);
    }
    read_in_pieces(&w, 1, ids + LENGTH, LENGTH, LENGTH, alone);
    assert_memory_equal(alone, whole + VOCAB, sizeof alone); /* a text's bits do not depend on its company */
    tsr_weights_free(&w);
}

static void test_loss(void **state)
{
    (void)state;
    loss_is_of_the_logits(kit_reference());
    kit_for_each_isa(loss_is_of_the_logits);
}

static void test_pieces(void **state)
{
    (void)state;
    pieces_agree(kit_reference());
    kit_for_each_isa(pieces_agree);
}

/* Stored and loaded again, a model says the same to the bit. */
static void test_stored_model(void **state)
{
    (void)state;
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    int32_t ids[LENGTH];
    random_ids(ids, LENGTH);
    for (int i = 0; i < 6; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s-%d", kit_path("model"), i);
        assert_int_equal(mkdir(folder, 0700), 0);
        tsr_weights w = make(kit_cpu(), dtypes[i / 2], i % 2), back;
        float logits[VOCAB], logits_back[VOCAB];
        KIT_OK(tsr_weights_save(&w, folder));
        KIT_OK(tsr_weights_load(kit_cpu(), folder, dtypes[i / 2], 0, &back));
        read_in_pieces(&w, 1, ids, LENGTH, LENGTH, logits);
        read_in_pieces(&back, 1, ids, LENGTH, LENGTH, logits_back);
        assert_memory_equal(logits, logits_back, sizeof logits);
        assert_true(isfinite(logits[0]));
        tsr_weights_free(&w);
        tsr_weights_free(&back);
    }
}

typedef struct text {
    int32_t id[MAX_TEXT];
    int64_t n, at_most;
} text;

static bool note(void *user, int32_t id)
{
    text *t = user;
    assert_true(t->n < MAX_TEXT);
    t->id[t->n++] = id;
    return t->n < t->at_most;
}

static const int32_t prompt[] = {5, 11, 2};
enum { PROMPT = 3 };

static text generate(const tsr_weights *w, const tsr_generate_options *o, tsr_generate_figures *figures)
{
    text t = {.at_most = MAX_TEXT};
    KIT_OK(tsr_generate(w, prompt, PROMPT, o, note, &t, figures));
    assert_int_equal(figures->n_prompt, PROMPT);
    return t;
}

static void expect_same_text(const text *a, const text *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, (size_t)a->n * sizeof *a->id);
}

static void test_seeds_and_threads(void **state)
{
    (void)state;
    tsr_generate_options o = {.n_tokens = 24, .sample = {.temperature = 1}, .seed = 3};
    tsr_generate_figures figures;
    text first = {.n = 0};
    for (int32_t n_threads = 1; n_threads <= 3; n_threads++) {
        tsr_context *ctx = kit_cpu_with_threads(n_threads);
        tsr_weights w = make(ctx, TSR_F32, true);
        w.config.n_eos = 0;
        o.seed = 3;
        const text t = generate(&w, &o, &figures);
        assert_int_equal(t.n, 24);
        assert_int_equal(figures.n_generated, 24);
        if (n_threads == 1) first = t;
        expect_same_text(&t, &first);
        o.seed = 4;
        const text other = generate(&w, &o, &figures);
        assert_memory_not_equal(other.id, first.id, sizeof(int32_t[24]));
        tsr_weights_free(&w);
        tsr_context_destroy(ctx);
    }
}

static int32_t likeliest(const float *logits)
{
    int32_t best = 0;
    for (int32_t v = 1; v < VOCAB; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

/* The likeliest token, over and over; each time all that the model still sees is read anew. */
static text generate_naively(const tsr_weights *w, int64_t n_tokens)
{
    text t = {.n = 0};
    int32_t seen[POSITIONS + 1];
    const int64_t most = w->n_positions;
    int64_t n = PROMPT;
    memcpy(seen, prompt, sizeof prompt);
    while (t.n < n_tokens) {
        float logits[VOCAB];
        read_in_pieces(w, 1, seen, n, n, logits);
        const int32_t id = likeliest(logits);
        t.id[t.n++] = id;
        if (n == most) {
            memmove(seen, seen + n - most / 2, (size_t)(most / 2) * sizeof *seen);
            n = most / 2;
        }
        seen[n++] = id;
    }
    return t;
}

static void text_outgrows_the_model(tsr_context *ctx)
{
    for (int64_t positions = PROMPT; positions <= POSITIONS; positions += 4) {
        tsr_weights w = make(ctx, TSR_F32, true);
        w.n_positions = positions;
        w.config.n_eos = 0;
        const tsr_generate_options o = {.n_tokens = 2 * POSITIONS};
        tsr_generate_figures figures;
        const text t = generate(&w, &o, &figures), expected = generate_naively(&w, o.n_tokens);
        expect_same_text(&t, &expected);
        tsr_weights_free(&w);
    }
}

static void test_long_texts(void **state)
{
    (void)state;
    text_outgrows_the_model(kit_cpu());
    text_outgrows_the_model(kit_reference());
    /* A model that sees one token. */
    tsr_weights w = make(kit_cpu(), TSR_F32, false);
    w.n_positions = 1;
    w.config.n_eos = 0;
    tsr_generate_figures figures;
    text t = {.at_most = MAX_TEXT};
    KIT_OK(tsr_generate(&w, prompt, 1, &(tsr_generate_options){.n_tokens = 5}, note, &t, &figures));
    assert_int_equal(t.n, 5);
    tsr_weights_free(&w);
}

/* The model's end of text ends it, unseen; so does the hook; and no tokens are none. */
static void test_ends(void **state)
{
    (void)state;
    tsr_weights w = make(kit_cpu(), TSR_F32, true);
    w.config.n_eos = 0;
    float logits[VOCAB], expected[VOCAB];
    tsr_generate_options o = {.n_tokens = 20, .logits = logits};
    tsr_generate_figures figures;
    const text whole = generate(&w, &o, &figures);
    read_in_pieces(&w, 1, prompt, PROMPT, PROMPT, expected);
    assert_memory_equal(logits, expected, sizeof logits);

    int64_t first = 0; /* where the token comes for the first time */
    while (whole.id[first] != whole.id[7]) first++;
    w.config.n_eos = 2;
    w.config.eos_token_id[0] = VOCAB; /* none */
    w.config.eos_token_id[1] = whole.id[7];
    text t = generate(&w, &o, &figures);
    assert_int_equal(t.n, first);
    assert_memory_equal(t.id, whole.id, (size_t)first * sizeof *t.id);
    assert_int_equal(figures.n_generated, first + 1);

    w.config.n_eos = 0;
    t = (text){.at_most = 4};
    KIT_OK(tsr_generate(&w, prompt, PROMPT, &o, note, &t, &figures));
    assert_int_equal(t.n, 4);
    o.n_tokens = 0;
    t = generate(&w, &o, &figures);
    assert_int_equal(t.n, 0);
    assert_int_equal(figures.n_generated, 0);
    tsr_weights_free(&w);
}

static tsr_status try_prompt(const tsr_weights *w, const int32_t *ids, int64_t n,
                             const tsr_generate_options *o)
{
    text t = {.at_most = MAX_TEXT};
    tsr_generate_figures figures;
    const tsr_status status = tsr_generate(w, ids, n, o, note, &t, &figures);
    assert_int_equal(t.n, 0);
    return status;
}

static void test_misuse(void **state)
{
    (void)state;
    tsr_weights w = make(kit_cpu(), TSR_F32, true);
    const int32_t ids[POSITIONS + 1] = {1, 2, VOCAB, 3};
    const tsr_generate_options plain = {.n_tokens = 5};
    KIT_FAILS(TSR_ERR_ARGUMENT, "empty", try_prompt(&w, ids, 0, &plain));
    KIT_FAILS(TSR_ERR_ARGUMENT, "13 tokens, the model reads at most 12", try_prompt(&w, ids, 13, &plain));
    KIT_FAILS(TSR_ERR_INDEX, "token 2 of the prompt is 37", try_prompt(&w, ids, 4, &plain));
    KIT_FAILS(TSR_ERR_ARGUMENT, "n_tokens is -1",
              try_prompt(&w, ids, 2, &(tsr_generate_options){.n_tokens = -1}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "top-p",
              try_prompt(&w, ids, 2, &(tsr_generate_options){.n_tokens = 1, .sample = {.top_p = 1.5}}));

    tsr_kv_cache *cache = NULL;
    KIT_FAILS(TSR_ERR_ARGUMENT, "capacity is 13", tsr_llama_cache_create(&w, 1, POSITIONS + 1, &cache));
    KIT_FAILS(TSR_ERR_ARGUMENT, "kv_cache", tsr_llama_cache_create(&w, 1, 0, &cache));
    assert_null(cache);
    KIT_OK(tsr_llama_cache_create(&w, 1, 3, &cache));
    tsr_tape *tape = make_tape(kit_cpu(), 0);
    float logits[VOCAB] = {123};
    KIT_FAILS(TSR_ERR_ARGUMENT, "no tokens", tsr_llama_read(&w, tape, cache, 1, ids, 0, logits));
    KIT_FAILS(TSR_ERR_ARGUMENT, "n_rows is 4, must be 1 to 3",
              tsr_llama_read(&w, tape, cache, 1, ids, 4, logits));
    KIT_OK(tsr_llama_read(&w, tape, cache, 1, prompt, 2, logits));
    const float before = logits[0];
    KIT_FAILS(TSR_ERR_ARGUMENT, "room is for 3", tsr_llama_read(&w, tape, cache, 1, prompt, 2, logits));
    KIT_FAILS(TSR_ERR_INDEX, "37", tsr_llama_read(&w, tape, cache, 1, ids + 2, 1, logits));
    assert_true(logits[0] == before);
    tsr_tape_destroy(tape);
    tsr_kv_cache_destroy(cache);
    tsr_weights_free(&w);
}

/* A device that the host cannot look into gives the reference's loss, logits and text. */
static void test_fenced(void **state)
{
    (void)state;
    int32_t ids[BATCH * LENGTH], targets[BATCH * LENGTH];
    random_ids(ids, BATCH * LENGTH);
    random_ids(targets, BATCH * LENGTH);
    tsr_context *ctx[] = {kit_reference(), kit_fenced()};
    text t[2];
    double loss[2];
    for (int i = 0; i < 2; i++) {
        tsr_weights w = make(ctx[i], TSR_F32, false);
        w.config.n_eos = 0;
        tsr_generate_figures figures;
        loss[i] = loss_of(&w, ids, targets);
        t[i] = generate(&w, &(tsr_generate_options){.n_tokens = 15, .sample = {.temperature = 1}}, &figures);
        tsr_weights_free(&w);
    }
    assert_true(loss[0] == loss[1]);
    expect_same_text(&t[0], &t[1]);
    tsr_context_destroy(ctx[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),         cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_stored_model), cmocka_unit_test(test_seeds_and_threads),
        cmocka_unit_test(test_long_texts),   cmocka_unit_test(test_ends),
        cmocka_unit_test(test_misuse),       cmocka_unit_test(test_fenced),
    };
    return cmocka_run_group_tests_name("llama", tests, NULL, NULL);
}
