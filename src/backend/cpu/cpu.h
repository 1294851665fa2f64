/*
 * backend/cpu/cpu.h - the cpu backend: blocking, packing, threads; one file per operator
 *
 * An operator's file splits the work into independent items (base/threads.h) and hands rows, tiles and
 * panels to the kernels of its families (kernel/), which were picked once when the context was created.
 */
#ifndef TSR_CPU_CPU_H
#define TSR_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/kernel/attention_decode_f32.h"
#include "backend/cpu/kernel/attention_decode_s8.h"
#include "backend/cpu/kernel/attention_score_f32.h"
#include "backend/cpu/kernel/elementwise_f32.h"
#include "backend/cpu/kernel/gemm.h"
#include "backend/cpu/kernel/gemm_store.h"
#include "backend/cpu/kernel/row_f32.h"
#include "base/threads.h"

typedef struct tsr_cpu {
    tsr_threads *threads;
    tsr_isa isa;
    int64_t l2_nbytes; /* of a core's second cache; 0: unknown */
    const tsr_gemm_kernel *gemm_f32, *gemm_bf16, *gemm_s8, *gemm_s4; /* gemm_bf16: NULL where f32 serves */
    const tsr_gemm_store_kernel *gemm_store;
    const tsr_attention_score_f32_kernel *attention_score_f32;
    const tsr_attention_decode_f32_kernel *attention_decode_f32;
    const tsr_attention_decode_s8_kernel *attention_decode_s8; /* NULL where attention_decode_f32 serves */
    const tsr_elementwise_f32_kernel *elementwise_f32;
    const tsr_row_f32_kernel *row_f32;
    char kernels[512]; /* a line a family, for tsr_context_kernels */
} tsr_cpu;

#define X(op)                                                                                                \
    tsr_status cpu_##op(void *state, const tsr_##op##_args *args, void *workspace);                          \
    size_t cpu_##op##_workspace(const void *state, const tsr_##op##_args *args);
TSR_OPERATORS(X)
#undef X
size_t cpu_weight_nbytes(const void *state, const tsr_weight_layout *layout);

#endif
