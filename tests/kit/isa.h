/*
 * tests/kit/isa.h - the same test on every instruction set, and the contexts that tests run on
 *
 * Every kernel runs on every machine: natively where it can, and its 8- and 16-lane sources in plain C.
 */
#ifndef TSR_KIT_ISA_H
#define TSR_KIT_ISA_H

#include <stdbool.h>

#include "tessera/context.h"

/*
 * Runs fn with a cpu context of two threads for each instruction set that this machine has, then for plain8
 * and plain16; the random stream starts anew each time. A set that is absent is named on stdout. If the
 * environment has TESSERA_ISA, for that set only.
 */
void kit_for_each_isa(void (*fn)(tsr_context *ctx));

/* The same with the sets that differ from one of those in the kernels of products alone. */
void kit_for_each_gemm_isa(void (*fn)(tsr_context *ctx));

/*
 * Contexts of two threads side by side, for tests that hold several sets against one truth: 0 is for the set
 * that would be chosen here, the others follow; NULL after the last. If the environment has TESSERA_ISA, that
 * is the only one. Failures name the set that was asked for last.
 */
tsr_context *kit_isa_context(int i);
bool kit_isa_is_plain(int i); /* in plain C: slow */

/* test_fn for cmocka: fn on each set that for_each goes through. */
#define KIT_TEST_OF_EACH(for_each, fn)                                                                       \
    static void test_##fn(void **state)                                                                      \
    {                                                                                                        \
        (void)state;                                                                                         \
        for_each(fn);                                                                                        \
    }

/* The set in use inside kit_for_each_isa, or asked for last; else "default". */
const char *kit_isa(void);

/* Contexts that live as long as the program. */
tsr_context *kit_reference(void);
tsr_context *kit_cpu(void);

/* Does its set multiply bf16 as such, so that attention rounds P and dS to it? */
bool kit_multiplies_bf16(const tsr_context *ctx);

/* A new cpu context with this many threads; the caller destroys it. */
tsr_context *kit_cpu_with_threads(int32_t n_threads);

#endif
