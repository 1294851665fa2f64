/*
 * backend/reference/adamw.c - one step of AdamW
 *
 *     m = b1 m + (1 - b1) g     v = b2 v + (1 - b2) g^2
 *     p = p - lr * (weight_decay * p + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps))
 *
 * With a master copy that is updated, and p is the stored master rounded.
 */
#include <math.h>

#include "backend/reference/reference.h"

tsr_status ref_adamw(void *state, const tsr_adamw_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const tsr_adamw_options *o = &args->options;
    const double beta1 = o->beta1, beta2 = o->beta2, grad_scale = o->grad_scale == 0 ? 1 : o->grad_scale;
    const double correct1 = 1 - pow(beta1, (double)o->step), correct2 = 1 - pow(beta2, (double)o->step);
    const tsr_tensor *p = args->master.data != NULL ? &args->master : &args->p;
    const int64_t n = tsr_tensor_numel(p);
    for (int64_t i = 0; i < n; i++) {
        const double g = grad_scale * ref_get(&args->g, i), was = ref_get(p, i);
        const double m = beta1 * ref_get(&args->m, i) + (1 - beta1) * g;
        const double v = beta2 * ref_get(&args->v, i) + (1 - beta2) * g * g;
        const double step = m / correct1 / (sqrt(v / correct2) + o->eps);
        ref_set(&args->m, i, m);
        ref_set(&args->v, i, v);
        ref_set(p, i, was - o->lr * (o->weight_decay * was + step));
        if (p != &args->p) ref_set(&args->p, i, ref_get(p, i));
    }
    return TSR_OK;
}
