/* backend/cpu/peak_kernels.c - the list of the peak family, best first; the plain sets have no peak */
#include <stddef.h>

#include "backend/cpu/kernel/peak.h"

extern const tsr_peak_kernel tsr_peak_portable, tsr_peak_avx2, tsr_peak_avxvnni, tsr_peak_avx512,
    tsr_peak_avx512vnni, tsr_peak_avx512bf16, tsr_peak_amx;

#if defined(TSR_WITH_AVX512)
#define IF_X86(x) x,
#else
#define IF_X86(x)
#endif

const tsr_peak_kernel *const tsr_peak_kernels[] = {
    IF_X86(&tsr_peak_amx) IF_X86(&tsr_peak_avx512bf16) IF_X86(&tsr_peak_avx512vnni) IF_X86(&tsr_peak_avx512)
            IF_X86(&tsr_peak_avxvnni) IF_X86(&tsr_peak_avx2) &
        tsr_peak_portable,
    NULL,
};
