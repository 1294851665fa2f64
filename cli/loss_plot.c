/*
 * cli/loss_plot.c - two curves over the steps on one axis: bits a byte of the training and the held-out text
 *
 * The training loss is a mean over tokens, in nats; the text's tokens per byte make bits a byte of it, so
 * that the distance between the curves is what the model learned by heart.
 */
#include "loss_plot.h"

#include <math.h>

#include "format/svg.h"

enum { WIDTH = 720, HEIGHT = 400, LEFT = 60, RIGHT = 690, TOP = 20, BOTTOM = 350 };

typedef struct curve {
    const tsr_train_point *point;
    int64_t n;
    double bits_per_nat; /* a nat of a token in bits a byte, for the training loss */
} curve;

enum { TRAINING, HELD_OUT };

static double value_at(const curve *c, int64_t i, int which)
{
    return which == TRAINING ? c->point[i].loss * c->bits_per_nat : c->point[i].held_bits;
}

/* From `low` to `high` in steps of 1, 2 or 5 times a power of ten, four to ten of them. */
typedef struct axis {
    double low, high, step;
} axis;

static axis round_axis(double low, double high)
{
    if (!(high > low)) high = low + 1;
    const double power = pow(10, floor(log10((high - low) / 4))), steps = (high - low) / power / 4;
    const double step = power * (steps >= 5 ? 5 : steps >= 2 ? 2 : 1);
    return (axis){floor(low / step) * step, ceil(high / step) * step, step};
}

static axis value_axis(const curve *c)
{
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < c->n; i++)
        for (int which = TRAINING; which <= HELD_OUT; which++) {
            const double y = value_at(c, i, which);
            if (isfinite(y)) low = fmin(low, y), high = fmax(high, y);
        }
    return low <= high ? round_axis(low, high) : (axis){0, 1, 0.5};
}

static double x_at(double step, double last) { return LEFT + (RIGHT - LEFT) * (last > 0 ? step / last : 0); }
static double y_at(double y, axis a) { return BOTTOM - (BOTTOM - TOP) * (y - a.low) / (a.high - a.low); }

static void draw_frame(tsr_svg *d, axis values, double last)
{
    for (double y = values.low; y < values.high + values.step / 2; y += values.step) {
        tsr_svg_draw(d, "<path d='M%d %.1fH%d' stroke='#ddd'/>\n", LEFT, y_at(y, values), RIGHT);
        tsr_svg_draw(d, "<text x='%d' y='%.1f' text-anchor='end'>%.4g</text>\n", LEFT - 8,
                     y_at(y, values) + 4, y);
    }
    const axis steps = round_axis(0, last);
    for (double x = fmax(steps.step, 1); x <= last; x += fmax(steps.step, 1))
        tsr_svg_draw(d, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n", x_at(x, last),
                     BOTTOM + 18, x);
    tsr_svg_draw(d, "<text x='%d' y='%d' text-anchor='middle'>steps</text>\n", (LEFT + RIGHT) / 2,
                 BOTTOM + 38);
}

static void draw_curve(tsr_svg *d, const curve *c, int which, axis values, double last)
{
    static const char *const colours[] = {"#1f6fb4", "#c8431f"};
    static const char *const names[] = {"training, bits a byte", "held out, bits a byte"};
    tsr_svg_draw(d, "<polyline fill='none' stroke='%s' stroke-width='2' points='", colours[which]);
    for (int64_t i = 0; i < c->n; i++) {
        const double y = value_at(c, i, which);
        if (isfinite(y)) tsr_svg_draw(d, "%.1f,%.1f ", x_at(c->point[i].step, last), y_at(y, values));
    }
    tsr_svg_draw(d, "'/>\n");
    tsr_svg_draw(d, "<text x='%d' y='%d' fill='%s' text-anchor='end'>%s</text>\n", RIGHT - 8,
                 TOP + 20 + 18 * which, colours[which], names[which]);
}

tsr_status plot_loss(const char *path, const tsr_trainer *t)
{
    const curve c = {t->history, t->n_history,
                     (double)t->data.train.n / (double)t->data.train_nbytes / log(2)};
    const double last = c.n > 0 ? c.point[c.n - 1].step : 1;
    const axis values = value_axis(&c);
    tsr_svg d = tsr_svg_begin(WIDTH, HEIGHT);
    draw_frame(&d, values, last);
    for (int which = TRAINING; which <= HELD_OUT; which++) draw_curve(&d, &c, which, values, last);
    return tsr_svg_save(&d, path);
}
