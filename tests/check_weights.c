/* check_weights.c - the plan of a Llama's row, its first values, and Hugging Face directories there and back
 */
#define _XOPEN_SOURCE 700
#include "kit/kit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dtype.h"
#include "format/safetensors.h"
#include "kit/fenced.h"
#include "kit/files.h"
#include "kit/isa.h"
#include "kit/model.h"
#include "model/weights_plan.h"

enum { PER_LAYER = TSR_LLAMA_LAYER_PARTS };

static void expect_weight(const tsr_weight *w, const char *name, int64_t n0, int64_t n1)
{
    assert_string_equal(w->name, name);
    assert_int_equal(w->rank, n1 == 0 ? 1 : 2);
    assert_int_equal(w->shape[0], n0);
    assert_int_equal(w->shape[1], n1);
}

static void test_plan(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        const tsr_llama_config config = kit_config(TSR_F32, tied);
        tsr_weights w;
        KIT_OK(tsr_weights_plan(&config, &w));
        assert_int_equal(w.n, 1 + 2 * PER_LAYER + 1 + !tied);
        expect_weight(&w.list[0], "model.embed_tokens.weight", 37, 16);
        const tsr_weight *second = &w.list[1 + PER_LAYER];
        expect_weight(&second[TSR_LLAMA_INPUT_NORM], "model.layers.1.input_layernorm.weight", 16, 0);
        expect_weight(&second[TSR_LLAMA_Q], "model.layers.1.self_attn.q_proj.weight", 24, 16);
        expect_weight(&second[TSR_LLAMA_K], "model.layers.1.self_attn.k_proj.weight", 12, 16);
        expect_weight(&second[TSR_LLAMA_V], "model.layers.1.self_attn.v_proj.weight", 12, 16);
        expect_weight(&second[TSR_LLAMA_O], "model.layers.1.self_attn.o_proj.weight", 16, 24);
        expect_weight(&second[TSR_LLAMA_POST_NORM], "model.layers.1.post_attention_layernorm.weight", 16, 0);
        expect_weight(&second[TSR_LLAMA_GATE], "model.layers.1.mlp.gate_proj.weight", 24, 16);
        expect_weight(&second[TSR_LLAMA_UP], "model.layers.1.mlp.up_proj.weight", 24, 16);
        expect_weight(&second[TSR_LLAMA_DOWN], "model.layers.1.mlp.down_proj.weight", 16, 24);
        expect_weight(&w.list[1 + 2 * PER_LAYER], "model.norm.weight", 16, 0);
        if (!tied) expect_weight(&w.list[w.n - 1], "lm_head.weight", 37, 16);

        const int64_t layer = 2 * 24 * 16 + 2 * 12 * 16 + 3 * 24 * 16 + 2 * 16;
        assert_int_equal(tsr_weights_numel(&w), (tied ? 1 : 2) * 37 * 16 + 2 * layer + 16);
        tsr_weights_free(&w);
    }
}

/* Matrices first, vectors after them, each from a multiple of 64 elements on, none sharing an element. */
static void test_places(void **state)
{
    (void)state;
    const tsr_llama_config config = kit_config(TSR_F32, false);
    tsr_weights w;
    KIT_OK(tsr_weights_plan(&config, &w));
    char *taken = calloc((size_t)w.row_n, 1);
    assert_non_null(taken);
    for (int32_t i = 0; i < w.n; i++) {
        const tsr_weight *x = &w.list[i];
        const int64_t n = x->shape[0] * (x->rank == 2 ? x->shape[1] : 1);
        assert_int_equal(x->at % 64, 0);
        assert_true(x->at + n <= (x->rank == 2 ? w.n_decayed : w.row_n));
        assert_true(x->rank == 2 || x->at >= w.n_decayed);
        for (int64_t j = 0; j < n; j++) assert_int_equal(taken[x->at + j]++, 0);
    }
    free(taken);
    tsr_weights_free(&w);

    tsr_llama_config huge = config;
    huge.num_attention_heads = huge.num_key_value_heads = huge.head_dim = huge.hidden_size = 1 << 24;
    tsr_weights untouched = {.n = 12345};
    KIT_FAILS(TSR_ERR_OVERFLOW, "does not fit", tsr_weights_plan(&huge, &untouched));
    assert_int_equal(untouched.n, 12345);
}

static tsr_weights make(tsr_context *ctx, const tsr_llama_config *config, tsr_dtype dtype, uint64_t seed)
{
    tsr_weights w;
    KIT_OK(tsr_weights_create(ctx, config, dtype, false, &w));
    KIT_OK(tsr_weights_init(&w, seed));
    return w;
}

/* The root of the mean square of weight i. */
static double spread_of(const tsr_weights *w, const float *row, int32_t i)
{
    const tsr_weight *x = &w->list[i];
    double sum = 0;
    const int64_t n = x->shape[0] * (x->rank == 2 ? x->shape[1] : 1);
    for (int64_t j = 0; j < n; j++) sum += (double)row[x->at + j] * (double)row[x->at + j];
    return sqrt(sum / (double)n);
}

static void test_first_values(void **state)
{
    (void)state;
    tsr_llama_config config = kit_config(TSR_F32, false);
    config.hidden_size = 64, config.intermediate_size = 96;
    tsr_weights w = make(kit_cpu(), &config, TSR_F32, 1), again = make(kit_cpu(), &config, TSR_F32, 1);
    tsr_weights other = make(kit_cpu(), &config, TSR_F32, 2);
    kit_expect_same_rows(&w, &again);
    float *row = kit_row(&w), *other_row = kit_row(&other);
    double sum = 0;
    for (int64_t j = 0; j < w.row_n; j++) sum += fabs((double)row[j]);
    for (int32_t i = 0; i < w.n; i++) {
        const tsr_weight *x = &w.list[i];
        const bool residual = strstr(x->name, "o_proj") != NULL || strstr(x->name, "down_proj") != NULL;
        const double expected = x->rank == 1 ? 1 : residual ? 0.02 / sqrt(2.0 * 2) : 0.02;
        const double tolerance = x->rank == 1 ? 0 : 0.12; /* of over 1500 draws: six standard errors */
        if (!(fabs(spread_of(&w, row, i) / expected - 1) <= tolerance))
            fail_msg("%s spreads by %g, must be %g", x->name, spread_of(&w, row, i), expected);
        if (x->rank == 2)
            assert_memory_not_equal(row + x->at, other_row + x->at, (size_t)x->shape[1] * sizeof *row);
        const int64_t n = x->shape[0] * (x->rank == 2 ? x->shape[1] : 1);
        for (int64_t j = 0; j < n; j++) sum -= fabs((double)row[x->at + j]);
    }
    assert_true(fabs(sum) < 1e-9); /* nothing between the weights */
    free(row);
    free(other_row);
    tsr_weights_free(&w);
    tsr_weights_free(&again);
    tsr_weights_free(&other);
}

static void test_views(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        const tsr_llama_config config = kit_config(TSR_BF16, tied);
        tsr_weights w;
        KIT_OK(tsr_weights_create(kit_cpu(), &config, TSR_BF16, true, &w));
        const tsr_parameter embedding = tsr_weights_embedding(&w), head = tsr_weights_head(&w);
        const tsr_parameter down = tsr_weights_layer(&w, 1, TSR_LLAMA_DOWN), norm = tsr_weights_norm(&w);
        assert_int_equal(head.value.data == embedding.value.data, tied);
        assert_int_equal(head.grad.data == embedding.grad.data, tied);
        assert_int_equal(down.value.dtype, TSR_BF16);
        assert_int_equal(down.grad.dtype, TSR_F32);
        assert_int_equal(down.value.shape[0], 16);
        assert_int_equal(down.value.shape[1], 24);
        assert_int_equal(down.value.stride[0], 24);
        assert_int_equal(norm.value.rank, 1);
        const tsr_weight *x = &w.list[1 + PER_LAYER + TSR_LLAMA_DOWN];
        assert_ptr_equal(down.value.data, (char *)w.values.data + 2 * x->at);
        assert_ptr_equal(down.grad.data, (char *)w.grads.data + 4 * x->at);
        tsr_weights_free(&w);
    }
}

static const char *make_folder(const char *name)
{
    static char kept[16][512]; /* kit_path's memory is good for a few calls only */
    static int n;
    snprintf(kept[n], sizeof kept[n], "%s", kit_path(name));
    assert_int_equal(mkdir(kept[n], 0700), 0);
    return kept[n++];
}

/* Stored in `stored`, held in `held`: what comes back has been rounded once on the way, or not at all. */
static void round_trip(tsr_context *ctx, tsr_dtype held, tsr_dtype stored, bool tied, const char *name)
{
    const char *folder = make_folder(name);
    const tsr_llama_config config = kit_config(stored, tied);
    tsr_weights w = make(ctx, &config, held, 3), back;
    KIT_OK(tsr_weights_save(&w, folder));
    KIT_OK(tsr_weights_load(ctx, folder, TSR_F32, 0, &back));
    assert_int_equal(back.config.dtype, stored);
    assert_int_equal(back.config.tie_word_embeddings, tied);
    assert_null(back.grads.data);
    void *row = kit_row(&w);
    float *back_row = kit_row(&back), rounded;
    for (int64_t i = 0; i < w.row_n; i++) {
        char element[8];
        tsr_store_f64(element, stored, 0, tsr_load_f64(row, held, i));
        rounded = (float)tsr_load_f64(element, stored, 0);
        if (back_row[i] != rounded)
            fail_msg("%s: element %d: %g, not %g", name, (int)i, back_row[i], rounded);
    }
    int64_t numel = 0;
    tsr_llama_config checked;
    KIT_OK(tsr_weights_check(folder, &checked, &numel));
    assert_int_equal(numel, tsr_weights_numel(&w));
    assert_int_equal(checked.num_key_value_heads, 2);
    if (held == stored) {
        tsr_weights_free(&back);
        KIT_OK(tsr_weights_load(ctx, folder, held, 0, &back));
        kit_expect_same_rows(&w, &back);
    }
    free(row);
    free(back_row);
    tsr_weights_free(&w);
    tsr_weights_free(&back);
}

/* Tables for as many positions as are asked for, and as the model has. */
static void test_positions(void **state)
{
    (void)state;
    const char *folder = make_folder("positions");
    tsr_llama_config config = kit_config(TSR_F32, true);
    tsr_weights w = make(kit_cpu(), &config, TSR_F32, 8), whole, few;
    KIT_OK(tsr_weights_save(&w, folder));
    KIT_OK(tsr_weights_load(kit_cpu(), folder, TSR_F32, 100, &whole));
    KIT_OK(tsr_weights_load(kit_cpu(), folder, TSR_F32, 5, &few));
    assert_int_equal(w.rope_cos.shape[0], 12);
    assert_int_equal(whole.n_positions, 12);
    assert_int_equal(whole.rope_cos.shape[0], 12);
    assert_int_equal(few.n_positions, 5);
    assert_int_equal(few.config.max_position_embeddings, 12);
    assert_int_equal(few.rope_sin.shape[0], 5);
    assert_memory_equal(few.rope_sin.data, whole.rope_sin.data, sizeof(float[5 * 3]));
    tsr_weights_free(&w);
    tsr_weights_free(&whole);
    tsr_weights_free(&few);
}

static void test_round_trips(void **state)
{
    (void)state;
    round_trip(kit_cpu(), TSR_F32, TSR_F32, true, "f32-tied");
    round_trip(kit_cpu(), TSR_F32, TSR_F32, false, "f32-untied");
    round_trip(kit_cpu(), TSR_BF16, TSR_BF16, true, "bf16-tied");
    round_trip(kit_cpu(), TSR_F32, TSR_BF16, false, "f32-to-bf16");
    round_trip(kit_cpu(), TSR_F32, TSR_F16, false, "f32-to-f16");
    tsr_context *fenced = kit_fenced();
    round_trip(fenced, TSR_BF16, TSR_BF16, false, "fenced");
    tsr_context_destroy(fenced);
}

/* What is wrong with a directory: one tensor is left out, another or further one, of another type. */
typedef struct damage {
    const char *missing, *extra;
    int64_t extra_rows, extra_columns; /* columns 0: a vector */
    tsr_dtype extra_dtype;
} damage;

static void write_damaged(const tsr_weights *w, const char *folder, const damage *d)
{
    static double zeros[64 * 64];
    tsr_named_tensor list[64];
    size_t n = 0;
    for (int32_t i = 0; i < w->n; i++)
        if (d->missing == NULL || strcmp(w->list[i].name, d->missing) != 0)
            list[n++] = (tsr_named_tensor){w->list[i].name, tsr_weight_view(&w->list[i], &w->values)};
    if (d->extra != NULL)
        list[n++] = (tsr_named_tensor){
            d->extra, d->extra_columns == 0
                          ? tsr_tensor_1d(zeros, d->extra_dtype, d->extra_rows)
                          : tsr_tensor_2d(zeros, d->extra_dtype, d->extra_rows, d->extra_columns)};
    KIT_OK(tsr_safetensors_write(kit_path_in(folder, "model.safetensors"), list, n, NULL, NULL));
}

/* Neither loading nor checking accepts it; what they were to fill stays as it was. */
static void expect_refused(const char *folder, tsr_status status, const char *words)
{
    tsr_weights out, poison;
    tsr_llama_config config, config_poison;
    int64_t numel = -77;
    memset(&poison, 0x5a, sizeof poison);
    memset(&config_poison, 0x5a, sizeof config_poison);
    memcpy(&out, &poison, sizeof out);
    memcpy(&config, &config_poison, sizeof config);
    KIT_FAILS(status, words, tsr_weights_load(kit_cpu(), folder, TSR_F32, 0, &out));
    KIT_FAILS(status, words, tsr_weights_check(folder, &config, &numel));
    assert_memory_equal(&out, &poison, sizeof out);
    assert_memory_equal(&config, &config_poison, sizeof config);
    assert_int_equal(numel, -77);
}

static void test_tensors(void **state)
{
    (void)state;
    static const char up[] = "model.layers.1.mlp.up_proj.weight", norm[] = "model.norm.weight";
    const char *folder = make_folder("damaged");
    const tsr_llama_config config = kit_config(TSR_F32, true);
    tsr_weights w = make(kit_cpu(), &config, TSR_F32, 4);
    KIT_OK(tsr_weights_save(&w, folder));
    const struct {
        damage damage;
        const char *words; /* NULL: it is none */
    } cases[] = {
        {{.missing = up}, "'model.layers.1.mlp.up_proj.weight' is missing, must be [24, 16]"},
        {{up, up, 16, 24, TSR_F32}, "up_proj.weight' is [16, 24], must be [24, 16]"},
        {{norm, norm, 1, 16, TSR_F32}, "'model.norm.weight' is [1, 16], must be [16]"},
        {{norm, norm, 16, 0, TSR_I32}, "'model.norm.weight' is I32, must be a float"},
        {{norm, norm, 16, 0, TSR_F64}, NULL},
        {{NULL, "model.layers.2.mlp.up_proj.weight", 24, 16, TSR_F32},
         "'model.layers.2.mlp.up_proj.weight' is"},
        {{NULL, "model.layers.0.self_attn.q_proj.bias", 24, 0, TSR_F32},
         "q_proj.bias' is no part of this model"},
        {{NULL, "bell\a", 1, 0, TSR_F32}, "'bell?' is no part"},
        {{NULL, "lm_head.weight", 37, 16, TSR_F32}, NULL},
        {{NULL, "model.layers.0.self_attn.rotary_emb.inv_freq", 3, 0, TSR_F32}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_damaged(&w, folder, &cases[i].damage);
        if (cases[i].words != NULL) {
            expect_refused(folder, TSR_ERR_FORMAT, cases[i].words);
            continue;
        }
        tsr_weights back;
        KIT_OK(tsr_weights_load(kit_cpu(), folder, TSR_F32, 0, &back));
        tsr_weights_free(&back);
    }
    tsr_weights_free(&w);
}

/* Replaces `old` by `new` in config.json. */
static void edit_config(const char *folder, const char *old, const char *new)
{
    const char *path = kit_path_in(folder, "config.json");
    char *text = kit_read_file(path, NULL), *at = strstr(text, old), edited[4096];
    assert_non_null(at);
    snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    kit_write_file(path, edited, strlen(edited));
    free(text);
}

static void test_directories(void **state)
{
    (void)state;
    expect_refused(kit_path("nowhere"), TSR_ERR_IO, "nowhere");
    kit_write_file(kit_path("file"), "x", 1);
    expect_refused(kit_path("file"), TSR_ERR_IO, "file: not a directory");
    const char *folder = make_folder("empty");
    expect_refused(folder, TSR_ERR_IO, "config.json");

    const tsr_llama_config config = kit_config(TSR_F32, false);
    tsr_weights w = make(kit_cpu(), &config, TSR_F32, 5);
    KIT_OK(tsr_weights_save(&w, folder));
    edit_config(folder, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    expect_refused(folder, TSR_ERR_FORMAT, "'model.layers.2.input_layernorm.weight' is missing");
    edit_config(folder, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
    expect_refused(folder, TSR_ERR_FORMAT, "'model.layers.1.input_layernorm.weight' is no part");
    edit_config(folder, "\"num_hidden_layers\": 1", "\"num_hidden_layers\": -2");
    expect_refused(folder, TSR_ERR_FORMAT, "num_hidden_layers");
    edit_config(folder, "{", "");
    expect_refused(folder, TSR_ERR_FORMAT, "config.json");

    KIT_OK(tsr_weights_save(&w, folder));
    char *path = strdup(kit_path_in(folder, "model.safetensors"));
    assert_int_equal(truncate(path, 5000), 0);
    expect_refused(folder, TSR_ERR_FORMAT, "model.safetensors");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused(folder, TSR_ERR_IO, "FIFO");
    unlink(path);
    expect_refused(folder, TSR_ERR_IO, "holds neither");
    free(path);
    tsr_weights_free(&w);
}

static int save_fails(const void *arg)
{
    return tsr_weights_save(arg, kit_path("full")) == TSR_ERR_IO &&
                   strstr(tsr_last_error(), "model.safetensors cannot be written") != NULL
               ? 0
               : 1;
}

/* The model that was there is there afterwards, and nothing beside it. */
static void test_full_disk(void **state)
{
    (void)state;
    const char *folder = make_folder("full");
    const tsr_llama_config config = kit_config(TSR_F32, false);
    tsr_weights old = make(kit_cpu(), &config, TSR_F32, 6), new = make(kit_cpu(), &config, TSR_F32, 7), back;
    kit_on_full_disk(2000, save_fails, &new);
    assert_int_not_equal(access(kit_path_in(folder, "config.json"), F_OK), 0);
    KIT_OK(tsr_weights_save(&old, folder));
    kit_on_full_disk(2000, save_fails, &new);
    assert_int_not_equal(access(kit_path_in(folder, "model.safetensors.tessera-tmp"), F_OK), 0);
    KIT_OK(tsr_weights_load(kit_cpu(), folder, TSR_F32, 0, &back));
    kit_expect_same_rows(&old, &back);
    tsr_weights_free(&old);
    tsr_weights_free(&new);
    tsr_weights_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),         cmocka_unit_test(test_places),
        cmocka_unit_test(test_first_values), cmocka_unit_test(test_views),
        cmocka_unit_test(test_round_trips),  cmocka_unit_test(test_positions),
        cmocka_unit_test(test_tensors),      cmocka_unit_test(test_directories),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
