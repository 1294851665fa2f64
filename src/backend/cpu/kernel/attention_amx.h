/*
 * backend/cpu/kernel/attention_amx.h - attention's products and their softmax in one: P of 32 rows, in tiles
 *
 * Included by gemm_bf16_amx.c, whose tiles it shares. A block of 32 x 32 scores leaves the tiles for the
 * first cache, and its exponentials are taken while the next blocks are multiplied, some rows between every
 * two tile instructions:
 *
 *     tiles     block j, 16 keys and then the other 16; behind every two steps of it one of O += P V, where O
 *               and P are of the group of rows before
 *     stores    half a block, just before its tiles are taken over
 *     vectors   rows 0..31 of block j - 2
 *
 * What bounds it (Emerald Rapids): the softmax of a block takes the two vector units 410 cycles; the products
 * of D = 64 256; loads of a tile 10 cycles from the first cache, 24 from the second, 300 in all. One after
 * the other that was 790, and is 640. Rows stand between loads and products, as well as behind these, since
 * vectors use the same ports: 600 became 570 without the start and the end of a group. Where a gap between
 * tile instructions is longer than some 60 cycles, each costs the vectors 45 more; any one will do, a
 * TILE_ZERO too. With D = 128 the loads alone take 780 so, as P comes from the second cache, four times:
 * there O += P V waits for the softmax to end (values_words).
 *
 * Before its softmax, what the window hides in a block becomes -Inf, and rows without a maximum take theirs
 * from the block. The vector part takes for granted that maxima are nearer to 0 than 64, which is looked at
 * before, and that none rises by more than 8, which shows afterwards: P of 256 or more. Then the scores are
 * still there for the family that works on tiles of scores, which knows what to do, and whose bits are the
 * same.
 *
 * Backward has dP beside S, lse in the maximum's place, and nothing that rises:
 *
 *     tiles     S of block j      dP of j             S of block j + 1
 *     stores    dP of j - 1       S of j              dP of j
 *     vectors   rows 0..15, j-2   rows 16..31, j-2    rows 0..15, j - 1
 */
#ifndef TSR_KERNEL_ATTENTION_AMX_H
#define TSR_KERNEL_ATTENTION_AMX_H

#include "backend/cpu/kernel/attention_score_f32.h"
#include "backend/cpu/vec_lanes.h"
#include "backend/cpu/vec_math.h"

enum {
    MOST_CARRYING = 4,                        /* steps whose products have rows beside them */
    MOST_FETCHED = 16,                        /* lines before a block's products, from each place */
    SCORES_BEHIND = TSR_ATTENTION_BLOCKS - 1, /* blocks by which exponentials lag behind products */
    BF16_256 = 0x4380
};

/* A block on its way from scores to P. */
typedef struct softmax_block {
    float *s;
    const float *m;
    vf32 alpha;
    float *l, *l_next; /* [MR, VL]: what rows summed to before; and with the block */
    uint16_t *p;
    int64_t p_stride;
    vu32 largest; /* P so far, in each half lane */
} softmax_block;

TSR_INLINE void softmax_row(void *block, int64_t r)
{
    softmax_block *b = block;
    const vf32 base = vf32_splat(b->m[r]);
    const vf32 p0 = vf32_exp2_for_bf16(vf32_multiply_subtract(vf32_load(b->s + r * NR), b->alpha, base));
    const vf32 p1 = vf32_exp2_for_bf16(vf32_multiply_subtract(vf32_load(b->s + r * NR + VL), b->alpha, base));
    const vu32 pairs = vu32_pairs_from_vf32(p0, p1);
    vf32_store(b->l_next + r * VL, vf32_load(b->l + r * VL) + p0 + p1);
    vu32_store_up_to(b->p + r * b->p_stride, pairs, VL);
    b->largest = vu32_max_halves(b->largest, pairs);
}

/* Row r of what goes along with products; the blocks are those of their own. */
typedef void row_work(void *block, int64_t r);

/* Rows [first, first + n) that go along with a block's products; block NULL: none. Constants, but for it. */
typedef struct beside {
    row_work *work;
    void *block;
    int first, n;
} beside;

TSR_INLINE void work_beside(const beside rows, int from, int to)
{
    UNROLL for (int r = from; r < to; r++) if (rows.block != NULL && r < rows.n)
        rows.work(rows.block, rows.first + r);
}

/* The four products of a step, each with rows before it, from row `from` on; the first ones take the tiles
 * over from the last block, whose sums go to `last`, unless that is NULL. */
TSR_INLINE void multiply_step(const char *a, const char *b, const tile_product *p, const bool begins,
                              const int from, const int each, const beside rows, char *last)
{
    const int64_t stride = NR * 4;
    TILE_LOAD_ONCE(B0, b, p->b_stride);
    work_beside(rows, from, from + each);
    TILE_LOAD(A0, a, p->a_stride);
    if (begins && last != NULL) TILE_STORE(C00, last, stride);
    if (begins) TILE_ZERO(C00);
    TILE_ADD(C00, A0, B0);
    TILE_LOAD_ONCE(B1, b + TILE_NBYTES, p->b_stride);
    work_beside(rows, from + each, from + 2 * each);
    if (begins && last != NULL) TILE_STORE(C01, last + TILE_NBYTES, stride);
    if (begins) TILE_ZERO(C01);
    TILE_ADD(C01, A0, B1);
    TILE_LOAD(A1, a + TILE_ROWS * p->a_stride, p->a_stride);
    work_beside(rows, from + 2 * each, from + 3 * each);
    if (begins && last != NULL) TILE_STORE(C10, last + TILE_ROWS * stride, stride);
    if (begins) TILE_ZERO(C10);
    TILE_ADD(C10, A1, B0);
    work_beside(rows, from + 3 * each, from + 4 * each);
    if (begins && last != NULL) TILE_STORE(C11, last + TILE_ROWS * stride + TILE_NBYTES, stride);
    if (begins) TILE_ZERO(C11);
    TILE_ADD(C11, A1, B1);
}

/*
 * 32 rows times 32 keys: 4 n_steps products, and behind those of the first `carrying` steps the rows beside;
 * sums stay in the tiles. carrying, which there are at least, and whether there are rows beside are
 * constants: branches in here would cost an eighth.
 */
TSR_INLINE void multiply_beside(const tile_product *p, const int carrying, const beside rows, char *last)
{
    const int each = (rows.n / 4 + carrying - 1) / carrying;
    const int64_t b_step = TILE_ROWS * p->b_stride;
    const beside none = {.block = NULL};
    UNROLL for (int s = 0; s < carrying; s++)
        multiply_step(p->a + s * TILE_NBYTES, p->b + s * b_step, p, s == 0, 4 * s * each, each, rows, last);
    for (int64_t s = carrying; s < p->n_steps; s++)
        multiply_step(p->a + s * TILE_NBYTES, p->b + s * b_step, p, false, 0, 0, none, NULL);
}

/* --- forward --- */

/* O takes C's four tiles, so that scores have two, of 32 rows and 16 keys, and operands one each. */
#define S_UPPER 4
#define S_LOWER 5
#define LEFT    6
#define RIGHT   7

/* A product with V in work: its next step's operands, and the strip of O that the tiles hold. */
typedef struct values_work {
    const tsr_attention_values *x;
    const char *p, *v;
    char *o;
    int64_t left, strips; /* steps of this strip; strips, with it */
} values_work;

static void begin_strip(values_work *w)
{
    const tsr_attention_values *x = w->x;
    const int64_t stride = x->o_stride * 4;
    w->p = (const char *)x->p, w->left = x->depth / K_ALIGN;
    if (x->adds) {
        TILE_LOAD_ONCE(C00, w->o, stride);
        TILE_LOAD_ONCE(C01, w->o + TILE_NBYTES, stride);
        TILE_LOAD_ONCE(C10, w->o + TILE_ROWS * stride, stride);
        TILE_LOAD_ONCE(C11, w->o + TILE_ROWS * stride + TILE_NBYTES, stride);
    } else {
        TILE_ZERO(C00);
        TILE_ZERO(C01);
        TILE_ZERO(C10);
        TILE_ZERO(C11);
    }
}

static values_work begin_values(const tsr_attention_values *x)
{
    if (x == NULL) return (values_work){.strips = 0};
    values_work w = {.x = x, .v = (const char *)x->v, .o = (char *)x->o, .strips = x->n_strips};
    begin_strip(&w);
    return w;
}

static __attribute__((noinline)) void end_strip(values_work *w)
{
    const tsr_attention_values *x = w->x;
    store_tiles(w->o, x->o_stride * 4, true, true);
    w->o += NR * 4;
    w->v += (x->v_strip - x->depth * NR) * 4;
    if (--w->strips > 0) begin_strip(w);
}

/* A step of O += P V: four products, `each` rows before each of them, from row `from` on. */
TSR_INLINE void values_step(values_work *w, const int from, const int each, const beside rows)
{
    const int64_t p_stride = w->x->p_stride * ELEMENT_NBYTES, v_stride = NR * 4;
    const char *const p = w->p, *const v = w->v;
    TILE_LOAD_ONCE(RIGHT, v, v_stride);
    work_beside(rows, from, from + each / 2);
    TILE_LOAD(LEFT, p, p_stride);
    work_beside(rows, from + each / 2, from + each);
    TILE_ADD(C00, LEFT, RIGHT);
    TILE_LOAD(LEFT, p + TILE_ROWS * p_stride, p_stride);
    work_beside(rows, from + each, from + 2 * each);
    TILE_ADD(C10, LEFT, RIGHT);
    TILE_LOAD_ONCE(RIGHT, v + TILE_NBYTES, v_stride);
    work_beside(rows, from + 2 * each, from + 3 * each);
    TILE_ADD(C11, LEFT, RIGHT);
    TILE_LOAD(LEFT, p, p_stride);
    work_beside(rows, from + 3 * each, from + 4 * each);
    TILE_ADD(C01, LEFT, RIGHT);
    w->p += TILE_NBYTES, w->v += TILE_ROWS * v_stride;
    if (--w->left == 0) end_strip(w);
}

/* 16 words of 32 rows times 16 keys, two products likewise; the first ones of a sum take the tiles over from
 * half a block whose place is `last`, unless that is NULL. */
TSR_INLINE void scores_step(const tile_product *p, const char *a, const char *b, const bool begins,
                            char *last, const int from, const int each, const beside rows)
{
    const int64_t stride = NR * 4;
    TILE_LOAD_ONCE(RIGHT, b, p->b_stride);
    work_beside(rows, from, from + each / 2);
    TILE_LOAD(LEFT, a, p->a_stride);
    work_beside(rows, from + each / 2, from + each);
    if (begins && last != NULL) TILE_STORE(S_UPPER, last, stride);
    if (begins) TILE_ZERO(S_UPPER);
    TILE_ADD(S_UPPER, LEFT, RIGHT);
    TILE_LOAD(LEFT, a + TILE_ROWS * p->a_stride, p->a_stride);
    work_beside(rows, from + each, from + 2 * each);
    if (begins && last != NULL) TILE_STORE(S_LOWER, last + TILE_ROWS * stride, stride);
    if (begins) TILE_ZERO(S_LOWER);
    TILE_ADD(S_LOWER, LEFT, RIGHT);
}

/* Step `step` of the 2 n_steps that a block's scores take. */
TSR_INLINE void scores_step_at(const tile_product *p, const int64_t step, const int64_t n_steps, char *last,
                               const int from, const int each, const beside rows)
{
    const int64_t half = step >= n_steps, k = step - half * n_steps;
    const char *const b = p->b + k * TILE_ROWS * p->b_stride + half * TILE_NBYTES;
    scores_step(p, p->a + k * TILE_NBYTES, b, k == 0, half ? p->c : last, from, each, rows);
}

/*
 * A block of scores, whose second half stays in the tiles, the softmax of b and n_steps of w: those of the
 * three that `does` names. The rows go along with the first `carrying` units. These are constants: branches
 * in here would cost an eighth.
 */
enum { SCORES = 1, SOFTMAX = 2, VALUES = 4 };

/* Two steps of scores and one of values. */
TSR_INLINE void run_unit(const int does, const tile_product *p, const int unit, const int64_t n_steps,
                         values_work *w, char *last, const int from, const int each, const beside rows)
{
    if (does & SCORES) {
        scores_step_at(p, 2 * unit, n_steps, last, from, each, rows);
        scores_step_at(p, 2 * unit + 1, n_steps, last, from + 2 * each, each, rows);
    }
    if (does & VALUES) values_step(w, from + (does & SCORES ? 4 * each : 0), each, rows);
}

TSR_INLINE void run_units(const int does, const tile_product *p, const int carrying, const int64_t n_steps,
                          softmax_block *b, values_work *w, char *last)
{
    softmax_block own; /* in registers, which *b, that others see, is not */
    if (does & SOFTMAX) own = *b;
    const int products = (does & SCORES ? 4 : 0) + (does & VALUES ? 4 : 0); /* of a unit */
    const int each = (MR / products + carrying - 1) / carrying;
    const beside rows = {softmax_row, does & SOFTMAX ? &own : NULL, 0, MR}, none = {.block = NULL};
    UNROLL for (int u = 0; u < carrying; u++)
        run_unit(does, p, u, n_steps, w, last, u * products * each, each, rows);
    for (int u = carrying; u < n_steps; u++) run_unit(does, p, u, n_steps, w, last, 0, 0, none);
    if (does & SOFTMAX) b->largest = own.largest;
}

/* Functions of their own, so that what rows share stays in registers. */
#define BLOCK_FUNCTION(name, does)                                                                           \
    static __attribute__((noinline)) void name(const tile_product *p, int64_t n_steps, softmax_block *b,     \
                                               values_work *w, char *last)                                   \
    {                                                                                                        \
        if (n_steps == 1)                                                                                    \
            run_units(does, p, 1, 1, b, w, last);                                                            \
        else if (n_steps == 2)                                                                               \
            run_units(does, p, 2, 2, b, w, last);                                                            \
        else if (n_steps == 3)                                                                               \
            run_units(does, p, 3, 3, b, w, last);                                                            \
        else                                                                                                 \
            run_units(does, p, MOST_CARRYING, n_steps, b, w, last);                                          \
    }
BLOCK_FUNCTION(run_block, SCORES)
BLOCK_FUNCTION(run_block_softmax, SCORES | SOFTMAX)
BLOCK_FUNCTION(run_block_softmax_values, SCORES | SOFTMAX | VALUES)
BLOCK_FUNCTION(run_softmax_values, SOFTMAX | VALUES)

static __attribute__((noinline)) void run_softmax(softmax_block *b)
{
    softmax_block own = *b;
    UNROLL for (int r = 0; r < MR; r++) softmax_row(&own, r);
    b->largest = own.largest;
}

/* True if the scores' maxima are such that the softmax is one multiply-add of the score, and no more. */
static bool are_near(const float *m)
{
    bool near = true;
    for (int64_t r = 0; r < MR; r++) near &= __builtin_fabsf(m[r]) < TSR_ATTENTION_FAR;
    return near;
}

/* First maxima of rows that have none, by forward_rising's own expression, NaN included: so the bits are
 * `forward`'s. Nothing needs scaling: l and O are 0. */
static void begin_maxima(float *m, const float *s, float alpha)
{
    for (int64_t r = 0; r < MR; r++) {
        if (m[r] != -__builtin_inff()) continue;
        const float max = vf32_max_lane(vf32_max(vf32_load(s + r * NR), vf32_load(s + r * NR + VL)));
        m[r] = max * alpha > m[r] ? max * alpha : m[r];
    }
}

/* Lines that each of n blocks fetches of so many bytes; what is more than products would not wait for is
 * left. */
static int64_t lines_of(int64_t nbytes, int64_t n)
{
    const int64_t all = (nbytes + n * TILE_NBYTES - 1) / (n * TILE_NBYTES);
    return all < MOST_FETCHED ? all : MOST_FETCHED;
}

/* 32 rows of Q, or dO, against the panels of K, or V, from the 32 keys at `key` on, to blocks. */
static tile_product product_with_keys(const void *rows, int64_t row, const float *panels, int64_t words,
                                      int64_t key)
{
    return (tile_product){.a = rows,
                          .a_stride = row * ELEMENT_NBYTES,
                          .b = (const char *)(panels + key * words),
                          .b_stride = NR * 4,
                          .c_stride = NR * 4,
                          .n_steps = words / K_ALIGN};
}

/* The 32 columns from c on of a group's rows, whose first is column 0 now. */
static tsr_attention_rows block_of_rows(const tsr_attention_rows *t, int64_t c)
{
    tsr_attention_rows block = *t;
    block.key += c, block.begin = 0, block.end = NR;
    return block;
}

static bool is_whole(const int64_t whole[2], int64_t c) { return c >= whole[0] && c + NR <= whole[1]; }

/* A group in work. */
typedef struct scores_work {
    const tsr_attention_group *g;
    tile_product scores;
    softmax_block softmax;
    values_work values;
    bool near; /* maxima are, and all rows have one */
} scores_work;

/* What comes before the softmax of block j. True if that is one for vectors beside tiles. */
static bool prepare_softmax(scores_work *w, int64_t j)
{
    const tsr_attention_group *g = w->g;
    const int64_t c = g->rows.begin + j * NR;
    if (!is_whole(g->whole, c)) {
        const tsr_attention_rows rows = block_of_rows(&g->rows, c);
        g->score->hide(&rows, w->softmax.s, NR, -__builtin_inff());
    }
    if (!w->near) {
        begin_maxima(g->m, w->softmax.s, g->rows.alpha);
        w->near = are_near(g->m);
    }
    return w->near;
}

/* The softmax of block j by the family that works on tiles of scores. */
static void soften_apart(scores_work *w, int64_t j)
{
    const tsr_attention_group *g = w->g;
    tsr_attention_rows rows = block_of_rows(&g->rows, g->rows.begin + j * NR);
    rows.s = w->softmax.s, rows.s_stride = NR;
    rows.p = w->softmax.p, rows.p_before = j * NR;
    g->score->forward(&rows, g->m, w->softmax.l, g->o, g->o_stride, g->dv);
    w->near = are_near(g->m);
}

static float *place_of_block(const tsr_attention_group *g, int64_t j)
{
    return g->rows.s + j % TSR_ATTENTION_BLOCKS * MR * NR;
}

/* Inline, since gcc 12 drops calls of functions that do nothing but fetch. */
TSR_INLINE void fetch_wanted(const tsr_attention_group *g, const int64_t *lines, int64_t j)
{
    for (int i = 0; i < TSR_ATTENTION_AHEAD; i++)
        if (lines[i] > 0)
            fetch_lines((const char *)g->ahead[i] + j * lines[i] * TILE_NBYTES, lines[i] * TILE_NBYTES);
}

static void run_scores(const tsr_attention_group *g)
{
    const tsr_attention_rows *t = &g->rows;
    const int64_t n = (t->end - t->begin + NR - 1) / NR, n_steps = g->k_words / K_ALIGN;
    _Alignas(64) float sums[MR * VL]; /* take turns with those of g */
    int64_t lines[TSR_ATTENTION_AHEAD];
    for (int i = 0; i < TSR_ATTENTION_AHEAD; i++) lines[i] = lines_of(g->ahead_nbytes[i], n);
    finish();
    configure(MR, TILE_ROWS, K_ALIGN);
    scores_work w = {.g = g,
                     .scores = product_with_keys(g->q, g->q_row, g->k, g->k_words, t->begin),
                     .softmax = {.m = g->m,
                                 .alpha = vf32_splat(t->alpha),
                                 .l = g->l,
                                 .l_next = sums,
                                 .p = t->p + t->begin,
                                 .p_stride = t->p_stride},
                     .values = begin_values(g->values),
                     .near = are_near(g->m)};
    for (int64_t j = 0; j < n + SCORES_BEHIND; j++) {
        const int64_t done = j - SCORES_BEHIND;
        char *const last = j > 0 ? (char *)(place_of_block(g, j + TSR_ATTENTION_BLOCKS - 1) + VL) : NULL;
        if (j < n) fetch_wanted(g, lines, j);
        if (j == n) {
            TILE_STORE(S_UPPER, last, NR * 4);
            TILE_STORE(S_LOWER, last + TILE_ROWS * NR * 4, NR * 4);
        }
        w.scores.c = (char *)place_of_block(g, j);
        w.softmax.s = place_of_block(g, j + 1);
        w.softmax.largest = vu32_splat(0);
        const bool softens = done >= 0 && prepare_softmax(&w, done);
        const bool joins = softens && w.values.strips > (w.values.left < n_steps);
        if (j < n && joins)
            run_block_softmax_values(&w.scores, n_steps, &w.softmax, &w.values, last);
        else if (j < n && softens)
            run_block_softmax(&w.scores, n_steps, &w.softmax, NULL, last);
        else if (j < n)
            run_block(&w.scores, n_steps, NULL, NULL, last);
        else if (joins)
            run_softmax_values(NULL, n_steps, &w.softmax, &w.values, NULL);
        else if (softens)
            run_softmax(&w.softmax);
        w.scores.b += g->k_words * NR * 4;
        if (done < 0) continue;
        if (softens && !vu32_reaches_half(w.softmax.largest, BF16_256)) {
            float *const before = w.softmax.l;
            w.softmax.l = w.softmax.l_next, w.softmax.l_next = before;
        } else {
            soften_apart(&w, done);
        }
        w.softmax.p += NR;
    }
    while (w.values.strips > 0) values_step(&w.values, 0, 0, (beside){.block = NULL});
    if (w.softmax.l != g->l) memcpy(g->l, w.softmax.l, sizeof sums);
}

/* --- backward --- */

/* A block on its way from scores and dP to P and dS. */
typedef struct gradient_block {
    const float *s, *dp;
    const float *base, *delta; /* of each row: lse log2(e), and what dP is set against */
    vf32 alpha;
    uint16_t *p, *ds;
    int64_t stride;
} gradient_block;

TSR_INLINE void gradient_row(void *block, int64_t r)
{
    const gradient_block *b = block;
    const float *s = b->s + r * NR, *dp = b->dp + r * NR;
    const vf32 base = vf32_splat(b->base[r]), delta = vf32_splat(b->delta[r]);
    const vf32 p0 = vf32_exp2_for_bf16(vf32_multiply_subtract(vf32_load(s), b->alpha, base));
    const vf32 p1 = vf32_exp2_for_bf16(vf32_multiply_subtract(vf32_load(s + VL), b->alpha, base));
    vu32_store_up_to(b->p + r * b->stride, vu32_pairs_from_vf32(p0, p1), VL);
    const vf32 ds0 = p0 * (vf32_load(dp) - delta), ds1 = p1 * (vf32_load(dp + VL) - delta);
    vu32_store_up_to(b->ds + r * b->stride, vu32_pairs_from_vf32(ds0, ds1), VL);
}

/*
 * The scores of a block and its dP, which stays in the tiles; beside them the rows of b, which is NULL where
 * no block is that far. `last` is the block whose dP waits in tiles, NULL: none.
 */
TSR_INLINE void multiply_pair(const tile_product *s, const tile_product *dp, const int carrying,
                              gradient_block *b, char *last)
{
    gradient_block own; /* in registers, as above */
    if (b != NULL) own = *b;
    gradient_block *const beside_it = b != NULL ? &own : NULL;
    multiply_beside(s, carrying, (beside){gradient_row, beside_it, 0, MR / 2}, last);
    multiply_beside(dp, carrying, (beside){gradient_row, beside_it, MR / 2, MR / 2}, s->c);
}

static void multiply_blocks(const tile_product *s, const tile_product *dp, gradient_block *b, char *last)
{
    const int64_t steps = s->n_steps < dp->n_steps ? s->n_steps : dp->n_steps;
    if (b == NULL)
        multiply_pair(s, dp, 1, NULL, last);
    else if (steps == 1)
        multiply_pair(s, dp, 1, b, last);
    else if (steps == 2)
        multiply_pair(s, dp, 2, b, last);
    else if (steps == 3)
        multiply_pair(s, dp, 3, b, last);
    else
        multiply_pair(s, dp, MOST_CARRYING, b, last);
}

static bool run_gradients(const tsr_attention_bwd_group *g)
{
    const tsr_attention_rows *t = &g->rows;
    const int64_t n = (t->end - t->begin + NR - 1) / NR, block = MR * NR;
    bool are_finite = true;
    float base[MR];
    for (int64_t r = 0; r < MR; r++) {
        base[r] = (float)((double)g->lse[r] * 1.4426950408889634);
        are_finite &= __builtin_fabsf(g->delta[r]) < __builtin_inff();
    }
    if (!are_near(base) || !are_finite) return false;
    tile_product s = product_with_keys(g->q, g->q_row, g->k, g->k_words, t->begin);
    tile_product dp = product_with_keys(g->dout, g->dout_row, g->v, g->v_words, t->begin);
    finish();
    configure(MR, TILE_ROWS, K_ALIGN);
    for (int64_t j = 0; j < n + SCORES_BEHIND; j++) {
        float *const at = t->s + j % TSR_ATTENTION_BLOCKS * 2 * block;
        float *const done = t->s + (j + 1) % TSR_ATTENTION_BLOCKS * 2 * block;
        char *const last = (char *)(t->s + (j + TSR_ATTENTION_BLOCKS - 1) % TSR_ATTENTION_BLOCKS * 2 * block +
                                    block);
        const int64_t c = t->begin + (j - SCORES_BEHIND) * NR;
        gradient_block b = {.s = done,
                            .dp = done + block,
                            .base = base,
                            .delta = g->delta,
                            .alpha = vf32_splat(t->alpha),
                            .p = t->p + c,
                            .ds = g->ds + c,
                            .stride = t->p_stride};
        const bool finds = j >= SCORES_BEHIND;
        if (finds && !is_whole(g->whole, c)) { /* P and dS are 0 there: 2^-Inf times 0 less delta */
            const tsr_attention_rows edge = block_of_rows(t, c);
            g->score->hide(&edge, done, NR, -__builtin_inff());
            g->score->hide(&edge, done + block, NR, 0);
        }
        s.c = (char *)at, dp.c = (char *)(at + block);
        if (j < n) {
            g->fetch(g->fetch_later);
            multiply_blocks(&s, &dp, finds ? &b : NULL, j > 0 ? last : NULL);
            if (j == n - 1) store_tiles(dp.c, dp.c_stride, true, true);
        } else {
            for (int64_t r = 0; r < MR && finds; r++) gradient_row(&b, r);
        }
        s.b += g->k_words * NR * 4, dp.b += g->v_words * NR * 4;
    }
    return true;
}

#endif
