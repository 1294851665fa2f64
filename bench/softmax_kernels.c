/* bench/softmax_kernels.c - the list of the timed softmaxes, best first */
#include "kernel/softmax_f32.h"

extern const bench_softmax_kernel bench_softmax_f32_portable, bench_softmax_f32_avx2,
    bench_softmax_f32_avx512;

const bench_softmax_kernel *bench_softmax_pick(tsr_isa isa)
{
#if defined(TSR_WITH_AVX512)
    if (tsr_isa_serves(TSR_ISA_AVX512, isa)) return &bench_softmax_f32_avx512;
#endif
#if defined(TSR_WITH_AVX2)
    if (tsr_isa_serves(TSR_ISA_AVX2, isa)) return &bench_softmax_f32_avx2;
#endif
    (void)isa;
    return &bench_softmax_f32_portable;
}
