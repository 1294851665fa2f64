/* model/sample.c - temperature, top-k, top-p, min-p */
#include "model/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"

tsr_status tsr_sample_check(const tsr_sample_options *o)
{
    if (!(o->temperature >= 0) || isinf(o->temperature))
        return tsr_fail(TSR_ERR_ARGUMENT, "temperature is %g, must be 0 or more", o->temperature);
    if (o->top_k < 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "top-k is %d, must be 0 (all) or more", (int)o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return tsr_fail(TSR_ERR_ARGUMENT, "top-p is %g, must be between 0 and 1", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return tsr_fail(TSR_ERR_ARGUMENT, "min-p is %g, must be between 0 and 1", o->min_p);
    return TSR_OK;
}

static int likelier_first(const void *a, const void *b)
{
    const tsr_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Of n candidates in order, how many are left; their p become probabilities among those kept so far. */
static int32_t filter(tsr_candidate *c, int32_t n, const tsr_sample_options *o)
{
    if (o->top_k > 0 && o->top_k < n) n = o->top_k;
    double total = 0;
    for (int32_t i = 0; i < n; i++) {
        c[i].p = i == 0 || c[i].logit == c[0].logit ? 1
                                                    : exp(((double)c[i].logit - c[0].logit) / o->temperature);
        total += c[i].p;
    }
    if (o->top_p > 0 && o->top_p < 1) {
        double sum = 0;
        int32_t kept = 0;
        while (kept < n && sum < o->top_p * total) sum += c[kept++].p;
        n = kept;
    }
    while (n > 1 && c[n - 1].p < o->min_p * c[0].p) n--;
    return n;
}

tsr_status tsr_sample(const float *logits, int32_t n, const tsr_sample_options *options, tsr_random *random,
                      tsr_candidate *scratch, int32_t *out)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        if (!isnan(logits[i]) && logits[i] != -INFINITY) scratch[count++] = (tsr_candidate){logits[i], i, 0};
    if (count == 0) return tsr_fail(TSR_ERR_ARGUMENT, "sample: no logit of %d is a number", (int)n);
    if (options->temperature == 0) {
        int32_t best = 0;
        for (int32_t i = 1; i < count; i++)
            if (scratch[i].logit > scratch[best].logit) best = i;
        *out = scratch[best].id;
        return TSR_OK;
    }
    qsort(scratch, (size_t)count, sizeof *scratch, likelier_first);
    count = filter(scratch, count, options);
    double total = 0;
    for (int32_t i = 0; i < count; i++) total += scratch[i].p;
    double left = tsr_random_uniform(random) * total;
    int32_t chosen = 0;
    while (chosen + 1 < count && left >= scratch[chosen].p) left -= scratch[chosen++].p;
    *out = scratch[chosen].id;
    return TSR_OK;
}
