/* bench/gemm_case.c - a problem's operands, and a call of it in each form */
#include "gemm_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static tsr_dtype c_dtype(const gemm_problem *p) { return p->dtype == TSR_S8 ? TSR_I32 : TSR_F32; }

static tsr_weight_options weight_options(gemm_form form)
{
    switch (form) {
    case GEMM_INT8: return (tsr_weight_options){.format = TSR_WEIGHT_INT8};
    case GEMM_INT4_32: return (tsr_weight_options){.format = TSR_WEIGHT_INT4, .group = 32};
    case GEMM_INT4_128: return (tsr_weight_options){.format = TSR_WEIGHT_INT4, .group = 128};
    default: return (tsr_weight_options){.format = TSR_WEIGHT_AS_IS};
    }
}

bench_compute gemm_case_compute(const gemm_problem *p)
{
    const bool is_quantised = p->form >= GEMM_INT8 && p->form < GEMM_N_FORMS;
    return p->dtype == TSR_S8 || is_quantised ? BENCH_S8 : p->dtype == TSR_BF16 ? BENCH_BF16 : BENCH_F32;
}

static tsr_tensor b_view(void *data, const gemm_problem *p)
{
    if (!p->b_transposed) return tsr_tensor_2d(data, p->dtype, p->k, p->n);
    const tsr_tensor b = tsr_tensor_2d(data, p->dtype, p->n, p->k);
    return tsr_tensor_transpose(&b, 0, 1);
}

static tsr_status run_loop(gemm_case *g, int64_t copy)
{
    const gemm_problem *p = &g->operands.p;
    for (int64_t i = 0; i < g->operands.n_products; i++) {
        const tsr_tensor a = tsr_tensor_2d(gemm_a(&g->operands, copy, i), p->dtype, p->m, p->k);
        const tsr_tensor b = b_view(gemm_b(&g->operands, copy, i), p);
        const tsr_tensor c = tsr_tensor_2d(gemm_c(&g->operands, copy, i), c_dtype(p), p->m, p->n);
        TSR_TRY(tsr_matmul2d(g->ctx, 1, &a, &b, 0, &c, NULL));
    }
    return TSR_OK;
}

static tsr_status run_bmm(gemm_case *g, int64_t copy)
{
    const gemm_problem *p = &g->operands.p;
    const int64_t n = g->operands.n_products, rows = p->b_transposed ? p->n : p->k,
                  columns = p->b_transposed ? p->k : p->n;
    const tsr_tensor a = tsr_tensor_3d(gemm_a(&g->operands, copy, 0), p->dtype, n, p->m, p->k);
    tsr_tensor b = tsr_tensor_3d(gemm_b(&g->operands, copy, 0), p->dtype, n, rows, columns);
    const tsr_tensor c = tsr_tensor_3d(gemm_c(&g->operands, copy, 0), c_dtype(p), n, p->m, p->n);
    if (p->b_transposed) b = tsr_tensor_transpose(&b, 1, 2);
    return tsr_bmm(g->ctx, 1, &a, &b, 0, &c, NULL);
}

static tsr_gemm_operand strided_operand(void *data, const gemm_problem *p, int64_t numel, int64_t row)
{
    return (tsr_gemm_operand){
        .data = data, .batch_stride = p->heads * numel, .head_stride = numel, .row_stride = row};
}

static tsr_status run_strided(gemm_case *g, int64_t copy)
{
    const gemm_problem *p = &g->operands.p;
    const tsr_gemm_strided s = {
        .dtype = p->dtype,
        .c_dtype = c_dtype(p),
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .batch = p->batch,
        .num_heads = p->heads,
        .a = strided_operand(gemm_a(&g->operands, copy, 0), p, p->m * p->k, p->k),
        .b = strided_operand(gemm_b(&g->operands, copy, 0), p, p->k * p->n, p->b_transposed ? p->k : p->n),
        .c = strided_operand(gemm_c(&g->operands, copy, 0), p, p->m * p->n, p->n),
        .b_transposed = p->b_transposed,
        .alpha = 1,
    };
    return tsr_gemm_strided_fwd(g->ctx, &s, NULL);
}

static tsr_status run_pointers(gemm_case *g, int64_t copy)
{
    const gemm_problem *p = &g->operands.p;
    const int64_t first = copy * g->operands.n_products;
    const tsr_gemm_pointers s = {
        .dtype = p->dtype,
        .c_dtype = c_dtype(p),
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .batch = p->batch,
        .num_heads = p->heads,
        .a = g->a + first,
        .b = g->b + first,
        .c = g->c + first,
        .b_transposed = p->b_transposed,
        .alpha = 1,
    };
    return tsr_gemm_pointers_fwd(g->ctx, &s, NULL);
}

static tsr_status run_linear(gemm_case *g, int64_t copy, const tsr_weight *weight)
{
    const gemm_problem *p = &g->operands.p;
    const tsr_tensor x = tsr_tensor_2d(gemm_a(&g->operands, copy, 0), p->dtype, p->m, p->k);
    const tsr_tensor y = tsr_tensor_2d(gemm_c(&g->operands, copy, 0), c_dtype(p), p->m, p->n);
    return tsr_linear_fwd(g->ctx, &x, weight, NULL, &y, NULL);
}

tsr_status gemm_case_run(void *arg)
{
    gemm_case *g = arg;
    const int64_t turn = g->turn++, copy = turn % g->operands.n_copies;
    switch (g->operands.p.form) {
    case GEMM_MATMUL:
    case GEMM_LOOP: return run_loop(g, copy);
    case GEMM_BMM: return run_bmm(g, copy);
    case GEMM_STRIDED: return run_strided(g, copy);
    case GEMM_POINTERS:
    case GEMM_SCATTERED: return run_pointers(g, copy);
    default: return run_linear(g, copy, g->weights[turn % g->n_weights]);
    }
}

static tsr_status pack(gemm_case *g, int64_t copy, tsr_weight **out)
{
    const gemm_problem *p = &g->operands.p;
    const tsr_weight_source source = {
        .values = tsr_tensor_2d(gemm_b(&g->operands, copy, 0), p->dtype, p->n, p->k)};
    const tsr_weight_options options = weight_options(p->form);
    return tsr_weight_create(g->ctx, &source, NULL, &options, out);
}

tsr_status gemm_case_pack(void *arg)
{
    gemm_case *g = arg;
    tsr_weight *weight;
    TSR_TRY(pack(g, g->turn++ % g->operands.n_copies, &weight));
    tsr_weight_destroy(g->ctx, weight);
    return TSR_OK;
}

/* As many packed weights as have to take turns: how large they are, the first one tells. */
static tsr_status pack_all(gemm_case *g)
{
    tsr_weight *first;
    TSR_TRY(pack(g, 0, &first));
    const size_t nbytes = tsr_weight_nbytes(first);
    const int64_t n = g->operands.p.is_packing ? 1 : gemm_copies(&g->operands.p, nbytes);
    g->weights = calloc((size_t)n, sizeof(tsr_weight *));
    if (g->weights == NULL) {
        tsr_weight_destroy(g->ctx, first);
        return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    }
    g->weights[0] = first;
    for (g->n_weights = 1; g->n_weights < n; g->n_weights++) TSR_TRY(pack(g, 0, &g->weights[g->n_weights]));
    return TSR_OK;
}

static tsr_status list_pointers(gemm_case *g)
{
    const int64_t n = g->operands.n_copies * g->operands.n_products;
    g->a = malloc((size_t)n * sizeof *g->a);
    g->b = malloc((size_t)n * sizeof *g->b);
    g->c = malloc((size_t)n * sizeof *g->c);
    if (g->a == NULL || g->b == NULL || g->c == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    for (int64_t i = 0; i < n; i++) {
        const int64_t copy = i / g->operands.n_products, product = i % g->operands.n_products;
        g->a[i] = gemm_a(&g->operands, copy, product);
        g->b[i] = gemm_b(&g->operands, copy, product);
        g->c[i] = gemm_c(&g->operands, copy, product);
    }
    return TSR_OK;
}

static tsr_status make_ready(gemm_case *g)
{
    const gemm_problem *p = &g->operands.p;
    double samples[GEMM_N_SAMPLES];
    if (p->form == GEMM_POINTERS || p->form == GEMM_SCATTERED) TSR_TRY(list_pointers(g));
    gemm_truth(&g->operands, g->truth);
    if (gemm_form_is_packed(p->form)) {
        TSR_TRY(pack_all(g));
        if (!p->is_packing) gemm_operands_release_b(&g->operands);
    }
    TSR_TRY(gemm_case_run(g));
    gemm_sample(&g->operands, samples);
    const double error = gemm_error(p, samples, g->truth);
    if (!(error <= 1))
        return tsr_fail(TSR_ERR_ARGUMENT, "the product is wrong: its error is %.3g times what is allowed",
                        error);
    return TSR_OK;
}

tsr_status gemm_case_open(tsr_context *ctx, const gemm_problem *p, gemm_case *out)
{
    memset(out, 0, sizeof *out);
    out->ctx = ctx;
    if (!gemm_operands_create(p, &out->operands))
        return tsr_fail(TSR_ERR_MEMORY, "not enough memory for the operands");
    const tsr_status status = make_ready(out);
    if (status != TSR_OK) gemm_case_close(out);
    return status;
}

void gemm_case_close(gemm_case *g)
{
    for (int64_t i = 0; i < g->n_weights; i++) tsr_weight_destroy(g->ctx, g->weights[i]);
    gemm_operands_destroy(&g->operands);
    free(g->weights);
    free(g->a);
    free(g->b);
    free(g->c);
}

double gemm_case_nbytes(const gemm_case *g)
{
    const gemm_problem *p = &g->operands.p;
    const double all = (double)gemm_nbytes(p);
    if (g->n_weights == 0) return all;
    const double plain = (double)(p->n * p->k) * (double)tsr_dtype_nbytes(p->dtype);
    const double packed = (double)tsr_weight_nbytes(g->weights[0]);
    return p->is_packing ? plain + packed : all - plain + packed;
}
