/* backend/cpu/peak_kernels.c - the list of the peak family, best first; the plain-C sets have no peak of
 * their own */
#include "backend/cpu/kernel/peak.h"

extern const tsr_peak_kernel tsr_peak_portable, tsr_peak_avx2, tsr_peak_avx512;

const tsr_peak_kernel *const tsr_peak_kernels[] = {
#if defined(TSR_WITH_AVX512)
    &tsr_peak_avx512,
#endif
#if defined(TSR_WITH_AVX2)
    &tsr_peak_avx2,
#endif
    &tsr_peak_portable,
    NULL,
};
