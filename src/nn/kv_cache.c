/*
 * nn/kv_cache.c - keys and values of every layer, and the lengths of the sequences
 *
 *     memory   layer 0: k [B, Hkv, capacity, D], v the same; layer 1 ...
 *     indices  start [B] | lengths [B] | total [B] | positions [B, n_rows]     one upload a step
 *
 * The host knows how long each sequence is, because it says so; the device gets copies.
 */
#include <stdlib.h>
#include <string.h>

#include "nn/nn.h"

struct tsr_kv_cache {
    tsr_context *ctx;
    tsr_kv_cache_options options;
    int64_t layer_numel; /* of k, and of v                           */
    char *memory;
    int32_t *indices; /* on the device, and as the host last sent them */
    int32_t *host_indices;
    int32_t *lengths; /* [B]: rows of each sequence                 */
    int64_t n_rows;   /* of this step                               */
    bool ragged;      /* this step's lengths were given             */
};

static tsr_status check_options(const tsr_kv_cache_options *o, int64_t *layer_numel, int64_t *nbytes,
                                int64_t *n_indices)
{
    if (o->n_layers < 1 || o->batch < 1 || o->n_kv_heads < 1 || o->capacity < 1 || o->head_dim < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache: every size must be at least 1");
    const int64_t element = (int64_t)tsr_dtype_nbytes(o->dtype);
    if (element == 0) return tsr_fail(TSR_ERR_DTYPE, "kv_cache: unknown dtype (%d)", (int)o->dtype);
    int64_t rows;
    if (tsr_mul_overflows(o->batch, o->capacity, &rows) || rows > INT32_MAX ||
        tsr_mul_overflows(rows, o->n_kv_heads, layer_numel) ||
        tsr_mul_overflows(*layer_numel, o->head_dim, layer_numel) ||
        tsr_mul_overflows(*layer_numel, 2 * element, nbytes) ||
        tsr_mul_overflows(*nbytes, o->n_layers, nbytes))
        return tsr_fail(TSR_ERR_OVERFLOW, "kv_cache: the sizes' product is too large");
    *n_indices = 3 * o->batch + rows;
    return TSR_OK;
}

tsr_status tsr_kv_cache_create(tsr_context *ctx, const tsr_kv_cache_options *options, tsr_kv_cache **out)
{
    if (ctx == NULL || options == NULL || out == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache: a null pointer was passed");
    int64_t layer_numel = 0, nbytes = 0, n_indices = 0;
    TSR_TRY(check_options(options, &layer_numel, &nbytes, &n_indices));
    tsr_kv_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return tsr_fail(TSR_ERR_MEMORY, "kv_cache: out of memory");
    *cache = (tsr_kv_cache){.ctx = ctx, .options = *options, .layer_numel = layer_numel};
    cache->lengths = calloc((size_t)options->batch, sizeof *cache->lengths);
    cache->host_indices = calloc((size_t)n_indices, sizeof *cache->host_indices);
    void *memory = NULL, *indices = NULL;
    tsr_status status = TSR_OK;
    if (cache->lengths == NULL || cache->host_indices == NULL)
        status = tsr_fail(TSR_ERR_MEMORY, "kv_cache: out of memory");
    if (status == TSR_OK) status = tsr_allocate(ctx, (size_t)nbytes, &memory);
    cache->memory = memory;
    if (status == TSR_OK) status = tsr_allocate(ctx, (size_t)n_indices * sizeof(int32_t), &indices);
    cache->indices = indices;
    if (status != TSR_OK) {
        tsr_kv_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return TSR_OK;
}

void tsr_kv_cache_destroy(tsr_kv_cache *cache)
{
    if (cache == NULL) return;
    tsr_synchronise(cache->ctx); /* a queueing device may still have work on them */
    tsr_free(cache->ctx, cache->memory);
    tsr_free(cache->ctx, cache->indices);
    free(cache->lengths);
    free(cache->host_indices);
    free(cache);
}

static tsr_status check_growth(const tsr_kv_cache *cache, int64_t n_rows, const int32_t *lengths)
{
    const tsr_kv_cache_options *o = &cache->options;
    if (n_rows < 1 || n_rows > o->capacity)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_extend: n_rows is %lld, must be 1 to %lld",
                        (long long)n_rows, (long long)o->capacity);
    for (int64_t b = 0; b < o->batch; b++) {
        const int64_t n = lengths != NULL ? lengths[b] : n_rows;
        if (n < 0 || n > n_rows)
            return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_extend: lengths[%lld] is %lld, must be 0 to %lld",
                            (long long)b, (long long)n, (long long)n_rows);
        if (n > o->capacity - cache->lengths[b])
            return tsr_fail(TSR_ERR_ARGUMENT,
                            "kv_cache_extend: sequence %lld has %lld rows and gets %lld, room is for %lld",
                            (long long)b, (long long)cache->lengths[b], (long long)n, (long long)o->capacity);
    }
    return TSR_OK;
}

tsr_status tsr_kv_cache_extend(tsr_kv_cache *cache, int64_t n_rows, const int32_t *lengths)
{
    if (cache == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_extend: cache is NULL");
    TSR_TRY(check_growth(cache, n_rows, lengths));
    const int64_t batch = cache->options.batch;
    int32_t *start = cache->host_indices, *given = start + batch, *total = given + batch;
    int32_t *positions = total + batch;
    for (int64_t b = 0; b < batch; b++) {
        start[b] = cache->lengths[b];
        given[b] = lengths != NULL ? lengths[b] : (int32_t)n_rows;
        total[b] = start[b] + given[b];
        /* Padding gets the last row's position: any would do that the table has. */
        const int32_t last = total[b] > 0 ? total[b] - 1 : 0;
        for (int64_t i = 0; i < n_rows; i++) {
            const int64_t at = start[b] + i;
            positions[b * n_rows + i] = at < last ? (int32_t)at : last;
        }
    }
    const size_t n_indices = (size_t)(3 * batch + batch * n_rows);
    TSR_TRY(tsr_upload(cache->ctx, cache->indices, cache->host_indices, n_indices * sizeof(int32_t)));
    memcpy(cache->lengths, total, (size_t)batch * sizeof *total);
    cache->n_rows = n_rows;
    cache->ragged = lengths != NULL;
    return TSR_OK;
}

tsr_status tsr_kv_cache_layer(const tsr_kv_cache *cache, int64_t index, tsr_kv_layer *out)
{
    if (cache == NULL || out == NULL)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_layer: a null pointer was passed");
    const tsr_kv_cache_options *o = &cache->options;
    if (index < 0 || index >= o->n_layers)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_layer: index is %lld, must be 0 to %lld",
                        (long long)index, (long long)(o->n_layers - 1));
    if (cache->n_rows == 0) return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_layer: no step was begun");
    const size_t nbytes = (size_t)cache->layer_numel * tsr_dtype_nbytes(o->dtype);
    char *k = cache->memory + 2 * (size_t)index * nbytes;
    tsr_kv_layer layer = {
        .k = tsr_tensor_4d(k, o->dtype, o->batch, o->n_kv_heads, o->capacity, o->head_dim),
        .v = tsr_tensor_4d(k + nbytes, o->dtype, o->batch, o->n_kv_heads, o->capacity, o->head_dim),
        .start = tsr_tensor_1d(cache->indices, TSR_I32, o->batch),
        .total = tsr_tensor_1d(cache->indices + 2 * o->batch, TSR_I32, o->batch),
        .positions = tsr_tensor_2d(cache->indices + 3 * o->batch, TSR_I32, o->batch, cache->n_rows)};
    if (cache->ragged) layer.lengths = tsr_tensor_1d(cache->indices + o->batch, TSR_I32, o->batch);
    layer.k.device = layer.v.device = layer.start.device = layer.lengths.device = layer.total.device =
        layer.positions.device = tsr_context_device(cache->ctx);
    *out = layer;
    return TSR_OK;
}

int64_t tsr_kv_cache_length(const tsr_kv_cache *cache, int64_t b)
{
    return cache != NULL && b >= 0 && b < cache->options.batch ? cache->lengths[b] : 0;
}

tsr_status tsr_kv_cache_shorten(tsr_kv_cache *cache, int64_t b, int64_t length)
{
    if (cache == NULL || b < 0 || b >= cache->options.batch)
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_shorten: no sequence %lld", (long long)b);
    if (length < 0 || length > cache->lengths[b])
        return tsr_fail(TSR_ERR_ARGUMENT, "kv_cache_shorten: length is %lld, must be 0 to %lld",
                        (long long)length, (long long)cache->lengths[b]);
    cache->lengths[b] = (int32_t)length;
    return TSR_OK;
}

size_t tsr_kv_cache_nbytes(const tsr_kv_cache *cache)
{
    if (cache == NULL) return 0;
    return 2 * (size_t)cache->layer_numel * tsr_dtype_nbytes(cache->options.dtype) *
           (size_t)cache->options.n_layers;
}
