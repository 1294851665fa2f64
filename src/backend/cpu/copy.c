/* backend/cpu/copy.c - strided copies and conversions, fills, residuals */
#include <string.h>

#include "backend/cpu/span.h"
#include "base/dtype.h"

static void copy_span(void *arg, int64_t item, const cpu_row *x, int64_t n)
{
    (void)item;
    cpu_copy_row(arg, &x[0], &x[1], n);
}

tsr_status cpu_copy(void *state, const tsr_copy_args *args, void *workspace)
{
    (void)workspace;
    const cpu_layout layout = cpu_layout_of(2, (const tsr_tensor *[]){&args->x, &args->y});
    cpu_each_span(state, &layout, copy_span, state);
    return TSR_OK;
}

/* The value's bytes, repeated up to eight of them. */
typedef struct pattern {
    char bytes[8];
} pattern;

static void fill_span(void *arg, int64_t item, const cpu_row *y, int64_t n)
{
    (void)item;
    const pattern p = *(const pattern *)arg;
    const int64_t nbytes = y->nbytes, step = y->stride * nbytes;
    int64_t i = 0;
    if (y->stride == 1) /* eight bytes at a time */
        for (; (i + 1) * 8 <= n * nbytes; i++) memcpy(y->data + i * 8, p.bytes, 8);
    for (i = i * 8 / nbytes; i < n; i++) memcpy(y->data + i * step, p.bytes, (size_t)nbytes);
}

tsr_status cpu_fill(void *state, const tsr_fill_args *args, void *workspace)
{
    (void)workspace;
    pattern p;
    const int64_t nbytes = (int64_t)tsr_dtype_nbytes(args->y.dtype);
    for (int64_t i = 0; i * nbytes < 8; i++) tsr_store_f64(p.bytes, args->y.dtype, i, args->value);
    const cpu_layout layout = cpu_layout_of(1, (const tsr_tensor *[]){&args->y});
    cpu_each_span(state, &layout, fill_span, &p);
    return TSR_OK;
}

typedef struct add_job {
    const tsr_elementwise_f32_kernel *kernel;
    float alpha, beta;
} add_job;

static void add(const void *arg, int64_t n, float *const *x)
{
    const add_job *job = arg;
    job->kernel->add(n, job->alpha, x[0], job->beta, x[1], x[2]);
}

tsr_status cpu_add(void *state, const tsr_add_args *args, void *workspace)
{
    (void)workspace;
    const tsr_cpu *cpu = state;
    const add_job job = {cpu->elementwise_f32, args->alpha, args->beta};
    cpu_map(cpu, 2, 1, (const tsr_tensor *[]){&args->a, &args->b, &args->y}, add, &job);
    return TSR_OK;
}
