/* backend/cpu/attention_product.c - loops over micro-kernels */
#include "backend/cpu/attention_product.h"

#include <string.h>

bool attention_in_place(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t d)
{
    return rows->dtype == TSR_F32 && rows->col == 1 && d % gemm->nr == 0 && rows->row % 256 != 0;
}

const tsr_gemm_kernel *attention_gemm(const tsr_cpu *cpu, const tsr_attention_fwd_args *a)
{
    const bool bf16 = a->q.dtype == TSR_BF16 && a->k.dtype == TSR_BF16;
    return bf16 && cpu->gemm_bf16 != NULL ? cpu->gemm_bf16 : cpu->gemm_f32;
}

attention_left attention_left_of(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                 int64_t d, float *copy, int64_t copy_stride)
{
    if (gemm->k_word == 1) {
        const attention_right m = attention_right_of(gemm, rows, n, d, copy, copy_stride);
        return (attention_left){m.data, m.row};
    }
    /* In place where no padding is missing and rows do not share the sets of the first cache. */
    if (rows->col == 1 && d % (gemm->k_word * gemm->k_align) == 0 && rows->row % 512 != 0)
        return (attention_left){rows->data, rows->row};
    gemm->pack_a(copy, copy_stride, rows->data, rows->row, rows->col, n, d, 0, NULL, 0);
    return (attention_left){copy, copy_stride * gemm->k_word};
}

attention_right attention_pack_right(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                     int64_t d, float *to)
{
    const int64_t nr = gemm->nr, words = attention_words(gemm, n);
    const int64_t nbytes = (int64_t)tsr_dtype_nbytes(rows->dtype);
    for (int64_t j = 0; j < d; j += nr)
        gemm->pack_b(to + j * words, (const char *)rows->data + j * rows->col * nbytes, rows->dtype,
                     rows->row, rows->col, n, attention_min(nr, d - j));
    return (attention_right){to, nr, nr * words};
}

attention_right attention_right_of(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                   int64_t d, float *copy, int64_t copy_stride)
{
    if (gemm->k_word != 1) return attention_pack_right(gemm, rows, n, d, copy);
    if (attention_in_place(gemm, rows, d)) return (attention_right){rows->data, rows->row, gemm->nr};
    gemm->pack(copy, copy_stride, rows->data, rows->dtype, rows->row, rows->col, n, d);
    return (attention_right){copy, copy_stride, gemm->nr};
}

bool attention_right_is_finite(const tsr_cpu *cpu, const tsr_gemm_kernel *gemm, const attention_right *x,
                               int64_t n, int64_t d)
{
    const tsr_attention_score_f32_kernel *score = cpu->attention_score_f32;
    const int64_t nr = gemm->nr;
    if (gemm->k_word == 1 && x->strip == nr) return score->finite(x->data, x->row, n, d); /* whole rows */
    const int64_t words = attention_words(gemm, n) * attention_round_up(d, nr);
    return gemm->k_word == 1 ? score->finite(x->data, nr, words / nr, nr)
                             : score->finite_bf16(x->data, words);
}

static const void *at(const attention_product *p, int64_t row, int64_t k)
{
    return (const char *)p->a + (row * p->a_row + k * p->a_k) * (4 / p->gemm->k_word);
}

static tsr_gemm_tile tile_of(const attention_product *p)
{
    return (tsr_gemm_tile){.k = attention_words(p->gemm, p->k),
                           .a_row = p->a_row,
                           .a_k = p->a_k,
                           .b_row = p->b_row,
                           .c_row = p->c_row,
                           .c_is_near = true,
                           .alpha = p->alpha,
                           .beta = p->beta};
}

void attention_fetch_later(attention_fetch *f, const attention_rows *rows, int64_t n, int64_t d)
{
    if (rows->data == NULL || rows->col != 1 || n <= 0 || d <= 0) return;
    const int64_t nbytes = (int64_t)tsr_dtype_nbytes(rows->dtype);
    const int32_t i = f->n_blocks++;
    f->blocks[i].row = rows->data;
    f->blocks[i].stride_nbytes = rows->row * nbytes;
    f->blocks[i].row_nbytes = d * nbytes;
    f->blocks[i].n_rows = n;
}

/* Few enough lines that the cache still has room for the misses of the product itself. */
void attention_fetch_some(void *later)
{
    attention_fetch *f = later;
    enum { LINES = 8, LINE_NBYTES = 64 };
    if (f == NULL) return;
    for (int i = 0; i < LINES && f->block < f->n_blocks; i++) {
        __builtin_prefetch(f->blocks[f->block].row + f->done);
        f->done += LINE_NBYTES;
        if (f->done < f->blocks[f->block].row_nbytes) continue;
        f->done = 0;
        f->blocks[f->block].row += f->blocks[f->block].stride_nbytes;
        if (--f->blocks[f->block].n_rows == 0) f->block++;
    }
}

/* Gives the next run its share of what is wanted next. */
static void fetch_ahead(tsr_gemm_tile *t, const float **ahead, int64_t nr)
{
    if (*ahead == NULL) return;
    t->ahead = *ahead;
    t->ahead_step = nr * (int64_t)sizeof(float);
    *ahead += t->k * nr;
}

void attention_product_columns(const attention_product *p, const attention_span *columns)
{
    const int64_t mr = p->gemm->mr, nr = p->gemm->nr;
    tsr_gemm_tile t = tile_of(p);
    t.sums_may_stay = true;
    const float *ahead = p->ahead;
    for (int64_t i = 0, g = 0; i < p->m; i += mr, g++) { /* a group of A stays in the first cache */
        t.a = at(p, i, 0);
        for (int64_t j = 0; j < p->n; j += nr) {
            if (columns[g].begin >= attention_min(j + nr, columns[g].end) || columns[g].end <= j) continue;
            t.b = p->b + j / nr * p->b_strip;
            t.c = p->c + i * p->c_row + j;
            attention_fetch_some(p->fetch);
            fetch_ahead(&t, &ahead, nr);
            p->gemm->run(&t, attention_min(mr, p->m - i), nr);
        }
    }
    if (p->gemm->finish != NULL) p->gemm->finish();
}

/* C += A B, each tile over the depth of its group of rows, or of its strip. */
static void sum_over(const attention_product *p, const attention_span *depth, bool of_strips)
{
    const int64_t mr = p->gemm->mr, nr = p->gemm->nr;
    tsr_gemm_tile t = tile_of(p);
    t.sums_may_stay = true;
    const float *ahead = p->ahead;
    for (int64_t i = 0; i < p->m; i += mr)
        for (int64_t j = 0; j < p->n; j += nr) {
            const attention_span steps = depth[of_strips ? j / nr : i / mr];
            t.k = attention_words(p->gemm, steps.end - steps.begin);
            if (t.k <= 0 && p->beta != 0) continue;
            t.a = at(p, i, steps.begin);
            t.b = p->b + j / nr * p->b_strip + steps.begin / p->gemm->k_word * p->b_row;
            t.c = p->c + i * p->c_row + j;
            t.ahead_c = p->beta != 0 && j + nr < p->n ? (float *)t.c + nr : NULL;
            fetch_ahead(&t, &ahead, nr);
            attention_fetch_some(p->fetch);
            p->gemm->run(&t, attention_min(mr, p->m - i), attention_min(nr, p->n - j));
        }
    if (p->gemm->finish != NULL) p->gemm->finish();
}

void attention_product_depth(const attention_product *p, const attention_span *depth)
{
    sum_over(p, depth, false);
}

void attention_product_strips(const attention_product *p, const attention_span *depth)
{
    sum_over(p, depth, true);
}

/* Element k of every column of a strip becomes 0. */
static void clear_step(const tsr_gemm_kernel *gemm, float *strip, int64_t k)
{
    const int64_t size = 4 / gemm->k_word;
    char *word = (char *)(strip + k / gemm->k_word * gemm->nr) + k % gemm->k_word * size;
    for (int64_t j = 0; j < gemm->nr; j++) memset(word + 4 * j, 0, (size_t)size);
}

void attention_product_visible(const attention_product *p, const attention_span *depth,
                               const attention_pairs *pairs, float *scratch)
{
    const int64_t nr = p->gemm->nr;
    tsr_gemm_tile t = tile_of(p);
    t.b = scratch, t.b_row = nr;
    for (int64_t i = 0; i < p->m; i++) {
        const attention_span steps = depth[i / p->gemm->mr];
        t.k = attention_words(p->gemm, steps.end - steps.begin);
        t.a = at(p, i, steps.begin);
        for (int64_t j = 0; j < p->n; j += nr) {
            const float *b = p->b + j / nr * p->b_strip + steps.begin / p->gemm->k_word * p->b_row;
            for (int64_t w = 0; w < t.k; w++)
                memcpy(scratch + w * nr, b + w * p->b_row, (size_t)nr * sizeof *scratch);
            for (int64_t s = steps.begin; s < steps.begin + t.k * p->gemm->k_word; s++) {
                const int64_t query = pairs->row + (pairs->transposed ? s : i);
                const int64_t key = pairs->column + (pairs->transposed ? i : s);
                if (s >= steps.end || !attention_sees(pairs->features, query, key))
                    clear_step(p->gemm, scratch, s - steps.begin);
            }
            t.c = p->c + i * p->c_row + j;
            p->gemm->run(&t, 1, attention_min(nr, p->n - j));
        }
    }
}
