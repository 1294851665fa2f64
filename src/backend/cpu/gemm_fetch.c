/* backend/cpu/gemm_fetch.c - which lines, and a few of them at a time */
#include "backend/cpu/gemm_fetch.h"

enum {
    LINE_NBYTES = 64,
    MOST_LINES = 8 /* at a time */
};

/* rows of row_nbytes, in n_times parts. Rows that repeat or run backwards are rare, and right without. */
static gemm_fetch fetch_of(const char *at, int64_t rows, int64_t row_nbytes, int64_t stride, int64_t n_times)
{
    gemm_fetch f = {
        .next = at, .end = at, .row_end = at + row_nbytes, .row_nbytes = row_nbytes, .stride = stride};
    if (stride > 0 && row_nbytes > 0) f.end = at + rows * stride;
    const int64_t lines = rows * (gemm_ceil_div(row_nbytes, LINE_NBYTES) + 1);
    f.lines = gemm_min(MOST_LINES, gemm_ceil_div(lines, n_times));
    return f;
}

gemm_fetch gemm_fetch_nothing(void) { return (gemm_fetch){.lines = 0}; }

gemm_fetch gemm_fetch_of_b(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, int64_t n_times)
{
    const gemm_operand *b = &p->b;
    const int64_t size = gemm_nbytes_of(b->dtype), k0 = chunk * gemm_chunk_k(p);
    const int64_t k = gemm_min(p->group_chunks * gemm_chunk_k(p), p->k - k0);
    const char *at = b->data + (k0 * b->row + j * b->col) * size;
    if (p->b_packed == NULL && b->col == 1) return fetch_of(at, k, n * size, b->row * size, n_times);
    if (p->b_packed == NULL && b->row == 1) return fetch_of(at, n, k * size, b->col * size, n_times);
    return gemm_fetch_nothing();
}

gemm_fetch gemm_fetch_of_next_b(const gemm_next *next, int64_t n_times)
{
    if (next->p == NULL) return gemm_fetch_nothing();
    const int64_t n = gemm_min(next->p->kernel->block_columns, next->p->n - next->j);
    return gemm_fetch_of_b(next->p, 0, next->j, n, n_times);
}

gemm_fetch gemm_fetch_of_a(const gemm_next *next, int64_t n_times)
{
    const gemm_product *p = next->p;
    if (p == NULL || !next->new_rows || p->a_packed != NULL || p->a.col != 1) return gemm_fetch_nothing();
    const int64_t size = gemm_nbytes_of(p->a.dtype), row_nbytes = gemm_chunk_elements(p, 0) * size;
    if (next->m * row_nbytes > GEMM_ROOM_NBYTES) return gemm_fetch_nothing();
    return fetch_of(p->a.data + next->i * p->a.row * size, next->m, row_nbytes, p->a.row * size, n_times);
}

void gemm_fetch_some(gemm_fetch *f)
{
    for (int64_t i = 0; i < f->lines && f->row_end - f->row_nbytes < f->end; i++) {
        __builtin_prefetch(f->next, 0, 2);
        f->next += LINE_NBYTES;
        if (f->next < f->row_end) continue;
        f->row_end += f->stride;
        f->next = f->row_end - f->row_nbytes;
    }
}
