/* check_bpe_trainer.c - the trained merges against counting every pair anew before each merge */
#include "kit/kit.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "format/tokenizer_impl.h"
#include "train/bpe_trainer.h"

/* The definition, for texts of words between single spaces: their pieces are "word" and " word". */
enum { MAX_TEXT = 4096, MAX_IDS = 700 };

typedef struct naive {
    int32_t symbol[MAX_TEXT];
    bool starts[MAX_TEXT]; /* a piece begins here */
    int n;
    int32_t n_ids;
    tsr_merge merge[MAX_IDS]; /* of the ids from 256 on */
} naive;

static int64_t count_of(const naive *m, int32_t left, int32_t right)
{
    int64_t count = 0;
    for (int i = 0; i + 1 < m->n; i++)
        count += m->symbol[i] == left && m->symbol[i + 1] == right && !m->starts[i + 1];
    return count;
}

static tsr_merge most_frequent(const naive *m, int64_t *count)
{
    tsr_merge best = {-1, -1};
    *count = 0;
    for (int i = 0; i + 1 < m->n; i++) {
        const tsr_merge pair = {m->symbol[i], m->symbol[i + 1]};
        if (m->starts[i + 1]) continue;
        const int64_t c = count_of(m, pair.left, pair.right);
        const bool smaller = pair.left < best.left || (pair.left == best.left && pair.right < best.right);
        if (c > *count || (c == *count && smaller)) *count = c, best = pair;
    }
    return best;
}

static void replace(naive *m, tsr_merge pair, int32_t result)
{
    int n = 0;
    for (int i = 0; i < m->n; i++) {
        const bool hit = i + 1 < m->n && m->symbol[i] == pair.left && m->symbol[i + 1] == pair.right &&
                         !m->starts[i + 1];
        m->starts[n] = m->starts[i];
        m->symbol[n++] = hit ? result : m->symbol[i];
        i += hit;
    }
    m->n = n;
}

static void naive_train(naive *m, const char *text, int32_t vocab_size)
{
    memset(m, 0, sizeof *m);
    m->n = (int)strlen(text);
    m->n_ids = 256;
    tsr_tokenizer *bytes;
    KIT_OK(tsr_tokenizer_create(NULL, 0, NULL, 0, &bytes));
    for (int i = 0; i < m->n; i++) {
        m->symbol[i] = bytes->byte_id[(unsigned char)text[i]];
        m->starts[i] = i == 0 || text[i] == ' ';
    }
    tsr_tokenizer_free(bytes);
    int64_t count;
    for (tsr_merge top; m->n_ids < vocab_size && (top = most_frequent(m, &count), count >= 2); m->n_ids++) {
        m->merge[m->n_ids - 256] = top;
        replace(m, top, m->n_ids);
    }
}

static void random_text(tsr_random *r, char *text)
{
    static const char *const letters[] = {"a", "ab", "abc", "etaoinshrdlu", "aab"};
    const char *some = letters[tsr_random_below(r, 5)];
    const size_t n = 1 + tsr_random_below(r, 1 + tsr_random_below(r, 1200));
    text[0] = 'a';
    for (size_t i = 1; i < n; i++) {
        const bool space = text[i - 1] != ' ' && i + 1 < n && tsr_random_below(r, 6) == 0;
        text[i] = space ? ' ' : some[tsr_random_below(r, strlen(some))];
    }
    text[n] = 0;
}

static void test_merges_are_the_most_frequent_pairs(void **state)
{
    (void)state;
    static naive expected;
    char text[MAX_TEXT];
    tsr_random r = {.seed = 3};
    for (int trial = 0; trial < 150; trial++) {
        random_text(&r, text);
        const int32_t vocab_size = 256 + (int32_t)tsr_random_below(&r, 300);
        naive_train(&expected, text, vocab_size);
        tsr_tokenizer *t;
        KIT_OK(tsr_bpe_train(&(tsr_text){text, strlen(text)}, 1, vocab_size, NULL, 0, &t));
        for (int i = 0; 256 + i < expected.n_ids && i < t->merges.n; i++)
            if (t->merges.rule[i].left != expected.merge[i].left ||
                t->merges.rule[i].right != expected.merge[i].right)
                fail_msg("trial %d, \"%s\": merge %d differs", trial, text, i);
        assert_int_equal(t->merges.n, expected.n_ids - 256);
        assert_int_equal(tsr_tokenizer_vocab_size(t), expected.n_ids);
        tsr_tokenizer_free(t);
    }
}

static void check_trained(const char *text, size_t n, int32_t vocab_size)
{
    static const char *const special[] = {"<|endoftext|>"};
    tsr_tokenizer *t;
    KIT_OK(tsr_bpe_train(&(tsr_text){text, n}, 1, vocab_size, special, 1, &t));
    assert_in_range(tsr_tokenizer_vocab_size(t), 257, vocab_size);
    assert_int_equal(tsr_tokenizer_eos(t), 0);
    tsr_ids ids = {0};
    char *back;
    size_t n_back;
    KIT_OK(tsr_tokenizer_encode(t, text, n, false, &ids));
    KIT_OK(tsr_tokenizer_decode(t, ids.id, ids.n, false, &back, &n_back));
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    free(back);
    tsr_ids_free(&ids);
    tsr_tokenizer_free(t);
}

static void test_any_bytes_train(void **state)
{
    (void)state;
    static char text[40000];
    tsr_random r = {.seed = 4};
    for (int trial = 0; trial < 8; trial++) {
        const uint64_t range = trial < 4 ? 256 : 3;
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)(tsr_random_below(&r, range) + (trial & 1 ? 0xC0 : 0));
        check_trained(text, sizeof text, 600);
    }
    memset(text, 'a', sizeof text);
    check_trained(text, sizeof text, 300);
    memset(text, ' ', sizeof text);
    check_trained(text, sizeof text, 300);
    check_trained("", 0, 300);
    check_trained("a", 1, 257);
}

/* The same pieces in another order, or in several texts, give the same vocabulary. */
static void test_only_the_pieces_count(void **state)
{
    (void)state;
    const char *one = " low low lower newest newest widest lowest",
               *two[2] = {" widest newest low", " lower newest low lowest"};
    const tsr_text texts[2] = {{two[0], strlen(two[0])}, {two[1], strlen(two[1])}};
    tsr_tokenizer *a, *b;
    KIT_OK(tsr_bpe_train(&(tsr_text){one, strlen(one)}, 1, 280, NULL, 0, &a));
    KIT_OK(tsr_bpe_train(texts, 2, 280, NULL, 0, &b));
    assert_true(a->merges.n > 5);
    assert_int_equal(a->merges.n, b->merges.n);
    assert_memory_equal(a->merges.rule, b->merges.rule, (size_t)a->merges.n * sizeof *a->merges.rule);
    tsr_tokenizer_free(a);
    tsr_tokenizer_free(b);
}

static void test_bad_sizes_and_tokens(void **state)
{
    (void)state;
    static const char *const special[] = {"<|endoftext|>", "<|endoftext|>"};
    const tsr_text text = {"text", 4};
    tsr_tokenizer *t = NULL;
    KIT_FAILS(TSR_ERR_ARGUMENT, "vocab_size is 256", tsr_bpe_train(&text, 1, 256, special, 1, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "vocab_size is -1", tsr_bpe_train(&text, 1, -1, special, 1, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "must be 257", tsr_bpe_train(&text, 1, INT32_MAX, special, 1, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "two ids", tsr_bpe_train(&text, 1, 300, special, 2, &t));
    static const char *const word[] = {"the"};
    KIT_FAILS(TSR_ERR_ARGUMENT, "\"the\" is a word", tsr_bpe_train(&text, 1, 300, word, 1, &t));
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_are_the_most_frequent_pairs),
        cmocka_unit_test(test_any_bytes_train),
        cmocka_unit_test(test_only_the_pieces_count),
        cmocka_unit_test(test_bad_sizes_and_tokens),
    };
    return cmocka_run_group_tests_name("bpe trainer", tests, NULL, NULL);
}
