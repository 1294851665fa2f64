/*
 * backend/cpu/gemm.c - one product or a batch of them, blocked for the caches and split over threads
 *
 *     for each block of NC columns                     B block: KC x NC, packed, shared by all threads
 *       for each chunk of KC along k                   a chunk sums from zero; chunks add up in order
 *         items: MC rows x a group of panels           A block: MC x KC, in the item's own scratch
 *           for each panel of NR columns               stays in L1 while
 *             for each MR rows                         the micro-kernel runs down the A block
 *
 * KC alone decides the order of a sum, and is the same everywhere; MC, NC and the split may follow the
 * machine and the shape. Where all rows fit one block, no other item would use a packed panel: items are
 * groups of columns, each packs the panel it needs next, and B streams through once. A batch of many products
 * hands out whole products as items, each with a B block of its own.
 * (Goto and van de Geijn, 2008, "Anatomy of high-performance matrix multiplication")
 *
 * A is read in place where it can be: f32, rows contiguous, and not a multiple of 1 KiB apart (such rows
 * fall into the same cache sets). C is written in place if it is f32 with contiguous rows; otherwise a tile
 * is summed beside it and stored converted, in one step if k is one chunk, else at the last one.
 */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/arena.h"
#include "base/error.h"

enum { KC = 512, NC = 2048, NC_OWN = 256, MAX_MR = 16, MAX_NR = 32 };

/* The pointers and strides of one product of the batch. */
typedef struct product {
    const char *a, *b;
    char *c;
    int64_t a_row, a_col, b_row, b_col, c_row, c_col;
} product;

typedef enum work_split {
    BY_ROWS,    /* items: blocks of rows x groups of columns of one product; B packed for all */
    BY_COLUMNS, /* items: groups of columns of one product, whose rows fit one block          */
    BY_PRODUCT, /* items: products                                                            */
} work_split;

typedef struct gemm_plan {
    tsr_gemm_args g; /* exchanged, where C's columns are contiguous instead of its rows */
    const tsr_gemm_kernel *kernel;
    const tsr_gemm_store_kernel *store;
    int64_t n_products;
    work_split split;
    bool one_row_block;
    bool b_in_place; /* so few rows that packing B would cost more than it saves */
    int64_t mc;
    int64_t n_groups; /* of columns: within NC if BY_ROWS, of all n if BY_COLUMNS */

    float *b_block; /* [panels of NC][KC][NR]; per slot if BY_PRODUCT; absent if one_row_block */
    float *c_block; /* [m][NC] sums of several chunks, where C itself cannot hold them */
    float *a_block; /* per slot: [MC][KC + padding], then one panel of B if one_row_block */
    int64_t panel_at, a_block_n, b_block_n; /* floats per slot */
} gemm_plan;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t n_chunks(int64_t k) { return max64(1, ceil_div(k, KC)); }

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

static bool c_in_place(const gemm_plan *p) { return p->g.c.dtype == TSR_F32 && has_unit_cols(&p->g.c); }

/* Rows per A block: about 110, a multiple of MR, and blocks of nearly equal size. */
static int64_t rows_per_block(int64_t m, int64_t mr)
{
    const int64_t most = 112 / mr * mr;
    return ceil_div(ceil_div(m, ceil_div(m, most)), mr) * mr;
}

/* Enough items that the last ones to finish leave the other threads waiting a few percent at most. */
static int64_t groups_of_columns(const gemm_plan *p, int32_t n_threads)
{
    enum { ITEMS_PER_THREAD = 24, LEAST_FLOP = 3000000 };
    if (n_threads == 1) return 1;
    const bool all_k = p->split == BY_COLUMNS;
    const int64_t n = all_k ? p->g.n : min64(p->g.n, NC), k = all_k ? p->g.k : min64(p->g.k, KC);
    const int64_t row_blocks = ceil_div(p->g.m, p->mc), panels = ceil_div(n, p->kernel->nr);
    const int64_t wanted = ceil_div((int64_t)n_threads * ITEMS_PER_THREAD, row_blocks);
    const double flop = 2.0 * (double)min64(p->g.m, p->mc) * (double)k * (double)n;
    const int64_t worth = min64(panels, (int64_t)(flop / LEAST_FLOP));
    return min64(panels, max64(min64(wanted, worth), row_blocks >= n_threads ? 1 : n_threads));
}

static void plan_split(gemm_plan *p, int32_t n_threads)
{
    enum { SMALL_FLOP = 4000000, TINY_FLOP = 300000 };
    const tsr_gemm_args *g = &p->g;
    const double flop = 2.0 * (double)g->m * (double)g->n * (double)g->k;
    const bool c_needs_block = !c_in_place(p) && g->k > KC;
    p->n_products = g->batch * g->num_heads;
    p->mc = rows_per_block(g->m, p->kernel->mr);
    p->one_row_block = g->m <= p->mc;
    p->b_in_place = g->m <= 2 * p->kernel->mr && g->b.dtype == TSR_F32 && has_unit_cols(&g->b);
    const bool many = p->n_products >= 8 * (int64_t)n_threads || (p->n_products > 1 && flop < SMALL_FLOP);
    /* A tiny product is one item as well: not worth waking a thread for. */
    if (!c_needs_block && (flop < TINY_FLOP || (many && n_threads > 1)))
        p->split = BY_PRODUCT;
    else if (p->one_row_block && !c_needs_block)
        p->split = BY_COLUMNS;
    else
        p->split = BY_ROWS;
    p->n_groups = groups_of_columns(p, n_threads);
}

/* Plans the work and lays out the workspace (counts only, if memory is NULL). */
static gemm_plan make_plan(const tsr_cpu *cpu, const tsr_gemm_args *args, tsr_arena *memory)
{
    gemm_plan p = {.g = with_contiguous_rows(args), .kernel = cpu->gemm_f32, .store = cpu->gemm_store};
    if (p.g.m == 0 || p.g.n == 0) return p;
    const int32_t n_threads = tsr_threads_count(cpu->threads);
    plan_split(&p, n_threads);
    const int64_t nr = p.kernel->nr, kc = min64(max64(1, p.g.k), KC);
    const int64_t nc = ceil_div(min64(p.g.n, p.split == BY_PRODUCT ? NC_OWN : NC), nr) * nr;
    p.panel_at = (p.mc + 16) * (kc + 16);
    p.a_block_n = p.panel_at + (p.one_row_block ? kc * nr : 0);
    p.b_block_n = p.one_row_block ? 0 : kc * nc;
    p.a_block = tsr_arena_take(memory, (size_t)p.a_block_n * (size_t)n_threads, sizeof(float));
    p.b_block = tsr_arena_take(memory, (size_t)p.b_block_n * (size_t)(p.split == BY_PRODUCT ? n_threads : 1),
                               sizeof(float));
    if (!c_in_place(&p) && p.g.k > KC)
        p.c_block = tsr_arena_take(memory, (size_t)p.g.m, (size_t)nc * sizeof(float));
    return p;
}

static char *matrix_at(const tsr_gemm_matrix *x, int64_t batch, int64_t head, int64_t num_heads, int64_t *row,
                       int64_t *col)
{
    const int64_t i = batch * num_heads + head;
    *row = x->strides != NULL && !x->strides_are_cols ? x->strides[i] : x->row;
    *col = x->strides != NULL && x->strides_are_cols ? x->strides[i] : x->col;
    if (x->pointers != NULL) return x->pointers[i];
    const int64_t offset = batch * x->batch + head / x->group * x->head;
    return (char *)x->data + offset * (int64_t)tsr_dtype_nbytes(x->dtype);
}

static product product_at(const gemm_plan *p, int64_t i)
{
    const tsr_gemm_args *g = &p->g;
    const int64_t batch = i / g->num_heads, head = i % g->num_heads;
    product x;
    x.a = matrix_at(&g->a, batch, head, g->num_heads, &x.a_row, &x.a_col);
    x.b = matrix_at(&g->b, batch, head, g->num_heads, &x.b_row, &x.b_col);
    x.c = matrix_at(&g->c, batch, head, g->num_heads, &x.c_row, &x.c_col);
    return x;
}

/* A part of one product: rows [i, i + m), columns [j, j + n), the chunk [k0, k0 + k). */
typedef struct part {
    int64_t i, m, j, n, k0, k;
} part;

/* Where the micro-kernel finds A: in place, or copied into the slot's block. */
typedef struct a_view {
    const float *data;
    int64_t row, k;
} a_view;

static a_view view_of_a(const gemm_plan *p, const product *x, const part *t, int32_t slot)
{
    const tsr_dtype dtype = p->g.a.dtype;
    const char *a = x->a + (t->i * x->a_row + t->k0 * x->a_col) * (int64_t)tsr_dtype_nbytes(dtype);
    const bool rows_collide = t->m > 4 && x->a_row * 4 % 1024 == 0;
    if (dtype == TSR_F32 && x->a_col == 1 && !rows_collide) return (a_view){(const float *)a, x->a_row, 1};
    float *block = p->a_block + slot * p->a_block_n;
    if (x->a_row == 1 && x->a_col != 1) { /* columns contiguous: rows of `width`, one for each k */
        const int64_t width = ceil_div(t->m, p->kernel->lanes) * p->kernel->lanes;
        p->kernel->pack(block, width, a, dtype, x->a_col, 1, t->k, t->m);
        return (a_view){block, 1, width};
    }
    const int64_t ld = t->k + 16 - t->k % 16; /* an odd number of half cache lines more often than not */
    p->kernel->pack(block, ld, a, dtype, x->a_row, x->a_col, t->m, t->k);
    return (a_view){block, ld, 1};
}

/* Panels [j, j + n) of the chunk into b, one behind the other. */
static void pack_panels(const gemm_plan *p, const product *x, const part *t, float *b)
{
    const int64_t nr = p->kernel->nr, nbytes = (int64_t)tsr_dtype_nbytes(p->g.b.dtype);
    for (int64_t j = 0; j < t->n; j += nr)
        p->kernel->pack(b + j * t->k, nr, x->b + (t->k0 * x->b_row + (t->j + j) * x->b_col) * nbytes,
                        p->g.b.dtype, x->b_row, x->b_col, t->k, min64(nr, t->n - j));
}

/* One micro-kernel tile of C; the first chunk brings beta, later ones add, the last one converts. */
static void run_tile(const gemm_plan *p, const product *x, tsr_gemm_tile *tile, const part *t, int64_t j0)
{
    const bool first = t->k0 == 0, last = t->k0 + t->k == p->g.k;
    char *c = x->c + (t->i * x->c_row + t->j * x->c_col) * (int64_t)tsr_dtype_nbytes(p->g.c.dtype);
    if (c_in_place(p)) {
        tile->c = (float *)c, tile->c_row = x->c_row, tile->beta = first ? p->g.beta : 1;
        p->kernel->run(tile, t->m, t->n);
        return;
    }
    float sums[MAX_MR * MAX_NR];
    if (p->c_block == NULL) {
        tile->c = sums, tile->c_row = p->kernel->nr;
    } else {
        const int64_t ld = min64(ceil_div(p->g.n, p->kernel->nr) * p->kernel->nr, NC);
        tile->c = p->c_block + t->i * ld + (t->j - j0), tile->c_row = ld;
    }
    tile->beta = first ? 0 : 1;
    p->kernel->run(tile, t->m, t->n);
    if (last)
        p->store->store(&(tsr_gemm_store_args){.sums = tile->c,
                                               .sums_row = tile->c_row,
                                               .scale = 1,
                                               .beta = p->g.beta,
                                               .c = c,
                                               .c_dtype = p->g.c.dtype,
                                               .c_row = x->c_row,
                                               .c_col = x->c_col},
                        t->m, t->n);
}

/* Where the micro-kernel finds the panel of n columns from t->j + j: in place, or packed into the slot's
 * scratch. */
static const float *next_panel(const gemm_plan *p, const product *x, const part *t, int64_t j, int64_t n,
                               int32_t slot, int64_t *b_row)
{
    if (p->b_in_place && n == p->kernel->nr) {
        *b_row = x->b_row;
        return (const float *)x->b + t->k0 * x->b_row + t->j + j;
    }
    float *panel = p->a_block + slot * p->a_block_n + p->panel_at;
    const part columns = {.j = t->j + j, .n = n, .k0 = t->k0, .k = t->k};
    pack_panels(p, x, &columns, panel);
    *b_row = p->kernel->nr;
    return panel;
}

/* The part t; b: its panels, packed one behind the other, or NULL. j0: first column of the NC block. */
static void run_part(const gemm_plan *p, const product *x, const part *t, const float *b, int64_t j0,
                     int32_t slot)
{
    const int64_t mr = p->kernel->mr, nr = p->kernel->nr;
    const a_view a = view_of_a(p, x, t, slot);
    tsr_gemm_tile tile = {.k = t->k, .a_row = a.row, .a_k = a.k, .b_row = nr, .alpha = p->g.alpha};
    for (int64_t j = 0; j < t->n; j += nr) {
        const int64_t n = min64(nr, t->n - j);
        tile.b = b != NULL ? b + j * t->k : next_panel(p, x, t, j, n, slot, &tile.b_row);
        for (int64_t i = 0; i < t->m; i += mr) {
            const part c = {t->i + i, min64(mr, t->m - i), t->j + j, n, t->k0, t->k};
            tile.a = a.data + i * a.row;
            run_tile(p, x, &tile, &c, j0);
        }
    }
}

/* All rows and all of k, for columns [j, j + n): a product of one block of rows. */
static void run_columns(const gemm_plan *p, const product *x, int64_t j, int64_t n, int32_t slot)
{
    for (int64_t chunk = 0; chunk < n_chunks(p->g.k); chunk++) {
        const int64_t k0 = chunk * KC;
        const part t = {0, p->g.m, j, n, k0, min64(KC, p->g.k - k0)};
        run_part(p, x, &t, NULL, j, slot);
    }
}

/* --- items: parts of one product --- */

typedef struct split_job {
    const gemm_plan *plan;
    product x;
    part block; /* all rows; BY_ROWS: NC columns, KC deep */
} split_job;

/* Group g of the panels that cover n columns: its first column, and how many. */
static int64_t group_of(const gemm_plan *p, int64_t n, int64_t g, int64_t *n_columns)
{
    const int64_t nr = p->kernel->nr, panels = ceil_div(n, nr);
    const int64_t first = panels * g / p->n_groups * nr, end = panels * (g + 1) / p->n_groups * nr;
    *n_columns = min64(end, n) - first;
    return first;
}

static void columns_item(void *arg, int64_t item, int32_t slot)
{
    const split_job *job = arg;
    int64_t n;
    const int64_t j = group_of(job->plan, job->plan->g.n, item, &n);
    if (n > 0) run_columns(job->plan, &job->x, j, n, slot);
}

static void pack_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const split_job *job = arg;
    const int64_t nr = job->plan->kernel->nr;
    part t = job->block;
    t.j += item * nr, t.n = min64(nr, job->block.n - item * nr);
    pack_panels(job->plan, &job->x, &t, job->plan->b_block + item * nr * t.k);
}

static void rows_item(void *arg, int64_t item, int32_t slot)
{
    const split_job *job = arg;
    const gemm_plan *p = job->plan;
    part t = job->block;
    t.i = item / p->n_groups * p->mc, t.m = min64(p->mc, p->g.m - t.i);
    const int64_t first = group_of(p, job->block.n, item % p->n_groups, &t.n);
    t.j += first;
    if (t.n > 0)
        run_part(p, &job->x, &t, p->one_row_block ? NULL : p->b_block + first * t.k, job->block.j, slot);
}

static void run_by_rows(const tsr_cpu *cpu, const gemm_plan *p, const product *x)
{
    const tsr_gemm_args *g = &p->g;
    for (int64_t j = 0; j < g->n; j += NC) {
        for (int64_t chunk = 0; chunk < n_chunks(g->k); chunk++) {
            const int64_t k0 = chunk * KC;
            split_job job = {p, *x, {0, g->m, j, min64(NC, g->n - j), k0, min64(KC, g->k - k0)}};
            if (!p->one_row_block)
                tsr_threads_run(cpu->threads, ceil_div(job.block.n, p->kernel->nr), pack_item, &job);
            tsr_threads_run(cpu->threads, ceil_div(g->m, p->mc) * p->n_groups, rows_item, &job);
        }
    }
}

/* --- items: whole products --- */

static void product_item(void *arg, int64_t item, int32_t slot)
{
    const gemm_plan *p = arg;
    const tsr_gemm_args *g = &p->g;
    const product x = product_at(p, item);
    if (p->one_row_block) {
        run_columns(p, &x, 0, g->n, slot);
        return;
    }
    float *b = p->b_block + slot * p->b_block_n;
    for (int64_t j = 0; j < g->n; j += NC_OWN) {
        for (int64_t chunk = 0; chunk < n_chunks(g->k); chunk++) {
            const int64_t k0 = chunk * KC;
            part t = {0, 0, j, min64(NC_OWN, g->n - j), k0, min64(KC, g->k - k0)};
            pack_panels(p, &x, &t, b);
            for (t.i = 0; t.i < g->m; t.i += p->mc) {
                t.m = min64(p->mc, g->m - t.i);
                run_part(p, &x, &t, b, j, slot);
            }
        }
    }
}

static bool is_float(tsr_dtype dtype) { return dtype == TSR_F32 || dtype == TSR_BF16 || dtype == TSR_F16; }

size_t cpu_gemm_workspace(const void *state, const tsr_gemm_args *args)
{
    tsr_arena count = {0};
    make_plan(state, args, &count);
    return count.used;
}

tsr_status cpu_gemm(void *state, const tsr_gemm_args *args, void *workspace)
{
    const tsr_cpu *cpu = state;
    if (!is_float(args->a.dtype) || !is_float(args->b.dtype) || !is_float(args->c.dtype))
        return tsr_fail(TSR_ERR_DTYPE, "gemm: the cpu backend multiplies f32, bf16 and f16, not %s to %s",
                        tsr_dtype_name(args->a.dtype), tsr_dtype_name(args->c.dtype));
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    const gemm_plan p = make_plan(cpu, args, &memory);
    if (p.g.m == 0 || p.g.n == 0) return TSR_OK;
    if (p.split == BY_PRODUCT) tsr_threads_run(cpu->threads, p.n_products, product_item, (void *)&p);
    for (int64_t i = 0; p.split != BY_PRODUCT && i < p.n_products; i++) {
        const product x = product_at(&p, i);
        split_job job = {.plan = &p, .x = x};
        if (p.split == BY_COLUMNS)
            tsr_threads_run(cpu->threads, p.n_groups, columns_item, &job);
        else
            run_by_rows(cpu, &p, &x);
    }
    return TSR_OK;
}
