/* base/random.c - Philox4x32-10 */
#include "base/random.h"

tsr_philox_words tsr_philox(uint64_t seed, const uint32_t counter[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)TSR_PHILOX_M0 * c0, p1 = (uint64_t)TSR_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += TSR_PHILOX_W0, k1 += TSR_PHILOX_W1;
    }
    return (tsr_philox_words){{c0, c1, c2, c3}};
}

int tsr_dropout_keep(uint64_t seed, uint32_t offset, uint32_t head, uint32_t row, uint32_t column, float p)
{
    const tsr_philox_words w = tsr_philox(seed, (const uint32_t[4]){column >> 2, row, head, offset});
    return w.word[column & 3] >= tsr_dropout_threshold(p);
}

uint64_t tsr_random_u64(tsr_random *r)
{
    const uint32_t counter[4] = {(uint32_t)r->n, (uint32_t)(r->n >> 32), r->stream, 0};
    const tsr_philox_words w = tsr_philox(r->seed, counter);
    r->n++;
    return (uint64_t)w.word[1] << 32 | w.word[0];
}

double tsr_random_uniform(tsr_random *r) { return (double)(tsr_random_u64(r) >> 11) * 0x1p-53; }

double tsr_random_normal(tsr_random *r)
{
    const double u = 1 - tsr_random_uniform(r), v = tsr_random_uniform(r); /* u in (0, 1] */
    return __builtin_sqrt(-2 * __builtin_log(u)) * __builtin_cos(6.283185307179586476925 * v);
}

uint64_t tsr_random_below(tsr_random *r, uint64_t n)
{
    const uint64_t first = -n % n; /* 2^64 mod n values are refused, so that every remainder is as likely */
    for (;;) {
        const uint64_t x = tsr_random_u64(r);
        if (x >= first) return x % n;
    }
}
