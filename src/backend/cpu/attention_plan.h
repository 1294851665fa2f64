/*
 * backend/cpu/attention_plan.h - what attention's files share: sequences, who sees whom, rows in memory
 *
 * Queries, keys and positions below count from the start of their sequence, so that packed and padded
 * sequences, alone or in company, go the same way.
 */
#ifndef TSR_CPU_ATTENTION_PLAN_H
#define TSR_CPU_ATTENTION_PLAN_H

#include "backend/cpu/cpu.h"
#include "base/arena.h"

/* A half-open range, empty where begin == end. */
typedef struct attention_span {
    int64_t begin, end;
} attention_span;

typedef struct attention_sequence {
    int64_t index;           /* of bias, mask, dropout's head */
    int64_t batch, kv_batch; /* of q and its like, of k and v: 0 where packed */
    int64_t q_row, k_row;    /* first rows there */
    int64_t lq, lk;          /* its own lengths */
    int64_t q_rows, k_rows;  /* rows that outputs have for it: padding beyond its lengths included */
} attention_sequence;

/* Rows of one head in one tensor. */
typedef struct attention_rows {
    void *data; /* NULL if the tensor is absent */
    tsr_dtype dtype;
    int64_t row, col; /* strides */
} attention_rows;

static inline void *attention_row(const attention_rows *r, int64_t i)
{
    return (char *)r->data + i * r->row * (int64_t)tsr_dtype_nbytes(r->dtype);
}

/* False where no memory could hold the operands: products of the sizes then need no further checks. */
bool attention_size_fits(const tsr_attention_fwd_args *a);

attention_sequence attention_sequence_of(const tsr_attention_fwd_args *a, int64_t b);

/* What dropout multiplies an element that it keeps by: 1 / (1 - p). */
float attention_keep_scale(const tsr_attention_fwd_args *a);
tsr_attention_features attention_features_of(const tsr_attention_fwd_args *a, const attention_sequence *s,
                                             int64_t head);

/* Rows from `first` on of a head, in q and what is laid out as q (or lse), and in k and what is laid out as
 * k. */
attention_rows attention_q_rows(const tsr_tensor *t, const attention_sequence *s, int64_t head,
                                int64_t first);
attention_rows attention_k_rows(const tsr_tensor *t, const attention_sequence *s, int64_t head,
                                int64_t first);

/* The rows of k or v that a sequence sees of one head, wherever they lie: in line or in pages. */
typedef struct attention_kv {
    const tsr_attention_fwd_args *a;
    const attention_sequence *s;
    const tsr_tensor *t, *scale;
    int64_t head;
} attention_kv;

static inline bool attention_is_paged(const tsr_attention_fwd_args *a) { return a->block_table.data != NULL; }

const void *attention_kv_row(const attention_kv *x, int64_t key);
/* What an s8 row's elements are multiplied by; NULL for other types. */
const float *attention_kv_scale(const attention_kv *x, int64_t key);
/* How many keys from `key` on, `end` excluded, lie at constant distances: all, or those of a page. */
int64_t attention_kv_run(const attention_kv *x, int64_t key, int64_t end);
/* Rows [keys.begin, keys.end), d elements side by side: as f32, multiplied by their scales; or as they are.
 */
void attention_gather_kv(const tsr_cpu *cpu, const attention_kv *x, attention_span keys, float *to);
void attention_gather_kv_as_is(const attention_kv *x, attention_span keys, void *to);

/* Writes 0 to n rows of d elements. */
void attention_clear_rows(const attention_rows *r, int64_t n, int64_t d);

/* Keys that some of the queries see through their window; queries that see some of the keys. */
attention_span attention_keys_seen(const tsr_attention_features *f, attention_span queries);
attention_span attention_queries_seeing(const tsr_attention_features *f, attention_span keys);

bool attention_sees(const tsr_attention_features *f, int64_t query, int64_t key);

/*
 * What each group of `size` consecutive queries sees of the keys, or keys are seen by of the queries, counted
 * from the rectangle's corner: spans[0], spans[1] .. They begin at a multiple of `step`.
 */
void attention_columns_seen(const tsr_attention_features *f, attention_span queries, attention_span keys,
                            int64_t size, int64_t step, attention_span *spans);
void attention_rows_seeing(const tsr_attention_features *f, attention_span queries, attention_span keys,
                           int64_t size, int64_t step, attention_span *spans);

/* Of the rectangle queries x keys: is all of it visible; is anything of it, as far as the mask says? */
bool attention_sees_all(const tsr_attention_features *f, attention_span queries, attention_span keys);
bool attention_mask_shows(const tsr_attention_features *f, attention_span queries, attention_span keys);

static inline int64_t attention_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t attention_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t attention_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t attention_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/*
 * Floats between rows of a tile: a multiple of the micro-kernel's width, and never one of 1 KiB, as rows that
 * far apart fall on the same sets of the first cache.
 */
static inline int64_t attention_stride(int64_t n, int64_t width)
{
    const int64_t stride = attention_round_up(n, width);
    return stride % 256 == 0 ? stride + 16 : stride;
}

#endif
