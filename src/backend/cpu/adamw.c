/* backend/cpu/adamw.c - one step of AdamW; p is rounded from the master copy where there is one */
#include <math.h>

#include "backend/cpu/span.h"

typedef struct adamw_job {
    const tsr_cpu *cpu;
    const tsr_adamw_args *args;
    tsr_adamw_step step;
    int64_t n;
} adamw_job;

static tsr_adamw_step step_of(const tsr_adamw_options *o)
{
    const double beta1 = o->beta1, beta2 = o->beta2, t = (double)o->step;
    return (tsr_adamw_step){.grad_scale = o->grad_scale == 0 ? 1 : o->grad_scale,
                            .beta1 = o->beta1,
                            .beta2 = o->beta2,
                            .one_minus_beta1 = (float)(1 - beta1),
                            .one_minus_beta2 = (float)(1 - beta2),
                            .m_scale = (float)(1 / (1 - pow(beta1, t))),
                            .v_scale = (float)(1 / (1 - pow(beta2, t))),
                            .eps = o->eps,
                            .lr = o->lr,
                            .weight_decay = o->weight_decay};
}

/* All tensors are contiguous. */
static void adamw_item(void *arg, int64_t item, int32_t slot)
{
    const adamw_job *job = arg;
    const tsr_adamw_args *a = job->args;
    const tsr_elementwise_f32_kernel *kernel = job->cpu->elementwise_f32;
    (void)slot;
    const int64_t at = item * CPU_ITEM, n = cpu_min(job->n - at, CPU_ITEM);
    float *p = (float *)(a->master.data != NULL ? a->master.data : a->p.data) + at;
    kernel->adamw(n, &job->step, p, (const float *)a->g.data + at, (float *)a->m.data + at,
                  (float *)a->v.data + at);
    if (a->master.data != NULL) kernel->store(tsr_tensor_at(&a->p, at), a->p.dtype, 1, p, n);
}

tsr_status cpu_adamw(void *state, const tsr_adamw_args *args, void *workspace)
{
    (void)workspace;
    adamw_job job = {state, args, step_of(&args->options), tsr_tensor_numel(&args->p)};
    cpu_run(state, cpu_ceil_div(job.n, CPU_ITEM), job.n, adamw_item, &job);
    return TSR_OK;
}
