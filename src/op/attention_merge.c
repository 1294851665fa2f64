/* op/attention_merge.c - attention over all keys from parts over disjoint ranges of them */
#include <stdio.h>

#include "op/attention.h"

/* "outs[3]": the name of a part's tensor in messages. */
typedef struct part_name {
    char text[16];
} part_name;

static part_name name_of(const char *array, int64_t i)
{
    part_name name;
    snprintf(name.text, sizeof name.text, "%s[%d]", array, (int)i);
    return name;
}

static tsr_status check_part(const tsr_context *ctx, const tsr_tensor *part_out, const tsr_tensor *part_lse,
                             int64_t i, const tsr_tensor *out, const int64_t *lse_shape)
{
    const part_name out_name = name_of("outs", i), lse_name = name_of("lses", i);
    TSR_TRY(
        tsr_check_tensor(ctx, part_out, out_name.text, 1u << out->dtype | 1u << tsr_wide(out->dtype), 3, 4));
    TSR_TRY(tsr_check_same_shape(part_out, out_name.text, out, "out"));
    return tsr_check_tensor_is(ctx, part_lse, lse_name.text, tsr_wide(out->dtype), out->rank - 1, lse_shape,
                               "a number for each row of out");
}

static tsr_status check_apart(int64_t n_parts, const tsr_tensor *const *outs, const tsr_tensor *const *lses,
                              const tsr_tensor *out, const tsr_tensor *lse)
{
    tsr_input inputs[2 * TSR_ATTENTION_MAX_PARTS];
    part_name names[2 * TSR_ATTENTION_MAX_PARTS];
    for (int64_t i = 0; i < n_parts; i++) {
        names[2 * i] = name_of("outs", i), names[2 * i + 1] = name_of("lses", i);
        inputs[2 * i] = (tsr_input){outs[i], names[2 * i].text};
        inputs[2 * i + 1] = (tsr_input){lses[i], names[2 * i + 1].text};
    }
    const tsr_output outputs[] = {{out, "out", {outs[0]}}, {lse, "lse", {lses[0]}}};
    return tsr_check_memory(outputs, 2, inputs, (int32_t)(2 * n_parts));
}

static tsr_status merge(tsr_context *ctx, int64_t n_parts, const tsr_tensor *const *outs,
                        const tsr_tensor *const *lses, const tsr_tensor *out, const tsr_tensor *lse)
{
    TSR_TRY(tsr_check_context(ctx));
    if (n_parts < 1 || n_parts > TSR_ATTENTION_MAX_PARTS)
        return tsr_fail(TSR_ERR_ARGUMENT, "n_parts is %lld, must be 1 to %d", (long long)n_parts,
                        TSR_ATTENTION_MAX_PARTS);
    TSR_TRY(tsr_check_not_null(outs, "outs"));
    TSR_TRY(tsr_check_not_null(lses, "lses"));
    TSR_TRY(tsr_check_tensor(ctx, out, "out", TSR_IN_FLOATS, 3, 4));
    int64_t lse_shape[3] = {out->shape[0], out->shape[1], out->shape[2]};
    if (out->rank == 3) lse_shape[0] = out->shape[1], lse_shape[1] = out->shape[0];
    for (int64_t i = 0; i < n_parts; i++) TSR_TRY(check_part(ctx, outs[i], lses[i], i, out, lse_shape));
    if (lse != NULL)
        TSR_TRY(tsr_check_tensor_is(ctx, lse, "lse", tsr_wide(out->dtype), out->rank - 1, lse_shape,
                                    "a number for each row of out"));
    TSR_TRY(check_apart(n_parts, outs, lses, out, lse));

    tsr_attention_merge_args args = {.n_parts = n_parts, .out = tsr_attention_rows(out)};
    for (int64_t i = 0; i < n_parts; i++) {
        args.part[i].out = tsr_attention_rows(outs[i]);
        args.part[i].lse = tsr_attention_row_values(lses[i]);
    }
    if (lse != NULL) args.lse = tsr_attention_row_values(lse);
    return tsr_call_attention_merge(ctx, &args, NULL);
}

tsr_status tsr_attention_merge(tsr_context *ctx, int64_t n_parts, const tsr_tensor *const *outs,
                               const tsr_tensor *const *lses, const tsr_tensor *out, const tsr_tensor *lse)
{
    return tsr_within("attention_merge", merge(ctx, n_parts, outs, lses, out, lse));
}
