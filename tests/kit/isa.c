/* tests/kit/isa.c - contexts for tests, one instruction set after another */
#define _GNU_SOURCE
#include "kit/isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "kit/kit.h"
#include "kit/tensor.h"

static const char *current = "default";
static tsr_context *reference_context, *cpu_context;

const char *kit_isa(void) { return current; }

static tsr_context *create(const char *backend, int32_t n_threads)
{
    tsr_context *ctx = NULL;
    KIT_OK(tsr_context_create(&(tsr_context_options){.backend = backend, .n_threads = n_threads}, &ctx));
    return ctx;
}

static void destroy_contexts(void)
{
    tsr_context_destroy(reference_context);
    tsr_context_destroy(cpu_context);
}

static tsr_context *shared(tsr_context **slot, const char *backend)
{
    static bool registered;
    if (!registered) atexit(destroy_contexts);
    registered = true;
    if (*slot == NULL) *slot = create(backend, 2);
    return *slot;
}

tsr_context *kit_reference(void) { return shared(&reference_context, "reference"); }
tsr_context *kit_cpu(void) { return shared(&cpu_context, "cpu"); }
tsr_context *kit_cpu_with_threads(int32_t n_threads) { return create("cpu", n_threads); }

bool kit_multiplies_bf16(const tsr_context *ctx)
{
    return strstr(tsr_context_kernels(ctx), "gemm_bf16_") != NULL;
}

static void run_as(tsr_isa isa, void (*fn)(tsr_context *ctx))
{
    current = tsr_isa_name(isa);
    setenv("TESSERA_ISA", current, 1);
    kit_random_restart();
    tsr_context *ctx = create("cpu", 2);
    fn(ctx);
    tsr_context_destroy(ctx);
    kit_free_all();
    unsetenv("TESSERA_ISA");
    current = "default";
}

static const char *plain_form_of(tsr_isa isa)
{
    if (isa == TSR_ISA_AMX) return "plainamx";
    return isa == TSR_ISA_AVX2 || isa == TSR_ISA_AVXVNNI ? "plain8" : "plain16";
}

/* Says once a program which sets run, and how. */
static void announce(void)
{
    static bool announced;
    if (announced) return;
    announced = true;
    for (int i = 0; i < TSR_ISA_COUNT; i++) {
        const char *why = tsr_isa_missing((tsr_isa)i);
        const char *name = tsr_isa_name((tsr_isa)i);
        if (why != NULL)
            printf("skipped natively: %s (%s; %s runs it in plain C)\n", name, why,
                   plain_form_of((tsr_isa)i));
        else
            printf("%s: %s\n", tsr_isa_is_plain((tsr_isa)i) ? "ran in plain C" : "ran natively", name);
    }
    fflush(stdout);
}

/* The sets that stand for a lane count; others bring instructions for products, and int8 decoding, alone. */
static bool has_all_families(tsr_isa isa)
{
    return isa == TSR_ISA_PORTABLE || isa == TSR_ISA_AVX2 || isa == TSR_ISA_AVX512 || isa == TSR_ISA_PLAIN8 ||
           isa == TSR_ISA_PLAIN16;
}

static void for_each(void (*fn)(tsr_context *ctx), bool of_gemm)
{
    static char wanted[32];
    if (wanted[0] == 0 && getenv("TESSERA_ISA") != NULL)
        snprintf(wanted, sizeof wanted, "%s", getenv("TESSERA_ISA"));
    if (wanted[0] != 0) {
        tsr_isa isa;
        setenv("TESSERA_ISA", wanted, 1);
        KIT_OK(tsr_isa_choose(&isa));
        printf("only %s: TESSERA_ISA names it\n", wanted);
        run_as(isa, fn);
        setenv("TESSERA_ISA", wanted, 1);
        return;
    }
    announce();
    for (int i = 0; i < TSR_ISA_COUNT; i++)
        if (tsr_isa_missing((tsr_isa)i) == NULL && (of_gemm || has_all_families((tsr_isa)i)))
            run_as((tsr_isa)i, fn);
}

void kit_for_each_isa(void (*fn)(tsr_context *ctx)) { for_each(fn, false); }
void kit_for_each_gemm_isa(void (*fn)(tsr_context *ctx)) { for_each(fn, true); }

/* --- side by side --- */

static struct {
    tsr_isa isa[TSR_ISA_COUNT];
    tsr_context *ctx[TSR_ISA_COUNT];
    int n;
} side;

static void destroy_side(void)
{
    for (int i = 0; i < side.n; i++) tsr_context_destroy(side.ctx[i]);
}

static void add_side(tsr_isa isa)
{
    setenv("TESSERA_ISA", tsr_isa_name(isa), 1);
    side.isa[side.n] = isa;
    side.ctx[side.n++] = create("cpu", 2);
}

static void open_side(void)
{
    tsr_isa chosen;
    KIT_OK(tsr_isa_choose(&chosen));
    const bool only = getenv("TESSERA_ISA") != NULL;
    if (!only) announce();
    add_side(chosen);
    for (int i = 0; i < TSR_ISA_COUNT && !only; i++)
        if ((tsr_isa)i != chosen && tsr_isa_missing((tsr_isa)i) == NULL) add_side((tsr_isa)i);
    if (!only) unsetenv("TESSERA_ISA");
    atexit(destroy_side);
}

tsr_context *kit_isa_context(int i)
{
    if (side.n == 0) open_side();
    if (i >= side.n) return NULL;
    current = tsr_isa_name(side.isa[i]);
    return side.ctx[i];
}

bool kit_isa_is_plain(int i) { return tsr_isa_is_plain(side.isa[i]); }
