/*
 * format/hash_map.h - from a 64-bit key to an index, by open addressing
 *
 * One table serves exact keys (a pair of ids) and hashed ones (a string of bytes): equal keys
 * may be stored more than once, and a search visits all of them, so that the owner of hashed
 * keys compares the strings themselves.
 *
 *     for (uint32_t at = tsr_map_start(m, key); (i = tsr_map_next(m, key, &at)) >= 0;)
 *         if (i is the one) ...
 *
 * Nothing is ever removed. Indices are not negative.
 */
#ifndef TSR_FORMAT_HASH_MAP_H
#define TSR_FORMAT_HASH_MAP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

typedef struct tsr_map_slot {
    uint64_t key;
    int32_t index; /* -1: free */
} tsr_map_slot;

typedef struct tsr_map {
    tsr_map_slot *slot;
    uint32_t n_slots; /* a power of two, or 0 before the first entry */
    uint32_t n;       /* entries, at most half of the slots          */
} tsr_map;

static inline uint64_t tsr_hash_mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0x9E3779B97F4A7C15u;
    return x ^ (x >> 29);
}

static inline uint64_t tsr_hash_bytes(const char *bytes, size_t n)
{
    uint64_t h = n, word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = tsr_hash_mix(h ^ word) * 0xD6E8FEB86659FD93u;
    }
    word = 0;
    memcpy(&word, bytes, n);
    return tsr_hash_mix(h ^ word) * 0xD6E8FEB86659FD93u;
}

static inline uint64_t tsr_pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline uint32_t tsr_map_start(const tsr_map *m, uint64_t key)
{
    return m->n_slots == 0 ? 0 : (uint32_t)tsr_hash_mix(key) & (m->n_slots - 1);
}

/* The next index stored under `key`, or -1. */
static inline int32_t tsr_map_next(const tsr_map *m, uint64_t key, uint32_t *at)
{
    if (m->n_slots == 0) return -1;
    for (;;) {
        const tsr_map_slot *s = &m->slot[*at];
        if (s->index < 0) return -1;
        *at = (*at + 1) & (m->n_slots - 1);
        if (s->key == key) return s->index;
    }
}

/* The first index stored under `key`, or -1. */
static inline int32_t tsr_map_find(const tsr_map *m, uint64_t key)
{
    uint32_t at = tsr_map_start(m, key);
    return tsr_map_next(m, key, &at);
}

static inline void tsr_map_place(tsr_map *m, uint64_t key, int32_t index)
{
    uint32_t at = tsr_map_start(m, key);
    while (m->slot[at].index >= 0) at = (at + 1) & (m->n_slots - 1);
    m->slot[at] = (tsr_map_slot){.key = key, .index = index};
}

static inline tsr_status tsr_map_put(tsr_map *m, uint64_t key, int32_t index)
{
    if (m->n >= m->n_slots / 2) {
        if (m->n_slots > UINT32_MAX / 2) return tsr_fail(TSR_ERR_MEMORY, "hash map: over 2^31 slots");
        tsr_map wider = {.n_slots = m->n_slots == 0 ? 64 : 2 * m->n_slots, .n = m->n};
        wider.slot = malloc(wider.n_slots * sizeof *wider.slot);
        if (wider.slot == NULL) return tsr_fail(TSR_ERR_MEMORY, "hash map: out of memory");
        for (uint32_t i = 0; i < wider.n_slots; i++) wider.slot[i].index = -1;
        for (uint32_t i = 0; i < m->n_slots; i++)
            if (m->slot[i].index >= 0) tsr_map_place(&wider, m->slot[i].key, m->slot[i].index);
        free(m->slot);
        *m = wider;
    }
    tsr_map_place(m, key, index);
    m->n++;
    return TSR_OK;
}

static inline void tsr_map_free(tsr_map *m)
{
    free(m->slot);
    *m = (tsr_map){0};
}

#endif
