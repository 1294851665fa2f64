/*
 * backend/cpu/linear.c - weights as panels, and products with them
 *
 *     | panel 0: nr columns over all of k | panel 1 | ...      each rounded up to a cache line
 *     | int8: scale f32 [n] | of the gate f32 [n] |             int4: scales lie in the panels
 *
 * Gated: the first half of a panel's columns are the gate's, the second half the weight's own, so that one
 * tile of sums holds both factors of each result. Panels of bf16 are pairs whatever they are multiplied in.
 */
#include <string.h>

#include "backend/cpu/gemm_split.h"
#include "backend/weight_values.h"
#include "base/error.h"
#include "base/tensor.h"

static int64_t round_up(int64_t x, int64_t to) { return gemm_ceil_div(x, to) * to; }

static bool is_quantised(const tsr_weight_layout *l) { return l->format != TSR_WEIGHT_AS_IS; }

/* --- the packed form --- */

/* The kernel whose panels hold the weight. */
static const tsr_gemm_kernel *kernel_of(const tsr_cpu *cpu, const tsr_weight_layout *l)
{
    if (l->format == TSR_WEIGHT_INT8) return cpu->gemm_s8;
    if (is_quantised(l)) return cpu->gemm_s4;
    return l->dtype == TSR_BF16 && cpu->gemm_bf16 != NULL ? cpu->gemm_bf16 : cpu->gemm_f32;
}

/* What a product with the weight is, but for its extents and operands. */
static gemm_product product_with(const tsr_cpu *cpu, const tsr_weight_layout *l)
{
    gemm_product p = {.type = GEMM_F32, .kernel = kernel_of(cpu, l), .k = l->k, .b_dtype = l->dtype};
    if (l->format == TSR_WEIGHT_INT8)
        p.type = GEMM_S8;
    else if (is_quantised(l))
        p.type = GEMM_S4, p.group = (int32_t)l->group, p.has_zeros = l->format == TSR_WEIGHT_INT4_ZERO;
    else if (p.kernel == cpu->gemm_bf16)
        p.type = GEMM_BF16;
    return p;
}

typedef struct packed_weight {
    gemm_product p; /* as product_with */
    int64_t columns_of_panel, n_panels;
    char *panels;
    float *scales, *gate_scales; /* int8 */
} packed_weight;

/* memory NULL: only counted. */
static packed_weight take_weight(const tsr_cpu *cpu, const tsr_weight_layout *l, tsr_arena *memory)
{
    packed_weight w = {.p = product_with(cpu, l)};
    const int64_t nr = w.p.kernel->nr;
    w.columns_of_panel = l->gated ? nr / 2 : nr;
    w.n_panels = gemm_ceil_div(l->n, w.columns_of_panel);
    w.p.b_panel_nbytes = round_up(gemm_panel_nbytes(&w.p, l->k), TSR_ALIGN);
    w.panels = tsr_arena_take(memory, (size_t)w.n_panels, (size_t)w.p.b_panel_nbytes);
    if (l->format != TSR_WEIGHT_INT8) return w;
    w.scales = tsr_arena_take(memory, (size_t)l->n, sizeof(float));
    if (l->gated) w.gate_scales = tsr_arena_take(memory, (size_t)l->n, sizeof(float));
    return w;
}

size_t cpu_weight_nbytes(const void *state, const tsr_weight_layout *layout)
{
    enum { MOST_NBYTES_OF_ELEMENT = 1024 }; /* of a row of a panel, its scales included */
    if (layout->k > INT64_MAX / MOST_NBYTES_OF_ELEMENT) return SIZE_MAX;
    tsr_arena count = {0};
    take_weight(state, layout, &count);
    return count.used;
}

/* --- packing --- */

typedef struct pack_job {
    const tsr_cpu *cpu;
    const tsr_weight_pack_args *args;
    packed_weight w;
    char *rows; /* of each slot: a panel's columns as rows, one after the other */
    int64_t slot_nbytes;
} pack_job;

/* Elements of k that are packed at a time: whole chunks of every type. */
enum { PIECE = 4096 };

/* One slot's memory: quantised rows with scales and zeros; rows of a piece where a gate lies between. */
static int64_t rows_nbytes(const packed_weight *w, const tsr_weight_layout *l)
{
    const int64_t nr = w->p.kernel->nr;
    if (is_quantised(l))
        return nr * (round_up(l->k, TSR_ALIGN) + (int64_t)(sizeof(float) + 1) * tsr_weight_n_groups(l));
    return l->gated ? nr * gemm_min(l->k, PIECE) * gemm_nbytes_of(l->dtype) : 0;
}

/* Column c of panel `panel`: its source and row there; NULL beyond the last. */
static const tsr_weight_source *source_of(const pack_job *job, int64_t panel, int64_t c, int64_t *row)
{
    const int64_t columns = job->w.columns_of_panel;
    const bool is_gate = job->args->layout.gated && c < columns;
    *row = panel * columns + c % columns;
    if (*row >= job->args->layout.n) return NULL;
    return is_gate ? &job->args->gate : &job->args->w;
}

/* tsr_weight_quantise_row, by vectors where the row's values are floats side by side. */
static void quantise_row(const pack_job *job, const tsr_weight_source *source, int64_t row, int8_t *q,
                         float *scales, int8_t *zeros)
{
    const tsr_weight_layout *l = &job->args->layout;
    const tsr_tensor *values = &source->values;
    if (values->dtype == TSR_S8 || values->stride[1] != 1) {
        tsr_weight_quantise_row(l, source, row, q, scales, zeros);
        return;
    }
    const int64_t n_groups = tsr_weight_n_groups(l), length = n_groups > 0 ? l->k / n_groups : 0;
    for (int64_t g = 0; g < n_groups; g++, q += length) {
        const void *x = tsr_tensor_at(values, row * values->stride[0] + g * length);
        if (l->format == TSR_WEIGHT_INT4_ZERO)
            scales[g] = job->cpu->row_f32->quantise_from_zero(length, x, values->dtype, q, &zeros[g]);
        else
            scales[g] = job->cpu->row_f32->quantise(length, x, values->dtype,
                                                    l->format == TSR_WEIGHT_INT8 ? 127 : 7, q);
    }
}

static void pack_quantised(const pack_job *job, int64_t panel, char *rows)
{
    const tsr_weight_layout *l = &job->args->layout;
    const packed_weight *w = &job->w;
    const int64_t nr = w->p.kernel->nr, groups = tsr_weight_n_groups(l), q_row = round_up(l->k, TSR_ALIGN);
    int8_t *q = (int8_t *)rows, *zeros = q + nr * q_row + nr * groups * (int64_t)sizeof(float);
    float *scales = (float *)(q + nr * q_row);
    memset(rows, 0, (size_t)job->slot_nbytes);
    for (int64_t c = 0; c < nr; c++) {
        int64_t row;
        const tsr_weight_source *source = source_of(job, panel, c, &row);
        if (source == NULL) continue;
        quantise_row(job, source, row, q + c * q_row, scales + c * groups,
                     w->p.has_zeros ? zeros + c * groups : NULL);
        if (l->format == TSR_WEIGHT_INT8)
            (source == &job->args->gate ? w->gate_scales : w->scales)[row] = scales[c];
    }
    char *to = w->panels + panel * w->p.b_panel_nbytes;
    if (l->format == TSR_WEIGHT_INT8)
        w->p.kernel->pack_b(to, q, TSR_S8, 1, q_row, l->k, nr);
    else
        w->p.kernel->pack_s4(to, q, q_row, l->k, nr, scales, groups, w->p.has_zeros ? zeros : NULL, groups,
                             l->group);
}

/* Columns of a gated panel, elements [k0, k0 + k), as rows of k. */
static void gather_rows(const pack_job *job, int64_t panel, int64_t k0, int64_t k, char *rows)
{
    const int64_t nr = job->w.p.kernel->nr, size = gemm_nbytes_of(job->args->layout.dtype);
    for (int64_t c = 0; c < nr; c++, rows += k * size) {
        int64_t row;
        const tsr_weight_source *source = source_of(job, panel, c, &row);
        if (source == NULL) {
            memset(rows, 0, (size_t)(k * size));
            continue;
        }
        const tsr_tensor *v = &source->values;
        const char *from = (const char *)v->data + (row * v->stride[0] + k0 * v->stride[1]) * size;
        if (v->stride[1] == 1) {
            memcpy(rows, from, (size_t)(k * size));
            continue;
        }
        for (int64_t i = 0; i < k; i++) memcpy(rows + i * size, from + i * v->stride[1] * size, (size_t)size);
    }
}

static void pack_piece(const gemm_product *p, void *panel, const void *x, tsr_dtype dtype, int64_t k_stride,
                       int64_t n_stride, int64_t k, int64_t n)
{
    if (p->type == GEMM_F32 && dtype != TSR_F32)
        p->kernel->pack_16(panel, x, dtype, k_stride, n_stride, k, n);
    else
        p->kernel->pack_b(panel, x, dtype, k_stride, n_stride, k, n);
}

static void pack_as_is(const pack_job *job, int64_t panel, char *rows)
{
    const tsr_weight_layout *l = &job->args->layout;
    const packed_weight *w = &job->w;
    const tsr_tensor *v = &job->args->w.values;
    const int64_t nr = w->p.kernel->nr, first = panel * w->columns_of_panel;
    for (int64_t k0 = 0; k0 < l->k; k0 += PIECE) {
        const int64_t k = gemm_min(PIECE, l->k - k0);
        char *to = w->panels + panel * w->p.b_panel_nbytes + gemm_panel_nbytes(&w->p, k0);
        if (l->gated) {
            gather_rows(job, panel, k0, k, rows);
            pack_piece(&w->p, to, rows, l->dtype, 1, k, k, nr);
        } else {
            pack_piece(&w->p, to, tsr_tensor_at(v, first * v->stride[0] + k0 * v->stride[1]), l->dtype,
                       v->stride[1], v->stride[0], k, gemm_min(nr, l->n - first));
        }
    }
}

static void pack_item(void *arg, int64_t panel, int32_t slot)
{
    const pack_job *job = arg;
    char *rows = job->rows + slot * job->slot_nbytes;
    if (is_quantised(&job->args->layout))
        pack_quantised(job, panel, rows);
    else
        pack_as_is(job, panel, rows);
}

static pack_job plan_pack(const tsr_cpu *cpu, const tsr_weight_pack_args *args, tsr_arena *memory)
{
    tsr_arena packed = tsr_arena_over(args->packed, SIZE_MAX / 2);
    pack_job job = {.cpu = cpu, .args = args, .w = take_weight(cpu, &args->layout, &packed)};
    job.slot_nbytes = round_up(rows_nbytes(&job.w, &args->layout), TSR_ALIGN);
    job.rows = tsr_arena_take(memory, (size_t)tsr_threads_count(cpu->threads), (size_t)job.slot_nbytes);
    return job;
}

size_t cpu_weight_pack_workspace(const void *state, const tsr_weight_pack_args *args)
{
    tsr_arena count = {0};
    plan_pack(state, args, &count);
    return count.used;
}

tsr_status cpu_weight_pack(void *state, const tsr_weight_pack_args *args, void *workspace)
{
    const tsr_cpu *cpu = state;
    TSR_TRY(tsr_check_weight_values(args));
    if (args->layout.k == 0 && args->layout.format != TSR_WEIGHT_INT8) return TSR_OK; /* panels of nothing */
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    pack_job job = plan_pack(cpu, args, &memory);
    tsr_threads_run(cpu->threads, job.w.n_panels, pack_item, &job);
    return TSR_OK;
}

/* --- products --- */

/* A matrix of rows; strides that are never taken may be any number, and get small ones. */
static gemm_operand operand_of(const tsr_tensor *t)
{
    const bool is_empty = t->shape[0] == 0 || t->shape[1] == 0;
    const int64_t row = t->shape[0] > 1 && !is_empty ? t->stride[0] : 0;
    const int64_t col = t->shape[1] > 1 && !is_empty ? t->stride[1] : 1;
    return (gemm_operand){t->data, t->dtype, row, col};
}

static void set_store(const tsr_linear_args *a, tsr_gemm_store_args *s)
{
    s->bias = a->bias.data, s->bias_dtype = a->bias.dtype, s->bias_stride = a->bias.stride[0];
    s->gate_bias = a->gate_bias.data, s->gate_bias_dtype = a->gate_bias.dtype;
    s->gate_bias_stride = a->gate_bias.stride[0];
    s->activation = a->activation;
    s->residual = a->residual.data, s->residual_dtype = a->residual.dtype;
    s->residual_row = a->residual.stride[0], s->residual_col = a->residual.stride[1];
    s->step = a->y_scale;
    s->c = a->y.data, s->c_dtype = a->y.dtype;
    s->c_row = a->y.stride[0], s->c_col = a->y.stride[1];
}

/* Nothing happens to a sum on its way to y. */
static bool is_plain(const tsr_linear_args *a)
{
    return a->bias.data == NULL && a->activation == TSR_ACTIVATION_NONE && a->residual.data == NULL &&
           !a->layout.gated && a->y.dtype == TSR_F32 && a->y.stride[1] == 1;
}

/* A weight that lies as a tensor: B = W^T as it is. */
static void set_plain_weight(const tsr_cpu *cpu, const tsr_linear_args *a, gemm_product *p)
{
    const tsr_tensor *w = &a->plain;
    p->type = w->dtype == TSR_BF16 && cpu->gemm_bf16 != NULL ? GEMM_BF16 : GEMM_F32;
    p->kernel = p->type == GEMM_BF16 ? cpu->gemm_bf16 : cpu->gemm_f32;
    const gemm_operand rows = operand_of(w);
    p->b = (gemm_operand){w->data, w->dtype, rows.col, rows.row};
    p->b_dtype = TSR_F32;
    p->n = a->layout.n;
}

static void set_packed_weight(const tsr_cpu *cpu, const tsr_linear_args *a, gemm_product *p)
{
    tsr_arena packed = tsr_arena_over((void *)a->packed, SIZE_MAX / 2); /* only read from here on */
    const packed_weight w = take_weight(cpu, &a->layout, &packed);
    *p = w.p;
    p->b_packed = w.panels;
    p->n = a->layout.gated ? w.n_panels * p->kernel->nr : a->layout.n;
    p->store.panel = a->layout.gated ? p->kernel->nr : 0;
    p->store.column_scale = w.scales, p->store.gate_scale = w.gate_scales;
    if (p->type == GEMM_BF16 && a->x.dtype == TSR_F32) /* the same pairs, widened */
        p->type = GEMM_F32, p->kernel = cpu->gemm_f32;
}

typedef struct linear_plan {
    gemm_product p;
    gemm_split split;
} linear_plan;

static linear_plan make_plan(const tsr_cpu *cpu, const tsr_linear_args *a, tsr_arena *memory)
{
    linear_plan plan = {0};
    gemm_product *p = &plan.p;
    if (a->packed != NULL)
        set_packed_weight(cpu, a, p);
    else
        set_plain_weight(cpu, a, p);
    p->m = a->x.shape[0], p->k = a->layout.k, p->c_columns = a->layout.n;
    if (p->m == 0 || p->n == 0) return plan;
    p->a = operand_of(&a->x);
    p->store_kernel = cpu->gemm_store, p->row_kernel = cpu->row_f32;
    set_store(a, &p->store);
    const bool integers = p->type == GEMM_S8 || p->type == GEMM_S4;
    p->alpha = integers ? 1 : a->scale;
    p->store.scale = integers ? a->scale : 1;
    p->store.sums_are_s32 = p->type == GEMM_S8;
    p->c_in_place = !integers && is_plain(a);
    plan.split = gemm_plan_split(cpu, p, 1, memory);
    return plan;
}

size_t cpu_linear_workspace(const void *state, const tsr_linear_args *args)
{
    tsr_arena count = {0};
    make_plan(state, args, &count);
    return count.used;
}

static void describe_itself(const void *batch, int64_t i, gemm_product *p) { (void)batch, (void)i, (void)p; }

tsr_status cpu_linear(void *state, const tsr_linear_args *args, void *workspace)
{
    tsr_arena memory = tsr_arena_over(workspace, SIZE_MAX / 2);
    const linear_plan plan = make_plan(state, args, &memory);
    if (plan.split.cpu != NULL) gemm_run_split(&plan.split, &plan.p, describe_itself, NULL);
    return TSR_OK;
}
