/* bench/gemm_shapes.c - the named sets: what transformers multiply */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gemm_impl.h"

enum { CACHE_BOTH, CACHE_WARM, CACHE_COLD };
const char *const bench_caches[] = {"both", "warm", "cold", NULL};
const char *const bench_gemm_sets[] = {"llm", "square", "batched", "small", NULL};
static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16, TSR_S8};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };
const char *const bench_gemm_dtypes[] = {"f32", "bf16", "f16", "s8", NULL};

tsr_dtype bench_gemm_dtype(int choice) { return dtypes[choice]; }

static tsr_status add_one(gemm_list *list, const gemm_problem *p)
{
    if (list->n == list->capacity) {
        const int capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        gemm_problem *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = *p;
    return TSR_OK;
}

/* Warm and cold, or what was asked for. */
static tsr_status add(gemm_list *list, gemm_problem p, int cache)
{
    p.cold = false;
    if (cache != CACHE_COLD) TSR_TRY(add_one(list, &p));
    p.cold = true;
    return cache == CACHE_WARM ? TSR_OK : add_one(list, &p);
}

static gemm_problem weight_product(tsr_dtype dtype, gemm_form form, int64_t m, int64_t n, int64_t k)
{
    return (gemm_problem){
        .form = form, .dtype = dtype, .b_transposed = true, .m = m, .n = n, .k = k, .batch = 1, .heads = 1};
}

static const struct {
    int64_t n, k;
} weights[] = {{4096, 4096}, {14336, 4096}, {4096, 14336}};
enum { N_WEIGHTS = sizeof weights / sizeof *weights };
static const int64_t rows[] = {1, 4, 16, 64, 512};
enum { N_ROWS = sizeof rows / sizeof *rows, SMALL_M = 16 };

/* A few rows against a model's weights are always cold: the weights of all layers pass in between. */
static int cache_of(int64_t m, int cache) { return m <= SMALL_M && cache == CACHE_BOTH ? CACHE_COLD : cache; }

/* The set has the weights that a model of 8 thousand million parameters has, in the types that it comes in.
 */
static tsr_status add_llm(gemm_list *list, int cache)
{
    for (int w = 0; w < N_WEIGHTS; w++)
        for (int d = 0; d < N_DTYPES; d++)
            for (int r = 0; r < N_ROWS; r++) {
                const int64_t n = weights[w].n, k = weights[w].k;
                if ((dtypes[d] == TSR_F16 || dtypes[d] == TSR_S8) && n != k) continue;
                if (dtypes[d] == TSR_F16 && rows[r] != 1 && rows[r] != 512) continue;
                const int when = cache_of(rows[r], cache);
                TSR_TRY(add(list, weight_product(dtypes[d], GEMM_MATMUL, rows[r], n, k), when));
                if (dtypes[d] != TSR_S8) /* packed integers are the quantised weights below */
                    TSR_TRY(add(list, weight_product(dtypes[d], GEMM_PACKED, rows[r], n, k), when));
            }
    for (gemm_form form = GEMM_INT8; form < GEMM_N_FORMS; form++)
        for (int r = 0; r < N_ROWS; r++)
            TSR_TRY(add(list, weight_product(TSR_F32, form, rows[r], 14336, 4096), cache_of(rows[r], cache)));
    for (int form = GEMM_MATMUL; form <= GEMM_PACKED; form += GEMM_PACKED - GEMM_MATMUL)
        TSR_TRY(add(list, weight_product(TSR_BF16, (gemm_form)form, SMALL_M, 128256, 4096),
                    cache_of(SMALL_M, cache)));
    static const struct {
        tsr_dtype dtype;
        gemm_form form;
    } packings[] = {{TSR_F32, GEMM_PACKED},
                    {TSR_BF16, GEMM_PACKED},
                    {TSR_F32, GEMM_INT8},
                    {TSR_F32, GEMM_INT4_32},
                    {TSR_F32, GEMM_INT4_128}};
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++) {
        gemm_problem p = weight_product(packings[i].dtype, packings[i].form, 512, 14336, 4096);
        p.is_packing = true;
        TSR_TRY(add(list, p, cache_of(1, cache)));
    }
    return TSR_OK;
}

static tsr_status add_square(gemm_list *list, int cache)
{
    for (int64_t n = 256; n <= 4096; n *= 2)
        for (int d = 0; d < N_DTYPES; d++) {
            const gemm_problem p = {
                .form = GEMM_MATMUL, .dtype = dtypes[d], .m = n, .n = n, .k = n, .batch = 1, .heads = 1};
            TSR_TRY(add(list, p, cache));
        }
    return TSR_OK;
}

/* The same batch in each form that there is for it, side by side. */
static tsr_status add_forms(gemm_list *list, gemm_problem p, int cache)
{
    for (gemm_form form = GEMM_LOOP; form <= GEMM_SCATTERED; form++) {
        p.form = form;
        TSR_TRY(add(list, p, cache));
    }
    return TSR_OK;
}

static tsr_status add_batched(gemm_list *list, int cache)
{
    static const gemm_problem batches[] = {
        {.b_transposed = true, .m = 512, .n = 512, .k = 128, .batch = 1, .heads = 32},
        {.m = 512, .n = 128, .k = 512, .batch = 1, .heads = 32},
        {.m = 64, .n = 64, .k = 64, .batch = 16, .heads = 16},
        {.m = 128, .n = 128, .k = 64, .batch = 8, .heads = 12},
    };
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        for (int d = 0; d < 2; d++) {
            gemm_problem p = batches[i];
            p.dtype = dtypes[d];
            TSR_TRY(add_forms(list, p, cache));
        }
    return TSR_OK;
}

static tsr_status add_small(gemm_list *list, int cache)
{
    static const struct {
        int64_t m, n, k;
        bool b_transposed;
    } shapes[] = {
        {2048, 192, 192, true}, {2048, 512, 192, true}, {2048, 192, 512, true},
        {32, 32, 32, false},    {8, 512, 192, true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        gemm_problem p = weight_product(TSR_F32, GEMM_MATMUL, shapes[i].m, shapes[i].n, shapes[i].k);
        p.b_transposed = shapes[i].b_transposed;
        TSR_TRY(add(list, p, cache));
    }
    return TSR_OK;
}

tsr_status gemm_list_set(const char *set, int cache, gemm_list *out)
{
    static tsr_status (*const add_set[])(gemm_list *, int) = {add_llm, add_square, add_batched, add_small};
    bool found = false;
    for (int i = 0; bench_gemm_sets[i] != NULL; i++) {
        if (set != NULL && strcmp(set, bench_gemm_sets[i]) != 0) continue;
        TSR_TRY(add_set[i](out, cache));
        found = true;
    }
    return found ? TSR_OK
                 : tsr_fail(TSR_ERR_ARGUMENT, "set is '%s', must be llm, square, batched or small", set);
}

/* One product plain and packed, or one batch in each form. */
tsr_status gemm_list_shape(const bench_gemm_options *options, gemm_list *out)
{
    gemm_problem p = weight_product(options->dtype, GEMM_MATMUL, options->m, options->n, options->k);
    p.batch = options->batch, p.heads = options->heads;
    if (p.batch * p.heads > 1) return add_forms(out, p, options->cache);
    TSR_TRY(add(out, p, options->cache));
    p.form = GEMM_PACKED;
    return p.dtype == TSR_S8 ? TSR_OK : add(out, p, options->cache);
}
