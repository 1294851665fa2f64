/*
 * backend/cpu/kernel/attention_amx.h - attention's products and their softmax in one: P of 32 rows, in tiles
 *
 * Included by gemm_bf16_amx.c, whose tiles it shares. A block of 32 x 32 scores leaves the tiles for the
 * first cache, and its exponentials are taken while the next blocks are multiplied, a few rows behind every
 * product:
 *
 *     tiles     block j, whose first products wait for the stores below
 *     stores    the sums of block j - 1, each just before its tile is taken over
 *     vectors   rows 0..31 of block j - 2
 *
 * The vectors are not free beside tiles: for as long as those multiply, only one of the two vector units
 * does. The softmax of a block alone takes 400 cycles, the tiles of D = 128 256. (Emerald Rapids.)
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
    const float *l; /* [MR, VL]: what rows summed to before; */
    float *l_next;  /* and with the block */
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

/* The four products of a step, each with rows beside it, from row `from` on; the first ones take the tiles
 * over from the last block, whose sums go to `last`, unless that is NULL. */
TSR_INLINE void multiply_step(const char *a, const char *b, const tile_product *p, const bool begins,
                              const int from, const int each, const beside rows, char *last)
{
    const int64_t stride = NR * 4;
    TILE_LOAD(A0, a, p->a_stride);
    TILE_LOAD_ONCE(B0, b, p->b_stride);
    TILE_LOAD_ONCE(B1, b + TILE_NBYTES, p->b_stride);
    TILE_LOAD(A1, a + TILE_ROWS * p->a_stride, p->a_stride);
    if (begins && last != NULL) TILE_STORE(C00, last, stride);
    if (begins) TILE_ZERO(C00);
    TILE_ADD(C00, A0, B0);
    work_beside(rows, from, from + each);
    if (begins && last != NULL) TILE_STORE(C01, last + TILE_NBYTES, stride);
    if (begins) TILE_ZERO(C01);
    TILE_ADD(C01, A0, B1);
    work_beside(rows, from + each, from + 2 * each);
    if (begins && last != NULL) TILE_STORE(C10, last + TILE_ROWS * stride, stride);
    if (begins) TILE_ZERO(C10);
    TILE_ADD(C10, A1, B0);
    work_beside(rows, from + 2 * each, from + 3 * each);
    if (begins && last != NULL) TILE_STORE(C11, last + TILE_ROWS * stride + TILE_NBYTES, stride);
    if (begins) TILE_ZERO(C11);
    TILE_ADD(C11, A1, B1);
    work_beside(rows, from + 3 * each, from + 4 * each);
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

TSR_INLINE void multiply_scores(const tile_product *p, const int carrying, softmax_block *b, char *last)
{
    softmax_block own; /* in registers, which *b, that others see, is not */
    if (b != NULL) own = *b;
    multiply_beside(p, carrying, (beside){softmax_row, b != NULL ? &own : NULL, 0, MR}, last);
    if (b != NULL) b->largest = own.largest;
}

/* A block of scores, but for its stores, and the softmax of b, unless that is NULL. */
static void multiply_block(const tile_product *p, softmax_block *b, char *last)
{
    if (b == NULL)
        multiply_scores(p, 1, NULL, last);
    else if (p->n_steps == 1)
        multiply_scores(p, 1, b, last);
    else if (p->n_steps == 2)
        multiply_scores(p, 2, b, last);
    else if (p->n_steps == 3)
        multiply_scores(p, 3, b, last);
    else
        multiply_scores(p, MOST_CARRYING, b, last);
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

static void run_scores(const tsr_attention_group *g)
{
    const tsr_attention_rows *t = &g->rows;
    const int64_t n = (t->end - t->begin + NR - 1) / NR;
    _Alignas(64) float sums[2][MR * VL];
    tile_product p = product_with_keys(g->q, g->q_row, g->k, g->k_words, t->begin);
    const int64_t panel_nbytes = g->k_words * NR * 4;
    int64_t lines[TSR_ATTENTION_AHEAD];
    for (int i = 0; i < TSR_ATTENTION_AHEAD; i++) lines[i] = lines_of(g->ahead_nbytes[i], n);
    bool near = are_near(g->m), now = false;
    memcpy(sums[now], g->l, sizeof sums[now]);
    finish();
    configure(MR, TILE_ROWS, K_ALIGN);
    for (int64_t j = 0; j < n + SCORES_BEHIND; j++) {
        float *const s = t->s + j % TSR_ATTENTION_BLOCKS * MR * NR;
        char *const last = (char *)(t->s + (j + TSR_ATTENTION_BLOCKS - 1) % TSR_ATTENTION_BLOCKS * MR * NR);
        const int64_t done = j - SCORES_BEHIND, c = t->begin + done * NR;
        softmax_block b = {.s = t->s + (j + 1) % TSR_ATTENTION_BLOCKS * MR * NR,
                           .m = g->m,
                           .alpha = vf32_splat(t->alpha),
                           .l = sums[now],
                           .l_next = sums[!now],
                           .p = t->p + c,
                           .p_stride = t->p_stride,
                           .largest = vu32_splat(0)};
        tsr_attention_rows rows = block_of_rows(t, c);
        if (done >= 0 && !is_whole(g->whole, c)) g->score->hide(&rows, b.s, NR, -__builtin_inff());
        if (done >= 0 && !near) {
            begin_maxima(g->m, b.s, t->alpha);
            near = are_near(g->m);
        }
        const bool softens = done >= 0 && near;
        p.c = (char *)s;
        for (int i = 0; i < TSR_ATTENTION_AHEAD && j < n; i++)
            if (lines[i] > 0)
                fetch_lines((const char *)g->ahead[i] + j * lines[i] * TILE_NBYTES, lines[i] * TILE_NBYTES);
        if (j < n)
            multiply_block(&p, softens ? &b : NULL, j > 0 ? last : NULL);
        else
            for (int64_t r = 0; r < MR && softens; r++) softmax_row(&b, r);
        if (j == n - 1) store_tiles(p.c, p.c_stride, true, true);
        p.b += panel_nbytes;
        if (done < 0) continue;
        if (softens && !vu32_reaches_half(b.largest, BF16_256)) {
            now = !now;
            continue;
        }
        rows.s = b.s, rows.s_stride = NR;
        rows.p = b.p, rows.p_before = c - t->begin;
        g->score->forward(&rows, g->m, sums[now], g->o, g->o_stride, g->dv);
        near = are_near(g->m);
    }
    memcpy(g->l, sums[now], sizeof sums[now]);
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
