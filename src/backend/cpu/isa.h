/*
 * backend/cpu/isa.h - which instruction sets this process may use
 *
 * A set stands on another: a kernel of any set below the chosen one serves too.
 *
 *     portable <- avx2 <- avx512 <- avx512vnni <- avx512bf16 <- amx
 *                   ^- avxvnni
 *     plain8           plain16 <- plainamx
 *
 * avx2 means AVX2 + FMA + F16C, avx512 means F + BW + DQ + VL, amx means TILE + BF16 + INT8, GFNI (which
 * every processor with tiles has) and the kernel's permission to use tiles; each bit is checked, and that the
 * kernel saves the registers. The plain sets are the 8- and 16-lane sources, and the tiles, compiled without
 * their instructions: every machine runs them, none picks them unless TESSERA_ISA names them (the tests do).
 */
#ifndef TSR_BACKEND_CPU_ISA_H
#define TSR_BACKEND_CPU_ISA_H

#include <stdbool.h>

#include "tessera/status.h"

/* Within each family of sets the better one has the higher number. */
typedef enum tsr_isa {
    TSR_ISA_PORTABLE,
    TSR_ISA_AVX2,
    TSR_ISA_AVXVNNI,
    TSR_ISA_AVX512,
    TSR_ISA_AVX512VNNI,
    TSR_ISA_AVX512BF16,
    TSR_ISA_AMX,
    TSR_ISA_PLAIN8,
    TSR_ISA_PLAIN16,
    TSR_ISA_PLAINAMX,
    TSR_ISA_COUNT
} tsr_isa;

const char *tsr_isa_name(tsr_isa isa);

/* True for a set that every machine runs in plain C, for the tests. */
bool tsr_isa_is_plain(tsr_isa isa);

/*
 * NULL if this machine can run the set, else why not: "the processor lacks AVX2". Where the
 * processor has AMX, the first call for that set asks the kernel for its tiles, once a process.
 */
const char *tsr_isa_missing(tsr_isa isa);

/*
 * NULL, or why this machine does better without the set, whose instructions it has: then only TESSERA_ISA
 * chooses it, though a set that stands on it may be chosen.
 */
const char *tsr_isa_slower(tsr_isa isa);

/* The set to use: the best one here, or the one that TESSERA_ISA names. TSR_ERR_ARGUMENT if that one is
 * absent. */
tsr_status tsr_isa_choose(tsr_isa *out);

/* True if kernels of set `kernel` serve where `chosen` was chosen: itself, and the sets it stands on. */
bool tsr_isa_serves(tsr_isa kernel, tsr_isa chosen);

#endif
