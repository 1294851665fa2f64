/*
 * bench/attention_operands.h - what attention is run on, made alike by the program and by each of its peers
 *
 * Values depend on the place in the tensor alone, so every process attends to the same numbers, and results
 * are compared at a few places instead of being sent about. When a model decodes, the caches of its other
 * layers pass between two calls: so there are copies of K and V, together four times the last level of cache,
 * that take turns.
 */
#ifndef TSR_BENCH_ATTENTION_OPERANDS_H
#define TSR_BENCH_ATTENTION_OPERANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tessera/tensor.h"

typedef enum attention_pass {
    ATTENTION_FORWARD,
    ATTENTION_BACKWARD,
    ATTENTION_DECODE, /* forward with few queries */
    ATTENTION_N_PASSES
} attention_pass;

/* With at most so many, forward takes the way of decoding. */
enum { ATTENTION_FEW_QUERIES = 16 };

extern const char *const attention_pass_names[ATTENTION_N_PASSES];

/* Travels to peers as it is; peer_torch.py reads it by these places. */
typedef struct attention_problem {
    int64_t pass, dtype, kv_dtype; /* kv_dtype: dtype, or s8 with a scale for each row */
    int64_t b, hq, hkv, lq, lk, d, dv;
    int64_t causal;
    int64_t page;   /* rows in a page of K and V; 0: they are not paged */
    int64_t copies; /* of K and V; 1 but for decoding */
    double dropout;
} attention_problem;

/* Contiguous: [B, heads, rows, size]; K and V [pages, page, Hkv, size] where they are paged. */
typedef enum attention_name {
    ATTENTION_Q,
    ATTENTION_K,
    ATTENTION_V,
    ATTENTION_DOUT,
    ATTENTION_OUT,
    ATTENTION_DQ,
    ATTENTION_DK,
    ATTENTION_DV,
    ATTENTION_LSE,     /* [B, Hq, Lq] f32 */
    ATTENTION_K_SCALE, /* f32, a number for each row of K */
    ATTENTION_V_SCALE,
    ATTENTION_N_TENSORS
} attention_name;

typedef struct attention_operands {
    attention_problem p;
    float scale;                        /* of the scores */
    void *data[ATTENTION_N_TENSORS];    /* NULL where the problem has none; of K and V, their copies' first */
    size_t nbytes[ATTENTION_N_TENSORS]; /* of one copy */
    int32_t *table;                     /* [B, pages of a sequence]: where its pages lie, out of order */
    int64_t n_pages;                    /* of a sequence */
    int32_t *seqlens_k;                 /* [B], where K and V are paged */
} attention_operands;

/* false: not enough memory. */
bool attention_operands_create(const attention_problem *p, attention_operands *out);
void attention_operands_destroy(attention_operands *o);

/* How many copies of K and V a problem should have. */
int64_t attention_copies(const attention_problem *p);
/* A tensor; K, V and their scales: the copy's, of which `copy` may be any count of turns. */
void *attention_data(const attention_operands *o, attention_name name, int64_t copy);

/* Bytes that a call must read and write, each once: those of the tensors above, one copy. */
double attention_nbytes(const attention_problem *p);
/* Bytes that the other copies take. */
double attention_copies_nbytes(const attention_problem *p);

/* How many scores are not masked, as a share of Lq * Lk: 1/2 of a causal square. */
double attention_visible(const attention_problem *p);

/* The element type, and the extents, of a tensor; shape[2] and [3] are the row and its length. */
tsr_dtype attention_dtype(const attention_problem *p, attention_name name);
void attention_shape(const attention_problem *p, attention_name name, int64_t shape[4]);

/*
 * Results are compared at places that are spread over them, ATTENTION_RUN neighbouring columns of a row at a
 * time. results: the tensors that a pass writes; returns how many.
 */
enum { ATTENTION_N_SAMPLES = 256, ATTENTION_RUN = 16 };
int attention_results(attention_pass pass, attention_name results[3]);
/* Sample s is element places[s] of results[s / ATTENTION_RUN % n]. */
void attention_places(const attention_problem *p, int64_t places[ATTENTION_N_SAMPLES]);
void attention_sample(const attention_operands *o, double samples[ATTENTION_N_SAMPLES]);
/*
 * What they must be. A backward's: out and lse are there already. false: not enough memory.
 */
bool attention_truth(const attention_operands *o, double samples[ATTENTION_N_SAMPLES]);
/* The largest difference as a multiple of what the type may have: right if at most 1. */
double attention_error(const attention_problem *p, const double got[ATTENTION_N_SAMPLES],
                       const double want[ATTENTION_N_SAMPLES]);

#endif
