/* backend/cpu/kv_append.c - cache[b, :, start[b] + i, :] = x[b, :, i, :] for i < lengths[b] */
#include "backend/cpu/span.h"
#include "backend/indices.h"
#include "base/error.h"

typedef struct append_job {
    const tsr_cpu *cpu;
    const tsr_kv_append_args *args;
} append_job;

/* Row (b, h, i) of x. */
static void append_row(void *arg, int64_t row)
{
    const append_job *job = arg;
    const tsr_kv_append_args *a = job->args;
    const int64_t n_heads = a->x.shape[1], l = a->x.shape[2];
    const int64_t i = row % l, h = row / l % n_heads, b = row / l / n_heads;
    if (a->lengths.data != NULL && i >= tsr_index_at(&a->lengths, b)) return;
    const int64_t at = tsr_index_at(&a->start, b) + i;
    const cpu_row from = cpu_row_of(&a->x, row);
    const cpu_row to = cpu_row_of(&a->cache, (b * n_heads + h) * a->cache.shape[2] + at);
    cpu_copy_row(job->cpu, &from, &to, a->x.shape[3]);
}

tsr_status cpu_kv_append(void *state, const tsr_kv_append_args *args, void *workspace)
{
    (void)workspace;
    TSR_TRY(tsr_check_kv_append(args));
    append_job job = {state, args};
    cpu_each_row(state, cpu_n_rows(&args->x), args->x.shape[3], append_row, &job);
    return TSR_OK;
}
