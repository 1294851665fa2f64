/* tests/kit/trial.c - an operator against the reference, and against itself with other threads and batches */
#include "kit/trial.h"

#include <string.h>

#include "base/tensor.h"

tsr_dtype kit_any_float(void)
{
    static const tsr_dtype floats[] = {TSR_F32, TSR_BF16, TSR_F16};
    return floats[kit_between(0, 2)];
}

int64_t kit_any_length(void)
{
    static const int64_t edges[] = {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 511, 512, 513};
    return kit_one_in(3) ? kit_between(1, 700) : edges[kit_between(0, sizeof edges / sizeof *edges - 1)];
}

static bool is_float(tsr_dtype dtype)
{
    return dtype == TSR_F32 || dtype == TSR_BF16 || dtype == TSR_F16 || dtype == TSR_F64;
}

/* What the outputs must be: the reference's, with all floats in double. */
static void run_both(tsr_context *ctx, const kit_trial *t, tsr_tensor expected[KIT_TRIAL_MAX])
{
    tsr_tensor in[KIT_TRIAL_MAX];
    for (int i = 0; i < t->n_in; i++) in[i] = is_float(t->in[i].dtype) ? kit_f64(&t->in[i]) : t->in[i];
    for (int i = 0; i < t->n_out; i++) expected[i] = kit_f64(&t->out[i]);
    KIT_OK(t->run(kit_reference(), in, expected, t->options));
    KIT_OK(t->run(ctx, t->in, t->out, t->options));
}

static kit_bound bound_of(const kit_trial *t, int i)
{
    kit_bound bound = t->bound;
    if (t->out[i].dtype == TSR_BF16 || t->out[i].dtype == TSR_F16) bound.ulps += 1;
    return bound;
}

void kit_check_trial(tsr_context *ctx, const kit_trial *t)
{
    tsr_tensor expected[KIT_TRIAL_MAX];
    run_both(ctx, t, expected);
    for (int i = 0; i < t->n_out; i++)
        kit_check(&t->out[i], &expected[i], bound_of(t, i), "%s, output %d", t->what, i);
}

bool kit_trial_agrees(tsr_context *ctx, const kit_trial *t)
{
    tsr_tensor expected[KIT_TRIAL_MAX];
    run_both(ctx, t, expected);
    bool agrees = true;
    for (int i = 0; i < t->n_out; i++) agrees &= kit_agrees(&t->out[i], &expected[i], bound_of(t, i));
    return agrees;
}

static tsr_tensor one_row(const tsr_tensor *t, unsigned batched, int i, int64_t row)
{
    return batched & 1u << i ? tsr_tensor_slice(t, 0, row, 1) : *t;
}

static void check_row_alone(tsr_context *ctx, const kit_trial *t, const tsr_tensor *whole)
{
    const int64_t row = kit_between(0, t->in[0].shape[0] - 1);
    tsr_tensor in[KIT_TRIAL_MAX], out[KIT_TRIAL_MAX];
    for (int i = 0; i < t->n_in; i++) in[i] = one_row(&t->in[i], t->batch_in, i, row);
    for (int i = 0; i < t->n_out; i++) {
        const tsr_tensor before = one_row(&t->out[i], t->batch_out, i, row);
        out[i] = kit_copy(&before, before.dtype, KIT_ROWS);
    }
    KIT_OK(t->run(ctx, in, out, t->options));
    for (int i = 0; i < t->n_out; i++) {
        const tsr_tensor in_batch = one_row(&whole[i], t->batch_out, i, row);
        if ((t->batch_out & 1u << i) && !kit_same_bits(&out[i], &in_batch))
            kit_fail("%s, output %d: row %lld alone has other bits", t->what, i, (long long)row);
    }
}

void kit_check_trial_bits(const kit_trial *t)
{
    tsr_tensor first[KIT_TRIAL_MAX];
    for (int threads = 1; threads <= 3; threads++) {
        tsr_context *ctx = kit_cpu_with_threads(threads);
        tsr_tensor out[KIT_TRIAL_MAX];
        for (int i = 0; i < t->n_out; i++) out[i] = kit_copy(&t->out[i], t->out[i].dtype, KIT_ROWS);
        KIT_OK(t->run(ctx, t->in, out, t->options));
        if (threads == 1) memcpy(first, out, sizeof first);
        for (int i = 0; i < t->n_out; i++)
            if (!kit_same_bits(&first[i], &out[i]))
                kit_fail("%s, output %d: %d threads give other bits than 1", t->what, i, threads);
        if (t->batch_out != 0) check_row_alone(ctx, t, out);
        tsr_context_destroy(ctx);
    }
}
