/*
 * format/svg.h - pictures: lines of SVG that pile up in memory, then a file as a whole
 *
 * No mistake is reported until tsr_svg_save: a drawing that ran out of memory is not written.
 */
#ifndef TSR_FORMAT_SVG_H
#define TSR_FORMAT_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "tessera/status.h"

typedef struct tsr_svg {
    char *text;
    size_t n, capacity;
    bool failed;
} tsr_svg;

/* White, of so many pixels. A zeroed struct is a valid argument of the functions below, an empty text. */
tsr_svg tsr_svg_begin(int width, int height);

/* Adds to the text, at most 255 characters a call; elements are the caller's. */
void tsr_svg_draw(tsr_svg *svg, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the picture, writes it and releases it, whatever becomes of it. Replaces the file, whole. */
tsr_status tsr_svg_save(tsr_svg *svg, const char *path);

#endif
