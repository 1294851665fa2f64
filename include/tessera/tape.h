/*
 * tessera/tape.h - autograd: operators are recorded on variables and played backwards
 *
 * A variable is a value (a tensor) and, where one is wanted, its gradient. Applying an operator to variables
 * runs it at once and writes down what its backward will need; tsr_tape_backward then visits the operators
 * from last to first, and every variable's gradient is the sum of what its users contribute.
 *
 * One step: parameters and inputs become variables, operators make further ones, backward, tsr_tape_reset.
 * Handles are small values that belong to their step; the tape owns what they name, so that code which
 * returns early on an error leaks nothing.
 *
 * Memory comes from a pool on the context's device that is kept between steps: a value lives until its handle
 * is released (tsr_tape_release) and the backwards that read it have run; its memory then serves the next.
 * Where nothing is recorded (no input wants a gradient, or recording is off) released values go at once, so
 * that the same code serves inference. The tape never reads a tensor's data.
 *
 * An operator of one's own is a tsr_tape_op: examples/custom_operator.c is a worked example.
 */
#ifndef TESSERA_TAPE_H
#define TESSERA_TAPE_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_tape tsr_tape;

/* A variable of the current step; all-zero means none. */
typedef struct tsr_var {
    uint32_t id, step;
} tsr_var;

/*
 * A tensor that outlives steps, and where its gradient is added up; both are the caller's. grad.data NULL: no
 * gradient is wanted. Else grad has value's shape and strides, and its dtype or (not for f64) f32. Clear it
 * before the first backward that adds to it.
 */
typedef struct tsr_parameter {
    tsr_tensor value, grad;
} tsr_parameter;

TSR_API tsr_status tsr_tape_create(tsr_context *ctx, tsr_tape **out);
/* NULL is allowed. The context must still be there. */
TSR_API void tsr_tape_destroy(tsr_tape *tape);
/* NULL for NULL. */
TSR_API tsr_context *tsr_tape_context(const tsr_tape *tape);

/* Off: operators applied from now on are not recorded, gradients do not flow through them. On at first. */
TSR_API void tsr_tape_set_recording(tsr_tape *tape, int on);

/* Ends the step: forgets every variable and all that was recorded. Their memory serves the next step. */
TSR_API tsr_status tsr_tape_reset(tsr_tape *tape);

/* A variable over memory of the caller's, which must stay as it is until the step ends. */
TSR_API tsr_status tsr_tape_input(tsr_tape *tape, const tsr_tensor *value, tsr_var *out);
TSR_API tsr_status tsr_tape_parameter(tsr_tape *tape, const tsr_parameter *parameter, tsr_var *out);

/* The view of a variable's value; its data may be downloaded until the variable is released. */
TSR_API tsr_status tsr_tape_value(const tsr_tape *tape, tsr_var x, tsr_tensor *out);

/* The caller will not use x again. None, or a variable released before, is allowed. */
TSR_API void tsr_tape_release(tsr_tape *tape, tsr_var x);

/*
 * The same memory under another shape: no copy, and gradients go straight to where x's gradient lies.
 * tsr_tape_view: any view of x's dtype within x's memory; without repeated elements if a gradient is wanted.
 */
TSR_API tsr_status tsr_tape_view(tsr_tape *tape, tsr_var x, const tsr_tensor *view, tsr_var *out);
TSR_API tsr_status tsr_tape_reshape(tsr_tape *tape, tsr_var x, int32_t rank, const int64_t *shape,
                                    tsr_var *out);
TSR_API tsr_status tsr_tape_transpose(tsr_tape *tape, tsr_var x, int32_t i, int32_t j, tsr_var *out);
TSR_API tsr_status tsr_tape_slice(tsr_tape *tape, tsr_var x, int32_t dim, int64_t start, int64_t length,
                                  tsr_var *out);

/* The same value as a variable that no gradient flows through. */
TSR_API tsr_status tsr_tape_detach(tsr_tape *tape, tsr_var x, tsr_var *out);

/*
 * Plays the tape backwards from `loss` (one element) with d loss = scale, adds to the parameters' gradients,
 * and forgets what was recorded. TSR_ERR_ARGUMENT: no gradient can flow from loss. After another error the
 * gradients are incomplete: reset.
 */
TSR_API tsr_status tsr_tape_backward(tsr_tape *tape, tsr_var loss, double scale);
/* The same from any variable, with its gradient dy (y's shape and dtype). */
TSR_API tsr_status tsr_tape_backward_from(tsr_tape *tape, tsr_var y, const tsr_tensor *dy);

typedef struct tsr_tape_memory {
    size_t in_use_nbytes;    /* values and gradients alive now                                   */
    size_t step_peak_nbytes; /* most alive at once since the last reset                          */
    size_t peak_nbytes;      /* ... since the tape was made                                      */
    size_t reserved_nbytes;  /* device memory held                                               */
    uint64_t n_allocations;  /* calls to tsr_allocate so far: steady once a step has been seen  */
} tsr_tape_memory;

TSR_API tsr_tape_memory tsr_tape_memory_use(const tsr_tape *tape);

enum { TSR_TAPE_MAX_IN = 16, TSR_TAPE_MAX_OUT = 4 };

/*
 * What an operator's two functions are given. A tensor with data NULL is absent: an input that was not given;
 * in backward also a value that `reads` did not ask for (its shape is there), and a gradient not wanted.
 */
typedef struct tsr_tape_io {
    tsr_context *ctx;
    const void *options;
    tsr_tensor in[TSR_TAPE_MAX_IN];
    tsr_tensor out[TSR_TAPE_MAX_OUT];
    /* Backward only. */
    tsr_tensor dout[TSR_TAPE_MAX_OUT]; /* shaped and strided as out                              */
    tsr_tensor din[TSR_TAPE_MAX_IN];   /* to be written, or added to where `add` says so          */
    int add[TSR_TAPE_MAX_IN];          /* never set for TSR_GRADIENT_WRITES                       */
} tsr_tape_io;

/* How the gradient of an input comes about. */
typedef enum tsr_gradient {
    TSR_GRADIENT_NONE = 0, /* there is none: a variable that wants one is refused                 */
    TSR_GRADIENT_WRITES,   /* backward overwrites din; the tape adds where that is called for     */
    TSR_GRADIENT_ADDS,     /* backward overwrites din or adds to it, as `add` says                */
    TSR_GRADIENT_PASSES    /* it is dout[0] itself (same shape and dtype): the tape does it        */
} tsr_gradient;

/* The dtype that backward writes a gradient in; where it is not the gradient's own, the tape converts. */
typedef enum tsr_gradient_dtype {
    TSR_GRADIENT_AS_VALUE = 0, /* the input's                                                     */
    TSR_GRADIENT_F32,          /* f32 (f64 for an f64 input)                                      */
    TSR_GRADIENT_AS_VALUE_OR_F32
} tsr_gradient_dtype;

/* Memory that din may be written over, if nothing else needs it by then. */
typedef enum tsr_gradient_over {
    TSR_OVER_NOTHING = 0,
    TSR_OVER_DOUT, /* dout[0]                                                                     */
    TSR_OVER_VALUE /* the input's own value                                                       */
} tsr_gradient_over;

typedef struct tsr_tape_op_input {
    tsr_gradient gradient;
    tsr_gradient_dtype dtype;
    tsr_gradient_over over;
    uint32_t reads_in, reads_out; /* bit i: making this gradient reads input i, output i             */
} tsr_tape_op_input;

/* An operator; one const record, that outlives the tape. */
typedef struct tsr_tape_op {
    const char *name;                            /* for messages                                        */
    tsr_status (*forward)(const tsr_tape_io *);  /* writes all of out                                   */
    tsr_status (*backward)(const tsr_tape_io *); /* NULL: where a gradient is wanted, applying fails    */
    tsr_tape_op_input in[TSR_TAPE_MAX_IN];
    uint32_t optional_dout; /* bit i: dout[i] is absent, not zeros, if no gradient came to output i      */
    uint32_t always_din;    /* bit i: din[i] is there even if nobody wants it, to be thrown away          */
} tsr_tape_op;

typedef struct tsr_tape_call {
    const tsr_tape_op *op;
    int32_t n_in, n_out;
    tsr_var in[TSR_TAPE_MAX_IN];      /* none = absent                                              */
    tsr_tensor out[TSR_TAPE_MAX_OUT]; /* dtype, shape and strides to make; data and device ignored  */
    int32_t in_place;                 /* i > 0: out[0] takes the place of in[i - 1], whose memory, shape and
                                         strides it has; that input cannot be used afterwards       */
    const void *options;              /* copied; given to both functions                            */
    size_t options_nbytes;
} tsr_tape_call;

/*
 * Runs the operator and records it where an input wants a gradient; out[0 .. n_out - 1] are new variables.
 * TSR_ERR_UNSUPPORTED: a gradient is wanted that the operator has no backward for. TSR_ERR_OVERLAP: in place
 * on a value that a recorded backward reads, or on memory that is not the tape's. Nothing is then run.
 */
TSR_API tsr_status tsr_tape_apply(tsr_tape *tape, const tsr_tape_call *call, tsr_var *out);

#ifdef __cplusplus
}
#endif
#endif
