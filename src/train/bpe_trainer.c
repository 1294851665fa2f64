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

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/tokenizer_bytes.h"
#include "train/bpe_pairs.h"
#include "train/bpe_words.h"

enum { LEAST_COUNT = 2 }; /* what occurs once teaches nothing */

typedef struct trainer {
    tsr_bpe_words words;
    tsr_bpe_pairs pairs;
    tsr_merge *merge; /* [n_merges] */
    int32_t n_merges, merge_capacity;
    int32_t n_ids;
    char **bytes; /* [n_ids] of each token, NULL for special ones: two merges may give the same */
    int32_t *nbytes;
    tsr_map by_bytes;
} trainer;

/* The id of left's bytes and right's: one that there is, or the next. */
static tsr_status result_of(trainer *t, int32_t left, int32_t right, int32_t *out)
{
    const size_t n_left = (size_t)t->nbytes[left], n = n_left + (size_t)t->nbytes[right];
    char *bytes = malloc(n);
    if (bytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
    memcpy(bytes, t->bytes[left], n_left);
    memcpy(bytes + n_left, t->bytes[right], n - n_left);
    const uint64_t key = tsr_hash_bytes(bytes, n);
    int32_t id;
    for (uint32_t at = tsr_map_start(&t->by_bytes, key); (id = tsr_map_next(&t->by_bytes, key, &at)) >= 0;)
        if ((size_t)t->nbytes[id] == n && memcmp(t->bytes[id], bytes, n) == 0) {
            free(bytes);
            *out = id;
            return TSR_OK;
        }
    t->bytes[t->n_ids] = bytes;
    t->nbytes[t->n_ids] = (int32_t)n;
    *out = t->n_ids++;
    return tsr_map_put(&t->by_bytes, key, *out);
}

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

static int ascending(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* In "aaa" the first two merge. Positions are nearly always in order: only a symbol that two merges
 * give meets the same neighbour at two times. */
static void sort_positions(int32_t *at, int32_t n)
{
    for (int32_t i = 1; i < n; i++)
        if (at[i - 1] > at[i]) {
            qsort(at, (size_t)n, sizeof *at, ascending);
            return;
        }
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

/* Merges the most frequent pair everywhere; *done where none is frequent enough. */
static tsr_status merge_top(trainer *t, bool *done)
{
    const int32_t top = tsr_bpe_pairs_pop(&t->pairs);
    *done = top < 0 || t->pairs.pair[top].count < LEAST_COUNT;
    if (*done) return TSR_OK;
    tsr_bpe_pair *pair = &t->pairs.pair[top];
    const int32_t left = pair->left, right = pair->right;
    if (pair->result < 0) {
        TSR_TRY(record_merge(t, left, right));
        TSR_TRY(result_of(t, left, right, &pair->result));
    } /* else a neighbour came to be in a second way: it merges as before, under the same rank */
    const int32_t result = pair->result, n = pair->n_at;
    int32_t *at = pair->at;
    pair->count = 0;
    pair->at = NULL;
    pair->n_at = pair->at_capacity = 0;
    sort_positions(at, n);
    tsr_status status = TSR_OK;
    for (int32_t i = 0; status == TSR_OK && i < n; i++) status = merge_at(t, left, right, result, at[i]);
    free(at);
    return status;
}

static tsr_status start(trainer *t, const tsr_text *texts, size_t n_texts, int32_t vocab_size,
                        int32_t n_special)
{
    t->bytes = calloc((size_t)vocab_size, sizeof *t->bytes);
    t->nbytes = calloc((size_t)vocab_size, sizeof *t->nbytes);
    if (t->bytes == NULL || t->nbytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
    int32_t byte_id[256];
    t->n_ids = n_special;
    for (int i = 0; i < 256; i++, t->n_ids++) {
        const uint8_t byte = tsr_byte_order(i);
        byte_id[byte] = t->n_ids;
        t->bytes[t->n_ids] = malloc(1);
        if (t->bytes[t->n_ids] == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
        t->bytes[t->n_ids][0] = (char)byte;
        t->nbytes[t->n_ids] = 1;
    }
    TSR_TRY(tsr_bpe_words_collect(texts, n_texts, byte_id, &t->words));
    const tsr_bpe_words *w = &t->words;
    for (int32_t i = 0; i < w->n; i++)
        if (w->next[i] >= 0)
            TSR_TRY(
                tsr_bpe_pairs_add(&t->pairs, w->symbol[i], w->symbol[w->next[i]], w->count[w->piece[i]], i));
    return TSR_OK;
}

static void finish(trainer *t)
{
    for (int32_t i = 0; t->bytes != NULL && i < t->n_ids; i++) free(t->bytes[i]);
    free(t->bytes);
    free(t->nbytes);
    free(t->merge);
    tsr_map_free(&t->by_bytes);
    tsr_bpe_pairs_free(&t->pairs);
    tsr_bpe_words_free(&t->words);
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
    trainer t = {0};
    tsr_status status = start(&t, texts, n_texts, vocab_size, n_special);
    for (bool done = false; status == TSR_OK && !done && t.n_ids < vocab_size;) status = merge_top(&t, &done);
    if (status == TSR_OK) status = tsr_tokenizer_create(special, n_special, t.merge, t.n_merges, out);
    finish(&t);
    return status;
}
