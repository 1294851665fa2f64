/* check_sample.c - what each filter leaves, and in which proportion the rest is drawn */
#include "kit/kit.h"

#include <math.h>

#include "model/sample.h"

enum { N = 6 };
/* Probabilities 0.4 0.3 0.15 0.1 0.05 and 0: of ids 3 0 5 1 4 2. */
static const float logits[N] = {-1.2039728f, -2.3025851f, -INFINITY, -0.9162907f, -2.9957323f, -1.8971200f};

static void frequencies(const tsr_sample_options *options, double *out)
{
    enum { DRAWS = 20000 };
    tsr_random r = {.seed = 5};
    tsr_candidate scratch[N];
    for (int i = 0; i < N; i++) out[i] = 0;
    for (int i = 0; i < DRAWS; i++) {
        int32_t id;
        KIT_OK(tsr_sample(logits, N, options, &r, scratch, &id));
        out[id] += 1.0 / DRAWS;
    }
}

static void expect(const tsr_sample_options *options, const double *expected)
{
    double got[N];
    frequencies(options, got);
    for (int i = 0; i < N; i++)
        if (fabs(got[i] - expected[i]) > 0.015 || (expected[i] == 0 && got[i] != 0))
            fail_msg("id %d drawn %.3f of the time, must be %.3f", i, got[i], expected[i]);
}

static void test_draws_follow_the_probabilities(void **state)
{
    (void)state;
    expect(&(tsr_sample_options){.temperature = 1}, (const double[]){0.3, 0.1, 0, 0.4, 0.05, 0.15});
    /* Temperature 0.5 squares them. */
    const double z = 0.16 + 0.09 + 0.0225 + 0.01 + 0.0025;
    expect(&(tsr_sample_options){.temperature = 0.5},
           (const double[]){0.09 / z, 0.01 / z, 0, 0.16 / z, 0.0025 / z, 0.0225 / z});
}

static void test_filters(void **state)
{
    (void)state;
    expect(&(tsr_sample_options){.temperature = 1, .top_k = 2},
           (const double[]){3.0 / 7, 0, 0, 4.0 / 7, 0, 0});
    /* 0.4 + 0.3 < 0.75 <= 0.4 + 0.3 + 0.15 */
    expect(&(tsr_sample_options){.temperature = 1, .top_p = 0.75},
           (const double[]){0.3 / 0.85, 0, 0, 0.4 / 0.85, 0, 0.15 / 0.85});
    /* 0.3 * 0.4 = 0.12 */
    expect(&(tsr_sample_options){.temperature = 1, .min_p = 0.3},
           (const double[]){0.3 / 0.85, 0, 0, 0.4 / 0.85, 0, 0.15 / 0.85});
    /* Of the top two alone, 0.4 / 0.7 reaches 0.5. */
    expect(&(tsr_sample_options){.temperature = 1, .top_k = 2, .top_p = 0.5},
           (const double[]){0, 0, 0, 1, 0, 0});
}

static void test_greedy_and_ties(void **state)
{
    (void)state;
    tsr_random r = {.seed = 1};
    tsr_candidate scratch[N];
    int32_t id = -1;
    KIT_OK(tsr_sample((const float[]){1, NAN, 3, 3}, 4, &(tsr_sample_options){0}, &r, scratch, &id));
    assert_int_equal(id, 2);
    KIT_OK(tsr_sample((const float[]){1, INFINITY, 3}, 3, &(tsr_sample_options){.temperature = 1}, &r,
                      scratch, &id));
    assert_int_equal(id, 1);
    KIT_FAILS(TSR_ERR_ARGUMENT, "no logit",
              tsr_sample((const float[]){NAN, -INFINITY}, 2, &(tsr_sample_options){0}, &r, scratch, &id));
}

static void test_options_out_of_range(void **state)
{
    (void)state;
    KIT_FAILS(TSR_ERR_ARGUMENT, "temperature is -1",
              tsr_sample_check(&(tsr_sample_options){.temperature = -1}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "temperature", tsr_sample_check(&(tsr_sample_options){.temperature = NAN}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "top-k is -2", tsr_sample_check(&(tsr_sample_options){.top_k = -2}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "top-p is 1.5", tsr_sample_check(&(tsr_sample_options){.top_p = 1.5}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "min-p", tsr_sample_check(&(tsr_sample_options){.min_p = NAN}));
    KIT_OK(tsr_sample_check(
        &(tsr_sample_options){.temperature = 0.8, .top_k = 40, .top_p = 0.9, .min_p = 0.05}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_follow_the_probabilities),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_greedy_and_ties),
        cmocka_unit_test(test_options_out_of_range),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
