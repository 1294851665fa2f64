/* bench/operands.c - memory for the operands, their values, and what their product must be */
#include "operands.h"

#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "memory.h"
#include "peak.h"

enum { GAP = 3 * 64, COLD_CACHES = 4 };

const char *const gemm_form_names[GEMM_N_FORMS] = {
    "matmul", "loop", "bmm", "strided", "pointers", "scattered", "packed", "int8", "int4/32", "int4/128",
};

static size_t c_element_nbytes(const gemm_problem *p) { return p->dtype == TSR_S8 ? 4 : sizeof(float); }

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

size_t gemm_nbytes(const gemm_problem *p)
{
    const size_t inputs = (size_t)(p->m * p->k + p->k * p->n) * tsr_dtype_nbytes(p->dtype);
    return (size_t)(p->batch * p->heads) * (inputs + (size_t)(p->m * p->n) * c_element_nbytes(p));
}

int64_t gemm_copies(const gemm_problem *p, size_t nbytes)
{
    if (!p->cold) return 1;
    return (int64_t)((COLD_CACHES * bench_cache_nbytes() + nbytes - 1) / nbytes);
}

/* Four values of [-1, 1) from 64 bits; whole numbers for s8: 0 .. 127 where `is_a`, so that a library whose A
 * is unsigned multiplies the same ones, else -127 .. 127. */
static void fill_matrix(void *data, tsr_dtype dtype, int64_t n, uint64_t seed, bool is_a)
{
    for (int64_t i = 0; i < n; i += 4) {
        const uint64_t bits = bench_mixed(seed ^ (uint64_t)i);
        for (int64_t j = i; j < i + 4 && j < n; j++) {
            const int16_t raw = (int16_t)(bits >> (16 * (j - i)));
            const float value = (float)raw * 0x1p-15f;
            switch (dtype) {
            case TSR_F32: ((float *)data)[j] = value; break;
            case TSR_BF16: ((uint16_t *)data)[j] = tsr_bf16_from_f32(value); break;
            case TSR_F16: ((uint16_t *)data)[j] = tsr_f16_from_f32(value); break;
            case TSR_S8: ((int8_t *)data)[j] = (int8_t)(is_a ? raw & 127 : (raw % 128)); break;
            default: break;
            }
        }
    }
}

/* Scattered: neighbours lie far apart, for a step that shares no factor with n visits every slot once. */
static int64_t slot_of(const gemm_operands *o, int64_t i)
{
    if (o->p.form != GEMM_SCATTERED) return i;
    int64_t step = o->n_products / 2 | 1;
    for (int64_t x = step, y = o->n_products; y != 0;) {
        const int64_t rest = x % y;
        x = y, y = rest;
        if (y == 0 && x != 1) step += 2, x = step, y = o->n_products;
    }
    return i * step % o->n_products;
}

static char *matrix(char *arena, size_t slot, const gemm_operands *o, int64_t copy, int64_t i)
{
    return arena + (size_t)(copy * o->n_products + slot_of(o, i)) * slot;
}

void *gemm_a(const gemm_operands *o, int64_t copy, int64_t i) { return matrix(o->a, o->a_slot, o, copy, i); }
void *gemm_b(const gemm_operands *o, int64_t copy, int64_t i) { return matrix(o->b, o->b_slot, o, copy, i); }
void *gemm_c(const gemm_operands *o, int64_t copy, int64_t i) { return matrix(o->c, o->c_slot, o, copy, i); }

static void fill(gemm_operands *o)
{
    const gemm_problem *p = &o->p;
    for (int64_t i = 0; i < o->n_products; i++) {
        fill_matrix(gemm_a(o, 0, i), p->dtype, p->m * p->k, (uint64_t)(2 * i) << 40, true);
        fill_matrix(gemm_b(o, 0, i), p->dtype, p->k * p->n, (uint64_t)(2 * i + 1) << 40, false);
    }
    const size_t a = o->a_nbytes / (size_t)o->n_copies, b = o->b_nbytes / (size_t)o->n_copies;
    for (int64_t copy = 1; copy < o->n_copies; copy++) {
        memcpy(o->a + (size_t)copy * a, o->a, a);
        memcpy(o->b + (size_t)copy * b, o->b, b);
    }
    memset(o->c, 0, o->c_nbytes); /* so that its pages are there */
}

bool gemm_operands_create(const gemm_problem *p, gemm_operands *out)
{
    const size_t element = tsr_dtype_nbytes(p->dtype), gap = p->form == GEMM_SCATTERED ? GAP : 0;
    gemm_operands o = {.p = *p, .n_products = p->batch * p->heads};
    o.n_copies = gemm_copies(p, gemm_nbytes(p));
    o.a_slot = (size_t)(p->m * p->k) * element, o.b_slot = (size_t)(p->k * p->n) * element;
    o.c_slot = (size_t)(p->m * p->n) * c_element_nbytes(p);
    if (gap != 0) {
        o.a_slot = round_up(o.a_slot, 64) + gap, o.b_slot = round_up(o.b_slot, 64) + gap;
        o.c_slot = round_up(o.c_slot, 64) + gap;
    }
    const size_t n = (size_t)(o.n_copies * o.n_products);
    o.a_nbytes = n * o.a_slot, o.b_nbytes = n * o.b_slot, o.c_nbytes = n * o.c_slot;
    const size_t all = o.a_nbytes + o.b_nbytes + o.c_nbytes, available = bench_available_nbytes();
    if (available != 0 && all > available - available / 8) return false;
    o.a = bench_map(o.a_nbytes);
    o.b = bench_map(o.b_nbytes);
    o.c = bench_map(o.c_nbytes);
    if (o.a == NULL || o.b == NULL || o.c == NULL) {
        gemm_operands_destroy(&o);
        return false;
    }
    fill(&o);
    *out = o;
    return true;
}

void gemm_operands_release_b(gemm_operands *o)
{
    bench_unmap(o->b, o->b_nbytes);
    o->b = NULL;
}

void gemm_operands_destroy(gemm_operands *o)
{
    gemm_operands_release_b(o);
    bench_unmap(o->a, o->a_nbytes);
    bench_unmap(o->c, o->c_nbytes);
    *o = (gemm_operands){.p = o->p};
}

/* Row and column of sample s in product `*product`. */
static void place_of(const gemm_operands *o, int s, int64_t *product, int64_t *row, int64_t *column)
{
    const uint64_t bits = bench_mixed((uint64_t)s + 12345);
    *product = s == 0 ? o->n_products - 1 : (int64_t)(bits % (uint64_t)o->n_products);
    *row = s == 0 ? o->p.m - 1 : (int64_t)((bits >> 20) % (uint64_t)o->p.m);
    *column = s == 0 ? o->p.n - 1 : (int64_t)((bits >> 40) % (uint64_t)o->p.n);
}

void gemm_sample(const gemm_operands *o, double samples[GEMM_N_SAMPLES])
{
    for (int s = 0; s < GEMM_N_SAMPLES; s++) {
        int64_t i, row, column;
        place_of(o, s, &i, &row, &column);
        const tsr_dtype dtype = o->p.dtype == TSR_S8 ? TSR_I32 : TSR_F32;
        samples[s] = tsr_load_f64(gemm_c(o, 0, i), dtype, row * o->p.n + column);
    }
}

void gemm_truth(const gemm_operands *o, double samples[GEMM_N_SAMPLES])
{
    const gemm_problem *p = &o->p;
    for (int s = 0; s < GEMM_N_SAMPLES; s++) {
        int64_t i, row, column;
        place_of(o, s, &i, &row, &column);
        const void *a = gemm_a(o, 0, i), *b = gemm_b(o, 0, i);
        samples[s] = 0;
        for (int64_t x = 0; x < p->k; x++)
            samples[s] += tsr_load_f64(a, p->dtype, row * p->k + x) *
                          tsr_load_f64(b, p->dtype, p->b_transposed ? column * p->k + x : x * p->n + column);
    }
}

/* Values are spread evenly over [-1, 1): a result's own standard deviation is sqrt(k) / 3. */
double gemm_error(const gemm_problem *p, const double got[GEMM_N_SAMPLES], const double want[GEMM_N_SAMPLES])
{
    const double share = p->form == GEMM_INT8                                  ? 0.02
                         : p->form == GEMM_INT4_32 || p->form == GEMM_INT4_128 ? 0.2
                                                                               : 1e-5;
    const double allowed = p->dtype == TSR_S8 ? 0.5 : share * sqrt((double)p->k);
    double worst = 0;
    for (int s = 0; s < GEMM_N_SAMPLES; s++) {
        const double error = fabs(got[s] - want[s]) / allowed;
        if (!(error <= worst)) worst = error; /* a NaN stays */
    }
    return worst;
}
