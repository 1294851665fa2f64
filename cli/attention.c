/*
 * cli/attention.c - tessera attention: forward, and backward where a gradient comes in, on NumPy files
 *
 * Every option of tsr_attention_options has its flag; --unfused runs the baseline, two batched products
 * around a softmax. Packed sequences (--cu-seqlens-q and -k) are tensors [total, H, D]; with --block-table k
 * and v are pools of pages.
 */
#include <stdio.h>
#include <string.h>

#include "arrays.h"
#include "base/error.h"
#include "tessera/attention.h"
#include "tessera/elementwise.h"

/* The files of a run, by what they hold. */
typedef enum file_role {
    Q,
    K,
    V,
    OUT,
    LSE,
    ALIBI,
    BIAS,
    MASK,
    SINKS,
    SEQLENS_Q,
    SEQLENS_K,
    CU_SEQLENS_Q,
    CU_SEQLENS_K,
    BLOCK_TABLE,
    K_SCALE,
    V_SCALE,
    DOUT,
    DLSE,
    DQ,
    DK,
    DV,
    DBIAS,
    DSINKS,
    N_FILES
} file_role;

typedef struct attention_flags {
    common_options common;
    const char *path[N_FILES];
    double scale, softcap, dropout;
    int64_t window[2], seed, splits;
    bool has_scale, has_window, causal, unfused;
    int dtype;
} attention_flags;

static const char *const dtype_names[] = {"f32", "bf16", "f16", NULL};
static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};

/* What is written, by the option that names it. */
static const struct {
    file_role role;
    const char *flag;
} results[] = {{OUT, "--out"}, {LSE, "--lse"},     {DQ, "--dq"},        {DK, "--dk"},
               {DV, "--dv"},   {DBIAS, "--dbias"}, {DSINKS, "--dsinks"}};
enum { N_RESULTS = sizeof results / sizeof *results };

static int check_lengths(const attention_flags *f)
{
    const bool paged = f->path[BLOCK_TABLE] != NULL;
    if (paged && f->path[SEQLENS_K] == NULL)
        return usage_error("attention", "--block-table: needs --seqlens-k");
    if (paged && f->path[CU_SEQLENS_K] != NULL)
        return usage_error("attention", "--cu-seqlens-k: not with --block-table");
    if (!paged && (f->path[CU_SEQLENS_Q] != NULL) != (f->path[CU_SEQLENS_K] != NULL))
        return usage_error("attention", "--cu-seqlens-q and --cu-seqlens-k: both or neither");
    if (f->path[CU_SEQLENS_Q] != NULL &&
        (f->path[SEQLENS_Q] != NULL || (f->path[SEQLENS_K] != NULL && !paged)))
        return usage_error("attention", "--seqlens-q, --seqlens-k: not with --cu-seqlens");
    return OPTIONS_READ;
}

/* What only the fused forward reads: keys in pages or int8. */
static int check_fused_only(const attention_flags *f)
{
    const char *keys = f->path[BLOCK_TABLE] != NULL ? "--block-table"
                       : f->path[K_SCALE] != NULL   ? "--k-scale"
                                                    : NULL;
    if (keys != NULL && f->unfused) return usage_error("attention", "--unfused: not with %s", keys);
    if (keys != NULL && f->path[DOUT] != NULL)
        return usage_error("attention", "--dout: not with %s, which has no backward", keys);
    return OPTIONS_READ;
}

/* Where a flag needs another one. */
static int check_flags(const attention_flags *f)
{
    bool any = false;
    for (int i = 0; i < N_RESULTS; i++) {
        if (results[i].role < DQ || f->path[results[i].role] == NULL) continue;
        if (f->path[DOUT] == NULL)
            return usage_error("attention", "%s: needs --dout, the gradient that comes in", results[i].flag);
        any = true;
    }
    if (f->path[DOUT] != NULL && !any)
        return usage_error("attention",
                           "--dout: needs a gradient to write: --dq, --dk, --dv, --dbias or --dsinks");
    if (f->path[DLSE] != NULL && f->path[DOUT] == NULL)
        return usage_error("attention", "--dlse: needs --dout");
    if (f->path[DBIAS] != NULL && f->path[BIAS] == NULL)
        return usage_error("attention", "--dbias: needs --bias");
    if (f->path[DSINKS] != NULL && f->path[SINKS] == NULL)
        return usage_error("attention", "--dsinks: needs --sinks");
    if ((f->path[K_SCALE] != NULL) != (f->path[V_SCALE] != NULL))
        return usage_error("attention", "--k-scale and --v-scale: both or neither");
    const int status = check_lengths(f);
    return status == OPTIONS_READ ? check_fused_only(f) : status;
}

static int read_flags(int argc, char **argv, attention_flags *f)
{
    const option options[] = {
        required_option("--q", "FILE", &f->path[Q], "queries [B, Hq, Lq, D]; packed [total, Hq, D]"),
        required_option("--k", "FILE", &f->path[K], "keys [B, Hkv, Lk, D]; packed [total, Hkv, D]"),
        required_option("--v", "FILE", &f->path[V], "values [B, Hkv, Lk, Dv]; packed [total, Hkv, Dv]"),
        required_option("--out", "FILE", &f->path[OUT], "result [B, Hq, Lq, Dv]; packed [total, Hq, Dv]"),
        text_option("--lse", "FILE", &f->path[LSE], "result: log of each row's sum of exponentials"),
        heading("scores"),
        noting(real_option("--scale", "X", &f->scale, -1e38, 1e38, "factor of q k (default 1 / sqrt(D))"),
               &f->has_scale),
        flag_option("--causal", &f->causal, "query i sees keys up to i + Lk - Lq"),
        noting(pair_option("--window", "L,R", f->window, -1, 0x1p62,
                           "and L before, R after that diagonal; -1: all"),
               &f->has_window),
        real_option("--softcap", "X", &f->softcap, 0, 1e38, "s = X * tanh(s / X)"),
        text_option("--alibi", "FILE", &f->path[ALIBI],
                    "slopes [Hq]: s -= slope * distance from the diagonal"),
        text_option("--bias", "FILE", &f->path[BIAS], "added, [B, Hq, Lq, Lk] or extents of 1"),
        text_option("--mask", "FILE", &f->path[MASK], "bool, shaped as bias: true = visible"),
        text_option("--sinks", "FILE", &f->path[SINKS], "[Hq]: one more logit in each row's sum"),
        real_option("--dropout", "P", &f->dropout, 0, 1, "share of the probabilities that is dropped"),
        int_option("--seed", "N", &f->seed, 0, 0x1p63, "of the dropout (default 0)"),
        heading("lengths"),
        text_option("--seqlens-q", "FILE", &f->path[SEQLENS_Q], "[B]: used length of each sequence"),
        text_option("--seqlens-k", "FILE", &f->path[SEQLENS_K], "[B]"),
        text_option("--cu-seqlens-q", "FILE", &f->path[CU_SEQLENS_Q],
                    "[B + 1]: starts of packed sequences, 0 to total"),
        text_option("--cu-seqlens-k", "FILE", &f->path[CU_SEQLENS_K], "[B + 1]"),
        text_option("--block-table", "FILE", &f->path[BLOCK_TABLE],
                    "[B, n]: pages of each sequence; k and v are [pages, page, Hkv, D]"),
        heading("backward"),
        text_option("--dout", "FILE", &f->path[DOUT], "gradient of the result, comes in"),
        text_option("--dlse", "FILE", &f->path[DLSE], "gradient of lse, comes in (default 0)"),
        text_option("--dq", "FILE", &f->path[DQ], "gradients to write"),
        text_option("--dk", "FILE", &f->path[DK], ""),
        text_option("--dv", "FILE", &f->path[DV], ""),
        text_option("--dbias", "FILE", &f->path[DBIAS], "summed where the bias has extent 1"),
        text_option("--dsinks", "FILE", &f->path[DSINKS], ""),
        heading("how"),
        choice_option("--dtype", "TYPE", &f->dtype, dtype_names,
                      "round q, k, v, dout to f32 (default), bf16 or f16 first"),
        text_option("--k-scale", "FILE", &f->path[K_SCALE],
                    "k is int8: what each of its rows is multiplied by"),
        text_option("--v-scale", "FILE", &f->path[V_SCALE], "and v"),
        int_option("--splits", "N", &f->splits, 0, 0x1p62,
                   "cut the keys into N ranges, if queries are few (default 0: automatic)"),
        flag_option("--unfused", &f->unfused, "two products around a softmax, the baseline"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "attention",
        .usage = "--q FILE --k FILE --v FILE --out FILE [options]",
        .description =
            "out = softmax(scale * q k^T) v on .npy files, and its gradients. A row that sees no key is 0.",
        .example = "tessera attention --q q.npy --k k.npy --v v.npy --out o.npy --causal --lse l.npy",
        .options = options,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    if ((float)f->dropout == 1)
        return usage_error("attention", "--dropout: %.17g is out of range: as a float 1, which drops all",
                           f->dropout);
    if (f->has_scale && (float)f->scale == 0)
        return usage_error("attention", "--scale: %g makes all scores 0, must be another number", f->scale);
    return check_flags(f);
}

static output_file output_of(const attention_flags *f, int result)
{
    return (output_file){results[result].flag, f->path[results[result].role]};
}

static int check_outputs(const attention_flags *f)
{
    output_file outputs[N_RESULTS];
    for (int i = 0; i < N_RESULTS; i++) outputs[i] = output_of(f, i);
    return arrays_check_outputs("attention", outputs, N_RESULTS);
}

/* All tensors of a run; data NULL where there is none. */
typedef struct attention_run {
    const attention_flags *flags;
    arrays *files;
    tsr_tensor t[N_FILES];
    tsr_attention_options options;
} attention_run;

static const tsr_tensor *if_there(const attention_run *r, file_role role)
{
    return r->t[role].data != NULL ? &r->t[role] : NULL;
}

static tsr_status load_inputs(attention_run *r)
{
    const tsr_dtype x = dtypes[r->flags->dtype], kv = r->flags->path[K_SCALE] != NULL ? TSR_S8 : x;
    const struct {
        file_role role;
        const char *flag;
        tsr_dtype dtype;
    } inputs[] = {
        {Q, "--q", x},
        {K, "--k", kv},
        {V, "--v", kv},
        {ALIBI, "--alibi", TSR_F32},
        {BIAS, "--bias", TSR_F32},
        {MASK, "--mask", TSR_BOOL},
        {SINKS, "--sinks", TSR_F32},
        {SEQLENS_Q, "--seqlens-q", TSR_I32},
        {SEQLENS_K, "--seqlens-k", TSR_I32},
        {CU_SEQLENS_Q, "--cu-seqlens-q", TSR_I32},
        {CU_SEQLENS_K, "--cu-seqlens-k", TSR_I32},
        {BLOCK_TABLE, "--block-table", TSR_I32},
        {K_SCALE, "--k-scale", TSR_F32},
        {V_SCALE, "--v-scale", TSR_F32},
        {DOUT, "--dout", x},
        {DLSE, "--dlse", TSR_F32},
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (r->flags->path[inputs[i].role] != NULL)
            TSR_TRY(arrays_load(r->files, inputs[i].flag, r->flags->path[inputs[i].role], inputs[i].dtype,
                                &r->t[inputs[i].role]));
    return TSR_OK;
}

/* The longest of the packed sequences; what is out of order is the operator's to refuse. */
static tsr_status longest(const attention_run *r, file_role cu, int64_t *out)
{
    if (r->t[cu].data == NULL) return TSR_OK;
    int32_t starts[2] = {0, 0};
    const char *data = r->t[cu].data;
    for (int64_t i = 0; i < tsr_tensor_numel(&r->t[cu]); i++) {
        TSR_TRY(
            tsr_download(r->files->ctx, &starts[1], data + (size_t)i * sizeof starts[1], sizeof starts[1]));
        const int64_t length = (int64_t)starts[1] - starts[0];
        if (i > 0 && length > *out) *out = length;
        starts[0] = starts[1];
    }
    return TSR_OK;
}

/* Packed scores are indexed within the sequence, so a bias or mask says how long one may be. */
static tsr_status set_longest(attention_run *r)
{
    if (r->t[CU_SEQLENS_Q].data == NULL) return TSR_OK;
    TSR_TRY(longest(r, CU_SEQLENS_Q, &r->options.max_lq));
    TSR_TRY(longest(r, CU_SEQLENS_K, &r->options.max_lk));
    for (file_role role = BIAS; role <= MASK; role++) {
        const tsr_tensor *t = &r->t[role];
        if (t->data == NULL || t->rank != 4) continue;
        if (t->shape[2] > r->options.max_lq) r->options.max_lq = t->shape[2];
        if (r->t[BLOCK_TABLE].data == NULL && t->shape[3] > r->options.max_lk)
            r->options.max_lk = t->shape[3];
    }
    return TSR_OK;
}

static tsr_status set_options(attention_run *r)
{
    const attention_flags *f = r->flags;
    r->options = (tsr_attention_options){
        .scale = (float)f->scale,
        .causal = f->causal,
        .window = {f->has_window, f->window[0], f->window[1]},
        .softcap = (float)f->softcap,
        .alibi = if_there(r, ALIBI),
        .bias = if_there(r, BIAS),
        .mask = if_there(r, MASK),
        .sinks = if_there(r, SINKS),
        .dropout_p = (float)f->dropout,
        .dropout_seed = (uint64_t)f->seed,
        .seqlens_q = if_there(r, SEQLENS_Q),
        .seqlens_k = if_there(r, SEQLENS_K),
        .cu_seqlens_q = if_there(r, CU_SEQLENS_Q),
        .cu_seqlens_k = if_there(r, CU_SEQLENS_K),
        .block_table = if_there(r, BLOCK_TABLE),
        .k_scale = if_there(r, K_SCALE),
        .v_scale = if_there(r, V_SCALE),
        .splits = f->splits,
    };
    return set_longest(r);
}

/* Room for out and lse, whose shapes follow from q and v. */
static tsr_status make_outputs(attention_run *r)
{
    const tsr_tensor *q = &r->t[Q], *v = &r->t[V];
    const bool paged = r->t[BLOCK_TABLE].data != NULL;
    const int32_t rank = q->rank, must = r->t[CU_SEQLENS_Q].data != NULL ? 3 : 4, must_v = paged ? 4 : must;
    if (rank != must || v->rank != must_v)
        return tsr_fail(TSR_ERR_SHAPE, "%s has %d dimensions, must have %d%s", rank != must ? "--q" : "--v",
                        (int)(rank != must ? rank : v->rank), (int)(rank != must ? must : must_v),
                        must == 3 && (rank != must || !paged) ? " (packed by --cu-seqlens)" : "");
    int64_t shape[TSR_MAX_RANK];
    memcpy(shape, q->shape, sizeof shape);
    shape[rank - 1] = v->shape[v->rank - 1];
    TSR_TRY(arrays_new(r->files, q->dtype, rank, shape, &r->t[OUT]));
    if (must == 3) shape[0] = q->shape[1], shape[1] = q->shape[0];
    return arrays_new(r->files, TSR_F32, rank - 1, shape, &r->t[LSE]);
}

static tsr_status make_gradients(attention_run *r)
{
    const file_role of[][2] = {{DQ, Q}, {DK, K}, {DV, V}, {DBIAS, BIAS}, {DSINKS, SINKS}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const tsr_tensor *source = &r->t[of[i][1]];
        if (r->flags->path[of[i][0]] != NULL)
            TSR_TRY(arrays_new(r->files, TSR_F32, source->rank, source->shape, &r->t[of[i][0]]));
    }
    return TSR_OK;
}

static tsr_status compute(attention_run *r)
{
    const tsr_tensor *t = r->t;
    tsr_context *ctx = r->files->ctx;
    const tsr_attention_options *o = &r->options;
    TSR_TRY((r->flags->unfused ? tsr_attention_unfused_fwd : tsr_attention_fwd)(ctx, &t[Q], &t[K], &t[V],
                                                                                &t[OUT], &t[LSE], o, NULL));
    if (t[DOUT].data == NULL) return tsr_synchronise(ctx);
    const tsr_attention_saved saved = {&t[OUT], &t[LSE], &t[DOUT], if_there(r, DLSE)};
    const tsr_attention_grads grads = {.dq = if_there(r, DQ),
                                       .dk = if_there(r, DK),
                                       .dv = if_there(r, DV),
                                       .dbias = if_there(r, DBIAS),
                                       .dsinks = if_there(r, DSINKS)};
    TSR_TRY((r->flags->unfused ? tsr_attention_unfused_bwd : tsr_attention_bwd)(ctx, &t[Q], &t[K], &t[V],
                                                                                &saved, &grads, o, NULL));
    return tsr_synchronise(ctx);
}

static tsr_status run(attention_run *r, double *seconds)
{
    TSR_TRY(load_inputs(r));
    TSR_TRY(set_options(r));
    TSR_TRY(make_outputs(r));
    TSR_TRY(make_gradients(r));
    const double start = seconds_now();
    TSR_TRY(compute(r));
    *seconds = seconds_now() - start;
    for (int i = 0; i < N_RESULTS; i++) {
        const output_file output = output_of(r->flags, i);
        if (output.path != NULL) TSR_TRY(arrays_save(r->files, &output, &r->t[results[i].role]));
    }
    return TSR_OK;
}

int command_attention(int argc, char **argv)
{
    attention_flags f = {.seed = 0};
    int status = read_flags(argc, argv, &f);
    if (status == OPTIONS_READ) status = check_outputs(&f);
    if (status != OPTIONS_READ) return status;
    arrays files = {.command = "attention", .int8_needs = "--k-scale and --v-scale, for --k and --v alone"};
    status = open_context("attention", &f.common, &files.ctx);
    if (status != OPTIONS_READ) return status;
    attention_run r = {.flags = &f, .files = &files};
    double seconds;
    if (run(&r, &seconds) == TSR_OK) {
        arrays_report(&files, &f.common, seconds);
        status = EXIT_DONE;
    } else {
        status = work_failed("attention");
    }
    arrays_release(&files);
    tsr_context_destroy(files.ctx);
    return status;
}
