/* backend/cpu/attention_plan.c - lengths, windows and masks of attention */
#include "backend/cpu/attention_plan.h"

#include <string.h>

#include "backend/indices.h"
#include "base/random.h"
#include "base/tensor.h"

bool attention_size_fits(const tsr_attention_fwd_args *a)
{
    const int64_t rows = (int64_t)1 << 30;
    const double elements = (double)(a->lq + a->lk) * (double)(a->d + a->dv) * (double)a->b * (double)a->hq;
    return a->lq < rows && a->lk < rows && a->b < rows && a->hq < rows && a->b * a->hq < rows &&
           a->d < rows && a->dv < rows && elements < 0x1p52;
}

attention_sequence attention_sequence_of(const tsr_attention_fwd_args *a, int64_t b)
{
    attention_sequence s = {
        .index = b, .batch = b, .kv_batch = b, .lq = a->lq, .lk = a->lk, .q_rows = a->lq, .k_rows = a->lk};
    if (a->cu_seqlens_q.data != NULL) {
        s.batch = 0;
        s.q_row = tsr_index_at(&a->cu_seqlens_q, b);
        s.lq = s.q_rows = tsr_index_at(&a->cu_seqlens_q, b + 1) - s.q_row;
    }
    if (a->cu_seqlens_k.data != NULL) {
        s.kv_batch = 0;
        s.k_row = tsr_index_at(&a->cu_seqlens_k, b);
        s.lk = s.k_rows = tsr_index_at(&a->cu_seqlens_k, b + 1) - s.k_row;
    }
    if (a->seqlens_q.data != NULL) s.lq = tsr_index_at(&a->seqlens_q, b);
    if (a->seqlens_k.data != NULL) s.lk = tsr_index_at(&a->seqlens_k, b);
    return s;
}

static int64_t reach(int64_t window)
{
    const int64_t unlimited = (int64_t)1 << 62;
    return window < 0 ? unlimited : attention_min(window, unlimited);
}

float attention_keep_scale(const tsr_attention_fwd_args *a)
{
    return (float)(1 / (1 - (double)a->dropout_p));
}

tsr_attention_features attention_features_of(const tsr_attention_fwd_args *a, const attention_sequence *s,
                                             int64_t head)
{
    const double log2_e = 1.4426950408889634;
    tsr_attention_features f = {
        .lq = s->lq,
        .lk = s->lk,
        .left = reach(a->window_left),
        .right = reach(a->window_right),
        .alpha = (float)(a->softcap > 0 ? (double)a->scale / a->softcap : (double)a->scale * log2_e),
        .cap = a->softcap > 0 ? (float)(a->softcap * log2_e) : 0,
    };
    if (a->alibi.data != NULL)
        f.slope = (float)(((const float *)a->alibi.data)[head * a->alibi.stride[0]] * log2_e);
    if (a->bias.data != NULL) {
        const tsr_tensor *t = &a->bias;
        f.bias = tsr_tensor_at(t, s->index * t->stride[0] + head * t->stride[1]);
        f.bias_row = t->stride[2], f.bias_col = t->stride[3], f.bias_dtype = t->dtype;
    }
    if (a->mask.data != NULL) {
        const tsr_tensor *t = &a->mask;
        f.mask = (const uint8_t *)t->data + s->index * t->stride[0] + head * t->stride[1];
        f.mask_row = t->stride[2], f.mask_col = t->stride[3];
    }
    if (a->dropout_p > 0) {
        f.dropout = true;
        f.drop_below = tsr_dropout_threshold(a->dropout_p);
        f.keep_scale = attention_keep_scale(a);
        f.seed = a->dropout_seed, f.offset = a->dropout_offset;
        f.head = (uint32_t)(s->index * a->hq + head);
    }
    return f;
}

static attention_rows rows_of(const tsr_tensor *t, int64_t batch, int64_t head, int64_t row)
{
    if (t->data == NULL) return (attention_rows){0};
    return (attention_rows){
        .data = tsr_tensor_at(t, batch * t->stride[0] + head * t->stride[1] + row * t->stride[2]),
        .dtype = t->dtype,
        .row = t->stride[2],
        .col = t->rank == 4 ? t->stride[3] : 1,
    };
}

attention_rows attention_q_rows(const tsr_tensor *t, const attention_sequence *s, int64_t head, int64_t first)
{
    return rows_of(t, s->batch, head, s->q_row + first);
}

attention_rows attention_k_rows(const tsr_tensor *t, const attention_sequence *s, int64_t head, int64_t first)
{
    return rows_of(t, s->kv_batch, head, s->k_row + first);
}

/* Where a key's row lies in k, v and their scales: [batch or page, head, row]. */
typedef struct kv_place {
    int64_t batch, row;
} kv_place;

static kv_place place_of(const attention_kv *x, int64_t key)
{
    if (!attention_is_paged(x->a)) return (kv_place){x->s->kv_batch, x->s->k_row + key};
    const int64_t page = x->t->shape[2];
    return (kv_place){tsr_page_at(&x->a->block_table, x->s->index, key / page), key % page};
}

const void *attention_kv_row(const attention_kv *x, int64_t key)
{
    const kv_place p = place_of(x, key);
    const int64_t *stride = x->t->stride;
    return tsr_tensor_at(x->t, p.batch * stride[0] + x->head * stride[1] + p.row * stride[2]);
}

const float *attention_kv_scale(const attention_kv *x, int64_t key)
{
    if (x->scale->data == NULL) return NULL;
    const kv_place p = place_of(x, key);
    const int64_t *stride = x->scale->stride;
    return (const float *)x->scale->data + p.batch * stride[0] + x->head * stride[1] + p.row * stride[2];
}

int64_t attention_kv_run(const attention_kv *x, int64_t key, int64_t end)
{
    if (!attention_is_paged(x->a)) return end - key;
    const int64_t page = x->t->shape[2];
    return attention_min(end - key, page - key % page);
}

void attention_gather_kv(const tsr_cpu *cpu, const attention_kv *x, attention_span keys, float *to)
{
    const int64_t d = x->t->shape[3], col = x->t->stride[3];
    for (int64_t j = keys.begin; j < keys.end; j++, to += d) {
        const void *row = attention_kv_row(x, j);
        if (x->t->dtype != TSR_S8) {
            cpu->elementwise_f32->load(to, row, x->t->dtype, col, d);
            continue;
        }
        const float *scale = attention_kv_scale(x, j);
        const float factor = scale != NULL ? *scale : 1;
        for (int64_t i = 0; i < d; i++) to[i] = factor * (float)((const int8_t *)row)[i * col];
    }
}

void attention_gather_kv_as_is(const attention_kv *x, attention_span keys, void *to)
{
    const int64_t d = x->t->shape[3], col = x->t->stride[3];
    const size_t nbytes = tsr_dtype_nbytes(x->t->dtype);
    char *at = to;
    for (int64_t j = keys.begin; j < keys.end; j++) {
        const char *row = attention_kv_row(x, j);
        if (col == 1) {
            memcpy(at, row, (size_t)d * nbytes);
            at += (size_t)d * nbytes;
            continue;
        }
        for (int64_t i = 0; i < d; i++, at += nbytes) memcpy(at, row + i * col * (int64_t)nbytes, nbytes);
    }
}

void attention_clear_rows(const attention_rows *r, int64_t n, int64_t d)
{
    if (r->data == NULL) return;
    const size_t nbytes = tsr_dtype_nbytes(r->dtype); /* 0 is all zero bits in every dtype */
    for (int64_t i = 0; i < n; i++) {
        char *row = attention_row(r, i);
        if (r->col == 1)
            memset(row, 0, (size_t)d * nbytes);
        else
            for (int64_t j = 0; j < d; j++) memset(row + j * r->col * (int64_t)nbytes, 0, nbytes);
    }
}

static attention_span clipped(int64_t begin, int64_t end, int64_t n)
{
    begin = attention_min(attention_max(begin, 0), n);
    return (attention_span){begin, attention_max(begin, attention_min(end, n))};
}

attention_span attention_keys_seen(const tsr_attention_features *f, attention_span queries)
{
    const int64_t diagonal = f->lk - f->lq;
    if (queries.begin >= queries.end) return (attention_span){0, 0};
    return clipped(queries.begin + diagonal - f->left, queries.end + diagonal + f->right, f->lk);
}

attention_span attention_queries_seeing(const tsr_attention_features *f, attention_span keys)
{
    const int64_t diagonal = f->lk - f->lq;
    if (keys.begin >= keys.end) return (attention_span){0, 0};
    return clipped(keys.begin - diagonal - f->right, keys.end - diagonal + f->left, f->lq);
}

static attention_span overlap(attention_span a, attention_span b)
{
    const int64_t begin = attention_max(a.begin, b.begin), end = attention_min(a.end, b.end);
    return begin < end ? (attention_span){begin - b.begin, end - b.begin} : (attention_span){0, 0};
}

void attention_columns_seen(const tsr_attention_features *f, attention_span queries, attention_span keys,
                            int64_t size, int64_t step, attention_span *spans)
{
    for (int64_t i = queries.begin; i < queries.end; i += size, spans++) {
        const attention_span group = {i, attention_min(i + size, queries.end)};
        *spans = overlap(attention_keys_seen(f, group), keys);
        spans->begin -= spans->begin % step;
    }
}

void attention_rows_seeing(const tsr_attention_features *f, attention_span queries, attention_span keys,
                           int64_t size, int64_t step, attention_span *spans)
{
    for (int64_t j = keys.begin; j < keys.end; j += size, spans++) {
        const attention_span group = {j, attention_min(j + size, keys.end)};
        *spans = overlap(attention_queries_seeing(f, group), queries);
        spans->begin -= spans->begin % step;
    }
}

bool attention_sees(const tsr_attention_features *f, int64_t query, int64_t key)
{
    const int64_t ahead = key - (query + f->lk - f->lq);
    return ahead >= -f->left && ahead <= f->right &&
           (f->mask == NULL || f->mask[query * f->mask_row + key * f->mask_col] != 0);
}

bool attention_sees_all(const tsr_attention_features *f, attention_span queries, attention_span keys)
{
    const int64_t diagonal = f->lk - f->lq;
    return f->mask == NULL && keys.begin >= queries.end - 1 + diagonal - f->left &&
           keys.end - 1 <= queries.begin + diagonal + f->right;
}

bool attention_mask_shows(const tsr_attention_features *f, attention_span queries, attention_span keys)
{
    if (f->mask == NULL) return true;
    for (int64_t i = queries.begin; i < queries.end; i++)
        for (int64_t j = keys.begin; j < keys.end; j++)
            if (f->mask[i * f->mask_row + j * f->mask_col] != 0) return true;
    return false;
}
