/*
 * format/tokenizer_merge.c - the merges of one piece
 *
 * Short pieces, nearly all of them, hold the rank of each neighbouring pair in an array: the
 * minimum is found by reading it. In long ones that would be quadratic, so there the ids are a
 * linked list and a heap holds (rank, position); an entry whose pair has changed since is stale
 * and is skipped:
 *
 *     id      t   h   e   r   e           heap: (rank of "th", 0), (rank of "er", 2) ...
 *     rank   [th][he][er][re] -           an entry is valid iff rank[position] is still its rank
 */
#include "format/tokenizer_merge.h"

enum { SHORT_PIECE = 48, NO_RANK = -1 };

tsr_status tsr_ids_reserve(tsr_ids *ids, size_t more)
{
    if (more <= ids->capacity - ids->n) return TSR_OK;
    size_t capacity = ids->capacity + ids->capacity / 2;
    if (capacity < ids->n + more) capacity = ids->n + more;
    int32_t *id = capacity > SIZE_MAX / sizeof *id ? NULL : realloc(ids->id, capacity * sizeof *id);
    if (id == NULL) return tsr_fail(TSR_ERR_MEMORY, "ids: out of memory for %zu of them", capacity);
    ids->id = id;
    ids->capacity = capacity;
    return TSR_OK;
}

tsr_status tsr_ids_append(tsr_ids *ids, int32_t id)
{
    TSR_TRY(tsr_ids_reserve(ids, 1));
    ids->id[ids->n++] = id;
    return TSR_OK;
}

void tsr_ids_free(tsr_ids *ids)
{
    free(ids->id);
    *ids = (tsr_ids){0};
}

void tsr_merge_space_free(tsr_merge_space *s)
{
    free(s->next);
    free(s->heap);
    *s = (tsr_merge_space){0};
}

static int32_t rank_of(const tsr_merge_table *table, int32_t left, int32_t right)
{
    return tsr_map_find(&table->rank, tsr_pair_key(left, right));
}

static size_t merge_short(const tsr_merge_table *table, int32_t *id, size_t n)
{
    int32_t rank[SHORT_PIECE];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(table, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = n;
        uint32_t lowest = UINT32_MAX; /* where NO_RANK is as well */
        for (size_t i = 0; i + 1 < n; i++)
            if ((uint32_t)rank[i] < lowest) lowest = (uint32_t)rank[best = i];
        if (best == n) break;
        id[best] = table->rule[lowest].result;
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        if (best > 0) rank[best - 1] = rank_of(table, id[best - 1], id[best]);
        if (best + 1 < n) rank[best] = rank_of(table, id[best], id[best + 1]);
    }
    return n;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t entry)
{
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > entry; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = entry;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    const uint64_t top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (size_t child = 1; child < *n; i = child, child = 2 * i + 1) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* Every id enters the heap at most once at first, and each merge adds at most two entries: 3 n. */
static tsr_status reserve(tsr_merge_space *s, size_t n)
{
    if (n <= s->capacity) return TSR_OK;
    tsr_merge_space_free(s);
    s->next = malloc(3 * n * sizeof *s->next);
    s->heap = malloc(3 * n * sizeof *s->heap);
    if (s->next == NULL || s->heap == NULL) {
        tsr_merge_space_free(s);
        return tsr_fail(TSR_ERR_MEMORY, "tokenizer: out of memory for a piece of %zu bytes", n);
    }
    s->before = s->next + n;
    s->rank = s->before + n;
    s->capacity = n;
    return TSR_OK;
}

typedef struct long_piece {
    const tsr_merge_table *table;
    tsr_merge_space *s;
    int32_t *id, n;
    size_t n_heap;
} long_piece;

/* Looks at the pair that begins at `i` and offers it for merging. */
static void offer(long_piece *p, int32_t i)
{
    const int32_t next = p->s->next[i];
    p->s->rank[i] = next == p->n ? NO_RANK : rank_of(p->table, p->id[i], p->id[next]);
    if (p->s->rank[i] != NO_RANK) heap_push(p->s->heap, &p->n_heap, tsr_pair_key(p->s->rank[i], i));
}

static size_t merge_long(long_piece *p)
{
    tsr_merge_space *s = p->s;
    for (int32_t i = 0; i < p->n; i++) {
        s->next[i] = i + 1;
        s->before[i] = i - 1;
    }
    for (int32_t i = 0; i < p->n; i++) offer(p, i);
    while (p->n_heap > 0) {
        const uint64_t top = heap_pop(s->heap, &p->n_heap);
        const int32_t rank = (int32_t)(top >> 32), i = (int32_t)(uint32_t)top;
        if (s->rank[i] != rank) continue;
        const int32_t gone = s->next[i], after = s->next[gone];
        p->id[i] = p->table->rule[rank].result;
        s->rank[gone] = NO_RANK;
        s->next[i] = after;
        if (after < p->n) s->before[after] = i;
        offer(p, i);
        if (s->before[i] >= 0) offer(p, s->before[i]);
    }
    size_t n_left = 0;
    for (int32_t i = 0; i < p->n; i = s->next[i]) p->id[n_left++] = p->id[i];
    return n_left;
}

tsr_status tsr_merge_piece(const tsr_merge_table *table, tsr_merge_space *space, int32_t *id, size_t n,
                           size_t *n_left)
{
    if (n <= SHORT_PIECE) {
        *n_left = merge_short(table, id, n);
        return TSR_OK;
    }
    TSR_TRY(reserve(space, n));
    *n_left = merge_long(&(long_piece){.table = table, .s = space, .id = id, .n = (int32_t)n});
    return TSR_OK;
}
