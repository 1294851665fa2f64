/* format/tokenizer_added.c - added tokens found in a text, leftmost first, then longest */
#include "format/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/printable.h"
#include "format/tokenizer_bytes.h"

tsr_status tsr_added_set_put(tsr_added_set *set, const tsr_added_token *token)
{
    tsr_added_token *tokens = realloc(set->token, ((size_t)set->n + 1) * sizeof *tokens);
    if (tokens == NULL) return tsr_fail(TSR_ERR_MEMORY, "added tokens: out of memory");
    set->token = tokens;
    char *bytes = malloc(token->n);
    if (bytes == NULL) return tsr_fail(TSR_ERR_MEMORY, "added tokens: out of memory");
    memcpy(bytes, token->bytes, token->n);
    tokens[set->n] = *token;
    tokens[set->n++].bytes = bytes;
    set->begins[(unsigned char)bytes[0]] = true;
    return TSR_OK;
}

static int compare(const void *a, const void *b)
{
    const tsr_added_token *x = a, *y = b;
    const int order = memcmp(x->bytes, y->bytes, x->n < y->n ? x->n : y->n);
    return order != 0 ? order : (x->n > y->n) - (x->n < y->n);
}

tsr_status tsr_added_set_sort(tsr_added_set *set)
{
    if (set->n > 1) qsort(set->token, (size_t)set->n, sizeof *set->token, compare);
    for (int32_t i = 1; i < set->n; i++)
        if (compare(&set->token[i - 1], &set->token[i]) == 0)
            return tsr_fail(TSR_ERR_FORMAT, "added tokens %d and %d both match \"%s\"",
                            (int)set->token[i - 1].id, (int)set->token[i].id,
                            tsr_printable_n(set->token[i].bytes, set->token[i].n).text);
    return TSR_OK;
}

void tsr_added_set_free(tsr_added_set *set)
{
    for (int32_t i = 0; i < set->n; i++) free(set->token[i].bytes);
    free(set->token);
    *set = (tsr_added_set){0};
}

/* The first token of [low, high) whose byte number `k` is at least `byte`; all are longer than k. */
static int32_t first_from(const tsr_added_set *set, int32_t low, int32_t high, size_t k, unsigned byte)
{
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if ((unsigned char)set->token[middle].bytes[k] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that the text begins with, or NULL. */
static const tsr_added_token *longest(const tsr_added_set *set, const char *text, size_t n)
{
    const tsr_added_token *best = NULL;
    int32_t low = 0, high = set->n;
    for (size_t k = 0; k < n && low < high; k++) {
        const unsigned byte = (unsigned char)text[k];
        low = first_from(set, low, high, k, byte);
        high = first_from(set, low, high, k, byte + 1);
        /* A token that ends here sorts before those that go on. */
        if (low < high && set->token[low].n == k + 1) best = &set->token[low++];
    }
    return best;
}

static size_t spaces_before(const char *text, size_t from, size_t to)
{
    size_t n = 0, step;
    while ((step = tsr_utf8_space_last(text + from, to - from - n)) > 0) n += step;
    return n;
}

static size_t spaces_after(const char *text, size_t n)
{
    size_t i = 0, step;
    while ((step = tsr_utf8_space_first(text + i, n - i)) > 0) i += step;
    return i;
}

tsr_status tsr_added_set_cut(const tsr_added_set *set, const char *text, size_t n,
                             const tsr_added_visitor *visitor)
{
    size_t done = 0;
    for (size_t i = 0; i < n && set->n > 0;) {
        const tsr_added_token *token = set->begins[(unsigned char)text[i]] ? longest(set, text + i, n - i)
                                                                           : NULL;
        if (token == NULL) {
            i++;
            continue;
        }
        size_t start = i;
        i += token->n;
        /* White space that the token before has taken is not taken twice. */
        if (token->lstrip && start > done) start -= spaces_before(text, done, start);
        if (done < start) TSR_TRY(visitor->between(visitor->arg, text + done, start - done));
        TSR_TRY(visitor->found(visitor->arg, token->id));
        done = i + (token->rstrip ? spaces_after(text + i, n - i) : 0);
    }
    return done < n ? visitor->between(visitor->arg, text + done, n - done) : TSR_OK;
}
