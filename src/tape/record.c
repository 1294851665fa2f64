/* tape/record.c - runs an operator on variables, and writes down what its backward needs */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tape/tape.h"

enum { OPTIONS_ALIGN = 16 };

/* What applying one operator works with. */
typedef struct application {
    const tsr_tape_call *call;
    const char *name;
    uint32_t in[TSR_TAPE_MAX_IN], out[TSR_TAPE_MAX_OUT];
    bool wants_grad;              /* some input does: a node is recorded     */
    uint32_t saved_in, saved_out; /* what its backward reads                 */
    tsr_tape_io io;
} application;

static tsr_status check_call(const tsr_tape *tape, const tsr_tape_call *call, const tsr_var *out)
{
    if (tape == NULL || call == NULL || call->op == NULL || call->op->forward == NULL ||
        call->op->name == NULL || (out == NULL && call->n_out > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "tape_apply: a null pointer was passed");
    const char *name = call->op->name;
    if (tape->inside) return tsr_fail(TSR_ERR_BUSY, "%s: applied from within an operator's function", name);
    if (call->n_in < 0 || call->n_in > TSR_TAPE_MAX_IN || call->n_out < 0 || call->n_out > TSR_TAPE_MAX_OUT)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: %d inputs and %d outputs, at most %d and %d are possible",
                        name, (int)call->n_in, (int)call->n_out, TSR_TAPE_MAX_IN, TSR_TAPE_MAX_OUT);
    if (call->in_place < 0 || call->in_place > call->n_in || (call->in_place > 0 && call->n_out == 0) ||
        (call->in_place > 0 && call->in[call->in_place - 1].id == 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: in_place is %d, must be 0 or 1 + the place of an input", name,
                        (int)call->in_place);
    if (call->options == NULL && call->options_nbytes > 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: options is NULL", name);
    return TSR_OK;
}

static tsr_status find_inputs(const tsr_tape *tape, application *a)
{
    for (int32_t i = 0; i < a->call->n_in; i++) {
        if (a->call->in[i].id == 0) continue;
        TSR_TRY(tsr_tape_find(tape, a->call->in[i], a->name, &a->in[i]));
        a->io.in[i] = tape->variables[a->in[i]].value;
    }
    return TSR_OK;
}

static tsr_status check_gradient(const application *a, int32_t i)
{
    const tsr_tape_op *op = a->call->op;
    switch (op->in[i].gradient) {
    case TSR_GRADIENT_WRITES:
    case TSR_GRADIENT_ADDS:
        if (op->backward != NULL) return TSR_OK;
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s has no backward, and its input %d wants a gradient", a->name,
                        (int)i);
    case TSR_GRADIENT_PASSES: {
        const tsr_tensor *x = &a->io.in[i], *y = a->call->in_place == 0 ? &a->call->out[0] : x;
        if (a->call->n_out > 0 && x->dtype == y->dtype && tsr_tensor_same_shape(x, y)) return TSR_OK;
        return tsr_fail(TSR_ERR_SHAPE, "%s: input %d must have the shape and dtype of the output", a->name,
                        (int)i);
    }
    case TSR_GRADIENT_NONE: break;
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED, "%s has no backward for input %d, which wants a gradient", a->name,
                    (int)i);
}

static tsr_status plan_gradients(const tsr_tape *tape, application *a)
{
    if (!tape->recording) return TSR_OK;
    for (int32_t i = 0; i < a->call->n_in; i++) {
        if (a->in[i] == 0 || !tape->variables[a->in[i]].wants_grad) continue;
        TSR_TRY(check_gradient(a, i));
        a->wants_grad = true;
        if (a->call->op->in[i].gradient == TSR_GRADIENT_PASSES) continue;
        a->saved_in |= a->call->op->in[i].reads_in;
        a->saved_out |= a->call->op->in[i].reads_out;
    }
    for (int32_t i = 0; i < TSR_TAPE_MAX_IN; i++)
        if (a->in[i] == 0) a->saved_in &= ~(1u << i);
    a->saved_in &= (1u << TSR_TAPE_MAX_IN) - 1;
    a->saved_out &= (1u << a->call->n_out) - 1;
    return TSR_OK;
}

static tsr_status check_in_place(const tsr_tape *tape, const application *a)
{
    if (a->call->in_place == 0) return TSR_OK;
    const uint32_t storage = tape->variables[a->in[a->call->in_place - 1]].storage;
    const tsr_storage *s = &tape->storages[storage];
    if (s->span == 0)
        return tsr_fail(TSR_ERR_OVERLAP, "%s: in place on memory that is not the tape's", a->name);
    if (s->readers > 0)
        return tsr_fail(TSR_ERR_OVERLAP, "%s: in place on a value that the backward of %s reads", a->name,
                        s->read_by);
    for (int32_t i = 0; i < a->call->n_in; i++)
        if ((a->saved_in >> i & 1) && tape->variables[a->in[i]].storage == storage)
            return tsr_fail(TSR_ERR_OVERLAP, "%s: in place on a value that its own backward reads", a->name);
    return TSR_OK;
}

static tsr_status reserve(tsr_tape *tape, const tsr_tape_call *call)
{
    TSR_TRY(tsr_tape_reserve_variables(tape, (uint32_t)call->n_out));
    if (tape->n_nodes == tape->nodes_capacity) {
        const uint32_t capacity = 2 * tape->nodes_capacity + 64;
        tsr_node *nodes = realloc(tape->nodes, capacity * sizeof *nodes);
        if (nodes == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape: out of memory for its records");
        tape->nodes = nodes;
        tape->nodes_capacity = capacity;
    }
    const size_t need = call->options_nbytes + OPTIONS_ALIGN;
    if (tape->options_capacity - tape->options_used < need) {
        const size_t capacity = 2 * tape->options_capacity + need + 4096;
        char *options = realloc(tape->options, capacity);
        if (options == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape: out of memory for its records");
        tape->options = options;
        tape->options_capacity = capacity;
    }
    return TSR_OK;
}

static tsr_status check_output(const char *name, tsr_tensor t)
{
    char anywhere;
    t.data = &anywhere;
    TSR_TRY(tsr_tensor_validate(&t, name));
    for (int32_t i = 0; i < t.rank; i++)
        if (t.stride[i] < 0) return tsr_fail(TSR_ERR_SHAPE, "%s: an output has a negative stride", name);
    if (tsr_tensor_self_overlap(&t))
        return tsr_fail(TSR_ERR_OVERLAP, "%s: an output has elements that share memory", name);
    return TSR_OK;
}

static tsr_status make_output(tsr_tape *tape, application *a, int32_t i)
{
    uint32_t storage, version_step = 0;
    tsr_tensor t;
    if (i == 0 && a->call->in_place > 0) {
        const tsr_variable *x = &tape->variables[a->in[a->call->in_place - 1]];
        t = x->value;
        storage = x->storage;
        tape->storages[storage].refs++;
        version_step = 1; /* current once forward has run */
    } else {
        t = a->call->out[i];
        t.device = tsr_context_device(tape->ctx);
        TSR_TRY(check_output(a->name, t));
        TSR_TRY(tsr_tape_new_storage(tape, tsr_layout_nbytes(&t), &storage, &t.data));
    }
    a->out[i] = tsr_tape_new_variable(tape, &t, storage);
    tape->variables[a->out[i]].version += version_step;
    tape->variables[a->out[i]].wants_grad = a->wants_grad;
    a->io.out[i] = t;
    return TSR_OK;
}

static tsr_status run(tsr_tape *tape, application *a)
{
    for (int32_t i = 0; i < a->call->n_out; i++) TSR_TRY(make_output(tape, a, i));
    tape->inside = true;
    const tsr_status status = a->call->op->forward(&a->io);
    tape->inside = false;
    return status;
}

static void undo_outputs(tsr_tape *tape, const application *a)
{
    for (int32_t i = a->call->n_out - 1; i >= 0; i--) {
        if (a->out[i] == 0) continue;
        tsr_storage_drop(tape, tape->variables[a->out[i]].storage);
        tape->n_variables--;
    }
}

static void save(tsr_tape *tape, const char *name, uint32_t variable)
{
    tsr_storage *s = &tape->storages[tape->variables[variable].storage];
    s->refs++;
    if (s->readers++ == 0) s->read_by = name;
}

static void record_node(tsr_tape *tape, const application *a)
{
    const size_t at = (tape->options_used + OPTIONS_ALIGN - 1) / OPTIONS_ALIGN * OPTIONS_ALIGN;
    if (a->call->options_nbytes > 0) memcpy(tape->options + at, a->call->options, a->call->options_nbytes);
    tape->options_used = at + a->call->options_nbytes;
    tsr_node *n = &tape->nodes[tape->n_nodes++];
    *n = (tsr_node){.op = a->call->op,
                    .n_in = a->call->n_in,
                    .n_out = a->call->n_out,
                    .saved_in = a->saved_in,
                    .saved_out = a->saved_out,
                    .options = at};
    memcpy(n->in, a->in, sizeof n->in);
    memcpy(n->out, a->out, sizeof n->out);
    for (int32_t i = 0; i < n->n_in; i++)
        if (n->saved_in >> i & 1) save(tape, a->name, n->in[i]);
    for (int32_t i = 0; i < n->n_out; i++)
        if (n->saved_out >> i & 1) save(tape, a->name, n->out[i]);
}

tsr_status tsr_tape_apply(tsr_tape *tape, const tsr_tape_call *call, tsr_var *out)
{
    TSR_TRY(check_call(tape, call, out));
    application a = {.call = call, .name = call->op->name, .io.ctx = tape->ctx, .io.options = call->options};
    TSR_TRY(find_inputs(tape, &a));
    TSR_TRY(plan_gradients(tape, &a));
    TSR_TRY(check_in_place(tape, &a));
    TSR_TRY(reserve(tape, call));
    const tsr_status status = run(tape, &a);
    if (status != TSR_OK) {
        undo_outputs(tape, &a);
        return status;
    }
    if (call->in_place > 0) {
        tsr_storage *s = &tape->storages[tape->variables[a.out[0]].storage];
        s->version++;
        s->overwritten_by = a.name;
    }
    if (a.wants_grad && call->n_out > 0) record_node(tape, &a);
    for (int32_t i = 0; i < call->n_out; i++) out[i] = (tsr_var){a.out[i], tape->step};
    return TSR_OK;
}
