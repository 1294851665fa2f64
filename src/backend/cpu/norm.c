/*
 * backend/cpu/norm.c - RMSNorm and LayerNorm: a row at a time; backward's dweight and dbias by chunks of rows
 *
 *     x' = (x - mean) * rstd       RMSNorm: mean = 0
 *     y = x' * weight + bias       dx = rstd * (g - mean(g) - x' mean(g x')), g = dy * weight
 *                                  RMSNorm: without mean(g)
 *                                  dweight = sum over rows of dy * x', dbias = sum over rows of dy
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/span.h"
#include "base/arena.h"

static float *entry(const tsr_tensor *per_row, int64_t row)
{
    return (float *)per_row->data + cpu_offset(per_row, per_row->rank, row);
}

/* --- forward --- */

typedef struct fwd_job {
    const tsr_cpu *cpu;
    tsr_norm_fwd_args args; /* leading dimensions merged */
} fwd_job;

/* The mean of x - centre, or of its square. */
static double mean_of(const tsr_cpu *cpu, const cpu_row *x, int64_t n, float centre, bool squares)
{
    const tsr_row_f32_kernel *kernel = cpu->row_f32;
    float scratch[CPU_CHUNK];
    double sum = 0;
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        const float *v = cpu_read(cpu, x, at, m, scratch);
        sum += squares ? kernel->sum_squares(m, v, centre) : kernel->sum(m, v, centre);
    }
    return sum / (double)n;
}

/*
 * The mean is found twice, the second time of what is left: a row far from 0, or one that hardly varies, then
 * keeps its variance and its sign.
 */
static tsr_norm_row statistics_of(const tsr_cpu *cpu, const cpu_row *x, int64_t n, float eps, bool centred)
{
    tsr_norm_row r = {0};
    double rest = 0;
    if (centred) {
        r.mean = (float)mean_of(cpu, x, n, 0, false);
        rest = mean_of(cpu, x, n, r.mean, false);
    }
    const double variance = mean_of(cpu, x, n, r.mean, true) - rest * rest;
    const double rstd = 1 / sqrt((variance < 0 ? 0 : variance) + eps);
    r.rstd = (float)rstd;
    r.offset = (float)(-rest * rstd);
    return r;
}

static void fwd_row(void *arg, int64_t row)
{
    const fwd_job *job = arg;
    const tsr_cpu *cpu = job->cpu;
    const tsr_norm_fwd_args *a = &job->args;
    const int64_t n = a->x.shape[a->x.rank - 1];
    const cpu_row x = cpu_row_of(&a->x, row), y = cpu_row_of(&a->y, row);
    const cpu_row weight = cpu_row_of(&a->weight, 0), bias = cpu_row_of(&a->bias, 0);
    float x_f32[CPU_CHUNK], weight_f32[CPU_CHUNK], bias_f32[CPU_CHUNK], y_f32[CPU_CHUNK];

    const tsr_norm_row r = statistics_of(cpu, &x, n, a->eps, a->centred);
    for (int64_t at = 0; at < n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(n - at, CPU_CHUNK);
        const float *b = bias.data == NULL ? NULL : cpu_read(cpu, &bias, at, m, bias_f32);
        float *to = cpu_to_write(&y, at, y_f32);
        cpu->row_f32->norm_fwd(m, &r, cpu_read(cpu, &x, at, m, x_f32),
                               cpu_read(cpu, &weight, at, m, weight_f32), b, to);
        cpu_written(cpu, &y, at, m, to);
    }
    if (a->mean.data != NULL) *entry(&a->mean, row) = r.mean;
    if (a->rstd.data != NULL) *entry(&a->rstd, row) = r.rstd;
}

tsr_status cpu_norm_fwd(void *state, const tsr_norm_fwd_args *args, void *workspace)
{
    (void)workspace;
    fwd_job job = {state, *args};
    job.args.x = cpu_merged_rows(&args->x), job.args.y = cpu_merged_rows(&args->y);
    job.args.mean = cpu_merged(&args->mean, args->mean.rank);
    job.args.rstd = cpu_merged(&args->rstd, args->rstd.rank);
    /* Rows without an element have statistics all the same. */
    const int64_t n_rows = args->rstd.data != NULL ? tsr_tensor_numel(&args->rstd) : cpu_n_rows(&args->x);
    cpu_each_row(state, n_rows, args->x.shape[args->x.rank - 1], fwd_row, &job);
    return TSR_OK;
}

/* --- backward --- */

typedef struct bwd_job {
    const tsr_cpu *cpu;
    tsr_norm_bwd_args args; /* leading dimensions merged */
    int64_t n, n_rows, n_chunks;
    float *dweight, *dbias; /* [n_chunks][n] sums of a chunk of rows, NULL if not wanted */
} bwd_job;

static bwd_job bwd_job_of(const void *state, const tsr_norm_bwd_args *args, tsr_arena *memory)
{
    bwd_job job = {.cpu = state, .args = *args};
    job.args.x = cpu_merged_rows(&args->x), job.args.dy = cpu_merged_rows(&args->dy);
    job.args.dx = cpu_merged_rows(&args->dx);
    job.args.mean = cpu_merged(&args->mean, args->mean.rank);
    job.args.rstd = cpu_merged(&args->rstd, args->rstd.rank);
    job.n = args->x.shape[args->x.rank - 1], job.n_rows = cpu_n_rows(&args->x);
    job.n_chunks = cpu_ceil_div(job.n_rows, CPU_ROWS_OF_SUM);
    const size_t count = (size_t)(job.n_chunks * job.n);
    if (args->dweight.data != NULL) job.dweight = tsr_arena_take(memory, count, sizeof(float));
    if (args->dbias.data != NULL) job.dbias = tsr_arena_take(memory, count, sizeof(float));
    return job;
}

/* The means of g and g x' along the row. */
static void find_means(const bwd_job *job, const cpu_row *x, const cpu_row *weight, const cpu_row *dy,
                       tsr_norm_row *r)
{
    const tsr_cpu *cpu = job->cpu;
    float x_f32[CPU_CHUNK], weight_f32[CPU_CHUNK], dy_f32[CPU_CHUNK];
    double sum_g = 0, sum_gx = 0;
    for (int64_t at = 0; at < job->n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(job->n - at, CPU_CHUNK);
        float g, gx;
        cpu->row_f32->norm_sums(m, r, cpu_read(cpu, x, at, m, x_f32),
                                cpu_read(cpu, weight, at, m, weight_f32), cpu_read(cpu, dy, at, m, dy_f32),
                                &g, &gx);
        sum_g += g, sum_gx += gx;
    }
    if (job->args.centred) r->mean_g = (float)(sum_g / (double)job->n);
    r->mean_gx = (float)(sum_gx / (double)job->n);
}

static void bwd_row(const bwd_job *job, int64_t row, float *dweight, float *dbias)
{
    const tsr_cpu *cpu = job->cpu;
    const tsr_norm_bwd_args *a = &job->args;
    const cpu_row x = cpu_row_of(&a->x, row), dy = cpu_row_of(&a->dy, row), dx = cpu_row_of(&a->dx, row);
    const cpu_row weight = cpu_row_of(&a->weight, 0);
    float x_f32[CPU_CHUNK], weight_f32[CPU_CHUNK], dy_f32[CPU_CHUNK], dx_f32[CPU_CHUNK];

    tsr_norm_row r = {.mean = a->centred ? *entry(&a->mean, row) : 0, .rstd = *entry(&a->rstd, row)};
    if (dx.data != NULL) find_means(job, &x, &weight, &dy, &r);
    for (int64_t at = 0; at < job->n; at += CPU_CHUNK) {
        const int64_t m = cpu_min(job->n - at, CPU_CHUNK);
        const float *xp = cpu_read(cpu, &x, at, m, x_f32), *dyp = cpu_read(cpu, &dy, at, m, dy_f32);
        /* dx comes last: it may be dy. */
        if (dweight != NULL) cpu->row_f32->norm_dweight(m, &r, xp, dyp, dweight + at);
        if (dbias != NULL) cpu->row_f32->accumulate(m, dyp, dbias + at);
        if (dx.data == NULL) continue;
        float *to = a->accumulate ? (float *)cpu_read(cpu, &dx, at, m, dx_f32)
                                  : cpu_to_write(&dx, at, dx_f32);
        cpu->row_f32->norm_dx(m, &r, xp, cpu_read(cpu, &weight, at, m, weight_f32), dyp, a->accumulate, to);
        cpu_written(cpu, &dx, at, m, to);
    }
}

static void bwd_chunk(void *arg, int64_t chunk, int32_t slot)
{
    const bwd_job *job = arg;
    (void)slot;
    const size_t nbytes = (size_t)job->n * sizeof(float);
    float *dweight = job->dweight == NULL ? NULL : job->dweight + chunk * job->n;
    float *dbias = job->dbias == NULL ? NULL : job->dbias + chunk * job->n;
    if (dweight != NULL) memset(dweight, 0, nbytes);
    if (dbias != NULL) memset(dbias, 0, nbytes);
    const int64_t end = cpu_min((chunk + 1) * CPU_ROWS_OF_SUM, job->n_rows);
    for (int64_t row = chunk * CPU_ROWS_OF_SUM; row < end; row++) bwd_row(job, row, dweight, dbias);
}

size_t cpu_norm_bwd_workspace(const void *state, const tsr_norm_bwd_args *args)
{
    tsr_arena count = {0};
    bwd_job_of(state, args, &count);
    return count.used;
}

tsr_status cpu_norm_bwd(void *state, const tsr_norm_bwd_args *args, void *workspace)
{
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    bwd_job job = bwd_job_of(state, args, &memory);
    cpu_run(job.cpu, job.n_chunks, job.n_rows * job.n, bwd_chunk, &job);
    if (job.dweight != NULL) cpu_merge_sums(job.cpu, job.dweight, job.n_chunks, false, &args->dweight);
    if (job.dbias != NULL) cpu_merge_sums(job.cpu, job.dbias, job.n_chunks, false, &args->dbias);
    return TSR_OK;
}
