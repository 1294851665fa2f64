/* backend/cpu/gemm_block.c - tiles, panels and chunks of one block of a product */
#include "backend/cpu/gemm_block.h"

#include <assert.h>

#include "backend/cpu/gemm_fetch.h"

int32_t gemm_group_chunks(const gemm_product *p, int64_t rows, int64_t l2_nbytes)
{
    if (gemm_ceil_div(rows, p->kernel->mr) <= GEMM_FEW_TILES) return 1;
    const int64_t panels = gemm_ceil_div(gemm_min(p->n, p->kernel->block_columns), p->kernel->nr);
    const int64_t nbytes = panels * p->kernel->nr * p->kernel->chunk_words * 4;
    const int64_t room = gemm_min(GEMM_MOST_CHUNKS, l2_nbytes / 4 / nbytes);
    return (int32_t)gemm_max(1, gemm_min(room, gemm_n_chunks(p)));
}

gemm_scratch gemm_take_scratch(const gemm_product *p, int64_t rows, tsr_arena *memory)
{
    const tsr_gemm_kernel *kernel = p->kernel;
    const int64_t panels = gemm_ceil_div(gemm_min(p->n, kernel->block_columns), kernel->nr);
    const bool one_chunk = gemm_n_chunks(p) == 1;
    gemm_scratch s = {0};
    if ((p->b_packed == NULL && !p->packs_b) || gemm_widens_first(p, rows))
        s.panels = tsr_arena_take(memory, (size_t)(panels * p->group_chunks),
                                  (size_t)gemm_own_panel_nbytes(p));
    if (!p->c_in_place)
        s.sums = tsr_arena_take(memory, (size_t)(one_chunk ? 2 : gemm_ceil_div(rows, kernel->mr) * panels),
                                (size_t)(kernel->mr * kernel->nr) * sizeof(uint32_t));
    return s;
}

/* A tile of finished sums which may not have left the micro-kernel: they go where C is once the next tile has
 * begun. */
typedef struct finished {
    const void *sums;
    int64_t i, m, j, n; /* m 0: none */
    int32_t turn;       /* of the two buffers that tiles of a single chunk have */
} finished;

/* A block in work: its place in C, and the threads' memory for it. */
typedef struct block {
    const gemm_product *p;
    int64_t i, m, j, n;
    const gemm_next *next;
    const gemm_scratch *scratch;
    bool has_one_chunk;
    bool widens;         /* panels of 16 bits, before tiles meet them */
    bool fetches_panels; /* a tile, instead of rows */
    finished *last;
} block;

static int64_t panels_of(const block *b) { return gemm_ceil_div(b->n, b->p->kernel->nr); }

/* Rows [first, first + n) of the block's t-th tile of n_tiles nearly equal ones. */
static int64_t tile_rows(int64_t m, int64_t n_tiles, int64_t t, int64_t *first)
{
    *first = m * t / n_tiles;
    return m * (t + 1) / n_tiles - *first;
}

/* A chunk of a block's k: what all its tiles share. */
typedef struct pass {
    const block *b;
    tsr_gemm_tile tile;
    gemm_rows rows; /* of A, the product's, in this chunk */
    int64_t steps;  /* that a micro-kernel makes along k */
    bool fetches_c; /* the next run's: tiles follow one another as their sums lie */
    bool stores;    /* sums are finished, and go where C is */
} pass;

static pass pass_of(const block *b, int64_t chunk)
{
    const gemm_product *p = b->p;
    const int64_t k = gemm_chunk_elements(p, chunk), n_chunks = gemm_n_chunks(p);
    const bool in_place = p->c_in_place, meets_16 = gemm_has_panels_of_16(p) && !b->widens;
    pass s = {.b = b, .stores = !in_place && chunk + 1 == n_chunks};
    s.tile = (tsr_gemm_tile){.k = p->type == GEMM_F32 ? k : gemm_padded_words(p, k),
                             .b_dtype = meets_16                ? p->b_dtype
                                        : p->b_columns_in_place ? p->b.dtype
                                                                : TSR_F32,
                             .group = p->group,
                             .has_zeros = p->has_zeros,
                             .alpha = p->alpha,
                             .sums_may_stay = true,
                             .beta = chunk > 0  ? 1
                                     : in_place ? p->beta
                                                : 0};
    s.steps = gemm_max(1, meets_16 && p->b_dtype == TSR_BF16 ? gemm_ceil_div(k, 2) : s.tile.k);
    s.tile.c_row = in_place ? p->store.c_row : p->kernel->nr;
    s.rows = gemm_rows_of(p, chunk);
    s.tile.a_row = s.rows.row, s.tile.a_k = s.rows.k, s.tile.a_sums_row = s.rows.sums_row;
    return s;
}

/* The last tile's sums go where C is, if there are any. */
static void store_finished(const gemm_product *p, const finished *f)
{
    if (f->m == 0) return;
    tsr_gemm_store_args s = p->store;
    const int64_t column = s.panel > 0 ? f->j / 2 : f->j, nbytes = gemm_nbytes_of(s.c_dtype);
    s.sums = f->sums, s.sums_row = p->kernel->nr;
    s.c = (char *)s.c + (f->i * s.c_row + column * s.c_col) * nbytes;
    if (s.row_scale != NULL) s.row_scale += f->i;
    if (s.column_scale != NULL) s.column_scale += column;
    if (s.gate_scale != NULL) s.gate_scale += column;
    if (s.bias != NULL) s.bias = (const char *)s.bias + column * s.bias_stride * gemm_nbytes_of(s.bias_dtype);
    if (s.gate_bias != NULL)
        s.gate_bias = (const char *)s.gate_bias +
                      column * s.gate_bias_stride * gemm_nbytes_of(s.gate_bias_dtype);
    if (s.residual != NULL)
        s.residual = (const char *)s.residual +
                     (f->i * s.residual_row + column * s.residual_col) * gemm_nbytes_of(s.residual_dtype);
    p->store_kernel->store(&s, f->m, s.panel > 0 ? gemm_min(p->c_columns - column, s.panel / 2) : f->n);
}

/* What a tile fetches while it multiplies. */
typedef struct ahead {
    const char *from;
    int64_t step; /* bytes with each word row */
} ahead;

/*
 * The sums of the tile from row i and column j on, where there are several chunks: [mr][nr], tile by tile as
 * they are run. (Tiles are nearly equal: the t-th begins within the mr rows that end with row t mr.)
 */
static uint32_t *sums_at(const block *b, int64_t i, int64_t j)
{
    const int64_t mr = b->p->kernel->mr, nr = b->p->kernel->nr;
    return b->scratch->sums + (gemm_ceil_div(i - b->i, mr) * panels_of(b) + (j - b->j) / nr) * mr * nr;
}

/*
 * A tile's rows of C fetched a row of tiles before: stores of whole tiles fill the store buffer, and the next
 * tile's wait while lines of C come from the last cache.
 */
static void fetch_next_c(const pass *s, tsr_gemm_tile *t, int64_t i, int64_t m, int64_t j, int64_t n)
{
    const gemm_product *p = s->b->p;
    const tsr_gemm_store_args *c = &p->store;
    const int64_t size = p->c_in_place ? 4 : gemm_nbytes_of(c->c_dtype);
    if (!p->kernel->keeps_sums || !(s->stores || p->c_in_place) || c->c_col != 1 ||
        i + m >= s->b->i + s->b->m)
        return;
    t->ahead_store_row = c->c_row * size;
    t->ahead_store_nbytes = (c->panel > 0 ? c->panel / 2 : n) * size;
    t->ahead_store = (const char *)c->c + (i + m) * t->ahead_store_row + (c->panel > 0 ? j / 2 : j) * size;
}

/* Tile of rows [i, i + m) of the product and the panel of n columns from j. */
static void run_tile(const pass *s, int64_t i, int64_t m, int64_t j, int64_t n, const gemm_panel *panel,
                     const ahead *next)
{
    const block *b = s->b;
    const gemm_product *p = b->p;
    tsr_gemm_tile t = s->tile;
    t.a = s->rows.a + i * s->rows.row_nbytes;
    if (s->rows.sums != NULL) t.a_sums = s->rows.sums + i * s->rows.sums_row;
    t.b = panel->data, t.b_row = panel->row;
    t.ahead = next->step > 0 ? next->from : (const char *)panel->data, t.ahead_step = next->step;
    if (p->c_in_place)
        t.c = (char *)p->store.c + (i * t.c_row + j) * 4;
    else if (b->has_one_chunk)
        t.c = b->scratch->sums + b->last->turn * p->kernel->mr * p->kernel->nr;
    else
        t.c = sums_at(b, i, j);
    if (s->fetches_c) t.ahead_c = (uint32_t *)t.c + p->kernel->mr * p->kernel->nr;
    fetch_next_c(s, &t, i, m, j, n);
    if (p->b_columns_in_place)
        p->kernel->run_columns(&t, m, n);
    else
        p->kernel->run(&t, m, n);
    if (!s->stores) return;
    store_finished(p, b->last);
    *b->last = (finished){t.c, i, m, j, n, 1 - b->last->turn};
}

/*
 * Few rows: panel by panel, from the first k to the last. A packed weight is fetched ahead by the tiles in
 * equal parts, so that the second one does not leave memory idle: a little ahead if there is one tile, a
 * chunk if two.
 */
static void run_panels(const block *b, int64_t n_tiles)
{
    enum { AHEAD_NBYTES = 4096 };
    const gemm_product *p = b->p;
    const int64_t nr = p->kernel->nr, n_chunks = gemm_n_chunks(p);
    for (int64_t j = 0; j < b->n; j += nr) {
        const int64_t n = gemm_min(nr, b->n - j);
        for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
            const pass s = pass_of(b, chunk);
            const gemm_panel panel = gemm_panel_of(p, chunk, b->j + j, n, b->widens, b->scratch->panels);
            const int64_t part = gemm_panel_nbytes(p, gemm_chunk_elements(p, chunk)) / n_tiles;
            ahead next = {(const char *)panel.data + (n_tiles > 1 ? part * n_tiles : AHEAD_NBYTES),
                          p->b_packed != NULL ? part / s.steps : 0};
            for (int64_t t = 0, i; t < n_tiles; t++, next.from += part) {
                const int64_t m = tile_rows(b->m, n_tiles, t, &i);
                run_tile(&s, b->i + i, m, b->j + j, n, &panel, &next);
            }
        }
    }
}

/* Rows of A that come next, in pass s: one of n_parts of them, fetched over the steps of the tile at work. */
static ahead rows_ahead(const pass *s, int64_t i, int64_t m, int64_t n_parts, int64_t steps)
{
    if (m == 0 || s->b->p->a_packed == NULL) return (ahead){NULL, 0};
    const gemm_rows *rows = &s->rows;
    return (ahead){rows->a + i * rows->row_nbytes, gemm_ceil_div(m * rows->row_nbytes, n_parts * steps)};
}

/*
 * What follows the panel at column j of the block, in its place: the next chunk's, or the next block's first;
 * the t-th of n_tiles parts of it.
 */
static ahead panel_ahead(const pass *s, int64_t chunk, int64_t j, int64_t t, int64_t n_tiles)
{
    const block *b = s->b;
    const bool is_last = chunk + 1 == gemm_n_chunks(b->p);
    const gemm_product *p = is_last ? b->next->p : b->p;
    const int64_t next_chunk = is_last ? 0 : chunk + 1, column = (is_last ? b->next->j : b->j) + j;
    if (p == NULL || p->b_packed == NULL || column >= p->n) return (ahead){NULL, 0};
    const int64_t part = gemm_ceil_div(gemm_panel_nbytes(p, gemm_chunk_elements(p, next_chunk)), n_tiles);
    return (ahead){gemm_packed_panel(p, next_chunk, column) + t * part, gemm_ceil_div(part, s->steps)};
}

/* Some chunks in a row, whose panels stay in the second cache while all rows meet them. */
typedef struct group {
    int64_t first, n;
    pass passes[GEMM_MOST_CHUNKS];
    gemm_panel panels[GEMM_MOST_PANELS]; /* chunk by chunk */
    gemm_fetch of_b, of_a;               /* of what comes next */
} group;

static group group_of(const block *b, int64_t first, int64_t n, int64_t n_tiles)
{
    const gemm_product *p = b->p;
    const int64_t nr = p->kernel->nr, n_panels = panels_of(b), n_times = n * n_tiles * n_panels;
    group g = {.first = first, .n = n};
    assert(n * n_panels <= GEMM_MOST_PANELS);
    for (int64_t c = 0; c < n; c++) {
        g.passes[c] = pass_of(b, first + c);
        g.passes[c].fetches_c = !p->c_in_place && first + c > 0;
        for (int64_t j = 0; j < n_panels; j++)
            g.panels[c * n_panels + j] = gemm_panel_of(
                p, first + c, b->j + j * nr, gemm_min(nr, b->n - j * nr), b->widens,
                b->scratch->panels + (c * n_panels + j) * gemm_own_panel_nbytes(p));
    }
    const bool is_last = first + n == gemm_n_chunks(p);
    g.of_b = is_last ? gemm_fetch_of_next_b(b->next, n_times)
                     : gemm_fetch_of_b(p, first + n, b->j, b->n, n_times);
    g.of_a = is_last ? gemm_fetch_of_a(b->next, n_times) : gemm_fetch_nothing();
    return g;
}

/* The t-th tile of the block against the group's panels. The sums of a tile stay in the first cache. */
static void run_group_tile(const block *b, group *g, int64_t t, int64_t n_tiles)
{
    const int64_t nr = b->p->kernel->nr, n_panels = panels_of(b);
    int64_t i, i_next = 0;
    const int64_t m = tile_rows(b->m, n_tiles, t, &i);
    const int64_t m_next = t + 1 < n_tiles ? tile_rows(b->m, n_tiles, t + 1, &i_next) : 0;
    for (int64_t c = 0; c < g->n; c++) {
        const pass *s = &g->passes[c];
        ahead next = c + 1 < g->n
                         ? rows_ahead(s + 1, b->i + i, m, n_panels, s->steps) /* a part with each panel */
                         : rows_ahead(g->passes, b->i + i_next, m_next, n_panels, s->steps);
        for (int64_t j = 0; j < n_panels; j++, next.from += next.step * s->steps) {
            if (b->fetches_panels) next = panel_ahead(s, g->first + c, j * nr, t, n_tiles);
            gemm_fetch_some(&g->of_b);
            gemm_fetch_some(&g->of_a);
            run_tile(s, b->i + i, m, b->j + j * nr, gemm_min(nr, b->n - j * nr), &g->panels[c * n_panels + j],
                     &next);
        }
    }
}

/*
 * Many rows: panels stay in the second cache for all of them, those of several chunks if it has room, so that
 * C is read and written less often. While a tile multiplies, it fetches the next tile's rows; or the next
 * packed panels instead, which come from memory, as long as rows are few and each tile meets the panels as
 * they are packed (measured: beyond, the rows gain more). What B is packed from is fetched between tiles.
 */
static void run_rows(block *b, int64_t n_tiles)
{
    const gemm_product *p = b->p;
    const int64_t n_chunks = gemm_n_chunks(p);
    const bool few_rows = p->a_packed == NULL || b->m * gemm_rows_of(p, 0).row_nbytes <= GEMM_ROOM_NBYTES;
    b->fetches_panels = p->b_packed != NULL && p->type != GEMM_S4 && !b->widens && few_rows;
    const int64_t most = b->fetches_panels ? 1 : p->group_chunks;
    for (int64_t first = 0; first < n_chunks; first += most) {
        group g = group_of(b, first, gemm_min(most, n_chunks - first), n_tiles);
        for (int64_t t = 0; t < n_tiles; t++) run_group_tile(b, &g, t, n_tiles);
    }
}

void gemm_run_blocks(const gemm_product *p, int64_t i, int64_t m, int64_t j, int64_t n, const gemm_next *next,
                     const gemm_scratch *scratch)
{
    const int64_t n_tiles = gemm_ceil_div(m, p->kernel->mr), end = j + n;
    block b = {.p = p,
               .i = i,
               .m = m,
               .scratch = scratch,
               .has_one_chunk = gemm_n_chunks(p) == 1,
               .widens = gemm_widens_first(p, m)};
    finished last = {.m = 0};
    b.last = &last;
    _Alignas(64) char tiles[64];
    if (p->kernel->enter != NULL) p->kernel->enter(tiles);
    for (b.j = j; b.j < end; b.j += p->kernel->block_columns) {
        const gemm_next beside = {p, i, m, b.j + p->kernel->block_columns, false};
        b.n = gemm_min(p->kernel->block_columns, end - b.j);
        b.next = beside.j < end ? &beside : next;
        if (n_tiles <= GEMM_FEW_TILES)
            run_panels(&b, n_tiles);
        else
            run_rows(&b, n_tiles);
        if (p->kernel->finish != NULL) p->kernel->finish();
        store_finished(p, &last); /* before the next block takes its sums' place */
        last.m = 0;
    }
    if (p->kernel->leave != NULL) p->kernel->leave(tiles);
}
