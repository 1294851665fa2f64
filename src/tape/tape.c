/* tape/tape.c - a step's tables: variables, storages, handles, views */
#include "tape/tape.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"

/* Steps are numbered across tapes: a handle of another tape is as foreign as one of another step. */
static uint32_t next_step(void)
{
    static _Atomic uint32_t last;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

tsr_status tsr_tape_create(tsr_context *ctx, tsr_tape **out)
{
    if (ctx == NULL || out == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "tape_create: %s is NULL", ctx == NULL ? "ctx" : "out");
    tsr_tape *tape = calloc(1, sizeof *tape);
    if (tape == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape_create: out of memory");
    tape->ctx = tape->pool.ctx = ctx;
    tape->recording = true;
    tape->step = next_step();
    *out = tape;
    return TSR_OK;
}

void tsr_tape_destroy(tsr_tape *tape)
{
    if (tape == NULL) return;
    tsr_pool_clear(&tape->pool);
    free(tape->variables);
    free(tape->storages);
    free(tape->nodes);
    free(tape->options);
    free(tape);
}

tsr_context *tsr_tape_context(const tsr_tape *tape) { return tape != NULL ? tape->ctx : NULL; }

void tsr_tape_set_recording(tsr_tape *tape, int on)
{
    if (tape != NULL) tape->recording = on != 0;
}

tsr_tape_memory tsr_tape_memory_use(const tsr_tape *tape)
{
    if (tape == NULL) return (tsr_tape_memory){0};
    const tsr_pool *p = &tape->pool;
    return (tsr_tape_memory){.in_use_nbytes = p->in_use,
                             .step_peak_nbytes = p->step_peak,
                             .peak_nbytes = p->peak,
                             .reserved_nbytes = p->reserved,
                             .n_allocations = p->n_allocations};
}

tsr_status tsr_tape_reset(tsr_tape *tape)
{
    if (tape == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "tape_reset: tape is NULL");
    if (tape->inside) return tsr_fail(TSR_ERR_BUSY, "tape_reset: called from within an operator");
    for (uint32_t i = 1; i <= tape->n_storages; i++)
        if (tape->storages[i].refs > 0 && tape->storages[i].span != 0)
            tsr_pool_give(&tape->pool, tape->storages[i].span);
    tape->n_variables = tape->n_storages = tape->n_nodes = tape->unused_storage = 0;
    tape->options_used = 0;
    tape->pool.step_peak = 0;
    tape->step = next_step();
    return tsr_pool_settle(&tape->pool);
}

/* Entry 0 of a table is never used: `used` entries end at index `used`. */
static tsr_status grow(void **table, uint32_t *capacity, uint32_t used, uint32_t count, size_t nbytes)
{
    if (used + count < *capacity) return TSR_OK;
    const uint32_t wanted = 2 * (used + count) + 64;
    void *fresh = realloc(*table, wanted * nbytes);
    if (fresh == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape: out of memory for its records");
    *table = fresh;
    *capacity = wanted;
    return TSR_OK;
}

tsr_status tsr_tape_reserve_variables(tsr_tape *tape, uint32_t count)
{
    return grow((void **)&tape->variables, &tape->variables_capacity, tape->n_variables, count,
                sizeof *tape->variables);
}

tsr_status tsr_tape_reserve_storages(tsr_tape *tape, uint32_t count)
{
    return grow((void **)&tape->storages, &tape->storages_capacity, tape->n_storages, count,
                sizeof *tape->storages);
}

static uint32_t new_storage(tsr_tape *tape, uint32_t span)
{
    uint32_t i = tape->unused_storage;
    if (i != 0)
        tape->unused_storage = tape->storages[i].next_unused;
    else
        i = ++tape->n_storages;
    tape->storages[i] = (tsr_storage){.refs = 1, .span = span};
    return i;
}

tsr_status tsr_tape_new_storage(tsr_tape *tape, size_t nbytes, uint32_t *storage, void **data)
{
    uint32_t span;
    TSR_TRY(tsr_tape_reserve_storages(tape, 1));
    TSR_TRY(tsr_pool_take(&tape->pool, nbytes, &span, data));
    *storage = new_storage(tape, span);
    return TSR_OK;
}

void tsr_storage_drop(tsr_tape *tape, uint32_t storage)
{
    tsr_storage *s = &tape->storages[storage];
    if (--s->refs > 0) return;
    if (s->span != 0) tsr_pool_give(&tape->pool, s->span);
    *s = (tsr_storage){.next_unused = tape->unused_storage};
    tape->unused_storage = storage;
}

uint32_t tsr_tape_new_variable(tsr_tape *tape, const tsr_tensor *value, uint32_t storage)
{
    const uint32_t id = ++tape->n_variables;
    tape->variables[id] = (tsr_variable){.value = *value,
                                         .storage = storage,
                                         .version = tape->storages[storage].version,
                                         .base = id,
                                         .covers = true,
                                         .grad = *value};
    tape->variables[id].grad.data = NULL;
    return id;
}

tsr_status tsr_tape_find(const tsr_tape *tape, tsr_var x, const char *name, uint32_t *id)
{
    *id = 0;
    if (x.id == 0) return tsr_fail(TSR_ERR_ARGUMENT, "%s: the variable is none", name);
    if (x.step != tape->step || x.id > tape->n_variables)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: the variable belongs to another step or tape", name);
    const tsr_variable *v = &tape->variables[x.id];
    if (v->released) return tsr_fail(TSR_ERR_ARGUMENT, "%s: the variable was released", name);
    const tsr_storage *s = &tape->storages[v->storage];
    if (v->version != s->version)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: the variable's value was overwritten by %s", name,
                        s->overwritten_by);
    *id = x.id;
    return TSR_OK;
}

static tsr_status check(const tsr_tape *tape, const void *in, const void *out, const char *name)
{
    if (tape != NULL && in != NULL && out != NULL) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s: a null pointer was passed", name);
}

static tsr_status over_memory(tsr_tape *tape, const tsr_tensor *value, const char *name, tsr_var *out)
{
    TSR_TRY(tsr_tensor_validate(value, name));
    if (value->device != tsr_context_device(tape->ctx))
        return tsr_fail(TSR_ERR_DEVICE, "%s lies on device %d, the tape's is %d", name, (int)value->device,
                        (int)tsr_context_device(tape->ctx));
    TSR_TRY(tsr_tape_reserve_storages(tape, 1));
    TSR_TRY(tsr_tape_reserve_variables(tape, 1));
    *out = (tsr_var){tsr_tape_new_variable(tape, value, new_storage(tape, 0)), tape->step};
    return TSR_OK;
}

tsr_status tsr_tape_input(tsr_tape *tape, const tsr_tensor *value, tsr_var *out)
{
    TSR_TRY(check(tape, value, out, "tape_input"));
    return over_memory(tape, value, "tape_input: value", out);
}

tsr_status tsr_tape_parameter(tsr_tape *tape, const tsr_parameter *p, tsr_var *out)
{
    TSR_TRY(check(tape, p, out, "tape_parameter"));
    const bool wants_grad = p->grad.data != NULL;
    if (wants_grad) {
        TSR_TRY(tsr_tensor_validate(&p->grad, "tape_parameter: grad"));
        tsr_tensor same = p->grad;
        same.data = p->value.data, same.dtype = p->value.dtype;
        if (!tsr_tensor_same(&same, &p->value) || same.device != p->value.device)
            return tsr_fail(TSR_ERR_SHAPE,
                            "tape_parameter: grad is %s, must have the shape, strides and device of value %s",
                            tsr_shape_of(&p->grad).text, tsr_shape_of(&p->value).text);
        /* f64 does not mix with the others: a backward could not add to it. */
        if (p->grad.dtype != p->value.dtype && (p->grad.dtype != TSR_F32 || p->value.dtype == TSR_F64))
            return tsr_fail(TSR_ERR_DTYPE, "tape_parameter: grad is %s, must be f32 or as value, %s",
                            tsr_dtype_name(p->grad.dtype), tsr_dtype_name(p->value.dtype));
        if (tsr_tensor_self_overlap(&p->grad))
            return tsr_fail(TSR_ERR_OVERLAP, "tape_parameter: grad has elements that share memory");
    }
    TSR_TRY(over_memory(tape, &p->value, "tape_parameter: value", out));
    tsr_variable *v = &tape->variables[out->id];
    v->leaf = v->wants_grad = wants_grad;
    if (wants_grad) v->grad = p->grad;
    return TSR_OK;
}

tsr_status tsr_tape_value(const tsr_tape *tape, tsr_var x, tsr_tensor *out)
{
    TSR_TRY(check(tape, out, out, "tape_value"));
    uint32_t id;
    TSR_TRY(tsr_tape_find(tape, x, "tape_value", &id));
    *out = tape->variables[id].value;
    return TSR_OK;
}

void tsr_tape_release(tsr_tape *tape, tsr_var x)
{
    if (tape == NULL || x.id == 0 || x.step != tape->step || x.id > tape->n_variables) return;
    tsr_variable *v = &tape->variables[x.id];
    if (v->released) return;
    v->released = true;
    tsr_storage_drop(tape, v->storage);
}

size_t tsr_layout_nbytes(const tsr_tensor *t)
{
    uintptr_t low, high;
    tsr_tensor_extent(t, &low, &high);
    return high - low;
}

tsr_tensor tsr_variable_grad(const tsr_tape *tape, uint32_t x)
{
    const tsr_variable *v = &tape->variables[x], *base = &tape->variables[v->base];
    const int64_t offset = ((char *)v->value.data - (char *)base->value.data) /
                           (int64_t)tsr_dtype_nbytes(v->value.dtype);
    tsr_tensor g = v->value;
    g.dtype = base->grad.dtype;
    g.data = tsr_tensor_at(&base->grad, offset);
    return g;
}

/* As many elements as a base without gaps has, none twice: all of them. (Else: assume not.) */
static bool covers_base(const tsr_tape *tape, const tsr_variable *x, const tsr_tensor *view)
{
    const tsr_tensor *base = &tape->variables[x->base].value;
    const size_t dense = (size_t)tsr_tensor_numel(base) * tsr_dtype_nbytes(base->dtype);
    return tsr_tensor_numel(view) == tsr_tensor_numel(base) && tsr_layout_nbytes(base) == dense &&
           !tsr_tensor_self_overlap(view);
}

static tsr_status make_view(tsr_tape *tape, uint32_t x, const tsr_tensor *view, tsr_var *out)
{
    TSR_TRY(tsr_tape_reserve_variables(tape, 1));
    const tsr_variable *v = &tape->variables[x]; /* reserved: stays where it is */
    const uint32_t id = tsr_tape_new_variable(tape, view, v->storage);
    tape->storages[v->storage].refs++;
    tsr_variable *made = &tape->variables[id];
    made->base = v->base;
    made->wants_grad = v->wants_grad;
    made->covers = covers_base(tape, v, view);
    *out = (tsr_var){id, tape->step};
    return TSR_OK;
}

tsr_status tsr_tape_view(tsr_tape *tape, tsr_var x, const tsr_tensor *view, tsr_var *out)
{
    TSR_TRY(check(tape, view, out, "tape_view"));
    uint32_t id;
    TSR_TRY(tsr_tape_find(tape, x, "tape_view", &id));
    TSR_TRY(tsr_tensor_validate(view, "tape_view: view"));
    const tsr_variable *v = &tape->variables[id];
    if (view->dtype != v->value.dtype || view->device != v->value.device)
        return tsr_fail(TSR_ERR_DTYPE, "tape_view: view has another dtype or device than x");
    uintptr_t low, high, view_low, view_high;
    tsr_tensor_extent(&v->value, &low, &high);
    tsr_tensor_extent(view, &view_low, &view_high);
    if (view_low < low || view_high > high)
        return tsr_fail(TSR_ERR_SHAPE, "tape_view: view %s reaches outside x's memory",
                        tsr_shape_of(view).text);
    if (v->wants_grad && tsr_tensor_self_overlap(view))
        return tsr_fail(TSR_ERR_OVERLAP, "tape_view: view repeats elements of x, which wants a gradient");
    return make_view(tape, id, view, out);
}

tsr_status tsr_tape_reshape(tsr_tape *tape, tsr_var x, int32_t rank, const int64_t *shape, tsr_var *out)
{
    TSR_TRY(check(tape, out, out, "tape_reshape"));
    uint32_t id;
    tsr_tensor view;
    TSR_TRY(tsr_tape_find(tape, x, "tape_reshape", &id));
    TSR_TRY(tsr_tensor_reshape(&tape->variables[id].value, rank, shape, &view));
    return make_view(tape, id, &view, out);
}

tsr_status tsr_tape_transpose(tsr_tape *tape, tsr_var x, int32_t i, int32_t j, tsr_var *out)
{
    TSR_TRY(check(tape, out, out, "tape_transpose"));
    uint32_t id;
    TSR_TRY(tsr_tape_find(tape, x, "tape_transpose", &id));
    const tsr_tensor *value = &tape->variables[id].value;
    if (i < 0 || j < 0 || i >= value->rank || j >= value->rank)
        return tsr_fail(TSR_ERR_SHAPE, "tape_transpose: dimensions %d and %d of %s", (int)i, (int)j,
                        tsr_shape_of(value).text);
    const tsr_tensor view = tsr_tensor_transpose(value, i, j);
    return make_view(tape, id, &view, out);
}

tsr_status tsr_tape_slice(tsr_tape *tape, tsr_var x, int32_t dim, int64_t start, int64_t length, tsr_var *out)
{
    TSR_TRY(check(tape, out, out, "tape_slice"));
    uint32_t id;
    TSR_TRY(tsr_tape_find(tape, x, "tape_slice", &id));
    const tsr_tensor *value = &tape->variables[id].value;
    if (dim < 0 || dim >= value->rank || start < 0 || length < 0 || start > value->shape[dim] - length)
        return tsr_fail(TSR_ERR_SHAPE, "tape_slice: %lld elements from %lld of dimension %d of %s",
                        (long long)length, (long long)start, (int)dim, tsr_shape_of(value).text);
    const tsr_tensor view = tsr_tensor_slice(value, dim, start, length);
    return make_view(tape, id, &view, out);
}

tsr_status tsr_tape_detach(tsr_tape *tape, tsr_var x, tsr_var *out)
{
    TSR_TRY(check(tape, out, out, "tape_detach"));
    uint32_t id;
    TSR_TRY(tsr_tape_find(tape, x, "tape_detach", &id));
    const tsr_tensor value = tape->variables[id].value;
    TSR_TRY(make_view(tape, id, &value, out));
    tsr_variable *made = &tape->variables[out->id];
    made->base = out->id;
    made->wants_grad = false;
    return TSR_OK;
}
