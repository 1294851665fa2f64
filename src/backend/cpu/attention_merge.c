/* backend/cpu/attention_merge.c - parts over disjoint keys merged in order, as decoding merges its chunks */
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_plan.h"
#include "backend/cpu/span.h"

enum { BLOCK = 512 }; /* columns at a time */

typedef struct merging {
    const tsr_cpu *cpu;
    const tsr_attention_merge_args *a;
} merging;

static int64_t row_at(const tsr_tensor *t, int64_t row) { return cpu_offset(t, 3, row); }

/* Columns [first, first + n) of a row; m and l come out the same for all of them. */
static void merge_columns(const merging *w, int64_t row, int64_t first, int64_t n, float *m, float *l)
{
    float sum[BLOCK] = {0}, scratch[BLOCK];
    const tsr_attention_merge_args *a = w->a;
    *m = -INFINITY, *l = 0;
    for (int64_t i = 0; i < a->n_parts; i++) {
        const tsr_tensor *out = &a->part[i].out;
        const float lse = *(const float *)tsr_tensor_at(&a->part[i].lse, row_at(&a->part[i].lse, row));
        w->cpu->elementwise_f32->load(scratch, tsr_tensor_at(out, row_at(out, row) + first * out->stride[3]),
                                      out->dtype, out->stride[3], n);
        w->cpu->attention_decode_f32->merge(1.44269504f, m, l, sum, lse, lse == -INFINITY ? 0 : 1, scratch,
                                            n);
    }
    const float factor = *l == 0 ? 0 : 1 / *l;
    w->cpu->attention_score_f32->store(
        tsr_tensor_at(&a->out, row_at(&a->out, row) + first * a->out.stride[3]), a->out.dtype,
        a->out.stride[3], sum, n, factor);
}

static void merge_row(void *arg, int64_t row)
{
    const merging *w = arg;
    const tsr_attention_merge_args *a = w->a;
    const int64_t dv = a->out.shape[3];
    float m, l;
    for (int64_t first = 0; first == 0 || first < dv; first += BLOCK)
        merge_columns(w, row, first, cpu_min(BLOCK, dv - first), &m, &l);
    if (a->lse.data != NULL)
        *(float *)tsr_tensor_at(&a->lse, row_at(&a->lse, row)) = l == 0 ? -INFINITY : m + logf(l);
}

tsr_status cpu_attention_merge(void *state, const tsr_attention_merge_args *a, void *workspace)
{
    (void)workspace;
    merging w = {.cpu = state, .a = a};
    const int64_t n_rows = a->out.shape[0] * a->out.shape[1] * a->out.shape[2];
    cpu_each_row(w.cpu, n_rows, a->out.shape[3] * a->n_parts, merge_row, &w);
    return TSR_OK;
}
