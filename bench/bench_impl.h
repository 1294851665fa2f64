/* bench/bench_impl.h - what a bench is made of */
#ifndef TSR_BENCH_IMPL_H
#define TSR_BENCH_IMPL_H

#include "bench.h"
#include "peer.h"

/* A call this long needs no warming up before its round. */
#define BENCH_LONG_CALL_SECONDS 0.02

struct bench {
    bench_options options;
    tsr_isa isa; /* that rows use */
    tsr_context *ctx;
    tsr_threads *threads;
    tsr_peak_loop loops[BENCH_N_FLOORS]; /* of the set in use; NULL where it has none */
    const tsr_peak_kernel *reader;
    char *memory; /* to be read */
    size_t memory_nbytes;
    double peak[BENCH_N_FLOORS]; /* as last measured; a row's floor: the higher one of before and after */
    bench_peers *peers;          /* NULL until they are opened */
    bool header_printed;
    int64_t n_rows; /* measured */
};

/* TSR_ERR_UNSUPPORTED if no row was measured since there were n: all were left out, which was said. */
tsr_status bench_check_rows(const bench *b, int64_t n);

#endif
