/*
 * bench/peer_cblas.c - OpenBLAS, BLIS and MKL through the CBLAS interface
 *
 * The declarations are those of the reference CBLAS (netlib.org/blas) and of the extensions that MKL and
 * OpenBLAS document: batches, packed weights, bf16, f16 and s8 with sums in f32 and s32. Integers are of 32
 * bits. A library lacks what it lacks: then its nearest call serves, and the row says which it was.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112, PACKED = 151, B_MATRIX = 162, FIX_OFFSET = 173 };

typedef void sgemm_fn(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);
/* MKL's of bf16 and f16, and OpenBLAS's sbgemm. */
typedef void half_fn(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha,
                     const uint16_t *a, int lda, const uint16_t *b, int ldb, float beta, float *c, int ldc);
/* Row-major: A is unsigned, B signed. */
typedef void s8_fn(int layout, int trans_a, int trans_b, int offset, int m, int n, int k, float alpha,
                   const void *a, int lda, int8_t a_offset, const void *b, int ldb, int8_t b_offset,
                   float beta, int32_t *c, int ldc, const int32_t *c_offset);
typedef void batch_fn(int layout, const int *trans_a, const int *trans_b, const int *m, const int *n,
                      const int *k, const float *alpha, const float **a, const int *lda, const float **b,
                      const int *ldb, const float *beta, float **c, const int *ldc, int n_groups,
                      const int *group_size);
typedef void strided_fn(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha,
                        const float *a, int lda, int a_stride, const float *b, int ldb, int b_stride,
                        float beta, float *c, int ldc, int c_stride, int batch);
typedef size_t pack_size_fn(int identifier, int m, int n, int k);
typedef void sgemm_pack_fn(int layout, int identifier, int trans, int m, int n, int k, float alpha,
                           const float *source, int ld, float *out);
typedef void half_pack_fn(int layout, int identifier, int trans, int m, int n, int k, const uint16_t *source,
                          int ld, uint16_t *out);
typedef void sgemm_compute_fn(int layout, int trans_a, int trans_b, int m, int n, int k, const float *a,
                              int lda, const float *b, int ldb, float beta, float *c, int ldc);

static struct {
    void *handle; /* of the shared library */
    const gemm_operands *o;
    void (*run)(int64_t copy);
    sgemm_fn *sgemm;
    half_fn *half;
    s8_fn *s8;
    batch_fn *batch;
    strided_fn *strided;
    sgemm_compute_fn *sgemm_compute;
    half_fn *half_compute; /* takes alpha, unlike sgemm_compute */
    void **packed;         /* [n_copies] */
    const float **a, **b;  /* [n_copies * n_products], for batches by pointers */
    float **c;
} peer;

/* The wheels of scipy prefix their symbols. */
static void *find(const char *name)
{
    char prefixed[96];
    void *found = dlsym(peer.handle, name);
    snprintf(prefixed, sizeof prefixed, "scipy_%s", name);
    return found != NULL ? found : dlsym(peer.handle, prefixed);
}

/* ISO C has no conversion from void * to a function; POSIX promises that this works. */
#define FIND(out, name) (*(void **)(out) = find(name))

static int trans_b(void) { return peer.o->p.b_transposed ? TRANS : NO_TRANS; }
static int ldb(void) { return (int)(peer.o->p.b_transposed ? peer.o->p.k : peer.o->p.n); }

static void run_sgemm(int64_t copy)
{
    const gemm_problem *p = &peer.o->p;
    for (int64_t i = 0; i < peer.o->n_products; i++)
        peer.sgemm(ROW_MAJOR, NO_TRANS, trans_b(), (int)p->m, (int)p->n, (int)p->k, 1,
                   gemm_a(peer.o, copy, i), (int)p->k, gemm_b(peer.o, copy, i), ldb(), 0,
                   gemm_c(peer.o, copy, i), (int)p->n);
}

static void run_half(int64_t copy)
{
    const gemm_problem *p = &peer.o->p;
    for (int64_t i = 0; i < peer.o->n_products; i++)
        peer.half(ROW_MAJOR, NO_TRANS, trans_b(), (int)p->m, (int)p->n, (int)p->k, 1, gemm_a(peer.o, copy, i),
                  (int)p->k, gemm_b(peer.o, copy, i), ldb(), 0, gemm_c(peer.o, copy, i), (int)p->n);
}

static void run_s8(int64_t copy)
{
    static const int32_t no_offset = 0;
    const gemm_problem *p = &peer.o->p;
    for (int64_t i = 0; i < peer.o->n_products; i++)
        peer.s8(ROW_MAJOR, NO_TRANS, trans_b(), FIX_OFFSET, (int)p->m, (int)p->n, (int)p->k, 1,
                gemm_a(peer.o, copy, i), (int)p->k, 0, gemm_b(peer.o, copy, i), ldb(), 0, 0,
                gemm_c(peer.o, copy, i), (int)p->n, &no_offset);
}

static void run_strided(int64_t copy)
{
    const gemm_problem *p = &peer.o->p;
    peer.strided(ROW_MAJOR, NO_TRANS, trans_b(), (int)p->m, (int)p->n, (int)p->k, 1, gemm_a(peer.o, copy, 0),
                 (int)p->k, (int)(p->m * p->k), gemm_b(peer.o, copy, 0), ldb(), (int)(p->k * p->n), 0,
                 gemm_c(peer.o, copy, 0), (int)p->n, (int)(p->m * p->n), (int)peer.o->n_products);
}

static void run_batch(int64_t copy)
{
    const gemm_problem *p = &peer.o->p;
    const int no = NO_TRANS, trans = trans_b(), m = (int)p->m, n = (int)p->n, k = (int)p->k, lb = ldb(),
              size = (int)peer.o->n_products;
    const float one = 1, zero = 0;
    const int64_t first = copy * peer.o->n_products;
    peer.batch(ROW_MAJOR, &no, &trans, &m, &n, &k, &one, peer.a + first, &k, peer.b + first, &lb, &zero,
               peer.c + first, &n, 1, &size);
}

static void run_packed(int64_t copy)
{
    const gemm_problem *p = &peer.o->p;
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    const void *a = gemm_a(peer.o, copy, 0), *b = peer.packed[copy];
    float *c = gemm_c(peer.o, copy, 0);
    if (p->dtype == TSR_F32)
        peer.sgemm_compute(ROW_MAJOR, NO_TRANS, PACKED, m, n, k, a, k, b, ldb(), 0, c, n);
    else
        peer.half_compute(ROW_MAJOR, NO_TRANS, PACKED, m, n, k, 1, a, k, b, ldb(), 0, c, n);
}

/* MKL's packed weights. false: the library has none, or no memory for them. */
static bool pack(char text[PEER_TEXT])
{
    const gemm_problem *p = &peer.o->p;
    const char *family = p->dtype == TSR_F32    ? "cblas_sgemm"
                         : p->dtype == TSR_BF16 ? "cblas_gemm_bf16bf16f32"
                                                : "cblas_gemm_f16f16f32";
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    char name[64];
    pack_size_fn *size;
    sgemm_pack_fn *sgemm_pack;
    half_pack_fn *half_pack;
    snprintf(name, sizeof name, "%s_pack_get_size", family);
    FIND(&size, name);
    snprintf(name, sizeof name, "%s_pack", family);
    FIND(&sgemm_pack, name);
    FIND(&half_pack, name);
    snprintf(name, sizeof name, "%s_compute", family);
    FIND(&peer.sgemm_compute, name);
    FIND(&peer.half_compute, name);
    if (size == NULL || sgemm_pack == NULL || peer.sgemm_compute == NULL) return false;
    peer.packed = calloc((size_t)peer.o->n_copies, sizeof *peer.packed);
    for (int64_t i = 0; peer.packed != NULL && i < peer.o->n_copies; i++) {
        const size_t nbytes = (size(B_MATRIX, m, n, k) + 63) / 64 * 64;
        const void *source = gemm_b(peer.o, i, 0);
        peer.packed[i] = aligned_alloc(64, nbytes);
        if (peer.packed[i] == NULL) return false;
        if (p->dtype == TSR_F32)
            sgemm_pack(ROW_MAJOR, B_MATRIX, trans_b(), m, n, k, 1, source, ldb(), peer.packed[i]);
        else
            half_pack(ROW_MAJOR, B_MATRIX, trans_b(), m, n, k, source, ldb(), peer.packed[i]);
    }
    if (peer.packed == NULL) return false;
    peer.run = run_packed;
    snprintf(text, PEER_TEXT, "%s", name);
    return true;
}

static bool list_pointers(void)
{
    const int64_t n = peer.o->n_copies * peer.o->n_products;
    peer.a = malloc((size_t)n * sizeof *peer.a);
    peer.b = malloc((size_t)n * sizeof *peer.b);
    peer.c = malloc((size_t)n * sizeof *peer.c);
    if (peer.a == NULL || peer.b == NULL || peer.c == NULL) return false;
    for (int64_t i = 0; i < n; i++) {
        peer.a[i] = gemm_a(peer.o, i / peer.o->n_products, i % peer.o->n_products);
        peer.b[i] = gemm_b(peer.o, i / peer.o->n_products, i % peer.o->n_products);
        peer.c[i] = gemm_c(peer.o, i / peer.o->n_products, i % peer.o->n_products);
    }
    return true;
}

/* One call for the batch, where the library has it. */
static bool prepare_batch(char text[PEER_TEXT])
{
    const gemm_form form = peer.o->p.form;
    if (peer.o->p.dtype != TSR_F32) return false;
    if ((form == GEMM_BMM || form == GEMM_STRIDED) && peer.strided != NULL) {
        peer.run = run_strided;
        snprintf(text, PEER_TEXT, "cblas_sgemm_batch_strided");
        return true;
    }
    if (form == GEMM_LOOP || peer.batch == NULL || !list_pointers()) return false;
    peer.run = run_batch;
    snprintf(text, PEER_TEXT, "cblas_sgemm_batch");
    return true;
}

static bool prepare_plain(char text[PEER_TEXT])
{
    const gemm_problem *p = &peer.o->p;
    const char *name = NULL;
    static const char *const halves[2][2] = {{"cblas_gemm_bf16bf16f32", "cblas_sbgemm"},
                                             {"cblas_gemm_f16f16f32", "cblas_shgemm"}};
    switch (p->dtype) {
    case TSR_F32:
        name = "cblas_sgemm";
        peer.run = run_sgemm;
        break;
    case TSR_S8:
        if (peer.s8 != NULL) name = "cblas_gemm_s8u8s32";
        peer.run = run_s8;
        break;
    default:
        for (int i = 0; i < 2 && name == NULL; i++) {
            const char *candidate = halves[p->dtype == TSR_F16][i];
            if (FIND(&peer.half, candidate) != NULL) name = candidate;
        }
        peer.run = run_half;
    }
    if (name == NULL) {
        snprintf(text, PEER_TEXT, "it has no product of %s", tsr_dtype_name(p->dtype));
        return false;
    }
    snprintf(text, PEER_TEXT, "%s%s%s", peer.o->n_products > 1 ? "a loop of " : "", name,
             p->form == GEMM_PACKED ? ", not packed" : "");
    return true;
}

static void finish(void)
{
    for (int64_t i = 0; peer.packed != NULL && i < peer.o->n_copies; i++) free(peer.packed[i]);
    free(peer.packed);
    free(peer.a);
    free(peer.b);
    free(peer.c);
    peer.packed = NULL;
    peer.a = peer.b = NULL;
    peer.c = NULL;
}

static bool prepare(const gemm_operands *o, char text[PEER_TEXT])
{
    peer.o = o;
    const bool is_single = o->p.form == GEMM_MATMUL || o->p.form == GEMM_PACKED;
    if (o->p.form == GEMM_PACKED && o->p.dtype != TSR_S8 && pack(text)) return true;
    finish(); /* what a packing that failed left */
    if (!is_single && prepare_batch(text)) return true;
    return prepare_plain(text);
}

/* The library's own words about itself. */
static void describe(char text[PEER_TEXT])
{
    char *(*config)(void), *(*corename)(void), *(*blis)(void);
    void (*mkl)(char *, int);
    char version[200] = "";
    FIND(&config, "openblas_get_config");
    FIND(&corename, "openblas_get_corename");
    FIND(&blis, "bli_info_get_version_str");
    FIND(&mkl, "mkl_get_version_string");
    if (mkl != NULL) {
        mkl(version, sizeof version - 1);
        snprintf(text, PEER_TEXT, "%s", version);
        for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) text[n - 1] = '\0';
    } else if (config != NULL) {
        snprintf(text, PEER_TEXT, "%s (%s)", config(), corename == NULL ? "?" : corename());
    } else {
        snprintf(text, PEER_TEXT, "%s %s", blis == NULL ? "a CBLAS library" : "BLIS",
                 blis == NULL ? "" : blis());
    }
}

static bool open_library(void *library, char text[PEER_TEXT])
{
    peer.handle = library;
    if (FIND(&peer.sgemm, "cblas_sgemm") == NULL) {
        snprintf(text, PEER_TEXT, "it has no cblas_sgemm");
        return false;
    }
    FIND(&peer.s8, "cblas_gemm_s8u8s32");
    FIND(&peer.batch, "cblas_sgemm_batch");
    FIND(&peer.strided, "cblas_sgemm_batch_strided");
    describe(text);
    return true;
}

static void run(int64_t copy) { peer.run(copy); }

static void sgemm(bool trans_a, bool trans_b_, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb_, float beta, float *c, int ldc)
{
    peer.sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b_ ? TRANS : NO_TRANS, m, n, k, alpha, a, lda, b,
               ldb_, beta, c, ldc);
}

const peer_api peer_cblas = {
    .name = "cblas", .open = open_library, .prepare = prepare, .run = run, .finish = finish, .sgemm = sgemm};
