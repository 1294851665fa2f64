/*
 * op/gemm_pointers.c - a batch of products described by a pointer for each operand of each product
 *
 * No two matrices that are written may overlap, nor one that is written and one that is read. The addresses
 * that the written ones span are sorted, with the highest end so far beside each:
 *
 *     low       0    10   40         a matrix [l, h) can meet only those before the first low >= h,
 *     high      8    60   50         and none at or before the last place whose highest end is <= l
 *     highest   8    60   60
 *
 * Spans that meet may still hold no common element (heads side by side in each row): those pairs are compared
 * as views.
 */
#include "op/gemm.h"
#include "tessera/gemm.h"

/* One operand of all products: pointers, and the stride of a row where it is not the same for all. */
typedef struct matrices {
    const char *name;
    void *const *pointers;
    const int64_t *row_strides;
    int64_t rows, columns;
    tsr_dtype dtype;
} matrices;

typedef struct span {
    uintptr_t low, high, highest;
    const matrices *of;
    int64_t index;
} span;

static matrices operand(const char *name, const void *const *pointers, const int64_t *row_strides,
                        int64_t rows, int64_t columns, tsr_dtype dtype)
{
    return (matrices){name, (void *const *)pointers, row_strides, rows, columns, dtype};
}

static int64_t row_stride_of(const matrices *x, int64_t i)
{
    return x->row_strides != NULL ? x->row_strides[i] : x->columns;
}

static tsr_tensor matrix_at(const matrices *x, int64_t i)
{
    return (tsr_tensor){.data = x->pointers[i],
                        .dtype = x->dtype,
                        .rank = 2,
                        .shape = {x->rows, x->columns},
                        .stride = {row_stride_of(x, i), 1}};
}

/* Each pointer there, each size within bounds, and no row of an output upon another. */
static tsr_status check_matrices(const matrices *x, int64_t count, bool is_output)
{
    if (count == 0) return TSR_OK;
    TSR_TRY(tsr_check_not_null(x->pointers, x->name));
    for (int64_t i = 0; i < count; i++) {
        const tsr_tensor t = matrix_at(x, i);
        if (t.data == NULL && x->rows > 0 && x->columns > 0)
            return tsr_fail(TSR_ERR_ARGUMENT, "%s[%lld] is NULL", x->name, (long long)i);
        const tsr_status status = tsr_tensor_validate(&t, x->name);
        if (status != TSR_OK) return tsr_fail_within(status, "product %lld", (long long)i);
        if (is_output && tsr_tensor_self_overlap(&t))
            return tsr_fail(TSR_ERR_OVERLAP, "%s[%lld] has rows %lld apart, must be at least %lld", x->name,
                            (long long)i, (long long)row_stride_of(x, i), (long long)x->columns);
    }
    return TSR_OK;
}

static span span_of(const matrices *x, int64_t i)
{
    const tsr_tensor t = matrix_at(x, i);
    span s = {.of = x, .index = i};
    tsr_tensor_extent(&t, &s.low, &s.high);
    return s;
}

static void sift_down(span *heap, int64_t i, int64_t n)
{
    const span x = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1].low > heap[child].low) child++;
        if (heap[child].low <= x.low) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

/* A heap sort: qsort may allocate, which an operator must not. */
static void sort_by_low(span *spans, int64_t n)
{
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift_down(spans, i, n);
    for (int64_t end = n - 1; end > 0; end--) {
        const span largest = spans[0];
        spans[0] = spans[end];
        spans[end] = largest;
        sift_down(spans, 0, end);
    }
}

static tsr_status check_pair(const span *written, const span *other)
{
    const tsr_tensor a = matrix_at(written->of, written->index), b = matrix_at(other->of, other->index);
    if (!tsr_tensor_overlap(&a, &b)) return TSR_OK;
    if (written->of == other->of && written->index < other->index) {
        const span *later = other; /* the message counts upwards */
        other = written, written = later;
    }
    return tsr_fail(TSR_ERR_OVERLAP, "%s[%lld] and %s[%lld] %s, must be apart", other->of->name,
                    (long long)other->index, written->of->name, (long long)written->index,
                    a.data == b.data ? "are equal" : "overlap");
}

/* The number of sorted spans that begin below `address`. */
static int64_t n_below(const span *sorted, int64_t n, uintptr_t address)
{
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (sorted[middle].low < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* `x` against the written spans among the first `n`. */
static tsr_status check_against(const span *sorted, int64_t n, const span *x)
{
    for (int64_t i = n - 1; i >= 0 && sorted[i].highest > x->low; i--)
        if (sorted[i].high > x->low && sorted[i].low < x->high) TSR_TRY(check_pair(&sorted[i], x));
    return TSR_OK;
}

/* On an entered context: it lends the memory to sort in. */
static tsr_status check_apart(tsr_context *ctx, int64_t count, const matrices *outputs, int32_t n_outputs,
                              const matrices *inputs, int32_t n_inputs)
{
    int64_t n, nbytes;
    if (count == 0) return TSR_OK;
    if (tsr_mul_overflows(count, n_outputs, &n) || tsr_mul_overflows(n, (int64_t)sizeof(span), &nbytes))
        return tsr_fail(TSR_ERR_OVERFLOW, "batch * num_heads is %lld, which is too many", (long long)count);
    void *scratch;
    TSR_TRY(tsr_take_host_scratch(ctx, (size_t)nbytes, &scratch));
    span *sorted = scratch;
    for (int64_t i = 0; i < n; i++) sorted[i] = span_of(&outputs[i / count], i % count);
    sort_by_low(sorted, n);
    uintptr_t highest = 0;
    for (int64_t i = 0; i < n; i++) {
        TSR_TRY(check_against(sorted, i, &sorted[i]));
        if (sorted[i].high > highest) highest = sorted[i].high;
        sorted[i].highest = highest;
    }
    for (int32_t k = 0; k < n_inputs; k++)
        for (int64_t i = 0; i < count; i++) {
            const span x = span_of(&inputs[k], i);
            TSR_TRY(check_against(sorted, n_below(sorted, n, x.high), &x));
        }
    return TSR_OK;
}

static tsr_status check_counts(const tsr_context *ctx, const tsr_gemm_pointers *g, int64_t *count)
{
    TSR_TRY(tsr_check_context(ctx));
    TSR_TRY(tsr_check_not_null(g, "g"));
    TSR_TRY(tsr_check_count(g->m, "m", 0));
    TSR_TRY(tsr_check_count(g->n, "n", 0));
    TSR_TRY(tsr_check_count(g->k, "k", 0));
    TSR_TRY(tsr_check_count(g->batch, "batch", 0));
    TSR_TRY(tsr_check_count(g->num_heads, "num_heads", 0));
    if (tsr_mul_overflows(g->batch, g->num_heads, count))
        return tsr_fail(TSR_ERR_OVERFLOW, "batch * num_heads is %lld * %lld, which does not fit",
                        (long long)g->batch, (long long)g->num_heads);
    return tsr_gemm_check_dtypes(ctx, g->dtype, "dtype", g->c_dtype, "c_dtype");
}

static tsr_gemm_matrix matrix_of(const matrices *x)
{
    return (tsr_gemm_matrix){.pointers = x->pointers,
                             .strides = x->row_strides,
                             .row = x->columns,
                             .col = 1,
                             .group = 1,
                             .dtype = x->dtype};
}

/* A, B and C as they lie in memory. */
typedef struct products {
    int64_t count;
    matrices a, b, c;
    tsr_gemm_args args;
} products;

static tsr_status products_of(const tsr_context *ctx, const tsr_gemm_pointers *g, const char *c_name,
                              products *out)
{
    TSR_TRY(check_counts(ctx, g, &out->count));
    const int64_t b_rows = g->b_transposed ? g->n : g->k, b_columns = g->b_transposed ? g->k : g->n;
    out->a = operand("a", g->a, g->a_row_stride, g->m, g->k, g->dtype);
    out->b = operand("b", g->b, g->b_row_stride, b_rows, b_columns, g->dtype);
    out->c = operand(c_name, (const void *const *)g->c, g->c_row_stride, g->m, g->n, g->c_dtype);
    const tsr_gemm_matrix b = matrix_of(&out->b);
    out->args = (tsr_gemm_args){.m = g->m,
                                .n = g->n,
                                .k = g->k,
                                .batch = g->batch,
                                .num_heads = g->num_heads,
                                .a = matrix_of(&out->a),
                                .b = g->b_transposed ? tsr_gemm_transposed(b) : b,
                                .c = matrix_of(&out->c),
                                .alpha = g->alpha,
                                .beta = g->beta};
    return TSR_OK;
}

static tsr_status pointers_entered(tsr_context *ctx, const products *p, const tsr_workspace *ws)
{
    const matrices inputs[] = {p->a, p->b};
    TSR_TRY(check_apart(ctx, p->count, &p->c, 1, inputs, 2));
    return tsr_run_gemm(ctx, &p->args, ws);
}

static tsr_status pointers_fwd(tsr_context *ctx, const tsr_gemm_pointers *g, const tsr_workspace *ws)
{
    products p;
    TSR_TRY(products_of(ctx, g, "c", &p));
    TSR_TRY(check_matrices(&p.a, p.count, false));
    TSR_TRY(check_matrices(&p.b, p.count, false));
    TSR_TRY(check_matrices(&p.c, p.count, true));
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, pointers_entered(ctx, &p, ws));
}

tsr_status tsr_gemm_pointers_fwd(tsr_context *ctx, const tsr_gemm_pointers *g, const tsr_workspace *ws)
{
    return tsr_within("gemm_pointers_fwd", pointers_fwd(ctx, g, ws));
}

static tsr_status pointers_workspace(tsr_context *ctx, const tsr_gemm_pointers *g, size_t *out)
{
    products p;
    TSR_TRY(products_of(ctx, g, "c", &p));
    return tsr_query_gemm(ctx, &p.args, out);
}

tsr_status tsr_gemm_pointers_workspace(tsr_context *ctx, const tsr_gemm_pointers *g, size_t *out)
{
    return tsr_within("gemm_pointers_workspace", pointers_workspace(ctx, g, out));
}

/* The products of a backward: dA = dC B^T and dB = A^T dC, operands exchanged by their strides alone. */
static tsr_status plan_backward(const tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                                void *const *da, void *const *db, products *p, tsr_gemm_backward *out)
{
    TSR_TRY(products_of(ctx, g, "dc", p));
    TSR_TRY(tsr_check_dtype(ctx, g->dtype, "dtype", TSR_IN_FLOATS));
    TSR_TRY(tsr_check_dtype(ctx, g->c_dtype, "c_dtype", 1u << g->dtype));
    TSR_TRY(tsr_gemm_check_grad_dtype(g->dtype, grad_dtype, "grad_dtype"));
    const tsr_gemm_args *fwd = &p->args;
    *out = (tsr_gemm_backward){.da = *fwd, .db = *fwd, .wants_da = da != NULL, .wants_db = db != NULL};
    out->group = 1;
    out->da.n = g->k, out->da.k = g->n;
    out->da.a = fwd->c;
    out->da.b = tsr_gemm_transposed(fwd->b);
    out->da.c = fwd->a;
    out->da.c.pointers = da, out->da.c.dtype = grad_dtype;
    out->da.c.strides = NULL;
    out->db.m = g->k, out->db.k = g->m;
    out->db.a = tsr_gemm_transposed(fwd->a);
    out->db.b = fwd->c;
    out->db.c = fwd->b;
    out->db.c.pointers = db, out->db.c.dtype = grad_dtype;
    out->db.c.strides = NULL;
    return TSR_OK;
}

static tsr_status pointers_bwd_entered(tsr_context *ctx, const products *p, const matrices *grads,
                                       int32_t n_grads, const tsr_gemm_backward *bwd, const tsr_workspace *ws)
{
    const matrices inputs[] = {p->a, p->b, p->c};
    TSR_TRY(check_apart(ctx, p->count, grads, n_grads, inputs, 3));
    return tsr_gemm_run_backward(ctx, bwd, ws);
}

static tsr_status pointers_bwd(tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                               void *const *da, void *const *db, const tsr_workspace *ws)
{
    products p;
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, g, grad_dtype, da, db, &p, &bwd));
    TSR_TRY(check_matrices(&p.a, p.count, false));
    TSR_TRY(check_matrices(&p.b, p.count, false));
    TSR_TRY(check_matrices(&p.c, p.count, false));
    matrices grads[2];
    int32_t n_grads = 0;
    if (da != NULL) grads[n_grads++] = (matrices){"da", da, NULL, p.a.rows, p.a.columns, grad_dtype};
    if (db != NULL) grads[n_grads++] = (matrices){"db", db, NULL, p.b.rows, p.b.columns, grad_dtype};
    for (int32_t i = 0; i < n_grads; i++) TSR_TRY(check_matrices(&grads[i], p.count, true));
    TSR_TRY(tsr_enter(ctx));
    return tsr_leave(ctx, pointers_bwd_entered(ctx, &p, grads, n_grads, &bwd, ws));
}

tsr_status tsr_gemm_pointers_bwd(tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                                 void *const *da, void *const *db, const tsr_workspace *ws)
{
    return tsr_within("gemm_pointers_bwd", pointers_bwd(ctx, g, grad_dtype, da, db, ws));
}

static tsr_status pointers_bwd_workspace(tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                                         void *const *da, void *const *db, size_t *out)
{
    products p;
    tsr_gemm_backward bwd;
    TSR_TRY(plan_backward(ctx, g, grad_dtype, da, db, &p, &bwd));
    return tsr_gemm_query_backward(ctx, &bwd, out);
}

tsr_status tsr_gemm_pointers_bwd_workspace(tsr_context *ctx, const tsr_gemm_pointers *g, tsr_dtype grad_dtype,
                                           void *const *da, void *const *db, size_t *out)
{
    return tsr_within("gemm_pointers_bwd_workspace", pointers_bwd_workspace(ctx, g, grad_dtype, da, db, out));
}
