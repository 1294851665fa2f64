/* bench/gemm_impl.h - the shapes of the product benchmark, and one of them made ready to run */
#ifndef TSR_BENCH_GEMM_IMPL_H
#define TSR_BENCH_GEMM_IMPL_H

#include "bench.h"
#include "operands.h"
#include "tessera/linear.h"

/* A list that grows. */
typedef struct gemm_list {
    gemm_problem *items;
    int n, capacity;
} gemm_list;

/* TSR_ERR_ARGUMENT: no such set. `set` NULL: all. cache: of bench_caches. */
tsr_status gemm_list_set(const char *set, int cache, gemm_list *out);
tsr_status gemm_list_shape(const bench_gemm_options *options, gemm_list *out);

/* One problem's operands as this library takes them. */
typedef struct gemm_case {
    tsr_context *ctx;
    gemm_operands operands;
    double truth[GEMM_N_SAMPLES];
    int64_t turn;         /* counts the calls: which copy is next */
    tsr_weight **weights; /* packed, each the same; NULL where B is plain */
    int64_t n_weights;
    const void **a, **b; /* [n_copies * n_products] each, for the pointer forms */
    void **c;
} gemm_case;

/*
 * Makes the operands, packs them, multiplies once and compares. TSR_ERR_UNSUPPORTED: this library does not
 * multiply so; TSR_ERR_MEMORY; another status: it did, and wrongly.
 */
tsr_status gemm_case_open(tsr_context *ctx, const gemm_problem *p, gemm_case *out);
void gemm_case_close(gemm_case *g);

/* One call on the next copy; arg is the case. */
tsr_status gemm_case_run(void *arg);
/* The packing of the next copy. */
tsr_status gemm_case_pack(void *arg);

/* Bytes that a call reads and writes at least, packed weights at their packed size. */
double gemm_case_nbytes(const gemm_case *g);
/* What the products are computed in. */
bench_compute gemm_case_compute(const gemm_problem *p);

#endif
