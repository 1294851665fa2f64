/*
 * base/fp_mode.h - the floating-point mode that the library computes in
 *
 * Rounding to nearest, subnormals kept, exceptions masked: whatever the calling thread had set. A call enters
 * it (op/context.h), as does each lane of the threads, which may be another's; both restore what was there.
 */
#ifndef TSR_BASE_FP_MODE_H
#define TSR_BASE_FP_MODE_H

#if defined(__x86_64__)
#include <immintrin.h>

typedef unsigned int tsr_fp_mode;

static inline tsr_fp_mode tsr_fp_mode_enter(void)
{
    const tsr_fp_mode old = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return old;
}
static inline void tsr_fp_mode_restore(tsr_fp_mode old) { _mm_setcsr(old); }

#else
#include <fenv.h>

typedef fenv_t tsr_fp_mode;

static inline tsr_fp_mode tsr_fp_mode_enter(void)
{
    fenv_t old;
    fegetenv(&old);
    fesetenv(FE_DFL_ENV);
    return old;
}
static inline void tsr_fp_mode_restore(tsr_fp_mode old) { fesetenv(&old); }
#endif

#endif
