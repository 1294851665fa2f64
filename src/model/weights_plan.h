/* model/weights_plan.h - what weights.c and weights_file.c share */
#ifndef TSR_MODEL_WEIGHTS_PLAN_H
#define TSR_MODEL_WEIGHTS_PLAN_H

#include "model/weights.h"

/* Names, shapes and places; no device memory. */
tsr_status tsr_weights_plan(const tsr_llama_config *config, tsr_weights *out);

/* tsr_weights_create for texts of up to n_positions tokens. */
tsr_status tsr_weights_create_for(tsr_context *ctx, const tsr_llama_config *config, tsr_dtype dtype,
                                  bool with_grads, int64_t n_positions, tsr_weights *out);

/* Weight x's part of a row, in whatever memory the row is. */
tsr_tensor tsr_weight_view(const tsr_weight *weight, const tsr_tensor *row);

#endif
