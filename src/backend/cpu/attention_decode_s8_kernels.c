/* backend/cpu/attention_decode_s8_kernels.c - the list of the attention_decode_s8 family, best first */
#include <stddef.h>

#include "backend/cpu/kernel/attention_decode_s8.h"

extern const tsr_attention_decode_s8_kernel tsr_attention_decode_s8_avx512vnni,
    tsr_attention_decode_s8_plain16;

const tsr_attention_decode_s8_kernel *const tsr_attention_decode_s8_kernels[] = {
#if defined(TSR_WITH_AVX512VNNI)
    &tsr_attention_decode_s8_avx512vnni,
#endif
#if defined(TSR_WITH_PLAIN16)
    &tsr_attention_decode_s8_plain16,
#endif
    NULL,
};

const tsr_attention_decode_s8_kernel *tsr_attention_decode_s8_pick(tsr_isa isa)
{
    const tsr_attention_decode_s8_kernel *const *k = tsr_attention_decode_s8_kernels;
    while (*k != NULL && !tsr_isa_serves((*k)->isa, isa)) k++;
    return *k;
}
