/* backend/cpu/gemm_split.c - how a batch of products is cut into items, and the items' runs */
#include "backend/cpu/gemm_split.h"

enum {
    ITEMS_PER_THREAD = 8,   /* so that the last ones to finish leave the others waiting little */
    LEAST_FLOP = 1 << 19,   /* of an item: claiming it costs a hundredth */
    TINY_FLOP = 300000,     /* of a product: not worth waking a thread for */
    SMALL_FLOP = 200 << 20, /* of a product in a batch: not worth two runs */
    MOST_ITEMS = 1 << 30,
    OWN_A_ELEMENTS = 1 << 19 /* that an item packs for itself */
};

static double flop_of(const gemm_product *p, double m, double n) { return 2.0 * m * n * (double)p->k; }

static int64_t panels_of(const gemm_product *p) { return gemm_ceil_div(p->n, p->kernel->nr); }

/* Blocks of a product: large, enough for the threads, none so small that claiming it would show. */
static void plan_blocks(gemm_split *s, const gemm_product *p, int64_t wanted)
{
    const int64_t nr = p->kernel->nr, panels = panels_of(p);
    const bool few_rows = gemm_ceil_div(p->m, p->kernel->mr) <= GEMM_FEW_TILES;
    const bool keeps_sums = !p->c_in_place && gemm_n_chunks(p) > 1;
    const int64_t least = gemm_ceil_div(p->m, keeps_sums ? p->kernel->block_rows : GEMM_MOST_ROWS);
    int64_t rows = least;
    int64_t columns = few_rows ? panels : gemm_ceil_div(panels, gemm_max(1, p->kernel->block_columns / nr));
    const double items = flop_of(p, (double)p->m, (double)p->n) / LEAST_FLOP;
    const int64_t worth = items < 1 ? 1 : items < MOST_ITEMS ? (int64_t)items : MOST_ITEMS;
    if (rows * columns < wanted)
        rows = gemm_max(rows,
                        gemm_min(gemm_ceil_div(p->m, p->kernel->block_rows), gemm_ceil_div(wanted, columns)));
    if (rows * columns < wanted) columns = gemm_min(panels, gemm_ceil_div(wanted, rows));
    if (rows * columns < wanted)
        rows = gemm_min(gemm_ceil_div(p->m, p->kernel->mr), gemm_ceil_div(wanted, columns));
    if (rows * columns >
        worth) { /* the rows of a block are worth more than its columns: B is packed for them */
        rows = gemm_max(least, gemm_min(rows, worth / columns));
        columns = gemm_max(1, gemm_min(columns, worth / rows));
    }
    s->n_row_blocks = rows, s->n_column_blocks = columns;
}

static void plan_a(gemm_split *s, const gemm_product *p, int32_t n_threads)
{
    const double flop = flop_of(p, (double)p->m, (double)p->n);
    const int64_t own_rows = gemm_ceil_div(p->m, gemm_ceil_div(p->m, p->kernel->block_rows));
    if (gemm_a_in_place(p))
        s->a_mode = GEMM_A_IN_PLACE;
    else if (s->n_products > 1 && own_rows * p->k <= OWN_A_ELEMENTS &&
             (flop < TINY_FLOP || (s->n_products >= 2 * n_threads && flop < SMALL_FLOP)))
        s->a_mode = GEMM_A_PACKED_BY_ITEM;
    else
        s->a_mode = GEMM_A_PACKED_ONCE;
}

/*
 * Where several blocks of rows would each pack B, which takes as long as tiles multiply many rows, it may be
 * packed once for all, as a weight is: in products that are worth a run for it.
 */
static bool may_pack_b(const gemm_split *s, const gemm_product *p, int32_t n_threads)
{
    const double flop = flop_of(p, (double)p->m, (double)p->n);
    return p->kernel->keeps_sums && p->m > p->kernel->block_rows && p->b_packed == NULL &&
           s->a_mode != GEMM_A_PACKED_BY_ITEM && (s->n_products < 2 * n_threads || flop >= SMALL_FLOP);
}

/* C leaves the micro-kernel for the last chunk's store, and with it alpha and beta: whatever C's layout, an
 * element comes about in one way. */
static void keep_sums(gemm_product *p)
{
    p->c_in_place = false;
    p->store.scale *= p->alpha, p->alpha = 1;
}

static void take_memory(gemm_split *s, gemm_product *p, int32_t n_threads, tsr_arena *memory)
{
    if (p->packs_b) {
        const bool fits = p->k < INT64_MAX / (8 * p->kernel->nr);
        p->b_panel_nbytes = fits ? gemm_panel_nbytes(p, p->k) : 0;
        s->b_panels = tsr_arena_take(memory, (size_t)panels_of(p),
                                     fits ? (size_t)p->b_panel_nbytes : SIZE_MAX);
        p->b_packed = s->b_panels;
    }
    s->scratch = tsr_arena_take(memory, (size_t)n_threads, sizeof *s->scratch);
    if (s->a_mode == GEMM_A_PACKED_ONCE) gemm_take_a(p, memory);
    if (s->a_mode == GEMM_A_PACKED_BY_ITEM)
        s->of_slot = tsr_arena_take(memory, (size_t)n_threads, sizeof *s->of_slot);
    for (int32_t i = 0; i < n_threads; i++) {
        const gemm_scratch scratch = gemm_take_scratch(p, s->rows, memory);
        if (s->scratch != NULL) s->scratch[i] = scratch;
        if (s->a_mode != GEMM_A_PACKED_BY_ITEM) continue;
        gemm_product own = *p;
        own.m = s->rows;
        gemm_take_a(&own, memory);
        if (s->of_slot != NULL) s->of_slot[i] = own;
    }
}

gemm_split gemm_plan_split(const tsr_cpu *cpu, gemm_product *p, int64_t n_products, tsr_arena *memory)
{
    const int32_t n_threads = tsr_threads_count(cpu->threads);
    const double flop = flop_of(p, (double)p->m, (double)p->n);
    gemm_split s = {.cpu = cpu, .n_products = n_products, .products_per_item = 1};
    if (p->kernel->keeps_sums && (gemm_n_chunks(p) > 1 || p->beta != 0)) keep_sums(p);
    p->b_columns_in_place = gemm_b_columns_in_place(p);
    plan_a(&s, p, n_threads);
    const bool may_pack = may_pack_b(&s, p, n_threads);
    const bool alone = n_products == 1 || may_pack || s.a_mode == GEMM_A_PACKED_ONCE; /* in its run */
    const int64_t wanted = n_threads == 1 || flop * (alone ? 1 : (double)n_products) < TINY_FLOP
                               ? 1
                               : gemm_ceil_div((int64_t)n_threads * ITEMS_PER_THREAD, alone ? 1 : n_products);
    plan_blocks(&s, p, wanted);
    if (s.a_mode == GEMM_A_PACKED_BY_ITEM) /* an item has all columns */
        s.n_row_blocks = gemm_ceil_div(p->m, p->kernel->block_rows), s.n_column_blocks = 1;
    s.rows = gemm_ceil_div(p->m, s.n_row_blocks);
    p->packs_b = may_pack && s.n_row_blocks > 1;
    p->group_chunks = gemm_group_chunks(p, s.rows, cpu->l2_nbytes);
    if (s.n_row_blocks * s.n_column_blocks == 1 && flop < LEAST_FLOP)
        s.products_per_item = gemm_min((int64_t)(LEAST_FLOP / (flop + 1)) + 1,
                                       gemm_ceil_div(n_products, 2 * n_threads));
    take_memory(&s, p, n_threads, memory);
    return s;
}

/* --- items --- */

typedef struct split_job {
    const gemm_split *split;
    const gemm_product *p; /* the template; A_PACKED_ONCE: the product itself */
    gemm_describe describe;
    const void *batch;
} split_job;

/* Part i of n, in whole units. */
static int64_t part_of(int64_t units, int64_t i, int64_t n, int64_t *first)
{
    *first = units * i / n;
    return units * (i + 1) / n - *first;
}

/* Block `index` of the product's, row by row of blocks. */
typedef struct block_place {
    int64_t i, m, j, n;
} block_place;

static block_place place_of(const gemm_split *s, const gemm_product *p, int64_t index)
{
    const int64_t nr = p->kernel->nr;
    block_place at;
    at.m = part_of(p->m, index / s->n_column_blocks, s->n_row_blocks, &at.i);
    const int64_t panels = part_of(panels_of(p), index % s->n_column_blocks, s->n_column_blocks, &at.j);
    at.j *= nr;
    at.n = gemm_min(panels * nr, p->n - at.j);
    return at;
}

static gemm_next next_at(const gemm_split *s, const gemm_product *p, int64_t index, bool new_rows)
{
    const block_place at = place_of(s, p, index);
    return (gemm_next){p, at.i, at.m, at.j, new_rows};
}

static void run_place(const gemm_split *s, const gemm_product *p, int64_t index, const gemm_next *next,
                      int32_t slot)
{
    const block_place at = place_of(s, p, index);
    if (at.m > 0 && at.n > 0) gemm_run_blocks(p, at.i, at.m, at.j, at.n, next, &s->scratch[slot]);
}

/* Items are claimed in order and take the threads equally long: the next one here is as far on as there are
 * threads. */
static int64_t next_item(const gemm_split *s, int64_t item)
{
    return item + tsr_threads_count(s->cpu->threads);
}

static void block_item(void *arg, int64_t item, int32_t slot)
{
    const split_job *job = arg;
    const gemm_split *s = job->split;
    const int64_t after = next_item(s, item);
    gemm_next next = {.p = NULL};
    if (after < s->n_row_blocks * s->n_column_blocks) next = next_at(s, job->p, after, false);
    run_place(s, job->p, item, &next, slot);
}

/* One block of one product of the batch, A in place; or whole products, several. */
static void batch_item(void *arg, int64_t item, int32_t slot)
{
    const split_job *job = arg;
    const gemm_split *s = job->split;
    const int64_t blocks = s->n_row_blocks * s->n_column_blocks, each = s->products_per_item;
    for (int64_t at = item * each; at < gemm_min((item + 1) * each, s->n_products * blocks); at++) {
        const int64_t after = at + 1 < (item + 1) * each ? at + 1 : next_item(s, item) * each;
        gemm_product p = *job->p, p_next = *job->p;
        gemm_next next = {.p = NULL};
        job->describe(job->batch, at / blocks, &p);
        if (after < s->n_products * blocks) {
            job->describe(job->batch, after / blocks, &p_next);
            next = next_at(s, &p_next, after % blocks, after / s->n_column_blocks != at / s->n_column_blocks);
        }
        run_place(s, &p, at % blocks, &next, slot);
    }
}

/* Some rows of a product and all its columns: A's rows are packed here, as a product of their own. */
static void own_a_rows(const split_job *job, gemm_product *p, int64_t row_block, int32_t slot)
{
    const gemm_split *s = job->split;
    const gemm_product *own = &s->of_slot[slot];
    int64_t first;
    const int64_t m = part_of(p->m, row_block, s->n_row_blocks, &first);
    const int64_t a_nbytes = gemm_nbytes_of(p->a.dtype);
    const int64_t c_nbytes = gemm_nbytes_of(p->store.c_dtype);
    p->m = m;
    p->a.data += first * p->a.row * a_nbytes;
    p->store.c = (char *)p->store.c + first * p->store.c_row * c_nbytes;
    p->a_packed = own->a_packed, p->a_sums = own->a_sums;
    gemm_pack_a(p, 0, m);
    gemm_run_blocks(p, 0, m, 0, p->n, &(gemm_next){.p = NULL}, &s->scratch[slot]);
}

static void own_a_item(void *arg, int64_t item, int32_t slot)
{
    const split_job *job = arg;
    const gemm_split *s = job->split;
    const int64_t first = item / s->n_row_blocks * s->products_per_item;
    for (int64_t i = first; i < gemm_min(first + s->products_per_item, s->n_products); i++) {
        gemm_product p = *job->p;
        job->describe(job->batch, i, &p);
        own_a_rows(job, &p, item % s->n_row_blocks, slot);
    }
}

/* Rows that an item packs. */
static int64_t rows_to_pack(const gemm_product *p)
{
    enum { ELEMENTS = 1 << 15 };
    return gemm_max(1, ELEMENTS / gemm_max(1, p->k));
}

static int64_t a_items(const gemm_split *s, const gemm_product *p)
{
    return s->a_mode == GEMM_A_PACKED_ONCE ? gemm_ceil_div(p->m, rows_to_pack(p)) : 0;
}

/* Some rows of A; behind those, where B is packed, its panels. */
static void pack_item(void *arg, int64_t item, int32_t slot)
{
    (void)slot;
    const split_job *job = arg;
    const int64_t rows = rows_to_pack(job->p), i = item * rows, first_panel = a_items(job->split, job->p);
    if (item < first_panel)
        gemm_pack_a(job->p, i, gemm_min(rows, job->p->m - i));
    else
        gemm_pack_panel(job->p, item - first_panel, job->split->b_panels);
}

void gemm_run_split(const gemm_split *s, const gemm_product *p, gemm_describe describe, const void *batch)
{
    tsr_threads *threads = s->cpu->threads;
    split_job job = {s, p, describe, batch};
    const int64_t groups = gemm_ceil_div(s->n_products, s->products_per_item);
    const int64_t blocks = s->n_row_blocks * s->n_column_blocks;
    if (s->a_mode == GEMM_A_PACKED_BY_ITEM) {
        tsr_threads_run(threads, groups * s->n_row_blocks, own_a_item, &job);
    } else if (s->a_mode == GEMM_A_IN_PLACE && !p->packs_b) {
        tsr_threads_run(threads, groups * blocks, batch_item, &job);
    } else {
        for (int64_t i = 0; i < s->n_products; i++) {
            gemm_product one = *p;
            describe(batch, i, &one);
            job.p = &one;
            tsr_threads_run(threads, a_items(s, &one) + (one.packs_b ? panels_of(&one) : 0), pack_item, &job);
            tsr_threads_run(threads, blocks, block_item, &job);
        }
    }
}
