/* tests/kit/attention_paged.c - cases of attention whose keys and values are in pages, or of 8 bits */
#include <math.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/attention.h"

/* A divisor of n: its pages are of one length, as bias and mask are n wide. */
static int64_t any_divisor(int64_t n)
{
    int64_t page = kit_between(1, n);
    while (n % page != 0) page--;
    return page;
}

/* Different numbers below n in random order. */
static void shuffle(int64_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = kit_between(0, i), t = x[i];
        x[i] = x[j], x[j] = t;
    }
}

/* [b, h, n * page ...] as [pages, page, h ...]; NaN (or the least number) in what no sequence uses. */
static tsr_tensor pool_of(const kit_attention *c, const tsr_tensor *t, const kit_attention *paged,
                          int64_t n_pages, int64_t page)
{
    const int64_t n = paged->block_table.shape[1], d = t->rank == 4 ? t->shape[3] : 1;
    const int64_t shape[] = {n_pages, page, c->hkv, d};
    const tsr_tensor pool = kit_constant(kit_new(t->dtype, kit_any_output(), t->rank, shape),
                                         t->dtype == TSR_S8 ? -128 : NAN);
    for (int64_t b = 0; b < c->b; b++)
        for (int64_t j = 0; j < kit_attention_lk(c, b); j++) {
            const int64_t entry = (int64_t)kit_get(&paged->block_table, b * n + j / page);
            for (int64_t h = 0; h < c->hkv; h++)
                for (int64_t i = 0; i < d; i++)
                    kit_set(&pool, ((entry * page + j % page) * c->hkv + h) * d + i,
                            kit_get(t, ((b * c->hkv + h) * c->lk + j) * d + i));
        }
    return pool;
}

kit_attention kit_attention_paged(const kit_attention *c)
{
    int64_t order[8192];
    kit_attention r = *c;
    const int64_t page = c->lk == 0 ? 4 : any_divisor(c->lk), n = c->lk / page;
    const int64_t n_pages = c->b * n + kit_between(1, 3);
    assert_true(n_pages <= 8192);
    shuffle(order, n_pages);
    r.block_table = KIT_NEW(TSR_I32, kit_any_output(), c->b, n);
    if (r.seqlens_k.data == NULL) r.seqlens_k = kit_constant(KIT_NEW(TSR_I32, KIT_GAPS, c->b), (double)c->lk);
    for (int64_t i = 0; i < c->b * n; i++) {
        const bool used = i % n * page < kit_attention_lk(c, i / n);
        kit_set(&r.block_table, i, used ? (double)order[i] : kit_one_in(2) ? -1 : 1e9);
    }
    r.k = pool_of(c, &c->k, &r, n_pages, page), r.v = pool_of(c, &c->v, &r, n_pages, page);
    if (c->k_scale.data == NULL) return r;
    r.k_scale = pool_of(c, &c->k_scale, &r, n_pages, page),
    r.v_scale = pool_of(c, &c->v_scale, &r, n_pages, page);
    return r;
}

/* Rows of numbers of 8 bits, and what a row's greatest magnitude is worth over 127. */
static tsr_tensor quantised(const tsr_tensor *t, tsr_tensor *scale)
{
    const tsr_tensor r = kit_like(t, TSR_S8, kit_any_output());
    *scale = kit_new(TSR_F32, kit_any_output(), 3, t->shape);
    const int64_t d = t->shape[3], n = tsr_tensor_numel(scale);
    for (int64_t row = 0; row < n; row++) {
        double top = 0;
        for (int64_t i = 0; i < d; i++) top = fmax(top, fabs(kit_get(t, row * d + i)));
        kit_set(scale, row, top / 127);
        for (int64_t i = 0; i < d; i++)
            kit_set(&r, row * d + i, nearbyint(kit_get(t, row * d + i) * 127 / top));
    }
    return r;
}

kit_attention kit_attention_int8(const kit_attention *c)
{
    kit_attention r = *c;
    r.k = quantised(&c->k, &r.k_scale), r.v = quantised(&c->v, &r.v_scale);
    return r;
}
