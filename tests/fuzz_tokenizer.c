/*
 * fuzz_tokenizer.c - any bytes as a tokenizer.json, and any pattern over any text
 *
 * An input that begins with '{' is a tokenizer.json; one that is accepted must encode every byte and
 * give it back. Any other is a line with a pattern, and a text: the pieces must be the text.
 */
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer.h"
#include "format/tokenizer_impl.h"
#include "kit/fuzz.h"

static const char sample[] =
    "The <|eot|> text's 123 words,  e\xCC\x81t <mask> \xF0\x9F\x99\x82\r\n\xFF\xC3 \xE3\x80\x80<right> aaaa";

/* Nothing of the text is added, composed or stripped: decoding gives it back. */
static bool keeps_text(const tsr_tokenizer *t)
{
    for (int32_t i = 0; i < t->n_added; i++)
        if (t->added[i].lstrip || t->added[i].rstrip) return false;
    return !t->nfc && !t->add_prefix_space;
}

static void try_text(const tsr_tokenizer *t, const char *text, size_t n)
{
    tsr_ids ids = {0};
    char *back = NULL;
    size_t n_back = 0;
    const tsr_status status = tsr_tokenizer_encode(t, text, n, false, &ids);
    if (status == TSR_OK) {
        if (tsr_tokenizer_decode(t, ids.id, ids.n, false, &back, &n_back) != TSR_OK) abort();
        if (keeps_text(t) && (n_back != n || memcmp(back, text, n) != 0)) abort();
    } else if (status != TSR_ERR_UNSUPPORTED) { /* a pattern that gave up */
        abort();
    }
    free(back);
    tsr_ids_free(&ids);
}

static void try_file(const char *data, size_t n)
{
    tsr_tokenizer *t;
    const tsr_status status = tsr_tokenizer_parse(data, n, "fuzz", &t);
    if (status == TSR_OK) {
        try_text(t, sample, sizeof sample);
        tsr_tokenizer_free(t);
    } else if ((status != TSR_ERR_FORMAT && status != TSR_ERR_UNSUPPORTED) || tsr_last_error()[0] == 0) {
        abort();
    }
}

typedef struct expected_text {
    const char *at;
} expected_text;

static tsr_status compare_piece(void *arg, const char *bytes, size_t n)
{
    expected_text *e = arg;
    if (n == 0 || memcmp(e->at, bytes, n) != 0) abort();
    e->at += n;
    return TSR_OK;
}

static void try_pattern(const char *source, const char *text, size_t n)
{
    tsr_pattern pattern;
    if (tsr_pattern_compile(source, false, &pattern) != TSR_OK) return;
    expected_text e = {text};
    if (tsr_split(&pattern, 1, text, n, compare_piece, &e) == TSR_OK && e.at != text + n) abort();
    tsr_pattern_free(&pattern);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    const char *bytes = (const char *)data;
    if (nbytes > 0 && data[0] == '{') {
        try_file(bytes, nbytes);
        return 0;
    }
    const char *line_end = nbytes == 0 ? NULL : memchr(bytes, '\n', nbytes);
    if (line_end == NULL) return 0;
    char *source = calloc((size_t)(line_end - bytes) + 1, 1);
    if (source == NULL) return 0;
    memcpy(source, bytes, (size_t)(line_end - bytes));
    try_pattern(source, line_end + 1, nbytes - (size_t)(line_end + 1 - bytes));
    free(source);
    return 0;
}

KIT_FUZZ_MAIN("tokenizer");
