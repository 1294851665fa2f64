/* nn/layers.c - linear, norms, feed-forward */
#include "nn/nn.h"

tsr_status tsr_optional_input(tsr_tape *tape, const tsr_tensor *t, tsr_var *out)
{
    *out = (tsr_var){0};
    return t->data == NULL ? TSR_OK : tsr_tape_input(tape, t, out);
}

tsr_status tsr_optional_parameter(tsr_tape *tape, const tsr_parameter *p, tsr_var *out)
{
    *out = (tsr_var){0};
    return p->value.data == NULL ? TSR_OK : tsr_tape_parameter(tape, p, out);
}

static tsr_status check(const tsr_tape *tape, const void *layer, const void *y, const char *name)
{
    if (tape != NULL && layer != NULL && y != NULL) return TSR_OK;
    return tsr_fail(TSR_ERR_ARGUMENT, "%s: a null pointer was passed", name);
}

tsr_status tsr_linear_forward(tsr_tape *tape, const tsr_linear *layer, tsr_var x, tsr_var *y)
{
    TSR_TRY(check(tape, layer, y, "linear_forward"));
    tsr_var w, bias;
    TSR_TRY(tsr_tape_parameter(tape, &layer->weight, &w));
    TSR_TRY(tsr_optional_parameter(tape, &layer->bias, &bias));
    return tsr_tape_linear(tape, x, w, bias, y);
}

tsr_status tsr_norm_forward(tsr_tape *tape, const tsr_norm *layer, tsr_var x, tsr_var *y)
{
    TSR_TRY(check(tape, layer, y, "norm_forward"));
    tsr_var weight, bias;
    TSR_TRY(tsr_tape_parameter(tape, &layer->weight, &weight));
    if (!layer->centred) return tsr_tape_rms_norm(tape, x, weight, layer->eps, y);
    TSR_TRY(tsr_optional_parameter(tape, &layer->bias, &bias));
    return tsr_tape_layer_norm(tape, x, weight, bias, layer->eps, y);
}

static tsr_status gated(tsr_tape *tape, const tsr_feed_forward *layer, tsr_var x, tsr_var *inner)
{
    tsr_var gate, up;
    TSR_TRY(tsr_linear_forward(tape, &layer->gate, x, &gate));
    TSR_TRY(tsr_linear_forward(tape, &layer->up, x, &up));
    TSR_TRY(tsr_tape_swiglu(tape, gate, up, inner));
    tsr_tape_release(tape, gate);
    tsr_tape_release(tape, up);
    return TSR_OK;
}

tsr_status tsr_feed_forward_forward(tsr_tape *tape, const tsr_feed_forward *layer, tsr_var x, tsr_var *y)
{
    TSR_TRY(check(tape, layer, y, "feed_forward_forward"));
    tsr_var inner, activated;
    if (layer->gate.weight.value.data != NULL) {
        TSR_TRY(gated(tape, layer, x, &inner));
    } else {
        TSR_TRY(tsr_linear_forward(tape, &layer->up, x, &inner));
        TSR_TRY(tsr_tape_activation(tape, layer->activation, inner, &activated));
        tsr_replace(tape, &inner, activated);
    }
    TSR_TRY(tsr_linear_forward(tape, &layer->down, inner, y));
    tsr_tape_release(tape, inner);
    return TSR_OK;
}
