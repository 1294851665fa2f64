/*
 * attention.c - two sequences through causal attention, grouped heads, and what it costs in lines
 *
 *     cc attention.c $(pkg-config --cflags --libs tessera) -o attention
 */
#include <stdio.h>
#include <stdlib.h>

#include <tessera/tessera.h>

int main(void)
{
    enum { B = 2, HQ = 8, HKV = 2, L = 128, D = 64 };
    static float q[B * HQ * L * D], k[B * HKV * L * D], v[B * HKV * L * D], out[B * HQ * L * D];
    for (size_t i = 0; i < sizeof q / sizeof *q; i++) q[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < sizeof k / sizeof *k; i++) k[i] = v[i] = (float)rand() / (float)RAND_MAX - 0.5f;

    const tsr_tensor tq = tsr_tensor_4d(q, TSR_F32, B, HQ, L, D),
                     tk = tsr_tensor_4d(k, TSR_F32, B, HKV, L, D);
    const tsr_tensor tv = tsr_tensor_4d(v, TSR_F32, B, HKV, L, D),
                     to = tsr_tensor_4d(out, TSR_F32, B, HQ, L, D);
    const tsr_attention_options options = {.causal = 1};

    tsr_context *ctx;
    if (tsr_context_create(NULL, &ctx) != TSR_OK ||
        tsr_attention_fwd(ctx, &tq, &tk, &tv, &to, NULL, &options, NULL) != TSR_OK) {
        fprintf(stderr, "attention: %s\n", tsr_last_error());
        return 1;
    }
    printf("out[0, 0, 0, 0] is v[0, 0, 0, 0], the one key that it sees: %g, %g\n", out[0], v[0]);
    tsr_context_destroy(ctx);
    return out[0] == v[0] ? 0 : 1;
}
