/*
 * backend/reference/gemm.c - C = alpha A B + beta C for each product of the batch
 *
 * beta = 0 never reads C. An s8 product sums exactly: 2^53 is far above what 2^31 elements reach.
 */
#include <assert.h>

#include "backend/reference/reference.h"

/* Product (b, h)'s matrix as a view; its group's one where heads share. */
static tsr_tensor matrix_of(const tsr_gemm_matrix *x, int64_t b, int64_t h, int64_t num_heads)
{
    tsr_tensor t = {.data = x->data, .dtype = x->dtype, .rank = 2, .stride = {x->row, x->col}};
    if (x->pointers != NULL) {
        const int64_t entry = b * num_heads + h / x->group;
        t.data = x->pointers[entry];
        if (x->strides != NULL) t.stride[x->strides_are_cols ? 1 : 0] = x->strides[entry];
    } else {
        t.data = tsr_tensor_at(&t, b * x->batch + h / x->group * x->head);
    }
    return t;
}

static void multiply(const tsr_gemm_args *g, const tsr_tensor *a, const tsr_tensor *b, const tsr_tensor *c)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < g->k; p++)
                sum += ref_get(a, i * a->stride[0] + p * a->stride[1]) *
                       ref_get(b, p * b->stride[0] + j * b->stride[1]);
            const int64_t at = i * c->stride[0] + j * c->stride[1];
            sum *= g->alpha;
            if (g->beta != 0) sum += g->beta * ref_get(c, at);
            ref_set(c, at, sum);
        }
}

tsr_status ref_gemm(void *state, const tsr_gemm_args *g, void *workspace)
{
    (void)state, (void)workspace;
    assert(g->c.group == 1); /* two products of one C would overwrite each other */
    for (int64_t b = 0; b < g->batch; b++)
        for (int64_t h = 0; h < g->num_heads; h++) {
            const tsr_tensor a_bh = matrix_of(&g->a, b, h, g->num_heads);
            const tsr_tensor b_bh = matrix_of(&g->b, b, h, g->num_heads);
            const tsr_tensor c_bh = matrix_of(&g->c, b, h, g->num_heads);
            multiply(g, &a_bh, &b_bh, &c_bh);
        }
    return TSR_OK;
}
