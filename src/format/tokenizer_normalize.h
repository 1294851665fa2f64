/* format/tokenizer_normalize.h - the NFC normalizer, where utf8proc is built in */
#ifndef TSR_FORMAT_TOKENIZER_NORMALIZE_H
#define TSR_FORMAT_TOKENIZER_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "tessera/status.h"

/* False: a file that asks for NFC is refused. */
bool tsr_has_nfc(void);

/* The text in NFC, malloc-ed (NULL for an empty one); bytes that are not UTF-8 stay, and part the text. */
tsr_status tsr_nfc(const char *text, size_t n, char **out, size_t *n_out);

#endif
