/* backend/cpu/gemm_kernels.c - the lists of the GEMM families, best first */
#include <stddef.h>

#include "backend/cpu/kernel/gemm.h"
#include "backend/cpu/kernel/gemm_store.h"

#if defined(TSR_WITH_AMX)
#define IF_AMX(x) x,
#else
#define IF_AMX(x)
#endif
#if defined(TSR_WITH_AVX512)
#define IF_X86(x) x,
#else
#define IF_X86(x)
#endif
#if defined(TSR_WITH_PLAIN8)
#define IF_PLAIN(x) x,
#else
#define IF_PLAIN(x)
#endif

#define DECLARE(type, family)                                                                                \
    extern const type tsr_##family##_portable, tsr_##family##_avx2, tsr_##family##_avx512,                   \
        tsr_##family##_plain8, tsr_##family##_plain16

DECLARE(tsr_gemm_kernel, gemm_f32);
DECLARE(tsr_gemm_kernel, gemm_s8);
DECLARE(tsr_gemm_kernel, gemm_s4);
DECLARE(tsr_gemm_store_kernel, gemm_store);
extern const tsr_gemm_store_kernel tsr_gemm_store_avx512bf16;
extern const tsr_gemm_kernel tsr_gemm_bf16_amx, tsr_gemm_bf16_avx512bf16, tsr_gemm_bf16_plainamx,
    tsr_gemm_bf16_plain16;
extern const tsr_gemm_kernel tsr_gemm_s8_amx, tsr_gemm_s8_avx512vnni, tsr_gemm_s8_avxvnni,
    tsr_gemm_s8_plainamx;
extern const tsr_gemm_kernel tsr_gemm_s4_amx, tsr_gemm_s4_avx512vnni, tsr_gemm_s4_avxvnni,
    tsr_gemm_s4_plainamx;

const tsr_gemm_kernel *const tsr_gemm_f32_kernels[] = {
    IF_X86(&tsr_gemm_f32_avx512) IF_X86(&tsr_gemm_f32_avx2) & tsr_gemm_f32_portable,
    IF_PLAIN(&tsr_gemm_f32_plain8) IF_PLAIN(&tsr_gemm_f32_plain16) NULL,
};

/* plainamx stands on plain16, and so comes before it. */
const tsr_gemm_kernel *const tsr_gemm_bf16_kernels[] = {
    IF_AMX(&tsr_gemm_bf16_amx) IF_X86(&tsr_gemm_bf16_avx512bf16) IF_PLAIN(&tsr_gemm_bf16_plainamx)
        IF_PLAIN(&tsr_gemm_bf16_plain16) NULL,
};

const tsr_gemm_kernel *const tsr_gemm_s8_kernels[] = {
    IF_AMX(&tsr_gemm_s8_amx) IF_X86(&tsr_gemm_s8_avx512vnni) IF_X86(&tsr_gemm_s8_avx512)
            IF_X86(&tsr_gemm_s8_avxvnni) IF_X86(&tsr_gemm_s8_avx2) &
        tsr_gemm_s8_portable,
    IF_PLAIN(&tsr_gemm_s8_plainamx) IF_PLAIN(&tsr_gemm_s8_plain8) IF_PLAIN(&tsr_gemm_s8_plain16) NULL,
};

const tsr_gemm_kernel *const tsr_gemm_s4_kernels[] = {
    IF_AMX(&tsr_gemm_s4_amx) IF_X86(&tsr_gemm_s4_avx512vnni) IF_X86(&tsr_gemm_s4_avx512)
            IF_X86(&tsr_gemm_s4_avxvnni) IF_X86(&tsr_gemm_s4_avx2) &
        tsr_gemm_s4_portable,
    IF_PLAIN(&tsr_gemm_s4_plainamx) IF_PLAIN(&tsr_gemm_s4_plain8) IF_PLAIN(&tsr_gemm_s4_plain16) NULL,
};

const tsr_gemm_store_kernel *const tsr_gemm_store_kernels[] = {
    IF_X86(&tsr_gemm_store_avx512bf16) IF_X86(&tsr_gemm_store_avx512) IF_X86(&tsr_gemm_store_avx2) &
        tsr_gemm_store_portable,
    IF_PLAIN(&tsr_gemm_store_plain8) IF_PLAIN(&tsr_gemm_store_plain16) NULL,
};

const tsr_gemm_kernel *tsr_gemm_pick(const tsr_gemm_kernel *const *kernels, tsr_isa isa)
{
    while (*kernels != NULL && !tsr_isa_serves((*kernels)->isa, isa)) kernels++;
    return *kernels;
}
