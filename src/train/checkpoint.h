/*
 * train/checkpoint.h - checkpoint.safetensors: everything a run needs to go on bit for bit
 *
 *     master, m, v   F32 [row]     weights and AdamW's moments, one row each (model/weights.h)
 *     integers       I64 [...]     the options and the state, in the order of checkpoint.c's list
 *     reals          F64 [...]
 *     history        F64 [rows, 3]
 */
#ifndef TSR_TRAIN_CHECKPOINT_H
#define TSR_TRAIN_CHECKPOINT_H

#include "train/trainer.h"

/* Replaces the checkpoint in options.out, whole. */
tsr_status tsr_checkpoint_write(const tsr_trainer *trainer);

/* Options (those that shape the run), state and history; the trainer owns the history. */
tsr_status tsr_checkpoint_read_state(const char *directory, tsr_trainer *trainer);

/* The rows are there and as long as this model's; nothing is allocated for them. */
tsr_status tsr_checkpoint_check_rows(const char *directory, const tsr_llama_config *config);

/* The rows, into the trainer's tensors on the device. */
tsr_status tsr_checkpoint_read_rows(const char *directory, tsr_trainer *trainer);

#endif
