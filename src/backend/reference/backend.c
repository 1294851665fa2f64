/* backend/reference/backend.c - the reference backend's table */
#include "backend/reference/reference.h"

static tsr_status open_reference(const tsr_context_options *options, void **state)
{
    (void)options;
    *state = NULL;
    return TSR_OK;
}

static void close_reference(void *state) { (void)state; }

static int32_t n_threads(const void *state)
{
    (void)state;
    return 1;
}

static const char *kernels(const void *state)
{
    (void)state;
    return "plain loops, double accumulators";
}

const tsr_backend tsr_backend_reference = {
    .name = "reference",
    .device = TSR_DEVICE_CPU,
    .open = open_reference,
    .close = close_reference,
    .n_threads = n_threads,
    .kernels = kernels,
    .allocate = tsr_host_allocate,
    .release = tsr_host_release,
    .upload = tsr_host_copy,
    .download = tsr_host_copy,
    .synchronise = tsr_host_synchronise,
    .gemm = ref_gemm,
    .softmax_fwd = ref_softmax_fwd,
    .softmax_bwd = ref_softmax_bwd,
    .attention_fwd = ref_attention_fwd,
    .attention_fwd_workspace = ref_attention_fwd_workspace,
    .attention_bwd = ref_attention_bwd,
    .attention_bwd_workspace = ref_attention_bwd_workspace,
    /* The truth is the same for both forms. */
    .attention_unfused_fwd = ref_attention_fwd,
    .attention_unfused_fwd_workspace = ref_attention_fwd_workspace,
    .attention_unfused_bwd = ref_attention_bwd,
    .attention_unfused_bwd_workspace = ref_attention_bwd_workspace,
};
