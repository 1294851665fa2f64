/* tests/kit/attention_judge.c - whether a result of attention is right, and whether two are the same */
#include <math.h>

#include "backend/cpu/cpu.h"
#include "kit/attention.h"
#include "kit/compare.h"

/* How many scores an element of dbias or dsinks sums over; 1 for the rest. */
static double n_summed(const kit_attention *c, const tsr_tensor *t, int i)
{
    const double n = (double)(c->b * c->hq * c->lq) * (i == 5 ? (double)c->lk : 1);
    return i < 5 || n == 0 ? 1 : n / (double)tsr_tensor_numel(t);
}

/*
 * What a sane computation keeps to, where terms cancel too: a rounded O spoils delta, which dS subtracts; and
 * P errs as much as the scores do, which are about as large as the largest lse.
 */
static kit_bound sane(const kit_attention *c, const kit_attention_result *truth, int i)
{
    const tsr_tensor *expected = kit_attention_result_at(truth, i);
    const double unit = c->dtype == TSR_F32 ? 0x1p-24 : c->dtype == TSR_F16 ? 0x1p-11 : 0x1p-8;
    const double sum = (c->dtype == TSR_F32 ? 400 : 32) * unit;
    const double scores = 8 * sqrt((double)c->d) * 0x1p-24 * kit_max_abs(&truth->lse);
    double scale = 1;
    if (i == 2 || i == 3) /* dS times scale and k or q */
        scale = fmax(1, fabs((double)c->options.scale)) * fmax(1, kit_max_abs(i == 2 ? &c->k : &c->q) / 5);
    double n = n_summed(c, expected, i);
    const int64_t group = c->hq / c->hkv;
    if ((i == 3 || i == 4) && c->lk > 0) n += (double)(c->lq * group) / (double)c->lk;
    const double size = kit_max_abs(expected) + 2 * sqrt(n);
    return (kit_bound){.abs = (sum + scores) * scale * size};
}

/*
 * Few queries' forward sums over D in another order than backward does: P comes out of a score and an lse
 * whose roundings differ, and the unfused form's do not. Then it keeps to what is sane, with room for luck.
 */
static bool recomputes_otherwise(const kit_attention *c, int i)
{
    for (int64_t b = 0; i >= 2 && b < c->b; b++) {
        const int64_t lq = kit_attention_lq(c, b);
        if (lq > 0 && lq <= TSR_DECODE_LQ) return true;
    }
    return false;
}

/* In a sum over many rows, or among few rows or elements, luck decides which form is closer. */
static bool is_luck(const kit_attention *c, const tsr_tensor *t, int i)
{
    return n_summed(c, t, i) > 1 || c->b * c->hq * c->lq < 64 || tsr_tensor_numel(t) < 2000;
}

/* What the unfused form's error, or what is sane, lets a result differ from the truth by. */
static kit_bound allowed(const kit_attention *c, const kit_attention_result *got,
                         const kit_attention_result *truth, const kit_attention_result *unfused, int i)
{
    const tsr_tensor *t = kit_attention_result_at(truth, i);
    const kit_bound bound = sane(c, truth, i);
    if (unfused == NULL) return bound;
    const tsr_tensor *u = kit_attention_result_at(unfused, i);
    const kit_difference d = kit_compare(u, t, bound);
    if (d.n_wrong > 0)
        kit_check(u, t, bound, "unfused %s, %s", kit_attention_result_names[i],
                  kit_attention_describe(c).text);
    double least = 0;
    if (recomputes_otherwise(c, i))
        least = bound.abs / 2;
    else if (is_luck(c, t, i))
        least = bound.abs / 16;
    /* The unfused form keeps P and dS in f32: where they are rounded to bf16, a gradient stored in f32 is no
     * closer than one in bf16. */
    const bool is_rounded = got->rounds && i >= 2 && i <= 4;
    const bool in_f32 = kit_attention_result_at(got, i)->dtype == TSR_F32;
    const double ulp = is_rounded && in_f32 ? kit_ulp(TSR_BF16, kit_max_abs(t)) : 0;
    return (kit_bound){.abs = fmax(2 * d.max_error, least) + 2 * ulp, .of_largest = 2};
}

void kit_attention_check(const kit_attention *c, const kit_attention_result *got,
                         const kit_attention_result *truth, const kit_attention_result *unfused)
{
    for (int i = 0; i < KIT_ATTENTION_RESULTS; i++) {
        const tsr_tensor *g = kit_attention_result_at(got, i);
        if (g->data != NULL)
            kit_check(g, kit_attention_result_at(truth, i), allowed(c, got, truth, unfused, i), "%s, %s",
                      kit_attention_result_names[i], kit_attention_describe(c).text);
    }
}

bool kit_attention_agrees(const kit_attention *c, const kit_attention_result *got,
                          const kit_attention_result *truth)
{
    for (int i = 0; i < KIT_ATTENTION_RESULTS; i++) {
        const tsr_tensor *g = kit_attention_result_at(got, i), *t = kit_attention_result_at(truth, i);
        if (g->data != NULL && !kit_agrees(g, t, sane(c, truth, i))) return false;
    }
    return true;
}

void kit_attention_same_bits(const kit_attention *c, const kit_attention_result *a,
                             const kit_attention_result *b, const char *what)
{
    for (int i = 0; i < KIT_ATTENTION_RESULTS; i++) {
        const tsr_tensor *x = kit_attention_result_at(a, i), *y = kit_attention_result_at(b, i);
        if (x->data != NULL && y->data != NULL && !kit_same_bits(x, y))
            kit_fail("%s: %s differs, %s", what, kit_attention_result_names[i],
                     kit_attention_describe(c).text);
    }
}
