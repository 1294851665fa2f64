/*
 * tests/kit/attention.h - random cases of attention, run on any context, fused or not
 *
 * A case owns its tensors; an option is on where its tensor has data. Inputs are finite until something
 * poisons them.
 */
#ifndef TSR_KIT_ATTENTION_H
#define TSR_KIT_ATTENTION_H

#include "kit/tensor.h"
#include "tessera/attention.h"

typedef struct kit_attention {
    tsr_dtype dtype, grad_dtype;         /* of q and its like; of dq, dk and dv: dtype or f32 */
    int64_t b, hq, hkv, lq, lk, d, dv;   /* packed: lq and lk bound the lengths */
    tsr_tensor q, k, v, dout, dlse;      /* dlse may be absent */
    tsr_tensor alibi, bias, mask, sinks; /* may be absent, all of them */
    tsr_tensor seqlens_q, seqlens_k, cu_seqlens_q, cu_seqlens_k;
    tsr_tensor block_table, k_scale, v_scale; /* may be absent; a case with them runs forward only */
    int64_t dbias_shape[4];
    tsr_attention_options options; /* numbers only */
    unsigned unwanted;             /* bit i: result i but for out is not asked for */
} kit_attention;

typedef struct kit_attention_result {
    tsr_tensor out, lse, dq, dk, dv, dbias, dsinks; /* the last two absent without bias, sinks */
    bool rounds;                                    /* P and dS, to bf16, between the products */
} kit_attention_result;

enum { KIT_ATTENTION_RESULTS = 7 };
extern const char *const kit_attention_result_names[KIT_ATTENTION_RESULTS];
const tsr_tensor *kit_attention_result_at(const kit_attention_result *r, int i);

typedef enum kit_attention_form { KIT_FUSED, KIT_UNFUSED } kit_attention_form;

/* Any shapes, dtype, layouts and features; plain_only leaves features out, but keeps causal. */
kit_attention kit_attention_random(bool plain_only);
/* One in the regime of few queries, or just outside. */
kit_attention kit_attention_decoding(bool plain_only);

/* One whose sizes and heads are of the caller's choosing. */
kit_attention kit_attention_of_sizes(bool plain_only, void (*choose)(kit_attention *));

/* The same case in double, row-major. */
kit_attention kit_attention_f64(const kit_attention *c);

/* A case of one sequence, or of the last queries of every sequence; views of the same data. */
kit_attention kit_attention_sequence(const kit_attention *c, int64_t b);
kit_attention kit_attention_last_queries(const kit_attention *c, int64_t n);

/* A case with lengths as packed sequences (copies). */
kit_attention kit_attention_packed(const kit_attention *c);

/* A padded case with its keys and values in pages (copies), used and unused ones in random order, NaN where
 * nothing is; and with int8 ones, each row with a scale. */
kit_attention kit_attention_paged(const kit_attention *c);
kit_attention kit_attention_int8(const kit_attention *c);

/* What a padded run left, packed likewise. */
kit_attention_result kit_attention_result_packed(const kit_attention *packed,
                                                 const kit_attention_result *padded);

/* The part of a run that belongs to sequence b, or to the last queries: dk and its like are absent there. */
kit_attention_result kit_attention_result_sequence(const kit_attention_result *r, int64_t b);
kit_attention_result kit_attention_result_last_queries(const kit_attention_result *r, int64_t n);

/* Forward, then backward from what forward left; fails the test on an error. */
kit_attention_result kit_attention_run(tsr_context *ctx, const kit_attention *c, kit_attention_form form);

/* Lengths of sequence b; whether its query i of head h sees key j (padded cases). */
int64_t kit_attention_lq(const kit_attention *c, int64_t b);
int64_t kit_attention_lk(const kit_attention *c, int64_t b);
bool kit_attention_sees(const kit_attention *c, int64_t b, int64_t h, int64_t i, int64_t j);

/* NaN and Inf wherever no result depends on it: rows beyond lengths, hidden keys (int8: their scales), empty
 * queries, hidden bias. */
void kit_attention_poison_hidden(const kit_attention *c);

/*
 * Fails the test unless a result is as close to the truth (of the case in double) as it must be: an error of
 * twice that of the unfused form in the same dtype, and 2 units in the last place of the largest element.
 * Where luck decides between the two there is a little more room; where there is no unfused result to compare
 * with, an absolute bound. The other says whether a result keeps to that one.
 */
void kit_attention_check(const kit_attention *c, const kit_attention_result *got,
                         const kit_attention_result *truth, const kit_attention_result *unfused);
bool kit_attention_agrees(const kit_attention *c, const kit_attention_result *got,
                          const kit_attention_result *truth);

/* Fails unless what both have is the same to the bit. */
void kit_attention_same_bits(const kit_attention *c, const kit_attention_result *a,
                             const kit_attention_result *b, const char *what);

/* One line that says which case it is. */
typedef struct kit_attention_line {
    char text[400];
} kit_attention_line;
kit_attention_line kit_attention_describe(const kit_attention *c);

#endif
