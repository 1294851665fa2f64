/* format/tokenizer_normalize.c - the NFC normalizer, where utf8proc is built in */
#include "format/tokenizer_normalize.h"

#include "base/error.h"

#ifdef TSR_WITH_UTF8PROC

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "format/tokenizer_bytes.h"

typedef struct buffer {
    char *bytes;
    size_t n, capacity;
} buffer;

static tsr_status append(buffer *b, const char *bytes, size_t n)
{
    if (n > b->capacity - b->n) {
        const size_t capacity = b->capacity + b->capacity / 2 + n;
        char *wider = realloc(b->bytes, capacity);
        if (wider == NULL) return tsr_fail(TSR_ERR_MEMORY, "NFC: out of memory for %zu bytes", capacity);
        b->bytes = wider;
        b->capacity = capacity;
    }
    if (n > 0) memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
    return TSR_OK;
}

/* Below U+0300 everything is in NFC; its lead byte is 0xCC. */
static bool needs_work(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xCC) return true;
    return false;
}

static tsr_status append_nfc(buffer *b, const char *text, size_t n)
{
    if (!needs_work(text, n)) return append(b, text, n);
    utf8proc_uint8_t *normal = NULL;
    const utf8proc_ssize_t n_normal = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                                   &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n_normal < 0)
        return tsr_fail(n_normal == UTF8PROC_ERROR_NOMEM ? TSR_ERR_MEMORY : TSR_ERR_OVERFLOW,
                        "NFC of %zu bytes: %s", n, utf8proc_errmsg(n_normal));
    const tsr_status status = append(b, (const char *)normal, (size_t)n_normal);
    free(normal);
    return status;
}

bool tsr_has_nfc(void) { return true; }

tsr_status tsr_nfc(const char *text, size_t n, char **out, size_t *n_out)
{
    buffer b = {0};
    tsr_status status = TSR_OK;
    for (size_t at = 0; status == TSR_OK && at < n;) {
        const size_t valid = tsr_utf8_valid(text + at, n - at);
        const size_t invalid = tsr_utf8_invalid(text + at + valid, n - at - valid);
        status = append_nfc(&b, text + at, valid);
        if (status == TSR_OK) status = append(&b, text + at + valid, invalid);
        at += valid + invalid;
    }
    if (status != TSR_OK) {
        free(b.bytes);
        return status;
    }
    *out = b.bytes;
    *n_out = b.n;
    return TSR_OK;
}

#else

bool tsr_has_nfc(void) { return false; }

tsr_status tsr_nfc(const char *text, size_t n, char **out, size_t *n_out)
{
    (void)text, (void)n, (void)out, (void)n_out;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "NFC: built without utf8proc");
}

#endif
