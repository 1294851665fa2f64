/*
 * bench/peer_attention.c - attention as it is made from another library's products: S = Q K^T of a head by
 * its sgemm, our softmax of S's rows in three passes on all threads, O = P V by its sgemm; backward likewise
 *
 * S and dS of one head are held at a time. Where there are few queries, those of a group's heads are rows of
 * one product.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/softmax_f32.h"
#include "peer.h"

enum { ROWS = 16 };

static struct {
    const attention_operands *o;
    peer_sgemm *sgemm;
    tsr_threads *threads;
    const bench_softmax_kernel *kernel;
    float *s, *ds; /* [m, Lk] of one product */
    int64_t m, turn;
} peer;

static float *matrix(attention_name name, int64_t b, int64_t head)
{
    int64_t shape[4];
    attention_shape(&peer.o->p, name, shape);
    return (float *)attention_data(peer.o, name, peer.turn) + (b * shape[1] + head) * shape[2] * shape[3];
}

static void softmax_rows(void *arg, int64_t item, int32_t slot)
{
    (void)arg, (void)slot;
    const attention_problem *p = &peer.o->p;
    for (int64_t r = item * ROWS; r < (item + 1) * ROWS && r < peer.m; r++) {
        float *row = peer.s + r * p->lk;
        int64_t n = p->causal ? r % p->lq + p->lk - p->lq + 1 : p->lk;
        n = n < 0 ? 0 : n > p->lk ? p->lk : n;
        if (n > 0) peer.kernel->three_passes(row, row, n);
        memset(row + n, 0, (size_t)(p->lk - n) * sizeof *row);
    }
}

static void gradient_rows(void *arg, int64_t item, int32_t slot)
{
    (void)arg, (void)slot;
    const int64_t lk = peer.o->p.lk;
    for (int64_t r = item * ROWS; r < (item + 1) * ROWS && r < peer.m; r++)
        peer.kernel->gradient(peer.s + r * lk, peer.ds + r * lk, lk);
}

/* C [m, n] = alpha A B + beta C, operands as they lie: A [m, k] or, transposed, [k, m]; B likewise. */
static void product(int64_t m, int64_t n, int64_t k, float alpha, const float *a, bool a_transposed,
                    const float *b, bool b_transposed, float beta, float *c)
{
    peer.sgemm(a_transposed, b_transposed, (int)m, (int)n, (int)k, alpha, a, (int)(a_transposed ? m : k), b,
               (int)(b_transposed ? k : n), beta, c, (int)n);
}

static void probabilities(const float *q, const float *k)
{
    const attention_problem *p = &peer.o->p;
    product(peer.m, p->lk, p->d, peer.o->scale, q, false, k, true, 0, peer.s);
    tsr_threads_run(peer.threads, (peer.m + ROWS - 1) / ROWS, softmax_rows, NULL);
}

static void forward_head(int64_t b, int64_t head, int64_t kv_head)
{
    const attention_problem *p = &peer.o->p;
    probabilities(matrix(ATTENTION_Q, b, head), matrix(ATTENTION_K, b, kv_head));
    product(peer.m, p->dv, p->lk, 1, peer.s, false, matrix(ATTENTION_V, b, kv_head), false, 0,
            matrix(ATTENTION_OUT, b, head));
}

static void backward_head(int64_t b, int64_t head, int64_t kv_head, bool is_first)
{
    const attention_problem *p = &peer.o->p;
    const float *q = matrix(ATTENTION_Q, b, head), *k = matrix(ATTENTION_K, b, kv_head);
    const float *v = matrix(ATTENTION_V, b, kv_head), *dout = matrix(ATTENTION_DOUT, b, head);
    const float sum = is_first ? 0 : 1; /* over the heads of the group */
    probabilities(q, k);
    product(p->lk, p->dv, p->lq, 1, peer.s, true, dout, false, sum, matrix(ATTENTION_DV, b, kv_head));
    product(p->lq, p->lk, p->dv, 1, dout, false, v, true, 0, peer.ds);
    tsr_threads_run(peer.threads, (peer.m + ROWS - 1) / ROWS, gradient_rows, NULL);
    product(p->lq, p->d, p->lk, peer.o->scale, peer.ds, false, k, false, 0, matrix(ATTENTION_DQ, b, head));
    product(p->lk, p->d, p->lq, peer.o->scale, peer.ds, true, q, false, sum,
            matrix(ATTENTION_DK, b, kv_head));
}

void peer_attention_run(void)
{
    const attention_problem *p = &peer.o->p;
    const int64_t group = p->hq / p->hkv, heads = peer.m / p->lq; /* of one product */
    for (int64_t b = 0; b < p->b; b++)
        for (int64_t head = 0; head < p->hq; head += heads)
            if (p->pass == ATTENTION_BACKWARD)
                backward_head(b, head, head / group, head % group == 0);
            else
                forward_head(b, head, head / group);
    peer.turn++;
}

void peer_attention_finish(void)
{
    free(peer.s);
    free(peer.ds);
    tsr_threads_destroy(peer.threads);
    peer.s = peer.ds = NULL;
    peer.threads = NULL;
}

bool peer_attention_prepare(const attention_operands *o, peer_sgemm *sgemm, int32_t n_threads,
                            char text[PEER_TEXT])
{
    const attention_problem *p = &o->p;
    tsr_isa isa = TSR_ISA_PORTABLE;
    if (sgemm == NULL || p->dtype != TSR_F32 || p->kv_dtype != TSR_F32 || p->page > 0 || p->dropout > 0) {
        snprintf(text, PEER_TEXT, "%s",
                 sgemm == NULL ? "it has no sgemm" : "from its products it is made in plain f32 only");
        return false;
    }
    peer.o = o;
    peer.sgemm = sgemm;
    peer.m = p->lq <= ATTENTION_FEW_QUERIES && p->pass != ATTENTION_BACKWARD ? p->lq * (p->hq / p->hkv)
                                                                             : p->lq;
    const size_t nbytes = (size_t)(peer.m * p->lk) * sizeof(float);
    peer.s = malloc(nbytes);
    peer.ds = p->pass == ATTENTION_BACKWARD ? malloc(nbytes) : NULL;
    if (peer.s == NULL || (p->pass == ATTENTION_BACKWARD && peer.ds == NULL) ||
        tsr_isa_choose(&isa) != TSR_OK ||
        tsr_threads_create(n_threads, NULL, NULL, &peer.threads) != TSR_OK) {
        peer_attention_finish();
        snprintf(text, PEER_TEXT, "not enough memory");
        return false;
    }
    peer.kernel = bench_softmax_pick(isa);
    snprintf(text, PEER_TEXT, "%s", "cblas_sgemm around a softmax, head by head");
    return true;
}
