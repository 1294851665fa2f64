/*
 * cli/gemm.c - tessera gemm: C = alpha * A @ B + beta * C, bias, activation, on NumPy files
 *
 * Inputs of 2 to 4 dimensions; what stands before the matrix is a batch, extents of 1 broadcast. Two
 * dimensions take tsr_matmul2d, three tsr_bmm, four the strided batch, and all of them the pointer
 * array with --pointers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "arrays.h"
#include "base/error.h"
#include "base/tensor.h"
#include "tessera/tessera.h"

typedef struct gemm_flags {
    common_options common;
    const char *a, *b, *c, *out, *bias;
    bool has_beta, b_transposed, pointers;
    double alpha, beta;
    int dtype, activation;
} gemm_flags;

static const char *const dtype_names[] = {"f32", "bf16", "f16", "s8", NULL};
static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16, TSR_S8};
static const char *const activation_names[] = {"none", "relu", "gelu", "gelu_tanh", "silu", NULL};
static const tsr_activation activations[] = {TSR_ACTIVATION_NONE, TSR_ACTIVATION_RELU, TSR_ACTIVATION_GELU,
                                             TSR_ACTIVATION_GELU_TANH, TSR_ACTIVATION_SILU};

static int read_flags(int argc, char **argv, gemm_flags *f)
{
    const option options[] = {
        required_option("--a", "FILE", &f->a, "left operand [..., m, k]"),
        required_option("--b", "FILE", &f->b, "right operand [..., k, n]"),
        required_option("--out", "FILE", &f->out, "result [..., m, n], float32 (of s8: int32)"),
        flag_option("--b-transposed", &f->b_transposed, "B is stored as [..., n, k]"),
        real_option("--alpha", "X", &f->alpha, -1e38, 1e38,
                    "factor of the product (default 1); s8: the result is rounded"),
        noting(real_option("--beta", "X", &f->beta, -1e38, 1e38, "factor of --c"), &f->has_beta),
        text_option("--c", "FILE", &f->c, "added after --beta, shaped as the result"),
        choice_option("--dtype", "TYPE", &f->dtype, dtype_names,
                      "round operands to f32 (default), bf16 or f16 first; s8: they are integers"),
        text_option("--bias", "FILE", &f->bias, "[n], added to each row"),
        choice_option("--activation", "NAME", &f->activation, activation_names,
                      "none, relu, gelu, gelu_tanh or silu, last of all"),
        flag_option("--pointers", &f->pointers, "go through the pointer-array entry"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "gemm",
        .usage = "--a FILE --b FILE --out FILE [options]",
        .description =
            "C = activation(alpha * A @ B + beta * C + bias) on .npy files of 2 to 4 dimensions, C or "
            "Fortran order.",
        .example = "tessera gemm --a a.npy --b b.npy --out c.npy --b-transposed --activation gelu",
        .options = options,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    if (f->has_beta && f->c == NULL)
        return usage_error("gemm", "--beta: needs --c, the matrix that it multiplies");
    if (f->c != NULL && !f->has_beta)
        return usage_error("gemm", "--c: needs --beta, the factor that it is added with");
    if (dtypes[f->dtype] == TSR_S8 && f->bias != NULL)
        return usage_error("gemm", "--bias: does not go with --dtype s8, whose result is integers");
    if (dtypes[f->dtype] == TSR_S8 && f->activation != 0)
        return usage_error("gemm", "--activation: does not go with --dtype s8, whose result is integers");
    return OPTIONS_READ;
}

/* The product as [batch, heads, m, k] x [batch, heads, k, n]; `rank` is what files have. */
typedef struct problem {
    int32_t rank;
    tsr_tensor a, b, c; /* rank TSR_MAX_RANK */
    int64_t m, n, k;
} problem;

/* Extents of 1 in front until all four are there. */
static tsr_tensor widen(const tsr_tensor *t)
{
    tsr_tensor wide = *t;
    wide.rank = TSR_MAX_RANK;
    const int32_t ahead = TSR_MAX_RANK - t->rank;
    for (int32_t i = TSR_MAX_RANK - 1; i >= 0; i--) {
        wide.shape[i] = i < ahead ? 1 : t->shape[i - ahead];
        wide.stride[i] = i < ahead ? 0 : t->stride[i - ahead];
    }
    return wide;
}

/* The last `rank` dimensions. */
static tsr_tensor narrow(const tsr_tensor *wide, int32_t rank)
{
    tsr_tensor t = *wide;
    const int32_t ahead = TSR_MAX_RANK - rank;
    t.rank = rank;
    for (int32_t i = 0; i < rank; i++)
        t.shape[i] = wide->shape[i + ahead], t.stride[i] = wide->stride[i + ahead];
    return t;
}

/* Sets the batch extents of a result; inputs repeat where theirs is 1. */
static tsr_status broadcast_batch(problem *p, int64_t shape[TSR_MAX_RANK])
{
    for (int32_t i = 0; i < 2; i++) {
        const int64_t in_a = p->a.shape[i], in_b = p->b.shape[i];
        if (in_a != in_b && in_a != 1 && in_b != 1)
            return tsr_fail(TSR_ERR_SHAPE, "--a has %lld matrices in a batch dimension where --b has %lld",
                            (long long)in_a, (long long)in_b);
        shape[i] = in_a == 1 ? in_b : in_a;
        if (in_a == 1) p->a.stride[i] = 0;
        if (in_b == 1) p->b.stride[i] = 0;
        p->a.shape[i] = p->b.shape[i] = shape[i];
    }
    return TSR_OK;
}

static tsr_status make_problem(arrays *files, const gemm_flags *f, const tsr_tensor *a, const tsr_tensor *b,
                               problem *p)
{
    if (a->rank < 2 || b->rank < 2)
        return tsr_fail(TSR_ERR_SHAPE, "%s has %d dimensions, must have 2 to 4", a->rank < 2 ? "--a" : "--b",
                        (int)(a->rank < 2 ? a->rank : b->rank));
    p->rank = a->rank > b->rank ? a->rank : b->rank;
    p->a = widen(a), p->b = widen(b);
    if (f->b_transposed) p->b = tsr_tensor_transpose(&p->b, 2, 3);
    p->m = p->a.shape[2], p->k = p->a.shape[3], p->n = p->b.shape[3];
    if (p->b.shape[2] != p->k)
        return tsr_fail(TSR_ERR_SHAPE, "the inner extents disagree: --a is %s, --b %s%s",
                        tsr_shape_of(a).text, tsr_shape_of(b).text, f->b_transposed ? ", transposed" : "");
    int64_t shape[TSR_MAX_RANK] = {0, 0, p->m, p->n};
    TSR_TRY(broadcast_batch(p, shape));
    tsr_tensor c;
    TSR_TRY(arrays_new(files, a->dtype == TSR_S8 ? TSR_I32 : TSR_F32, p->rank, shape + TSR_MAX_RANK - p->rank,
                       &c));
    p->c = widen(&c);
    return TSR_OK;
}

/* The matrix of C that is read, copied to where the result will stand. */
static tsr_status load_c(arrays *files, const gemm_flags *f, const problem *p)
{
    tsr_tensor c0;
    TSR_TRY(arrays_load(files, "--c", f->c, p->c.dtype, &c0));
    const tsr_tensor c = narrow(&p->c, p->rank);
    if (!tsr_tensor_same_shape(&c0, &c))
        return tsr_fail(TSR_ERR_SHAPE, "--c is %s, must be %s as the result", tsr_shape_of(&c0).text,
                        tsr_shape_of(&c).text);
    return tsr_copy(files->ctx, &c0, &c);
}

static tsr_gemm_operand operand(const tsr_tensor *t, int32_t row)
{
    return (tsr_gemm_operand){t->data, t->stride[0], t->stride[1], t->stride[row]};
}

static tsr_status run_strided(tsr_context *ctx, const gemm_flags *f, const problem *p)
{
    const tsr_gemm_strided g = {
        .dtype = p->a.dtype,
        .c_dtype = p->c.dtype,
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .batch = p->c.shape[0],
        .num_heads = p->c.shape[1],
        .a = operand(&p->a, 2),
        .b = operand(&p->b, f->b_transposed ? 3 : 2),
        .c = operand(&p->c, 2),
        .b_transposed = f->b_transposed,
        .alpha = (float)f->alpha,
        .beta = (float)f->beta,
    };
    return tsr_gemm_strided_fwd(ctx, &g, NULL);
}

/* A pointer to each matrix of a batch. */
static void point(const tsr_tensor *t, void **pointers)
{
    for (int64_t i = 0; i < t->shape[0]; i++)
        for (int64_t j = 0; j < t->shape[1]; j++)
            *pointers++ = tsr_tensor_at(t, i * t->stride[0] + j * t->stride[1]);
}

static tsr_status run_pointers(tsr_context *ctx, const gemm_flags *f, const problem *p)
{
    const int64_t count = p->c.shape[0] * p->c.shape[1];
    void **pointers = malloc(3 * (size_t)count * sizeof *pointers + 1);
    if (pointers == NULL)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for %lld pointers", (long long)count);
    point(&p->a, pointers);
    point(&p->b, pointers + count);
    point(&p->c, pointers + 2 * count);
    const tsr_gemm_pointers g = {
        .dtype = p->a.dtype,
        .c_dtype = p->c.dtype,
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .batch = p->c.shape[0],
        .num_heads = p->c.shape[1],
        .a = (const void *const *)pointers,
        .b = (const void *const *)(pointers + count),
        .c = pointers + 2 * count,
        .b_transposed = f->b_transposed,
        .alpha = (float)f->alpha,
        .beta = (float)f->beta,
    };
    const tsr_status status = tsr_gemm_pointers_fwd(ctx, &g, NULL);
    free(pointers);
    return status;
}

static tsr_status multiply(tsr_context *ctx, const gemm_flags *f, const problem *p)
{
    const tsr_tensor a = narrow(&p->a, p->rank), b = narrow(&p->b, p->rank), c = narrow(&p->c, p->rank);
    const float alpha = (float)f->alpha, beta = (float)f->beta;
    if (f->pointers) return run_pointers(ctx, f, p);
    if (p->rank == 2) return tsr_matmul2d(ctx, alpha, &a, &b, beta, &c, NULL);
    if (p->rank == 3) return tsr_bmm(ctx, alpha, &a, &b, beta, &c, NULL);
    return run_strided(ctx, f, p);
}

static tsr_status finish_rows(arrays *files, const gemm_flags *f, const tsr_tensor *c, const tsr_tensor *bias)
{
    if (bias != NULL) {
        tsr_tensor rows = *c; /* the bias, repeated for each row */
        rows.data = bias->data;
        for (int32_t i = 0; i < c->rank; i++) rows.stride[i] = i == c->rank - 1 ? bias->stride[0] : 0;
        TSR_TRY(tsr_add(files->ctx, 1, c, 1, &rows, c));
    }
    return f->activation == 0 ? TSR_OK : tsr_activation_fwd(files->ctx, activations[f->activation], c, c);
}

static tsr_status load_bias(arrays *files, const gemm_flags *f, const problem *p, tsr_tensor *bias)
{
    TSR_TRY(arrays_load(files, "--bias", f->bias, TSR_F32, bias));
    if (bias->rank != 1 || bias->shape[0] != p->n)
        return tsr_fail(TSR_ERR_SHAPE, "--bias is %s, must be [%lld], one element a column",
                        tsr_shape_of(bias).text, (long long)p->n);
    return TSR_OK;
}

static tsr_status run(arrays *files, const gemm_flags *f, const output_file *out, double *seconds)
{
    tsr_tensor a, b, bias;
    TSR_TRY(arrays_load(files, "--a", f->a, dtypes[f->dtype], &a));
    TSR_TRY(arrays_load(files, "--b", f->b, dtypes[f->dtype], &b));
    if (f->pointers || a.rank == 4 || b.rank == 4) { /* these entries read contiguous columns */
        TSR_TRY(arrays_to_rows(files, &a));
        TSR_TRY(arrays_to_rows(files, &b));
    }
    problem p;
    TSR_TRY(make_problem(files, f, &a, &b, &p));
    if (f->c != NULL) TSR_TRY(load_c(files, f, &p));
    if (f->bias != NULL) TSR_TRY(load_bias(files, f, &p, &bias));

    const double start = seconds_now();
    TSR_TRY(multiply(files->ctx, f, &p));
    const tsr_tensor c = narrow(&p.c, p.rank);
    TSR_TRY(finish_rows(files, f, &c, f->bias != NULL ? &bias : NULL));
    TSR_TRY(tsr_synchronise(files->ctx));
    *seconds = seconds_now() - start;
    return arrays_save(files, out, &c);
}

int command_gemm(int argc, char **argv)
{
    gemm_flags f = {.alpha = 1};
    int status = read_flags(argc, argv, &f);
    if (status != OPTIONS_READ) return status;
    const output_file out = {"--out", f.out};
    status = arrays_check_outputs("gemm", &out, 1);
    if (status != OPTIONS_READ) return status;
    arrays files = {.command = "gemm", .int8_needs = "--dtype s8"};
    status = open_context("gemm", &f.common, &files.ctx);
    if (status != OPTIONS_READ) return status;
    double seconds;
    if (run(&files, &f, &out, &seconds) == TSR_OK) {
        arrays_report(&files, &f.common, seconds);
        status = EXIT_DONE;
    } else {
        status = work_failed("gemm");
    }
    arrays_release(&files);
    tsr_context_destroy(files.ctx);
    return status;
}
