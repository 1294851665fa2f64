/*
 * format/tokenizer_split.c - text cut into pieces by patterns
 *
 * PCRE2 is given well-formed UTF-8 only and told not to look again: its own check reads the
 * whole text at every match, which would make a split quadratic.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "format/tokenizer_split.h"

#include <pcre2.h>

#include "base/error.h"
#include "format/printable.h"
#include "format/tokenizer_bytes.h"

/* What one match may take before it gives up. An honest pattern needs a few steps a byte, on a long run of
 * spaces. */
enum { HEAP_LIMIT_KIB = 256 << 10, STEPS = 10000000, STEPS_PER_BYTE = 4 };

typedef struct splitter {
    const tsr_pattern *patterns;
    int n_patterns;
    pcre2_match_context *context;
    pcre2_match_data *match; /* one serves all patterns: its result is read before the next match */
    tsr_piece_fn *piece;
    void *arg;
} splitter;

/* The next match from `from` on; *start = n where there is none. */
static tsr_status find(const splitter *s, const tsr_pattern *p, const char *text, size_t n, size_t from,
                       size_t *start, size_t *end)
{
    const PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int rc = pcre2_match(p->code, subject, n, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, subject, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, s->context);
    *start = *end = n;
    if (rc == PCRE2_ERROR_NOMATCH) return TSR_OK;
    if (rc < 0) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(rc, why, sizeof why);
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer: the split pattern \"%s\" gave up at byte %zu of %zu: %s",
                        tsr_printable(p->source).text, from, n, (const char *)why);
    }
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(s->match);
    *start = bounds[0];
    *end = bounds[1];
    return TSR_OK;
}

static size_t character_nbytes(char first)
{
    const unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Cuts well-formed text by the patterns from number `k` on. */
static tsr_status cut(const splitter *s, int k, const char *text, size_t n)
{
    if (n == 0) return TSR_OK;
    if (k == s->n_patterns) return s->piece(s->arg, text, n);
    size_t done = 0, from = 0;
    while (from < n) {
        size_t start, end;
        TSR_TRY(find(s, &s->patterns[k], text, n, from, &start, &end));
        if (start == n && end == n) break;
        TSR_TRY(cut(s, k + 1, text + done, start - done));
        TSR_TRY(cut(s, k + 1, text + start, end - start));
        done = end;
        from = end > start ? end : end + character_nbytes(text[end]); /* an empty match only cuts */
    }
    return cut(s, k + 1, text + done, n - done);
}

tsr_status tsr_split(const tsr_pattern *patterns, int n_patterns, const char *text, size_t n,
                     tsr_piece_fn *piece, void *arg)
{
    splitter s = {.patterns = patterns, .n_patterns = n_patterns, .piece = piece, .arg = arg};
    s.context = pcre2_match_context_create(NULL);
    s.match = pcre2_match_data_create(1, NULL);
    tsr_status status = TSR_OK;
    if (s.context == NULL || s.match == NULL) {
        status = tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory");
    } else {
        const size_t steps = n < (UINT32_MAX - STEPS) / STEPS_PER_BYTE ? STEPS + STEPS_PER_BYTE * n
                                                                       : UINT32_MAX;
        pcre2_set_match_limit(s.context, (uint32_t)steps);
        pcre2_set_heap_limit(s.context, HEAP_LIMIT_KIB);
    }
    for (size_t at = 0; status == TSR_OK && at < n;) {
        const size_t valid = tsr_utf8_valid(text + at, n - at);
        status = cut(&s, 0, text + at, valid);
        at += valid;
        const size_t invalid = tsr_utf8_invalid(text + at, n - at);
        if (status == TSR_OK && invalid > 0) status = piece(arg, text + at, invalid);
        at += invalid;
    }
    pcre2_match_data_free(s.match);
    pcre2_match_context_free(s.context);
    return status;
}
