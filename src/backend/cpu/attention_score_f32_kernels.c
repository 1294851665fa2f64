/* backend/cpu/attention_score_f32_kernels.c - the list of the attention_score_f32 family, best first */
#include <stddef.h>

#include "backend/cpu/kernel/attention_score_f32.h"

extern const tsr_attention_score_f32_kernel tsr_attention_score_f32_portable, tsr_attention_score_f32_avx2,
    tsr_attention_score_f32_avx512, tsr_attention_score_f32_avx512bf16, tsr_attention_score_f32_plain8,
    tsr_attention_score_f32_plain16;

const tsr_attention_score_f32_kernel *const tsr_attention_score_f32_kernels[] = {
#if defined(TSR_WITH_AVX512BF16)
    &tsr_attention_score_f32_avx512bf16,
#endif
#if defined(TSR_WITH_AVX512)
    &tsr_attention_score_f32_avx512,
#endif
#if defined(TSR_WITH_AVX2)
    &tsr_attention_score_f32_avx2,
#endif
    &tsr_attention_score_f32_portable,
#if defined(TSR_WITH_PLAIN8)
    &tsr_attention_score_f32_plain8,
    &tsr_attention_score_f32_plain16,
#endif
    NULL,
};

const tsr_attention_score_f32_kernel *tsr_attention_score_f32_pick(tsr_isa isa)
{
    const tsr_attention_score_f32_kernel *const *k = tsr_attention_score_f32_kernels;
    while (!tsr_isa_serves((*k)->isa, isa)) k++;
    return *k;
}
