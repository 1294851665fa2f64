/* format/svg.c - a text that grows, and its file */
#include "format/svg.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/file.h"

void tsr_svg_draw(tsr_svg *svg, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(line, sizeof line, format, args), most = sizeof line - 1;
    va_end(args);
    const int n = length < most ? length : most;
    if (svg->n + (size_t)n + 1 > svg->capacity) {
        const size_t capacity = 2 * svg->capacity + sizeof line;
        char *grown = realloc(svg->text, capacity);
        svg->failed |= grown == NULL;
        if (grown == NULL) return;
        svg->text = grown, svg->capacity = capacity;
    }
    memcpy(svg->text + svg->n, line, (size_t)n);
    svg->n += (size_t)n;
}

tsr_svg tsr_svg_begin(int width, int height)
{
    tsr_svg svg = {0};
    tsr_svg_draw(&svg,
                 "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
                 "font-size='12' fill='#444'>\n",
                 width, height);
    tsr_svg_draw(&svg, "<rect width='%d' height='%d' fill='white'/>\n", width, height);
    return svg;
}

static tsr_status write_file(const char *path, const char *text, size_t n)
{
    tsr_writer *writer = NULL;
    TSR_TRY(tsr_writer_open(path, &writer));
    const tsr_status status = tsr_writer_write(writer, text, n);
    if (status == TSR_OK) return tsr_writer_commit(writer);
    tsr_writer_discard(writer);
    return status;
}

tsr_status tsr_svg_save(tsr_svg *svg, const char *path)
{
    tsr_svg_draw(svg, "</svg>\n");
    const tsr_status status = svg->failed ? tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", path)
                                          : write_file(path, svg->text, svg->n);
    free(svg->text);
    *svg = (tsr_svg){0};
    return status;
}
