/*
 * train/schedule.h - the learning rate of a step: linear warm-up, then a cosine down to a tenth
 *
 *     lr |   /~~~\__
 *        |  /       \__          warm-up: the first `warmup` steps
 *        | /           \___      end: 0.1 of the peak at step n_steps
 *        +------------------> step
 *
 * (Loshchilov and Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts")
 */
#ifndef TSR_TRAIN_SCHEDULE_H
#define TSR_TRAIN_SCHEDULE_H

#include <math.h>
#include <stdint.h>

typedef struct tsr_schedule {
    double peak;
    int64_t warmup, n_steps;
} tsr_schedule;

/* step from 0. */
static inline double tsr_schedule_lr(const tsr_schedule *s, int64_t step)
{
    const double least = 0.1, pi = 3.14159265358979323846;
    if (step < s->warmup) return s->peak * (double)(step + 1) / (double)s->warmup;
    const double span = (double)(s->n_steps - s->warmup);
    const double progress = span > 0 ? fmin((double)(step - s->warmup) / span, 1) : 1;
    return s->peak * (least + (1 - least) * 0.5 * (1 + cos(pi * progress)));
}

#endif
