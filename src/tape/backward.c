/*
 * tape/backward.c - plays the recorded operators from last to first
 *
 * When an operator's turn comes, every user of its outputs has contributed to their gradients. It then
 * contributes to the gradients of its inputs:
 *
 *     first contribution    written straight into new memory, or over memory that nobody needs any more
 *     a further one         added by the operator itself, if it can; else written aside and added
 *     dout itself (PASSES)  shared, not copied: x + f(x) costs the residual stream nothing. By the time that
 *                           x's gradient is added to, f is through with it; if not, it is copied first
 *
 * Then dout and the values that it read go back to the pool.
 */
#include "base/error.h"
#include "tape/tape.h"
#include "tessera/elementwise.h"

static tsr_variable *base_of(tsr_tape *tape, uint32_t x) { return &tape->variables[tape->variables[x].base]; }

static bool has_gradient(const tsr_variable *base) { return base->leaf || base->grad_storage != 0; }

/* Where the gradient's element 0 lies within memory laid out as the value. */
static void place_gradient(tsr_variable *base, uint32_t storage, void *data)
{
    uintptr_t low, high;
    tsr_tensor_extent(&base->value, &low, &high);
    base->grad_storage = storage;
    base->grad.data = (char *)data + ((uintptr_t)base->value.data - low);
}

static tsr_status new_gradient(tsr_tape *tape, tsr_variable *base)
{
    uint32_t storage;
    void *data;
    TSR_TRY(tsr_tape_new_storage(tape, tsr_layout_nbytes(&base->value), &storage, &data));
    place_gradient(base, storage, data);
    return TSR_OK;
}

static void drop_gradient(tsr_tape *tape, tsr_variable *base)
{
    if (base->leaf || base->grad_storage == 0) return;
    tsr_storage_drop(tape, base->grad_storage);
    base->grad_storage = 0;
    base->grad.data = NULL;
}

/* Before a gradient is added to: it must be there (0 where nothing came yet), and nobody else's. */
static tsr_status own_gradient(tsr_tape *tape, tsr_variable *base)
{
    if (base->leaf) return TSR_OK;
    if (base->grad_storage == 0) {
        TSR_TRY(new_gradient(tape, base));
        return tsr_fill(tape->ctx, 0, &base->grad);
    }
    if (tape->storages[base->grad_storage].refs == 1) return TSR_OK;
    const uint32_t shared = base->grad_storage;
    const tsr_tensor from = base->grad;
    TSR_TRY(new_gradient(tape, base));
    const tsr_status status = tsr_copy(tape->ctx, &from, &base->grad);
    tsr_storage_drop(tape, shared);
    return status;
}

/* Adds t, or copies it if it is the first and reaches every element. */
static tsr_status contribute(tsr_tape *tape, uint32_t x, const tsr_tensor *t)
{
    tsr_variable *base = base_of(tape, x);
    const bool first = !has_gradient(base) && tape->variables[x].covers;
    TSR_TRY(first ? new_gradient(tape, base) : own_gradient(tape, base));
    const tsr_tensor grad = tsr_variable_grad(tape, x);
    return first ? tsr_copy(tape->ctx, t, &grad) : tsr_add(tape->ctx, 1, &grad, 1, t, &grad);
}

static bool same_strides(const tsr_tensor *a, const tsr_tensor *b)
{
    for (int32_t i = 0; i < a->rank; i++)
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

/* Could x's gradient have the memory of `t`, laid out as t is? */
static bool fits(tsr_tape *tape, uint32_t x, const tsr_tensor *t)
{
    const tsr_variable *v = &tape->variables[x], *base = base_of(tape, x);
    return !has_gradient(base) && v->covers && t->dtype == base->grad.dtype &&
           tsr_tensor_same_shape(&v->value, t) && same_strides(&v->value, t);
}

static void share_gradient(tsr_tape *tape, uint32_t x, uint32_t storage, const tsr_tensor *t)
{
    tsr_variable *base = base_of(tape, x);
    tape->storages[storage].refs++;
    base->grad_storage = storage;
    base->grad.data = (char *)t->data - ((char *)tape->variables[x].value.data - (char *)base->value.data);
}

static tsr_status pass_gradient(tsr_tape *tape, const tsr_node *n, int32_t i, const tsr_tensor *dout)
{
    if (!fits(tape, n->in[i], dout)) return contribute(tape, n->in[i], dout);
    share_gradient(tape, n->in[i], tape->variables[n->out[0]].grad_storage, dout);
    return TSR_OK;
}

/* Memory that the first gradient of input i may be written over, 0 if there is none. */
static uint32_t find_over(tsr_tape *tape, const tsr_node *n, int32_t i, const tsr_tape_io *io, tsr_tensor *t)
{
    const tsr_variable *v = &tape->variables[n->in[i]];
    uint32_t storage = 0;
    switch (n->op->in[i].over) {
    case TSR_OVER_NOTHING: return 0;
    case TSR_OVER_DOUT:
        storage = tape->variables[n->out[0]].grad_storage;
        *t = io->dout[0];
        break;
    case TSR_OVER_VALUE:
        if ((n->saved_in >> i & 1) == 0) return 0;
        storage = v->storage;
        *t = v->value;
        break;
    }
    if (storage == 0 || tape->storages[storage].span == 0 || tape->storages[storage].refs != 1) return 0;
    return fits(tape, n->in[i], t) ? storage : 0;
}

/* The dtype that the operator writes, given the value's and the gradient's. */
static tsr_dtype written_dtype(const tsr_tape_op_input *spec, tsr_dtype value, tsr_dtype grad)
{
    switch (spec->dtype) {
    case TSR_GRADIENT_F32: return value == TSR_F64 ? TSR_F64 : TSR_F32;
    case TSR_GRADIENT_AS_VALUE_OR_F32: return grad == TSR_F32 ? TSR_F32 : value;
    case TSR_GRADIENT_AS_VALUE: break;
    }
    return value;
}

/* Two inputs of one operator with one base: the second is written aside. */
static bool base_seen(const tsr_tape *tape, const tsr_node *n, int32_t i)
{
    for (int32_t j = 0; j < i; j++)
        if (n->in[j] != 0 && tape->variables[n->in[j]].base == tape->variables[n->in[i]].base) return true;
    return false;
}

/* din[i] in memory of its own. */
static tsr_status make_aside(tsr_tape *tape, tsr_dtype dtype, tsr_tensor *din, const tsr_tensor *value,
                             uint32_t *aside)
{
    tsr_tensor t = *value;
    int64_t stride = 1;
    for (int32_t d = t.rank - 1; d >= 0; d--) {
        t.stride[d] = stride;
        stride *= t.shape[d];
    }
    t.dtype = dtype;
    TSR_TRY(tsr_tape_new_storage(tape, tsr_layout_nbytes(&t), aside, &t.data));
    *din = t;
    return TSR_OK;
}

/* Fills in din[i] and add[i]; *aside is the storage to be added afterwards, 0 = none. */
static tsr_status prepare_din(tsr_tape *tape, const tsr_node *n, int32_t i, tsr_tape_io *io, uint32_t *aside)
{
    const tsr_tape_op_input *spec = &n->op->in[i];
    const uint32_t x = n->in[i];
    tsr_variable *base = base_of(tape, x);
    const tsr_tensor value = tape->variables[x].value;
    const tsr_dtype dtype = written_dtype(spec, value.dtype, base->grad.dtype);
    if (dtype == base->grad.dtype && !base_seen(tape, n, i)) {
        if (!has_gradient(base) && tape->variables[x].covers) {
            tsr_tensor t;
            const uint32_t over = find_over(tape, n, i, io, &t);
            if (over != 0)
                share_gradient(tape, x, over, &t);
            else
                TSR_TRY(new_gradient(tape, base));
            io->din[i] = tsr_variable_grad(tape, x);
            return TSR_OK;
        }
        if (spec->gradient == TSR_GRADIENT_ADDS) {
            TSR_TRY(own_gradient(tape, base));
            io->din[i] = tsr_variable_grad(tape, x);
            io->add[i] = 1;
            return TSR_OK;
        }
    }
    return make_aside(tape, dtype, &io->din[i], &value, aside);
}

static bool wants_grad(const tsr_tape *tape, const tsr_node *n, int32_t i, bool passes)
{
    return n->in[i] != 0 && tape->variables[n->in[i]].wants_grad &&
           (n->op->in[i].gradient == TSR_GRADIENT_PASSES) == passes;
}

/* The gradients that came in; *any is false if none did. */
static tsr_status gather_dout(tsr_tape *tape, const tsr_node *n, tsr_tape_io *io, bool *any)
{
    *any = false;
    for (int32_t i = 0; i < n->n_out; i++) *any |= tape->variables[n->out[i]].grad_storage != 0;
    for (int32_t i = 0; i < n->n_out && *any; i++) {
        tsr_variable *v = &tape->variables[n->out[i]];
        if (v->grad_storage == 0 && !(n->op->optional_dout >> i & 1)) TSR_TRY(own_gradient(tape, v));
        io->dout[i] = v->grad;
    }
    return TSR_OK;
}

static void gather_values(const tsr_tape *tape, const tsr_node *n, tsr_tape_io *io)
{
    for (int32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == 0) continue;
        io->in[i] = tape->variables[n->in[i]].value;
        if (!(n->saved_in >> i & 1)) io->in[i].data = NULL;
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        io->out[i] = tape->variables[n->out[i]].value;
        if (!(n->saved_out >> i & 1)) io->out[i].data = NULL;
    }
}

static tsr_status run_backward(tsr_tape *tape, const tsr_node *n, tsr_tape_io *io)
{
    uint32_t aside[TSR_TAPE_MAX_IN] = {0};
    bool runs = false;
    for (int32_t i = 0; i < n->n_in; i++) {
        if (!wants_grad(tape, n, i, false)) continue;
        TSR_TRY(prepare_din(tape, n, i, io, &aside[i]));
        runs = true;
    }
    if (!runs) return TSR_OK;
    for (int32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == 0 || io->din[i].data != NULL || !(n->op->always_din >> i & 1)) continue;
        const tsr_dtype value = io->in[i].dtype;
        TSR_TRY(
            make_aside(tape, written_dtype(&n->op->in[i], value, value), &io->din[i], &io->in[i], &aside[i]));
    }
    TSR_TRY(n->op->backward(io));
    for (int32_t i = 0; i < n->n_in; i++) {
        if (aside[i] == 0) continue;
        if (wants_grad(tape, n, i, false)) TSR_TRY(contribute(tape, n->in[i], &io->din[i]));
        tsr_storage_drop(tape, aside[i]);
    }
    return TSR_OK;
}

static void drop_saved(tsr_tape *tape, uint32_t variable)
{
    const uint32_t storage = tape->variables[variable].storage;
    tape->storages[storage].readers--;
    tsr_storage_drop(tape, storage);
}

static void drop_node(tsr_tape *tape, const tsr_node *n)
{
    for (int32_t i = 0; i < n->n_in; i++)
        if (n->saved_in >> i & 1) drop_saved(tape, n->in[i]);
    for (int32_t i = 0; i < n->n_out; i++) {
        if (n->saved_out >> i & 1) drop_saved(tape, n->out[i]);
        drop_gradient(tape, &tape->variables[n->out[i]]);
    }
}

static tsr_status play(tsr_tape *tape, const tsr_node *n)
{
    bool any;
    tsr_tape_io io = {.ctx = tape->ctx, .options = tape->options + n->options};
    TSR_TRY(gather_dout(tape, n, &io, &any));
    if (!any) return TSR_OK;
    gather_values(tape, n, &io);
    /* First: a gradient that is written over dout must find it unshared. */
    for (int32_t i = 0; i < n->n_in; i++)
        if (wants_grad(tape, n, i, true)) TSR_TRY(pass_gradient(tape, n, i, &io.dout[0]));
    return run_backward(tape, n, &io);
}

void tsr_tape_forget(tsr_tape *tape)
{
    while (tape->n_nodes > 0) drop_node(tape, &tape->nodes[--tape->n_nodes]);
    tape->options_used = 0;
    for (uint32_t i = 1; i <= tape->n_variables; i++) {
        drop_gradient(tape, &tape->variables[i]);
        if (!base_of(tape, i)->leaf) tape->variables[i].wants_grad = false;
    }
}

static tsr_status play_all(tsr_tape *tape)
{
    tsr_status status = TSR_OK;
    tape->inside = true;
    while (tape->n_nodes > 0 && status == TSR_OK) {
        const tsr_node *n = &tape->nodes[tape->n_nodes - 1];
        status = play(tape, n);
        if (status != TSR_OK) break;
        tape->n_nodes--;
        drop_node(tape, n);
    }
    tape->inside = false;
    tsr_tape_forget(tape);
    return status;
}

static tsr_status find_start(tsr_tape *tape, tsr_var y, const char *name, uint32_t *id)
{
    if (tape == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "%s: tape is NULL", name);
    if (tape->inside) return tsr_fail(TSR_ERR_BUSY, "%s: called from within an operator", name);
    TSR_TRY(tsr_tape_find(tape, y, name, id));
    if (!tape->variables[*id].wants_grad || base_of(tape, *id)->leaf)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: nothing was recorded that leads to the variable", name);
    return TSR_OK;
}

tsr_status tsr_tape_backward(tsr_tape *tape, tsr_var loss, double scale)
{
    uint32_t id;
    TSR_TRY(find_start(tape, loss, "tape_backward", &id));
    const tsr_tensor *value = &tape->variables[id].value;
    if (tsr_tensor_numel(value) != 1)
        return tsr_fail(TSR_ERR_SHAPE, "tape_backward: loss is %s, must be one element",
                        tsr_shape_of(value).text);
    TSR_TRY(own_gradient(tape, base_of(tape, id)));
    const tsr_tensor grad = tsr_variable_grad(tape, id);
    TSR_TRY(tsr_fill(tape->ctx, scale, &grad));
    return play_all(tape);
}

tsr_status tsr_tape_backward_from(tsr_tape *tape, tsr_var y, const tsr_tensor *dy)
{
    uint32_t id;
    TSR_TRY(find_start(tape, y, "tape_backward_from", &id));
    TSR_TRY(tsr_tensor_validate(dy, "tape_backward_from: dy"));
    const tsr_tensor *value = &tape->variables[id].value;
    if (!tsr_tensor_same_shape(value, dy) || dy->dtype != value->dtype)
        return tsr_fail(TSR_ERR_SHAPE, "tape_backward_from: dy is %s %s, must be %s %s as y",
                        tsr_dtype_name(dy->dtype), tsr_shape_of(dy).text, tsr_dtype_name(value->dtype),
                        tsr_shape_of(value).text);
    TSR_TRY(contribute(tape, id, dy));
    return play_all(tape);
}
