/* train/bpe_pairs.c - pairs of symbols in an indexed heap */
#include "train/bpe_pairs.h"

#include <assert.h>
#include <stdbool.h>

/* More frequent first, then smaller ids: a total order, so the heap's history does not show. */
static bool precedes(const tsr_bpe_pair *a, const tsr_bpe_pair *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static void put_at(tsr_bpe_pairs *p, int32_t place, int32_t index)
{
    p->heap[place] = index;
    p->pair[index].place = place;
}

static void rise(tsr_bpe_pairs *p, int32_t place)
{
    const int32_t index = p->heap[place];
    for (; place > 0; place = (place - 1) / 2) {
        const int32_t above = p->heap[(place - 1) / 2];
        if (!precedes(&p->pair[index], &p->pair[above])) break;
        put_at(p, place, above);
    }
    put_at(p, place, index);
}

static void sink(tsr_bpe_pairs *p, int32_t place)
{
    const int32_t index = p->heap[place];
    for (int32_t child; (child = 2 * place + 1) < p->n_heap; place = child) {
        if (child + 1 < p->n_heap && precedes(&p->pair[p->heap[child + 1]], &p->pair[p->heap[child]]))
            child++;
        if (!precedes(&p->pair[p->heap[child]], &p->pair[index])) break;
        put_at(p, place, p->heap[child]);
    }
    put_at(p, place, index);
}

static tsr_status grow(tsr_bpe_pairs *p)
{
    if (p->n < p->capacity) return TSR_OK;
    if (p->capacity > INT32_MAX / 4) return tsr_fail(TSR_ERR_OVERFLOW, "bpe: over 2^29 different pairs");
    const size_t capacity = p->capacity == 0 ? 1024 : 2 * (size_t)p->capacity;
    tsr_bpe_pair *pair = realloc(p->pair, capacity * sizeof *pair);
    if (pair != NULL) p->pair = pair;
    int32_t *heap = realloc(p->heap, capacity * sizeof *heap);
    if (heap != NULL) p->heap = heap;
    if (pair == NULL || heap == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory for pairs");
    p->capacity = (int32_t)capacity;
    return TSR_OK;
}

static tsr_status note_position(tsr_bpe_pair *pair, int32_t at)
{
    if (pair->n_at == pair->at_capacity) {
        const size_t capacity = (size_t)pair->at_capacity + (size_t)pair->at_capacity / 2 + 4;
        int32_t *list = capacity > INT32_MAX ? NULL : realloc(pair->at, capacity * sizeof *list);
        if (list == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory for %zu positions", capacity);
        pair->at = list;
        pair->at_capacity = (int32_t)capacity;
    }
    pair->at[pair->n_at++] = at;
    return TSR_OK;
}

tsr_status tsr_bpe_pairs_add(tsr_bpe_pairs *p, int32_t left, int32_t right, int64_t count, int32_t at)
{
    int32_t index = tsr_map_find(&p->by_symbols, tsr_pair_key(left, right));
    if (index < 0) {
        TSR_TRY(grow(p));
        TSR_TRY(tsr_map_put(&p->by_symbols, tsr_pair_key(left, right), p->n));
        p->pair[index = p->n++] = (tsr_bpe_pair){.left = left, .right = right, .place = -1};
    }
    tsr_bpe_pair *pair = &p->pair[index];
    TSR_TRY(note_position(pair, at));
    pair->count += count;
    if (pair->place < 0) put_at(p, p->n_heap++, index);
    rise(p, pair->place);
    return TSR_OK;
}

void tsr_bpe_pairs_take(tsr_bpe_pairs *p, int32_t left, int32_t right, int64_t count)
{
    const int32_t index = tsr_map_find(&p->by_symbols, tsr_pair_key(left, right));
    assert(index >= 0);
    tsr_bpe_pair *pair = &p->pair[index];
    if (pair->place < 0) return;
    pair->count -= count;
    sink(p, pair->place);
}

int32_t tsr_bpe_pairs_pop(tsr_bpe_pairs *p)
{
    if (p->n_heap == 0) return -1;
    const int32_t top = p->heap[0], last = p->heap[--p->n_heap];
    if (p->n_heap > 0) {
        put_at(p, 0, last);
        sink(p, 0);
    }
    p->pair[top].place = -1;
    return top;
}

void tsr_bpe_pairs_free(tsr_bpe_pairs *p)
{
    for (int32_t i = 0; i < p->n; i++) free(p->pair[i].at);
    free(p->pair);
    free(p->heap);
    tsr_map_free(&p->by_symbols);
    *p = (tsr_bpe_pairs){0};
}
