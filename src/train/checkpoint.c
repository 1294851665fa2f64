/* train/checkpoint.c - a run's numbers and rows, to a file and back */
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/safetensors.h"
#include "model/weights_plan.h"

enum { MAX_INTEGERS = 32, MAX_REALS = 16, N_ROWS = 3 };

/* The numbers of a run, listed once: both directions walk these lists. */
typedef struct number_list {
    int64_t *integer[MAX_INTEGERS];
    double *real[MAX_REALS];
    int n_integers, n_reals;
} number_list;

static number_list numbers_of(tsr_trainer *t, int64_t *dtype)
{
    tsr_train_options *o = &t->options;
    tsr_train_state *s = &t->state;
    number_list list = {
        .integer = {&o->steps,
                    &o->vocab,
                    &o->dim,
                    &o->layers,
                    &o->heads,
                    &o->kv_heads,
                    &o->ffn,
                    &o->context,
                    &o->batch,
                    &o->accumulate,
                    &o->warmup,
                    &o->n_evaluations,
                    (int64_t *)&o->seed,
                    dtype,
                    &s->step,
                    &s->n_steps,
                    (int64_t *)&s->n_draws,
                    &s->best_step,
                    &s->loss_n,
                    (int64_t *)&s->data_hash},
        .real = {&o->minutes, &o->lr, &o->weight_decay, &o->clip, &o->dropout, &s->best_bits, &s->loss_sum},
    };
    while (list.integer[list.n_integers] != NULL) list.n_integers++;
    while (list.real[list.n_reals] != NULL) list.n_reals++;
    return list;
}

static tsr_status checkpoint_path(const char *directory, char **out)
{
    const size_t n = strlen(directory) + sizeof "/checkpoint.safetensors";
    *out = malloc(n);
    if (*out == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", directory);
    snprintf(*out, n, "%s/checkpoint.safetensors", directory);
    return TSR_OK;
}

static const char *const row_names[N_ROWS] = {"master", "m", "v"};

static const tsr_tensor *row_of(const tsr_trainer *t, size_t i)
{
    return i == 0 ? &t->master : i == 1 ? &t->m : &t->v;
}

typedef struct write_job {
    const tsr_trainer *trainer;
    const tsr_named_tensor *list;
    void *host; /* one row */
} write_job;

static tsr_status next_tensor(void *user, size_t i, tsr_tensor *out)
{
    const write_job *job = user;
    *out = job->list[i].tensor;
    if (i >= N_ROWS) return TSR_OK;
    const tsr_tensor *row = row_of(job->trainer, i);
    TSR_TRY(
        tsr_download(job->trainer->ctx, job->host, row->data, (size_t)tsr_tensor_numel(row) * sizeof(float)));
    out->data = job->host, out->device = TSR_DEVICE_CPU;
    return TSR_OK;
}

tsr_status tsr_checkpoint_write(const tsr_trainer *trainer)
{
    tsr_trainer copy = *trainer; /* the lists point into it */
    int64_t dtype = (int64_t)trainer->options.dtype, integers[MAX_INTEGERS];
    double reals[MAX_REALS];
    const number_list numbers = numbers_of(&copy, &dtype);
    for (int i = 0; i < numbers.n_integers; i++) integers[i] = *numbers.integer[i];
    for (int i = 0; i < numbers.n_reals; i++) reals[i] = *numbers.real[i];

    tsr_named_tensor list[N_ROWS + 3] = {
        [N_ROWS] = {"integers", tsr_tensor_1d(integers, TSR_I64, numbers.n_integers)},
        [N_ROWS + 1] = {"reals", tsr_tensor_1d(reals, TSR_F64, numbers.n_reals)},
        [N_ROWS + 2] = {"history", tsr_tensor_2d(trainer->history, TSR_F64, trainer->n_history, 3)},
    };
    for (size_t i = 0; i < N_ROWS; i++) list[i] = (tsr_named_tensor){row_names[i], *row_of(trainer, i)};
    char *path;
    TSR_TRY(checkpoint_path(trainer->options.out, &path));
    write_job job = {trainer, list, malloc((size_t)trainer->weights.row_n * sizeof(float))};
    const tsr_status status = job.host == NULL
                                  ? tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", path)
                                  : tsr_safetensors_write(path, list, N_ROWS + 3, next_tensor, &job);
    free(job.host);
    free(path);
    return status;
}

static tsr_status open_checkpoint(const char *directory, tsr_safetensors **st)
{
    char *path;
    TSR_TRY(checkpoint_path(directory, &path));
    const tsr_status status = tsr_safetensors_open(path, st);
    free(path);
    return status;
}

/* The tensor of that name and dtype; its first extent may be anything if rows < 0. */
static tsr_status expect(const tsr_safetensors *st, const char *name, tsr_dtype dtype, int32_t rank,
                         int64_t rows, const tsr_stored **out)
{
    const tsr_stored *x = tsr_safetensors_find(st, name);
    if (x == NULL || x->dtype != dtype || x->rank != rank || (rows >= 0 && x->shape[0] != rows) ||
        (rank == 2 && x->shape[1] != 3))
        return tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: '%s' is missing or of another kind", name);
    *out = x;
    return TSR_OK;
}

/* Numbers that no run can have come to. The options are the trainer's to check. */
static tsr_status check_state(const tsr_train_state *s, int64_t steps)
{
    if ((steps > 0 && s->n_steps != steps) || s->step < 0 || s->step > TSR_MAX_STEPS || s->n_steps < 0 ||
        s->n_steps > TSR_MAX_STEPS || (s->n_steps != 0 && s->n_steps < s->step))
        return tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: it is at step %lld of %lld",
                        (long long)s->step, (long long)s->n_steps);
    if (s->best_step < 0 || s->best_step > s->step || !(s->best_bits >= 0))
        return tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: its best figure is %g, at step %lld of %lld",
                        s->best_bits, (long long)s->best_step, (long long)s->step);
    if (s->loss_n < 0 || s->loss_n > s->step || !isfinite(s->loss_sum))
        return tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: its loss is %g over %lld of %lld steps",
                        s->loss_sum, (long long)s->loss_n, (long long)s->step);
    return TSR_OK;
}

static tsr_status read_numbers(const tsr_safetensors *st, tsr_trainer *t)
{
    int64_t dtype = 0, integers[MAX_INTEGERS];
    double reals[MAX_REALS];
    const number_list numbers = numbers_of(t, &dtype);
    const tsr_stored *stored = NULL;
    TSR_TRY(expect(st, "integers", TSR_I64, 1, numbers.n_integers, &stored));
    TSR_TRY(tsr_stored_read(stored, TSR_I64, integers));
    TSR_TRY(expect(st, "reals", TSR_F64, 1, numbers.n_reals, &stored));
    TSR_TRY(tsr_stored_read(stored, TSR_F64, reals));
    for (int i = 0; i < numbers.n_integers; i++) *numbers.integer[i] = integers[i];
    for (int i = 0; i < numbers.n_reals; i++) *numbers.real[i] = reals[i];
    if (dtype != TSR_F32 && dtype != TSR_BF16)
        return tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: its dtype has the number %lld",
                        (long long)dtype);
    t->options.dtype = (tsr_dtype)dtype;
    return check_state(&t->state, t->options.steps);
}

static tsr_status read_history(const tsr_safetensors *st, tsr_trainer *t)
{
    const tsr_stored *stored = NULL;
    TSR_TRY(expect(st, "history", TSR_F64, 2, -1, &stored));
    tsr_train_point *history = malloc(stored->nbytes + 1);
    if (history == NULL) return tsr_fail(TSR_ERR_MEMORY, "checkpoint: out of memory");
    tsr_status status = tsr_stored_read(stored, TSR_F64, history);
    for (int64_t i = 0; i < stored->shape[0] && status == TSR_OK; i++)
        if (!(history[i].step >= 0 && history[i].step <= (double)t->state.step))
            status = tsr_fail(TSR_ERR_FORMAT, "checkpoint.safetensors: row %lld of its history is step %g",
                              (long long)i, history[i].step);
    if (status != TSR_OK) {
        free(history);
        return status;
    }
    t->history = history;
    t->n_history = stored->shape[0];
    return TSR_OK;
}

tsr_status tsr_checkpoint_read_state(const char *directory, tsr_trainer *t)
{
    tsr_safetensors *st;
    TSR_TRY(open_checkpoint(directory, &st));
    tsr_status status = read_numbers(st, t);
    if (status == TSR_OK) status = read_history(st, t);
    tsr_safetensors_close(st);
    return status;
}

tsr_status tsr_checkpoint_check_rows(const char *directory, const tsr_llama_config *config)
{
    tsr_weights plan;
    TSR_TRY(tsr_weights_plan(config, &plan));
    tsr_safetensors *st;
    tsr_status status = open_checkpoint(directory, &st);
    if (status == TSR_OK) {
        const tsr_stored *stored;
        for (size_t i = 0; i < N_ROWS && status == TSR_OK; i++)
            status = expect(st, row_names[i], TSR_F32, 1, plan.row_n, &stored);
        tsr_safetensors_close(st);
    }
    tsr_weights_free(&plan);
    return status;
}

tsr_status tsr_checkpoint_read_rows(const char *directory, tsr_trainer *t)
{
    tsr_safetensors *st;
    TSR_TRY(open_checkpoint(directory, &st));
    const size_t nbytes = (size_t)t->weights.row_n * sizeof(float);
    float *host = malloc(nbytes);
    tsr_status status = host == NULL ? tsr_fail(TSR_ERR_MEMORY, "checkpoint: out of memory") : TSR_OK;
    for (size_t i = 0; i < N_ROWS && status == TSR_OK; i++) {
        const tsr_stored *stored = NULL;
        status = expect(st, row_names[i], TSR_F32, 1, t->weights.row_n, &stored);
        if (status == TSR_OK) status = tsr_stored_read(stored, TSR_F32, host);
        if (status == TSR_OK) status = tsr_upload(t->ctx, row_of(t, i)->data, host, nbytes);
    }
    free(host);
    tsr_safetensors_close(st);
    return status;
}
