/* backend/cpu/span.c - rows, spans and the loops over them */
#include "backend/cpu/span.h"

#include <string.h>

#include "base/dtype.h"

typedef struct serial_job {
    int64_t n_items;
    tsr_item run;
    void *arg;
} serial_job;

static void run_all(void *arg, int64_t item, int32_t slot)
{
    const serial_job *job = arg;
    (void)item;
    for (int64_t i = 0; i < job->n_items; i++) job->run(job->arg, i, slot);
}

void cpu_run(const tsr_cpu *cpu, int64_t n_items, int64_t n_elements, tsr_item run, void *arg)
{
    serial_job job = {n_items, run, arg};
    if (n_elements < CPU_SERIAL)
        tsr_threads_run(cpu->threads, 1, run_all, &job);
    else
        tsr_threads_run(cpu->threads, n_items, run, arg);
}

int64_t cpu_n_rows(const tsr_tensor *t)
{
    const int64_t numel = tsr_tensor_numel(t);
    return numel == 0 ? 0 : numel / t->shape[t->rank - 1];
}

tsr_tensor cpu_merged(const tsr_tensor *t, int32_t n_dims)
{
    tsr_tensor r = *t;
    if (t->data == NULL || tsr_tensor_numel(t) == 0) return r;
    r.rank = 0;
    for (int32_t d = 0; d < t->rank; d++) {
        if (d < n_dims && t->shape[d] == 1) continue;
        if (d < n_dims && r.rank > 0 && r.stride[r.rank - 1] == t->shape[d] * t->stride[d])
            r.shape[r.rank - 1] *= t->shape[d]; /* a row-major pair becomes one */
        else
            r.shape[r.rank++] = t->shape[d];
        r.stride[r.rank - 1] = t->stride[d];
    }
    return r;
}

cpu_row cpu_row_of(const tsr_tensor *t, int64_t row)
{
    if (t->data == NULL) return (cpu_row){0};
    const int32_t last = t->rank - 1;
    return (cpu_row){.data = tsr_tensor_at(t, cpu_offset(t, last, row)),
                     .stride = last >= 0 ? t->stride[last] : 1,
                     .dtype = t->dtype,
                     .nbytes = (int32_t)tsr_dtype_nbytes(t->dtype)};
}

typedef struct rows_job {
    int64_t n_rows, rows_per_item;
    cpu_row_run run;
    void *arg;
} rows_job;

static void run_rows(void *arg, int64_t item, int32_t slot)
{
    const rows_job *job = arg;
    (void)slot;
    const int64_t end = cpu_min((item + 1) * job->rows_per_item, job->n_rows);
    for (int64_t row = item * job->rows_per_item; row < end; row++) job->run(job->arg, row);
}

void cpu_each_row(const tsr_cpu *cpu, int64_t n_rows, int64_t n, cpu_row_run run, void *arg)
{
    rows_job job = {n_rows, cpu_max(1, CPU_ITEM / cpu_max(1, n)), run, arg};
    cpu_run(cpu, cpu_ceil_div(n_rows, job.rows_per_item), n_rows * n, run_rows, &job);
}

/* --- copies of rows --- */

static void move_row(const cpu_row *x, const cpu_row *y, int64_t n)
{
    const size_t nbytes = (size_t)x->nbytes;
    if (x->stride == 1 && y->stride == 1) {
        memcpy(y->data, x->data, (size_t)n * nbytes);
        return;
    }
    const char *from = x->data;
    char *to = y->data;
    const int64_t from_step = x->stride * x->nbytes, to_step = y->stride * y->nbytes;
    switch (nbytes) { /* constant sizes, so that memcpy is one instruction */
    case 1:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, 1);
        break;
    case 2:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, 2);
        break;
    case 4:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, 4);
        break;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, 8);
        break;
    }
}

static bool computed_in_f32(tsr_dtype dtype)
{
    return dtype == TSR_F32 || dtype == TSR_BF16 || dtype == TSR_F16;
}

void cpu_copy_row(const tsr_cpu *cpu, const cpu_row *x, const cpu_row *y, int64_t n)
{
    if (x->dtype == y->dtype) {
        move_row(x, y, n);
    } else if (computed_in_f32(x->dtype) && computed_in_f32(y->dtype)) {
        float scratch[CPU_CHUNK];
        for (int64_t at = 0; at < n; at += CPU_CHUNK) {
            const int64_t m = cpu_min(n - at, CPU_CHUNK);
            float *to = cpu_to_write(y, at, scratch);
            const float *from = cpu_read(cpu, x, at, m, to);
            cpu_written(cpu, y, at, m, from);
        }
    } else {
        for (int64_t i = 0; i < n; i++)
            tsr_store_f64(y->data, y->dtype, i * y->stride, tsr_load_f64(x->data, x->dtype, i * x->stride));
    }
}

/* --- layouts --- */

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* The dimensions of more than one element, those of the last operand's longest strides first. */
static int32_t order_dims(const tsr_tensor *by, int32_t *dims)
{
    int32_t n = 0;
    for (int32_t d = 0; d < by->rank; d++) {
        if (by->shape[d] == 1) continue;
        int32_t at = n++;
        for (; at > 0 && magnitude(by->stride[dims[at - 1]]) < magnitude(by->stride[d]); at--)
            dims[at] = dims[at - 1];
        dims[at] = d;
    }
    return n;
}

static bool merges(int32_t n_operands, const tsr_tensor *const *operands, int32_t outer, int32_t inner)
{
    for (int32_t i = 0; i < n_operands; i++)
        if (operands[i]->stride[outer] != operands[i]->stride[inner] * operands[i]->shape[inner])
            return false;
    return true;
}

cpu_layout cpu_layout_of(int32_t n_operands, const tsr_tensor *const *operands)
{
    const tsr_tensor *last = operands[n_operands - 1];
    cpu_layout l = {.n_operands = n_operands, .n = 1, .n_rows = 1};
    if (tsr_tensor_numel(last) == 0) return (cpu_layout){.n_operands = n_operands};
    int32_t dims[TSR_MAX_RANK];
    const int32_t n_dims = order_dims(last, dims);
    for (int32_t i = 0; i < n_operands; i++)
        l.row[i] = (cpu_row){.data = operands[i]->data,
                             .stride = 1,
                             .dtype = operands[i]->dtype,
                             .nbytes = (int32_t)tsr_dtype_nbytes(operands[i]->dtype)};
    for (int32_t k = 0; k < n_dims;
         k++) { /* the last group of dimensions is the row, the others are `outer` */
        const bool merged = k > 0 && merges(n_operands, operands, dims[k - 1], dims[k]);
        if (k > 0 && !merged) {
            for (int32_t i = 0; i < n_operands; i++) l.stride[i][l.n_outer] = l.row[i].stride;
            l.shape[l.n_outer++] = l.n;
            l.n_rows *= l.n;
            l.n = 1;
        }
        l.n *= last->shape[dims[k]];
        for (int32_t i = 0; i < n_operands; i++) l.row[i].stride = operands[i]->stride[dims[k]];
    }
    l.n_spans = cpu_ceil_div(l.n, CPU_ITEM);
    l.spans_per_item = cpu_max(1, CPU_ITEM / cpu_max(1, l.n));
    l.n_items = cpu_ceil_div(l.n_rows * l.n_spans, l.spans_per_item);
    return l;
}

typedef struct span_job {
    const cpu_layout *layout;
    cpu_span run;
    void *arg;
} span_job;

static void span_item(void *arg, int64_t item, int32_t slot)
{
    const span_job *job = arg;
    const cpu_layout *l = job->layout;
    (void)slot;
    const int64_t first = item * l->spans_per_item;
    const int64_t end = cpu_min(first + l->spans_per_item, l->n_rows * l->n_spans);
    for (int64_t span = first; span < end; span++) {
        int64_t row = l->n_spans == 1 ? span : span / l->n_spans;
        const int64_t at = (span - row * l->n_spans) * CPU_ITEM;
        int64_t index[TSR_MAX_RANK] = {0};
        for (int32_t d = l->n_outer - 1; d > 0; d--) {
            index[d] = row % l->shape[d];
            row /= l->shape[d];
        }
        index[0] = row; /* 0 where there are no outer dimensions */
        cpu_row x[CPU_MAX_OPERANDS];
        for (int32_t i = 0; i < l->n_operands; i++) {
            int64_t offset = at * l->row[i].stride;
            for (int32_t d = 0; d < l->n_outer; d++) offset += index[d] * l->stride[i][d];
            x[i] = l->row[i];
            x[i].data += offset * x[i].nbytes;
        }
        job->run(job->arg, item, x, cpu_min(l->n - at, CPU_ITEM));
    }
}

void cpu_each_span(const tsr_cpu *cpu, const cpu_layout *layout, cpu_span run, void *arg)
{
    span_job job = {layout, run, arg};
    cpu_run(cpu, layout->n_items, layout->n_rows * layout->n, span_item, &job);
}

/* --- maps --- */

typedef struct map_job {
    const tsr_cpu *cpu;
    int32_t n_inputs, n_operands;
    cpu_pointwise run;
    const void *arg;
} map_job;

static void map_span(void *arg, int64_t item, const cpu_row *row, int64_t n)
{
    const map_job *job = arg;
    (void)item;
    float scratch[CPU_MAX_OPERANDS][CPU_CHUNK];
    float *x[CPU_MAX_OPERANDS];
    bool in_place = true;
    for (int32_t i = 0; i < job->n_operands; i++) in_place &= row[i].dtype == TSR_F32 && row[i].stride == 1;
    const int64_t step = in_place ? n : CPU_CHUNK;
    for (int64_t at = 0; at < n; at += step) {
        const int64_t m = cpu_min(n - at, step);
        for (int32_t i = 0; i < job->n_operands; i++)
            x[i] = i < job->n_inputs ? (float *)cpu_read(job->cpu, &row[i], at, m, scratch[i])
                                     : cpu_to_write(&row[i], at, scratch[i]);
        job->run(job->arg, m, x);
        for (int32_t i = job->n_inputs; i < job->n_operands; i++) cpu_written(job->cpu, &row[i], at, m, x[i]);
    }
}

void cpu_map(const tsr_cpu *cpu, int32_t n_inputs, int32_t n_outputs, const tsr_tensor *const *operands,
             cpu_pointwise run, const void *arg)
{
    map_job job = {cpu, n_inputs, n_inputs + n_outputs, run, arg};
    const cpu_layout layout = cpu_layout_of(job.n_operands, operands);
    cpu_each_span(cpu, &layout, map_span, &job);
}
