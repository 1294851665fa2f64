/*
 * bench/bench.h - this machine's own limits, and rows that are measured against them
 *
 * A row is timed in rounds; its figure is the median. The peak of its floor is measured before and after: a
 * row during which it moved by more than 3 % is repeated, for the machine was busy with something else.
 */
#ifndef TSR_BENCH_BENCH_H
#define TSR_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tessera/tessera.h"

typedef struct bench bench; /* a context, its threads' peaks, where rows go */

typedef struct bench_options {
    const char *backend;
    int32_t n_threads;
    bool json;    /* one object a line on stdout instead of a table */
    double scale; /* of a row's time: 1 is about a second; tests use little */
} bench_options;

tsr_status bench_open(const bench_options *options, bench **out);
void bench_close(bench *b);
tsr_context *bench_context(bench *b);

/* What bounds a row. */
typedef enum bench_floor { BENCH_FLOOR_FMA, BENCH_FLOOR_READ } bench_floor;

/* Prints the machine's peaks: f32 multiply-adds of each instruction set, read bandwidth, one and all threads.
 */
void bench_print_machine(bench *b);

typedef struct bench_row {
    const char *op;      /* "gemm", "attention", "train"                          */
    char shape[128];     /* for people: "2048 x 2048 x 2048"                      */
    char json[256];      /* the shape's fields for JSON: "\"m\":2048,..."         */
    double flop, nbytes; /* of one call: useful operations, and the least bytes   */
    tsr_status (*run)(void *arg);
    void *arg;
} bench_row;

/* Times the row and prints it: milliseconds, GFLOP/s, GB/s, floor, share of the floor, spread. */
tsr_status bench_measure(bench *b, const bench_row *row);

/* The benchmarks. TSR_ERR_ARGUMENT: no such set. */
tsr_status bench_gemm(bench *b, const char *set);
tsr_status bench_attention(bench *b, const char *set);
/* data: the text that the steps learn from. */
tsr_status bench_train(bench *b, const char *data);

#endif
