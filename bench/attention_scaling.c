/*
 * bench/attention_scaling.c - time and memory over the length: what is fused grows with L squared in time
 * alone
 *
 * L doubles until a call would take too long; the unfused path ends sooner, where its scores would fill the
 * memory or its time is up.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "attention_impl.h"
#include "base/error.h"
#include "bench_impl.h"
#include "chart.h"
#include "format/file.h"

enum { FIRST_L = 128, N_LENGTHS = 8, LEAST_LENGTHS = 2 }; /* the first ones, however long they take */

/* Seconds that one call may take, fewer where a row has less than a second, and bytes that an unfused
 * workspace may have. */
#define LONGEST_CALL    3.5
#define LARGEST_UNFUSED 5e9

typedef struct scaling {
    attention_problem p; /* of the last length */
    attention_figures figures[N_LENGTHS];
    int n;
} scaling;

static tsr_status problem_of(const bench_attention_options *options, int64_t l, attention_problem *out)
{
    bench_attention_options at_l = *options;
    attention_list list = {0};
    at_l.lq = at_l.lk = l;
    tsr_status status = attention_list_shape(&at_l, &list);
    if (status == TSR_OK) *out = list.items[0];
    free(list.items);
    return status;
}

tsr_status attention_check_scaling(const bench_attention_options *options)
{
    attention_problem p;
    tsr_writer *writer = NULL;
    TSR_TRY(problem_of(options, FIRST_L, &p));
    const tsr_status status = tsr_writer_open(options->svg, &writer);
    if (status != TSR_OK) return tsr_fail_within(status, "--svg");
    tsr_writer_discard(writer);
    return TSR_OK;
}

static tsr_status measure(bench *b, const bench_attention_options *options, scaling *s)
{
    const double longest = LONGEST_CALL * fmin(1, b->options.scale);
    attention_effort effort = {.is_quick = true, .most_unfused_nbytes = LARGEST_UNFUSED};
    for (int64_t l = FIRST_L; s->n < N_LENGTHS; l *= 2) {
        attention_figures *f = &s->figures[s->n];
        TSR_TRY(problem_of(options, l, &s->p));
        TSR_TRY(attention_measure(b, &s->p, &effort, f));
        if (f->operands_nbytes == 0) break; /* left out: too little memory */
        s->n++;
        const double grown = 4e-3; /* of twice the length, in seconds of its milliseconds */
        if (f->has_unfused && f->time.rivals_ms[0] * grown > longest) effort.unfused_too_slow = longest;
        if (s->n < LEAST_LENGTHS || s->n == N_LENGTHS || !(f->time.ms * grown > longest)) continue;
        fprintf(stderr, "--svg: ends at L %" PRId64 ": at %" PRId64 " a call would take longer than %g s%s\n",
                l, 2 * l, longest, b->options.scale < 1 ? " (--seconds shortens that)" : "");
        break;
    }
    return s->n > 1 ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "--svg: one length alone could be measured");
}

static const char *const colours[] = {"#1f6fb4", "#c8431f", "#2e8b57", "#8a4fb0", "#b08a00", "#555555"};
enum { N_COLOURS = sizeof colours / sizeof *colours };
static const char floor_colour[] = "#222222";

static chart_curve *add_curve(chart *c, const char *name, const char *colour, bool dashed)
{
    chart_curve *curve = &c->curves[c->n_curves++];
    *curve = (chart_curve){.name = name, .colour = colour, .dashed = dashed};
    for (int j = 0; j < CHART_MAX_POINTS; j++) curve->y[j] = (double)NAN;
    return curve;
}

/* The rival of that name at a length; NAN if it did not take part. */
static double rival_ms(const attention_figures *f, const char *name)
{
    for (int r = 0; r < f->n_rivals; r++)
        if (f->rivals[r] == name) return f->time.rivals_ms[r];
    return (double)NAN;
}

static void add_times(const scaling *s, chart *c)
{
    const attention_figures *first = &s->figures[0];
    chart_curve *fused = add_curve(c, "fused", colours[0], false);
    for (int j = 0; j < s->n; j++) fused->y[j] = s->figures[j].time.ms;
    for (int r = 0; r < first->n_rivals && c->n_curves + 1 < CHART_MAX_CURVES; r++) {
        chart_curve *rival = add_curve(c, first->rivals[r], colours[(r + 1) % N_COLOURS], false);
        for (int j = 0; j < s->n; j++) rival->y[j] = rival_ms(&s->figures[j], first->rivals[r]);
    }
    chart_curve *floor = add_curve(c, "floor: this machine's peaks", floor_colour, true);
    for (int j = 0; j < s->n; j++) floor->y[j] = s->figures[j].time.floor_ms;
}

static void add_memory(const scaling *s, chart *c)
{
    chart_curve *fused = add_curve(c, "fused", colours[0], false);
    chart_curve *unfused = add_curve(c, "unfused", colours[1], false);
    chart_curve *floor = add_curve(c, "floor: the tensors alone", floor_colour, true);
    for (int j = 0; j < s->n; j++) {
        const attention_figures *f = &s->figures[j];
        fused->y[j] = (f->operands_nbytes + f->fused_nbytes) * 0x1p-20;
        if (f->has_unfused) unfused->y[j] = (f->operands_nbytes + f->unfused_nbytes) * 0x1p-20;
        floor->y[j] = f->operands_nbytes * 0x1p-20;
    }
}

static tsr_status draw(bench *b, const scaling *s, const char *path)
{
    enum { WIDTH = 960, HEIGHT = 480, PANEL = 390, TALL = 330, TOP = 88 };
    const attention_problem *p = &s->p;
    chart times = {.title = "time of a call, ms",
                   .x_title = "L, queries and keys",
                   .left = 64,
                   .top = TOP,
                   .width = PANEL,
                   .height = TALL,
                   .n = s->n};
    for (int j = 0; j < s->n; j++) times.x[j] = (double)((int64_t)FIRST_L << j);
    chart memory = times;
    memory.left += PANEL + 82;
    memory.title = "memory, tensors and workspace, MiB";
    add_times(s, &times);
    add_memory(s, &memory);
    tsr_svg svg = tsr_svg_begin(WIDTH, HEIGHT);
    tsr_svg_draw(
        &svg,
        "<text x='64' y='30' font-size='16' font-weight='bold'>Attention %s, fused and unfused</text>\n",
        attention_pass_names[p->pass]);
    tsr_svg_draw(&svg, "<text x='64' y='48'>%s%s, batch %" PRId64 ", heads %" PRId64,
                 tsr_dtype_name((tsr_dtype)p->dtype), p->causal ? ", causal" : "", p->b, p->hq);
    if (p->hq != p->hkv) tsr_svg_draw(&svg, " over %" PRId64, p->hkv);
    tsr_svg_draw(&svg, ", head size %" PRId64 ", %d threads; both axes logarithmic</text>\n", p->d,
                 (int)tsr_context_n_threads(b->ctx));
    chart_draw(&times, &svg);
    chart_draw(&memory, &svg);
    return tsr_svg_save(&svg, path);
}

tsr_status attention_scaling(bench *b, const bench_attention_options *options)
{
    scaling *s = calloc(1, sizeof *s);
    if (s == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    tsr_status status = measure(b, options, s);
    if (status == TSR_OK) status = draw(b, s, options->svg);
    free(s);
    return status;
}
