/* backend/cpu/rope.c - the table of angles, and the rotation of rows by it */
#include <math.h>

#include "backend/cpu/span.h"
#include "backend/indices.h"
#include "base/error.h"

static void table_row(void *arg, int64_t t)
{
    const tsr_rope_table_args *args = arg;
    const cpu_row c = cpu_row_of(&args->cos, t), s = cpu_row_of(&args->sin, t);
    const int64_t half = args->cos.shape[1];
    for (int64_t p = 0; p < half; p++) {
        const double angle = (double)t * pow(args->theta, -(double)p / (double)half);
        ((float *)c.data)[p * c.stride] = (float)cos(angle);
        ((float *)s.data)[p * s.stride] = (float)sin(angle);
    }
}

tsr_status cpu_rope_table(void *state, const tsr_rope_table_args *args, void *workspace)
{
    (void)workspace;
    cpu_each_row(state, cpu_n_rows(&args->cos), args->cos.shape[1], table_row, (void *)args);
    return TSR_OK;
}

typedef struct rope_job {
    const tsr_cpu *cpu;
    const tsr_rope_args *args;
} rope_job;

/* Pairs (x[p], x[p + half]): two pieces at a time. */
static void turn_halves(const rope_job *job, const cpu_row *x, const cpu_row *y, const cpu_row *cos_row,
                        const cpu_row *sin_row, int64_t half)
{
    const tsr_cpu *cpu = job->cpu;
    float u_f32[CPU_CHUNK], w_f32[CPU_CHUNK], c_f32[CPU_CHUNK], s_f32[CPU_CHUNK];
    for (int64_t p = 0; p < half; p += CPU_CHUNK) {
        const int64_t m = cpu_min(half - p, CPU_CHUNK);
        const float *u = cpu_read(cpu, x, p, m, u_f32), *w = cpu_read(cpu, x, half + p, m, w_f32);
        float *yu = cpu_to_write(y, p, u_f32), *yw = cpu_to_write(y, half + p, w_f32);
        cpu->row_f32->rope(m, u, w, cpu_read(cpu, cos_row, p, m, c_f32), cpu_read(cpu, sin_row, p, m, s_f32),
                           job->args->inverse, yu, yw);
        cpu_written(cpu, y, p, m, yu);
        cpu_written(cpu, y, half + p, m, yw);
    }
}

/* Pairs (x[2p], x[2p + 1]). */
static void turn_neighbours(const rope_job *job, const cpu_row *x, const cpu_row *y, const cpu_row *cos_row,
                            const cpu_row *sin_row, int64_t half)
{
    const tsr_cpu *cpu = job->cpu;
    float x_f32[CPU_CHUNK], c_f32[CPU_CHUNK / 2], s_f32[CPU_CHUNK / 2];
    for (int64_t p = 0; p < half; p += CPU_CHUNK / 2) {
        const int64_t m = cpu_min(half - p, CPU_CHUNK / 2);
        const float *from = cpu_read(cpu, x, 2 * p, 2 * m, x_f32);
        float *to = cpu_to_write(y, 2 * p, x_f32);
        cpu->row_f32->rope_interleaved(m, from, cpu_read(cpu, cos_row, p, m, c_f32),
                                       cpu_read(cpu, sin_row, p, m, s_f32), job->args->inverse, to);
        cpu_written(cpu, y, 2 * p, 2 * m, to);
    }
}

/* All heads of one position: they share the table's row. */
static void rope_position(void *arg, int64_t entry)
{
    const rope_job *job = arg;
    const tsr_rope_args *a = job->args;
    const int64_t n_heads = a->x.shape[1], l = a->x.shape[2], b = entry / l, i = entry % l;
    int64_t position = a->start + i;
    if (a->positions.data != NULL)
        position = ((const int32_t *)
                        a->positions.data)[b * a->positions.stride[0] + i * a->positions.stride[1]];
    const cpu_row cos_row = cpu_row_of(&a->cos, position), sin_row = cpu_row_of(&a->sin, position);
    cpu_row x = cpu_row_of(&a->x, b * n_heads * l + i), y = cpu_row_of(&a->y, b * n_heads * l + i);
    for (int64_t h = 0; h < n_heads; h++) {
        if (a->interleaved)
            turn_neighbours(job, &x, &y, &cos_row, &sin_row, a->x.shape[3] / 2);
        else
            turn_halves(job, &x, &y, &cos_row, &sin_row, a->x.shape[3] / 2);
        x.data += a->x.stride[1] * x.nbytes;
        y.data += a->y.stride[1] * y.nbytes;
    }
}

tsr_status cpu_rope(void *state, const tsr_rope_args *args, void *workspace)
{
    (void)workspace;
    if (args->positions.data != NULL)
        TSR_TRY(tsr_check_ids(&args->positions, args->cos.shape[0], NULL, "positions"));
    rope_job job = {state, args};
    const tsr_tensor *x = &args->x;
    if (tsr_tensor_numel(x) == 0) return TSR_OK;
    cpu_each_row(state, x->shape[0] * x->shape[2], x->shape[1] * x->shape[3], rope_position, &job);
    return TSR_OK;
}
