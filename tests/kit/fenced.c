/* tests/kit/fenced.c - the fenced device: mappings, the queue, and a line for each operator */
#define _GNU_SOURCE
#include "kit/fenced.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/tensor.h"
#include "kit/kit.h"
#include "op/context.h"

/* [usable, usable + nbytes) of the mapping's pages; PROT_NONE unless something runs. */
typedef struct block {
    struct block *next;
    char *map, *usable;
    size_t map_nbytes, nbytes;
} block;

typedef struct queued queued;
struct queued {
    queued *next;
    const char *name;
    tsr_status (*run)(const queued *q);
    size_t args_nbytes;
    void *workspace;
    void **owned; /* copies of a GEMM's arrays */
    union {
#define X(op) tsr_##op##_args op;
        TSR_OPERATORS(X)
#undef X
        uint64_t
            words[sizeof(tsr_attention_merge_args) / 8]; /* the largest of them, to look for pointers in */
    } args;
};

typedef struct fenced {
    block *blocks;
    queued *first, **last;
    int64_t n_queued;
} fenced;

static tsr_status open_fenced(const tsr_context_options *options, void **state)
{
    (void)options;
    fenced *f = calloc(1, sizeof *f);
    if (f == NULL) return tsr_fail(TSR_ERR_MEMORY, "fenced: out of memory");
    f->last = &f->first;
    *state = f;
    return TSR_OK;
}

/* --- memory --- */

static block *block_of(const fenced *f, const void *p)
{
    for (block *b = f->blocks; b != NULL; b = b->next)
        if ((const char *)p >= b->usable && (const char *)p < b->usable + (b->nbytes > 0 ? b->nbytes : 1))
            return b;
    return NULL;
}

static size_t page_nbytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static void protect(const block *b, int protection)
{
    if (mprotect(b->usable, b->map_nbytes - 2 * page_nbytes(), protection) != 0) abort();
}

static tsr_status allocate(void *state, size_t nbytes, void **out)
{
    fenced *f = state;
    const size_t page = page_nbytes();
    if (nbytes > SIZE_MAX / 2) return tsr_fail(TSR_ERR_MEMORY, "allocate: %zu bytes is too much", nbytes);
    block *b = calloc(1, sizeof *b);
    if (b == NULL) return tsr_fail(TSR_ERR_MEMORY, "allocate: out of memory");
    b->nbytes = nbytes;
    b->map_nbytes = (nbytes / page + 3) * page;
    b->map = mmap(NULL, b->map_nbytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED) {
        free(b);
        return tsr_fail(TSR_ERR_MEMORY, "allocate: out of memory for %zu bytes", nbytes);
    }
    b->usable = b->map + page;
    b->next = f->blocks;
    f->blocks = b;
    *out = b->usable;
    return TSR_OK;
}

/* --- the queue --- */

/* A tensor inside an argument struct: its data, its dtype and a device that is this one. */
static const tsr_tensor *tensor_at(const queued *q, size_t word)
{
    if ((word + sizeof(tsr_tensor) / 8) * 8 > q->args_nbytes) return NULL;
    const tsr_tensor *t = (const tsr_tensor *)(const void *)&q->args.words[word];
    return t->device == TSR_DEVICE_FENCED && tsr_dtype_nbytes(t->dtype) > 0 && t->rank >= 0 &&
                   t->rank <= TSR_MAX_RANK
               ? t
               : NULL;
}

typedef tsr_status (*visit_block)(block *b, const queued *q, const void *arg);

/* All blocks that a queued operator's words point into. */
static tsr_status for_each_block(const fenced *f, const queued *q, visit_block visit, const void *arg)
{
    block *b;
    if ((b = block_of(f, q->workspace)) != NULL) TSR_TRY(visit(b, q, arg));
    for (size_t i = 0; i < q->args_nbytes / 8; i++)
        if ((b = block_of(f, (const void *)(uintptr_t)q->args.words[i])) != NULL) TSR_TRY(visit(b, q, arg));
    for (void *const *p = q->owned; p != NULL && *p != NULL; p++)
        if ((b = block_of(f, *p)) != NULL) TSR_TRY(visit(b, q, arg));
    return TSR_OK;
}

static tsr_status set_protection(block *b, const queued *q, const void *arg)
{
    (void)q;
    protect(b, *(const int *)arg);
    return TSR_OK;
}

static tsr_status refuse_release(block *b, const queued *q, const void *arg)
{
    if (b != arg) return TSR_OK;
    fprintf(stderr, "fenced: memory freed while %s, which uses it, is queued\n", q->name);
    abort();
}

/* Every tensor lies inside one block, from its first byte to its last. */
static tsr_status check_tensors(const fenced *f, const queued *q)
{
    for (size_t i = 0; i < q->args_nbytes / 8; i++) {
        const tsr_tensor *t = tensor_at(q, i);
        if (t == NULL || tsr_tensor_numel(t) == 0) continue;
        uintptr_t low, high;
        tsr_tensor_extent(t, &low, &high);
        const block *b = block_of(f, (const void *)low);
        if (b == NULL || high > (uintptr_t)b->usable + b->nbytes)
            return tsr_fail(TSR_ERR_DEVICE,
                            "%s was given memory that is not the fenced device's, or was freed", q->name);
    }
    return TSR_OK;
}

static void free_queued(queued *q)
{
    free(q->owned);
    free(q);
}

/* Copies the arrays of a pointer batch: the caller's may be gone when the operator runs. */
static bool own_arrays(queued *q, tsr_gemm_args *g)
{
    tsr_gemm_matrix *const matrices[] = {&g->a, &g->b, &g->c};
    const size_t count = (size_t)(g->batch * g->num_heads);
    q->owned = calloc(6 * count + 1, sizeof *q->owned);
    if (q->owned == NULL) return false;
    void **pointers = q->owned;
    int64_t *strides = (int64_t *)(void *)(q->owned + 3 * count + 1); /* after the pointers' last, a NULL */
    for (int i = 0; i < 3; i++) {
        tsr_gemm_matrix *x = matrices[i];
        if (x->pointers != NULL) {
            if (count > 0) memcpy(pointers, x->pointers, count * sizeof *pointers);
            x->pointers = pointers;
            pointers += count;
        }
        if (x->strides != NULL) {
            if (count > 0) memcpy(strides, x->strides, count * sizeof *strides);
            x->strides = strides;
            strides += count;
        }
    }
    return true;
}

/* The matrices of products are bare pointers: each must be the device's. */
static tsr_status check_gemm(const fenced *f, const tsr_gemm_args *g)
{
    const tsr_gemm_matrix *const matrices[] = {&g->a, &g->b, &g->c};
    const bool empty[] = {g->m == 0 || g->k == 0, g->k == 0 || g->n == 0, g->m == 0 || g->n == 0};
    const int64_t count = g->batch * g->num_heads;
    for (int i = 0; i < 3; i++) {
        const tsr_gemm_matrix *x = matrices[i];
        for (int64_t p = 0; p < count && !empty[i]; p++)
            if (block_of(f, x->pointers != NULL ? x->pointers[p] : x->data) == NULL)
                return tsr_fail(TSR_ERR_DEVICE, "gemm was given memory that is not the fenced device's");
    }
    return TSR_OK;
}

static tsr_status run_gemm(const queued *q);

static tsr_status enqueue(fenced *f, const char *name, tsr_status (*run)(const queued *q), const void *args,
                          size_t args_nbytes, void *workspace)
{
    queued *q = calloc(1, sizeof *q);
    if (q == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", name);
    q->name = name, q->run = run, q->args_nbytes = args_nbytes, q->workspace = workspace;
    memcpy(&q->args, args, args_nbytes);
    tsr_status status = run == run_gemm ? check_gemm(f, args) : check_tensors(f, q);
    if (status == TSR_OK && run == run_gemm && !own_arrays(q, &q->args.gemm))
        status = tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", name);
    if (status != TSR_OK) {
        free_queued(q);
        return status;
    }
    *f->last = q;
    f->last = &q->next;
    f->n_queued++;
    return TSR_OK;
}

/* Runs all that is queued; the first failure is what the caller hears of. */
static tsr_status synchronise(void *state)
{
    static const int open_pages = PROT_READ | PROT_WRITE, closed = PROT_NONE;
    fenced *f = state;
    tsr_status first = TSR_OK;
    char message[512] = "";
    while (f->first != NULL) {
        queued *q = f->first;
        for_each_block(f, q, set_protection, &open_pages);
        const tsr_status status = q->run(q);
        for_each_block(f, q, set_protection, &closed);
        if (status != TSR_OK && first == TSR_OK) {
            first = status;
            snprintf(message, sizeof message, "%s: %s", q->name, tsr_last_error());
        }
        f->first = q->next;
        free_queued(q);
    }
    f->last = &f->first;
    f->n_queued = 0;
    return first == TSR_OK ? TSR_OK : tsr_fail(first, "%s", message);
}

static tsr_status release(void *state, void *data)
{
    fenced *f = state;
    block **link = &f->blocks;
    while (*link != NULL && (*link)->usable != data) link = &(*link)->next;
    block *b = *link;
    if (b == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "free: the memory is not the fenced device's");
    for (const queued *q = f->first; q != NULL; q = q->next) TSR_TRY(for_each_block(f, q, refuse_release, b));
    *link = b->next;
    munmap(b->map, b->map_nbytes);
    free(b);
    return TSR_OK;
}

static void close_fenced(void *state)
{
    fenced *f = state;
    while (f->blocks != NULL) {
        block *b = f->blocks;
        f->blocks = b->next;
        munmap(b->map, b->map_nbytes);
        free(b);
    }
    free(f);
}

/* --- copies --- */

static tsr_status find(const fenced *f, const void *data, size_t nbytes, const char *what, block **out)
{
    *out = block_of(f, data);
    if (*out != NULL && nbytes <= (size_t)((*out)->usable + (*out)->nbytes - (const char *)data))
        return TSR_OK;
    return tsr_fail(TSR_ERR_DEVICE, "%s: %zu bytes are not inside one piece of the fenced device's memory",
                    what, nbytes);
}

static tsr_status upload(void *state, void *device_data, const void *host_data, size_t nbytes)
{
    block *b;
    TSR_TRY(synchronise(state));
    if (nbytes == 0) return TSR_OK;
    TSR_TRY(find(state, device_data, nbytes, "upload", &b));
    protect(b, PROT_READ | PROT_WRITE);
    memcpy(device_data, host_data, nbytes);
    protect(b, PROT_NONE);
    return TSR_OK;
}

static tsr_status download(void *state, void *host_data, const void *device_data, size_t nbytes)
{
    block *b;
    TSR_TRY(synchronise(state));
    if (nbytes == 0) return TSR_OK;
    TSR_TRY(find(state, device_data, nbytes, "download", &b));
    protect(b, PROT_READ);
    memcpy(host_data, device_data, nbytes);
    protect(b, PROT_NONE);
    return TSR_OK;
}

/* --- the table --- */

#define X(op)                                                                                                \
    static tsr_status run_##op(const queued *q)                                                              \
    {                                                                                                        \
        return tsr_backend_reference.op(NULL, &q->args.op, q->workspace);                                    \
    }                                                                                                        \
    static tsr_status queue_##op(void *state, const tsr_##op##_args *args, void *workspace)                  \
    {                                                                                                        \
        return enqueue(state, #op, run_##op, args, sizeof *args, workspace);                                 \
    }                                                                                                        \
    static size_t need_##op(const void *state, const tsr_##op##_args *args)                                  \
    {                                                                                                        \
        (void)state;                                                                                         \
        return tsr_backend_reference.op##_workspace == NULL                                                  \
                   ? 0                                                                                       \
                   : tsr_backend_reference.op##_workspace(NULL, args);                                       \
    }
TSR_OPERATORS(X)
#undef X

static size_t weight_nbytes(const void *state, const tsr_weight_layout *layout)
{
    return (void)state, tsr_backend_reference.weight_nbytes(NULL, layout);
}

static int32_t n_threads(const void *state) { return (void)state, 1; }
static const char *kernels(const void *state) { return (void)state, "the reference's, behind a fence"; }

const tsr_backend kit_backend_fenced = {.name = "fenced",
                                        .device = TSR_DEVICE_FENCED,
                                        .computes_f64 = true,
                                        .open = open_fenced,
                                        .close = close_fenced,
                                        .n_threads = n_threads,
                                        .kernels = kernels,
                                        .allocate = allocate,
                                        .release = release,
                                        .upload = upload,
                                        .download = download,
                                        .synchronise = synchronise,
                                        .weight_nbytes = weight_nbytes,
#define X(op) .op = queue_##op, .op##_workspace = need_##op,
                                        TSR_OPERATORS(X)
#undef X
};

/* --- for tests --- */

tsr_context *kit_fenced(void)
{
    tsr_context *ctx = NULL;
    KIT_OK(tsr_context_create_with(&kit_backend_fenced, NULL, &ctx));
    return ctx;
}

int64_t kit_fenced_queued(const tsr_context *ctx) { return ((const fenced *)ctx->state)->n_queued; }

tsr_tensor kit_to_device(tsr_context *ctx, const tsr_tensor *t)
{
    uintptr_t low, high;
    tsr_tensor_extent(t, &low, &high);
    void *memory = NULL;
    KIT_OK(tsr_allocate(ctx, high - low, &memory));
    KIT_OK(tsr_upload(ctx, memory, (const void *)low, high - low));
    tsr_tensor r = *t;
    r.device = tsr_context_device(ctx);
    r.data = (char *)memory + ((uintptr_t)t->data - low);
    return r;
}

void kit_from_device(tsr_context *ctx, const tsr_tensor *device, const tsr_tensor *host)
{
    uintptr_t low, high, to, to_end;
    tsr_tensor_extent(device, &low, &high);
    tsr_tensor_extent(host, &to, &to_end);
    assert_int_equal(high - low, to_end - to);
    KIT_OK(tsr_download(ctx, (void *)to, (const void *)low, high - low));
}

void kit_free_on_device(tsr_context *ctx, const tsr_tensor *device)
{
    uintptr_t low, high;
    tsr_tensor_extent(device, &low, &high);
    KIT_OK(tsr_free(ctx, (void *)low));
}
