/* bench/chart.c - the axes, the grid, the curves, the legend */
#include "chart.h"

#include <math.h>

/* The decades that hold every point. */
typedef struct decades {
    double low, high; /* powers of ten, as exponents */
} decades;

static decades decades_of(const chart *c)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < c->n_curves; i++)
        for (int j = 0; j < c->n; j++) {
            const double y = c->curves[i].y[j];
            if (!(y > 0) || !isfinite(y)) continue;
            low = fmin(low, log10(y));
            high = fmax(high, log10(y));
        }
    if (low > high) return (decades){0, 1};
    return (decades){floor(low), fmax(ceil(high), floor(low) + 1)};
}

static double x_at(const chart *c, double x)
{
    const double first = log2(c->x[0]), last = log2(c->x[c->n - 1]);
    return c->left + c->width * (last > first ? (log2(x) - first) / (last - first) : 0.5);
}

static double y_at(const chart *c, decades d, double y)
{
    return c->top + c->height * (1 - (log10(y) - d.low) / (d.high - d.low));
}

static void draw_axes(const chart *c, decades d, tsr_svg *svg)
{
    const double bottom = c->top + c->height, right = c->left + c->width;
    for (double e = d.low; e <= d.high; e++) {
        const double y = y_at(c, d, pow(10, e));
        tsr_svg_draw(svg, "<path d='M%.1f %.1fH%.1f' stroke='#ddd'/>\n", c->left, y, right);
        tsr_svg_draw(svg, "<text x='%.1f' y='%.1f' text-anchor='end'>%g</text>\n", c->left - 8, y + 4,
                     pow(10, e));
        for (int i = 2; i < 10 && e < d.high; i++)
            tsr_svg_draw(svg, "<path d='M%.1f %.1fh4' stroke='#999'/>\n", c->left,
                         y_at(c, d, i * pow(10, e)));
    }
    for (int j = 0; j < c->n; j++) {
        const double x = x_at(c, c->x[j]);
        tsr_svg_draw(svg, "<path d='M%.1f %.1fV%.1f' stroke='#eee'/>\n", x, c->top, bottom);
        tsr_svg_draw(svg, "<text x='%.1f' y='%.1f' text-anchor='middle'>%.0f</text>\n", x, bottom + 18,
                     c->x[j]);
    }
    tsr_svg_draw(svg, "<path d='M%.1f %.1fV%.1fH%.1f' fill='none' stroke='#999'/>\n", c->left, c->top, bottom,
                 right);
    tsr_svg_draw(svg, "<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>\n", c->left + c->width / 2,
                 bottom + 38, c->x_title);
    tsr_svg_draw(svg, "<text x='%.1f' y='%.1f' font-size='13' font-weight='bold'>%s</text>\n", c->left,
                 c->top - 10, c->title);
}

static void draw_curve(const chart *c, decades d, const chart_curve *curve, tsr_svg *svg)
{
    const char *dashes = curve->dashed ? " stroke-dasharray='6 4'" : "";
    tsr_svg_draw(svg, "<polyline fill='none' stroke='%s' stroke-width='2'%s points='", curve->colour, dashes);
    for (int j = 0; j < c->n; j++)
        if (curve->y[j] > 0 && isfinite(curve->y[j]))
            tsr_svg_draw(svg, "%.1f,%.1f ", x_at(c, c->x[j]), y_at(c, d, curve->y[j]));
    tsr_svg_draw(svg, "'/>\n");
    for (int j = 0; j < c->n && !curve->dashed; j++)
        if (curve->y[j] > 0 && isfinite(curve->y[j]))
            tsr_svg_draw(svg, "<circle cx='%.1f' cy='%.1f' r='2.5' fill='%s'/>\n", x_at(c, c->x[j]),
                         y_at(c, d, curve->y[j]), curve->colour);
}

/* At the upper left, which growing curves leave free. */
static void draw_legend(const chart *c, tsr_svg *svg)
{
    const double x = c->left + 14;
    tsr_svg_draw(svg, "<rect x='%.1f' y='%.1f' width='205' height='%d' fill='white' fill-opacity='0.85'/>\n",
                 x - 4, c->top + 6, 18 * c->n_curves + 6);
    for (int i = 0; i < c->n_curves; i++) {
        const chart_curve *curve = &c->curves[i];
        const double y = c->top + 20 + 18 * i;
        tsr_svg_draw(svg, "<path d='M%.1f %.1fh26' stroke='%s' stroke-width='2'%s/>\n", x, y - 4,
                     curve->colour, curve->dashed ? " stroke-dasharray='6 4'" : "");
        tsr_svg_draw(svg, "<text x='%.1f' y='%.1f'>%s</text>\n", x + 34, y, curve->name);
    }
}

void chart_draw(const chart *c, tsr_svg *svg)
{
    const decades d = decades_of(c);
    draw_axes(c, d, svg);
    for (int i = 0; i < c->n_curves; i++) draw_curve(c, d, &c->curves[i], svg);
    draw_legend(c, svg);
}
