/*
 * train/bpe_trainer.c - a byte-level BPE vocabulary learned from text
 *
 * All counts are kept up to date: merging (a, b) to c at one position of a piece that occurs w times
 *
 *      x a b y        (x, a) and (b, y) lose w          x c - y
 *                     (x, c) and (c, y) gain w
 *
 * so a merge costs what it changes, and nothing is counted twice.
 */
#include "train/bpe_trainer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/printable.h"
#include "format/tokenizer_bytes.h"
#include "format/tokenizer_split.h"
#include "train/bpe_pairs.h"
#include "train/bpe_words.h"

enum { LEAST_COUNT = 2 }; /* what occurs once teaches nothing */

typedef struct trainer {
    tsr_bpe_words words;
    tsr_bpe_pairs pairs;
    tsr_merge *merge; /* [n_merges] */
    int32_t n_merges, merge_capacity;
} trainer;

static tsr_status record_merge(trainer *t, int32_t left, int32_t right)
{
    if (t->n_merges == t->merge_capacity) {
        const int32_t capacity = 2 * t->merge_capacity + 1024;
        tsr_merge *merge = realloc(t->merge, (size_t)capacity * sizeof *merge);
        if (merge == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
        t->merge = merge;
        t->merge_capacity = capacity;
    }
    t->merge[t->n_merges++] = (tsr_merge){.left = left, .right = right};
    return TSR_OK;
}

static tsr_status merge_at(trainer *t, int32_t left, int32_t right, int32_t result, int32_t i)
{
    tsr_bpe_words *w = &t->words;
    const int32_t j = w->next[i];
    if (w->symbol[i] != left || j < 0 || w->symbol[j] != right) return TSR_OK; /* it was so once */
    const int64_t count = w->count[w->piece[i]];
    const int32_t before = w->previous[i], after = w->next[j];
    w->symbol[i] = result;
    w->symbol[j] = -1;
    w->next[i] = after;
    if (before >= 0) {
        tsr_bpe_pairs_take(&t->pairs, w->symbol[before], left, count);
        TSR_TRY(tsr_bpe_pairs_add(&t->pairs, w->symbol[before], result, count, before));
    }
    if (after >= 0) {
        w->previous[after] = i;
        tsr_bpe_pairs_take(&t->pairs, right, w->symbol[after], count);
        TSR_TRY(tsr_bpe_pairs_add(&t->pairs, result, w->symbol[after], count, i));
    }
    return TSR_OK;
}

/*
 * Merges the most frequent pair everywhere, to the id `result`; *done where none is frequent enough.
 *
 * The id is always a new one: a merge happens at every place where its pair stands, so the same bytes
 * come to be by the same merges wherever they do, and no second pair ever gives them. For the same
 * reason a pair gains positions in one merge only, the one that made its younger half, from left to
 * right: the list is in order, and in "aaa" the first two merge.
 */
static tsr_status merge_top(trainer *t, int32_t result, bool *done)
{
    const int32_t top = tsr_bpe_pairs_pop(&t->pairs);
    *done = top < 0 || t->pairs.pair[top].count < LEAST_COUNT;
    if (*done) return TSR_OK;
    tsr_bpe_pair *pair = &t->pairs.pair[top];
    const int32_t left = pair->left, right = pair->right, n = pair->n_at;
    int32_t *at = pair->at;
    pair->at = NULL;
    pair->n_at = pair->at_capacity = 0;
    tsr_status status = record_merge(t, left, right);
    for (int32_t i = 0; status == TSR_OK && i < n; i++) status = merge_at(t, left, right, result, at[i]);
    free(at);
    return status;
}

static tsr_status start(trainer *t, const tsr_text *texts, size_t n_texts, int32_t n_special)
{
    int32_t byte_id[256];
    for (int i = 0; i < 256; i++) byte_id[tsr_byte_order(i)] = n_special + i;
    TSR_TRY(tsr_bpe_words_collect(texts, n_texts, byte_id, &t->words));
    const tsr_bpe_words *w = &t->words;
    for (int32_t i = 0; i < w->n; i++)
        if (w->next[i] >= 0)
            TSR_TRY(
                tsr_bpe_pairs_add(&t->pairs, w->symbol[i], w->symbol[w->next[i]], w->count[w->piece[i]], i));
    return TSR_OK;
}

static tsr_status count_piece(void *arg, const char *bytes, size_t n)
{
    (void)bytes, (void)n;
    ++*(int *)arg;
    return TSR_OK;
}

/* A special token that the text's pattern leaves whole might be learned as an ordinary one as well. */
static tsr_status check_special(const char *const *special, int32_t n_special)
{
    tsr_pattern pattern;
    TSR_TRY(tsr_pattern_compile(tsr_gpt2_pattern, false, &pattern));
    tsr_status status = TSR_OK;
    for (int32_t i = 0; status == TSR_OK && i < n_special; i++) {
        int n_pieces = 0;
        status = tsr_split(&pattern, 1, special[i], strlen(special[i]), count_piece, &n_pieces);
        if (status == TSR_OK && n_pieces == 1)
            status = tsr_fail(
                TSR_ERR_ARGUMENT,
                "bpe: the special token \"%s\" is a word or a sign; enclose it as in \"<|...|>\"",
                tsr_printable(special[i]).text);
    }
    tsr_pattern_free(&pattern);
    return status;
}

tsr_status tsr_bpe_train(const tsr_text *texts, size_t n_texts, int32_t vocab_size,
                         const char *const *special, int32_t n_special, tsr_tokenizer **out)
{
    if (n_special < 0 || vocab_size < (int64_t)n_special + 256 || vocab_size > TSR_MAX_IDS)
        return tsr_fail(TSR_ERR_ARGUMENT,
                        "bpe: vocab_size is %d, must be %lld (256 bytes, %d special tokens) to %d",
                        (int)vocab_size, (long long)n_special + 256, (int)n_special, TSR_MAX_IDS);
    tsr_tokenizer *bare; /* refuses bad special tokens before the work, not after it */
    TSR_TRY(tsr_tokenizer_create(special, n_special, NULL, 0, &bare));
    tsr_tokenizer_free(bare);
    TSR_TRY(check_special(special, n_special));
    trainer t = {0};
    const int32_t first = n_special + 256;
    tsr_status status = start(&t, texts, n_texts, n_special);
    for (bool done = false; status == TSR_OK && !done && first + t.n_merges < vocab_size;)
        status = merge_top(&t, first + t.n_merges, &done);
    if (status == TSR_OK) status = tsr_tokenizer_create(special, n_special, t.merge, t.n_merges, out);
    assert(status != TSR_OK || tsr_tokenizer_vocab_size(*out) == first + t.n_merges);
    free(t.merge);
    tsr_bpe_pairs_free(&t.pairs);
    tsr_bpe_words_free(&t.words);
    return status;
}
