/*
 * bench/peer_onednn.c - oneDNN's matmul through its C API, version 3
 *
 * Declared here are the few functions and numbers that it takes, from the API's reference
 * (oneapi-src.github.io/oneDNN, "C API"; the numbers are the enumerators of dnnl_types.h and have not
 * changed since 3.0). Every handle is a pointer, every status 0 if good. Packed weights are those of format
 * `any`, reordered once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

enum {
    CPU = 1,
    IN_ORDER = 1,
    FORMAT_ANY = 1,
    QUERY_WEIGHTS_MD = 131,
    QUERY_IMPLEMENTATION = 8,
    MAX_NDIMS = 12
};
enum { ARGUMENT_SRC = 1, ARGUMENT_DST = 17, ARGUMENT_WEIGHTS = 33 };
enum { TYPE_F16 = 1, TYPE_BF16 = 2, TYPE_F32 = 3, TYPE_S32 = 4, TYPE_S8 = 5 };

typedef void *handle;
typedef int64_t dims[MAX_NDIMS];

typedef struct dnn_version {
    int major, minor, patch;
    const char *hash;
    unsigned cpu_runtime, gpu_runtime;
} dnn_version;

typedef struct dnn_argument {
    int argument;
    handle memory;
} dnn_argument;

static struct {
    const dnn_version *(*version)(void);
    int (*engine_create)(handle *, int kind, size_t index);
    int (*stream_create)(handle *, handle engine, unsigned flags);
    int (*stream_wait)(handle stream);
    int (*md_create_with_strides)(handle *, int n, const dims, int type, const dims strides);
    int (*md_create_with_tag)(handle *, int n, const dims, int type, int tag);
    int (*md_destroy)(handle md);
    int (*memory_create)(handle *, handle md, handle engine, void *data);
    int (*memory_destroy)(handle memory);
    int (*matmul_create)(handle *, handle engine, handle src, handle weights, handle bias, handle dst,
                         handle attributes);
    int (*reorder_create)(handle *, handle src, handle src_engine, handle dst, handle dst_engine,
                          handle attributes);
    handle (*query_md)(handle description, int what, int index);
    int (*query)(handle description, int what, int index, void *out);
    int (*description_destroy)(handle description);
    int (*primitive_create)(handle *, handle description);
    int (*primitive_destroy)(handle primitive);
    int (*primitive_execute)(handle primitive, handle stream, int n, const dnn_argument *arguments);
} dnn;

static const struct {
    const char *name;
    void *out;
} symbols[] = {
    {"dnnl_version", &dnn.version},
    {"dnnl_engine_create", &dnn.engine_create},
    {"dnnl_stream_create", &dnn.stream_create},
    {"dnnl_stream_wait", &dnn.stream_wait},
    {"dnnl_memory_desc_create_with_strides", &dnn.md_create_with_strides},
    {"dnnl_memory_desc_create_with_tag", &dnn.md_create_with_tag},
    {"dnnl_memory_desc_destroy", &dnn.md_destroy},
    {"dnnl_memory_create", &dnn.memory_create},
    {"dnnl_memory_destroy", &dnn.memory_destroy},
    {"dnnl_matmul_primitive_desc_create", &dnn.matmul_create},
    {"dnnl_reorder_primitive_desc_create", &dnn.reorder_create},
    {"dnnl_primitive_desc_query_md", &dnn.query_md},
    {"dnnl_primitive_desc_query", &dnn.query},
    {"dnnl_primitive_desc_destroy", &dnn.description_destroy},
    {"dnnl_primitive_create", &dnn.primitive_create},
    {"dnnl_primitive_destroy", &dnn.primitive_destroy},
    {"dnnl_primitive_execute", &dnn.primitive_execute},
};
enum { N_SYMBOLS = sizeof symbols / sizeof *symbols, N_RUNTIMES = 5 };

/* One copy's memory objects. */
typedef struct bound {
    handle src, weights, dst;
} bound;

static struct {
    handle engine, stream;
    const gemm_operands *o;
    handle src_md, plain_md, any_md, dst_md, description, matmul;
    bound *bound;    /* [n_copies * n_calls] */
    void **packed;   /* [n_copies], or NULL  */
    int64_t n_calls; /* 1, or the products where a batch is a loop */
} peer;

static bool open_library(void *library, char text[PEER_TEXT])
{
    static const char *const runtimes[] = {"sequential", "OpenMP", "TBB", "threadpool", "SYCL"};
    for (int i = 0; i < N_SYMBOLS; i++) {
        void *found = dlsym(library, symbols[i].name);
        if (found == NULL) {
            snprintf(text, PEER_TEXT, "it has no %s, must be oneDNN 3 or later", symbols[i].name);
            return false;
        }
        memcpy(symbols[i].out, &found, sizeof found);
    }
    const dnn_version *v = dnn.version();
    int runtime = 0; /* bit i of the mask */
    while (runtime + 1 < N_RUNTIMES && (v->cpu_runtime >> (runtime + 1)) != 0) runtime++;
    if (v->cpu_runtime >= 256) runtime = N_RUNTIMES - 1;
    snprintf(text, PEER_TEXT, "oneDNN %d.%d.%d, threads of %s", v->major, v->minor, v->patch,
             runtimes[runtime]);
    if (dnn.engine_create(&peer.engine, CPU, 0) == 0 &&
        dnn.stream_create(&peer.stream, peer.engine, IN_ORDER) == 0)
        return true;
    snprintf(text, PEER_TEXT, "oneDNN %d.%d.%d finds no processor that it can use", v->major, v->minor,
             v->patch);
    return false;
}

static int type_of(tsr_dtype dtype)
{
    return dtype == TSR_F32    ? TYPE_F32
           : dtype == TSR_BF16 ? TYPE_BF16
           : dtype == TSR_F16  ? TYPE_F16
                               : TYPE_S8;
}

static void run(int64_t copy)
{
    for (int64_t i = 0; i < peer.n_calls; i++) {
        const bound *b = &peer.bound[copy * peer.n_calls + i];
        const dnn_argument arguments[] = {
            {ARGUMENT_SRC, b->src}, {ARGUMENT_WEIGHTS, b->weights}, {ARGUMENT_DST, b->dst}};
        dnn.primitive_execute(peer.matmul, peer.stream, 3, arguments);
    }
    dnn.stream_wait(peer.stream);
}

/* Descriptions of the operands as they lie, batched as 3-d, and the product of them. */
static bool describe(void)
{
    const gemm_problem *p = &peer.o->p;
    const int type = type_of(p->dtype), dst_type = p->dtype == TSR_S8 ? TYPE_S32 : TYPE_F32;
    const int64_t batch = peer.n_calls > 1 ? 1 : peer.o->n_products;
    const int64_t k_stride = p->b_transposed ? 1 : p->n, n_stride = p->b_transposed ? p->k : 1;
    const int skip = batch == 1 ? 1 : 0, n = 3 - skip;
    const int64_t src[] = {batch, p->m, p->k}, src_strides[] = {p->m * p->k, p->k, 1};
    const int64_t weights[] = {batch, p->k, p->n}, weights_strides[] = {p->k * p->n, k_stride, n_stride};
    const int64_t dst[] = {batch, p->m, p->n}, dst_strides[] = {p->m * p->n, p->n, 1};
    if (dnn.md_create_with_strides(&peer.src_md, n, src + skip, type, src_strides + skip) != 0 ||
        dnn.md_create_with_strides(&peer.plain_md, n, weights + skip, type, weights_strides + skip) != 0 ||
        dnn.md_create_with_tag(&peer.any_md, n, weights + skip, type, FORMAT_ANY) != 0 ||
        dnn.md_create_with_strides(&peer.dst_md, n, dst + skip, dst_type, dst_strides + skip) != 0)
        return false;
    return dnn.matmul_create(&peer.description, peer.engine, peer.src_md,
                             p->form == GEMM_PACKED ? peer.any_md : peer.plain_md, NULL, peer.dst_md,
                             NULL) == 0 &&
           dnn.primitive_create(&peer.matmul, peer.description) == 0;
}

/* The weights of a copy in the format that the product asks for. */
static bool reorder(handle from, handle to, handle md)
{
    handle description = NULL, primitive = NULL;
    bool good = dnn.reorder_create(&description, peer.plain_md, peer.engine, md, peer.engine, NULL) == 0 &&
                dnn.primitive_create(&primitive, description) == 0;
    const dnn_argument arguments[] = {{ARGUMENT_SRC, from}, {ARGUMENT_DST, to}};
    good = good && dnn.primitive_execute(primitive, peer.stream, 2, arguments) == 0 &&
           dnn.stream_wait(peer.stream) == 0;
    dnn.primitive_destroy(primitive);
    dnn.description_destroy(description);
    return good;
}

static bool bind(int64_t index)
{
    /* the library allocates what it packs */
    void *const allocate = (void *)~(uintptr_t)0;
    const int64_t copy = index / peer.n_calls, i = index % peer.n_calls;
    bound *b = &peer.bound[index];
    handle plain = NULL, md = dnn.query_md(peer.description, QUERY_WEIGHTS_MD, 0);
    if (dnn.memory_create(&b->src, peer.src_md, peer.engine, gemm_a(peer.o, copy, i)) != 0 ||
        dnn.memory_create(&b->dst, peer.dst_md, peer.engine, gemm_c(peer.o, copy, i)) != 0 ||
        dnn.memory_create(&plain, peer.plain_md, peer.engine, gemm_b(peer.o, copy, i)) != 0)
        return false;
    if (peer.o->p.form != GEMM_PACKED) {
        b->weights = plain;
        return true;
    }
    const bool good = dnn.memory_create(&b->weights, md, peer.engine, allocate) == 0 &&
                      reorder(plain, b->weights, md);
    dnn.memory_destroy(plain);
    return good;
}

static void finish(void)
{
    for (int64_t i = 0; peer.bound != NULL && i < peer.o->n_copies * peer.n_calls; i++) {
        dnn.memory_destroy(peer.bound[i].src);
        dnn.memory_destroy(peer.bound[i].weights);
        dnn.memory_destroy(peer.bound[i].dst);
    }
    free(peer.bound);
    peer.bound = NULL;
    dnn.primitive_destroy(peer.matmul);
    dnn.description_destroy(peer.description);
    const handle mds[] = {peer.src_md, peer.plain_md, peer.any_md, peer.dst_md};
    for (int i = 0; i < 4; i++) dnn.md_destroy(mds[i]);
    peer.matmul = peer.description = peer.src_md = peer.plain_md = peer.any_md = peer.dst_md = NULL;
}

static bool prepare(const gemm_operands *o, char text[PEER_TEXT])
{
    const char *implementation = "?";
    const bool is_loop = o->p.form == GEMM_LOOP || o->p.form == GEMM_POINTERS || o->p.form == GEMM_SCATTERED;
    peer.o = o;
    peer.n_calls = is_loop ? o->n_products : 1;
    bool good = describe();
    if (!good) {
        snprintf(text, PEER_TEXT, "it has no product of %s", tsr_dtype_name(o->p.dtype));
    } else {
        const int64_t n = o->n_copies * peer.n_calls;
        peer.bound = calloc((size_t)n, sizeof *peer.bound);
        good = peer.bound != NULL;
        for (int64_t i = 0; i < n && good; i++) good = bind(i);
        if (!good) snprintf(text, PEER_TEXT, "its memory objects cannot be made");
    }
    if (!good) {
        finish();
        return false;
    }
    dnn.query(peer.description, QUERY_IMPLEMENTATION, 0, &implementation);
    snprintf(text, PEER_TEXT, "%smatmul %s%s", is_loop ? "a loop of " : "", implementation,
             o->p.form == GEMM_PACKED ? ", reordered weights" : "");
    return true;
}

const peer_api peer_onednn = {
    .name = "onednn", .open = open_library, .prepare = prepare, .run = run, .finish = finish};
