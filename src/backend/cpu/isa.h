/*
 * backend/cpu/isa.h - which instruction sets this process may use
 *
 * Sets are ordered: a machine that has one has all before it. avx2 means AVX2 + FMA + F16C,
 * avx512 means F + BW + DQ + VL; each bit is checked, and that the kernel saves the registers.
 * The _plain sets are the 8- and 16-lane sources compiled without their instructions: every
 * machine runs them, none picks them unless TESSERA_ISA names them (the tests do).
 */
#ifndef TSR_BACKEND_CPU_ISA_H
#define TSR_BACKEND_CPU_ISA_H

#include <stdbool.h>

#include "tessera/status.h"

typedef enum tsr_isa {
    TSR_ISA_PORTABLE,
    TSR_ISA_AVX2,
    TSR_ISA_AVX512,
    TSR_ISA_PLAIN8,
    TSR_ISA_PLAIN16,
    TSR_ISA_COUNT
} tsr_isa;

const char *tsr_isa_name(tsr_isa isa);

/* NULL if this machine can run the set, else why not: "the processor lacks AVX2". */
const char *tsr_isa_missing(tsr_isa isa);

/* The set to use: the best one here, or the one that TESSERA_ISA names. TSR_ERR_ARGUMENT if that one is
 * absent. */
tsr_status tsr_isa_choose(tsr_isa *out);

/* True if kernels of set `kernel` serve where `chosen` was chosen: itself, and the sets below it. */
bool tsr_isa_serves(tsr_isa kernel, tsr_isa chosen);

#endif
