/* op/attention.h - the options of attention, checked and resolved into the seam's arguments */
#ifndef TSR_OP_ATTENTION_H
#define TSR_OP_ATTENTION_H

#include "op/validate.h"
#include "tessera/attention.h"

/*
 * Checks q, k, v and the options (NULL = all zero) and fills everything of `args` but out and lse: views of
 * rank 4, the scale, one window, bias and mask with strides of 0 where they broadcast.
 */
tsr_status tsr_attention_resolve(const tsr_context *ctx, const tsr_tensor *q, const tsr_tensor *k,
                                 const tsr_tensor *v, const tsr_attention_options *options,
                                 tsr_attention_fwd_args *args);

/* Fails unless k and v are whole tensors of q's dtype, as all but the fused forward need them. */
tsr_status tsr_attention_check_plain_kv(const tsr_attention_fwd_args *args);

/* A tensor of rank 4 as the seam wants it: packed rows [total, h, d] become [1, h, total, d]. */
tsr_tensor tsr_attention_rows(const tsr_tensor *t);
/* lse and its gradient: packed [h, total] becomes [1, h, total]. */
tsr_tensor tsr_attention_row_values(const tsr_tensor *t);

/* Tensors that the options name, which outputs must be apart from; absent ones are NULL. */
enum { TSR_ATTENTION_OPTION_TENSORS = 11 };
void tsr_attention_option_inputs(const tsr_attention_options *options,
                                 tsr_input inputs[TSR_ATTENTION_OPTION_TENSORS]);

#endif
