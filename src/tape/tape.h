/*
 * tape/tape.h - how a step is held
 *
 *     variable --> storage --> span of the pool      a value: a view, and memory shared by all its views
 *        |base
 *        v
 *     variable --> storage                           the gradient: one per base variable, laid out as its
 *                                                    value; a view's gradient is the same view of it
 *     node: operator, ids of its variables, a reference to every storage that its backward reads
 *
 * A storage counts its references: handles not yet released, nodes that will read it, gradients. At zero its
 * memory goes back to the pool. Variables are records of host memory and stay until the step ends.
 * Ids are indices into the tables; entry 0 is never used.
 */
#ifndef TSR_TAPE_TAPE_H
#define TSR_TAPE_TAPE_H

#include "base/tensor.h"
#include "tape/pool.h"
#include "tessera/tape.h"

typedef struct tsr_storage {
    uint32_t refs;
    uint32_t span;              /* of the pool; 0: memory of the caller's                    */
    uint32_t readers;           /* recorded nodes whose backward reads it                    */
    uint32_t version;           /* how often an operator has run in place on it              */
    const char *read_by;        /* the first of its readers                                  */
    const char *overwritten_by; /* the last operator in place                                */
    uint32_t next_unused;
} tsr_storage;

typedef struct tsr_variable {
    tsr_tensor value;
    uint32_t storage;
    uint32_t version;      /* of the storage, when this variable was made: older is overwritten */
    uint32_t base;         /* itself, unless it is a view                                       */
    bool covers;           /* a view of every element of its base                               */
    bool wants_grad;       /* a gradient flows here                                             */
    bool released;         /* the handle is gone                                                */
    bool leaf;             /* grad is the caller's; always added to                             */
    uint32_t grad_storage; /* of a base that is no leaf: 0 = no gradient yet                    */
    tsr_tensor grad;       /* of a base: dtype and layout always, data once there is one        */
} tsr_variable;

typedef struct tsr_node {
    const tsr_tape_op *op;
    int32_t n_in, n_out;
    uint32_t in[TSR_TAPE_MAX_IN], out[TSR_TAPE_MAX_OUT]; /* variables, 0 = absent                */
    uint32_t saved_in, saved_out;                        /* bit i: its storage is referred to    */
    size_t options; /* offset into the tape's options                                            */
} tsr_node;

struct tsr_tape {
    tsr_context *ctx;
    bool recording;
    bool inside; /* an operator's function is running: it may not come back here */
    uint32_t step;
    tsr_pool pool;
    tsr_variable *variables;
    uint32_t n_variables, variables_capacity;
    tsr_storage *storages;
    uint32_t n_storages, storages_capacity, unused_storage;
    tsr_node *nodes;
    uint32_t n_nodes, nodes_capacity;
    char *options;
    size_t options_used, options_capacity;
};

/* A handle as a variable's id. TSR_ERR_ARGUMENT if none, of another step, released or overwritten. */
tsr_status tsr_tape_find(const tsr_tape *tape, tsr_var x, const char *name, uint32_t *id);

/* Room for `count` more entries, so that what follows cannot fail. */
tsr_status tsr_tape_reserve_variables(tsr_tape *tape, uint32_t count);
tsr_status tsr_tape_reserve_storages(tsr_tape *tape, uint32_t count);

/* A new variable, its own base, that holds one reference to storage. */
uint32_t tsr_tape_new_variable(tsr_tape *tape, const tsr_tensor *value, uint32_t storage);

/* Memory of the pool, one reference. */
tsr_status tsr_tape_new_storage(tsr_tape *tape, size_t nbytes, uint32_t *storage, void **data);
void tsr_storage_drop(tsr_tape *tape, uint32_t storage);

/* Bytes from the first to the last element; strides must not be negative. */
size_t tsr_layout_nbytes(const tsr_tensor *t);

/* The gradient of x as a view of its base's, which has data. */
tsr_tensor tsr_variable_grad(const tsr_tape *tape, uint32_t x);

/* Lets go of everything that was recorded. */
void tsr_tape_forget(tsr_tape *tape);

#endif
