/*
 * check_tokenizer.c - ids against those of the tokenizers library, any bytes there and back, merges against
 * their definition
 *
 * tests/fixtures/tokenizer is made by tools/make_fixtures_tokenizer.py.
 */
#include "kit/files.h"
#include "kit/kit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/random.h"
#include "format/tokenizer.h"
#include "format/tokenizer_bytes.h"
#include "format/tokenizer_impl.h"
#include "format/tokenizer_normalize.h"

static const char *const styles[] = {"gpt2", "llama3", "qwen", "strips", "prefix"};
enum { N_STYLES = sizeof styles / sizeof *styles };

static const char *fixture(const char *style, const char *suffix)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer/%s%s.json", TSR_FIXTURES, style, suffix);
    return path;
}

/* NULL, said aloud, where the style needs NFC and this build lacks it. */
static tsr_tokenizer *load(const char *style)
{
    if (strcmp(style, "qwen") == 0 && !tsr_has_nfc()) {
        tsr_tokenizer *t;
        KIT_FAILS(TSR_ERR_UNSUPPORTED, "NFC", tsr_tokenizer_load(fixture(style, ""), &t));
        print_message("%s: skipped, built without utf8proc\n", style);
        return NULL;
    }
    tsr_tokenizer *t = NULL;
    KIT_OK(tsr_tokenizer_load(fixture(style, ""), &t));
    return t;
}

static void check_ids(const char *what, const tsr_ids *got, const json_t *expected)
{
    size_t i = 0;
    while (i < got->n && got->id[i] == json_integer_value(json_array_get(expected, i))) i++;
    if (got->n != json_array_size(expected) || i < got->n)
        fail_msg("%s: %zu ids, expected %zu; the first that differs is number %zu", what, got->n,
                 json_array_size(expected), i);
}

static void check_cases(const char *style, const tsr_tokenizer *t)
{
    json_t *cases = json_load_file(fixture(style, "_cases"), 0, NULL);
    assert_true(json_array_size(cases) >= 20);
    size_t i;
    json_t *one;
    json_array_foreach(cases, i, one)
    {
        const json_t *text = json_object_get(one, "text");
        char what[64];
        snprintf(what, sizeof what, "%s, text %zu", style, i);
        tsr_ids ids = {0};
        KIT_OK(tsr_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids));
        check_ids(what, &ids, json_object_get(one, "ids"));
        tsr_ids_free(&ids);
    }
    json_decref(cases);
}

static void test_ids_are_those_of_the_library(void **state)
{
    (void)state;
    for (int s = 0; s < N_STYLES; s++) {
        tsr_tokenizer *t = load(styles[s]);
        if (t == NULL) continue;
        check_cases(styles[s], t);
        /* What is written is another file with the same ids. */
        mkdir(kit_path(styles[s]), 0777);
        KIT_OK(tsr_tokenizer_save(t, kit_path(styles[s])));
        tsr_tokenizer_free(t);
        KIT_OK(tsr_tokenizer_load(kit_path(styles[s]), &t));
        check_cases(styles[s], t);
        tsr_tokenizer_free(t);
    }
}

/* Bytes of every kind: text, beginnings of characters, noise, long runs. */
static size_t random_bytes(tsr_random *r, char *out, size_t room)
{
    static const char *const parts[] = {
        " the",       "é",    "你好", "\xF0\x9F\x99\x82", "\xC3",    "\xE4\xBD",     "\xF0\x9F",
        "\xFF",       "\n\n", "   ",  "<|endoftext|>",    "<|eot|>", "\xED\xA0\x80", "\xC0\x80",
        "e\xCC\x81t", "123",  "\0"};
    size_t n = 0;
    for (uint64_t left = tsr_random_below(r, 30); left > 0; left--) {
        const uint64_t kind = tsr_random_below(r, 10);
        const char byte = (char)tsr_random_below(r, 256);
        const char *part = kind < 7 ? parts[tsr_random_below(r, sizeof parts / sizeof *parts)] : &byte;
        const size_t n_part = kind < 7 && *part != 0 ? strlen(part) : 1;
        for (uint64_t times = kind == 9 ? tsr_random_below(r, 200) : 1; times > 0 && n + n_part <= room;
             times--)
            for (size_t i = 0; i < n_part; i++) out[n++] = part[i];
    }
    return n;
}

static void check_round_trip(const tsr_tokenizer *t, const char *text, size_t n)
{
    tsr_ids ids = {0};
    char *back;
    size_t n_back;
    KIT_OK(tsr_tokenizer_encode(t, text, n, false, &ids));
    KIT_OK(tsr_tokenizer_decode(t, ids.id, ids.n, false, &back, &n_back));
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    size_t at = 0;
    for (size_t i = 0; i < ids.n; i++) { /* one by one, as generation does */
        const char *bytes;
        size_t n_bytes;
        KIT_OK(tsr_tokenizer_token(t, ids.id[i], &bytes, &n_bytes));
        assert_memory_equal(bytes, text + at, n_bytes);
        at += n_bytes;
    }
    assert_int_equal(at, n);
    free(back);
    tsr_ids_free(&ids);
}

static void test_any_bytes_come_back(void **state)
{
    (void)state;
    char text[8192];
    tsr_tokenizer *t[3] = {load("gpt2"), load("llama3"), NULL};
    KIT_OK(tsr_tokenizer_create(NULL, 0, NULL, 0, &t[2]));
    tsr_random r = {.seed = 1};
    for (int i = 0; i < 3; i++) {
        for (int b = 0; b < 65536; b++) {
            const char two[2] = {(char)(b >> 8), (char)b};
            check_round_trip(t[i], two, 2);
        }
        for (int trial = 0; trial < 2000; trial++)
            check_round_trip(t[i], text, random_bytes(&r, text, sizeof text));
        tsr_tokenizer_free(t[i]);
    }
}

/* What is not UTF-8 is a piece of its own, and what is around it is split as if it were alone. */
static void test_invalid_bytes_part_the_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xFF",     "\xC3",         "\x80\x80",
                                      "\xE4\xBD", "\xED\xA0\x80", "\xF4\x90\x80\x80"};
    tsr_tokenizer *t = load("gpt2");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *parts[3] = {"the text  ", bad[i], "the end"};
        char whole[64];
        tsr_ids together = {0}, apart = {0};
        snprintf(whole, sizeof whole, "%s%s%s", parts[0], parts[1], parts[2]);
        KIT_OK(tsr_tokenizer_encode(t, whole, strlen(whole), false, &together));
        for (int p = 0; p < 3; p++)
            KIT_OK(tsr_tokenizer_encode(t, parts[p], strlen(parts[p]), false, &apart));
        assert_int_equal(together.n, apart.n);
        assert_memory_equal(together.id, apart.id, apart.n * sizeof *apart.id);
        tsr_ids_free(&together);
        tsr_ids_free(&apart);
    }
    tsr_tokenizer_free(t);
}

static tsr_status append_piece(void *arg, const char *bytes, size_t n)
{
    char *pieces = arg;
    strncat(strcat(pieces, *pieces == 0 ? "" : "|"), bytes, n);
    return TSR_OK;
}

/* The pieces are those of Split in the tokenizers library. */
static void test_patterns_split_as_onigurumas(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"^b", "a\nb\nb", "a\n|b|\n|b"},
        {"$", "a\nb\n", "a|\nb|\n"},
        {"\\Z", "ab\n", "ab|\n"},
        {".", "a\n\nb", "a|\n\n|b"},
        {"a*", "bbabb", "b|b|a|b|b"},
        {"(?=b)", "abab", "a|ba|b"},
        {"\\s", "a\u180Eb\u2003c", "a\u180Eb|\u2003|c"},
        {"\\S", "\u180E ", "\u180E| "},
        {"(?i:s)", "s\u017FSx", "s|\u017F|S|x"},
        {"\\d", "1\u0663a", "1|\u0663|a"},
        {"a++b?+", "aabaa", "aab|aa"},
        {"(?<=a)b|(?<!a)c", "abcac", "a|b|c|ac"},
        {"[^\\s\\p{L}]+", "a1 !b?", "a|1| |!|b|?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tsr_pattern pattern;
        char pieces[64] = "";
        KIT_OK(tsr_pattern_compile(cases[i][0], false, &pattern));
        KIT_OK(tsr_split(&pattern, 1, cases[i][1], strlen(cases[i][1]), append_piece, pieces));
        tsr_pattern_free(&pattern);
        assert_string_equal(pieces, cases[i][2]);
    }
}

static void test_utf8_is_told_from_what_is_not(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 61) {
        char text[5] = {0};
        const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n - 1; i > 0; i--) text[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3F));
        text[0] = (char)(n == 1 ? c : (0xF00u >> n & 0xFF) | c >> 6 * (n - 1));
        const bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(tsr_utf8_valid(text, n), surrogate ? 0 : n);
        for (size_t cut = 1; cut < n; cut++) assert_int_equal(tsr_utf8_valid(text, cut), 0);
        const size_t space = tsr_utf8_space_first(text, n);
        assert_int_equal(tsr_utf8_space_last(text, n), space);
        assert_true(space == 0 || space == n);
    }
    assert_int_equal(tsr_utf8_valid("0123456789\xC0\x80", 12), 10);
    assert_int_equal(tsr_utf8_valid("\xE0\x9F\xBF", 3), 0);
    assert_int_equal(tsr_utf8_valid("\xF0\x8F\xBF\xBF", 4), 0);
    assert_int_equal(tsr_utf8_invalid("\xFF\xC3\xA9", 3), 1);
    assert_int_equal(tsr_utf8_space_last("a\xE3\x80\x80", 4), 3);
}

static void test_letters_spell_all_bytes(void **state)
{
    (void)state;
    char bytes[256], letters[512], back[512];
    bool seen[256] = {false};
    size_t n_back;
    for (int i = 0; i < 256; i++) bytes[i] = (char)tsr_byte_order(i), seen[tsr_byte_order(i)] = true;
    for (int i = 0; i < 256; i++) assert_true(seen[i]);
    assert_int_equal(bytes[0], '!');
    assert_int_equal((unsigned char)bytes[255], 0xAD);
    const size_t n = tsr_bytes_spell(bytes, 256, letters);
    assert_int_equal(tsr_utf8_valid(letters, n), n);
    assert_true(tsr_bytes_unspell(letters, n, back, &n_back));
    assert_int_equal(n_back, 256);
    assert_memory_equal(back, bytes, 256);
    assert_false(tsr_bytes_unspell(" ", 1, back, &n_back));
    assert_false(tsr_bytes_unspell("\xC5\x84", 2, back, &n_back)); /* U+0144, one past the last */
    assert_false(tsr_bytes_unspell("\xC5", 1, back, &n_back));
}

/* The definition: the pair of lowest rank, the leftmost of these, merges; again from the start. */
static size_t merge_by_definition(const tsr_merge_table *table, int32_t *id, size_t n)
{
    for (;;) {
        size_t best = n;
        int32_t rank = INT32_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            const int32_t other = tsr_map_find(&table->rank, tsr_pair_key(id[i], id[i + 1]));
            if (other >= 0 && other < rank) rank = other, best = i;
        }
        if (best == n) return n;
        id[best] = table->rule[rank].result;
        memmove(id + best + 1, id + best + 2, (--n - best - 1) * sizeof *id);
    }
}

static void test_merges_follow_their_definition(void **state)
{
    (void)state;
    tsr_tokenizer *t = load("gpt2");
    tsr_merge_space space = {0};
    tsr_random r = {.seed = 2};
    int32_t got[300], expected[300];
    for (int trial = 0; trial < 5000; trial++) {
        static const char *const letters[] = {"theandorisng ", "th", "a", "0123456789", "etaoinshrdlu"};
        const char *some = letters[tsr_random_below(&r, 5)];
        const size_t n = 1 + tsr_random_below(&r, trial % 2 ? 300 : 60);
        for (size_t i = 0; i < n; i++)
            got[i] = expected[i] = t->byte_id[(unsigned char)some[tsr_random_below(&r, strlen(some))]];
        size_t n_got;
        KIT_OK(tsr_merge_piece(&t->merges, &space, got, n, &n_got));
        assert_int_equal(n_got, merge_by_definition(&t->merges, expected, n));
        assert_memory_equal(got, expected, n_got * sizeof *got);
    }
    tsr_merge_space_free(&space);
    tsr_tokenizer_free(t);
}

static void test_special_tokens(void **state)
{
    (void)state;
    static const char *const special[] = {"<|bos|>", "<|pad|>", "<|endoftext|>"};
    tsr_tokenizer *t;
    KIT_OK(tsr_tokenizer_create(special, 3, NULL, 0, &t));
    assert_int_equal(tsr_tokenizer_vocab_size(t), 259);
    assert_int_equal(tsr_tokenizer_eos(t), 2);
    assert_int_equal(tsr_tokenizer_bos(t), -1);
    assert_int_equal(tsr_tokenizer_find(t, "<|pad|>", 7), 1);
    assert_int_equal(tsr_tokenizer_find(t, "<|pad|", 6), -1);
    assert_true(tsr_tokenizer_is_special(t, 0));
    assert_false(tsr_tokenizer_is_special(t, 3));
    assert_false(tsr_tokenizer_is_special(t, -1));
    assert_false(tsr_tokenizer_is_special(t, 259));
    tsr_ids ids = {0};
    KIT_OK(tsr_tokenizer_encode(t, "a<|pad|>b", 9, true, &ids));
    assert_int_equal(ids.n, 3);
    char *text;
    size_t n;
    KIT_OK(tsr_tokenizer_decode(t, ids.id, ids.n, true, &text, &n));
    assert_int_equal(n, 2);
    assert_string_equal(text, "ab");
    free(text);
    tsr_ids_free(&ids);
    tsr_tokenizer_free(t);

    t = load("llama3");
    assert_int_equal(tsr_tokenizer_bos(t), tsr_tokenizer_find(t, "<|bos|>", 7));
    KIT_OK(tsr_tokenizer_encode(t, "", 0, false, &ids));
    assert_int_equal(ids.n, 0);
    KIT_OK(tsr_tokenizer_encode(t, "", 0, true, &ids));
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.id[0], tsr_tokenizer_bos(t));
    tsr_ids_free(&ids);
    tsr_tokenizer_free(t);
}

static void test_errors_leave_outputs_alone(void **state)
{
    (void)state;
    tsr_tokenizer *t = load("gpt2"), *untouched = t;
    const char *bytes = "as it was";
    char *text = NULL;
    size_t n = 7;
    const int32_t ids[3] = {1, tsr_tokenizer_vocab_size(t), -1};
    KIT_FAILS(TSR_ERR_INDEX, "no token has the id 400", tsr_tokenizer_token(t, ids[1], &bytes, &n));
    KIT_FAILS(TSR_ERR_INDEX, "no token has the id -1", tsr_tokenizer_token(t, ids[2], &bytes, &n));
    KIT_FAILS(TSR_ERR_INDEX, "400", tsr_tokenizer_decode(t, ids, 2, false, &text, &n));
    assert_string_equal(bytes, "as it was");
    assert_null(text);
    assert_int_equal(n, 7);
    tsr_ids out = {0};
    KIT_OK(tsr_tokenizer_encode(t, "the", 3, false, &out));
    const size_t n_ids = out.n;
    KIT_FAILS(TSR_ERR_OVERFLOW, "2^31", tsr_tokenizer_encode(t, "the", INT32_MAX, false, &out));
    assert_int_equal(out.n, n_ids);
    tsr_ids_free(&out);
    KIT_FAILS(TSR_ERR_IO, "tokenizer.json", tsr_tokenizer_load(kit_folder(), &untouched));
    KIT_FAILS(TSR_ERR_IO, "missing.json", tsr_tokenizer_load(kit_path("missing.json"), &untouched));
    KIT_FAILS(TSR_ERR_IO, "nowhere", tsr_tokenizer_save(t, kit_path("nowhere")));
    assert_ptr_equal(untouched, t);
    tsr_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_those_of_the_library),
        cmocka_unit_test(test_any_bytes_come_back),
        cmocka_unit_test(test_invalid_bytes_part_the_text),
        cmocka_unit_test(test_patterns_split_as_onigurumas),
        cmocka_unit_test(test_utf8_is_told_from_what_is_not),
        cmocka_unit_test(test_letters_spell_all_bytes),
        cmocka_unit_test(test_merges_follow_their_definition),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_errors_leave_outputs_alone),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
