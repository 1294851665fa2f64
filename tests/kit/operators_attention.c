/* tests/kit/operators_attention.c - attention with all its options, padded and packed, fused and unfused */
#include "kit/isa.h"
#include "kit/operators.h"
#include "kit/tensor.h"
#include "tessera/attention.h"

enum { B = 3, HQ = 4, HKV = 2, LQ = 5, LK = 7, D = 6, DV = 8 };
enum { TOTAL_Q = 10, TOTAL_K = 9, MAX_LQ = 11, MAX_LK = 5 }; /* packed: starts 0 2 2 10 and 0 5 6 9 */

#define IN(name, ...)    kit_add(c, KIT_IN, name, kit_normal(KIT_NEW(TSR_F32, kit_any_input(), __VA_ARGS__)))
#define SAVED(name, ...) kit_add(c, KIT_IN, name, kit_normal(KIT_NEW(TSR_F32, kit_any_output(), __VA_ARGS__)))
#define OUT(name, ...)   kit_add(c, KIT_OUT, name, KIT_NEW(TSR_F32, kit_any_output(), __VA_ARGS__))

/* Positions of arguments; the backward's follow the shared ones. */
enum {
    Q,
    K,
    V,
    ALIBI,
    BIAS,
    MASK,
    SINKS,
    LENGTHS_Q,
    LENGTHS_K,
    O,
    LSE,
    DOUT,
    DLSE,
    DQ,
    DK,
    DV_,
    DBIAS,
    DSINKS
};

static void build_options(kit_call *c, int64_t lq, int64_t lk)
{
    IN("alibi", HQ)->optional = true;
    IN("bias", B, 1, lq, lk)->optional = true;
    kit_add(c, KIT_IN, "mask", kit_integers(KIT_NEW(TSR_BOOL, kit_any_input(), 1, HQ, lq, lk), 0, 1))
        ->optional = true;
    IN("sinks", HQ)->optional = true;
}

static void build_padded(kit_call *c)
{
    IN("q", B, HQ, LQ, D);
    IN("k", B, HKV, LK, D);
    IN("v", B, HKV, LK, DV);
    build_options(c, LQ, LK);
    kit_add(c, KIT_IN, "seqlens_q", kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, B), 0, LQ))->optional = true;
    kit_add(c, KIT_IN, "seqlens_k", kit_integers(KIT_NEW(TSR_I32, KIT_ROWS, B), 0, LK))->optional = true;
}

static tsr_tensor starts(const int *from)
{
    const tsr_tensor t = KIT_NEW(TSR_I32, KIT_GAPS, B + 1);
    for (int i = 0; i <= B; i++) kit_set(&t, i, from[i]);
    return t;
}

static void build_packed(kit_call *c)
{
    IN("q", TOTAL_Q, HQ, D);
    IN("k", TOTAL_K, HKV, D);
    IN("v", TOTAL_K, HKV, DV);
    build_options(c, MAX_LQ, MAX_LK);
    kit_add(c, KIT_IN, "cu_seqlens_q", starts((const int[]){0, 2, 2, TOTAL_Q}));
    kit_add(c, KIT_IN, "cu_seqlens_k", starts((const int[]){0, 5, 6, TOTAL_K}));
}

static void build_fwd(kit_call *c)
{
    build_padded(c);
    OUT("out", B, HQ, LQ, DV);
    OUT("lse", B, HQ, LQ)->optional = true;
}

static void build_packed_fwd(kit_call *c)
{
    build_packed(c);
    OUT("out", TOTAL_Q, HQ, DV);
    OUT("lse", HQ, TOTAL_Q)->optional = true;
}

static void build_score_grads(kit_call *c, int64_t lq, int64_t lk)
{
    OUT("dbias", B, 1, lq, lk)->optional = true;
    OUT("dsinks", HQ)->optional = true;
}

static void build_bwd(kit_call *c)
{
    build_padded(c);
    SAVED("out", B, HQ, LQ, DV);
    SAVED("lse", B, HQ, LQ);
    IN("dout", B, HQ, LQ, DV);
    IN("dlse", B, HQ, LQ)->optional = true;
    OUT("dq", B, HQ, LQ, D)->optional = true;
    OUT("dk", B, HKV, LK, D)->optional = true;
    OUT("dv", B, HKV, LK, DV)->optional = true;
    build_score_grads(c, LQ, LK);
}

static void build_packed_bwd(kit_call *c)
{
    build_packed(c);
    SAVED("out", TOTAL_Q, HQ, DV);
    SAVED("lse", HQ, TOTAL_Q);
    IN("dout", TOTAL_Q, HQ, DV);
    IN("dlse", HQ, TOTAL_Q)->optional = true;
    OUT("dq", TOTAL_Q, HQ, D)->optional = true;
    OUT("dk", TOTAL_K, HKV, D)->optional = true;
    OUT("dv", TOTAL_K, HKV, DV)->optional = true;
    build_score_grads(c, MAX_LQ, MAX_LK);
}

static tsr_attention_options options_of(const tsr_tensor *const *t, bool packed)
{
    tsr_attention_options o = {.softcap = 5, .dropout_p = 0.2f, .dropout_seed = 11, .dropout_offset = 2};
    o.window.on = 1, o.window.left = 3, o.window.right = 2;
    o.alibi = t[ALIBI], o.bias = t[BIAS], o.mask = t[MASK], o.sinks = t[SINKS];
    if (packed) {
        o.cu_seqlens_q = t[LENGTHS_Q], o.cu_seqlens_k = t[LENGTHS_K];
        o.max_lq = MAX_LQ, o.max_lk = MAX_LK;
    } else {
        o.seqlens_q = t[LENGTHS_Q], o.seqlens_k = t[LENGTHS_K];
    }
    return o;
}

static tsr_attention_saved saved_of(const tsr_tensor *const *t)
{
    return (tsr_attention_saved){.out = t[O], .lse = t[LSE], .dout = t[DOUT], .dlse = t[DLSE]};
}

static tsr_attention_grads grads_of(const tsr_tensor *const *t)
{
    return (tsr_attention_grads){
        .dq = t[DQ], .dk = t[DK], .dv = t[DV_], .dbias = t[DBIAS], .dsinks = t[DSINKS]};
}

/* out and lse as forward leaves them; where it refuses, so will backward. */
static void prepare_bwd(const tsr_tensor *const *t)
{
    const tsr_attention_options o = options_of(t, false);
    (void)tsr_attention_fwd(kit_reference(), t[Q], t[K], t[V], t[O], t[LSE], &o, NULL);
}

static void prepare_packed_bwd(const tsr_tensor *const *t)
{
    const tsr_attention_options o = options_of(t, true);
    (void)tsr_attention_fwd(kit_reference(), t[Q], t[K], t[V], t[O], t[LSE], &o, NULL);
}

/* One form's entries; `packed` is how its sequences lie. */
#define FORM(id, form, packed)                                                                               \
    static tsr_status id##_fwd(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws)        \
    {                                                                                                        \
        const tsr_attention_options o = options_of(t, packed);                                               \
        return tsr_##form##_fwd(ctx, t[Q], t[K], t[V], t[O], t[LSE], &o, ws);                                \
    }                                                                                                        \
    static tsr_status id##_fwd_workspace(tsr_context *ctx, const tsr_tensor *const *t, size_t *out)          \
    {                                                                                                        \
        const tsr_attention_options o = options_of(t, packed);                                               \
        return tsr_##form##_fwd_workspace(ctx, t[Q], t[K], t[V], &o, out);                                   \
    }                                                                                                        \
    static tsr_status id##_bwd(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws)        \
    {                                                                                                        \
        const tsr_attention_options o = options_of(t, packed);                                               \
        const tsr_attention_saved saved = saved_of(t);                                                       \
        const tsr_attention_grads grads = grads_of(t);                                                       \
        return tsr_##form##_bwd(ctx, t[Q], t[K], t[V], &saved, &grads, &o, ws);                              \
    }                                                                                                        \
    static tsr_status id##_bwd_workspace(tsr_context *ctx, const tsr_tensor *const *t, size_t *out)          \
    {                                                                                                        \
        const tsr_attention_options o = options_of(t, packed);                                               \
        const tsr_attention_grads grads = grads_of(t);                                                       \
        return tsr_##form##_bwd_workspace(ctx, t[Q], t[K], t[V], &grads, &o, out);                           \
    }
FORM(fused, attention, false)
FORM(fused_packed, attention, true)
FORM(unfused, attention_unfused, false)
FORM(unfused_packed, attention_unfused, true)

/* --- merge: outs[0] outs[1] lses[0] lses[1] out lse --- */

static void build_merge_of(kit_call *c, const int64_t *out_shape, int32_t rank, const int64_t *lse_shape)
{
    static const char *const names[] = {"outs[0]", "outs[1]", "lses[0]", "lses[1]", "out", "lse"};
    for (int i = 0; i < 6; i++) {
        const bool is_out = i < 2 || i == 4;
        const tsr_tensor t = kit_new(TSR_F32, kit_any_output(), is_out ? rank : rank - 1,
                                     is_out ? out_shape : lse_shape);
        if (i < 4) kit_normal(t);
        kit_add(c, i < 4 ? KIT_IN : KIT_OUT, names[i], t);
    }
    c->arg[4].may_be = 1u << 0;
    c->arg[5].may_be = 1u << 2, c->arg[5].optional = true;
}

static void build_merge(kit_call *c)
{
    build_merge_of(c, (const int64_t[]){B, HQ, LQ, DV}, 4, (const int64_t[]){B, HQ, LQ});
}
static void build_packed_merge(kit_call *c)
{
    build_merge_of(c, (const int64_t[]){TOTAL_Q, HQ, DV}, 3, (const int64_t[]){HQ, TOTAL_Q});
}

static tsr_status run_merge(tsr_context *ctx, const tsr_tensor *const *t, const tsr_workspace *ws)
{
    (void)ws;
    return tsr_attention_merge(ctx, 2, &t[0], &t[2], t[4], t[5]);
}

#define ENTRIES(form, id, prefix)                                                                            \
    {.name = form "_fwd", .build = build_##prefix##fwd, .run = id##_fwd, .query = id##_fwd_workspace},       \
    {                                                                                                        \
        .name = form "_bwd", .build = build_##prefix##bwd, .run = id##_bwd, .query = id##_bwd_workspace,     \
        .prepare = prepare_##prefix##bwd                                                                     \
    }
const kit_operator kit_attention_operators[] = {
    ENTRIES("attention", fused, ),
    ENTRIES("attention", fused_packed, packed_),
    ENTRIES("attention_unfused", unfused, ),
    ENTRIES("attention_unfused", unfused_packed, packed_),
    {.name = "attention_merge", .build = build_merge, .run = run_merge},
    {.name = "attention_merge", .build = build_packed_merge, .run = run_merge},
    {0},
};
