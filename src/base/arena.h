/*
 * base/arena.h - memory given out in order and taken back at once
 *
 *     base |#### a ####|-|## b ##|-|.... free ....| capacity
 *                       ^ 64-byte alignment
 *
 * An arena over memory of the caller's measures as well: with base NULL it only counts.
 */
#ifndef TSR_BASE_ARENA_H
#define TSR_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { TSR_ALIGN = 64 }; /* a cache line, the widest vector */

typedef struct tsr_arena {
    char *base;      /* NULL: count only                              */
    size_t capacity; /* bytes at base; ignored when counting          */
    size_t used;     /* bytes given out, padding included; saturates  */
} tsr_arena;

static inline tsr_arena tsr_arena_over(void *base, size_t capacity)
{
    /* The first piece must be aligned whatever the caller's pointer is. */
    const size_t skip = base == NULL ? 0 : (TSR_ALIGN - (uintptr_t)base % TSR_ALIGN) % TSR_ALIGN;
    if (skip > capacity) return (tsr_arena){.base = (char *)base, .capacity = 0};
    return (tsr_arena){.base = base == NULL ? NULL : (char *)base + skip, .capacity = capacity - skip};
}

/* `count` elements of `nbytes` each, 64-byte aligned. NULL when counting, or when it does not fit
 * (used then exceeds capacity; SIZE_MAX where the size itself overflows). */
static inline void *tsr_arena_take(tsr_arena *a, size_t count, size_t nbytes)
{
    size_t size, end;
    if (__builtin_mul_overflow(count, nbytes, &size) || size > SIZE_MAX - 2 * TSR_ALIGN ||
        __builtin_add_overflow(a->used, (size + TSR_ALIGN - 1) / TSR_ALIGN * TSR_ALIGN, &end)) {
        a->used = SIZE_MAX;
        return NULL;
    }
    char *piece = a->base == NULL || end > a->capacity ? NULL : a->base + a->used;
    a->used = end;
    return piece;
}

/* What a caller must pass so that `used` bytes fit at any alignment of its pointer. */
static inline size_t tsr_arena_nbytes(const tsr_arena *a)
{
    return a->used == 0 || a->used > SIZE_MAX - TSR_ALIGN ? a->used : a->used + TSR_ALIGN;
}

#endif
