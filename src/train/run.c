/* train/run.c - from the first step to the last: timing, evaluations, checkpoints, progress */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "train/checkpoint.h"

/* Steps before the clock counts (memory is fetched, caches fill), and steps that it counts. */
enum { UNTIMED_STEPS = 2, TIMED_STEPS = 6, RECENT = 16 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct run_clock {
    double start, timed_from, evaluation_s;
    int64_t first_step;    /* of this process: a resumed run may still have to be timed */
    double recent[RECENT]; /* seconds of the last steps */
    int64_t n_recent;
} run_clock;

static double mean_step(const run_clock *c)
{
    const int64_t n = c->n_recent < RECENT ? c->n_recent : RECENT;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += c->recent[i];
    return n > 0 ? sum / (double)n : NAN;
}

/* After the timed steps: as many as fit what is left of the time, evaluations and their checkpoints taken
 * off. */
static void fix_n_steps(tsr_trainer *t, const run_clock *c)
{
    const double step_s = (seconds() - c->timed_from) / TIMED_STEPS;
    const double left = 60 * t->options.minutes - (seconds() - c->start) -
                        c->evaluation_s * (double)(t->options.n_evaluations + 1);
    const double fitting = left > 0 ? left / step_s : 0;
    t->state.n_steps = t->state.step +
                       (int64_t)fmax(1, fmin(fitting, (double)(TSR_MAX_STEPS - t->state.step)));
}

static tsr_status append_history(tsr_trainer *t, double held_bits)
{
    tsr_train_point *grown = realloc(t->history, (size_t)(t->n_history + 1) * sizeof *grown);
    if (grown == NULL) return tsr_fail(TSR_ERR_MEMORY, "train: out of memory for the history");
    t->history = grown;
    const double loss = t->state.loss_n > 0 ? t->state.loss_sum / (double)t->state.loss_n : NAN;
    t->history[t->n_history++] = (tsr_train_point){(double)t->state.step, loss, held_bits};
    t->state.loss_sum = 0;
    t->state.loss_n = 0;
    return TSR_OK;
}

/* Measures, keeps the model if it is the best so far, and stores the run. */
static tsr_status evaluate_and_save(tsr_trainer *t, double *bits)
{
    TSR_TRY(tsr_trainer_evaluate(t, bits));
    TSR_TRY(append_history(t, *bits));
    if (*bits < t->state.best_bits) {
        TSR_TRY(tsr_weights_save(&t->weights, t->options.out));
        t->state.best_bits = *bits;
        t->state.best_step = t->state.step;
    }
    return tsr_checkpoint_write(t);
}

static bool is_due(const tsr_trainer *t)
{
    const tsr_train_state *s = &t->state;
    if (s->n_steps == 0) return false;
    if (s->step == s->n_steps) return true;
    const int64_t n = t->options.n_evaluations > 0 ? t->options.n_evaluations : 1;
    /* Evaluation i comes after step n_steps * i / n. */
    const int64_t i = s->step * n / s->n_steps;
    return s->step > 0 && i > (s->step - 1) * n / s->n_steps;
}

static void report(const tsr_trainer *t, const tsr_train_hooks *hooks, const run_clock *c, double loss,
                   double bits, bool evaluated)
{
    if (hooks->progress == NULL) return;
    const double step_s = mean_step(c);
    const double left = t->state.n_steps > 0 ? step_s * (double)(t->state.n_steps - t->state.step) : NAN;
    const tsr_train_progress p = {.trainer = t,
                                  .loss = loss,
                                  .held_bits = bits,
                                  .tokens_per_s = (double)tsr_trainer_step_tokens(t) / step_s,
                                  .seconds_left = left,
                                  .evaluated = evaluated};
    hooks->progress(hooks->user, &p);
}

/* With a time to keep to: times an evaluation as well, before the steps that the clock counts. */
static tsr_status start_clock(tsr_trainer *t, run_clock *c)
{
    const double start = seconds();
    double bits;
    TSR_TRY(tsr_trainer_evaluate(t, &bits));
    c->evaluation_s = 1.3 * (seconds() - start) + 0.2; /* and the files that follow it */
    c->timed_from = seconds();
    return TSR_OK;
}

tsr_status tsr_trainer_run(tsr_trainer *t, const tsr_train_hooks *hooks, bool *finished)
{
    run_clock c = {.start = seconds(), .first_step = t->state.step};
    double bits = t->n_history > 0 ? t->history[t->n_history - 1].held_bits : NAN;
    tsr_train_state *s = &t->state;
    while (s->n_steps == 0 || s->step < s->n_steps) {
        if (hooks->stop != NULL && *hooks->stop) {
            *finished = false;
            return tsr_checkpoint_write(t);
        }
        const bool timing = s->n_steps == 0;
        if (timing && s->step - c.first_step == UNTIMED_STEPS) TSR_TRY(start_clock(t, &c));
        const double start = seconds();
        double loss;
        TSR_TRY(tsr_trainer_step(t, &loss));
        c.recent[c.n_recent++ % RECENT] = seconds() - start;
        if (timing && s->step - c.first_step == UNTIMED_STEPS + TIMED_STEPS) fix_n_steps(t, &c);
        const bool due = is_due(t);
        if (due) TSR_TRY(evaluate_and_save(t, &bits));
        report(t, hooks, &c, loss, bits, due);
    }
    *finished = true;
    return TSR_OK;
}
