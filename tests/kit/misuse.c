/* tests/kit/misuse.c - one wrong thing at a time, for every argument of every operator */
#include "kit/misuse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/kit.h"
#include "op/context.h"

/* A call, the argument under test, and what its refusal begins with. */
typedef struct trial {
    tsr_context *ctx;
    const kit_operator *op;
    const kit_call *call;
} trial;

tsr_context *kit_without_operators(void)
{
    static tsr_backend backend;
    backend = tsr_backend_reference;
    backend.name = "empty";
#define X(op) backend.op = NULL;
    TSR_OPERATORS(X)
#undef X
    tsr_context *ctx = NULL;
    KIT_OK(tsr_context_create_with(&backend, NULL, &ctx));
    return ctx;
}

/* Runs the call with argument i exchanged for t (NULL: absent). `blames`: the message must name argument i.
 */
static void refuse_with(const trial *x, int32_t i, const tsr_tensor *t, tsr_status expected, bool blames,
                        const char *mutation)
{
    char words[96], what[160];
    snprintf(words, sizeof words, "%s: %s", x->op->name, blames ? x->call->arg[i].name : "");
    snprintf(what, sizeof what, "%s with %s %s", x->op->name, x->call->arg[i].name, mutation);
    kit_tensors tensors = kit_tensors_of(x->call);
    tensors.at[i] = t;
    kit_fails(expected, words, x->op->run(x->ctx, tensors.at, NULL), what, __FILE__, __LINE__);
    kit_check_sealed(what);
}

static void wrong_views(const trial *x, int32_t i)
{
    const kit_argument *arg = &x->call->arg[i];
    tsr_tensor t = arg->t;
    t.dtype = (tsr_dtype)99;
    refuse_with(x, i, &t, TSR_ERR_DTYPE, true, "of dtype 99");
    if (!arg->any_dtype) {
        t.dtype = TSR_I64;
        refuse_with(x, i, &t, TSR_ERR_DTYPE, true, "of dtype i64");
    }
    t = arg->t, t.device = TSR_DEVICE_CUDA;
    refuse_with(x, i, &t, TSR_ERR_DEVICE, true, "on another device");
    t = arg->t, t.rank = TSR_MAX_RANK + 1;
    refuse_with(x, i, &t, TSR_ERR_SHAPE, true, "of rank 5");
    t.rank = -1;
    refuse_with(x, i, &t, TSR_ERR_SHAPE, true, "of rank -1");
    t = arg->t, t.shape[0] = -1;
    refuse_with(x, i, &t, TSR_ERR_SHAPE, true, "of a negative extent");
    t = arg->t, t.shape[0] = 3, t.stride[0] = INT64_MAX / 2;
    refuse_with(x, i, &t, TSR_ERR_OVERFLOW, true, "too large");
    for (int32_t d = 0; d < arg->t.rank; d++) {
        if (arg->free_dims & 1u << d) continue;
        t = arg->t, t.shape[d] += 1;
        refuse_with(x, i, &t, TSR_ERR_SHAPE, false, "of an extent that does not agree");
    }
}

/* An output moved upon another argument; if it may be that very view, then one element further. */
static void upon(const trial *x, int32_t i, int32_t j)
{
    const kit_argument *arg = &x->call->arg[i], *other = &x->call->arg[j];
    tsr_tensor t = arg->t;
    t.data = other->t.data;
    if ((arg->may_be & 1u << j) && tsr_tensor_same(&t, &other->t)) {
        int32_t d = 0;
        while (t.shape[d] == 1) d++;
        t.data = tsr_tensor_at(&t, t.stride[d]);
    }
    refuse_with(x, i, &t, TSR_ERR_OVERLAP, false, "upon another argument");
}

static void wrong_memory(const trial *x, int32_t i)
{
    const kit_argument *arg = &x->call->arg[i];
    for (int32_t d = 0; d < arg->n_strides; d++) {
        if (arg->t.shape[d] == 1) continue;
        tsr_tensor t = arg->t;
        t.stride[d] = 0;
        refuse_with(x, i, &t, arg->contiguous ? TSR_ERR_SHAPE : TSR_ERR_OVERLAP, false, "upon itself");
    }
    for (int32_t j = 0; j < x->call->n; j++)
        if (j != i) upon(x, i, j);
}

static void wrong_context(const trial *x)
{
    const kit_tensors tensors = kit_tensors_of(x->call);
    char name[64];
    snprintf(name, sizeof name, "%s: ", x->op->name);
    KIT_FAILS(TSR_ERR_ARGUMENT, "the context is NULL", x->op->run(NULL, tensors.at, NULL));
    KIT_OK(tsr_enter(x->ctx));
    KIT_FAILS(TSR_ERR_BUSY, name, x->op->run(x->ctx, tensors.at, NULL));
    tsr_leave(x->ctx, TSR_OK);
    tsr_context *empty = kit_without_operators();
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "the empty backend lacks it", x->op->run(empty, tensors.at, NULL));
    size_t out;
    if (x->op->query != NULL)
        KIT_FAILS(TSR_ERR_UNSUPPORTED, "the empty backend lacks it", x->op->query(empty, tensors.at, &out));
    tsr_context_destroy(empty);
    kit_check_sealed(name);
}

/* The query's size is enough, one byte less is not. */
static void wrong_workspace(const trial *x)
{
    if (x->op->query == NULL) return;
    const kit_tensors tensors = kit_tensors_of(x->call);
    size_t need = SIZE_MAX;
    KIT_FAILS(TSR_ERR_ARGUMENT, "the context is NULL", x->op->query(NULL, tensors.at, &need));
    KIT_FAILS(TSR_ERR_ARGUMENT, " is NULL", x->op->query(x->ctx, tensors.at, NULL));
    assert_true(need == SIZE_MAX);
    KIT_OK(x->op->query(x->ctx, tensors.at, &need));
    if (need == 0) return;
    void *memory = malloc(need);
    assert_non_null(memory);
    KIT_FAILS(TSR_ERR_WORKSPACE, x->op->name,
              x->op->run(x->ctx, tensors.at, &(tsr_workspace){memory, need - 1}));
    KIT_FAILS(TSR_ERR_WORKSPACE, x->op->name, x->op->run(x->ctx, tensors.at, &(tsr_workspace){NULL, need}));
    kit_check_sealed(x->op->name);
    KIT_OK(x->op->run(x->ctx, tensors.at, &(tsr_workspace){memory, need}));
    free(memory);
}

void kit_misuse(tsr_context *ctx, const kit_operator *op)
{
    kit_call call = {.n = 0};
    op->build(&call);
    const trial x = {.ctx = ctx, .op = op, .call = &call};
    const kit_tensors tensors = kit_tensors_of(&call);
    const tsr_status status = op->run(ctx, tensors.at, NULL);
    if (status == TSR_ERR_UNSUPPORTED)
        printf("skipped: the %s backend lacks %s\n", tsr_context_backend(ctx), op->name);
    else if (status != TSR_OK)
        kit_fail("%s as it is: %s: %s", op->name, tsr_status_name(status), tsr_last_error());
    kit_seal();
    for (int32_t i = 0; i < call.n; i++) {
        const kit_argument *arg = &call.arg[i];
        if (!arg->optional) refuse_with(&x, i, NULL, TSR_ERR_ARGUMENT, true, "NULL");
        tsr_tensor t = arg->t;
        t.data = NULL;
        if (!(arg->raw && arg->optional)) refuse_with(&x, i, &t, TSR_ERR_ARGUMENT, true, "without data");
        if (!arg->raw) wrong_views(&x, i);
        if (arg->role != KIT_IN) wrong_memory(&x, i);
    }
    if (status != TSR_ERR_UNSUPPORTED) wrong_context(&x), wrong_workspace(&x);
    kit_free_all();
}
