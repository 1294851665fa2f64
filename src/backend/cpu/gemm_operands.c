/* backend/cpu/gemm_operands.c - which operands are read where they lie, and how the others are packed */
#include "backend/cpu/gemm_operands.h"

#include "backend/weight_values.h"

enum { PAD_WORDS = 16 };

/* Elements of k in a word of the packed panels: an f32 product reads panels of bf16 pairs as well. */
int64_t gemm_chunk_k(const gemm_product *p) { return (int64_t)p->kernel->chunk_words * p->kernel->k_word; }

int64_t gemm_n_chunks(const gemm_product *p) { return gemm_max(1, gemm_ceil_div(p->k, gemm_chunk_k(p))); }

int64_t gemm_chunk_elements(const gemm_product *p, int64_t chunk)
{
    return gemm_min(gemm_chunk_k(p), p->k - chunk * gemm_chunk_k(p));
}

/* Words along k, with the zeros that panels and packed rows end in. */
int64_t gemm_padded_words(const gemm_product *p, int64_t k)
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
    return nr * gemm_padded_words(p, k) * 4;
}

/* --- A --- */

static bool multiplies_integers(const gemm_product *p) { return p->type == GEMM_S8 || p->type == GEMM_S4; }

bool gemm_a_in_place(const gemm_product *p)
{
    const gemm_operand *a = &p->a;
    const int64_t row_nbytes = a->row * gemm_nbytes_of(a->dtype);
    if (a->col != 1 || p->type == GEMM_S4) return false;
    if (p->type == GEMM_S8 && (!p->kernel->multiplies_rows || a->dtype != TSR_S8)) return false;
    /* Rows that fall into the same sets of the first cache are copied; at one block of columns, which reads
     * them once, only where a tile has more of them than ways. */
    const int64_t apart = p->n <= p->kernel->block_columns ? 4096 : 1024;
    if (p->m > 4 && row_nbytes % apart == 0) return false;
    if (p->kernel->multiplies_rows) return p->k % (p->kernel->k_word * p->kernel->k_align) == 0;
    return a->dtype == TSR_F32;
}

static int64_t row_words(const gemm_product *p, int64_t chunk)
{
    const int64_t words = gemm_padded_words(p, gemm_chunk_elements(p, chunk));
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
    if (!p->kernel->multiplies_rows)
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
        const char *row = a->data + i * a->row * gemm_nbytes_of(a->dtype);
        int8_t *q = p->a_quantised + i * p->k;
        p->a_scales[i] = a->col == 1 ? p->row_kernel->quantise(p->k, row, a->dtype, 127, q)
                                     : tsr_quantise_row(row, a->dtype, a->col, p->k, q);
    }
}

static void pack_chunk(const gemm_product *p, int64_t chunk, int64_t i, int64_t m)
{
    const gemm_operand a = multiplies_integers(p) ? integers_of(p) : p->a;
    const int64_t k0 = chunk * gemm_chunk_k(p), k = gemm_chunk_elements(p, chunk), ld = row_words(p, chunk);
    const char *at = a.data + (i * a.row + k0 * a.col) * gemm_nbytes_of(a.dtype);
    uint32_t *to = packed_row(p, chunk, i);
    if (p->type == GEMM_F32)
        p->kernel->pack((float *)to, ld, at, a.dtype, a.row, a.col, m, k);
    else if (p->type == GEMM_BF16)
        p->kernel->pack_a(to, ld, at, a.row, a.col, m, k, 0, NULL, 0);
    else
        p->kernel->pack_a(to, ld, at, a.row, a.col, m, k, p->type == GEMM_S4 ? p->group : 0,
                          p->a_sums != NULL ? sums_row(p, chunk, i) : NULL, sums_of_row(p));
}

void gemm_pack_a(const gemm_product *p, int64_t i, int64_t m)
{
    if (p->a_quantised != NULL) quantise_rows(p, i, m);
    for (int64_t chunk = 0; chunk < gemm_n_chunks(p); chunk++) pack_chunk(p, chunk, i, m);
}

gemm_rows gemm_rows_of(const gemm_product *p, int64_t chunk)
{
    const gemm_operand *a = &p->a;
    if (p->a_packed == NULL)
        return (gemm_rows){.a = a->data + chunk * gemm_chunk_k(p) * a->col * gemm_nbytes_of(a->dtype),
                           .row_nbytes = a->row * gemm_nbytes_of(a->dtype),
                           .row = a->row,
                           .k = a->col};
    const int64_t words = row_words(p, chunk);
    gemm_rows r = {.a = (const char *)packed_row(p, chunk, 0), .row_nbytes = words * 4, .k = 1};
    r.row = p->kernel->multiplies_rows ? words * p->kernel->k_word : words;
    if (p->a_sums != NULL) r.sums = sums_row(p, chunk, 0), r.sums_row = sums_of_row(p);
    return r;
}

/* --- B --- */

bool gemm_b_columns_in_place(const gemm_product *p)
{
    return p->b_packed == NULL && p->b.row == 1 && p->b.col != 1 && p->m <= p->kernel->columns_mr &&
           p->k % (p->kernel->k_word * p->kernel->k_align) == 0;
}

void gemm_pack_panel(const gemm_product *p, int64_t index, char *panels)
{
    const int64_t nr = p->kernel->nr, j = index * nr;
    const char *at = p->b.data + j * p->b.col * gemm_nbytes_of(p->b.dtype);
    p->kernel->pack_b(panels + index * p->b_panel_nbytes, at, p->b.dtype, p->b.row, p->b.col, p->k,
                      gemm_min(nr, p->n - j));
}

/* Packed panels of 16 bits, which products in f32 widen. */
bool gemm_has_panels_of_16(const gemm_product *p)
{
    return p->type == GEMM_F32 && p->b_packed != NULL && p->b_dtype != TSR_F32;
}

/* Panels that so many tiles meet are widened once, not by each. */
bool gemm_widens_first(const gemm_product *p, int64_t rows)
{
    enum { MANY_TILES = 8 };
    return gemm_has_panels_of_16(p) && gemm_ceil_div(rows, p->kernel->mr) >= MANY_TILES;
}

/* Of a chunk's panel that a thread makes for itself. */
int64_t gemm_own_panel_nbytes(const gemm_product *p)
{
    const int64_t k = gemm_min(p->k, gemm_chunk_k(p));
    return p->b_packed != NULL ? p->kernel->nr * k * 4 : gemm_panel_nbytes(p, k);
}

const char *gemm_packed_panel(const gemm_product *p, int64_t chunk, int64_t j)
{
    return p->b_packed + j / p->kernel->nr * p->b_panel_nbytes +
           gemm_panel_nbytes(p, chunk * gemm_chunk_k(p));
}

gemm_panel gemm_panel_of(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, bool widens,
                         char *scratch)
{
    const int64_t nr = p->kernel->nr, k0 = chunk * gemm_chunk_k(p), k = gemm_chunk_elements(p, chunk);
    if (widens) {
        p->kernel->widen((float *)(void *)scratch, gemm_packed_panel(p, chunk, j), p->b_dtype, k);
        return (gemm_panel){scratch, nr};
    }
    if (p->b_packed != NULL) return (gemm_panel){gemm_packed_panel(p, chunk, j), nr};
    const gemm_operand *b = &p->b;
    const char *at = b->data + (k0 * b->row + j * b->col) * gemm_nbytes_of(b->dtype);
    if (p->b_columns_in_place) return (gemm_panel){at, b->col};
    if (p->b_in_place && n == nr) return (gemm_panel){at, b->row};
    p->kernel->pack_b(scratch, at, b->dtype, b->row, b->col, k, n);
    return (gemm_panel){scratch, nr};
}
