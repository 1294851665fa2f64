/* backend/cpu/backend.c - the cpu backend's table, and its state: threads and the kernels picked for this
 * machine */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"

static void pick_kernels(tsr_cpu *cpu)
{
    cpu->gemm_f32 = tsr_gemm_pick(tsr_gemm_f32_kernels, cpu->isa);
    cpu->gemm_bf16 = tsr_gemm_pick(tsr_gemm_bf16_kernels, cpu->isa);
    cpu->gemm_s8 = tsr_gemm_pick(tsr_gemm_s8_kernels, cpu->isa);
    cpu->gemm_s4 = tsr_gemm_pick(tsr_gemm_s4_kernels, cpu->isa);
    const tsr_gemm_store_kernel *const *store = tsr_gemm_store_kernels;
    while (!tsr_isa_serves((*store)->isa, cpu->isa)) store++;
    cpu->gemm_store = *store;
    cpu->attention_score_f32 = tsr_attention_score_f32_pick(cpu->isa);
    cpu->attention_decode_f32 = tsr_attention_decode_f32_pick(cpu->isa);
    cpu->attention_decode_s8 = tsr_attention_decode_s8_pick(cpu->isa);
    cpu->elementwise_f32 = tsr_elementwise_f32_pick(cpu->isa);
    cpu->row_f32 = tsr_row_f32_pick(cpu->isa);
    const char *const names[] = {
        cpu->gemm_f32->name,
        cpu->gemm_bf16 != NULL ? cpu->gemm_bf16->name : "gemm_bf16 widened to f32",
        cpu->gemm_s8->name,
        cpu->gemm_s4->name,
        cpu->gemm_store->name,
        cpu->attention_score_f32->name,
        cpu->attention_decode_f32->name,
        cpu->attention_decode_s8 != NULL ? cpu->attention_decode_s8->name
                                         : "attention_decode_s8 widened to f32",
        cpu->elementwise_f32->name,
        cpu->row_f32->name,
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        used += (size_t)snprintf(cpu->kernels + used, sizeof cpu->kernels - used, "%s%s", i > 0 ? "\n" : "",
                                 names[i]);
}

static int64_t l2_nbytes(void)
{
#ifdef _SC_LEVEL2_CACHE_SIZE
    const long nbytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return nbytes > 0 ? nbytes : 0;
#else
    return 0;
#endif
}

static void close_cpu(void *state)
{
    tsr_cpu *cpu = state;
    tsr_threads_destroy(cpu->threads);
    free(cpu);
}

static tsr_status open_cpu(const tsr_context_options *options, void **state)
{
    tsr_isa isa;
    TSR_TRY(tsr_isa_choose(&isa));
    tsr_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return tsr_fail(TSR_ERR_MEMORY, "context: out of memory");
    cpu->isa = isa;
    cpu->l2_nbytes = l2_nbytes();
    pick_kernels(cpu);
    const tsr_status status = tsr_threads_create(options->n_threads, options->parallel_for,
                                                 options->parallel_for_user, &cpu->threads);
    if (status != TSR_OK) {
        free(cpu);
        return status;
    }
    *state = cpu;
    return TSR_OK;
}

static int32_t n_threads(const void *state) { return tsr_threads_count(((const tsr_cpu *)state)->threads); }
static const char *kernels(const void *state) { return ((const tsr_cpu *)state)->kernels; }

const tsr_backend tsr_backend_cpu = {
    .name = "cpu",
    .device = TSR_DEVICE_CPU,
    .open = open_cpu,
    .close = close_cpu,
    .n_threads = n_threads,
    .kernels = kernels,
    .allocate = tsr_host_allocate,
    .release = tsr_host_release,
    .upload = tsr_host_copy,
    .download = tsr_host_copy,
    .synchronise = tsr_host_synchronise,
    .gemm = cpu_gemm,
    .gemm_workspace = cpu_gemm_workspace,
    .weight_nbytes = cpu_weight_nbytes,
    .weight_pack = cpu_weight_pack,
    .weight_pack_workspace = cpu_weight_pack_workspace,
    .linear = cpu_linear,
    .linear_workspace = cpu_linear_workspace,
    .attention_fwd = cpu_attention_fwd,
    .attention_fwd_workspace = cpu_attention_fwd_workspace,
    .attention_bwd = cpu_attention_bwd,
    .attention_bwd_workspace = cpu_attention_bwd_workspace,
    .attention_merge = cpu_attention_merge,
    .attention_unfused_fwd = cpu_attention_unfused_fwd,
    .attention_unfused_fwd_workspace = cpu_attention_unfused_fwd_workspace,
    .attention_unfused_bwd = cpu_attention_unfused_bwd,
    .attention_unfused_bwd_workspace = cpu_attention_unfused_bwd_workspace,
    .softmax_fwd = cpu_softmax_fwd,
    .softmax_bwd = cpu_softmax_bwd,
    .norm_fwd = cpu_norm_fwd,
    .norm_bwd = cpu_norm_bwd,
    .norm_bwd_workspace = cpu_norm_bwd_workspace,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .embedding_fwd = cpu_embedding_fwd,
    .embedding_bwd = cpu_embedding_bwd,
    .activation_fwd = cpu_activation_fwd,
    .activation_bwd = cpu_activation_bwd,
    .swiglu_fwd = cpu_swiglu_fwd,
    .swiglu_bwd = cpu_swiglu_bwd,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .add = cpu_add,
    .sum = cpu_sum,
    .sum_workspace = cpu_sum_workspace,
    .sum_rows = cpu_sum_rows,
    .sum_rows_workspace = cpu_sum_rows_workspace,
    .dropout_add = cpu_dropout_add,
    .linear_cross_entropy_fwd = cpu_linear_cross_entropy_fwd,
    .linear_cross_entropy_fwd_workspace = cpu_linear_cross_entropy_fwd_workspace,
    .linear_cross_entropy_bwd = cpu_linear_cross_entropy_bwd,
    .linear_cross_entropy_bwd_workspace = cpu_linear_cross_entropy_bwd_workspace,
    .kv_append = cpu_kv_append,
    .adamw = cpu_adamw,
};
