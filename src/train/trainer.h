/*
 * train/trainer.h - a run: steps, evaluations, checkpoints, and the model that comes out
 *
 *     directory/   config.json  tokenizer.json  model.safetensors   the weights with the best held-out figure
 *                  checkpoint.safetensors                           all that the run needs to go on
 *
 * A step depends on the options, the step's number and the random draws counted so far, all of which a
 * checkpoint holds: a run resumed from it goes on bit for bit. With `minutes`, the first steps are timed;
 * then the number of steps is fixed and stored, so that the learning rate follows steps and not the clock.
 */
#ifndef TSR_TRAIN_TRAINER_H
#define TSR_TRAIN_TRAINER_H

#include <signal.h>

#include "model/llama.h"
#include "train/data.h"
#include "train/schedule.h"

typedef struct tsr_train_options {
    const char *data; /* a file or folder of text                                             */
    const char *out;  /* the directory; made if it is not there                               */
    bool resume;      /* go on from the checkpoint in `out`: takes every figure below from it  */
    bool overwrite;   /* a model that is already in `out` may go                               */

    double minutes; /* > 0: as many steps as fit                                              */
    int64_t steps;  /* > 0: this many; else by minutes                                        */
    int64_t vocab, dim, layers, heads, kv_heads, ffn, context;
    int64_t batch, accumulate; /* windows a pass, passes a step                               */
    tsr_dtype dtype;           /* f32, or bf16 with f32 master weights                        */
    double lr, weight_decay, clip, dropout;
    int64_t warmup;
    int64_t n_evaluations; /* over the run, evenly spaced                                     */
    uint64_t seed;
} tsr_train_options;

#define TSR_MAX_STEPS INT64_C(1000000000000)

/* TSR_ERR_ARGUMENT, TSR_ERR_DTYPE: which option is out of range. Of a resumed run the checkpoint's are
 * checked when it is opened. */
tsr_status tsr_train_check_options(const tsr_train_options *options);

/* dim 192, 6 layers, 6 heads, 3 KV heads, feed-forward 512, vocabulary 1024, context 256, batch 8. */
tsr_train_options tsr_train_defaults(void);

/* One row of the run's history. */
typedef struct tsr_train_point {
    double step, loss, held_bits; /* mean training loss since the last row; held-out bits per byte */
} tsr_train_point;

/* What a run counts; a checkpoint is this, the weights and the moments. */
typedef struct tsr_train_state {
    int64_t step, n_steps; /* n_steps 0: not fixed yet                                      */
    uint64_t n_draws;      /* of the stream that chooses windows                            */
    double best_bits;      /* of the model that was saved; infinite before the first        */
    int64_t best_step;
    double loss_sum; /* since the last history row                                    */
    int64_t loss_n;
    uint64_t data_hash; /* of all tokens: a resumed run must read the same text          */
} tsr_train_state;

typedef struct tsr_trainer {
    tsr_context *ctx;
    tsr_train_options options;
    tsr_schedule schedule;
    tsr_train_state state;
    tsr_train_point *history;
    int64_t n_history;

    tsr_tokenizer *tokenizer;
    tsr_dataset data;
    tsr_weights weights;
    tsr_tensor master;       /* f32 row; the values themselves if they are f32              */
    tsr_tensor m, v;         /* f32 rows                                                    */
    tsr_tensor ids, targets; /* [batch, context] i32 on the device                          */
    tsr_tensor grad_square;  /* one element                                                 */
    int32_t *host_ids, *host_targets;
    tsr_tape *tape;
} tsr_trainer;

/* Opens the data and makes or reads the model. Nothing in `out` changes if it fails. */
tsr_status tsr_trainer_open(tsr_context *ctx, const tsr_train_options *options, tsr_trainer *out);
void tsr_trainer_close(tsr_trainer *trainer);

/* One optimiser step; *loss: the mean over its passes. */
tsr_status tsr_trainer_step(tsr_trainer *trainer, double *loss);

/* Bits per byte on the held-out text. */
tsr_status tsr_trainer_evaluate(tsr_trainer *trainer, double *bits);

/* What a run tells as it goes. */
typedef struct tsr_train_progress {
    const tsr_trainer *trainer;
    double loss;         /* of the last step                      */
    double held_bits;    /* of the last evaluation, NaN before it */
    double tokens_per_s; /* over the last seconds                 */
    double seconds_left; /* NaN while n_steps is not fixed        */
    bool evaluated;      /* held_bits is new                      */
} tsr_train_progress;

typedef struct tsr_train_hooks {
    void (*progress)(void *user, const tsr_train_progress *progress);
    void *user;
    const volatile sig_atomic_t *stop; /* set: save a checkpoint and return; NULL = never             */
} tsr_train_hooks;

/*
 * Runs to the last step or the stop. *finished: all steps were made. The checkpoint is written at each
 * evaluation and at the end; the model whenever it is the best so far.
 */
tsr_status tsr_trainer_run(tsr_trainer *trainer, const tsr_train_hooks *hooks, bool *finished);

/* Tokens that one step reads. */
int64_t tsr_trainer_step_tokens(const tsr_trainer *trainer);

#endif
