/* format/printable.h - text from a file, made fit for a message: short, and without control characters */
#ifndef TSR_FORMAT_PRINTABLE_H
#define TSR_FORMAT_PRINTABLE_H

#include <stddef.h>

typedef struct tsr_printable_text {
    char text[128];
} tsr_printable_text;

/* Control characters become '?'; what does not fit ends in "...", a cut UTF-8 sequence left out. */
static inline tsr_printable_text tsr_printable_n(const char *s, size_t n)
{
    tsr_printable_text p;
    const size_t room = sizeof p.text - 1, dots = 3;
    size_t kept = n;
    if (n > room) {
        kept = room - dots;
        while (kept > 0 && ((unsigned char)s[kept] & 0xc0) == 0x80) kept--;
    }
    for (size_t i = 0; i < kept; i++) p.text[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    if (n > room)
        for (size_t i = 0; i < dots; i++) p.text[kept++] = '.';
    p.text[kept] = '\0';
    return p;
}

static inline tsr_printable_text tsr_printable(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0') n++;
    return tsr_printable_n(s, n);
}

#endif
