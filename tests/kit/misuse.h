/*
 * tests/kit/misuse.h - a call that must be refused is refused, by name, and leaves everything as it was
 */
#ifndef TSR_KIT_MISUSE_H
#define TSR_KIT_MISUSE_H

#include "kit/operators.h"
#include "kit/tensor.h"

/* KIT_FAILS, and no tensor of the kit has changed. */
#define KIT_REFUSES(expected, words, call)                                                                   \
    do {                                                                                                     \
        kit_seal();                                                                                          \
        KIT_FAILS(expected, words, call);                                                                    \
        kit_check_sealed(#call);                                                                             \
    } while (0)

/*
 * All that can go wrong with any operator: each argument NULL, without data, of an unknown dtype, on another
 * device, of a wrong rank, extent or size, each output upon itself, an input or another output; the context
 * NULL, busy, or of a backend that lacks the operator; the workspace too small. `op` first runs as it is, so
 * that each failure is due to the one thing that was changed.
 */
void kit_misuse(tsr_context *ctx, const kit_operator *op);

/* A context whose backend has no operators. */
tsr_context *kit_without_operators(void);

#endif
