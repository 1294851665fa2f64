/* backend/cpu/activation.c - activations and the gated product, forward and backward */
#include "backend/cpu/span.h"

typedef struct activation_job {
    const tsr_elementwise_f32_kernel *kernel;
    tsr_activation activation;
} activation_job;

static void fwd(const void *arg, int64_t n, float *const *x)
{
    const activation_job *job = arg;
    job->kernel->activation_fwd[job->activation](n, x[0], x[1]);
}

tsr_status cpu_activation_fwd(void *state, const tsr_activation_fwd_args *args, void *workspace)
{
    (void)workspace;
    const tsr_cpu *cpu = state;
    const activation_job job = {cpu->elementwise_f32, args->activation};
    cpu_map(cpu, 1, 1, (const tsr_tensor *[]){&args->x, &args->y}, fwd, &job);
    return TSR_OK;
}

static void bwd(const void *arg, int64_t n, float *const *x)
{
    const activation_job *job = arg;
    job->kernel->activation_bwd[job->activation](n, x[0], x[1], x[2]);
}

tsr_status cpu_activation_bwd(void *state, const tsr_activation_bwd_args *args, void *workspace)
{
    (void)workspace;
    const tsr_cpu *cpu = state;
    const activation_job job = {cpu->elementwise_f32, args->activation};
    cpu_map(cpu, 2, 1, (const tsr_tensor *[]){&args->x, &args->dy, &args->dx}, bwd, &job);
    return TSR_OK;
}

static void gated_fwd(const void *arg, int64_t n, float *const *x)
{
    const tsr_elementwise_f32_kernel *kernel = arg;
    kernel->swiglu_fwd(n, x[0], x[1], x[2]);
}

tsr_status cpu_swiglu_fwd(void *state, const tsr_swiglu_fwd_args *args, void *workspace)
{
    (void)workspace;
    const tsr_cpu *cpu = state;
    cpu_map(cpu, 2, 1, (const tsr_tensor *[]){&args->gate, &args->up, &args->y}, gated_fwd,
            cpu->elementwise_f32);
    return TSR_OK;
}

static void gated_bwd(const void *arg, int64_t n, float *const *x)
{
    const tsr_elementwise_f32_kernel *kernel = arg;
    kernel->swiglu_bwd(n, x[0], x[1], x[2], x[3], x[4]);
}

tsr_status cpu_swiglu_bwd(void *state, const tsr_swiglu_bwd_args *args, void *workspace)
{
    (void)workspace;
    const tsr_cpu *cpu = state;
    cpu_map(cpu, 3, 2, (const tsr_tensor *[]){&args->gate, &args->up, &args->dy, &args->dgate, &args->dup},
            gated_bwd, cpu->elementwise_f32);
    return TSR_OK;
}
