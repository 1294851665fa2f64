/* format/tokenizer_bytes.c - bytes as letters, letters as bytes, and what is UTF-8 */
#include "format/tokenizer_bytes.h"

#include <string.h>

static bool stands_for_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* The others take U+0100 on: 0x00..0x20 first, then 0x7F..0xA0, then 0xAD. */
static unsigned letter_of(unsigned byte)
{
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

static int byte_of(unsigned letter)
{
    if (letter < 0x100) return stands_for_itself(letter) ? (int)letter : -1;
    if (letter <= 0x120) return (int)letter - 0x100;
    if (letter <= 0x142) return (int)letter - 0x121 + 0x7F;
    return letter == 0x143 ? 0xAD : -1;
}

uint8_t tsr_byte_order(int rank)
{
    for (unsigned letter = 0x21;; letter++)
        if (byte_of(letter) >= 0 && rank-- == 0) return (uint8_t)byte_of(letter);
}

size_t tsr_bytes_spell(const char *bytes, size_t n, char *out)
{
    char *o = out;
    for (size_t i = 0; i < n; i++) {
        const unsigned letter = letter_of((unsigned char)bytes[i]);
        if (letter < 0x80) {
            *o++ = (char)letter;
        } else {
            *o++ = (char)(0xC0 | letter >> 6);
            *o++ = (char)(0x80 | (letter & 0x3F));
        }
    }
    return (size_t)(o - out);
}

bool tsr_bytes_unspell(const char *letters, size_t n, char *out, size_t *n_out)
{
    const unsigned char *p = (const unsigned char *)letters, *end = p + n;
    size_t n_bytes = 0;
    while (p < end) {
        unsigned letter = *p++;
        if (letter >= 0x80) { /* every letter above ASCII takes two bytes */
            if (p == end || (letter & 0xE0) != 0xC0) return false;
            letter = (letter & 0x1F) << 6 | (*p++ & 0x3F);
        }
        const int byte = byte_of(letter);
        if (byte < 0) return false;
        out[n_bytes++] = (char)byte;
    }
    *n_out = n_bytes;
    return true;
}

static bool in(unsigned char byte, unsigned low, unsigned high) { return byte >= low && byte <= high; }

/* Bytes of the well-formed character that the text begins with, 0 if it does not. */
static size_t character(const unsigned char *p, size_t n)
{
    if (n == 0) return 0;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || n < 2) return 0;
    if (p[0] < 0xE0) return in(p[1], 0x80, 0xBF) ? 2 : 0;
    if (n < 3) return 0;
    if (p[0] < 0xF0) /* no overlong forms, no surrogates */
        return in(p[1], p[0] == 0xE0 ? 0xA0 : 0x80, p[0] == 0xED ? 0x9F : 0xBF) && in(p[2], 0x80, 0xBF) ? 3
                                                                                                        : 0;
    if (n < 4 || p[0] > 0xF4) return 0;
    return in(p[1], p[0] == 0xF0 ? 0x90 : 0x80, p[0] == 0xF4 ? 0x8F : 0xBF) && in(p[2], 0x80, 0xBF) &&
                   in(p[3], 0x80, 0xBF)
               ? 4
               : 0;
}

size_t tsr_utf8_valid(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        const size_t step = character(p + i, n - i);
        if (step == 0) break;
        i += step;
    }
    return i;
}

size_t tsr_utf8_invalid(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && character((const unsigned char *)text + i, n - i) == 0) i++;
    return i;
}

/* Unicode's White_Space: 25 characters. */
static bool is_space(unsigned c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

size_t tsr_utf8_space_first(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    switch (character(p, n)) {
    case 1: return is_space(p[0]) ? 1 : 0;
    case 2: return is_space((p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu)) ? 2 : 0;
    case 3: return is_space((p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu)) ? 3 : 0;
    default: return 0;
    }
}

size_t tsr_utf8_space_last(const char *text, size_t n)
{
    for (size_t length = 1; length <= 3 && length <= n; length++)
        if (tsr_utf8_space_first(text + n - length, length) == length) return length;
    return 0;
}
