/*
 * backend/cpu/cross_entropy.c - cross-entropy of x @ w^T, a chunk of rows at a time
 *
 *     x [N, n]   w [V, n]        for each chunk of ROWS rows: logits [ROWS, V] in the workspace, by GEMM
 *
 *     forward    lse and loss of each row; the mean is added up in the order of the rows
 *     backward   logits again, turned in place into dlogits = (softmax - onehot) * dloss / n_valid
 *                dx = dlogits @ w,   dw += dlogits^T @ x   (chunk after chunk: the order is canonical)
 *
 * An ignored row has an lse and gradient 0, also where its x is NaN: dw is then summed over a copy of the
 * chunk in which such rows are 0.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/span.h"
#include "backend/indices.h"
#include "base/arena.h"
#include "base/error.h"

enum { ROWS = 256 };

static tsr_gemm_matrix matrix(const void *data, tsr_dtype dtype, int64_t row, int64_t col)
{
    return (tsr_gemm_matrix){.data = (void *)data, .row = row, .col = col, .group = 1, .dtype = dtype};
}

static tsr_gemm_matrix rows_of(const tsr_tensor *t, int64_t first)
{
    /* While the workspace is counted there may be no data yet. */
    const void *data = first == 0 ? t->data : tsr_tensor_at(t, first * t->stride[0]);
    return matrix(data, t->dtype, t->stride[0], t->stride[1]);
}

static tsr_gemm_args product(int64_t m, int64_t n, int64_t k, tsr_gemm_matrix a, tsr_gemm_matrix b,
                             tsr_gemm_matrix c, float beta)
{
    return (tsr_gemm_args){
        .m = m, .n = n, .k = k, .batch = 1, .num_heads = 1, .a = a, .b = b, .c = c, .alpha = 1, .beta = beta};
}

/* logits [m, V] of rows first.. */
static tsr_gemm_args logits_product(const tsr_tensor *x, const tsr_tensor *w, int64_t first, int64_t m,
                                    float *logits)
{
    const int64_t n_words = w->shape[0];
    return product(m, n_words, x->shape[1], rows_of(x, first),
                   matrix(w->data, w->dtype, w->stride[1], w->stride[0]), matrix(logits, TSR_F32, n_words, 1),
                   0);
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* --- forward --- */

typedef struct fwd_job {
    const tsr_cpu *cpu;
    const tsr_linear_cross_entropy_fwd_args *args;
    int64_t first; /* row of the chunk */
    float *logits; /* [ROWS][V] */
    double *loss;  /* [N] */
    void *gemm;    /* its workspace */
} fwd_job;

static fwd_job fwd_job_of(const void *state, const tsr_linear_cross_entropy_fwd_args *args, tsr_arena *memory)
{
    const int64_t n_rows = args->x.shape[0], n_words = args->w.shape[0], rows = cpu_min(n_rows, ROWS);
    fwd_job job = {.cpu = state, .args = args};
    job.logits = tsr_arena_take(memory, (size_t)rows, (size_t)n_words * sizeof(float));
    job.loss = tsr_arena_take(memory, (size_t)n_rows, sizeof(double));
    const tsr_gemm_args whole = logits_product(&args->x, &args->w, 0, rows, NULL);
    const tsr_gemm_args last = logits_product(&args->x, &args->w, 0, n_rows % ROWS, NULL);
    job.gemm = tsr_arena_take(memory,
                              larger(cpu_gemm_workspace(state, &whole), cpu_gemm_workspace(state, &last)), 1);
    return job;
}

static void fwd_row(void *arg, int64_t i)
{
    const fwd_job *job = arg;
    const tsr_linear_cross_entropy_fwd_args *a = job->args;
    const int64_t n_words = a->w.shape[0], row = job->first + i;
    const cpu_row logits = {(char *)(job->logits + i * n_words), 1, TSR_F32, sizeof(float)};
    const cpu_log_sum s = cpu_log_sum_of(job->cpu, &logits, n_words);
    const double lse = s.shift + log((double)s.sum);
    const int32_t target = tsr_index_at(&a->targets, row);
    ((float *)a->lse.data)[row * a->lse.stride[0]] = (float)lse;
    job->loss[row] = target == a->ignore_index ? 0 : lse - job->logits[i * n_words + target];
}

size_t cpu_linear_cross_entropy_fwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_fwd_args *args)
{
    tsr_arena count = {0};
    fwd_job_of(state, args, &count);
    return count.used;
}

tsr_status cpu_linear_cross_entropy_fwd(void *state, const tsr_linear_cross_entropy_fwd_args *args,
                                        void *workspace)
{
    TSR_TRY(tsr_check_ids(&args->targets, args->w.shape[0], &args->ignore_index, "targets"));
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    fwd_job job = fwd_job_of(state, args, &memory);
    const int64_t n_rows = args->x.shape[0];
    for (; job.first < n_rows; job.first += ROWS) {
        const int64_t m = cpu_min(n_rows - job.first, ROWS);
        const tsr_gemm_args logits = logits_product(&args->x, &args->w, job.first, m, job.logits);
        TSR_TRY(cpu_gemm(state, &logits, job.gemm));
        cpu_each_row(state, m, args->w.shape[0], fwd_row, &job);
    }
    int64_t n_valid = 0;
    double sum = 0;
    for (int64_t row = 0; row < n_rows; row++) {
        if (tsr_index_at(&args->targets, row) == args->ignore_index) continue;
        sum += job.loss[row];
        n_valid++;
    }
    *(float *)args->loss.data = n_valid == 0 ? 0 : (float)(sum / (double)n_valid);
    return TSR_OK;
}

/* --- backward --- */

typedef struct bwd_job {
    const tsr_cpu *cpu;
    const tsr_linear_cross_entropy_bwd_args *args;
    int64_t first, m;   /* the chunk's rows */
    int64_t n_ignored;  /* of them */
    float scale;        /* dloss / n_valid */
    float *logits;      /* [ROWS][V], then dlogits */
    tsr_tensor valid_x; /* [ROWS][n] of x's dtype: the chunk with ignored rows 0 */
    tsr_tensor dw;      /* f32: args->dw or, if that is narrower, a sum in the workspace */
    void *gemm;
} bwd_job;

static tsr_gemm_args dx_product(const bwd_job *job)
{
    const tsr_tensor *w = &job->args->w;
    return product(job->m, w->shape[1], w->shape[0], matrix(job->logits, TSR_F32, w->shape[0], 1),
                   rows_of(w, 0), rows_of(&job->args->dx, job->first), 0);
}

static tsr_gemm_args dw_product(const bwd_job *job)
{
    const tsr_tensor *w = &job->args->w;
    const tsr_gemm_matrix x = job->n_ignored > 0 ? rows_of(&job->valid_x, 0)
                                                 : rows_of(&job->args->x, job->first);
    const float beta = job->first > 0 || job->args->accumulate;
    return product(w->shape[0], w->shape[1], job->m, matrix(job->logits, TSR_F32, 1, w->shape[0]), x,
                   rows_of(&job->dw, 0), beta);
}

/* Enough for C of any layout: who asks for the workspace need not have the gradients yet. */
static size_t nbytes_for_any_c(const tsr_cpu *cpu, tsr_gemm_args g)
{
    const int64_t strides[][2] = {{g.n, 1}, {1, g.m}, {2 * g.n, 2}};
    size_t most = 0;
    for (int i = 0; i < 3; i++) {
        g.c.row = strides[i][0], g.c.col = strides[i][1];
        most = larger(most, cpu_gemm_workspace(cpu, &g));
    }
    return most;
}

static size_t gemm_nbytes(bwd_job job, int64_t m)
{
    job.m = m;
    const tsr_gemm_args logits = logits_product(&job.args->x, &job.args->w, 0, m, NULL);
    const tsr_gemm_args dx = dx_product(&job);
    const tsr_gemm_args dw = dw_product(&job);
    job.n_ignored = 1;
    const tsr_gemm_args dw_of_copy = dw_product(&job);
    return larger(larger(cpu_gemm_workspace(job.cpu, &logits), nbytes_for_any_c(job.cpu, dx)),
                  larger(nbytes_for_any_c(job.cpu, dw), nbytes_for_any_c(job.cpu, dw_of_copy)));
}

static bwd_job bwd_job_of(const void *state, const tsr_linear_cross_entropy_bwd_args *args, tsr_arena *memory)
{
    const tsr_tensor *x = &args->x, *w = &args->w;
    const int64_t n_rows = x->shape[0], n = x->shape[1], rows = cpu_min(n_rows, ROWS);
    bwd_job job = {.cpu = state, .args = args, .dw = args->dw};
    job.logits = tsr_arena_take(memory, (size_t)rows, (size_t)w->shape[0] * sizeof(float));
    job.valid_x = tsr_tensor_2d(tsr_arena_take(memory, (size_t)rows, (size_t)n * tsr_dtype_nbytes(x->dtype)),
                                x->dtype, rows, n);
    if (args->dw.dtype != TSR_F32)
        job.dw = tsr_tensor_2d(tsr_arena_take(memory, (size_t)w->shape[0], (size_t)n * sizeof(float)),
                               TSR_F32, w->shape[0], n);
    job.gemm = tsr_arena_take(memory, larger(gemm_nbytes(job, rows), gemm_nbytes(job, n_rows % ROWS)), 1);
    return job;
}

static bool ignored(const bwd_job *job, int64_t i)
{
    return tsr_index_at(&job->args->targets, job->first + i) == job->args->ignore_index;
}

/* Logits into dlogits. */
static void dlogits_row(void *arg, int64_t i)
{
    const bwd_job *job = arg;
    const int64_t n_words = job->args->w.shape[0], row = job->first + i;
    float *logits = job->logits + i * n_words;
    if (ignored(job, i)) {
        memset(logits, 0, (size_t)n_words * sizeof *logits);
        return;
    }
    const float lse = ((const float *)job->args->lse.data)[row * job->args->lse.stride[0]];
    job->cpu->row_f32->exp_scale(n_words, logits, lse, job->scale, logits);
    logits[tsr_index_at(&job->args->targets, row)] -= job->scale;
}

static void copy_valid_row(void *arg, int64_t i)
{
    const bwd_job *job = arg;
    const cpu_row from = cpu_row_of(&job->args->x, job->first + i), to = cpu_row_of(&job->valid_x, i);
    const int64_t n = job->args->x.shape[1];
    if (ignored(job, i))
        memset(to.data, 0, (size_t)(n * to.nbytes));
    else
        cpu_copy_row(job->cpu, &from, &to, n);
}

/* 0 * Inf in w must not reach the gradient of a row that is ignored. */
static tsr_status clear_ignored_dx(void *state, const bwd_job *job)
{
    for (int64_t i = 0; i < job->m && job->n_ignored > 0; i++)
        if (ignored(job, i))
            TSR_TRY(cpu_fill(
                state, &(tsr_fill_args){.y = tsr_tensor_slice(&job->args->dx, 0, job->first + i, 1)}, NULL));
    return TSR_OK;
}

static tsr_status bwd_chunk(void *state, bwd_job *job)
{
    const tsr_linear_cross_entropy_bwd_args *a = job->args;
    job->n_ignored = 0;
    for (int64_t i = 0; i < job->m; i++) job->n_ignored += ignored(job, i);
    const tsr_gemm_args logits = logits_product(&a->x, &a->w, job->first, job->m, job->logits);
    TSR_TRY(cpu_gemm(state, &logits, job->gemm));
    cpu_each_row(state, job->m, a->w.shape[0], dlogits_row, job);
    const tsr_gemm_args dx = dx_product(job);
    TSR_TRY(cpu_gemm(state, &dx, job->gemm));
    TSR_TRY(clear_ignored_dx(state, job));
    if (job->n_ignored > 0) cpu_each_row(state, job->m, a->x.shape[1], copy_valid_row, job);
    const tsr_gemm_args dw = dw_product(job);
    return cpu_gemm(state, &dw, job->gemm);
}

size_t cpu_linear_cross_entropy_bwd_workspace(const void *state,
                                              const tsr_linear_cross_entropy_bwd_args *args)
{
    tsr_arena count = {0};
    bwd_job_of(state, args, &count);
    return count.used;
}

tsr_status cpu_linear_cross_entropy_bwd(void *state, const tsr_linear_cross_entropy_bwd_args *args,
                                        void *workspace)
{
    TSR_TRY(tsr_check_ids(&args->targets, args->w.shape[0], &args->ignore_index, "targets"));
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    bwd_job job = bwd_job_of(state, args, &memory);
    const int64_t n_rows = args->x.shape[0];
    int64_t n_valid = 0;
    for (int64_t row = 0; row < n_rows; row++)
        n_valid += tsr_index_at(&args->targets, row) != args->ignore_index;
    job.scale = n_valid == 0 ? 0 : (float)(*(const float *)args->dloss.data / (double)n_valid);

    const bool narrow = args->dw.dtype != TSR_F32;
    if (narrow && args->accumulate)
        TSR_TRY(cpu_copy(state, &(tsr_copy_args){.x = args->dw, .y = job.dw}, NULL));
    if (n_rows == 0 && !args->accumulate) TSR_TRY(cpu_fill(state, &(tsr_fill_args){.y = job.dw}, NULL));
    for (; job.first < n_rows; job.first += ROWS) {
        job.m = cpu_min(n_rows - job.first, ROWS);
        TSR_TRY(bwd_chunk(state, &job));
    }
    return narrow ? cpu_copy(state, &(tsr_copy_args){.x = job.dw, .y = args->dw}, NULL) : TSR_OK;
}
