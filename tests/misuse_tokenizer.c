/*
 * misuse_tokenizer.c - files that are not what they say they are, each refused by name
 *
 * One good document is changed at one place at a time. A place is a path such as
 * "model.merges.0"; the new value is JSON, and "" takes the place away.
 */
#include "kit/files.h"
#include "kit/kit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer.h"

/* ids: <|endoftext|> 0, the bytes 1 to 256, then "ab", "abc". */
static char *good_text(void)
{
    static const char *const special[] = {"<|endoftext|>"};
    const tsr_merge merges[] = {{1 + 'a' - '!', 1 + 'b' - '!'}, {257, 1 + 'c' - '!'}};
    tsr_tokenizer *t;
    KIT_OK(tsr_tokenizer_create(special, 1, merges, 2, &t));
    KIT_OK(tsr_tokenizer_save(t, kit_folder()));
    tsr_tokenizer_free(t);
    return kit_read_file(kit_path("tokenizer.json"), NULL);
}

static json_t *member(json_t *parent, const char *key)
{
    return json_is_array(parent) ? json_array_get(parent, (size_t)atoi(key)) : json_object_get(parent, key);
}

static void change(json_t *document, const char *place, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, "%s", place);
    char *key = path, *dot;
    for (; (dot = strchr(key, '.')) != NULL; key = dot + 1) {
        *dot = 0;
        document = member(document, key);
        assert_non_null(document);
    }
    json_t *made = *value == 0 ? NULL : json_loads(value, JSON_DECODE_ANY, NULL);
    assert_true(*value == 0 || made != NULL);
    if (made == NULL)
        assert_int_equal(json_object_del(document, key), 0);
    else if (!json_is_array(document))
        assert_int_equal(json_object_set_new(document, key, made), 0);
    else if ((size_t)atoi(key) < json_array_size(document))
        assert_int_equal(json_array_set_new(document, (size_t)atoi(key), made), 0);
    else
        assert_int_equal(json_array_append_new(document, made), 0);
}

static void expect(const char *what, const char *text, size_t n, tsr_status expected, const char *words)
{
    tsr_tokenizer *t = NULL;
    const tsr_status status = tsr_tokenizer_parse(text, n, "the file", &t);
    if (status != expected || t != NULL ||
        (status != TSR_OK &&
         (strstr(tsr_last_error(), words) == NULL || strstr(tsr_last_error(), "the file") == NULL)))
        fail_msg("%s: expected '%s' with \"%s\", got '%s': %s", what, tsr_status_name(expected), words,
                 tsr_status_name(status), tsr_last_error());
}

typedef struct change_case {
    const char *place, *value;
    tsr_status expected;
    const char *words;
} change_case;

#define SPLIT(pattern)                                                                                       \
    "{\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"Isolated\", \"invert\": false}"
#define BYTES          "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define SEQUENCE(list) "{\"type\": \"Sequence\", \"pretokenizers\": [" list "]}"
#define REGEX(words)   SEQUENCE(SPLIT("{\"Regex\": \"" words "\"}") ", " BYTES)
#define ADDED(id, content, more)                                                                             \
    "{\"id\": " id ", \"content\": \"" content "\", \"special\": true, \"normalized\": false" more "}"
#define TEMPLATE(single)                                                                                     \
    "{\"type\": \"TemplateProcessing\", \"single\": " single                                                 \
    ", \"special_tokens\": {\"e\": {\"ids\": [0]}, \"none\": {\"ids\": [300]}, \"byte\": {\"ids\": [5]}}}"

static const change_case cases[] = {
    {"model", "", TSR_ERR_FORMAT, "model is missing"},
    {"model", "[]", TSR_ERR_FORMAT, "model is an array"},
    {"model.type", "\"Unigram\"", TSR_ERR_UNSUPPORTED, "Unigram"},
    {"model.type", "3", TSR_ERR_FORMAT, "type is an integer"},
    {"model.dropout", "0.1", TSR_ERR_UNSUPPORTED, "dropout"},
    {"model.byte_fallback", "true", TSR_ERR_UNSUPPORTED, "byte_fallback"},
    {"model.end_of_word_suffix", "\"</w>\"", TSR_ERR_UNSUPPORTED, "end_of_word_suffix"},
    {"model.continuing_subword_prefix", "\"##\"", TSR_ERR_UNSUPPORTED, "continuing_subword_prefix"},
    {"model.ignore_merges", "1", TSR_ERR_FORMAT, "ignore_merges is an integer"},
    {"model.vocab", "{}", TSR_ERR_FORMAT, "merges: number 0 has \"a\""},
    {"model.vocab", "[]", TSR_ERR_FORMAT, "vocab is an array"},
    {"model.vocab.a", "", TSR_ERR_FORMAT, "\"a\", which is not in the vocabulary"},
    {"model.vocab.~", "", TSR_ERR_UNSUPPORTED, "0x7E has no token"},
    {"model.vocab.a", "\"65\"", TSR_ERR_FORMAT, "id of \"a\" is a string"},
    {"model.vocab.a", "-1", TSR_ERR_FORMAT, "id of \"a\" is -1"},
    {"model.vocab.a", "66", TSR_ERR_FORMAT, "the id 66 is given to two tokens"},
    {"model.vocab.a", "1000", TSR_ERR_FORMAT, "largest id is 1000"},
    {"model.vocab.a", "4611686018427387904", TSR_ERR_FORMAT, "largest id is 4611686018427387904"},
    {"model.vocab.abc", "", TSR_ERR_FORMAT, "gives \"abc\", which is not in the vocabulary"},
    {"model.merges", "{}", TSR_ERR_FORMAT, "merges is an object"},
    {"model.merges.0", "\"a\"", TSR_ERR_FORMAT, "number 0 must be"},
    {"model.merges.0", "\"a b c\"", TSR_ERR_FORMAT, "number 0 must be"},
    {"model.merges.0", "[\"a\", \"b\", \"c\"]", TSR_ERR_FORMAT, "number 0 must be"},
    {"model.merges.0", "[\"a\", 1]", TSR_ERR_FORMAT, "number 0 must be"},
    {"model.merges.0", "7", TSR_ERR_FORMAT, "number 0 must be"},
    {"model.merges.1", "\"a b\"", TSR_ERR_FORMAT, "merge 1, of the ids 65 and 66, is listed twice"},
    {"model.merges.1", "\"ab zz\"", TSR_ERR_FORMAT, "\"zz\", which is not in the vocabulary"},
    {"truncation", "{\"max_length\": 8}", TSR_ERR_UNSUPPORTED, "truncation"},
    {"padding", "{}", TSR_ERR_UNSUPPORTED, "padding"},
    {"added_tokens", "{}", TSR_ERR_FORMAT, "added_tokens is an object"},
    {"added_tokens.0", "7", TSR_ERR_FORMAT, "content is missing"},
    {"added_tokens.1", ADDED("0", "<|other|>", ""), TSR_ERR_FORMAT, "the id 0 is given to two added tokens"},
    {"added_tokens.1", ADDED("5", "<|other|>", ""), TSR_ERR_FORMAT, "the id 5 is given to two tokens"},
    {"added_tokens.1", ADDED("300", "ab", ""), TSR_ERR_FORMAT, "has the id 300, but 257"},
    {"added_tokens.1", ADDED("300", "é", ""), TSR_ERR_UNSUPPORTED, "spells other bytes"},
    {"added_tokens.1", ADDED("300", "<|endoftext|>", ""), TSR_ERR_FORMAT, "has the id 300, but 0"},
    {"added_tokens.1", ADDED("9999", "<|x|>", ""), TSR_ERR_FORMAT, "largest id is 9999"},
    {"added_tokens.1", ADDED("-3", "<|x|>", ""), TSR_ERR_FORMAT, "id is -3"},
    {"added_tokens.1", ADDED("300", "", ""), TSR_ERR_FORMAT, "id 300 is empty"},
    {"added_tokens.1", ADDED("300", "<|x|>", ", \"single_word\": true"), TSR_ERR_UNSUPPORTED, "single_word"},
    {"added_tokens.1", ADDED("300", "<|x|>", ", \"lstrip\": 1"), TSR_ERR_FORMAT, "lstrip is an integer"},
    {"normalizer", "{\"type\": \"Lowercase\"}", TSR_ERR_UNSUPPORTED, "Lowercase"},
    {"normalizer", "{}", TSR_ERR_FORMAT, "type is missing"},
    {"normalizer", "[]", TSR_ERR_FORMAT, "normalizer is an array"},
    {"pre_tokenizer", "null", TSR_ERR_FORMAT, "pre_tokenizer is null"},
    {"pre_tokenizer", "{\"type\": \"Whitespace\"}", TSR_ERR_UNSUPPORTED, "Whitespace"},
    {"pre_tokenizer", "{\"type\": \"ByteLevel\"}", TSR_ERR_FORMAT, "add_prefix_space is missing"},
    {"pre_tokenizer", SEQUENCE(""), TSR_ERR_UNSUPPORTED, "sequence is empty"},
    {"pre_tokenizer", SEQUENCE(BYTES ", " BYTES), TSR_ERR_UNSUPPORTED, "must be the last"},
    {"pre_tokenizer", SEQUENCE(SPLIT("{\"Regex\": \"a\"}")), TSR_ERR_UNSUPPORTED,
     "\"ByteLevel\" must be the last"},
    {"pre_tokenizer", SEQUENCE("{\"type\": \"Metaspace\"}, " BYTES), TSR_ERR_UNSUPPORTED, "Metaspace"},
    {"pre_tokenizer", SEQUENCE("{\"type\": \"Digits\"}, " BYTES), TSR_ERR_FORMAT,
     "individual_digits is missing"},
    {"pre_tokenizer",
     SEQUENCE(SPLIT("{\"Regex\": \"a\"}") ", {\"type\": \"ByteLevel\", \"add_prefix_space\": true}"),
     TSR_ERR_UNSUPPORTED, "add_prefix_space"},
    {"pre_tokenizer",
     SEQUENCE("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Removed\"}, " BYTES),
     TSR_ERR_UNSUPPORTED, "Removed"},
    {"pre_tokenizer",
     SEQUENCE("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Isolated\", "
              "\"invert\": true}, " BYTES),
     TSR_ERR_UNSUPPORTED, "invert"},
    {"pre_tokenizer", SEQUENCE(SPLIT("{}") ", " BYTES), TSR_ERR_FORMAT, "Regex is missing"},
    {"pre_tokenizer", SEQUENCE(SPLIT("{\"String\": \"\"}") ", " BYTES), TSR_ERR_FORMAT, "pattern is empty"},
    {"pre_tokenizer", REGEX("(a"), TSR_ERR_FORMAT, "does not compile"},
    {"pre_tokenizer", REGEX("[a"), TSR_ERR_FORMAT, "does not compile"},
    {"pre_tokenizer", REGEX("(?<=a*)b"), TSR_ERR_FORMAT, "does not compile"},
    {"pre_tokenizer", REGEX("\\\\p{Nonsense}"), TSR_ERR_FORMAT, "does not compile"},
    {"pre_tokenizer", REGEX("\\\\w+"), TSR_ERR_UNSUPPORTED, "the escape \"\\w+\""},
    {"pre_tokenizer", REGEX("(a)\\\\1"), TSR_ERR_UNSUPPORTED, "the escape \"\\1\""},
    {"pre_tokenizer", REGEX("\\\\Ca"), TSR_ERR_UNSUPPORTED, "the escape \"\\Ca\""},
    {"pre_tokenizer", REGEX("a\\\\"), TSR_ERR_UNSUPPORTED, "the escape \"\\\""},
    {"pre_tokenizer", REGEX("\\\\p{L"), TSR_ERR_UNSUPPORTED, "an open brace"},
    {"pre_tokenizer", REGEX("(?i)a"), TSR_ERR_UNSUPPORTED, "the group \"(?i)a\""},
    {"pre_tokenizer", REGEX("(?R)"), TSR_ERR_UNSUPPORTED, "the group \"(?R)\""},
    {"pre_tokenizer", REGEX("(*ACCEPT)"), TSR_ERR_UNSUPPORTED, "the group \"(*ACCEPT)\""},
    {"pre_tokenizer", REGEX("[a&&b]"), TSR_ERR_UNSUPPORTED, "inside a class"},
    {"pre_tokenizer", REGEX("[[:alpha:]]"), TSR_ERR_UNSUPPORTED, "inside a class"},
    {"pre_tokenizer", REGEX("[]a]"), TSR_ERR_UNSUPPORTED, "an empty class"},
    {"pre_tokenizer", REGEX("a{2}+"), TSR_ERR_UNSUPPORTED, "the repetition \"{2}+\""},
    {"pre_tokenizer", REGEX("a{,2}"), TSR_ERR_UNSUPPORTED, "the repetition \"{,2}\""},
    {"post_processor", "{\"type\": \"RobertaProcessing\"}", TSR_ERR_UNSUPPORTED, "RobertaProcessing"},
    {"post_processor", TEMPLATE("[]"), TSR_ERR_FORMAT, "leaves out the text"},
    {"post_processor", TEMPLATE("[{\"Sequence\": {\"id\": \"B\"}}]"), TSR_ERR_UNSUPPORTED, "\"B\""},
    {"post_processor", TEMPLATE("[{\"Sequence\": {\"id\": \"A\"}}, {\"Sequence\": {\"id\": \"A\"}}]"),
     TSR_ERR_UNSUPPORTED, "\"A\""},
    {"post_processor", TEMPLATE("[{\"SpecialToken\": {\"id\": \"x\"}}]"), TSR_ERR_FORMAT, "ids is missing"},
    {"post_processor", TEMPLATE("[{\"SpecialToken\": {\"id\": \"none\"}}]"), TSR_ERR_FORMAT,
     "has the id 300"},
    {"post_processor", TEMPLATE("[{\"SpecialToken\": {\"id\": \"byte\"}}]"), TSR_ERR_FORMAT, "has the id 5"},
    {"post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"Sequence\"}]}",
     TSR_ERR_UNSUPPORTED, "Sequence"},
    {"decoder", "null", TSR_ERR_FORMAT, "decoder is null"},
    {"decoder", "{\"type\": \"Metaspace\"}", TSR_ERR_UNSUPPORTED, "Metaspace"},
};

static void test_each_lie_is_named(void **state)
{
    char *good = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const change_case *c = &cases[i];
        json_t *document = json_loads(good, 0, NULL);
        change(document, c->place, c->value);
        char *text = json_dumps(document, JSON_COMPACT), what[256];
        snprintf(what, sizeof what, "%s = %s", c->place, c->value);
        expect(what, text, strlen(text), c->expected, c->words);
        free(text);
        json_decref(document);
    }
}

/* The same changes, but such as are allowed: the cases above fail for their own reason alone. */
static void test_what_is_allowed(void **state)
{
    static const change_case allowed[] = {
        {"model.unk_token", "\"<|endoftext|>\"", TSR_OK, ""},
        {"model.dropout", "0.0", TSR_OK, ""},
        {"model.vocab.a token", "400", TSR_OK, ""},
        {"model.merges.0", "[\"a\", \"b\"]", TSR_OK, ""},
        {"added_tokens", "null", TSR_OK, ""},
        {"added_tokens.1", ADDED("300", "<|x|>", ", \"lstrip\": true"), TSR_OK, ""},
        {"added_tokens.1", ADDED("257", "ab", ""), TSR_OK, ""},
        {"post_processor", TEMPLATE("[{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"e\"}}]"),
         TSR_OK, ""},
        {"pre_tokenizer", SEQUENCE(SPLIT("{\"String\": \"(a\"}") ", " BYTES), TSR_OK, ""},
        {"pre_tokenizer", REGEX("[^\\\\s\\\\S]?+(?<!a)(?i:b|c){2,3}|[\\\\]\\\\[]++|\\\\x{41}$"), TSR_OK, ""},
        {"pre_tokenizer", BYTES, TSR_OK, ""},
    };
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        json_t *document = json_loads(*state, 0, NULL);
        change(document, allowed[i].place, allowed[i].value);
        char *text = json_dumps(document, 0);
        tsr_tokenizer *t = NULL;
        KIT_OK(tsr_tokenizer_parse(text, strlen(text), allowed[i].place, &t));
        tsr_tokenizer_free(t);
        free(text);
        json_decref(document);
    }
}

static void test_what_is_no_document(void **state)
{
    const char *good = *state;
    const size_t n = strlen(good);
    for (size_t cut = 0; cut + 1 < n; cut += 1 + cut / 16)
        expect("a part", good, cut, TSR_ERR_FORMAT, "line");
    expect("another type", "[]", 2, TSR_ERR_FORMAT, "must be an object");
    char twice[] = "{\"model\": {\"vocab\": {\"a\": 1, \"a\": 1}}}";
    expect("a key twice", twice, strlen(twice), TSR_ERR_FORMAT, "duplicate");
    char invalid[] = "{\"model\": \"\xFF\"}";
    expect("not UTF-8", invalid, strlen(invalid), TSR_ERR_FORMAT, "line 1");
}

static void test_bad_tokenizer_config(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } configs[] = {{"[]", "must be an object"},
                   {"{\"eos_token\": 3}", "eos_token must be"},
                   {"{\"bos_token\": \"<|none|>\"}", "\"<|none|>\", which is not a token"}};
    const char *path = kit_path("tokenizer_config.json");
    tsr_tokenizer *t = NULL;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        kit_write_file(path, configs[i].text, strlen(configs[i].text));
        KIT_FAILS(TSR_ERR_FORMAT, configs[i].words, tsr_tokenizer_load(kit_folder(), &t));
        assert_null(t);
    }
    const char config[] = "{\"bos_token\": {\"content\": \"<|endoftext|>\"}, \"eos_token\": \"ab\"}";
    kit_write_file(path, config, strlen(config));
    KIT_OK(tsr_tokenizer_load(kit_folder(), &t));
    assert_int_equal(tsr_tokenizer_bos(t), 0);
    assert_int_equal(tsr_tokenizer_eos(t), 257);
    tsr_tokenizer_free(t);
}

static void test_bad_special_tokens(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"<a>", "<a>"}, {"a", "<a>"}, {"<a>", ""}, {"\xFF", "<a>"}, {"é", "<a>"}};
    tsr_tokenizer *t = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(tsr_tokenizer_create(bad[i], 2, NULL, 0, &t), TSR_OK);
    KIT_FAILS(TSR_ERR_FORMAT, "the id 300", tsr_tokenizer_create(NULL, 0, &(tsr_merge){3, 300}, 1, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "the id -1", tsr_tokenizer_create(NULL, 0, &(tsr_merge){-1, 3}, 1, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "merges", tsr_tokenizer_create(NULL, 0, NULL, TSR_MAX_IDS, &t));
    assert_null(t);
}

static int make_good(void **state)
{
    *state = good_text();
    return 0;
}

static int free_good(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_lie_is_named),   cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_what_is_no_document), cmocka_unit_test(test_bad_tokenizer_config),
        cmocka_unit_test(test_bad_special_tokens),
    };
    return cmocka_run_group_tests_name("tokenizer files", tests, make_good, free_good);
}
