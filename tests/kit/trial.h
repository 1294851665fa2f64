/*
 * tests/kit/trial.h - one call of an operator, to be held against the reference and against itself
 *
 *     kit_trial t = {.what = "softmax", .run = run_softmax, .n_in = 1, .n_out = 1, .bound = {.rel = 2e-6}};
 *     t.in[0] = kit_normal(KIT_NEW(...)), t.out[0] = kit_like(&t.in[0], ...);
 *     kit_check_trial(ctx, &t);
 *     kit_check_trial_bits(&t);
 */
#ifndef TSR_KIT_TRIAL_H
#define TSR_KIT_TRIAL_H

#include "kit/compare.h"
#include "kit/isa.h"
#include "kit/tensor.h"

enum { KIT_TRIAL_MAX = 6 };

typedef struct kit_trial {
    const char *what;
    tsr_status (*run)(tsr_context *ctx, const tsr_tensor *in, const tsr_tensor *out, const void *options);
    const void *options;
    int n_in, n_out;
    tsr_tensor in[KIT_TRIAL_MAX], out[KIT_TRIAL_MAX]; /* what out holds may be read: accumulation */
    kit_bound bound;              /* of f32 results; bf16 and f16 may be one ulp further away              */
    unsigned batch_in, batch_out; /* bit i: dimension 0 of in[i], out[i] counts independent rows */
} kit_trial;

/* Runs on ctx, and on the reference with all floats in double; compares every output. */
void kit_check_trial(tsr_context *ctx, const kit_trial *t);

/* True if kit_check_trial would pass: for tests that a wrong result is rejected. */
bool kit_trial_agrees(tsr_context *ctx, const kit_trial *t);

/* 1, 2 and 3 threads give the same bits; so does any row alone, if the trial has a batch. */
void kit_check_trial_bits(const kit_trial *t);

/* f32, bf16 or f16; a length at the edges of vectors, chunks and items. */
tsr_dtype kit_any_float(void);
int64_t kit_any_length(void);

#endif
