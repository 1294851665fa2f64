/*
 * check_attention_steps.c - docs/ATTENTION.md worked through by hand: B = 2, H = 4, T = 8, D = 16
 *
 * Each section of that page is a function below, in plain loops over doubles; each form is held against the
 * one before it, and the last against the library. The same again with T = 24, as 16 queries or fewer go
 * another way there, and with a causal mask.
 */
#include <math.h>
#include <string.h>

#include "kit/attention.h"
#include "kit/compare.h"
#include "kit/isa.h"
#include "tessera/gemm.h"

enum { B = 2, H = 4, D = 16, T_MAX = 24, BLOCK = 3 }; /* BLOCK: keys of a block, queries of a block */

static const double scale = 0.25; /* 1 / sqrt(D) */

/* One head of one sequence. */
typedef struct head {
    int t;
    bool causal;
    double q[T_MAX][D], k[T_MAX][D], v[T_MAX][D], d_o[T_MAX][D];
    double s[T_MAX][T_MAX], p[T_MAX][T_MAX], o[T_MAX][D], lse[T_MAX];
    double dp[T_MAX][T_MAX], ds[T_MAX][T_MAX], delta[T_MAX];
    double dq[T_MAX][D], dk[T_MAX][D], dv[T_MAX][D];
} head;

static void expect_near(double got, double expected, const char *what)
{
    if (!(fabs(got - expected) <= 1e-12 * (1 + fabs(expected))) && got != expected)
        kit_fail("%s is %.17g, must be %.17g", what, got, expected);
}

static double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* y += a x */
static void axpy(double *y, double a, const double *x, int n)
{
    for (int i = 0; i < n; i++) y[i] += a * x[i];
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* --- 1: strides --- */

/* One view of [B, H, T, D] in memory of [B, T, H, D]; K^T is a view of K with its strides exchanged. */
static void test_strides(void **state)
{
    (void)state;
    static float memory[B * 8 * H * D];
    for (int i = 0; i < B * 8 * H * D; i++) memory[i] = (float)i;
    const tsr_tensor bthd = tsr_tensor_4d(memory, TSR_F32, B, 8, H, D);
    const tsr_tensor bhtd = tsr_tensor_transpose(&bthd, 1, 2), swapped = tsr_tensor_transpose(&bhtd, 2, 3);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < 8; t++)
                for (int d = 0; d < D; d++) {
                    const double at = ((b * 8 + t) * H + h) * D + d;
                    assert_true(kit_get(&bhtd, ((b * H + h) * 8 + t) * D + d) == at);
                    assert_true(kit_get(&swapped, ((b * H + h) * D + d) * 8 + t) == at);
                }
    assert_true(bhtd.stride[2] == H * D && bhtd.stride[3] == 1);       /* row-major   */
    assert_true(swapped.stride[2] == 1 && swapped.stride[3] == H * D); /* column-major */
}

/* --- 3: the product in blocks --- */

/* 8 x 4 by 4 x 8 in four blocks of 4 x 4, each the sum of two products over 2 of k. */
static void test_block_product(void **state)
{
    (void)state;
    float a[8][4], b[4][8], whole[8][8], blocks[8][8] = {{0}};
    for (int i = 0; i < 32; i++) a[i / 4][i % 4] = (float)(i % 7 - 3), b[i / 8][i % 8] = (float)(i % 5 - 2);
    for (int i0 = 0; i0 < 8; i0 += 4)
        for (int j0 = 0; j0 < 8; j0 += 4)
            for (int k0 = 0; k0 < 4; k0 += 2)
                for (int k = k0; k < k0 + 2; k++) /* the micro-kernel: column k of A by row k of B */
                    for (int i = i0; i < i0 + 4; i++)
                        for (int j = j0; j < j0 + 4; j++) blocks[i][j] += a[i][k] * b[k][j];
    const tsr_tensor ta = tsr_tensor_2d(a, TSR_F32, 8, 4), tb = tsr_tensor_2d(b, TSR_F32, 4, 8),
                     tc = tsr_tensor_2d(whole, TSR_F32, 8, 8);
    KIT_OK(tsr_matmul2d(kit_cpu(), 1, &ta, &tb, 0, &tc, NULL));
    assert_memory_equal(whole, blocks, sizeof whole); /* small integers: exact in any order */
}

/* --- 4: softmax --- */

static void scores(head *x)
{
    for (int i = 0; i < x->t; i++)
        for (int j = 0; j < x->t; j++)
            x->s[i][j] = x->causal && j > i ? -INFINITY : scale * dot(x->q[i], x->k[j], D);
}

/* Three passes: maximum, sum, division. Leaves P, lse and O: the truth for what follows. */
static void softmax_in_three_passes(head *x)
{
    for (int i = 0; i < x->t; i++) {
        double m = -INFINITY, l = 0;
        for (int j = 0; j < x->t; j++) m = fmax(m, x->s[i][j]);
        for (int j = 0; j < x->t; j++) l += exp(x->s[i][j] - m);
        memset(x->o[i], 0, sizeof x->o[i]);
        for (int j = 0; j < x->t; j++) {
            x->p[i][j] = exp(x->s[i][j] - m) / l;
            axpy(x->o[i], x->p[i][j], x->v[j], D);
        }
        x->lse[i] = m + log(l);
    }
}

/* Two: the running sum shrinks when the running maximum rises. The induction of the page, at every step. */
static void softmax_in_two_passes(const head *x)
{
    for (int i = 0; i < x->t; i++) {
        double m = -INFINITY, l = 0;
        for (int j = 0; j < x->t; j++) {
            const double m_new = fmax(m, x->s[i][j]);
            l = l * exp(m - m_new) + exp(x->s[i][j] - m_new);
            m = m_new;
            double sum = 0;
            for (int n = 0; n <= j; n++) sum += exp(x->s[i][n] - m);
            expect_near(l, sum, "the running sum");
        }
        for (int j = 0; j < x->t; j++) expect_near(exp(x->s[i][j] - m) / l, x->p[i][j], "P of two passes");
        expect_near(m + log(l), x->lse[i], "lse of two passes");
    }
}

/* One: O is a sum of the same kind as l, so it shrinks likewise, and P is never there. */
static void softmax_in_one_pass(const head *x)
{
    for (int i = 0; i < x->t; i++) {
        double m = -INFINITY, l = 0, o[D] = {0};
        for (int j = 0; j < x->t; j++) {
            const double m_new = fmax(m, x->s[i][j]), shrink = exp(m - m_new), p = exp(x->s[i][j] - m_new);
            l = l * shrink + p;
            for (int d = 0; d < D; d++) o[d] = o[d] * shrink + p * x->v[j][d];
            m = m_new;
        }
        for (int d = 0; d < D; d++) expect_near(o[d] / l, x->o[i][d], "O of one pass");
    }
}

/* --- 5: a block at a time --- */

/* What a block of keys leaves of a row: its maximum, its sum, its O, the last two relative to the first. */
typedef struct part {
    double m, l, o[D];
} part;

static part nothing(void) { return (part){.m = -INFINITY}; }

static part merged(const part *a, const part *b)
{
    part r = {.m = fmax(a->m, b->m)};
    const double wa = a->m == -INFINITY ? 0 : exp(a->m - r.m), wb = b->m == -INFINITY ? 0 : exp(b->m - r.m);
    r.l = a->l * wa + b->l * wb;
    axpy(r.o, wa, a->o, D);
    axpy(r.o, wb, b->o, D);
    return r;
}

static part part_of(const head *x, int i, int begin, int end)
{
    part r = nothing();
    for (int j = begin; j < end; j++) r.m = fmax(r.m, x->s[i][j]);
    for (int j = begin; j < end && r.m != -INFINITY; j++) {
        const double p = exp(x->s[i][j] - r.m);
        r.l += p;
        axpy(r.o, p, x->v[j], D);
    }
    return r;
}

static void check_part(const head *x, int i, const part *r, const char *what)
{
    for (int d = 0; d < D; d++) expect_near(r->o[d] / r->l, x->o[i][d], what);
    expect_near(r->m + log(r->l), x->lse[i], what);
}

/* Block after block from the left, and halves on their own: in exact arithmetic the order is free. */
static void softmax_in_blocks(const head *x)
{
    for (int i = 0; i < x->t; i++) {
        part all = nothing(), halves[2];
        for (int begin = 0; begin < x->t; begin += BLOCK) {
            const part block = part_of(x, i, begin, smaller(begin + BLOCK, x->t));
            all = merged(&all, &block);
        }
        check_part(x, i, &all, "softmax in blocks");
        for (int n = 0; n < 2; n++) halves[n] = part_of(x, i, n * x->t / 2, (n + 1) * x->t / 2);
        const part forth = merged(&halves[0], &halves[1]), back = merged(&halves[1], &halves[0]);
        check_part(x, i, &forth, "softmax in halves");
        check_part(x, i, &back, "softmax in halves, the right one first");
    }
}

/* --- 6: flash attention, forward --- */

/* Blocks of queries by blocks of keys; S exists one tile at a time. In base 2, and m may lag behind by 8. */
static void flash_forward(const head *x)
{
    const double log2_e = 1.4426950408889634;
    for (int i0 = 0; i0 < x->t; i0 += BLOCK) {
        const int i1 = smaller(i0 + BLOCK, x->t);
        double m[BLOCK], l[BLOCK] = {0}, o[BLOCK][D] = {{0}}, tile[BLOCK][BLOCK];
        for (int i = 0; i < BLOCK; i++) m[i] = -INFINITY;
        for (int j0 = 0; j0 < x->t; j0 += BLOCK) {
            const int j1 = smaller(j0 + BLOCK, x->t);
            if (x->causal && j0 > i1 - 1) break; /* all hidden from here on */
            for (int i = i0; i < i1; i++) {
                double *s = tile[i - i0], top = -INFINITY, *to = o[i - i0];
                for (int j = j0; j < j1; j++) {
                    s[j - j0] = x->causal && j > i ? -INFINITY : scale * log2_e * dot(x->q[i], x->k[j], D);
                    top = fmax(top, s[j - j0]);
                }
                if (top > m[i - i0] + 8) {
                    const double shrink = exp2(m[i - i0] - top);
                    l[i - i0] *= shrink;
                    for (int d = 0; d < D; d++) to[d] *= shrink;
                    m[i - i0] = top;
                }
                for (int j = j0; j < j1; j++) {
                    const double p = exp2(s[j - j0] - m[i - i0]);
                    l[i - i0] += p;
                    axpy(to, p, x->v[j], D);
                }
            }
        }
        for (int i = i0; i < i1; i++) {
            for (int d = 0; d < D; d++)
                expect_near(o[i - i0][d] / l[i - i0], x->o[i][d], "O of flash attention");
            expect_near(m[i - i0] / log2_e + log(l[i - i0]), x->lse[i], "lse of flash attention");
        }
    }
}

/* --- 7: backward --- */

static void softmax_of(const double *s, int n, double *p)
{
    double m = -INFINITY, l = 0;
    for (int j = 0; j < n; j++) m = fmax(m, s[j]);
    for (int j = 0; j < n; j++) l += p[j] = exp(s[j] - m);
    for (int j = 0; j < n; j++) p[j] /= l;
}

/* J = diag(p) - p p^T, held against differences; dS = J dP in full, which is what the short form must give.
 */
static void through_the_jacobian(head *x)
{
    const double step = 1e-5;
    for (int i = 0; i < x->t; i++) {
        memset(x->ds[i], 0, sizeof x->ds[i]);
        for (int j = 0; j < x->t; j++) {
            double s[T_MAX], above[T_MAX], below[T_MAX];
            memcpy(s, x->s[i], sizeof s);
            s[j] = x->s[i][j] + step, softmax_of(s, x->t, above);
            s[j] = x->s[i][j] - step, softmax_of(s, x->t, below);
            for (int n = 0; n < x->t; n++) {
                const double jacobian = (n == j ? x->p[i][n] : 0) - x->p[i][n] * x->p[i][j];
                if (fabs((above[n] - below[n]) / (2 * step) - jacobian) > 1e-9)
                    kit_fail("dP[%d] / dS[%d] is %g, differences say %g", n, j, jacobian,
                             (above[n] - below[n]) / (2 * step));
                x->ds[i][j] += jacobian * x->dp[i][n];
            }
        }
    }
}

/* Step by step from the end: O = P V, P = softmax(S), S = scale Q K^T. */
static void backward(head *x)
{
    for (int i = 0; i < x->t; i++)
        for (int j = 0; j < x->t; j++) x->dp[i][j] = dot(x->d_o[i], x->v[j], D);
    through_the_jacobian(x);
    memset(x->dq, 0, sizeof x->dq), memset(x->dk, 0, sizeof x->dk), memset(x->dv, 0, sizeof x->dv);
    for (int i = 0; i < x->t; i++) {
        x->delta[i] = dot(x->d_o[i], x->o[i], D);
        expect_near(x->delta[i], dot(x->p[i], x->dp[i], x->t), "delta as a sum over keys");
        for (int j = 0; j < x->t; j++) {
            expect_near(x->p[i][j] * (x->dp[i][j] - x->delta[i]), x->ds[i][j], "dS by delta");
            axpy(x->dv[j], x->p[i][j], x->d_o[i], D);
            axpy(x->dq[i], scale * x->ds[i][j], x->k[j], D);
            axpy(x->dk[j], scale * x->ds[i][j], x->q[i], D);
        }
    }
}

/* Blocks of keys outside, queries inside; P again from q, k and lse: neither S nor P was kept. */
static void flash_backward(const head *x)
{
    double dq[T_MAX][D] = {{0}}, dk[T_MAX][D] = {{0}}, dv[T_MAX][D] = {{0}};
    for (int j0 = 0; j0 < x->t; j0 += BLOCK)
        for (int i0 = x->causal ? j0 / BLOCK * BLOCK : 0; i0 < x->t; i0 += BLOCK)
            for (int i = i0; i < smaller(i0 + BLOCK, x->t); i++)
                for (int j = j0; j < smaller(j0 + BLOCK, x->t); j++) {
                    if (x->causal && j > i) continue;
                    const double p = exp(scale * dot(x->q[i], x->k[j], D) - x->lse[i]);
                    const double ds = p * (dot(x->d_o[i], x->v[j], D) - x->delta[i]);
                    axpy(dv[j], p, x->d_o[i], D);
                    axpy(dk[j], scale * ds, x->q[i], D);
                    axpy(dq[i], scale * ds, x->k[j], D);
                }
    for (int i = 0; i < x->t * D; i++) {
        expect_near(dq[i / D][i % D], x->dq[i / D][i % D], "dQ in blocks");
        expect_near(dk[i / D][i % D], x->dk[i / D][i % D], "dK in blocks");
        expect_near(dv[i / D][i % D], x->dv[i / D][i % D], "dV in blocks");
    }
}

/* --- the library --- */

static void take(double to[T_MAX][D], const tsr_tensor *from, int index, int t)
{
    for (int i = 0; i < t * D; i++) to[i / D][i % D] = kit_get(from, (int64_t)index * t * D + i);
}

static void give(const tsr_tensor *to, double from[T_MAX][D], int index, int t)
{
    for (int i = 0; i < t * D; i++) kit_set(to, (int64_t)index * t * D + i, from[i / D][i % D]);
}

static kit_attention inputs(int t, bool causal)
{
    kit_attention c = {.dtype = TSR_F32, .grad_dtype = TSR_F32, .b = B, .hq = H, .hkv = H, .lq = t, .lk = t};
    c.d = c.dv = D, c.options.causal = causal;
    tsr_tensor *const all[] = {&c.q, &c.k, &c.v, &c.dout};
    for (int i = 0; i < 4; i++) *all[i] = kit_normal(KIT_NEW(TSR_F32, kit_any_output(), B, H, t, D));
    return c;
}

static void check_library(const kit_attention *c, const kit_attention_result *by_hand)
{
    kit_attention exact = kit_attention_f64(c);
    const kit_attention_result reference = kit_attention_run(kit_reference(), &exact, KIT_FUSED);
    const kit_attention_result unfused = kit_attention_run(kit_cpu(), c, KIT_UNFUSED);
    const kit_attention_result fused = kit_attention_run(kit_cpu(), c, KIT_FUSED);
    for (int i = 0; i < 5; i++) {
        const tsr_tensor *truth = kit_attention_result_at(by_hand, i);
        const char *name = kit_attention_result_names[i];
        kit_check(kit_attention_result_at(&reference, i), truth, (kit_bound){.abs = 1e-12}, "%s, reference",
                  name);
        kit_check(kit_attention_result_at(&unfused, i), truth, (kit_bound){.abs = 1e-5}, "%s, unfused", name);
        kit_check(kit_attention_result_at(&fused, i), truth, (kit_bound){.abs = 1e-5}, "%s, fused", name);
    }
}

static void work_through(int t, bool causal)
{
    static head x;
    const kit_attention c = inputs(t, causal);
    kit_attention_result by_hand = {.out = kit_f64(&c.q), .dq = kit_f64(&c.q), .dk = kit_f64(&c.q)};
    by_hand.dv = kit_f64(&c.q), by_hand.lse = KIT_NEW(TSR_F64, KIT_ROWS, B, H, t);
    for (int n = 0; n < B * H; n++) {
        memset(&x, 0, sizeof x);
        x.t = t, x.causal = causal;
        take(x.q, &c.q, n, t), take(x.k, &c.k, n, t), take(x.v, &c.v, n, t), take(x.d_o, &c.dout, n, t);
        scores(&x);
        softmax_in_three_passes(&x);
        softmax_in_two_passes(&x);
        softmax_in_one_pass(&x);
        softmax_in_blocks(&x);
        flash_forward(&x);
        backward(&x);
        flash_backward(&x);
        give(&by_hand.out, x.o, n, t), give(&by_hand.dq, x.dq, n, t);
        give(&by_hand.dk, x.dk, n, t), give(&by_hand.dv, x.dv, n, t);
        for (int i = 0; i < t; i++) kit_set(&by_hand.lse, (int64_t)n * t + i, x.lse[i]);
    }
    check_library(&c, &by_hand);
    kit_free_all();
}

static void test_by_hand(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        work_through(8, causal);
        work_through(T_MAX, causal);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_block_product),
        cmocka_unit_test(test_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
