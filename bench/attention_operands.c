/* bench/attention_operands.c - tensors and their values, and where results are looked at */
#include "attention_operands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "memory.h"
#include "peak.h"

enum { COLD_CACHES = 4 };

const char *const attention_pass_names[ATTENTION_N_PASSES] = {"forward", "backward", "decode"};

static bool is_of_keys(attention_name name)
{
    return name == ATTENTION_K || name == ATTENTION_V || name == ATTENTION_DK || name == ATTENTION_DV ||
           name == ATTENTION_K_SCALE || name == ATTENTION_V_SCALE;
}

static bool exists(const attention_problem *p, attention_name name)
{
    switch (name) {
    case ATTENTION_DOUT:
    case ATTENTION_DQ:
    case ATTENTION_DK:
    case ATTENTION_DV: return p->pass == ATTENTION_BACKWARD;
    case ATTENTION_K_SCALE:
    case ATTENTION_V_SCALE: return p->kv_dtype == TSR_S8;
    default: return true;
    }
}

tsr_dtype attention_dtype(const attention_problem *p, attention_name name)
{
    switch (name) {
    case ATTENTION_K:
    case ATTENTION_V: return (tsr_dtype)p->kv_dtype;
    case ATTENTION_LSE:
    case ATTENTION_K_SCALE:
    case ATTENTION_V_SCALE: return TSR_F32;
    default: return (tsr_dtype)p->dtype;
    }
}

static bool has_copies(attention_name name)
{
    return is_of_keys(name) && name != ATTENTION_DK && name != ATTENTION_DV;
}

static int64_t pages_of(const attention_problem *p) { return (p->lk + p->page - 1) / p->page; }

void attention_shape(const attention_problem *p, attention_name name, int64_t shape[4])
{
    const bool of_keys = is_of_keys(name), is_paged = of_keys && p->page > 0;
    const bool is_value = name == ATTENTION_V || name == ATTENTION_DV || name == ATTENTION_OUT ||
                          name == ATTENTION_DOUT;
    const bool is_row_value = name >= ATTENTION_LSE;
    shape[0] = is_paged ? p->b * pages_of(p) : p->b;
    shape[1] = is_paged ? p->page : of_keys ? p->hkv : p->hq;
    shape[2] = is_paged ? p->hkv : of_keys ? p->lk : p->lq;
    shape[3] = is_row_value ? 1 : is_value ? p->dv : p->d;
}

static double numel(const attention_problem *p, attention_name name)
{
    int64_t shape[4];
    attention_shape(p, name, shape);
    return (double)shape[0] * (double)shape[1] * (double)shape[2] * (double)shape[3];
}

static double nbytes_of(const attention_problem *p, attention_name name)
{
    return exists(p, name) ? numel(p, name) * (double)tsr_dtype_nbytes(attention_dtype(p, name)) : 0;
}

double attention_nbytes(const attention_problem *p)
{
    double sum = 0;
    for (int i = 0; i < ATTENTION_N_TENSORS; i++) sum += nbytes_of(p, (attention_name)i);
    return sum;
}

static double copied_nbytes(const attention_problem *p)
{
    double sum = 0;
    for (int i = 0; i < ATTENTION_N_TENSORS; i++)
        if (has_copies((attention_name)i)) sum += nbytes_of(p, (attention_name)i);
    return sum;
}

double attention_copies_nbytes(const attention_problem *p)
{
    return (double)(p->copies - 1) * copied_nbytes(p);
}

int64_t attention_copies(const attention_problem *p)
{
    if (p->pass != ATTENTION_DECODE) return 1;
    return 1 + (int64_t)(COLD_CACHES * (double)bench_cache_nbytes() / copied_nbytes(p));
}

void *attention_data(const attention_operands *o, attention_name name, int64_t copy)
{
    if (!has_copies(name) || o->data[name] == NULL) return o->data[name];
    return (char *)o->data[name] + (size_t)(copy % o->p.copies) * o->nbytes[name];
}

double attention_visible(const attention_problem *p)
{
    if (!p->causal) return 1;
    if (p->lq == p->lk) return 0.5; /* as everybody counts; the diagonal makes it a little more */
    double visible = 0;
    for (int64_t i = 0; i < p->lq; i++) {
        const int64_t n = i + p->lk - p->lq + 1;
        visible += n < 0 ? 0 : n < p->lk ? (double)n : (double)p->lk;
    }
    return visible / ((double)p->lq * (double)p->lk);
}

/* --- values --- */

/* Element i of a tensor of [-2, 2): scores of a standard deviation of 4/3. */
static float value_at(attention_name name, int64_t i)
{
    const uint64_t bits = bench_mixed((uint64_t)name << 40 ^ (uint64_t)(i & ~(int64_t)3));
    return (float)(int16_t)(bits >> (16 * (i & 3))) * 0x1p-14f;
}

/* What int8 rows are multiplied by: not the same for all of them. */
static float scale_at(int64_t i) { return (1 + (float)(i % 5) * 0.125f) / 64; }

static void fill(const attention_operands *o, attention_name name)
{
    const tsr_dtype dtype = attention_dtype(&o->p, name);
    const int64_t n = (int64_t)(o->nbytes[name] / tsr_dtype_nbytes(dtype));
    void *data = o->data[name];
    const bool is_input = name <= ATTENTION_DOUT;
    if (name == ATTENTION_K_SCALE || name == ATTENTION_V_SCALE)
        for (int64_t i = 0; i < n; i++) ((float *)data)[i] = scale_at(i);
    else if (!is_input)
        memset(data, 0, o->nbytes[name]); /* so that its pages are there */
    else
        for (int64_t i = 0; i < n; i++) {
            const float value = value_at(name, i);
            switch (dtype) {
            case TSR_BF16: ((uint16_t *)data)[i] = tsr_bf16_from_f32(value); break;
            case TSR_F16: ((uint16_t *)data)[i] = tsr_f16_from_f32(value); break;
            case TSR_S8: ((int8_t *)data)[i] = (int8_t)(value * 63); break;
            default: ((float *)data)[i] = value;
            }
        }
}

/* Pages of a sequence lie in the pool in an order of their own. */
static bool make_table(attention_operands *o)
{
    const attention_problem *p = &o->p;
    if (p->page == 0) return true;
    o->n_pages = pages_of(p);
    const int64_t n = p->b * o->n_pages;
    o->table = malloc((size_t)n * sizeof *o->table);
    o->seqlens_k = malloc((size_t)p->b * sizeof *o->seqlens_k);
    if (o->table == NULL || o->seqlens_k == NULL) return false;
    for (int64_t i = 0; i < n; i++) o->table[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) { /* shuffled */
        const int64_t j = (int64_t)(bench_mixed((uint64_t)i) % (uint64_t)(i + 1));
        const int32_t page = o->table[i];
        o->table[i] = o->table[j];
        o->table[j] = page;
    }
    for (int64_t i = 0; i < p->b; i++) o->seqlens_k[i] = (int32_t)p->lk;
    return true;
}

bool attention_operands_create(const attention_problem *p, attention_operands *out)
{
    attention_operands o = {.p = *p, .scale = (float)(1 / sqrt((double)p->d))};
    const double available = (double)bench_available_nbytes();
    if (available != 0 && attention_nbytes(p) + attention_copies_nbytes(p) > available * 7 / 8) return false;
    bool made = make_table(&o);
    for (int i = 0; i < ATTENTION_N_TENSORS && made; i++) {
        const attention_name name = (attention_name)i;
        if (!exists(p, name)) continue;
        o.nbytes[i] = (size_t)numel(p, name) * tsr_dtype_nbytes(attention_dtype(p, name));
        const int64_t copies = has_copies(name) ? p->copies : 1;
        o.data[i] = bench_map((size_t)copies * o.nbytes[i]);
        made = o.data[i] != NULL;
        if (made) fill(&o, name);
        for (int64_t copy = 1; copy < copies && made; copy++)
            memcpy(attention_data(&o, name, copy), o.data[i], o.nbytes[i]);
    }
    if (made)
        *out = o;
    else
        attention_operands_destroy(&o);
    return made;
}

void attention_operands_destroy(attention_operands *o)
{
    for (int i = 0; i < ATTENTION_N_TENSORS; i++) {
        const size_t copies = has_copies((attention_name)i) ? (size_t)o->p.copies : 1;
        bench_unmap(o->data[i], copies * o->nbytes[i]);
    }
    free(o->table);
    free(o->seqlens_k);
    *o = (attention_operands){.p = o->p};
}

/* --- samples --- */

int attention_results(attention_pass pass, attention_name results[3])
{
    if (pass != ATTENTION_BACKWARD) {
        results[0] = ATTENTION_OUT;
        return 1;
    }
    results[0] = ATTENTION_DQ, results[1] = ATTENTION_DK, results[2] = ATTENTION_DV;
    return 3;
}

void attention_places(const attention_problem *p, int64_t places[ATTENTION_N_SAMPLES])
{
    attention_name results[3];
    const int n = attention_results((attention_pass)p->pass, results);
    for (int s = 0; s < ATTENTION_N_SAMPLES; s++) {
        int64_t shape[4];
        const int run = s / ATTENTION_RUN;
        attention_shape(p, results[run % n], shape);
        const int64_t rows = shape[0] * shape[1] * shape[2];
        const uint64_t bits = bench_mixed((uint64_t)run + 12345);
        const int64_t row = run < n ? rows - 1 : (int64_t)(bits % (uint64_t)rows);
        const int64_t column = ((int64_t)(bits >> 40) + s) % shape[3];
        places[s] = row * shape[3] + column;
    }
}

void attention_sample(const attention_operands *o, double samples[ATTENTION_N_SAMPLES])
{
    attention_name results[3];
    int64_t places[ATTENTION_N_SAMPLES];
    const int n = attention_results((attention_pass)o->p.pass, results);
    attention_places(&o->p, places);
    for (int s = 0; s < ATTENTION_N_SAMPLES; s++) {
        const attention_name name = results[s / ATTENTION_RUN % n];
        samples[s] = tsr_load_f64(o->data[name], attention_dtype(&o->p, name), places[s]);
    }
}

double attention_error(const attention_problem *p, const double got[ATTENTION_N_SAMPLES],
                       const double want[ATTENTION_N_SAMPLES])
{
    attention_name results[3];
    const int n = attention_results((attention_pass)p->pass, results);
    const double share = p->dtype == TSR_F32 ? 1e-3 : p->dtype == TSR_F16 ? 0.02 : 0.1;
    double worst = 0;
    for (int r = 0; r < n; r++) {
        double squares = 0, largest = 0;
        int count = 0;
        for (int s = 0; s < ATTENTION_N_SAMPLES; s++) {
            if (s / ATTENTION_RUN % n != r) continue;
            const double error = fabs(got[s] - want[s]);
            if (!(error <= largest)) largest = error; /* a NaN stays */
            squares += want[s] * want[s];
            count++;
        }
        const double error = largest / (share * sqrt(squares / count) + 1e-30);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}
