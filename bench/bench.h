/*
 * bench/bench.h - this machine's own limits, and rows that are measured against them
 *
 * A row is timed in rounds, its peers' rounds between its own; the figure is the median. The peak of its
 * floor is measured before and after, the median of a few bursts: the higher one is what the row is held
 * against, and a row during which it moved by more than 3 % is repeated, for the machine was busy with
 * something else.
 */
#ifndef TSR_BENCH_BENCH_H
#define TSR_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "peak.h"
#include "tessera/tessera.h"

typedef struct bench bench; /* a context, its threads' peaks, peers, where rows go */

enum { BENCH_MAX_PEERS = 12 };

typedef struct bench_options {
    const char *backend;
    int32_t n_threads;
    bool json;    /* one object a line on stdout instead of a table */
    double scale; /* of a row's time: 1 is about a second; tests use little */
} bench_options;

tsr_status bench_open(const bench_options *options, bench **out);
void bench_close(bench *b);
tsr_context *bench_context(bench *b);

/* Prints the machine's peaks: multiply-adds of each instruction set and type, exponentials, read bandwidth;
 * one thread, all. */
void bench_print_machine(bench *b);

/* Another implementation that takes its turn in every round. */
typedef struct bench_rival {
    const char *name;
    const char *how; /* what it calls: "cblas_sgemm" */
    /* Seconds of one call, over as many as take least_seconds. false: it is out of the row. */
    bool (*round)(void *arg, double least_seconds, double *out);
    void *arg;
} bench_rival;

typedef struct bench_row {
    const char *op;      /* "gemm", "attention", "train"                          */
    char shape[128];     /* for people: "2048 x 2048 x 2048"                      */
    char json[512];      /* the shape's fields for JSON: "\"m\":2048,..."         */
    char note[128];      /* for people, after the floors of a row with exponentials */
    double flop, nbytes; /* of one call: useful operations, and the least bytes   */
    double n_exp;        /* and exponentials                                      */
    bench_compute compute;
    bool in_cache; /* what it reads stays in cache from call to call: memory is no floor */
    tsr_status (*run)(void *arg);
    void *arg;
    const bench_rival *rivals;
    int n_rivals;  /* at most BENCH_MAX_PEERS */
    bool is_quick; /* three rounds at least, in a fifth of the time */
    /* Something that the row is also given as a multiple of, if its seconds are not 0. */
    const char *unit;
    double unit_seconds;
} bench_row;

typedef struct bench_figures {
    double ms, floor_ms, rivals_ms[BENCH_MAX_PEERS]; /* NAN: that rival is out */
} bench_figures;

/*
 * Times the row and prints it: milliseconds, spread, GFLOP/s, GB/s, floor, share of the floor, rivals. The
 * floor is the largest of the times that multiplying, exponentials and memory take at their peaks. out may be
 * NULL.
 */
tsr_status bench_measure(bench *b, const bench_row *row, bench_figures *out);

/* Seconds of one call, the median of a few, for bench_row's unit. */
tsr_status bench_time(bench *b, tsr_status (*run)(void *arg), void *arg, double *out);

/* What peers are asked for. */
typedef enum bench_use { BENCH_PRODUCTS, BENCH_ATTENTION, BENCH_N_USES } bench_use;

typedef struct bench_peer_options {
    /* "name=path", beside the libraries that are found in the usual places */
    const char *const *peers;
    int n_peers;
    bool no_peers; /* none but those */
} bench_peer_options;

/*
 * Starts the peers (peer.h), ending those of an earlier call; bench_close ends them. TSR_ERR_ARGUMENT: no
 * such API; TSR_ERR_IO: one that was named cannot be used.
 */
tsr_status bench_open_peers(bench *b, bench_use use, const bench_peer_options *options);

/* A peer's own process: `tessera bench serve-peer NAME PATHS THREADS`, which only the program itself starts.
 */
int bench_serve_peer(const char *name, const char *paths, const char *n_threads);

typedef struct bench_gemm_options {
    const char *set; /* NULL: all of bench_gemm_sets, unless m is given   */
    int64_t m, n, k; /* one shape                                         */
    int64_t batch, heads;
    tsr_dtype dtype;
    int cache; /* of bench_caches */
} bench_gemm_options;

extern const char *const bench_gemm_sets[], *const bench_gemm_dtypes[], *const bench_caches[];
tsr_dtype bench_gemm_dtype(int choice); /* of bench_gemm_dtypes */

typedef struct bench_attention_options {
    const char *set;                               /* NULL: all of bench_attention_sets, unless lk is given */
    int pass;                                      /* of bench_attention_passes                             */
    int64_t batch, heads, kv_heads, lq, lk, d, dv; /* one shape; 0: kv_heads is heads, lq lk or 1, dv d */
    tsr_dtype dtype, kv_dtype;
    int64_t page; /* rows in a page of K and V; 0: not paged */
    bool causal;
    double dropout;
    const char *svg; /* a picture of growing lengths, at this shape's heads and sizes; NULL: none */
} bench_attention_options;

extern const char *const bench_attention_sets[], *const bench_attention_passes[];
extern const char *const bench_attention_dtypes[], *const bench_attention_kv_dtypes[];
tsr_dtype bench_attention_dtype(int choice); /* of bench_attention_kv_dtypes */

/* The benchmarks. TSR_ERR_ARGUMENT: no such set, or a shape that does not fit together; TSR_ERR_UNSUPPORTED:
 * of gemm or attention nothing could be measured. */
tsr_status bench_gemm(bench *b, const bench_gemm_options *options);
tsr_status bench_attention(bench *b, const bench_attention_options *options);
/* What is wrong with the options, before anything is measured. */
tsr_status bench_check_attention(const bench_attention_options *options);
tsr_status bench_softmax(bench *b);
/* data: the text that the steps learn from; of it, what is wrong before anything is measured. */
tsr_status bench_train(bench *b, const char *data);
tsr_status bench_check_train(const char *data);

#endif
