/* base/random.h - Philox's constants, and a stream of numbers drawn from it */
#ifndef TSR_BASE_RANDOM_H
#define TSR_BASE_RANDOM_H

#include "tessera/random.h"

#define TSR_PHILOX_M0 0xD2511F53u
#define TSR_PHILOX_M1 0xCD9E8D57u
#define TSR_PHILOX_W0 0x9E3779B9u
#define TSR_PHILOX_W1 0xBB67AE85u

/* floor(p * 2^32): a word below it is dropped. */
static inline uint32_t tsr_dropout_threshold(float p) { return (uint32_t)((double)p * 0x1p32); }

/* A stream: the whole state is its seed, its number and how many draws were made (so it is stored in 20
 * bytes). */
typedef struct tsr_random {
    uint64_t seed;
    uint64_t n;
    uint32_t stream;
} tsr_random;

uint64_t tsr_random_u64(tsr_random *r);
double tsr_random_uniform(tsr_random *r);             /* [0, 1) */
double tsr_random_normal(tsr_random *r);              /* mean 0, variance 1 */
uint64_t tsr_random_below(tsr_random *r, uint64_t n); /* [0, n), n > 0 */

#endif
