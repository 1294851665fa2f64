/* bench/attention_impl.h - the shapes of the attention benchmark, and one of them made ready to run */
#ifndef TSR_BENCH_ATTENTION_IMPL_H
#define TSR_BENCH_ATTENTION_IMPL_H

#include "attention_operands.h"
#include "bench.h"

/* A list that grows. */
typedef struct attention_list {
    attention_problem *items;
    int n, capacity;
} attention_list;

/* TSR_ERR_ARGUMENT: no such set, or a shape that does not fit together. set NULL: all. */
tsr_status attention_list_set(const char *set, attention_list *out);
tsr_status attention_list_shape(const bench_attention_options *options, attention_list *out);

/* A way through: the fused one or the one that holds all of S. */
typedef struct attention_path {
    tsr_workspace ws;
    size_t peak_nbytes; /* of the process above what it was before the operands; 0: not known */
    double seconds;     /* of its last call; unfused only */
    bool is_ready;
} attention_path;

/* One problem as this library takes it. */
typedef struct attention_case {
    tsr_context *ctx;
    attention_operands operands;
    int64_t turn; /* counts the calls: which copy is next */
    tsr_tensor t[ATTENTION_N_TENSORS], table, seqlens_k;
    tsr_attention_options options;
    attention_path fused, unfused;
    double truth[ATTENTION_N_SAMPLES];
} attention_case;

/* How much time and memory a row is worth. */
typedef struct attention_effort {
    bool is_quick;
    double most_unfused_nbytes;
    double
        unfused_too_slow; /* seconds that one of its calls is known to exceed: it is left out; 0: it is not */
} attention_effort;

/*
 * Makes the operands, attends once by each path and compares. The unfused one is left out where it is not
 * worth the effort, or its workspace would not fit what is free: then why_not_unfused says why, else it is
 * empty.
 * TSR_ERR_MEMORY; another status: it did, and wrongly.
 */
tsr_status attention_case_open(tsr_context *ctx, const attention_problem *p, const attention_effort *effort,
                               attention_case *out, char why_not_unfused[128]);
void attention_case_close(attention_case *c);

/* One call; arg is the case. */
tsr_status attention_case_run(void *arg);
tsr_status attention_case_run_unfused(void *arg);

/* What the scores and products are computed in, and the names of the kernels that do it. */
bench_compute attention_case_compute(const attention_case *c);
void attention_case_kernel(const attention_case *c, char *out, size_t size);

/* Multiply-adds, two operations each: 4 Hq Lq Lk D forward, 2.5 times that backward, of what is visible. */
double attention_flop(const attention_problem *p);
double attention_n_exp(const attention_problem *p);

typedef struct attention_figures {
    bench_figures time;
    const char *rivals[BENCH_MAX_PEERS]; /* names, as long as the peers; of one text each */
    int n_rivals;
    bool has_unfused;                    /* then it is the first rival */
    double fused_nbytes, unfused_nbytes; /* workspaces */
    double operands_nbytes;              /* 0: the problem was left out, which was said */
} attention_figures;

/* Measures a problem and prints its row. out may be NULL. */
tsr_status attention_measure(bench *b, const attention_problem *p, const attention_effort *effort,
                             attention_figures *out);

/* Lengths from 128 on, and their picture. */
tsr_status attention_scaling(bench *b, const bench_attention_options *options);
/* TSR_ERR_IO: the picture cannot be written there; found out before an hour is spent on it. */
tsr_status attention_check_scaling(const bench_attention_options *options);

#endif
