/* backend/cpu/isa.c - cpuid, xgetbv, TESSERA_ISA */
#include "backend/cpu/isa.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/error.h"

static const char *const names[TSR_ISA_COUNT] = {"portable", "avx2", "avx512", "plain8", "plain16"};

const char *tsr_isa_name(tsr_isa isa) { return names[isa]; }

#if defined(__x86_64__)
enum { LEAF1_FMA = 1 << 12, LEAF1_OSXSAVE = 1 << 27, LEAF1_AVX = 1 << 28, LEAF1_F16C = 1 << 29 };
enum { LEAF7_AVX2 = 1 << 5, LEAF7_F = 1 << 16, LEAF7_DQ = 1 << 17, LEAF7_BW = 1 << 30 };
static const uint32_t leaf7_vl = 1u << 31;

/* XCR0: which registers the kernel saves: 0x06 SSE and AVX, 0xe6 with the AVX-512 state. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

const char *tsr_isa_missing(tsr_isa isa)
{
    if (isa != TSR_ISA_AVX2 && isa != TSR_ISA_AVX512) return NULL;
    uint32_t a, b, c, d;
    const uint32_t need1 = LEAF1_FMA | LEAF1_OSXSAVE | LEAF1_AVX | LEAF1_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need1) != need1)
        return "the processor lacks AVX, FMA or F16C";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & LEAF7_AVX2)) return "the processor lacks AVX2";
    if ((saved_state() & 0x06) != 0x06) return "the kernel does not save the AVX registers";
    if (isa == TSR_ISA_AVX2) return NULL;
    const uint32_t need7 = LEAF7_F | LEAF7_DQ | LEAF7_BW | leaf7_vl;
    if ((b & need7) != need7) return "the processor lacks AVX-512 F, BW, DQ or VL";
    if ((saved_state() & 0xe6) != 0xe6) return "the kernel does not save the AVX-512 registers";
    return NULL;
}
#else
const char *tsr_isa_missing(tsr_isa isa)
{
    return isa == TSR_ISA_AVX2 || isa == TSR_ISA_AVX512 ? "not an x86-64 processor" : NULL;
}
#endif

tsr_status tsr_isa_choose(tsr_isa *out)
{
    const char *wanted = getenv("TESSERA_ISA");
    if (wanted == NULL || wanted[0] == 0) {
        tsr_isa best = TSR_ISA_AVX512;
        while (best > TSR_ISA_PORTABLE && tsr_isa_missing(best) != NULL) best--;
        *out = best;
        return TSR_OK;
    }
    for (int i = 0; i < TSR_ISA_COUNT; i++) {
        if (strcmp(wanted, names[i]) != 0) continue;
        const char *why = tsr_isa_missing((tsr_isa)i);
        if (why != NULL) return tsr_fail(TSR_ERR_ARGUMENT, "TESSERA_ISA is '%s', but %s", wanted, why);
#if !defined(TSR_WITH_PLAIN8)
        if (i >= TSR_ISA_PLAIN8)
            return tsr_fail(TSR_ERR_ARGUMENT, "TESSERA_ISA is '%s', which only builds with tests have",
                            wanted);
#endif
        *out = (tsr_isa)i;
        return TSR_OK;
    }
    return tsr_fail(TSR_ERR_ARGUMENT, "TESSERA_ISA is '%s', must be portable, avx2 or avx512", wanted);
}

bool tsr_isa_serves(tsr_isa kernel, tsr_isa chosen)
{
    return kernel == chosen || (chosen < TSR_ISA_PLAIN8 && kernel < chosen);
}
