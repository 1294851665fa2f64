/* backend/cpu/attention_product.c - loops over micro-kernels */
#include "backend/cpu/attention_product.h"

#include <string.h>

bool attention_in_place(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t d)
{
    return rows->dtype == TSR_F32 && rows->col == 1 && d % gemm->nr == 0 && rows->row % 256 != 0;
}

attention_matrix attention_f32_rows(const tsr_gemm_kernel *gemm, const attention_rows *rows, int64_t n,
                                    int64_t d, float *copy, int64_t copy_stride)
{
    if (attention_in_place(gemm, rows, d)) return (attention_matrix){rows->data, rows->row};
    gemm->pack(copy, copy_stride, rows->data, rows->dtype, rows->row, rows->col, n, d);
    return (attention_matrix){copy, copy_stride};
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
    tsr_gemm_tile t = {.k = p->k,
                       .a_row = p->a_row,
                       .a_k = p->a_k,
                       .b_row = p->b_row,
                       .c_row = p->c_row,
                       .alpha = p->alpha,
                       .beta = p->beta};
    const float *ahead = p->ahead;
    for (int64_t j = 0; j < p->n; j += nr) { /* a strip of B stays in the first cache for all groups */
        t.b = p->b + j / nr * p->b_strip;
        for (int64_t i = 0, g = 0; i < p->m; i += mr, g++) {
            if (columns[g].begin >= attention_min(j + nr, columns[g].end) || columns[g].end <= j) continue;
            t.a = p->a + i * p->a_row;
            t.c = p->c + i * p->c_row + j;
            fetch_ahead(&t, &ahead, nr);
            p->gemm->run(&t, attention_min(mr, p->m - i), nr);
        }
    }
}

void attention_product_depth(const attention_product *p, const attention_span *depth)
{
    const int64_t mr = p->gemm->mr, nr = p->gemm->nr;
    tsr_gemm_tile t = {.a_row = p->a_row,
                       .a_k = p->a_k,
                       .b_row = p->b_row,
                       .c_row = p->c_row,
                       .alpha = p->alpha,
                       .beta = p->beta};
    const float *ahead = p->ahead;
    for (int64_t j = 0; j < p->n; j += nr) {
        const int64_t n = attention_min(nr, p->n - j);
        for (int64_t i = 0, g = 0; i < p->m; i += mr, g++) {
            t.k = depth[g].end - depth[g].begin;
            if (t.k <= 0 && p->beta != 0) continue;
            t.a = p->a + i * p->a_row + depth[g].begin * p->a_k;
            t.b = p->b + j / nr * p->b_strip + depth[g].begin * p->b_row;
            t.c = p->c + i * p->c_row + j;
            fetch_ahead(&t, &ahead, nr);
            p->gemm->run(&t, attention_min(mr, p->m - i), n);
        }
    }
}

void attention_product_visible(const attention_product *p, const attention_pairs *pairs, float *scratch)
{
    const int64_t nr = p->gemm->nr;
    float *a = scratch, *b = scratch + p->k;
    tsr_gemm_tile t = {.a = a, .a_row = 0, .a_k = 1, .b = b, .b_row = nr, .alpha = p->alpha, .beta = p->beta};
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j += nr) {
            t.k = 0;
            for (int64_t s = 0; s < p->k; s++) {
                const int64_t query = pairs->row + (pairs->transposed ? s : i);
                const int64_t key = pairs->column + (pairs->transposed ? i : s);
                if (!attention_sees(pairs->features, query, key)) continue;
                a[t.k] = p->a[i * p->a_row + s * p->a_k];
                memcpy(b + t.k * nr, p->b + j / nr * p->b_strip + s * p->b_row, (size_t)nr * sizeof *b);
                t.k++;
            }
            t.c = p->c + i * p->c_row + j;
            p->gemm->run(&t, 1, attention_min(nr, p->n - j));
        }
    }
}
