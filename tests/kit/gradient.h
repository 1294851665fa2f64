/*
 * tests/kit/gradient.h - a backward against differences of its forward, in f64
 *
 *     f'(x) = (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12 h  +  O(h^4),     h = 2^-10
 *
 * h is a power of two, so that an f32 input (a sink) with a few bits to spare moves by exactly h too.
 */
#ifndef TSR_KIT_GRADIENT_H
#define TSR_KIT_GRADIENT_H

#include "kit/tensor.h"

/* A number that depends on the tensors that `arg` leads to. */
typedef double (*kit_loss)(void *arg);

/*
 * Moves elements of x, all or a random sample of a few dozen, and holds the change of the loss against dx,
 * the gradient that a backward wrote. x is left as it was.
 */
void kit_check_gradient(const tsr_tensor *x, const tsr_tensor *dx, kit_loss loss, void *arg, const char *what,
                        ...) __attribute__((format(printf, 5, 6)));

/* sum of a * b over one shape: the loss whose gradient of a is b. Entries where a is -inf count as 0. */
double kit_dot(const tsr_tensor *a, const tsr_tensor *b);

#endif
