/* bench/attention_case.c - a problem's tensors, and a call of it by each path */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_impl.h"
#include "base/error.h"
#include "memory.h"

/* A longer workspace than this share of what is free is not worth the swapping. */
#define MOST_OF_MEMORY 0.75

static bool is_backward(const attention_case *c) { return c->operands.p.pass == ATTENTION_BACKWARD; }

static tsr_attention_saved saved_of(const attention_case *c)
{
    return (tsr_attention_saved){
        .out = &c->t[ATTENTION_OUT], .lse = &c->t[ATTENTION_LSE], .dout = &c->t[ATTENTION_DOUT]};
}

static tsr_attention_grads grads_of(const attention_case *c)
{
    return (tsr_attention_grads){
        .dq = &c->t[ATTENTION_DQ], .dk = &c->t[ATTENTION_DK], .dv = &c->t[ATTENTION_DV]};
}

/* The next copy of K and V. */
static void take_turn(attention_case *c)
{
    static const attention_name copied[] = {ATTENTION_K, ATTENTION_V, ATTENTION_K_SCALE, ATTENTION_V_SCALE};
    for (int i = 0; i < 4; i++) c->t[copied[i]].data = attention_data(&c->operands, copied[i], c->turn);
    c->turn++;
}

/* ws NULL: the context's own. */
static tsr_status forward(attention_case *c, const tsr_workspace *ws)
{
    return tsr_attention_fwd(c->ctx, &c->t[ATTENTION_Q], &c->t[ATTENTION_K], &c->t[ATTENTION_V],
                             &c->t[ATTENTION_OUT], &c->t[ATTENTION_LSE], &c->options, ws);
}

tsr_status attention_case_run(void *arg)
{
    attention_case *c = arg;
    take_turn(c);
    if (!is_backward(c)) return forward(c, &c->fused.ws);
    const tsr_attention_saved saved = saved_of(c);
    const tsr_attention_grads grads = grads_of(c);
    return tsr_attention_bwd(c->ctx, &c->t[ATTENTION_Q], &c->t[ATTENTION_K], &c->t[ATTENTION_V], &saved,
                             &grads, &c->options, &c->fused.ws);
}

tsr_status attention_case_run_unfused(void *arg)
{
    attention_case *c = arg;
    take_turn(c);
    const tsr_tensor *q = &c->t[ATTENTION_Q], *k = &c->t[ATTENTION_K], *v = &c->t[ATTENTION_V];
    if (!is_backward(c))
        return tsr_attention_unfused_fwd(c->ctx, q, k, v, &c->t[ATTENTION_OUT], &c->t[ATTENTION_LSE],
                                         &c->options, &c->unfused.ws);
    const tsr_attention_saved saved = saved_of(c);
    const tsr_attention_grads grads = grads_of(c);
    return tsr_attention_unfused_bwd(c->ctx, q, k, v, &saved, &grads, &c->options, &c->unfused.ws);
}

static tsr_status workspace_of(const attention_case *c, bool fused, size_t *out)
{
    const tsr_tensor *q = &c->t[ATTENTION_Q], *k = &c->t[ATTENTION_K], *v = &c->t[ATTENTION_V];
    const tsr_attention_grads grads = grads_of(c);
    if (is_backward(c))
        return fused ? tsr_attention_bwd_workspace(c->ctx, q, k, v, &grads, &c->options, out)
                     : tsr_attention_unfused_bwd_workspace(c->ctx, q, k, v, &grads, &c->options, out);
    return fused ? tsr_attention_fwd_workspace(c->ctx, q, k, v, &c->options, out)
                 : tsr_attention_unfused_fwd_workspace(c->ctx, q, k, v, &c->options, out);
}

static void make_views(attention_case *c)
{
    const attention_operands *o = &c->operands;
    for (int i = 0; i < ATTENTION_N_TENSORS; i++) {
        const attention_name name = (attention_name)i;
        int64_t shape[4];
        attention_shape(&o->p, name, shape);
        c->t[i] = tsr_tensor_4d(o->data[i], attention_dtype(&o->p, name), shape[0], shape[1], shape[2],
                                shape[3]);
        if (name >= ATTENTION_LSE) /* one number a row */
            c->t[i] = tsr_tensor_3d(o->data[i], TSR_F32, shape[0], shape[1], shape[2]);
    }
    c->options = (tsr_attention_options){.causal = o->p.causal != 0, .dropout_p = (float)o->p.dropout};
    if (o->p.kv_dtype == TSR_S8) {
        c->options.k_scale = &c->t[ATTENTION_K_SCALE];
        c->options.v_scale = &c->t[ATTENTION_V_SCALE];
    }
    if (o->p.page > 0) {
        c->table = tsr_tensor_2d(o->table, TSR_I32, o->p.b, o->n_pages);
        c->seqlens_k = tsr_tensor_1d(o->seqlens_k, TSR_I32, o->p.b);
        c->options.block_table = &c->table;
        c->options.seqlens_k = &c->seqlens_k;
    }
}

/* Runs the path once, noting how much memory it took, and compares. Its pages are given back. */
static tsr_status try_path(attention_case *c, attention_path *path, tsr_status (*run)(void *),
                           size_t resident)
{
    double samples[ATTENTION_N_SAMPLES];
    if (path->ws.nbytes > 0) {
        path->ws.data = bench_map(path->ws.nbytes);
        if (path->ws.data == NULL) return tsr_fail(TSR_ERR_MEMORY, "not enough memory for the workspace");
    }
    bench_reset_peak_resident();
    TSR_TRY(run(c));
    const size_t peak = bench_peak_resident_nbytes();
    const size_t before = resident + (size_t)attention_copies_nbytes(&c->operands.p);
    path->peak_nbytes = peak > before ? peak - before : 0;
    bench_drop_pages(path->ws.data, path->ws.nbytes);
    if (path == &c->fused && !attention_truth(&c->operands, c->truth))
        return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    attention_sample(&c->operands, samples);
    const double error = attention_error(&c->operands.p, samples, c->truth);
    if (!(error <= 1))
        return tsr_fail(TSR_ERR_ARGUMENT, "the %s %s is wrong: its error is %.3g times what is allowed",
                        path == &c->fused ? "fused" : "unfused", attention_pass_names[c->operands.p.pass],
                        error);
    path->is_ready = true;
    return TSR_OK;
}

/* What of the problem the fused forward alone has; NULL: nothing. */
static const char *fused_only(const attention_problem *p)
{
    return p->page > 0 ? "pages" : p->kv_dtype == TSR_S8 ? "int8" : NULL;
}

static tsr_status try_unfused(attention_case *c, size_t resident, const attention_effort *effort,
                              char why_not[128])
{
    size_t nbytes = 0;
    why_not[0] = '\0';
    if (fused_only(&c->operands.p) != NULL)
        snprintf(why_not, 128, "%s", fused_only(&c->operands.p));
    else if (effort->unfused_too_slow > 0)
        snprintf(why_not, 128, "a call would take longer than %g s", effort->unfused_too_slow);
    if (why_not[0] != '\0') return TSR_OK;
    const tsr_status status = workspace_of(c, false, &nbytes);
    const size_t available = bench_available_nbytes();
    double most_nbytes = effort->most_unfused_nbytes;
    if (available > 0) most_nbytes = fmin(most_nbytes, MOST_OF_MEMORY * (double)available);
    if (status == TSR_OK && (double)nbytes > most_nbytes)
        snprintf(why_not, 128, "its workspace would take %.2f GiB", (double)nbytes * 0x1p-30);
    else if (status != TSR_OK)
        snprintf(why_not, 128, "%s", tsr_last_error());
    if (why_not[0] != '\0') return TSR_OK;
    c->unfused.ws.nbytes = nbytes;
    return try_path(c, &c->unfused, attention_case_run_unfused, resident);
}

tsr_status attention_case_open(tsr_context *ctx, const attention_problem *p, const attention_effort *effort,
                               attention_case *out, char why_not_unfused[128])
{
    const size_t resident = bench_resident_nbytes();
    memset(out, 0, sizeof *out);
    out->ctx = ctx;
    if (!attention_operands_create(p, &out->operands))
        return tsr_fail(TSR_ERR_MEMORY, "not enough memory for the operands");
    make_views(out);
    tsr_status status = is_backward(out) ? forward(out, NULL) : TSR_OK; /* out and lse */
    if (status == TSR_OK) status = workspace_of(out, true, &out->fused.ws.nbytes);
    if (status == TSR_OK) status = try_path(out, &out->fused, attention_case_run, resident);
    if (status == TSR_OK) status = try_unfused(out, resident, effort, why_not_unfused);
    if (status != TSR_OK) attention_case_close(out);
    return status;
}

void attention_case_close(attention_case *c)
{
    attention_operands_destroy(&c->operands);
    bench_unmap(c->fused.ws.data, c->fused.ws.nbytes);
    bench_unmap(c->unfused.ws.data, c->unfused.ws.nbytes);
}

/* Where a kernel's line is that begins with `family` and holds `type`, else NULL. */
static const char *find_kernel(const char *lines, const char *family, const char *type, int *length)
{
    for (const char *line = lines; *line != '\0';) {
        const int n = (int)strcspn(line, "\n");
        const char *found = strstr(line, type);
        *length = (int)strcspn(line, " \n");
        if (strncmp(line, family, strlen(family)) == 0 && found != NULL && found < line + n) return line;
        line += n + (line[n] == '\n');
    }
    return NULL;
}

/* Few queries take the operator's other way. */
static bool decodes(const attention_case *c)
{
    return c->operands.p.lq <= ATTENTION_FEW_QUERIES && !is_backward(c);
}

/* bf16 is multiplied by the set's own instructions, where it has them; decoding widens. */
static bool multiplies_bf16(const attention_case *c)
{
    int length;
    return c->operands.p.dtype == TSR_BF16 && !decodes(c) &&
           find_kernel(tsr_context_kernels(c->ctx), "gemm_bf16_", "gemm", &length) != NULL;
}

/* Decoding multiplies int8 k and v by a query of 16 bits as integers, where the set can. */
static const char *integer_kernel(const attention_case *c, int *length)
{
    const attention_problem *p = &c->operands.p;
    if (!decodes(c) || p->kv_dtype != TSR_S8 || p->dtype == TSR_F32) return NULL;
    return find_kernel(tsr_context_kernels(c->ctx), "attention_decode", "s8_", length);
}

bench_compute attention_case_compute(const attention_case *c)
{
    int length;
    if (integer_kernel(c, &length) != NULL) return BENCH_S8; /* 16-bit integers are no faster than that */
    return multiplies_bf16(c) ? BENCH_BF16 : BENCH_F32;
}

void attention_case_kernel(const attention_case *c, char *out, size_t size)
{
    const char *lines = tsr_context_kernels(c->ctx);
    int length = 0, product_length = 0;
    const char *name = integer_kernel(c, &length);
    if (name == NULL)
        name = find_kernel(lines, decodes(c) ? "attention_decode" : "attention_score", "f32", &length);
    const char *product = find_kernel(lines, multiplies_bf16(c) ? "gemm_bf16_" : "gemm_f32", "gemm",
                                      &product_length);
    if (name == NULL)
        snprintf(out, size, "%s", tsr_context_backend(c->ctx));
    else if (decodes(c) || product == NULL)
        snprintf(out, size, "%.*s", length, name);
    else
        snprintf(out, size, "%.*s,%.*s", length, name, product_length, product);
}
