/*
 * backend/cpu/softmax.c - softmax over the last dimension in two readings, and its backward
 *
 * The first reading keeps a running maximum m and the sum of exp(x - m); where a piece of the row raises m to
 * m', the sum so far shrinks by exp(m - m'). (Milakov and Gimelshein, 2018)
 */
#include <math.h>

#include "backend/cpu/span.h"

cpu_log_sum cpu_log_sum_of(const tsr_cpu *cpu, const cpu_row *x, int64_t n)
{
    float max = -INFINITY, scratch[CPU_CHUNK];
    double sum = 0;
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        const float *v = cpu_read(cpu, x, at, m, scratch);
        const float here = cpu->row_f32->max(m, v);
        if (here > max) {
            sum *= exp((double)max - (double)here);
            max = here;
        }
        /* A NaN reaches the sum, and with it the whole row, even where nothing else is above -Inf. */
        sum += cpu->row_f32->exp_sum(m, v, max == -INFINITY ? 0 : max);
    }
    return (cpu_log_sum){max == -INFINITY ? 0 : max, (float)sum};
}

typedef struct fwd_job {
    const tsr_cpu *cpu;
    int64_t n;
    tsr_tensor x, y;
} fwd_job;

static void fwd_row(void *arg, int64_t row)
{
    const fwd_job *job = arg;
    const tsr_cpu *cpu = job->cpu;
    const cpu_row x = cpu_row_of(&job->x, row), y = cpu_row_of(&job->y, row);
    const int64_t n = job->n;
    float x_f32[CPU_CHUNK], y_f32[CPU_CHUNK];
    const cpu_log_sum s = cpu_log_sum_of(cpu, &x, n);
    const float scale = s.sum == 0 ? 0 : 1 / s.sum; /* 0: a row of nothing but -Inf */
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        float *to = cpu_to_write(&y, at, y_f32);
        cpu->row_f32->exp_scale(m, cpu_read(cpu, &x, at, m, x_f32), s.shift, scale, to);
        cpu_written(cpu, &y, at, m, to);
    }
}

tsr_status cpu_softmax_fwd(void *state, const tsr_softmax_fwd_args *args, void *workspace)
{
    (void)workspace;
    const int64_t n = args->x.shape[args->x.rank - 1];
    fwd_job job = {state, n, cpu_merged_rows(&args->x), cpu_merged_rows(&args->y)};
    cpu_each_row(state, cpu_n_rows(&args->x), n, fwd_row, &job);
    return TSR_OK;
}

typedef struct bwd_job {
    const tsr_cpu *cpu;
    int64_t n;
    tsr_tensor y, dy, dx;
} bwd_job;

/* dx = y * (dy - sum of dy * y) */
static void bwd_row(void *arg, int64_t row)
{
    const bwd_job *job = arg;
    const tsr_cpu *cpu = job->cpu;
    const cpu_row y = cpu_row_of(&job->y, row), dy = cpu_row_of(&job->dy, row);
    const cpu_row dx = cpu_row_of(&job->dx, row);
    const int64_t n = job->n;
    float y_f32[CPU_CHUNK], dy_f32[CPU_CHUNK], dx_f32[CPU_CHUNK];
    double dot = 0;
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        dot += cpu->row_f32->dot(m, cpu_read(cpu, &y, at, m, y_f32), cpu_read(cpu, &dy, at, m, dy_f32));
    }
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        float *to = cpu_to_write(&dx, at, dx_f32);
        cpu->row_f32->softmax_bwd(m, cpu_read(cpu, &y, at, m, y_f32), cpu_read(cpu, &dy, at, m, dy_f32),
                                  (float)dot, to);
        cpu_written(cpu, &dx, at, m, to);
    }
}

tsr_status cpu_softmax_bwd(void *state, const tsr_softmax_bwd_args *args, void *workspace)
{
    (void)workspace;
    const int64_t n = args->y.shape[args->y.rank - 1];
    bwd_job job = {state, n, cpu_merged_rows(&args->y), cpu_merged_rows(&args->dy),
                   cpu_merged_rows(&args->dx)};
    cpu_each_row(state, cpu_n_rows(&args->y), n, bwd_row, &job);
    return TSR_OK;
}
