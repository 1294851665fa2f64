/*
 * backend/cpu/sum.c - sums of all elements, of their squares, and of rows
 *
 * Both in two steps: items of a constant size leave partial sums in the workspace, which are then added in
 * order.
 */
#include <string.h>

#include "backend/cpu/span.h"
#include "base/dtype.h"

/* --- all elements --- */

typedef struct sum_job {
    const tsr_cpu *cpu;
    bool squares;
    double *partial; /* one an item */
} sum_job;

static void sum_span(void *arg, int64_t item, const cpu_row *x, int64_t n)
{
    const sum_job *job = arg;
    const tsr_row_f32_kernel *kernel = job->cpu->row_f32;
    float scratch[CPU_CHUNK];
    double sum = 0;
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        const float *v = cpu_read(job->cpu, x, at, m, scratch);
        sum += job->squares ? kernel->sum_squares(m, v, 0) : kernel->sum(m, v, 0);
    }
    job->partial[item] += sum;
}

size_t cpu_sum_workspace(const void *state, const tsr_sum_args *args)
{
    (void)state;
    return (size_t)cpu_layout_of(1, (const tsr_tensor *[]){&args->x}).n_items * sizeof(double);
}

tsr_status cpu_sum(void *state, const tsr_sum_args *args, void *workspace)
{
    const cpu_layout layout = cpu_layout_of(1, (const tsr_tensor *[]){&args->x});
    sum_job job = {state, args->squares, workspace};
    if (layout.n_items > 0) memset(workspace, 0, (size_t)layout.n_items * sizeof(double));
    cpu_each_span(state, &layout, sum_span, &job);
    float *out = args->out.data;
    double sum = args->accumulate ? *out : 0;
    for (int64_t i = 0; i < layout.n_items; i++) sum += job.partial[i];
    *out = (float)sum;
    return TSR_OK;
}

/* --- chunk sums, merged --- */

typedef struct merge_job {
    const tsr_cpu *cpu;
    const float *partial;
    int64_t n_chunks, n;
    bool accumulate;
    cpu_row out;
} merge_job;

static void merge_columns(void *arg, int64_t item, int32_t slot)
{
    const merge_job *job = arg;
    (void)slot;
    const int64_t at = item * CPU_CHUNK, n = cpu_min(job->n - at, CPU_CHUNK);
    float sums[CPU_CHUNK] = {0}, before[CPU_CHUNK];
    if (job->accumulate) job->cpu->row_f32->accumulate(n, cpu_read(job->cpu, &job->out, at, n, before), sums);
    for (int64_t chunk = 0; chunk < job->n_chunks; chunk++)
        job->cpu->row_f32->accumulate(n, job->partial + chunk * job->n + at, sums);
    const int64_t offset = at * job->out.stride * job->out.nbytes;
    job->cpu->elementwise_f32->store(job->out.data + offset, job->out.dtype, job->out.stride, sums, n);
}

void cpu_merge_sums(const tsr_cpu *cpu, const float *partial, int64_t n_chunks, bool accumulate,
                    const tsr_tensor *out)
{
    merge_job job = {cpu, partial, n_chunks, out->shape[0], accumulate, cpu_row_of(out, 0)};
    cpu_run(cpu, cpu_ceil_div(job.n, CPU_CHUNK), n_chunks * job.n, merge_columns, &job);
}

/* --- rows --- */

enum { COLUMNS_OF_ITEM = 1024 };

typedef struct rows_job {
    const tsr_cpu *cpu;
    tsr_tensor x;                          /* leading dimensions merged */
    int64_t n_rows, n, n_chunks, n_pieces; /* chunks of rows, pieces of columns */
    float *partial;                        /* [n_chunks][n] */
} rows_job;

static rows_job rows_job_of(const void *state, const tsr_tensor *x, void *workspace)
{
    const int64_t n_rows = cpu_n_rows(x), n = x->shape[x->rank - 1];
    return (rows_job){.cpu = state,
                      .x = cpu_merged_rows(x),
                      .n_rows = n_rows,
                      .n = n,
                      .n_chunks = cpu_ceil_div(n_rows, CPU_ROWS_OF_SUM),
                      .n_pieces = cpu_ceil_div(n, COLUMNS_OF_ITEM),
                      .partial = workspace};
}

static void sum_chunk(void *arg, int64_t item, int32_t slot)
{
    const rows_job *job = arg;
    (void)slot;
    const int64_t chunk = item / job->n_pieces, first = item % job->n_pieces * COLUMNS_OF_ITEM;
    const int64_t end = cpu_min(first + COLUMNS_OF_ITEM, job->n);
    const int64_t end_row = cpu_min((chunk + 1) * CPU_ROWS_OF_SUM, job->n_rows);
    float *sums = job->partial + chunk * job->n;
    float scratch[CPU_CHUNK];
    memset(sums + first, 0, (size_t)(end - first) * sizeof *sums);
    for (int64_t row = chunk * CPU_ROWS_OF_SUM; row < end_row; row++) {
        const cpu_row x = cpu_row_of(&job->x, row);
        for (int64_t at = first; at < end; at += CPU_CHUNK) {
            const int64_t m = cpu_min(end - at, CPU_CHUNK);
            job->cpu->row_f32->accumulate(m, cpu_read(job->cpu, &x, at, m, scratch), sums + at);
        }
    }
}

size_t cpu_sum_rows_workspace(const void *state, const tsr_sum_rows_args *args)
{
    const rows_job job = rows_job_of(state, &args->x, NULL);
    return (size_t)(job.n_chunks * job.n) * sizeof(float);
}

tsr_status cpu_sum_rows(void *state, const tsr_sum_rows_args *args, void *workspace)
{
    rows_job job = rows_job_of(state, &args->x, workspace);
    cpu_run(job.cpu, job.n_chunks * job.n_pieces, job.n_rows * job.n, sum_chunk, &job);
    cpu_merge_sums(job.cpu, job.partial, job.n_chunks, args->accumulate, &args->out);
    return TSR_OK;
}
