/* backend/cpu/gemm_block.c - tiles, panels and chunks of one block of a product */
#include "backend/cpu/gemm_block.h"

#include "backend/weight_values.h"

enum { PAD_WORDS = 16, LINE_NBYTES = 64, LEAST_NR = 8 };

static int64_t nbytes_of(tsr_dtype dtype) { return (int64_t)tsr_dtype_nbytes(dtype); }

/* Elements of k in a word of the packed panels: an f32 product reads panels of bf16 pairs as well. */
int64_t gemm_chunk_k(const gemm_product *p) { return GEMM_CHUNK_WORDS * p->kernel->k_word; }

int64_t gemm_n_chunks(const gemm_product *p) { return gemm_max(1, gemm_ceil_div(p->k, gemm_chunk_k(p))); }

static int64_t chunk_elements(const gemm_product *p, int64_t chunk)
{
    return gemm_min(gemm_chunk_k(p), p->k - chunk * gemm_chunk_k(p));
}

/* Words along k, with the zeros that panels and packed rows end in. */
static int64_t padded_words(const gemm_product *p, int64_t k)
{
    const int64_t align = p->kernel->k_align;
    return gemm_ceil_div(gemm_ceil_div(k, p->kernel->k_word), align) * align;
}

int64_t gemm_panel_nbytes(const gemm_product *p, int64_t k)
{
    const int64_t nr = p->kernel->nr;
    if (p->type == GEMM_S4) return tsr_gemm_s4_panel_nbytes(nr, k, p->group, p->has_zeros);
    if (p->type == GEMM_F32 && p->b_dtype == TSR_F16) return nr * k * 2;
    if (p->type == GEMM_F32 && p->b_dtype == TSR_BF16) return nr * gemm_ceil_div(k, 2) * 4;
    return nr * padded_words(p, k) * 4;
}

/* --- A --- */

static bool multiplies_integers(const gemm_product *p) { return p->type == GEMM_S8 || p->type == GEMM_S4; }

bool gemm_a_in_place(const gemm_product *p)
{
    const gemm_operand *a = &p->a;
    const int64_t row_nbytes = a->row * nbytes_of(a->dtype);
    if (multiplies_integers(p) || a->col != 1) return false;
    if (p->m > 4 && row_nbytes % 1024 == 0) return false; /* rows fall into the same sets */
    if (p->type == GEMM_BF16) return p->k % (p->kernel->k_word * p->kernel->k_align) == 0;
    return a->dtype == TSR_F32;
}

static int64_t row_words(const gemm_product *p, int64_t chunk)
{
    const int64_t words = padded_words(p, chunk_elements(p, chunk));
    const int64_t per_word = p->kernel->a_words > 0 ? p->kernel->a_words : 1;
    const int64_t quads = p->type == GEMM_S4 ? 2 * words : words;
    return quads * per_word + PAD_WORDS;
}

static int64_t sums_of_row(const gemm_product *p)
{
    return p->type == GEMM_S4 ? gemm_chunk_k(p) / p->group : 1;
}

void gemm_take_a(gemm_product *p, tsr_arena *memory)
{
    const int64_t chunks = gemm_n_chunks(p), last = chunks - 1;
    const size_t words = (size_t)last * (size_t)row_words(p, 0) + (size_t)row_words(p, last);
    p->a_packed = tsr_arena_take(memory, (size_t)p->m, words > SIZE_MAX / 4 ? SIZE_MAX : words * 4);
    if (!multiplies_integers(p)) return;
    p->a_sums = tsr_arena_take(memory, (size_t)p->m,
                               (size_t)chunks * (size_t)sums_of_row(p) * sizeof(int32_t));
    if (p->a.dtype == TSR_S8) return;
    p->a_quantised = tsr_arena_take(memory, (size_t)p->m, (size_t)p->k);
    p->a_scales = tsr_arena_take(memory, (size_t)p->m, sizeof(float));
    p->store.row_scale = p->a_scales;
}

static uint32_t *packed_row(const gemm_product *p, int64_t chunk, int64_t i)
{
    return p->a_packed + chunk * p->m * row_words(p, 0) + i * row_words(p, chunk);
}

static int32_t *sums_row(const gemm_product *p, int64_t chunk, int64_t i)
{
    return p->a_sums + (chunk * p->m + i) * sums_of_row(p);
}

/* Rows of A as s8: themselves, or what they were quantised to. */
static gemm_operand integers_of(const gemm_product *p)
{
    if (p->a_quantised == NULL) return p->a;
    return (gemm_operand){(const char *)p->a_quantised, TSR_S8, p->k, 1};
}

static void quantise_rows(const gemm_product *p, int64_t i, int64_t m)
{
    const gemm_operand *a = &p->a;
    for (; m > 0; i++, m--) {
        const char *row = a->data + i * a->row * nbytes_of(a->dtype);
        int8_t *q = p->a_quantised + i * p->k;
        p->a_scales[i] = a->col == 1 ? p->row_kernel->quantise(p->k, row, a->dtype, q)
                                     : tsr_quantise_row(row, a->dtype, a->col, p->k, q);
    }
}

static void pack_chunk(const gemm_product *p, int64_t chunk, int64_t i, int64_t m)
{
    const gemm_operand a = multiplies_integers(p) ? integers_of(p) : p->a;
    const int64_t k0 = chunk * gemm_chunk_k(p), k = chunk_elements(p, chunk), ld = row_words(p, chunk);
    const char *at = a.data + (i * a.row + k0 * a.col) * nbytes_of(a.dtype);
    uint32_t *to = packed_row(p, chunk, i);
    if (p->type == GEMM_F32)
        p->kernel->pack((float *)to, ld, at, a.dtype, a.row, a.col, m, k);
    else if (p->type == GEMM_BF16)
        p->kernel->pack_a(to, ld, at, a.row, a.col, m, k, 0, NULL, 0);
    else
        p->kernel->pack_a(to, ld, at, a.row, a.col, m, k, p->type == GEMM_S4 ? p->group : 0,
                          sums_row(p, chunk, i), sums_of_row(p));
}

void gemm_pack_a(const gemm_product *p, int64_t i, int64_t m)
{
    if (p->a_quantised != NULL) quantise_rows(p, i, m);
    for (int64_t chunk = 0; chunk < gemm_n_chunks(p); chunk++) pack_chunk(p, chunk, i, m);
}

/* --- B --- */

gemm_scratch gemm_take_scratch(const gemm_product *p, int64_t rows, tsr_arena *memory)
{
    const tsr_gemm_kernel *kernel = p->kernel;
    const int64_t panels = gemm_ceil_div(gemm_min(p->n, GEMM_BLOCK_COLUMNS), kernel->nr);
    const bool one_chunk = gemm_n_chunks(p) == 1;
    gemm_scratch s = {0};
    if (p->b_packed == NULL)
        s.panels = tsr_arena_take(memory, (size_t)panels,
                                  (size_t)gemm_panel_nbytes(p, gemm_min(p->k, gemm_chunk_k(p))));
    if (!p->c_in_place)
        s.sums = tsr_arena_take(memory, (size_t)(one_chunk ? kernel->mr : rows),
                                (size_t)((one_chunk ? 1 : panels) * kernel->nr) * sizeof(uint32_t));
    return s;
}

/* A panel of one chunk, and where its rows are. */
typedef struct panel_view {
    const void *data;
    int64_t row; /* words */
} panel_view;

static panel_view panel_of(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, char *scratch)
{
    const int64_t nr = p->kernel->nr, k0 = chunk * gemm_chunk_k(p), k = chunk_elements(p, chunk);
    if (p->b_packed != NULL)
        return (panel_view){p->b_packed + j / nr * p->b_panel_nbytes + gemm_panel_nbytes(p, k0), nr};
    const gemm_operand *b = &p->b;
    const char *at = b->data + (k0 * b->row + j * b->col) * nbytes_of(b->dtype);
    if (p->b_in_place && n == nr) return (panel_view){at, b->row};
    p->kernel->pack_b(scratch, at, b->dtype, b->row, b->col, k, n);
    return (panel_view){scratch, nr};
}

/*
 * The part of B that is packed next, fetched into the second cache a few lines at a time while tiles are
 * multiplied: packing then never waits for memory.
 */
typedef struct fetch {
    const char *next, *row_end, *end; /* end: past the last row's beginning */
    int64_t row_nbytes, stride;
    int64_t lines; /* at a time */
} fetch;

static fetch fetch_of(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, int64_t n_tiles)
{
    const gemm_operand *b = &p->b;
    const int64_t size = nbytes_of(b->dtype), k = chunk_elements(p, chunk);
    const char *at = b->data + (chunk * gemm_chunk_k(p) * b->row + j * b->col) * size;
    fetch f = {.next = at, .end = at};
    if (p->b_packed != NULL || p->b_in_place || (b->col != 1 && b->row != 1)) return f;
    const int64_t rows = b->col == 1 ? k : n;
    f.row_nbytes = (b->col == 1 ? n : k) * size;
    f.stride = (b->col == 1 ? b->row : b->col) * size;
    f.row_end = at + f.row_nbytes, f.end = at + rows * f.stride;
    f.lines = gemm_ceil_div(rows * (gemm_ceil_div(f.row_nbytes, LINE_NBYTES) + 1), n_tiles);
    if (f.stride <= 0) f.end = at; /* repeated or backwards: rare, and right without */
    return f;
}

static void fetch_some(fetch *f)
{
    for (int64_t i = 0; i < f->lines && f->row_end - f->row_nbytes < f->end; i++) {
        __builtin_prefetch(f->next, 0, 2);
        f->next += LINE_NBYTES;
        if (f->next < f->row_end) continue;
        f->row_end += f->stride;
        f->next = f->row_end - f->row_nbytes;
    }
}

/* --- tiles --- */

/* A block in work: its place in C, and the threads' memory for it. */
typedef struct block {
    const gemm_product *p;
    int64_t i, m, j, n;
    int64_t next_j, next_n; /* the columns that are probably next: their first chunk is fetched */
    const gemm_scratch *scratch;
    int64_t panel_nbytes, sums_row;
} block;

/* Rows [first, first + n) of the block's t-th tile of n_tiles nearly equal ones. */
static int64_t tile_rows(int64_t m, int64_t n_tiles, int64_t t, int64_t *first)
{
    *first = m * t / n_tiles;
    return m * (t + 1) / n_tiles - *first;
}

static void set_a(const gemm_product *p, int64_t chunk, int64_t i, tsr_gemm_tile *t)
{
    if (p->a_packed != NULL) {
        t->a = packed_row(p, chunk, i);
        t->a_row = row_words(p, chunk);
        if (p->type == GEMM_BF16) t->a_row *= 2; /* elements */
        t->a_k = 1;
        if (p->a_sums != NULL) t->a_sums = sums_row(p, chunk, i), t->a_sums_row = sums_of_row(p);
    } else {
        const gemm_operand *a = &p->a;
        t->a = a->data + (i * a->row + chunk * gemm_chunk_k(p) * a->col) * nbytes_of(a->dtype);
        t->a_row = a->row, t->a_k = a->col;
    }
}

/* The finished sums of a tile go where C is. */
static void store_tile(const block *b, const tsr_gemm_tile *t, int64_t i, int64_t m, int64_t j, int64_t n)
{
    const gemm_product *p = b->p;
    tsr_gemm_store_args s = p->store;
    const int64_t column = s.panel > 0 ? j / 2 : j, nbytes = nbytes_of(s.c_dtype);
    s.sums = t->c, s.sums_row = t->c_row;
    s.c = (char *)s.c + (i * s.c_row + column * s.c_col) * nbytes;
    if (s.row_scale != NULL) s.row_scale += i;
    if (s.column_scale != NULL) s.column_scale += column;
    if (s.gate_scale != NULL) s.gate_scale += column;
    if (s.bias != NULL) s.bias = (const char *)s.bias + column * s.bias_stride * nbytes_of(s.bias_dtype);
    if (s.gate_bias != NULL)
        s.gate_bias = (const char *)s.gate_bias + column * s.gate_bias_stride * nbytes_of(s.gate_bias_dtype);
    if (s.residual != NULL)
        s.residual = (const char *)s.residual +
                     (i * s.residual_row + column * s.residual_col) * nbytes_of(s.residual_dtype);
    p->store_kernel->store(&s, m, s.panel > 0 ? gemm_min(p->c_columns - column, s.panel / 2) : n);
}

/* Tile of rows [i, i + m) of the product and the panel of n columns from j, for one chunk. */
static void run_tile(const block *b, int64_t chunk, int64_t i, int64_t m, int64_t j, int64_t n,
                     const panel_view *panel)
{
    const gemm_product *p = b->p;
    const int64_t k = chunk_elements(p, chunk), last = gemm_n_chunks(p) - 1;
    tsr_gemm_tile t = {.b = panel->data,
                       .b_row = panel->row,
                       .group = p->group,
                       .has_zeros = p->has_zeros,
                       .alpha = p->alpha,
                       .beta = chunk > 0       ? 1
                               : p->c_in_place ? p->beta
                                               : 0};
    t.k = p->type == GEMM_F32 ? k : padded_words(p, k);
    if (p->b_packed != NULL && p->type == GEMM_F32) t.b_dtype = p->b_dtype;
    set_a(p, chunk, i, &t);
    if (p->c_in_place) {
        t.c = (char *)p->store.c + (i * p->store.c_row + j) * 4;
        t.c_row = p->store.c_row;
    } else if (last == 0) {
        t.c = b->scratch->sums, t.c_row = p->kernel->nr;
    } else {
        t.c = b->scratch->sums + (i - b->i) * b->sums_row + (j - b->j), t.c_row = b->sums_row;
    }
    p->kernel->run(&t, m, n);
    if (!p->c_in_place && chunk == last) store_tile(b, &t, i, m, j, n);
}

/* Few rows: panel by panel, from the first k to the last. */
static void run_panels(const block *b, int64_t n_tiles)
{
    const int64_t nr = b->p->kernel->nr;
    for (int64_t j = 0; j < b->n; j += nr) {
        const int64_t n = gemm_min(nr, b->n - j);
        for (int64_t chunk = 0; chunk < gemm_n_chunks(b->p); chunk++) {
            const panel_view panel = panel_of(b->p, chunk, b->j + j, n, b->scratch->panels);
            for (int64_t t = 0, i; t < n_tiles; t++) {
                const int64_t m = tile_rows(b->m, n_tiles, t, &i);
                run_tile(b, chunk, b->i + i, m, b->j + j, n, &panel);
            }
        }
    }
}

/* Many rows: the block's panels of a chunk stay in the second cache for all of them. */
static void run_rows(const block *b, int64_t n_tiles)
{
    const gemm_product *p = b->p;
    const int64_t nr = p->kernel->nr, n_chunks = gemm_n_chunks(p), panels_n = gemm_ceil_div(b->n, nr);
    panel_view panels[GEMM_BLOCK_COLUMNS / LEAST_NR];
    for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
        for (int64_t j = 0; j < b->n; j += nr)
            panels[j / nr] = panel_of(p, chunk, b->j + j, gemm_min(nr, b->n - j),
                                      b->scratch->panels + j / nr * b->panel_nbytes);
        fetch f = chunk + 1 < n_chunks ? fetch_of(p, chunk + 1, b->j, b->n, n_tiles * panels_n)
                                       : fetch_of(p, 0, b->next_j, b->next_n, n_tiles * panels_n);
        for (int64_t t = 0, i; t < n_tiles; t++) {
            const int64_t m = tile_rows(b->m, n_tiles, t, &i);
            for (int64_t j = 0; j < b->n; j += nr) {
                fetch_some(&f);
                run_tile(b, chunk, b->i + i, m, b->j + j, gemm_min(nr, b->n - j), &panels[j / nr]);
            }
        }
    }
}

void gemm_run_blocks(const gemm_product *p, int64_t i, int64_t m, int64_t j, int64_t n, int64_t next_j,
                     const gemm_scratch *scratch)
{
    const int64_t n_tiles = gemm_ceil_div(m, p->kernel->mr), nr = p->kernel->nr, end = j + n;
    block b = {.p = p,
               .i = i,
               .m = m,
               .scratch = scratch,
               .panel_nbytes = gemm_panel_nbytes(p, gemm_min(p->k, gemm_chunk_k(p)))};
    _Alignas(LINE_NBYTES) char tiles[LINE_NBYTES];
    if (p->kernel->enter != NULL) p->kernel->enter(tiles);
    for (b.j = j; b.j < end; b.j += GEMM_BLOCK_COLUMNS) {
        b.n = gemm_min(GEMM_BLOCK_COLUMNS, end - b.j), b.sums_row = gemm_ceil_div(b.n, nr) * nr;
        b.next_j = b.j + b.n < end ? b.j + b.n : next_j;
        b.next_n = gemm_max(0, gemm_min(GEMM_BLOCK_COLUMNS, p->n - b.next_j));
        if (n_tiles <= GEMM_FEW_TILES)
            run_panels(&b, n_tiles);
        else
            run_rows(&b, n_tiles);
    }
    if (p->kernel->leave != NULL) p->kernel->leave(tiles);
}
