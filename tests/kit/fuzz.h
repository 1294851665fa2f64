/*
 * tests/kit/fuzz.h - a fuzz target without a fuzzer: every corpus file, and mutations of them
 *
 * A target defines LLVMFuzzerTestOneInput and ends with KIT_FUZZ_MAIN("format"). Built with
 * -DTESSERA_FUZZ=ON (clang) libFuzzer drives it; otherwise it is a test that runs
 * tests/corpus/<format>/ and 20,000 deterministic mutations, always the same.
 *
 *     fuzz_npy              the corpus and its mutations
 *     fuzz_npy FILE...      these files alone: to repeat what a fuzzer found
 */
#ifndef TSR_KIT_FUZZ_H
#define TSR_KIT_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

typedef int (*kit_fuzz_target)(const uint8_t *data, size_t nbytes);
int kit_fuzz(const char *format, kit_fuzz_target target, int argc, char **argv);

#ifdef TSR_LIBFUZZER
#define KIT_FUZZ_MAIN(format) _Static_assert(sizeof format > 1, "libFuzzer has its own main")
#else
#define KIT_FUZZ_MAIN(format)                                                                                \
    int main(int argc, char **argv) { return kit_fuzz(format, LLVMFuzzerTestOneInput, argc, argv); }         \
    _Static_assert(sizeof format > 1, "the name of a folder in tests/corpus")
#endif

#endif
