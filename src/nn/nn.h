/* nn/nn.h - what layers share */
#ifndef TSR_NN_NN_H
#define TSR_NN_NN_H

#include "base/error.h"
#include "base/tensor.h"
#include "tessera/nn.h"
#include "tessera/tape_ops.h"

/* A layer's or a caller's optional tensor as a variable; none where it is absent. */
tsr_status tsr_optional_input(tsr_tape *tape, const tsr_tensor *t, tsr_var *out);
tsr_status tsr_optional_parameter(tsr_tape *tape, const tsr_parameter *p, tsr_var *out);

/* *x becomes `next`; the variable that it was is released. */
static inline void tsr_replace(tsr_tape *tape, tsr_var *x, tsr_var next)
{
    tsr_tape_release(tape, *x);
    *x = next;
}

#endif
