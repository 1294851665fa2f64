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
    .computes_f64 = true,
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
    .weight_nbytes = ref_weight_nbytes,
    .weight_pack = ref_weight_pack,
    .linear = ref_linear,
    .linear_workspace = ref_linear_workspace,
    .softmax_fwd = ref_softmax_fwd,
    .softmax_bwd = ref_softmax_bwd,
    .attention_fwd = ref_attention_fwd,
    .attention_fwd_workspace = ref_attention_fwd_workspace,
    .attention_bwd = ref_attention_bwd,
    .attention_bwd_workspace = ref_attention_bwd_workspace,
    /* The truth is the same for both forms. */
    .attention_merge = ref_attention_merge,
    .attention_unfused_fwd = ref_attention_fwd,
    .attention_unfused_fwd_workspace = ref_attention_fwd_workspace,
    .attention_unfused_bwd = ref_attention_bwd,
    .attention_unfused_bwd_workspace = ref_attention_bwd_workspace,
    .norm_fwd = ref_norm_fwd,
    .norm_bwd = ref_norm_bwd,
    .norm_bwd_workspace = ref_norm_bwd_workspace,
    .rope_table = ref_rope_table,
    .rope = ref_rope,
    .embedding_fwd = ref_embedding_fwd,
    .embedding_bwd = ref_embedding_bwd,
    .embedding_bwd_workspace = ref_embedding_bwd_workspace,
    .activation_fwd = ref_activation_fwd,
    .activation_bwd = ref_activation_bwd,
    .swiglu_fwd = ref_swiglu_fwd,
    .swiglu_bwd = ref_swiglu_bwd,
    .copy = ref_copy,
    .fill = ref_fill,
    .add = ref_add,
    .sum = ref_sum,
    .sum_rows = ref_sum_rows,
    .dropout_add = ref_dropout_add,
    .linear_cross_entropy_fwd = ref_linear_cross_entropy_fwd,
    .linear_cross_entropy_fwd_workspace = ref_linear_cross_entropy_fwd_workspace,
    .linear_cross_entropy_bwd = ref_linear_cross_entropy_bwd,
    .linear_cross_entropy_bwd_workspace = ref_linear_cross_entropy_bwd_workspace,
    .kv_append = ref_kv_append,
    .adamw = ref_adamw,
};
