/* bench/attention_truth.c - what the samples of attention must be, by the formula in double */
#include <math.h>
#include <stdlib.h>

#include "attention_operands.h"
#include "base/dtype.h"
#include "tessera/random.h"

/* Row j of a head of K or V. */
typedef struct key_row {
    const void *data; /* of the tensor */
    tsr_dtype dtype;
    int64_t first; /* element of the row's first */
    double scale;
} key_row;

static key_row key_row_of(const attention_operands *o, attention_name name, int64_t b, int64_t head,
                          int64_t j)
{
    const attention_problem *p = &o->p;
    const attention_name scales = name == ATTENTION_K ? ATTENTION_K_SCALE : ATTENTION_V_SCALE;
    int64_t row = (b * p->hkv + head) * p->lk + j;
    if (p->page > 0) row = (o->table[b * o->n_pages + j / p->page] * p->page + j % p->page) * p->hkv + head;
    return (key_row){.data = o->data[name],
                     .dtype = attention_dtype(p, name),
                     .first = row * (name == ATTENTION_K ? p->d : p->dv),
                     .scale = o->data[scales] == NULL ? 1 : (double)((const float *)o->data[scales])[row]};
}

static double key_at(const key_row *r, int64_t c)
{
    return r->scale * tsr_load_f64(r->data, r->dtype, r->first + c);
}

/* One query, or one row of its gradients. */
typedef struct query {
    const attention_operands *o;
    int64_t b, h, i;
} query;

static double row_at(const query *x, attention_name name, int64_t c)
{
    const attention_problem *p = &x->o->p;
    const int64_t size = name == ATTENTION_Q || name == ATTENTION_DQ ? p->d : p->dv;
    return tsr_load_f64(x->o->data[name], attention_dtype(p, name),
                        ((x->b * p->hq + x->h) * p->lq + x->i) * size + c);
}

static bool sees(const query *x, int64_t j) { return !x->o->p.causal || j <= x->i + x->o->p.lk - x->o->p.lq; }

static double score(const query *x, int64_t j)
{
    const attention_problem *p = &x->o->p;
    const key_row k = key_row_of(x->o, ATTENTION_K, x->b, x->h / (p->hq / p->hkv), j);
    double sum = 0;
    for (int64_t c = 0; c < p->d; c++) sum += row_at(x, ATTENTION_Q, c) * key_at(&k, c);
    return sum * (double)x->o->scale;
}

/* What dropout makes of a probability. */
static double kept(const query *x, int64_t j)
{
    const attention_problem *p = &x->o->p;
    const float drop = (float)p->dropout;
    if (!(drop > 0)) return 1;
    const int keep = tsr_dropout_keep(0, 0, (uint32_t)(x->b * p->hq + x->h), (uint32_t)x->i, (uint32_t)j,
                                      drop);
    return keep ? 1 / (1 - p->dropout) : 0;
}

/* dP at key j, before dropout: dO . v_j */
static double gradient_of_p(const query *x, int64_t j)
{
    const attention_problem *p = &x->o->p;
    const key_row v = key_row_of(x->o, ATTENTION_V, x->b, x->h / (p->hq / p->hkv), j);
    double sum = 0;
    for (int64_t c = 0; c < p->dv; c++) sum += row_at(x, ATTENTION_DOUT, c) * key_at(&v, c);
    return sum;
}

/* P's row. */
static void probabilities(const query *x, double *row)
{
    const int64_t lk = x->o->p.lk;
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < lk; j++) {
        row[j] = sees(x, j) ? score(x, j) : (double)-INFINITY;
        most = fmax(most, row[j]);
    }
    for (int64_t j = 0; j < lk; j++) {
        row[j] = row[j] > -INFINITY ? exp(row[j] - most) : 0;
        sum += row[j];
    }
    for (int64_t j = 0; j < lk && sum > 0; j++) row[j] /= sum;
}

/* Columns of one row of a result; `columns` may wrap around. */
typedef struct wanted {
    int64_t columns[ATTENTION_RUN];
    double *values; /* [ATTENTION_RUN] */
} wanted;

static void add_key_row(const wanted *w, double factor, const key_row *row)
{
    for (int c = 0; c < ATTENTION_RUN; c++) w->values[c] += factor * key_at(row, w->columns[c]);
}

/* row: P's. out = sum_j P_j v_j   and   dq = scale sum_j dS_j k_j, dS = P (dP - sum_j P_j dP_j) */
static void query_truth(const query *x, attention_name name, const wanted *w, const double *row)
{
    const attention_problem *p = &x->o->p;
    const int64_t head = x->h / (p->hq / p->hkv);
    double delta = 0;
    for (int64_t j = 0; j < p->lk && name == ATTENTION_DQ; j++)
        if (row[j] > 0) delta += row[j] * kept(x, j) * gradient_of_p(x, j);
    for (int64_t j = 0; j < p->lk; j++) {
        if (row[j] == 0) continue;
        const key_row r = key_row_of(x->o, name == ATTENTION_DQ ? ATTENTION_K : ATTENTION_V, x->b, head, j);
        const double keep = kept(x, j);
        const double factor = name == ATTENTION_DQ
                                  ? (double)x->o->scale * row[j] * (keep * gradient_of_p(x, j) - delta)
                                  : row[j] * keep;
        add_key_row(w, factor, &r);
    }
}

/* dv = sum_i P_i dO_i   and   dk = scale sum_i dS_i q_i, over the queries of all heads of the group */
static void key_truth(const attention_operands *o, attention_name name, int64_t row, const wanted *w)
{
    const attention_problem *p = &o->p;
    const int64_t group = p->hq / p->hkv, j = row % p->lk, head = row / p->lk % p->hkv;
    query x = {.o = o, .b = row / p->lk / p->hkv};
    for (x.h = head * group; x.h < (head + 1) * group; x.h++)
        for (x.i = 0; x.i < p->lq; x.i++) {
            if (!sees(&x, j)) continue;
            const double lse = (double)((const float *)
                                            o->data[ATTENTION_LSE])[(x.b * p->hq + x.h) * p->lq + x.i];
            const double probability = exp(score(&x, j) - lse), keep = kept(&x, j);
            double factor = probability * keep;
            if (name == ATTENTION_DK) {
                double delta = 0;
                for (int64_t c = 0; c < p->dv; c++)
                    delta += row_at(&x, ATTENTION_DOUT, c) * row_at(&x, ATTENTION_OUT, c);
                factor = (double)o->scale * probability * (keep * gradient_of_p(&x, j) - delta);
            }
            for (int c = 0; c < ATTENTION_RUN; c++)
                w->values[c] += factor * row_at(&x, name == ATTENTION_DK ? ATTENTION_Q : ATTENTION_DOUT,
                                                w->columns[c]);
        }
}

bool attention_truth(const attention_operands *o, double samples[ATTENTION_N_SAMPLES])
{
    const attention_problem *p = &o->p;
    attention_name results[3];
    int64_t places[ATTENTION_N_SAMPLES];
    const int n = attention_results((attention_pass)p->pass, results);
    int64_t last = -1;
    double *scratch = malloc((size_t)(p->lk + 1) * sizeof *scratch);
    if (scratch == NULL) return false;
    attention_places(p, places);
    for (int s = 0; s < ATTENTION_N_SAMPLES; s += ATTENTION_RUN) {
        const attention_name name = results[s / ATTENTION_RUN % n];
        int64_t shape[4];
        attention_shape(p, name, shape);
        wanted w = {.values = samples + s};
        for (int c = 0; c < ATTENTION_RUN; c++) {
            w.columns[c] = places[s + c] % shape[3];
            samples[s + c] = 0;
        }
        const int64_t row = places[s] / shape[3];
        const query x = {.o = o, .b = row / p->lq / p->hq, .h = row / p->lq % p->hq, .i = row % p->lq};
        if (name == ATTENTION_DK || name == ATTENTION_DV) {
            key_truth(o, name, row, &w);
            continue;
        }
        if (row != last) probabilities(&x, scratch);
        last = row;
        query_truth(&x, name, &w, scratch);
    }
    free(scratch);
    return true;
}
