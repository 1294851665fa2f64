/*
 * smoke.c - operators of the public API on the cpu backend against the reference, with no test framework
 *
 * What a cross-compiled library is tried with (under qemu-user, say): 4 lanes of another machine's vectors.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tessera/tessera.h"

enum { M = 37, N = 51, K = 70, B = 2, HQ = 4, HKV = 2, L = 29, D = 24 };

static int failures;

/* Values in [-1, 1), the same everywhere. */
static void fill(float *x, int n, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        const uint32_t counter[4] = {(uint32_t)i, 0, 0, 0};
        x[i] = (float)tsr_philox(seed, counter).word[0] * 0x1p-31f - 1;
    }
}

static void must(tsr_status status)
{
    if (status == TSR_OK) return;
    printf("FAILED %s: %s\n", tsr_status_name(status), tsr_last_error());
    exit(1);
}

/* What each backend gave for the same inputs. */
static void compare(const char *name, const float *cpu, const float *reference, int n, double tolerance)
{
    double worst = 0;
    for (int i = 0; i < n; i++) {
        const double error = fabs((double)cpu[i] - reference[i]) / (1 + fabs((double)reference[i]));
        if (!(error <= worst)) worst = error; /* a NaN too */
    }
    const int ok = worst <= tolerance;
    printf("%-20s %s  worst error %.2g\n", name, ok ? "ok" : "FAILED", worst);
    failures += !ok;
}

typedef struct results {
    float c[M * N], y[M * N], norm[M * K], swiglu[M * K];
    float out[B * HQ * L * D], lse[B * HQ * L], dq[B * HQ * L * D], dk[B * HKV * L * D], dv[B * HKV * L * D];
} results;

static void run_dense(tsr_context *ctx, results *r)
{
    static float a[M * K], b[N * K], w[K], up[M * K];
    fill(a, M * K, 1), fill(b, N * K, 2), fill(w, K, 3), fill(up, M * K, 4);
    const tsr_tensor ta = tsr_tensor_2d(a, TSR_F32, M, K), rows = tsr_tensor_2d(b, TSR_F32, N, K);
    const tsr_tensor tb = tsr_tensor_transpose(&rows, 0, 1), tc = tsr_tensor_2d(r->c, TSR_F32, M, N);
    must(tsr_matmul2d(ctx, 0.5f, &ta, &tb, 0, &tc, NULL));
    const tsr_tensor ty = tsr_tensor_2d(r->y, TSR_F32, M, N);
    must(tsr_softmax_fwd(ctx, &tc, &ty));
    const tsr_tensor tw = tsr_tensor_1d(w, TSR_F32, K), tn = tsr_tensor_2d(r->norm, TSR_F32, M, K);
    must(tsr_rms_norm_fwd(ctx, &ta, &tw, 1e-5f, &tn, NULL));
    const tsr_tensor tu = tsr_tensor_2d(up, TSR_F32, M, K), ts = tsr_tensor_2d(r->swiglu, TSR_F32, M, K);
    must(tsr_swiglu_fwd(ctx, &ta, &tu, &ts));
}

static void run_attention(tsr_context *ctx, results *r)
{
    static float q[B * HQ * L * D], k[B * HKV * L * D], v[B * HKV * L * D], dout[B * HQ * L * D];
    fill(q, B * HQ * L * D, 5), fill(k, B * HKV * L * D, 6), fill(v, B * HKV * L * D, 7);
    fill(dout, B * HQ * L * D, 8);
    const tsr_tensor tq = tsr_tensor_4d(q, TSR_F32, B, HQ, L, D),
                     tk = tsr_tensor_4d(k, TSR_F32, B, HKV, L, D);
    const tsr_tensor tv = tsr_tensor_4d(v, TSR_F32, B, HKV, L, D);
    const tsr_tensor to = tsr_tensor_4d(r->out, TSR_F32, B, HQ, L, D),
                     tl = tsr_tensor_3d(r->lse, TSR_F32, B, HQ, L);
    const tsr_tensor tdo = tsr_tensor_4d(dout, TSR_F32, B, HQ, L, D);
    const tsr_tensor tdq = tsr_tensor_4d(r->dq, TSR_F32, B, HQ, L, D);
    const tsr_tensor tdk = tsr_tensor_4d(r->dk, TSR_F32, B, HKV, L, D);
    const tsr_tensor tdv = tsr_tensor_4d(r->dv, TSR_F32, B, HKV, L, D);
    const tsr_attention_options options = {.causal = 1, .dropout_p = 0.1f, .dropout_seed = 9};
    const tsr_attention_saved saved = {&to, &tl, &tdo, NULL};
    const tsr_attention_grads grads = {.dq = &tdq, .dk = &tdk, .dv = &tdv};
    must(tsr_attention_fwd(ctx, &tq, &tk, &tv, &to, &tl, &options, NULL));
    must(tsr_attention_bwd(ctx, &tq, &tk, &tv, &saved, &grads, &options, NULL));
}

int main(void)
{
    static results got[2];
    static const char *const backends[] = {"cpu", "reference"};
    for (int i = 0; i < 2; i++) {
        const tsr_context_options options = {.backend = backends[i], .n_threads = 2};
        tsr_context *ctx;
        must(tsr_context_create(&options, &ctx));
        printf("%s: %s\n", backends[i], tsr_context_kernels(ctx));
        run_dense(ctx, &got[i]);
        run_attention(ctx, &got[i]);
        tsr_context_destroy(ctx);
    }
#define COMPARE(field)                                                                                       \
    compare(#field, got[0].field, got[1].field, (int)(sizeof got[0].field / sizeof(float)), 1e-5)
    COMPARE(c);
    COMPARE(y);
    COMPARE(norm);
    COMPARE(swiglu);
    COMPARE(out);
    COMPARE(lse);
    COMPARE(dq);
    COMPARE(dk);
    COMPARE(dv);
    return failures != 0;
}
