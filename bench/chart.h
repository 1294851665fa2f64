/* bench/chart.h - curves over powers of two, both axes logarithmic, as part of a picture */
#ifndef TSR_BENCH_CHART_H
#define TSR_BENCH_CHART_H

#include "format/svg.h"

enum { CHART_MAX_POINTS = 24, CHART_MAX_CURVES = 8 };

typedef struct chart_curve {
    const char *name, *colour;
    bool dashed;
    double y[CHART_MAX_POINTS]; /* NAN: no point there */
} chart_curve;

/* The curves, with axes, a grid and a legend. */
typedef struct chart {
    const char *title, *x_title;
    double left, top, width, height; /* of the field inside the axes */
    double x[CHART_MAX_POINTS];
    int n; /* points of each curve */
    chart_curve curves[CHART_MAX_CURVES];
    int n_curves;
} chart;

void chart_draw(const chart *c, tsr_svg *svg);

#endif
