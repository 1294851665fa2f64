/*
 * format/tokenizer_encode.c - text to ids
 *
 *     text -> added tokens cut out -> NFC -> normalized added tokens cut out
 *          -> a space in front, if asked for -> patterns -> bytes -> merges
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/tokenizer_impl.h"
#include "format/tokenizer_normalize.h"

typedef struct encoder {
    const tsr_tokenizer *t;
    tsr_ids *ids;
    tsr_merge_space space;
} encoder;

static tsr_status put_id(void *arg, int32_t id)
{
    encoder *e = arg;
    TSR_TRY(tsr_ids_reserve(e->ids, 1));
    e->ids->id[e->ids->n++] = id;
    return TSR_OK;
}

static tsr_status encode_piece(void *arg, const char *bytes, size_t n)
{
    encoder *e = arg;
    if (e->t->ignore_merges) {
        const int32_t whole = tsr_tokenizer_find_spelled(e->t, bytes, n);
        if (whole >= 0) return put_id(e, whole);
    }
    TSR_TRY(tsr_ids_reserve(e->ids, n));
    int32_t *id = e->ids->id + e->ids->n;
    for (size_t i = 0; i < n; i++) id[i] = e->t->byte_id[(unsigned char)bytes[i]];
    size_t n_left;
    TSR_TRY(tsr_merge_piece(&e->t->merges, &e->space, id, n, &n_left));
    e->ids->n += n_left;
    return TSR_OK;
}

static tsr_status encode_plain(void *arg, const char *text, size_t n)
{
    encoder *e = arg;
    const tsr_tokenizer *t = e->t;
    if (!t->add_prefix_space || text[0] == ' ')
        return tsr_split(t->pattern, t->n_patterns, text, n, encode_piece, e);
    char *spaced = malloc(n + 1);
    if (spaced == NULL)
        return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory for %zu bytes of text", n + 1);
    spaced[0] = ' ';
    memcpy(spaced + 1, text, n);
    const tsr_status status = tsr_split(t->pattern, t->n_patterns, spaced, n + 1, encode_piece, e);
    free(spaced);
    return status;
}

static tsr_status encode_between(void *arg, const char *text, size_t n)
{
    encoder *e = arg;
    const tsr_added_visitor visitor = {.between = encode_plain, .found = put_id, .arg = e};
    if (!e->t->nfc) return tsr_added_set_cut(&e->t->normalized, text, n, &visitor);
    char *normal;
    size_t n_normal;
    TSR_TRY(tsr_nfc(text, n, &normal, &n_normal));
    const tsr_status status = n_normal < INT32_MAX
                                  ? tsr_added_set_cut(&e->t->normalized, normal, n_normal, &visitor)
                                  : tsr_fail(TSR_ERR_OVERFLOW, "tokenizer: the text has %zu bytes in NFC",
                                             n_normal);
    free(normal);
    return status;
}

tsr_status tsr_tokenizer_encode(const tsr_tokenizer *t, const char *text, size_t n, bool with_template,
                                tsr_ids *ids)
{
    if (n >= INT32_MAX)
        return tsr_fail(TSR_ERR_OVERFLOW, "tokenizer: the text has %zu bytes, must have less than 2^31 - 1",
                        n);
    encoder e = {.t = t, .ids = ids};
    const size_t n_before = ids->n;
    const tsr_added_visitor visitor = {.between = encode_between, .found = put_id, .arg = &e};
    tsr_status status = TSR_OK;
    for (int i = 0; with_template && status == TSR_OK && i < t->n_before; i++)
        status = put_id(&e, t->template_id[i]);
    if (status == TSR_OK) status = tsr_added_set_cut(&t->raw, text, n, &visitor);
    for (int i = t->n_before; with_template && status == TSR_OK && i < t->n_template; i++)
        status = put_id(&e, t->template_id[i]);
    if (status != TSR_OK) ids->n = n_before;
    tsr_merge_space_free(&e.space);
    return status;
}
