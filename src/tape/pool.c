/* tape/pool.c - best fit over spans in address order, joined when free */
#include "tape/pool.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/error.h"

enum { SEGMENT_MIN_NBYTES = 1 << 20 };

/* Room for one more record, so that splitting a span cannot fail. */
static tsr_status reserve_record(tsr_pool *pool)
{
    if (pool->unused != 0 || pool->n_spans + 1 < pool->capacity) return TSR_OK;
    const uint32_t capacity = pool->capacity == 0 ? 64 : 2 * pool->capacity;
    tsr_pool_span *spans = realloc(pool->spans, capacity * sizeof *spans);
    if (spans == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape: out of memory for its records");
    pool->spans = spans;
    pool->capacity = capacity;
    return TSR_OK;
}

static uint32_t new_record(tsr_pool *pool, tsr_pool_span record)
{
    uint32_t i = pool->unused;
    if (i != 0)
        pool->unused = pool->spans[i].next;
    else
        i = ++pool->n_spans;
    record.used = true;
    pool->spans[i] = record;
    return i;
}

static void drop_record(tsr_pool *pool, uint32_t i)
{
    pool->spans[i] = (tsr_pool_span){.next = pool->unused};
    pool->unused = i;
}

/* A new segment, of a quarter of what is held at least, so that growing takes few of them. */
static tsr_status add_segment(tsr_pool *pool, size_t nbytes, uint32_t *span)
{
    if (nbytes < pool->reserved / 4) nbytes = pool->reserved / 4 / TSR_ALIGN * TSR_ALIGN;
    if (nbytes < SEGMENT_MIN_NBYTES) nbytes = SEGMENT_MIN_NBYTES;
    if (pool->n_segments == pool->segments_capacity) {
        const uint32_t capacity = 2 * pool->segments_capacity + 4;
        void **segments = realloc(pool->segments, capacity * sizeof *segments);
        if (segments == NULL) return tsr_fail(TSR_ERR_MEMORY, "tape: out of memory for its records");
        pool->segments = segments;
        pool->segments_capacity = capacity;
    }
    TSR_TRY(reserve_record(pool));
    void *data;
    TSR_TRY(tsr_allocate(pool->ctx, nbytes, &data));
    pool->segments[pool->n_segments++] = data;
    pool->reserved += nbytes;
    pool->n_allocations++;
    *span = new_record(pool, (tsr_pool_span){.data = data, .nbytes = nbytes});
    return TSR_OK;
}

static uint32_t best_fit(const tsr_pool *pool, size_t nbytes)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i <= pool->n_spans; i++) {
        const tsr_pool_span *s = &pool->spans[i];
        if (!s->used || s->taken || s->nbytes < nbytes) continue;
        if (best == 0 || s->nbytes < pool->spans[best].nbytes) best = i;
    }
    return best;
}

tsr_status tsr_pool_take(tsr_pool *pool, size_t nbytes, uint32_t *span, void **data)
{
    if (nbytes > SIZE_MAX / 2) return tsr_fail(TSR_ERR_MEMORY, "tape: %zu bytes is too much", nbytes);
    nbytes = nbytes == 0 ? TSR_ALIGN : (nbytes + TSR_ALIGN - 1) / TSR_ALIGN * TSR_ALIGN;
    uint32_t i = best_fit(pool, nbytes);
    if (i == 0) TSR_TRY(add_segment(pool, nbytes, &i));
    TSR_TRY(reserve_record(pool));
    tsr_pool_span *s = &pool->spans[i];
    if (s->nbytes > nbytes) {
        const tsr_pool_span rest = {
            .data = s->data + nbytes, .nbytes = s->nbytes - nbytes, .prev = i, .next = s->next};
        const uint32_t r = new_record(pool, rest);
        if (rest.next != 0) pool->spans[rest.next].prev = r;
        s->next = r;
        s->nbytes = nbytes;
    }
    s->taken = true;
    pool->in_use += nbytes;
    if (pool->in_use > pool->step_peak) pool->step_peak = pool->in_use;
    if (pool->in_use > pool->peak) pool->peak = pool->in_use;
    *span = i;
    *data = s->data;
    return TSR_OK;
}

/* Joins span i with the free span after it. */
static void join_next(tsr_pool *pool, uint32_t i)
{
    tsr_pool_span *s = &pool->spans[i];
    const uint32_t n = s->next;
    if (n == 0 || s->taken || pool->spans[n].taken) return;
    s->nbytes += pool->spans[n].nbytes;
    s->next = pool->spans[n].next;
    if (s->next != 0) pool->spans[s->next].prev = i;
    drop_record(pool, n);
}

void tsr_pool_give(tsr_pool *pool, uint32_t span)
{
    tsr_pool_span *s = &pool->spans[span];
    s->taken = false;
    pool->in_use -= s->nbytes;
    join_next(pool, span);
    if (s->prev != 0) join_next(pool, s->prev);
}

static void release_segments(tsr_pool *pool)
{
    /* A queueing device may still have work on them. */
    if (pool->n_segments > 0) tsr_synchronise(pool->ctx);
    for (uint32_t i = 0; i < pool->n_segments; i++) tsr_free(pool->ctx, pool->segments[i]);
    pool->n_segments = 0;
    pool->n_spans = pool->unused = 0;
    pool->reserved = 0;
}

tsr_status tsr_pool_settle(tsr_pool *pool)
{
    if (pool->n_segments < 2 || pool->in_use > 0) return TSR_OK;
    const size_t nbytes = pool->reserved;
    TSR_TRY(tsr_synchronise(pool->ctx));
    release_segments(pool);
    uint32_t span;
    return add_segment(pool, nbytes, &span);
}

void tsr_pool_clear(tsr_pool *pool)
{
    release_segments(pool);
    free(pool->spans);
    free(pool->segments);
    *pool = (tsr_pool){.ctx = pool->ctx};
}
