/* backend/cpu/isa.c - cpuid, xgetbv, the kernel's permission for AMX, TESSERA_ISA */
#define _GNU_SOURCE
#include "backend/cpu/isa.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "base/error.h"

/* What each set is called, and the set it stands on (itself: none). */
static const struct {
    const char *name;
    tsr_isa below;
} sets[TSR_ISA_COUNT] = {
    [TSR_ISA_PORTABLE] = {"portable", TSR_ISA_PORTABLE},
    [TSR_ISA_AVX2] = {"avx2", TSR_ISA_PORTABLE},
    [TSR_ISA_AVXVNNI] = {"avxvnni", TSR_ISA_AVX2},
    [TSR_ISA_AVX512] = {"avx512", TSR_ISA_AVX2},
    [TSR_ISA_AVX512VNNI] = {"avx512vnni", TSR_ISA_AVX512},
    [TSR_ISA_AVX512BF16] = {"avx512bf16", TSR_ISA_AVX512VNNI},
    [TSR_ISA_AMX] = {"amx", TSR_ISA_AVX512BF16},
    [TSR_ISA_PLAIN8] = {"plain8", TSR_ISA_PLAIN8},
    [TSR_ISA_PLAIN16] = {"plain16", TSR_ISA_PLAIN16},
    [TSR_ISA_PLAINAMX] = {"plainamx", TSR_ISA_PLAIN16},
};

const char *tsr_isa_name(tsr_isa isa) { return sets[isa].name; }
bool tsr_isa_is_plain(tsr_isa isa) { return isa >= TSR_ISA_PLAIN8; }

#if defined(__x86_64__)
/* Feature bits of cpuid (Intel SDM volume 2A, CPUID), as (leaf, register, bit). */
enum { LEAF1_FMA = 1 << 12, LEAF1_OSXSAVE = 1 << 27, LEAF1_AVX = 1 << 28, LEAF1_F16C = 1 << 29 }; /* ecx */
enum { LEAF7_AVX2 = 1 << 5, LEAF7_F = 1 << 16, LEAF7_DQ = 1 << 17, LEAF7_BW = 1 << 30 };          /* ebx */
enum { LEAF7_GFNI = 1 << 8, LEAF7_VNNI = 1 << 11 };                                               /* ecx */
enum { LEAF7_AMX_BF16 = 1 << 22, LEAF7_AMX_TILE = 1 << 24, LEAF7_AMX_INT8 = 1 << 25 };            /* edx */
enum { LEAF7_1_AVXVNNI = 1 << 4, LEAF7_1_BF16 = 1 << 5 }; /* subleaf 1, eax */
static const uint32_t leaf7_vl = 1u << 31;                /* ebx */

/* XCR0: which registers the kernel saves: 0x06 SSE and AVX, 0xe6 with AVX-512's, 0x60000 with AMX's. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/*
 * Tiles are 8 KiB a thread, which Linux gives to processes that ask for it
 * (Documentation/arch/x86/xstate.rst). A permission once given stays; threads and children have it too.
 */
static const char *ask_for_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return NULL;
    return "the kernel refuses the permission to use AMX tiles";
#else
    return "only Linux is asked for AMX tiles";
#endif
}

static const char *missing[TSR_ISA_COUNT], *slower[TSR_ISA_COUNT];
static pthread_once_t looked = PTHREAD_ONCE_INIT;

/*
 * Golden Cove (Sapphire Rapids, Emerald Rapids: family 6, models 8FH and CFH) starts one VDPBF16PS in two
 * cycles, but two f32 multiply-adds in each: half of f32's rate, as `tessera bench` shows on model CFH.
 */
static bool is_golden_cove(uint32_t signature)
{
    uint32_t a, b, c, d;
    const uint32_t family = signature >> 8 & 0xf, model = (signature >> 12 & 0xf0) | (signature >> 4 & 0xf);
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && family == 6 &&
           (model == 0x8f || model == 0xcf);
}

/* What each set needs beyond the one that it stands on. */
static void look(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0, a1 = 0, b1, c1, d1;
    const uint32_t need1 = LEAF1_FMA | LEAF1_OSXSAVE | LEAF1_AVX | LEAF1_F16C;
    const uint32_t need512 = LEAF7_F | LEAF7_DQ | LEAF7_BW | leaf7_vl;
    const uint32_t need_amx = LEAF7_AMX_TILE | LEAF7_AMX_BF16 | LEAF7_AMX_INT8;
    const char **m = missing;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need1) != need1)
        m[TSR_ISA_AVX2] = "the processor lacks AVX, FMA or F16C";
    const uint32_t signature = a;
    const uint64_t saved = m[TSR_ISA_AVX2] == NULL ? saved_state() : 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) b = c = d = 0;
    if (a >= 1) __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    if (m[TSR_ISA_AVX2] == NULL && !(b & LEAF7_AVX2)) m[TSR_ISA_AVX2] = "the processor lacks AVX2";
    if (m[TSR_ISA_AVX2] == NULL && (saved & 0x06) != 0x06)
        m[TSR_ISA_AVX2] = "the kernel does not save the AVX registers";
    if (!(a1 & LEAF7_1_AVXVNNI)) m[TSR_ISA_AVXVNNI] = "the processor lacks AVX-VNNI";
    if ((saved & 0xe6) != 0xe6) m[TSR_ISA_AVX512] = "the kernel does not save the AVX-512 registers";
    if ((b & need512) != need512) m[TSR_ISA_AVX512] = "the processor lacks AVX-512 F, BW, DQ or VL";
    if (!(c & LEAF7_VNNI)) m[TSR_ISA_AVX512VNNI] = "the processor lacks AVX512-VNNI";
    if (!(a1 & LEAF7_1_BF16)) m[TSR_ISA_AVX512BF16] = "the processor lacks AVX512-BF16";
    if (is_golden_cove(signature))
        slower[TSR_ISA_AVX512BF16] = "this processor multiplies BF16 at half the rate of f32";
    if ((d & need_amx) != need_amx)
        m[TSR_ISA_AMX] = "the processor lacks AMX tiles, BF16 or INT8";
    else if (!(c & LEAF7_GFNI))
        m[TSR_ISA_AMX] = "the processor lacks GFNI";
    else if ((saved & 0x60000) != 0x60000)
        m[TSR_ISA_AMX] = "the kernel does not save the AMX tiles";
}

static pthread_once_t asked = PTHREAD_ONCE_INIT;
static const char *refused;
static void ask(void) { refused = ask_for_tiles(); }

const char *tsr_isa_missing(tsr_isa isa)
{
    pthread_once(&looked, look);
    for (tsr_isa i = isa;; i = sets[i].below) {
        if (missing[i] != NULL) return missing[i];
        if (sets[i].below == i) break;
    }
    if (isa != TSR_ISA_AMX) return NULL;
    pthread_once(&asked, ask);
    return refused;
}

const char *tsr_isa_slower(tsr_isa isa)
{
    pthread_once(&looked, look);
    return slower[isa];
}
#else
const char *tsr_isa_missing(tsr_isa isa)
{
    return isa == TSR_ISA_PORTABLE || tsr_isa_is_plain(isa) ? NULL : "not an x86-64 processor";
}

const char *tsr_isa_slower(tsr_isa isa)
{
    (void)isa;
    return NULL;
}
#endif

tsr_status tsr_isa_choose(tsr_isa *out)
{
    const char *wanted = getenv("TESSERA_ISA");
    if (wanted == NULL || wanted[0] == 0) {
        tsr_isa best = TSR_ISA_AMX;
        while (tsr_isa_missing(best) != NULL || tsr_isa_slower(best) != NULL) best--;
        *out = best;
        return TSR_OK;
    }
    for (int i = 0; i < TSR_ISA_COUNT; i++) {
        if (strcmp(wanted, sets[i].name) != 0) continue;
        const char *why = tsr_isa_missing((tsr_isa)i);
        if (why != NULL) return tsr_fail(TSR_ERR_ARGUMENT, "TESSERA_ISA is '%s', but %s", wanted, why);
#if !defined(TSR_WITH_PLAIN8)
        if (tsr_isa_is_plain((tsr_isa)i))
            return tsr_fail(TSR_ERR_ARGUMENT, "TESSERA_ISA is '%s', which only builds with tests have",
                            wanted);
#endif
        *out = (tsr_isa)i;
        return TSR_OK;
    }
    return tsr_fail(TSR_ERR_ARGUMENT,
                    "TESSERA_ISA is '%s', must be portable, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or "
                    "amx",
                    wanted);
}

bool tsr_isa_serves(tsr_isa kernel, tsr_isa chosen)
{
    while (kernel != chosen && sets[chosen].below != chosen) chosen = sets[chosen].below;
    return kernel == chosen;
}
