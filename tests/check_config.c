/*
 * check_config.c - config.json: both of Hugging Face's spellings, defaults, what is refused, and the way back
 */
#define _DEFAULT_SOURCE
#include "kit/kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/config.h"
#include "format/json.h"
#include "kit/files.h"

static const tsr_llama_config expected = {
    .vocab_size = 1000,
    .hidden_size = 64,
    .intermediate_size = 160,
    .num_hidden_layers = 3,
    .num_attention_heads = 4,
    .num_key_value_heads = 2,
    .head_dim = 16,
    .max_position_embeddings = 512,
    .rms_norm_eps = 1e-5,
    .rope_theta = 500000,
    .tie_word_embeddings = true,
    .dtype = TSR_BF16,
    .bos_token_id = 1,
    .n_eos = 2,
    .eos_token_id = {2, 7},
};

static void expect_same(const tsr_llama_config *a, const tsr_llama_config *b)
{
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_int_equal(a->intermediate_size, b->intermediate_size);
    assert_int_equal(a->num_hidden_layers, b->num_hidden_layers);
    assert_int_equal(a->num_attention_heads, b->num_attention_heads);
    assert_int_equal(a->num_key_value_heads, b->num_key_value_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->max_position_embeddings, b->max_position_embeddings);
    assert_true(a->rms_norm_eps == b->rms_norm_eps && a->rope_theta == b->rope_theta);
    assert_int_equal(a->tie_word_embeddings, b->tie_word_embeddings);
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->bos_token_id, b->bos_token_id);
    assert_int_equal(a->n_eos, b->n_eos);
    for (int32_t i = 0; i < a->n_eos; i++) assert_int_equal(a->eos_token_id[i], b->eos_token_id[i]);
}

static void test_reads_both_spellings(void **state)
{
    (void)state;
    tsr_llama_config c;
    KIT_OK(tsr_llama_config_read(TSR_FIXTURES "/format/config_old.json", &c));
    expect_same(&c, &expected);
    KIT_OK(tsr_llama_config_read(TSR_FIXTURES "/format/config_new.json", &c));
    expect_same(&c, &expected);
}

static void test_defaults(void **state)
{
    (void)state;
    tsr_llama_config c;
    KIT_OK(tsr_llama_config_read(TSR_FIXTURES "/format/config_least.json", &c));
    tsr_llama_config defaults = expected;
    defaults.num_key_value_heads = 4;
    defaults.max_position_embeddings = 2048;
    defaults.rms_norm_eps = 1e-6;
    defaults.rope_theta = 10000;
    defaults.tie_word_embeddings = false;
    defaults.dtype = TSR_F32;
    defaults.bos_token_id = -1;
    defaults.n_eos = 0;
    expect_same(&c, &defaults);
}

/* A good config with one field (a JSON text) set. */
static tsr_status parse_with(const char *key, const char *value, tsr_llama_config *out)
{
    json_t *root;
    KIT_OK(tsr_json_read(TSR_FIXTURES "/format/config_old.json", 10000, &root));
    if (value == NULL)
        json_object_del(root, key);
    else
        json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    const tsr_status status = tsr_llama_config_parse("config.json", text, strlen(text), out);
    free(text);
    json_decref(root);
    return status;
}

static void refuse(const char *words, const char *key, const char *value)
{
    tsr_llama_config c = {.vocab_size = 77};
    KIT_FAILS(TSR_ERR_FORMAT, words, parse_with(key, value, &c));
    assert_int_equal(c.vocab_size, 77);
}

static void test_refuses_what_it_does_not_do(void **state)
{
    (void)state;
    tsr_llama_config c;
    refuse("config.json: model_type is 'mistral', must be 'llama'", "model_type", "\"mistral\"");
    refuse("architectures is [LlamaModel], must be [LlamaForCausalLM]", "architectures", "[\"LlamaModel\"]");
    refuse("architectures is [], must be", "architectures", "[]");
    refuse("architectures is [], must be", "architectures", "[7]");
    refuse("hidden_act is 'gelu', must be 'silu'", "hidden_act", "\"gelu\"");
    refuse("hidden_act is an integer", "hidden_act", "1");
    refuse("attention_bias is true, must be false", "attention_bias", "true");
    refuse("mlp_bias is true, must be false", "mlp_bias", "true");
    refuse("mlp_bias is an integer, must be true or false", "mlp_bias", "0");
    refuse("quantization_config is there, must be absent", "quantization_config", "{}");
    refuse("torch_dtype is 'float64', must be float32", "torch_dtype", "\"float64\"");
    refuse("dtype is 'int8', must be float32", "dtype", "\"int8\"");
    KIT_FAILS(TSR_ERR_FORMAT, "rope_scaling asks for RoPE of type 'llama3', must be 'default'",
              tsr_llama_config_read(TSR_FIXTURES "/format/config_scaled.json", &c));
    refuse("RoPE of type 'linear'", "rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}");
    refuse("rope_scaling names no rope_type", "rope_scaling", "{\"factor\": 2.0}");
    refuse("rope_scaling names no rope_type", "rope_scaling", "{\"factor\": 2.0, \"rope_theta\": 500000}");
    refuse("rope_parameters names no rope_type", "rope_parameters", "{\"full_attention\": {}}");
    refuse("rope_scaling is a string", "rope_scaling", "\"linear\"");
    refuse("rope_theta is 500000, but 10000 in rope_parameters", "rope_parameters",
           "{\"rope_theta\": 10000.0}");
    refuse("partial_rotary_factor is 0.5", "rope_parameters",
           "{\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}");
}

static void test_accepts_variants(void **state)
{
    (void)state;
    tsr_llama_config c;
    KIT_OK(parse_with("rope_scaling", "{\"rope_type\": \"default\"}", &c));
    assert_true(c.rope_theta == 500000);
    KIT_OK(parse_with("rope_parameters", "{\"rope_theta\": 500000}", &c));
    KIT_OK(parse_with("rope_theta", "10000", &c));
    assert_true(c.rope_theta == 10000);
    KIT_OK(parse_with("head_dim", "32", &c)); /* need not be hidden_size / heads */
    assert_int_equal(c.head_dim, 32);
    KIT_OK(parse_with("num_key_value_heads", "null", &c));
    assert_int_equal(c.num_key_value_heads, 4);
    KIT_OK(parse_with("eos_token_id", "999", &c));
    assert_true(c.n_eos == 1 && c.eos_token_id[0] == 999);
    KIT_OK(parse_with("eos_token_id", "[]", &c));
    assert_int_equal(c.n_eos, 0);
    KIT_OK(parse_with("bos_token_id", "[5]", &c));
    assert_int_equal(c.bos_token_id, 5);
    KIT_OK(parse_with("bos_token_id", "null", &c));
    assert_int_equal(c.bos_token_id, -1);
    KIT_OK(parse_with("model_type", NULL, &c));
    KIT_OK(parse_with("architectures", NULL, &c));
}

static void test_refuses_values(void **state)
{
    (void)state;
    static const char *const required[] = {"vocab_size", "hidden_size", "intermediate_size",
                                           "num_hidden_layers", "num_attention_heads"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        char words[100];
        snprintf(words, sizeof words, "config.json: %s is missing, must be an integer", required[i]);
        refuse(words, required[i], NULL);
        snprintf(words, sizeof words, "%s is null, must be an integer", required[i]);
        refuse(words, required[i], "null");
        snprintf(words, sizeof words, "%s is 0, must be 1 to", required[i]);
        refuse(words, required[i], "0");
        snprintf(words, sizeof words, "%s is 9223372036854775807, must be 1 to", required[i]);
        refuse(words, required[i], "9223372036854775807");
        snprintf(words, sizeof words, "%s is a real number", required[i]);
        refuse(words, required[i], "64.0");
    }
    refuse("num_key_value_heads is 3, must divide num_attention_heads, 4", "num_key_value_heads", "3");
    refuse("num_key_value_heads is 8, must be 1 to 4", "num_key_value_heads", "8");
    refuse("head_dim is 15, must be even", "head_dim", "15");
    refuse("head_dim is -16", "head_dim", "-16");
    refuse("max_position_embeddings is 0", "max_position_embeddings", "0");
    refuse("rms_norm_eps is -1e-05", "rms_norm_eps", "-1e-5");
    refuse("rms_norm_eps is a string", "rms_norm_eps", "\"1e-5\"");
    refuse("rope_theta is 0, must be", "rope_theta", "0");
    refuse("tie_word_embeddings is an integer", "tie_word_embeddings", "1");
    refuse("bos_token_id is 1000, must be below vocab_size, 1000", "bos_token_id", "1000");
    refuse("bos_token_id is -1", "bos_token_id", "-1");
    refuse("bos_token_id lists 2 ids, must be at most 1", "bos_token_id", "[1, 2]");
    refuse("eos_token_id is a string, must be a token id", "eos_token_id", "[1, \"2\"]");
    refuse("eos_token_id lists 17 ids", "eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]");
}

static void test_refuses_documents(void **state)
{
    (void)state;
    tsr_llama_config c;
    KIT_FAILS(TSR_ERR_FORMAT, "f holds an array, must hold an object",
              tsr_llama_config_parse("f", "[1]", 3, &c));
    KIT_FAILS(TSR_ERR_FORMAT, "f names neither a model_type nor", tsr_llama_config_parse("f", "{}", 2, &c));
    KIT_FAILS(TSR_ERR_FORMAT, "f, line 1", tsr_llama_config_parse("f", "{", 1, &c));
    KIT_FAILS(TSR_ERR_FORMAT, "duplicate", tsr_llama_config_parse("f", "{\"a\":1,\"a\":1}", 13, &c));
    KIT_FAILS(TSR_ERR_IO, "is a directory", tsr_llama_config_read(kit_folder(), &c));
    assert_int_equal(mkfifo(kit_path("fifo"), 0600), 0);
    KIT_FAILS(TSR_ERR_IO, "is a FIFO", tsr_llama_config_read(kit_path("fifo"), &c));
    size_t nbytes;
    char *whole = kit_read_file(TSR_FIXTURES "/format/config_old.json", &nbytes);
    for (size_t n = 0; n + 2 < nbytes; n++) { /* the last two bytes are "}\n" */
        char *part = malloc(n + 1);
        memcpy(part, whole, n);
        assert_int_equal(tsr_llama_config_parse("part", part, n, &c), TSR_ERR_FORMAT);
        free(part);
    }
    free(whole);
}

static void test_writes_what_it_reads(void **state)
{
    (void)state;
    const char *path = kit_path("config.json");
    tsr_llama_config c = expected, again;
    static const double numbers[][2] = {{1e-5, 500000}, {1e-6, 10000}, {1.0 / 3, 1e6 / 7}, {0, 1}};
    for (int i = 0; i < 4; i++) {
        c.rms_norm_eps = numbers[i][0], c.rope_theta = numbers[i][1];
        c.n_eos = i % 3;
        c.bos_token_id = i == 0 ? -1 : i;
        c.dtype = i == 0 ? TSR_F32 : i == 1 ? TSR_F16 : TSR_BF16;
        KIT_OK(tsr_llama_config_write(path, &c));
        KIT_OK(tsr_llama_config_read(path, &again));
        expect_same(&c, &again);
    }
    c = expected;
    KIT_OK(tsr_llama_config_write(path, &c));
    char *text = kit_read_file(path, NULL);
    assert_non_null(strstr(text, "\"rms_norm_eps\": 1e-")); /* not 1.0000000000000001e-05 */
    assert_non_null(strstr(text, "\"rope_theta\": 500000.0,"));
    assert_non_null(strstr(text, "\"torch_dtype\": \"bfloat16\","));
    free(text);
}

static int write_too_much(const void *path)
{
    return tsr_llama_config_write(path, &expected) == TSR_ERR_IO ? 0 : 1;
}

static void test_writing_refuses(void **state)
{
    (void)state;
    const char *path = kit_path("kept.json");
    tsr_llama_config c = expected, again;
    KIT_OK(tsr_llama_config_write(path, &c));
    kit_on_full_disk(100, write_too_much, path);
    c.num_key_value_heads = 3;
    KIT_FAILS(TSR_ERR_FORMAT, "must divide num_attention_heads", tsr_llama_config_write(path, &c));
    c = expected, c.dtype = TSR_S8;
    KIT_FAILS(TSR_ERR_DTYPE, "dtype is s8, must be f32, bf16 or f16", tsr_llama_config_write(path, &c));
    c = expected, c.rope_theta = NAN;
    KIT_FAILS(TSR_ERR_ARGUMENT, "rope_theta cannot be written", tsr_llama_config_write(path, &c));
    c = expected, c.n_eos = 17;
    KIT_FAILS(TSR_ERR_ARGUMENT, "n_eos is 17, must be 0 to 16", tsr_llama_config_write(path, &c));
    KIT_FAILS(TSR_ERR_ARGUMENT, "config is NULL", tsr_llama_config_write(path, NULL));
    KIT_OK(tsr_llama_config_read(path, &again));
    expect_same(&again, &expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_both_spellings),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refuses_what_it_does_not_do),
        cmocka_unit_test(test_accepts_variants),
        cmocka_unit_test(test_refuses_values),
        cmocka_unit_test(test_refuses_documents),
        cmocka_unit_test(test_writes_what_it_reads),
        cmocka_unit_test(test_writing_refuses),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
