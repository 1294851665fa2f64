/* bench/attention_shapes.c - the named sets: where attention is used, and where it is hard */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "attention_impl.h"
#include "base/error.h"

const char *const bench_attention_sets[] = {"long", "short", "single", "diffusion", "decode", NULL};
const char *const bench_attention_passes[] = {"both", "forward", "backward", "decode", NULL};
enum { PASS_BOTH, PASS_FORWARD, PASS_BACKWARD, PASS_DECODE };
static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16, TSR_S8};
enum { N_DTYPES = 3 }; /* of Q */
const char *const bench_attention_dtypes[] = {"f32", "bf16", "f16", NULL};
const char *const bench_attention_kv_dtypes[] = {"f32", "bf16", "f16", "s8", NULL};

tsr_dtype bench_attention_dtype(int choice) { return dtypes[choice]; }

static tsr_status add(attention_list *list, attention_problem p)
{
    if (list->n == list->capacity) {
        const int capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        attention_problem *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
        list->items = items;
        list->capacity = capacity;
    }
    p.copies = attention_copies(&p);
    list->items[list->n++] = p;
    return TSR_OK;
}

static tsr_status add_both(attention_list *list, attention_problem p)
{
    for (p.pass = ATTENTION_FORWARD; p.pass <= ATTENTION_BACKWARD; p.pass++) TSR_TRY(add(list, p));
    return TSR_OK;
}

/* In each of the first n types. */
static tsr_status add_types(attention_list *list, attention_problem p, int n)
{
    for (int i = 0; i < n; i++) {
        p.dtype = p.kv_dtype = dtypes[i];
        TSR_TRY(add_both(list, p));
    }
    return TSR_OK;
}

static attention_problem square(int64_t b, int64_t hq, int64_t hkv, int64_t l, int64_t d, bool causal)
{
    return (attention_problem){.dtype = TSR_F32,
                               .kv_dtype = TSR_F32,
                               .b = b,
                               .hq = hq,
                               .hkv = hkv,
                               .lq = l,
                               .lk = l,
                               .d = d,
                               .dv = d,
                               .causal = causal};
}

static tsr_status add_long(attention_list *list)
{
    for (int64_t d = 128; d >= 64; d /= 2)
        for (int causal = 0; causal < 2; causal++)
            TSR_TRY(add_types(list, square(1, 8, 8, 4096, d, causal), N_DTYPES));
    return TSR_OK;
}

/* Many heads; little work for each thread; a model that is trained; dropout, full and causal. */
static tsr_status add_short(attention_list *list)
{
    TSR_TRY(add_types(list, square(8, 12, 12, 512, 64, false), N_DTYPES));
    TSR_TRY(add_types(list, square(1, 8, 8, 1024, 64, true), N_DTYPES));
    TSR_TRY(add_types(list, square(8, 6, 3, 256, 32, true), 2));
    for (int causal = 0; causal < 2; causal++) {
        attention_problem p = square(1, 8, 8, 1024, 64, causal);
        p.dropout = 0.1;
        TSR_TRY(add_types(list, p, 1));
    }
    return TSR_OK;
}

/* One sequence with one head: the threads must share it. */
static tsr_status add_single(attention_list *list)
{
    TSR_TRY(add_types(list, square(1, 1, 1, 4096, 64, false), 2));
    TSR_TRY(add_types(list, square(1, 1, 1, 4096, 128, true), 2));
    return add_types(list, square(1, 1, 1, 512, 64, false), 1);
}

/* An image of 64 x 64 places and its halves, over itself and over a text of 77 tokens. */
static tsr_status add_diffusion(attention_list *list)
{
    static const int64_t sizes[][2] = {{4096, 40}, {1024, 80}, {256, 160}};
    for (int i = 0; i < 3; i++)
        for (int is_cross = 0; is_cross < 2; is_cross++) {
            attention_problem p = square(2, 8, 8, sizes[i][0], sizes[i][1], false);
            if (is_cross) p.lk = 77;
            TSR_TRY(add_types(list, p, 1));
            p.dtype = p.kv_dtype = TSR_F16;
            TSR_TRY(add_both(list, p));
        }
    return TSR_OK;
}

/* One query against many keys: of a model with grouped heads, of one head alone, of several sequences. */
static tsr_status add_decode(attention_list *list)
{
    static const struct {
        int64_t b, hq, hkv, lk;
    } caches[] = {{1, 32, 8, 32768}, {1, 1, 1, 131072}, {8, 32, 8, 4096}};
    for (int i = 0; i < 3; i++)
        for (int type = 0; type < 5; type++) {
            attention_problem p = square(caches[i].b, caches[i].hq, caches[i].hkv, caches[i].lk, 128, false);
            p.pass = ATTENTION_DECODE;
            p.lq = 1;
            p.dtype = dtypes[type < N_DTYPES ? type : 0];
            p.kv_dtype = dtypes[type < 4 ? type : 0];
            if (type == 4) { /* bf16 in pages */
                p.dtype = p.kv_dtype = TSR_BF16;
                p.page = 16;
            }
            TSR_TRY(add(list, p));
        }
    return TSR_OK;
}

tsr_status attention_list_set(const char *set, attention_list *out)
{
    static tsr_status (*const add_set[])(attention_list *) = {add_long, add_short, add_single, add_diffusion,
                                                              add_decode};
    bool found = false;
    for (int i = 0; bench_attention_sets[i] != NULL; i++) {
        if (set != NULL && strcmp(set, bench_attention_sets[i]) != 0) continue;
        TSR_TRY(add_set[i](out));
        found = true;
    }
    return found ? TSR_OK
                 : tsr_fail(TSR_ERR_ARGUMENT, "set is '%s', must be long, short, single, diffusion or decode",
                            set);
}

/* What decoding alone may have. */
static tsr_status check_decode(const attention_problem *p)
{
    if (p->lq > ATTENTION_FEW_QUERIES && p->pass == ATTENTION_DECODE)
        return tsr_fail(TSR_ERR_ARGUMENT, "--lq: %" PRId64 " queries, decoding has 1 to 16", p->lq);
    if (p->pass != ATTENTION_DECODE && (p->kv_dtype != p->dtype || p->page > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "%s: goes with --pass decode",
                        p->page > 0 ? "--page" : "--kv-dtype");
    if (p->kv_dtype != p->dtype && p->kv_dtype != TSR_S8)
        return tsr_fail(TSR_ERR_ARGUMENT, "--kv-dtype: must be s8, or what --dtype is");
    return TSR_OK;
}

tsr_status attention_list_shape(const bench_attention_options *options, attention_list *out)
{
    attention_problem p = {.dtype = options->dtype,
                           .kv_dtype = options->kv_dtype,
                           .b = options->batch,
                           .hq = options->heads,
                           .hkv = options->kv_heads > 0 ? options->kv_heads : options->heads,
                           .lq = options->lq,
                           .lk = options->lk,
                           .d = options->d,
                           .dv = options->dv > 0 ? options->dv : options->d,
                           .causal = options->causal,
                           .page = options->page,
                           .dropout = options->dropout};
    if (p.hq % p.hkv != 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "--heads: %" PRId64 " is no multiple of --kv-heads %" PRId64, p.hq,
                        p.hkv);
    p.pass = options->pass == PASS_DECODE     ? ATTENTION_DECODE
             : options->pass == PASS_BACKWARD ? ATTENTION_BACKWARD
                                              : ATTENTION_FORWARD;
    if (p.lq == 0) p.lq = p.pass == ATTENTION_DECODE ? 1 : p.lk;
    TSR_TRY(check_decode(&p));
    return options->pass == PASS_BOTH ? add_both(out, p) : add(out, p);
}
