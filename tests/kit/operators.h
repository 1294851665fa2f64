/*
 * tests/kit/operators.h - every public operator once, with arguments it accepts
 *
 * What must hold for all of them is tested over this list: misuse is refused, results do not depend on the
 * device. A call's tensors are named as in messages; run() takes them by position, NULL where absent, so
 * that a test may exchange one for another.
 */
#ifndef TSR_KIT_OPERATORS_H
#define TSR_KIT_OPERATORS_H

#include <stdbool.h>

#include "tessera/context.h"

enum { KIT_MAX_ARGUMENTS = 20 };

typedef enum kit_role { KIT_IN, KIT_OUT, KIT_INOUT } kit_role;

typedef struct kit_argument {
    const char *name;
    tsr_tensor t;
    kit_role role;
    bool optional;      /* may be NULL                                                              */
    bool raw;           /* passed as a pointer and strides: no rank, dtype or device to be wrong    */
    bool any_dtype;     /* f64 and integers too, on every backend                                   */
    bool contiguous;    /* other strides are refused for their own sake                             */
    int32_t n_strides;  /* how many of its strides the operator is told; the others are 1 or follow */
    unsigned may_be;    /* bit i: this output may be the same view as argument i                    */
    unsigned free_dims; /* bit d: no other argument says what extent d must be                      */
} kit_argument;

typedef struct kit_call {
    kit_argument arg[KIT_MAX_ARGUMENTS];
    int32_t n;
} kit_call;

typedef struct kit_operator {
    const char *name; /* as its messages begin */
    void (*build)(kit_call *call);
    tsr_status (*run)(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws);
    tsr_status (*query)(tsr_context *ctx, const tsr_tensor *const *t, size_t *out); /* NULL: none */
    /* Fills inputs that follow from the others, such as what forward saved, by the reference. NULL: none */
    void (*prepare)(const tsr_tensor *const *t);
} kit_operator;

/* Lists that end with a NULL name. */
extern const kit_operator kit_gemm_operators[], kit_attention_operators[], kit_other_operators[];

/* Runs fn for each operator of all lists. */
void kit_for_each_operator(void (*fn)(const kit_operator *op, void *arg), void *arg);

/* For build functions: appends an argument; optional, may_be and the like are set on what is returned. */
kit_argument *kit_add(kit_call *call, kit_role role, const char *name, tsr_tensor t);

/* The call's tensors by position. */
typedef struct kit_tensors {
    const tsr_tensor *at[KIT_MAX_ARGUMENTS];
} kit_tensors;
kit_tensors kit_tensors_of(const kit_call *call);

#endif
