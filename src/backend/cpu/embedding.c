/* backend/cpu/embedding.c - rows of a table by id; their gradients added up in the order of the ids */
#include <string.h>

#include "backend/cpu/span.h"
#include "backend/indices.h"
#include "base/error.h"

static int64_t id_at(const tsr_tensor *ids, int64_t i)
{
    return ((const int32_t *)ids->data)[cpu_offset(ids, ids->rank, i)];
}

/* --- forward --- */

typedef struct fwd_job {
    const tsr_cpu *cpu;
    tsr_tensor table, ids, out; /* leading dimensions merged */
} fwd_job;

static void fwd_row(void *arg, int64_t i)
{
    const fwd_job *job = arg;
    const cpu_row from = cpu_row_of(&job->table, id_at(&job->ids, i)), to = cpu_row_of(&job->out, i);
    cpu_copy_row(job->cpu, &from, &to, job->table.shape[1]);
}

tsr_status cpu_embedding_fwd(void *state, const tsr_embedding_fwd_args *args, void *workspace)
{
    (void)workspace;
    TSR_TRY(tsr_check_ids(&args->ids, args->table.shape[0], NULL, "ids"));
    fwd_job job = {state, args->table, cpu_merged(&args->ids, args->ids.rank), cpu_merged_rows(&args->out)};
    cpu_each_row(state, tsr_tensor_numel(&args->ids), args->table.shape[1], fwd_row, &job);
    return TSR_OK;
}

/* --- backward --- */

/*
 * An item owns some columns of the whole table and goes through all ids: no two items write the same element,
 * and each element's terms come in the order of the ids, whatever the width of an item.
 */
typedef struct bwd_job {
    const tsr_cpu *cpu;
    bool accumulate;
    tsr_tensor ids, dout, dtable; /* leading dimensions merged */
    int64_t n_ids, n, width;
} bwd_job;

static void clear_columns(const tsr_tensor *t, int64_t first, int64_t n)
{
    for (int64_t v = 0; v < t->shape[0]; v++) {
        const cpu_row row = cpu_row_of(t, v);
        float *x = (float *)row.data + first * row.stride;
        if (row.stride == 1)
            memset(x, 0, (size_t)n * sizeof *x);
        else
            for (int64_t j = 0; j < n; j++) x[j * row.stride] = 0;
    }
}

static void bwd_columns(void *arg, int64_t item, int32_t slot)
{
    const bwd_job *job = arg;
    const tsr_cpu *cpu = job->cpu;
    (void)slot;
    const int64_t first = item * job->width, end = cpu_min(first + job->width, job->n);
    float dout_f32[CPU_CHUNK], sum_f32[CPU_CHUNK];
    if (!job->accumulate) clear_columns(&job->dtable, first, end - first);
    for (int64_t i = 0; i < job->n_ids; i++) {
        const cpu_row dout = cpu_row_of(&job->dout, i), sum = cpu_row_of(&job->dtable, id_at(&job->ids, i));
        for (int64_t at = first; at < end; at += CPU_CHUNK) {
            const int64_t m = cpu_min(end - at, CPU_CHUNK);
            float *sums = (float *)cpu_read(cpu, &sum, at, m, sum_f32);
            cpu->row_f32->accumulate(m, cpu_read(cpu, &dout, at, m, dout_f32), sums);
            cpu_written(cpu, &sum, at, m, sums);
        }
    }
}

tsr_status cpu_embedding_bwd(void *state, const tsr_embedding_bwd_args *args, void *workspace)
{
    (void)workspace;
    TSR_TRY(tsr_check_ids(&args->ids, args->dtable.shape[0], NULL, "ids"));
    const tsr_cpu *cpu = state;
    enum { CACHE_LINE = 16 };
    bwd_job job = {.cpu = cpu, .accumulate = args->accumulate, .dtable = args->dtable};
    job.ids = cpu_merged(&args->ids, args->ids.rank), job.dout = cpu_merged_rows(&args->dout);
    job.n_ids = tsr_tensor_numel(&args->ids), job.n = args->dtable.shape[1];
    if (job.n == 0) return TSR_OK;
    job.width = cpu_ceil_div(cpu_ceil_div(job.n, tsr_threads_count(cpu->threads)), CACHE_LINE) * CACHE_LINE;
    cpu_run(cpu, cpu_ceil_div(job.n, job.width), (job.n_ids + args->dtable.shape[0]) * job.n, bwd_columns,
            &job);
    return TSR_OK;
}
