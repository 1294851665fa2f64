/*
 * backend/cpu/span.h - how operators other than GEMM and attention walk their tensors
 *
 * Elementwise operators see tensors of one shape as a list of rows of one length; a long row is cut into
 * spans. Row operators (softmax, norms ...) take the last dimension as it is. Either way kernels get f32: a
 * view's own memory where it is contiguous f32, otherwise pieces of CPU_CHUNK elements converted to and from
 * scratch memory on the stack. Lengths here are constants: where a sum is cut never depends on the machine.
 */
#ifndef TSR_CPU_SPAN_H
#define TSR_CPU_SPAN_H

#include "backend/cpu/cpu.h"
#include "base/tensor.h"

enum {
    CPU_CHUNK = 512,      /* elements converted at a time, and summed at a time */
    CPU_ITEM = 16384,     /* elements of one item for the threads, about        */
    CPU_SERIAL = 32768,   /* fewer elements than this do not wake a thread      */
    CPU_ROWS_OF_SUM = 32, /* rows that are summed from zero, before sums merge  */
    CPU_MAX_OPERANDS = 5
};

static inline int64_t cpu_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cpu_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t cpu_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* tsr_threads_run, but on the calling thread alone where all items together touch few elements. */
void cpu_run(const tsr_cpu *cpu, int64_t n_items, int64_t n_elements, tsr_item run, void *arg);

/* --- rows as they are --- */

/* Product of all extents but the last; 0 where rows have no element, as it may then be of any size. */
int64_t cpu_n_rows(const tsr_tensor *t);

/*
 * The first n_dims dimensions merged as far as memory allows: entries keep their numbers, and are found with
 * fewer divisions (as a rule none). An absent tensor stays absent, an empty one as it is.
 */
tsr_tensor cpu_merged(const tsr_tensor *t, int32_t n_dims);
static inline tsr_tensor cpu_merged_rows(const tsr_tensor *t) { return cpu_merged(t, t->rank - 1); }

/* Offset of row (entry of the leading n_dims dimensions) number i. */
static inline int64_t cpu_offset(const tsr_tensor *t, int32_t n_dims, int64_t i)
{
    int64_t offset = 0;
    for (int32_t d = n_dims - 1; d > 0; d--) {
        offset += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return n_dims > 0 ? offset + i * t->stride[0] : 0;
}

/* Elements along one dimension of a view: what kernels read and write. data NULL: absent. */
typedef struct cpu_row {
    char *data;
    int64_t stride;
    tsr_dtype dtype;
    int32_t nbytes; /* of an element */
} cpu_row;

/* Row number `row` of t, along its last dimension. t absent gives an absent row. */
cpu_row cpu_row_of(const tsr_tensor *t, int64_t row);

/* Elements `at`.. as f32: the row's own memory where that is contiguous f32, else scratch after converting n.
 */
static inline const float *cpu_read(const tsr_cpu *cpu, const cpu_row *r, int64_t at, int64_t n,
                                    float *scratch)
{
    const char *from = r->data + at * r->stride * r->nbytes;
    if (r->dtype == TSR_F32 && r->stride == 1) return (const float *)from;
    cpu->elementwise_f32->load(scratch, from, r->dtype, r->stride, n);
    return scratch;
}

/* Where a kernel shall write elements `at`..: the row's own memory or scratch; then cpu_written, which
 * stores. */
static inline float *cpu_to_write(const cpu_row *r, int64_t at, float *scratch)
{
    return r->dtype == TSR_F32 && r->stride == 1 ? (float *)r->data + at : scratch;
}
static inline void cpu_written(const tsr_cpu *cpu, const cpu_row *r, int64_t at, int64_t n, const float *from)
{
    if (r->dtype == TSR_F32 && r->stride == 1) return;
    cpu->elementwise_f32->store(r->data + at * r->stride * r->nbytes, r->dtype, r->stride, from, n);
}

/* run(arg, row) for each row of n elements; rows are independent. */
typedef void (*cpu_row_run)(void *arg, int64_t row);
void cpu_each_row(const tsr_cpu *cpu, int64_t n_rows, int64_t n, cpu_row_run run, void *arg);

/* n elements from one row to the other, converted; any dtypes. */
void cpu_copy_row(const tsr_cpu *cpu, const cpu_row *x, const cpu_row *y, int64_t n);

/* The sum of exp(x - shift) over a row, shift its maximum (0 if that is -Inf): log sum exp = shift +
 * log(sum). */
typedef struct cpu_log_sum {
    float shift, sum;
} cpu_log_sum;
cpu_log_sum cpu_log_sum_of(const tsr_cpu *cpu, const cpu_row *x, int64_t n);

/* out [n] f32 = the chunks' sums [n_chunks][n] added in order, after what out held if accumulate. */
void cpu_merge_sums(const tsr_cpu *cpu, const float *partial, int64_t n_chunks, bool accumulate,
                    const tsr_tensor *out);

/* --- elements in any order --- */

/* Tensors of one shape as rows that merge as many dimensions as all of them allow. */
typedef struct cpu_layout {
    int32_t n_operands, n_outer;
    int64_t n, n_rows;               /* length of a row; rows, 0 if there is nothing to do */
    int64_t n_spans, spans_per_item; /* spans of a row; of an item */
    int64_t n_items;
    int64_t shape[TSR_MAX_RANK]; /* of the rows */
    int64_t stride[CPU_MAX_OPERANDS][TSR_MAX_RANK];
    cpu_row row[CPU_MAX_OPERANDS]; /* the first row */
} cpu_layout;

/* The last operand's order in memory decides the order of the dimensions. */
cpu_layout cpu_layout_of(int32_t n_operands, const tsr_tensor *const *operands);

/* One span: n elements of each operand. Spans of an item come in order, on one thread. */
typedef void (*cpu_span)(void *arg, int64_t item, const cpu_row *x, int64_t n);
void cpu_each_span(const tsr_cpu *cpu, const cpu_layout *layout, cpu_span run, void *arg);

/* A kernel over elements: x[i] holds n f32 of operand i, inputs first, then outputs. */
typedef void (*cpu_pointwise)(const void *arg, int64_t n, float *const *x);
void cpu_map(const tsr_cpu *cpu, int32_t n_inputs, int32_t n_outputs, const tsr_tensor *const *operands,
             cpu_pointwise run, const void *arg);

#endif
