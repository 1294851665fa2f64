/*
 * bench/operands.h - the matrices of a product, made alike by the program and by each of its peers
 *
 * Values depend on the place in the matrix alone, so every process multiplies the same numbers and a
 * result can be checked without sending matrices about. Where caches are to be cold there are copies, as many
 * as have four times the size of the last level together, and each call takes the next one.
 */
#ifndef TSR_BENCH_OPERANDS_H
#define TSR_BENCH_OPERANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tessera/tensor.h"

/* How a product, or a batch of them, is asked for. */
typedef enum gemm_form {
    GEMM_MATMUL,    /* matmul2d: one product                                         */
    GEMM_LOOP,      /* matmul2d for each product of the batch                        */
    GEMM_BMM,       /* the batch as 3-d tensors                                      */
    GEMM_STRIDED,   /* by strides of batch and head                                  */
    GEMM_POINTERS,  /* by a pointer each, to matrices that lie side by side          */
    GEMM_SCATTERED, /* the same, to matrices in another order with gaps between them */
    GEMM_PACKED,    /* a weight packed once                                          */
    GEMM_INT8,      /* a weight packed as int8, activations as they are              */
    GEMM_INT4_32,   /* as int4, in groups of 32 along k                              */
    GEMM_INT4_128,
    GEMM_N_FORMS
} gemm_form;

extern const char *const gemm_form_names[GEMM_N_FORMS];

static inline bool gemm_form_is_packed(gemm_form form) { return form >= GEMM_PACKED; }

/* Travels to peers as it is. */
typedef struct gemm_problem {
    gemm_form form;
    tsr_dtype dtype;      /* of A and B, before packing; C is f32, or i32 for s8 */
    int32_t b_transposed; /* B lies as [n, k]                                     */
    int32_t cold;
    int32_t is_packing; /* the packing itself is what is timed */
    int64_t m, n, k, batch, heads;
} gemm_problem;

typedef struct gemm_operands {
    gemm_problem p;
    char *a, *b,
        *c; /* arenas of n_copies * n_products matrices, each slot with a gap behind it if scattered */
    size_t a_nbytes, b_nbytes, c_nbytes; /* of the arenas */
    size_t a_slot, b_slot, c_slot;       /* bytes from one matrix to the next */
    int64_t n_copies, n_products;
} gemm_operands;

/* Bytes that one call touches at least. */
size_t gemm_nbytes(const gemm_problem *p);

/* How many operands of so many bytes it takes for each to be out of cache when its turn comes. */
int64_t gemm_copies(const gemm_problem *p, size_t nbytes);

/* false: not enough memory. On large pages where the system has them. */
bool gemm_operands_create(const gemm_problem *p, gemm_operands *out);
void gemm_operands_destroy(gemm_operands *o);

/* Gives back B, once it is packed. */
void gemm_operands_release_b(gemm_operands *o);

/* Product i of a copy. */
void *gemm_a(const gemm_operands *o, int64_t copy, int64_t i);
void *gemm_b(const gemm_operands *o, int64_t copy, int64_t i);
void *gemm_c(const gemm_operands *o, int64_t copy, int64_t i);

/* Results are compared at places that are spread over C of copy 0. */
enum { GEMM_N_SAMPLES = 256 };
void gemm_sample(const gemm_operands *o, double samples[GEMM_N_SAMPLES]);
/* What they must be; needs B. */
void gemm_truth(const gemm_operands *o, double samples[GEMM_N_SAMPLES]);
/* The largest difference as a multiple of what the form may have: right if at most 1. */
double gemm_error(const gemm_problem *p, const double got[GEMM_N_SAMPLES], const double want[GEMM_N_SAMPLES]);

#endif
