/*
 * model/sample.h - choose the next token from its logits
 *
 *     p = softmax(logits / temperature)
 *     keep the top_k likeliest; of these the fewest whose sum reaches top_p; of these p >= min_p * max p
 *     draw one of what is left, in proportion
 *
 * Filters look at the probabilities after temperature, each at those the one before left, renormalised.
 * Ties are broken by the smaller id, so that a seed always gives the same text.
 * (Holtzman et al., 2020, "The curious case of neural text degeneration": top-p;
 *  Nguyen et al., 2024, "Turning up the heat": min-p)
 */
#ifndef TSR_MODEL_SAMPLE_H
#define TSR_MODEL_SAMPLE_H

#include <stdint.h>

#include "base/random.h"

/* All-zero: the likeliest token. */
typedef struct tsr_sample_options {
    double temperature; /* 0 = greedy                     */
    int32_t top_k;      /* 0 = all                        */
    double top_p;       /* 0 or 1 = all; in [0, 1]        */
    double min_p;       /* 0 = all; in [0, 1]             */
} tsr_sample_options;

/* TSR_ERR_ARGUMENT, naming the option that is out of range. */
tsr_status tsr_sample_check(const tsr_sample_options *options);

/*
 * logits [n], n > 0; scratch holds n entries. A NaN logit is never chosen; TSR_ERR_ARGUMENT if nothing but
 * NaN and -Inf is there.
 */
typedef struct tsr_candidate {
    float logit;
    int32_t id;
    double p;
} tsr_candidate;
tsr_status tsr_sample(const float *logits, int32_t n, const tsr_sample_options *options, tsr_random *random,
                      tsr_candidate *scratch, int32_t *out);

#endif
