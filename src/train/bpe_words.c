/* train/bpe_words.c - the different pieces of a text, counted and laid out in a row */
#include "train/bpe_words.h"

#include "base/error.h"
#include "format/tokenizer_split.h"

/* Pieces as they are found; their bytes point into the texts. */
typedef struct collection {
    tsr_map by_bytes;
    const char **bytes;
    size_t *nbytes;
    int64_t *count;
    int32_t n, capacity;
} collection;

static tsr_status grow(collection *c)
{
    if (c->n < c->capacity) return TSR_OK;
    if (c->capacity > INT32_MAX / 2)
        return tsr_fail(TSR_ERR_OVERFLOW, "bpe: over 2^30 different pieces of text");
    const size_t capacity = c->capacity == 0 ? 1024 : 2 * (size_t)c->capacity;
    const char **bytes = realloc(c->bytes, capacity * sizeof *bytes);
    if (bytes != NULL) c->bytes = bytes;
    size_t *nbytes = realloc(c->nbytes, capacity * sizeof *nbytes);
    if (nbytes != NULL) c->nbytes = nbytes;
    int64_t *count = realloc(c->count, capacity * sizeof *count);
    if (count != NULL) c->count = count;
    if (bytes == NULL || nbytes == NULL || count == NULL)
        return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
    c->capacity = (int32_t)capacity;
    return TSR_OK;
}

static tsr_status count_piece(void *arg, const char *bytes, size_t n)
{
    collection *c = arg;
    const uint64_t key = tsr_hash_bytes(bytes, n);
    int32_t i;
    for (uint32_t at = tsr_map_start(&c->by_bytes, key); (i = tsr_map_next(&c->by_bytes, key, &at)) >= 0;)
        if (c->nbytes[i] == n && memcmp(c->bytes[i], bytes, n) == 0) {
            c->count[i]++;
            return TSR_OK;
        }
    TSR_TRY(grow(c));
    TSR_TRY(tsr_map_put(&c->by_bytes, key, c->n));
    c->bytes[c->n] = bytes;
    c->nbytes[c->n] = n;
    c->count[c->n++] = 1;
    return TSR_OK;
}

static tsr_status lay_out(const collection *c, const int32_t byte_id[256], tsr_bpe_words *w)
{
    size_t n = 0;
    for (int32_t i = 0; i < c->n; i++) n += c->nbytes[i]; /* at most the text */
    if (n > INT32_MAX)
        return tsr_fail(TSR_ERR_OVERFLOW, "bpe: the different pieces of the text have %zu bytes", n);
    w->symbol = malloc((4 * n + 1) * sizeof *w->symbol);
    if (w->symbol == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory for %zu bytes of pieces", n);
    w->next = w->symbol + n;
    w->previous = w->next + n;
    w->piece = w->previous + n;
    w->n = (int32_t)n;
    int32_t at = 0;
    for (int32_t i = 0; i < c->n; i++) {
        const int32_t first = at, last = at + (int32_t)c->nbytes[i] - 1;
        for (; at <= last; at++) {
            w->symbol[at] = byte_id[(unsigned char)c->bytes[i][at - first]];
            w->next[at] = at == last ? -1 : at + 1;
            w->previous[at] = at == first ? -1 : at - 1;
            w->piece[at] = i;
        }
    }
    return TSR_OK;
}

tsr_status tsr_bpe_words_collect(const tsr_text *texts, size_t n_texts, const int32_t byte_id[256],
                                 tsr_bpe_words *out)
{
    collection c = {0};
    tsr_pattern pattern;
    tsr_bpe_words w = {0};
    TSR_TRY(tsr_pattern_compile(tsr_gpt2_pattern, false, &pattern));
    tsr_status status = TSR_OK;
    for (size_t i = 0; status == TSR_OK && i < n_texts; i++)
        status = tsr_split(&pattern, 1, texts[i].bytes, texts[i].n, count_piece, &c);
    if (status == TSR_OK) status = lay_out(&c, byte_id, &w);
    if (status == TSR_OK) {
        w.count = c.count;
        w.n_pieces = c.n;
        c.count = NULL;
        *out = w;
    }
    tsr_pattern_free(&pattern);
    tsr_map_free(&c.by_bytes);
    free(c.bytes);
    free(c.nbytes);
    free(c.count);
    return status;
}

void tsr_bpe_words_free(tsr_bpe_words *w)
{
    free(w->symbol);
    free(w->count);
    *w = (tsr_bpe_words){0};
}
