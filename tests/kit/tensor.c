/* tests/kit/tensor.c - guarded, poisoned tensors; see tensor.h for the picture */
#define _GNU_SOURCE
#include "kit/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/dtype.h"
#include "base/tensor.h"
#include "kit/compare.h"

/* A tensor's own pages: [usable, usable + nbytes) between two guard pages. */
typedef struct region {
    struct region *next;
    char *map, *usable, *sealed; /* sealed: a copy of the usable bytes, or NULL */
    size_t map_nbytes, nbytes;
    int poison;
} region;

static region *regions;

static struct {
    tsr_random stream;
    uint64_t seed;
    int64_t number; /* of the case */
    bool started;
} source = {.number = -1};

uint64_t kit_seed(void)
{
    if (!source.started) {
        const char *text = getenv("TSR_SEED");
        source.seed = text == NULL                ? 1
                      : strcmp(text, "time") == 0 ? (uint64_t)time(NULL)
                                                  : strtoull(text, NULL, 0);
        source.started = true;
        kit_random_restart();
    }
    return source.seed;
}

void kit_random_restart(void)
{
    source.stream = (tsr_random){.seed = kit_seed()};
    source.number = -1;
}

void kit_random_case(uint32_t number, uint32_t part)
{
    source.stream = (tsr_random){.seed = kit_seed(), .stream = number * 16 + part};
    source.number = number;
}

int64_t kit_case(void) { return source.number; }

tsr_random *kit_random(void)
{
    kit_seed();
    return &source.stream;
}

int64_t kit_between(int64_t low, int64_t high)
{
    return low + (int64_t)tsr_random_below(kit_random(), (uint64_t)(high - low) + 1);
}

bool kit_one_in(int64_t n) { return kit_between(1, n) == 1; }

static int poison_of(tsr_dtype dtype)
{
    return dtype == TSR_F32 || dtype == TSR_F64 || dtype == TSR_BF16 || dtype == TSR_F16 ? 0xff : 0x7f;
}

static region *map_region(size_t nbytes, int poison)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    region *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->nbytes = (nbytes + page) / page * page;
    r->map_nbytes = r->nbytes + 2 * page;
    r->map = mmap(NULL, r->map_nbytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(r->map != MAP_FAILED);
    r->usable = r->map + page;
    assert_int_equal(mprotect(r->usable, r->nbytes, PROT_READ | PROT_WRITE), 0);
    r->poison = poison;
    memset(r->usable, poison, r->nbytes);
    r->next = regions;
    regions = r;
    return r;
}

void kit_free_all(void)
{
    while (regions != NULL) {
        region *r = regions;
        regions = r->next;
        munmap(r->map, r->map_nbytes);
        free(r->sealed);
        free(r);
    }
}

static region *region_of(const tsr_tensor *t)
{
    const char *data = t->data;
    for (region *r = regions; r != NULL; r = r->next)
        if (data >= r->usable && data <= r->usable + r->nbytes) return r;
    return NULL;
}

/* The order of dimensions in memory, outermost first. */
static void memory_order(kit_layout layout, int32_t rank, int32_t *order)
{
    for (int32_t i = 0; i < rank; i++) order[i] = i;
    if (layout == KIT_TRANSPOSED && rank >= 2) order[rank - 2] = rank - 1, order[rank - 1] = rank - 2;
    if (layout != KIT_SHUFFLED) return;
    for (int32_t i = rank - 1; i > 0; i--) {
        const int32_t j = (int32_t)kit_between(0, i), swap = order[i];
        order[i] = order[j], order[j] = swap;
    }
}

static void choose_strides(tsr_tensor *t, kit_layout layout)
{
    int32_t order[TSR_MAX_RANK] = {0};
    memory_order(layout, t->rank, order);
    int64_t step = layout == KIT_GAPS ? kit_between(2, 3) : 1;
    for (int32_t i = t->rank - 1; i >= 0; i--) {
        const int32_t dim = order[i];
        t->stride[dim] = step;
        step *= t->shape[dim] > 0 ? t->shape[dim] : 1;
        if (layout != KIT_ROWS) step += kit_between(0, 5);
    }
    if (t->rank == 0) return;
    const int32_t dim = (int32_t)kit_between(0, t->rank - 1);
    if (layout == KIT_BROADCAST) t->stride[dim] = 0;
    if (layout == KIT_REVERSED) t->stride[dim] = -t->stride[dim];
}

tsr_tensor kit_new_at(kit_place place, int64_t away, tsr_dtype dtype, kit_layout layout, int32_t rank,
                      const int64_t *shape)
{
    tsr_tensor t = {.dtype = dtype, .rank = rank};
    for (int32_t i = 0; i < rank; i++) t.shape[i] = shape[i];
    choose_strides(&t, layout);
    const bool empty = tsr_tensor_numel(&t) == 0;
    int64_t low = 0, high = empty ? 0 : 1; /* elements touched, relative to t.data */
    for (int32_t i = 0; i < rank && !empty; i++) {
        const int64_t reach = (shape[i] - 1) * t.stride[i];
        *(reach < 0 ? &low : &high) += reach;
    }
    const size_t nbytes = tsr_dtype_nbytes(dtype);
    region *r = map_region((size_t)(high - low + away) * nbytes, poison_of(dtype));
    char *first = place == KIT_AT_START ? r->usable + (size_t)away * nbytes
                                        : r->usable + r->nbytes - (size_t)(high - low + away) * nbytes;
    t.data = first - low * (int64_t)nbytes;
    return t;
}

tsr_tensor kit_new(tsr_dtype dtype, kit_layout layout, int32_t rank, const int64_t *shape)
{
    const kit_place place = kit_one_in(2) ? KIT_AT_START : KIT_AT_END;
    const int64_t cache_line = 64 / (int64_t)tsr_dtype_nbytes(dtype);
    return kit_new_at(place, kit_one_in(2) ? 0 : kit_between(1, cache_line - 1), dtype, layout, rank, shape);
}

/* Offset of the index-th element in row-major order. */
static int64_t offset_of(const tsr_tensor *t, int64_t index)
{
    int64_t offset = 0;
    for (int32_t i = t->rank - 1; i >= 0; i--) {
        offset += index % t->shape[i] * t->stride[i];
        index /= t->shape[i];
    }
    return offset;
}

double kit_get(const tsr_tensor *t, int64_t index)
{
    return tsr_load_f64(t->data, t->dtype, offset_of(t, index));
}

void kit_set(const tsr_tensor *t, int64_t index, double value)
{
    tsr_store_f64(t->data, t->dtype, offset_of(t, index), value);
}

tsr_tensor kit_like(const tsr_tensor *t, tsr_dtype dtype, kit_layout layout)
{
    return kit_new(dtype, layout, t->rank, t->shape);
}

tsr_tensor kit_copy(const tsr_tensor *t, tsr_dtype dtype, kit_layout layout)
{
    const tsr_tensor r = kit_like(t, dtype, layout);
    for (int64_t i = 0, n = tsr_tensor_numel(t); i < n; i++) kit_set(&r, i, kit_get(t, i));
    return r;
}

tsr_tensor kit_clone(const tsr_tensor *t)
{
    const region *from = region_of(t);
    assert_non_null(from);
    region *r = map_region(from->nbytes - 1, from->poison); /* a whole number of pages, less the one added */
    assert_int_equal(r->nbytes, from->nbytes);
    memcpy(r->usable, from->usable, r->nbytes);
    tsr_tensor copy = *t;
    copy.data = r->usable + ((char *)t->data - from->usable);
    return copy;
}

tsr_tensor kit_f64(const tsr_tensor *t) { return kit_copy(t, TSR_F64, KIT_ROWS); }

tsr_tensor kit_normal(tsr_tensor t)
{
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++) kit_set(&t, i, tsr_random_normal(kit_random()));
    return t;
}

tsr_tensor kit_uniform(tsr_tensor t, double low, double high)
{
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++)
        kit_set(&t, i, low + (high - low) * tsr_random_uniform(kit_random()));
    return t;
}

tsr_tensor kit_integers(tsr_tensor t, int64_t low, int64_t high)
{
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++) kit_set(&t, i, (double)kit_between(low, high));
    return t;
}

tsr_tensor kit_constant(tsr_tensor t, double value)
{
    for (int64_t i = 0, n = tsr_tensor_numel(&t); i < n; i++) kit_set(&t, i, value);
    return t;
}

/* Bytes from the first element to the first byte that is neither an element nor poison; false if there is
 * none.
 */
static bool find_trespass(const tsr_tensor *t, int64_t *where)
{
    const region *r = region_of(t);
    if (r == NULL) return false; /* memory of the test's own */
    const size_t nbytes = tsr_dtype_nbytes(t->dtype);
    char *expected = malloc(r->nbytes);
    assert_non_null(expected);
    memset(expected, r->poison, r->nbytes);
    for (int64_t i = 0, n = tsr_tensor_numel(t); i < n; i++) {
        const char *element = tsr_tensor_at(t, offset_of(t, i));
        memcpy(expected + (element - r->usable), element, nbytes);
    }
    size_t i = 0;
    while (i < r->nbytes && expected[i] == r->usable[i]) i++;
    free(expected);
    *where = r->usable + i - (char *)t->data;
    return i < r->nbytes;
}

bool kit_gaps_intact(const tsr_tensor *t)
{
    int64_t where;
    return !find_trespass(t, &where);
}

void kit_check_gaps(const tsr_tensor *t, const char *what)
{
    int64_t where;
    if (find_trespass(t, &where))
        kit_fail("%s: wrote outside the view, %lld bytes from its first element: %s %s", what,
                 (long long)where, tsr_dtype_name(t->dtype), kit_describe(t).text);
}

void kit_seal(void)
{
    for (region *r = regions; r != NULL; r = r->next) {
        if (r->sealed == NULL) r->sealed = malloc(r->nbytes);
        assert_non_null(r->sealed);
        memcpy(r->sealed, r->usable, r->nbytes);
    }
}

void kit_check_sealed(const char *what)
{
    for (region *r = regions; r != NULL; r = r->next)
        if (r->sealed != NULL && memcmp(r->sealed, r->usable, r->nbytes) != 0)
            kit_fail("%s: wrote to a tensor that it must leave alone", what);
}
