/* format/config.c - config.json: every field checked, what is not understood refused */
#include "format/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/file.h"
#include "format/json.h"
#include "format/printable.h"

/* Far above every model there is, and low enough that products of any two sizes fit. */
#define MAX_SIZE          ((int64_t)1 << 24)
#define MAX_LAYERS        ((int64_t)1 << 16)
#define MAX_POSITIONS     ((int64_t)1 << 30)
#define MAX_FILE_NBYTES   ((size_t)1 << 24)
#define MIN_THETA         1.0
#define MAX_THETA         1e15
#define ARCHITECTURE      "LlamaForCausalLM"
#define DEFAULT_THETA     10000.0
#define DEFAULT_EPSILON   1e-6
#define DEFAULT_POSITIONS 2048

static const struct {
    const char *name;
    tsr_dtype dtype;
} dtypes[] = {{"float32", TSR_F32}, {"bfloat16", TSR_BF16}, {"float16", TSR_F16}};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

static tsr_status parse_architecture(const json_t *root, const char *name)
{
    const char *type = NULL;
    json_t *list = NULL;
    bool known = false;
    if (tsr_json_has(root, "model_type")) {
        TSR_TRY(tsr_json_string(root, name, "model_type", &type));
        if (strcmp(type, "llama") != 0)
            return tsr_fail(TSR_ERR_FORMAT, "%s: model_type is '%s', must be 'llama'", name,
                            tsr_printable(type).text);
        known = true;
    }
    if (tsr_json_has(root, "architectures")) {
        TSR_TRY(tsr_json_array(root, name, "architectures", &list));
        const char *first = json_string_value(json_array_get(list, 0));
        if (json_array_size(list) != 1 || first == NULL || strcmp(first, ARCHITECTURE) != 0)
            return tsr_fail(TSR_ERR_FORMAT, "%s: architectures is [%s], must be [%s]", name,
                            first == NULL ? "" : tsr_printable(first).text, ARCHITECTURE);
        known = true;
    }
    if (!known) return tsr_fail(TSR_ERR_FORMAT, "%s names neither a model_type nor its architectures", name);
    return TSR_OK;
}

static tsr_status parse_sizes(const json_t *root, const char *name, tsr_llama_config *c)
{
    TSR_TRY(tsr_json_integer(root, name, "vocab_size", 1, MAX_SIZE, &c->vocab_size));
    TSR_TRY(tsr_json_integer(root, name, "hidden_size", 1, MAX_SIZE, &c->hidden_size));
    TSR_TRY(tsr_json_integer(root, name, "intermediate_size", 1, MAX_SIZE, &c->intermediate_size));
    TSR_TRY(tsr_json_integer(root, name, "num_hidden_layers", 1, MAX_LAYERS, &c->num_hidden_layers));
    TSR_TRY(tsr_json_integer(root, name, "num_attention_heads", 1, MAX_SIZE, &c->num_attention_heads));
    c->num_key_value_heads = c->num_attention_heads;
    if (tsr_json_has(root, "num_key_value_heads"))
        TSR_TRY(tsr_json_integer(root, name, "num_key_value_heads", 1, c->num_attention_heads,
                                 &c->num_key_value_heads));
    if (c->num_attention_heads % c->num_key_value_heads != 0)
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: num_key_value_heads is %lld, must divide num_attention_heads, %lld", name,
                        (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
    if (tsr_json_has(root, "head_dim")) {
        TSR_TRY(tsr_json_integer(root, name, "head_dim", 1, MAX_SIZE, &c->head_dim));
    } else if (c->hidden_size % c->num_attention_heads != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: hidden_size is %lld, must be a multiple of num_attention_heads, %lld", name,
                        (long long)c->hidden_size, (long long)c->num_attention_heads);
    } else {
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    if (c->head_dim % 2 != 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s: head_dim is %lld, must be even: RoPE turns pairs", name,
                        (long long)c->head_dim);
    c->max_position_embeddings = DEFAULT_POSITIONS;
    if (tsr_json_has(root, "max_position_embeddings"))
        TSR_TRY(tsr_json_integer(root, name, "max_position_embeddings", 1, MAX_POSITIONS,
                                 &c->max_position_embeddings));
    return TSR_OK;
}

/* rope_scaling and rope_parameters: an object whose type, if it names one, must be "default". */
static tsr_status parse_rope_object(const json_t *root, const char *name, const char *key, double *theta)
{
    static const char *const spellings[] = {"rope_type", "type"};
    json_t *rope = NULL;
    if (!tsr_json_has(root, key)) return TSR_OK;
    TSR_TRY(tsr_json_object(root, name, key, &rope));
    bool typed = false;
    for (int i = 0; i < 2; i++) {
        const char *type = NULL;
        if (!tsr_json_has(rope, spellings[i])) continue;
        TSR_TRY(tsr_json_string(rope, name, spellings[i], &type));
        if (strcmp(type, "default") != 0)
            return tsr_fail(TSR_ERR_FORMAT, "%s: %s asks for RoPE of type '%s', must be 'default'", name, key,
                            tsr_printable(type).text);
        typed = true;
    }
    if (!typed && (tsr_json_has(rope, "factor") || !tsr_json_has(rope, "rope_theta")))
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s names no rope_type, must be 'default'", name, key);
    double share = 1;
    if (tsr_json_has(rope, "partial_rotary_factor"))
        TSR_TRY(tsr_json_real(rope, name, "partial_rotary_factor", 1, 1, &share));
    if (tsr_json_has(rope, "rope_theta"))
        TSR_TRY(tsr_json_real(rope, name, "rope_theta", MIN_THETA, MAX_THETA, theta));
    return TSR_OK;
}

/* rope_theta stands alone (transformers 4) or in rope_parameters (5); in both it must be the same. */
static tsr_status parse_rope(const json_t *root, const char *name, tsr_llama_config *c)
{
    double alone = 0, inside = 0;
    if (tsr_json_has(root, "rope_theta"))
        TSR_TRY(tsr_json_real(root, name, "rope_theta", MIN_THETA, MAX_THETA, &alone));
    TSR_TRY(parse_rope_object(root, name, "rope_scaling", &inside));
    TSR_TRY(parse_rope_object(root, name, "rope_parameters", &inside));
    if (alone != 0 && inside != 0 && alone != inside)
        return tsr_fail(TSR_ERR_FORMAT, "%s: rope_theta is %g, but %g in rope_parameters", name, alone,
                        inside);
    c->rope_theta = inside != 0 ? inside : alone != 0 ? alone : DEFAULT_THETA;
    return TSR_OK;
}

static tsr_status parse_dtype(const json_t *root, const char *name, tsr_llama_config *c)
{
    const char *key = tsr_json_has(root, "dtype") ? "dtype" : "torch_dtype", *text = NULL;
    c->dtype = TSR_F32;
    if (!tsr_json_has(root, key)) return TSR_OK;
    TSR_TRY(tsr_json_string(root, name, key, &text));
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            c->dtype = dtypes[i].dtype;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_FORMAT, "%s: %s is '%s', must be float32, bfloat16 or float16", name, key,
                    tsr_printable(text).text);
}

/* What a field must be if it is there at all; anything else asks for something that is not done here. */
static tsr_status parse_fixed(const json_t *root, const char *name)
{
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (int i = 0; i < 2; i++) {
        bool bias = false;
        if (tsr_json_has(root, biases[i])) TSR_TRY(tsr_json_bool(root, name, biases[i], &bias));
        if (bias) return tsr_fail(TSR_ERR_FORMAT, "%s: %s is true, must be false", name, biases[i]);
    }
    const char *activation = "silu";
    if (tsr_json_has(root, "hidden_act")) TSR_TRY(tsr_json_string(root, name, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s: hidden_act is '%s', must be 'silu'", name,
                        tsr_printable(activation).text);
    if (tsr_json_has(root, "quantization_config"))
        return tsr_fail(TSR_ERR_FORMAT, "%s: quantization_config is there, must be absent", name);
    return TSR_OK;
}

/* A token id, a list of them, or null. */
static tsr_status parse_ids(const json_t *root, const char *name, const char *key, int64_t vocab_size,
                            int32_t max, int64_t *ids, int32_t *n)
{
    const json_t *value = json_object_get(root, key);
    *n = 0;
    if (value == NULL || json_is_null(value)) return TSR_OK;
    const bool list = json_is_array(value);
    const size_t count = list ? json_array_size(value) : 1;
    if (count > (size_t)max)
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s lists %zu ids, must be at most %d", name, key, count,
                        (int)max);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = list ? json_array_get(value, i) : value;
        if (!json_is_integer(id))
            return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %s, must be a token id", name, key, tsr_json_kind(id));
        ids[i] = json_integer_value(id);
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %lld, must be below vocab_size, %lld", name, key,
                            (long long)ids[i], (long long)vocab_size);
    }
    *n = (int32_t)count;
    return TSR_OK;
}

static tsr_status parse_root(const json_t *root, const char *name, tsr_llama_config *out)
{
    tsr_llama_config c = {.rms_norm_eps = DEFAULT_EPSILON, .bos_token_id = -1};
    int32_t n_bos = 0;
    if (!json_is_object(root))
        return tsr_fail(TSR_ERR_FORMAT, "%s holds %s, must hold an object", name, tsr_json_kind(root));
    TSR_TRY(parse_architecture(root, name));
    TSR_TRY(parse_fixed(root, name));
    TSR_TRY(parse_sizes(root, name, &c));
    TSR_TRY(parse_rope(root, name, &c));
    TSR_TRY(parse_dtype(root, name, &c));
    if (tsr_json_has(root, "rms_norm_eps"))
        TSR_TRY(tsr_json_real(root, name, "rms_norm_eps", 0, 1, &c.rms_norm_eps));
    if (tsr_json_has(root, "tie_word_embeddings"))
        TSR_TRY(tsr_json_bool(root, name, "tie_word_embeddings", &c.tie_word_embeddings));
    TSR_TRY(parse_ids(root, name, "bos_token_id", c.vocab_size, 1, &c.bos_token_id, &n_bos));
    TSR_TRY(parse_ids(root, name, "eos_token_id", c.vocab_size, TSR_MAX_EOS, c.eos_token_id, &c.n_eos));
    *out = c;
    return TSR_OK;
}

tsr_status tsr_llama_config_parse(const char *name, const void *text, size_t nbytes, tsr_llama_config *out)
{
    json_t *root = NULL;
    TSR_TRY(tsr_json_parse(name, text, nbytes, &root));
    const tsr_status status = parse_root(root, name, out);
    json_decref(root);
    return status;
}

tsr_status tsr_llama_config_read(const char *path, tsr_llama_config *out)
{
    json_t *root = NULL;
    TSR_TRY(tsr_json_read(path, MAX_FILE_NBYTES, &root));
    const tsr_status status = parse_root(root, path, out);
    json_decref(root);
    return status;
}

static json_t *id_or_null(int64_t id) { return id < 0 ? json_null() : json_integer(id); }

static json_t *eos_value(const tsr_llama_config *c)
{
    if (c->n_eos == 0) return json_null();
    if (c->n_eos == 1) return json_integer(c->eos_token_id[0]);
    json_t *list = json_array();
    for (int32_t i = 0; i < c->n_eos; i++) json_array_append_new(list, json_integer(c->eos_token_id[i]));
    return list;
}

/* rope_theta alone is what transformers 4 reads, and 5 takes over into its rope_parameters. */
static tsr_status build(const char *name, const tsr_llama_config *c, const char *dtype, json_t **out)
{
    const struct {
        const char *key;
        json_t *value;
    } fields[] = {
        {"architectures", json_pack("[s]", ARCHITECTURE)},
        {"model_type", json_string("llama")},
        {"vocab_size", json_integer(c->vocab_size)},
        {"hidden_size", json_integer(c->hidden_size)},
        {"intermediate_size", json_integer(c->intermediate_size)},
        {"num_hidden_layers", json_integer(c->num_hidden_layers)},
        {"num_attention_heads", json_integer(c->num_attention_heads)},
        {"num_key_value_heads", json_integer(c->num_key_value_heads)},
        {"head_dim", json_integer(c->head_dim)},
        {"max_position_embeddings", json_integer(c->max_position_embeddings)},
        {"rms_norm_eps", json_real(c->rms_norm_eps)},
        {"rope_theta", json_real(c->rope_theta)},
        {"rope_scaling", json_null()},
        {"hidden_act", json_string("silu")},
        {"attention_bias", json_false()},
        {"attention_dropout", json_real(0)},
        {"mlp_bias", json_false()},
        {"tie_word_embeddings", json_boolean(c->tie_word_embeddings)},
        {"torch_dtype", json_string(dtype)},
        {"bos_token_id", id_or_null(c->bos_token_id)},
        {"eos_token_id", eos_value(c)},
        {"use_cache", json_true()},
    };
    json_t *root = json_object();
    tsr_status status = TSR_OK;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (json_object_set_new(root, fields[i].key, fields[i].value) != 0)
            status = tsr_fail(TSR_ERR_ARGUMENT, "%s: %s cannot be written as JSON", name, fields[i].key);
    if (status != TSR_OK) {
        json_decref(root);
        return status;
    }
    *out = root;
    return TSR_OK;
}

/* As few digits as give both numbers back: 1e-05, not 1.0000000000000001e-05. */
static int digits_for(double a, double b)
{
    for (int digits = 6; digits < 17; digits++) {
        char text[2][32];
        snprintf(text[0], sizeof text[0], "%.*g", digits, a);
        snprintf(text[1], sizeof text[1], "%.*g", digits, b);
        if (strtod(text[0], NULL) == a && strtod(text[1], NULL) == b) return digits;
    }
    return 17;
}

/* The text of the file, checked as if it were read; free it. NULL: *status says why. */
static char *format(const char *name, const tsr_llama_config *c, const char *dtype, tsr_status *status)
{
    json_t *root = NULL;
    tsr_llama_config again;
    char *text = NULL;
    *status = build(name, c, dtype, &root);
    if (*status == TSR_OK) *status = parse_root(root, name, &again);
    if (*status == TSR_OK) {
        const size_t digits = (size_t)digits_for(c->rms_norm_eps, c->rope_theta);
        text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        if (text == NULL) *status = tsr_fail(TSR_ERR_MEMORY, "%s: no memory for its text", name);
    }
    json_decref(root);
    return text;
}

tsr_status tsr_llama_config_write(const char *path, const tsr_llama_config *c)
{
    const char *dtype = NULL;
    if (path == NULL || c == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is NULL", c == NULL ? "config" : "path");
    for (int i = 0; i < N_DTYPES; i++)
        if (dtypes[i].dtype == c->dtype) dtype = dtypes[i].name;
    if (dtype == NULL)
        return tsr_fail(TSR_ERR_DTYPE, "%s: dtype is %s, must be f32, bf16 or f16", path,
                        tsr_dtype_name(c->dtype));
    if (c->n_eos < 0 || c->n_eos > TSR_MAX_EOS)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: n_eos is %d, must be 0 to %d", path, (int)c->n_eos,
                        TSR_MAX_EOS);
    tsr_status status;
    char *text = format(path, c, dtype, &status);
    if (text == NULL) return status;
    tsr_writer *w = NULL;
    status = tsr_writer_open(path, &w);
    if (status == TSR_OK) status = tsr_writer_write(w, text, strlen(text));
    if (status == TSR_OK) status = tsr_writer_write(w, "\n", 1);
    if (status == TSR_OK)
        status = tsr_writer_commit(w);
    else
        tsr_writer_discard(w);
    free(text);
    return status;
}
