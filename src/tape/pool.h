/*
 * tape/pool.h - device memory that is taken and given back many times a step, and kept between steps
 *
 *     segment (one tsr_allocate)  |  taken  |  free  | taken |      free       |
 *                                 span <->  span <-> span <->  span                 in order of address
 *
 * A request takes the smallest free span that holds it and leaves the rest free; a span given back joins its
 * free neighbours. Several segments exist only while the pool grows: tsr_pool_settle makes them one.
 * On a queueing device memory is reused in the order of the queue, so nothing waits here.
 */
#ifndef TSR_TAPE_POOL_H
#define TSR_TAPE_POOL_H

#include <stdbool.h>

#include "tessera/context.h"

typedef struct tsr_pool_span {
    char *data;
    size_t nbytes;
    uint32_t prev, next; /* neighbours in the segment, 0 = none; next also chains unused records */
    bool taken;
    bool used; /* the record describes memory */
} tsr_pool_span;

typedef struct tsr_pool {
    tsr_context *ctx;
    tsr_pool_span *spans; /* record 0 is never used */
    uint32_t n_spans, capacity, unused;
    void **segments;
    uint32_t n_segments, segments_capacity;
    size_t in_use, step_peak, peak, reserved; /* bytes, spans rounded up to whole cache lines */
    uint64_t n_allocations;
} tsr_pool;

/* At least nbytes, 64-byte aligned; *span names it for tsr_pool_give. */
tsr_status tsr_pool_take(tsr_pool *pool, size_t nbytes, uint32_t *span, void **data);
void tsr_pool_give(tsr_pool *pool, uint32_t span);

/* Where nothing is taken and there are several segments: one of their size replaces them. */
tsr_status tsr_pool_settle(tsr_pool *pool);

/* Gives everything back to the device. */
void tsr_pool_clear(tsr_pool *pool);

#endif
