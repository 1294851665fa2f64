/* nn/block.c - the pre-norm block: two branches around one residual stream */
#include "nn/nn.h"

/* y = x + dropout(branch), in the memory of branch, which nobody else needs. */
static tsr_status add_branch(tsr_tape *tape, tsr_var branch, tsr_var x, const tsr_dropout *dropout,
                             uint32_t extra_offset, tsr_var *y)
{
    if (dropout == NULL || dropout->p == 0) {
        TSR_TRY(tsr_tape_add(tape, branch, x, 1, y));
    } else {
        tsr_dropout d = *dropout;
        d.offset += extra_offset;
        TSR_TRY(tsr_tape_dropout_add(tape, branch, x, &d, 1, y));
    }
    tsr_tape_release(tape, branch);
    return TSR_OK;
}

tsr_status tsr_block_forward(tsr_tape *tape, const tsr_block *block, tsr_var x,
                             const tsr_attention_inputs *inputs, const tsr_dropout *residual_dropout,
                             tsr_var *y)
{
    if (tape == NULL || block == NULL || y == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "block_forward: a null pointer was passed");
    tsr_var normal, branch, h;
    TSR_TRY(tsr_norm_forward(tape, &block->attention_norm, x, &normal));
    TSR_TRY(tsr_attention_layer_forward(tape, &block->attention, normal, inputs, &branch));
    tsr_tape_release(tape, normal);
    TSR_TRY(add_branch(tape, branch, x, residual_dropout, 0, &h));
    TSR_TRY(tsr_norm_forward(tape, &block->feed_forward_norm, h, &normal));
    TSR_TRY(tsr_feed_forward_forward(tape, &block->feed_forward, normal, &branch));
    tsr_tape_release(tape, normal);
    TSR_TRY(add_branch(tape, branch, h, residual_dropout, 1, y));
    tsr_tape_release(tape, h);
    return TSR_OK;
}
