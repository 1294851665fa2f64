/* tests/kit/tape.h - operators and one-line calls for tests of the tape, on values [2, 2] in f64 */
#ifndef TSR_KIT_TAPE_H
#define TSR_KIT_TAPE_H

#include "kit/kit.h"
#include "tessera/tape.h"

enum { N = 4 }; /* elements of a value */

/* The tape of the running test, on the reference backend. */
extern tsr_tape *kit_tape;
int kit_tape_set_up(void **state);
int kit_tape_tear_down(void **state);

/* Two operators that live on the host, as the reference backend does; both add to gradients where asked. */
extern const tsr_tape_op kit_square_op;         /* x^2, of any shape                                     */
extern const tsr_tape_op kit_sum_difference_op; /* (a + b, a - b); the second's gradient may be absent   */
extern int kit_n_square_runs;                   /* how often the forward of the first has run            */

/* A result of x's shape. */
tsr_status kit_apply_like(const tsr_tape_op *op, tsr_var x, int in_place, tsr_var *y);

tsr_var kit_var_square(tsr_var x);
tsr_var kit_var_add(tsr_var a, tsr_var b);
tsr_var kit_var_sum(tsr_var x);

/* A parameter [2, 2], or an input where grad is NULL. */
tsr_var kit_var_leaf(double *value, double *grad);

void kit_check_equal(const double *got, const double *expected);

#endif
