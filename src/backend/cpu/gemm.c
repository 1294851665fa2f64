/*
 * backend/cpu/gemm.c - one product or a batch of them: what each multiplies in, and where its operands are
 *
 * f32, bf16 and f16 multiply in f32, bf16 in its own instructions where the machine has them, s8 into s32.
 * The loops are in gemm_block.c, the threads in gemm_split.c.
 * (Goto and van de Geijn, 2008, "Anatomy of high-performance matrix multiplication")
 */
#include "backend/cpu/gemm_split.h"

static tsr_gemm_matrix transposed(tsr_gemm_matrix x)
{
    const int64_t row = x.row;
    x.row = x.col, x.col = row;
    x.strides_are_cols = !x.strides_are_cols;
    return x;
}

/* True if the stride is 1 in every product: a batch by pointers may have one of its own for each. */
static bool has_unit_rows(const tsr_gemm_matrix *x)
{
    return x->row == 1 && (x->strides == NULL || x->strides_are_cols);
}
static bool has_unit_cols(const tsr_gemm_matrix *x)
{
    return x->col == 1 && (x->strides == NULL || !x->strides_are_cols);
}

/* C^T = B^T A^T: so that C's rows are contiguous whenever either of its dimensions is. */
static tsr_gemm_args with_contiguous_rows(const tsr_gemm_args *args)
{
    tsr_gemm_args g = *args;
    if (has_unit_rows(&g.c) && (!has_unit_cols(&g.c) || (g.n == 1 && g.m > 1))) {
        g.m = args->n, g.n = args->m;
        g.a = transposed(args->b), g.b = transposed(args->a), g.c = transposed(args->c);
    }
    return g;
}

/* True if matrix i + 1 of the batch continues the rows of matrix i, or there is only one. */
static bool rows_go_on(const tsr_gemm_matrix *x, int64_t stride, int64_t m)
{
    int64_t rows;
    return x->pointers == NULL && x->strides == NULL && !__builtin_mul_overflow(m, x->row, &rows) &&
           stride == rows;
}

/* Products that share B and lie row after row are one product with more rows. */
static tsr_gemm_args with_batch_as_rows(const tsr_gemm_args *args)
{
    tsr_gemm_args g = *args;
    const bool strided = g.b.pointers == NULL && g.b.strides == NULL;
    if (strided && g.num_heads > 1 && (g.b.head == 0 || g.b.group >= g.num_heads) && g.a.group == 1 &&
        rows_go_on(&g.a, g.a.head, g.m) && rows_go_on(&g.c, g.c.head, g.m))
        g.m *= g.num_heads, g.num_heads = 1;
    if (strided && g.batch > 1 && g.num_heads == 1 && g.b.batch == 0 && rows_go_on(&g.a, g.a.batch, g.m) &&
        rows_go_on(&g.c, g.c.batch, g.m))
        g.m *= g.batch, g.batch = 1;
    return g;
}

/* Strides that are never taken, of extents of 1 or of nothing at all, may be any number: they get small ones.
 */
static tsr_gemm_matrix with_taken_strides(tsr_gemm_matrix x, int64_t rows, int64_t cols)
{
    const bool is_empty = rows == 0 || cols == 0, no_row = rows <= 1 || is_empty,
               no_col = cols <= 1 || is_empty;
    if (x.strides != NULL && (x.strides_are_cols ? no_col : no_row)) x.strides = NULL;
    if (no_row) x.row = 0;
    if (no_col) x.col = 1;
    return x;
}

static gemm_operand matrix_at(const tsr_gemm_matrix *x, int64_t batch, int64_t head, int64_t num_heads)
{
    const int64_t i = batch * num_heads + head;
    gemm_operand o = {x->data, x->dtype, x->row, x->col};
    if (x->strides != NULL) *(x->strides_are_cols ? &o.col : &o.row) = x->strides[i];
    if (x->pointers != NULL)
        o.data = x->pointers[i];
    else if (x->data != NULL)
        o.data += (batch * x->batch + head / x->group * x->head) * gemm_nbytes_of(x->dtype);
    return o;
}

static void describe(const void *batch, int64_t i, gemm_product *p)
{
    const tsr_gemm_args *g = batch;
    const int64_t b = i / g->num_heads, h = i % g->num_heads;
    p->a = matrix_at(&g->a, b, h, g->num_heads);
    p->b = matrix_at(&g->b, b, h, g->num_heads);
    const gemm_operand c = matrix_at(&g->c, b, h, g->num_heads);
    p->store.c = (void *)c.data, p->store.c_row = c.row, p->store.c_col = c.col;
}

/* B's rows as panels where they lie: f32, contiguous, and few enough lines that they stay in the first cache;
 * or so few rows of A that packing would cost more than it saves. */
static bool b_in_place(const tsr_gemm_args *g, const tsr_gemm_kernel *kernel)
{
    enum { FIRST_CACHE_NBYTES = 32 << 10 };
    if (g->b.dtype != TSR_F32 || !has_unit_cols(&g->b)) return false;
    if (g->m <= 2 * kernel->mr) return true;
    return g->b.strides == NULL && g->b.row * 4 % 4096 != 0 &&
           g->k * kernel->nr * 4 <= FIRST_CACHE_NBYTES / 2;
}

static gemm_product product_of(const tsr_cpu *cpu, const tsr_gemm_args *g)
{
    gemm_product p = {.m = g->m,
                      .n = g->n,
                      .c_columns = g->n,
                      .k = g->k,
                      .alpha = g->alpha,
                      .beta = g->beta,
                      .store_kernel = cpu->gemm_store,
                      .store = {.scale = 1, .beta = g->beta, .c_dtype = g->c.dtype}};
    const bool both_bf16 = g->a.dtype == TSR_BF16 && g->b.dtype == TSR_BF16;
    if (g->a.dtype == TSR_S8)
        p.type = GEMM_S8;
    else
        p.type = both_bf16 && cpu->gemm_bf16 != NULL ? GEMM_BF16 : GEMM_F32;
    if (p.type == GEMM_S8) {
        p.kernel = cpu->gemm_s8;
        p.c_in_place = has_unit_cols(&g->c) && g->alpha == 1 && (g->beta == 0 || g->beta == 1);
        p.store.sums_are_s32 = true, p.store.scale = g->alpha, p.alpha = 1;
    } else {
        p.kernel = p.type == GEMM_BF16 ? cpu->gemm_bf16 : cpu->gemm_f32;
        p.c_in_place = g->c.dtype == TSR_F32 && has_unit_cols(&g->c);
        p.b_in_place = p.type == GEMM_F32 && b_in_place(g, p.kernel);
    }
    describe(g, 0, &p); /* the first product's strides are what the split is planned for */
    return p;
}

typedef struct gemm_plan {
    tsr_gemm_args g;
    gemm_product p;
    gemm_split split;
} gemm_plan;

static gemm_plan make_plan(const tsr_cpu *cpu, const tsr_gemm_args *args, tsr_arena *memory)
{
    const tsr_gemm_args folded = with_batch_as_rows(args);
    gemm_plan plan = {.g = with_contiguous_rows(&folded)};
    plan.g.a = with_taken_strides(plan.g.a, plan.g.m, plan.g.k);
    plan.g.b = with_taken_strides(plan.g.b, plan.g.k, plan.g.n);
    plan.g.c = with_taken_strides(plan.g.c, plan.g.m, plan.g.n);
    const int64_t n_products = plan.g.batch * plan.g.num_heads;
    if (plan.g.m == 0 || plan.g.n == 0 || n_products == 0) return plan;
    plan.p = product_of(cpu, &plan.g);
    if (plan.g.a.strides != NULL && plan.g.a.strides_are_cols)
        plan.p.a.col = 0; /* columns may be apart in some products: A is packed */
    if (plan.g.b.strides != NULL && !plan.g.b.strides_are_cols) plan.p.b.row = 0; /* likewise B's rows */
    plan.split = gemm_plan_split(cpu, &plan.p, n_products, memory);
    return plan;
}

size_t cpu_gemm_workspace(const void *state, const tsr_gemm_args *args)
{
    tsr_gemm_args any = *args;
    any.beta = 1; /* enough for every alpha and beta: who asks has neither yet */
    if (any.a.dtype == TSR_S8) any.alpha = 2;
    tsr_arena count = {0};
    make_plan(state, &any, &count);
    return count.used;
}

tsr_status cpu_gemm(void *state, const tsr_gemm_args *args, void *workspace)
{
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    const gemm_plan plan = make_plan(state, args, &memory);
    if (plan.p.kernel != NULL) gemm_run_split(&plan.split, &plan.p, describe, &plan.g);
    return TSR_OK;
}
