/*
 * format/tokenizer_bytes.h - bytes as letters, letters as bytes, and what is UTF-8
 *
 * A byte-level vocabulary is stored in JSON with one printable letter per byte. The 188 bytes
 * that are printable in Latin-1 stand for themselves; the others, in order, for U+0100 on:
 *
 *     byte    21..7E  A1..AC  AE..FF | 00..20       7F..A0       AD
 *     letter  21..7E  A1..AC  AE..FF | 100..120     121..142     143
 */
#ifndef TSR_FORMAT_TOKENIZER_BYTES_H
#define TSR_FORMAT_TOKENIZER_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The byte whose letter comes `rank`-th when the 256 letters are sorted. */
uint8_t tsr_byte_order(int rank);

/* Spells `n` bytes as letters: at most 2 n bytes of UTF-8 at `out`; returns how many. */
size_t tsr_bytes_spell(const char *bytes, size_t n, char *out);

/* The opposite, at most `n` bytes at `out`; false where a character is not one of the letters. */
bool tsr_bytes_unspell(const char *letters, size_t n, char *out, size_t *n_out);

/* Bytes in the longest well-formed UTF-8 beginning of the text (Unicode, table 3-7). */
size_t tsr_utf8_valid(const char *text, size_t n);

/* Bytes until well-formed UTF-8 begins again. */
size_t tsr_utf8_invalid(const char *text, size_t n);

/* Bytes of the Unicode white space that the text begins with, or ends with; one character, 0 if none. */
size_t tsr_utf8_space_first(const char *text, size_t n);
size_t tsr_utf8_space_last(const char *text, size_t n);

#endif
