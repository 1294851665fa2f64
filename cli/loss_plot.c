/*
 * cli/loss_plot.c - two curves over steps, each on its own axis: left the training loss (nats a token), right
 * the held-out text (bits a byte)
 */
#include "loss_plot.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/file.h"

enum { WIDTH = 720, HEIGHT = 400, LEFT = 60, RIGHT = 660, TOP = 40, BOTTOM = 350, TICKS = 5 };

typedef struct drawing {
    char *text;
    size_t n, capacity;
    bool failed;
} drawing;

static void draw(drawing *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void draw(drawing *d, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(line, sizeof line, format, args), most = sizeof line - 1;
    va_end(args);
    const int n = length < most ? length : most;
    if (d->n + (size_t)n + 1 > d->capacity) {
        const size_t capacity = 2 * d->capacity + sizeof line;
        char *grown = realloc(d->text, capacity);
        d->failed |= grown == NULL;
        if (grown == NULL) return;
        d->text = grown, d->capacity = capacity;
    }
    memcpy(d->text + d->n, line, (size_t)n);
    d->n += (size_t)n;
}

typedef struct axis {
    double low, high;
} axis;

static double column_of(const tsr_train_point *p, int column) { return column == 0 ? p->loss : p->held_bits; }

static axis range_of(const tsr_train_point *history, int64_t n, int column)
{
    axis a = {INFINITY, -INFINITY};
    for (int64_t i = 0; i < n; i++) {
        const double y = column_of(&history[i], column);
        if (isfinite(y)) a.low = fmin(a.low, y), a.high = fmax(a.high, y);
    }
    if (!(a.low <= a.high)) return (axis){0, 1};
    if (a.low == a.high) a.high = a.low + 1;
    return a;
}

static double x_at(double step, double last) { return LEFT + (RIGHT - LEFT) * (last > 0 ? step / last : 0); }
static double y_at(double y, axis a) { return BOTTOM - (BOTTOM - TOP) * (y - a.low) / (a.high - a.low); }

static void draw_curve(drawing *d, const tsr_train_point *history, int64_t n, int column, axis a,
                       const char *colour)
{
    const double last = n > 0 ? history[n - 1].step : 1;
    draw(d, "<polyline fill='none' stroke='%s' stroke-width='2' points='", colour);
    for (int64_t i = 0; i < n; i++) {
        const double y = column_of(&history[i], column);
        if (isfinite(y)) draw(d, "%.1f,%.1f ", x_at(history[i].step, last), y_at(y, a));
    }
    draw(d, "'/>\n");
    for (int i = 0; i < TICKS; i++) {
        const double y = a.low + (a.high - a.low) * i / (TICKS - 1);
        draw(d, "<text x='%d' y='%.1f' fill='%s' text-anchor='%s'>%.4g</text>\n",
             column == 0 ? LEFT - 6 : RIGHT + 6, y_at(y, a) + 4, colour, column == 0 ? "end" : "start", y);
    }
}

static void draw_frame(drawing *d, double last)
{
    draw(d,
         "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
         "font-size='12'>\n",
         WIDTH, HEIGHT);
    draw(d, "<rect width='%d' height='%d' fill='white'/>\n", WIDTH, HEIGHT);
    draw(d, "<path d='M%d %dV%dH%dV%d' fill='none' stroke='#999'/>\n", LEFT, TOP, BOTTOM, RIGHT, TOP);
    for (int i = 0; i < TICKS; i++) {
        const double step = last * i / (TICKS - 1);
        draw(d, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n", x_at(step, last), BOTTOM + 18,
             step);
    }
    draw(d, "<text x='%d' y='%d' text-anchor='middle'>steps</text>\n", (LEFT + RIGHT) / 2, BOTTOM + 38);
}

tsr_status plot_loss(const char *path, const tsr_train_point *history, int64_t n)
{
    static const char *const colours[2] = {"#1f6fb4", "#c8431f"};
    static const char *const labels[2] = {"training loss, nats a token", "held out, bits a byte"};
    drawing d = {0};
    draw_frame(&d, n > 0 ? history[n - 1].step : 1);
    for (int column = 0; column < 2; column++) {
        draw_curve(&d, history, n, column, range_of(history, n, column), colours[column]);
        draw(&d, "<text x='%d' y='22' fill='%s' text-anchor='%s'>%s</text>\n", column == 0 ? LEFT : RIGHT,
             colours[column], column == 0 ? "start" : "end", labels[column]);
    }
    draw(&d, "</svg>\n");
    tsr_writer *writer = NULL;
    tsr_status status = d.failed ? tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", path)
                                 : tsr_writer_open(path, &writer);
    if (status == TSR_OK) {
        status = tsr_writer_write(writer, d.text, d.n);
        if (status == TSR_OK)
            status = tsr_writer_commit(writer);
        else
            tsr_writer_discard(writer);
    }
    free(d.text);
    return status;
}
