/* backend/cpu/dropout.c - dropout onto a residual, row by row: each element's bit follows from its place */
#include "backend/cpu/span.h"
#include "base/random.h"

typedef struct dropout_job {
    const tsr_cpu *cpu;
    int64_t n;
    tsr_tensor x, residual, y;
    tsr_dropout_row row; /* of row 0 */
} dropout_job;

static void dropout_row(void *arg, int64_t row)
{
    const dropout_job *job = arg;
    const tsr_cpu *cpu = job->cpu;
    const int64_t n = job->n;
    const cpu_row x = cpu_row_of(&job->x, row), y = cpu_row_of(&job->y, row);
    const cpu_row residual = cpu_row_of(&job->residual, row);
    float x_f32[CPU_CHUNK], residual_f32[CPU_CHUNK], y_f32[CPU_CHUNK];
    tsr_dropout_row dropout = job->row;
    dropout.row = (uint32_t)row;
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        const float *from = cpu_read(cpu, &x, at, m, x_f32), *onto = NULL;
        if (residual.data != NULL) onto = cpu_read(cpu, &residual, at, m, residual_f32);
        float *to = cpu_to_write(&y, at, y_f32);
        cpu->elementwise_f32->dropout_add(m, &dropout, (uint32_t)at, from, onto, to);
        cpu_written(cpu, &y, at, m, to);
    }
}

tsr_status cpu_dropout_add(void *state, const tsr_dropout_add_args *args, void *workspace)
{
    (void)workspace;
    const tsr_dropout *d = &args->dropout;
    dropout_job job = {.cpu = state, .n = args->x.shape[args->x.rank - 1]};
    job.x = cpu_merged_rows(&args->x), job.y = cpu_merged_rows(&args->y);
    job.residual = cpu_merged_rows(&args->residual);
    job.row = (tsr_dropout_row){.seed = d->seed,
                                .offset = d->offset,
                                .threshold = tsr_dropout_threshold(d->p),
                                .scale = (float)(1 / (1 - (double)d->p))};
    cpu_each_row(job.cpu, cpu_n_rows(&args->x), job.n, dropout_row, &job);
    return TSR_OK;
}
