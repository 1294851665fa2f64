/* check_quantise.c - the kernels that quantise give what weight_values.h says, bit for bit, on every set */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernel/row_f32.h"
#include "backend/weight_values.h"
#include "kit/compare.h"
#include "kit/kit.h"
#include "kit/tensor.h"

enum { MOST = 131 };

/* One row of n values through tsr_weight_quantise_row, as one group. */
static float expected(tsr_weight_format format, const tsr_tensor *x, int64_t n, int8_t *q, int8_t *zero)
{
    const tsr_weight_layout layout = {.format = format,
                                      .dtype = TSR_S8,
                                      .n = 1,
                                      .k = n,
                                      .group = format == TSR_WEIGHT_INT8 ? 0 : (int32_t)n};
    const tsr_weight_source src = {.values = *x};
    float scale = 0;
    tsr_weight_quantise_row(&layout, &src, 0, q, &scale, zero);
    return scale;
}

static float by_kernel(const tsr_row_f32_kernel *kernel, tsr_weight_format format, const tsr_tensor *x,
                       int64_t n, int8_t *q, int8_t *zero)
{
    if (format == TSR_WEIGHT_INT4_ZERO) return kernel->quantise_from_zero(n, x->data, x->dtype, q, zero);
    return kernel->quantise(n, x->data, x->dtype, format == TSR_WEIGHT_INT8 ? 127 : 7, q);
}

static void check_row(const tsr_row_f32_kernel *kernel, tsr_weight_format format, const tsr_tensor *x,
                      int64_t n)
{
    int8_t q[MOST + 1], want[MOST + 1], zero = 0, want_zero = 0;
    memset(q, 99, sizeof q), memset(want, 99, sizeof want);
    const float scale = by_kernel(kernel, format, x, n, q, &zero);
    const float want_scale = expected(format, x, n, want, &want_zero);
    if (scale != want_scale || zero != want_zero || memcmp(q, want, sizeof q) != 0)
        kit_fail("%s, format %d, %s, n %d: scale %g, zero %d; must be %g, %d, and integers alike",
                 kernel->name, (int)format, tsr_dtype_name(x->dtype), (int)n, scale, zero, want_scale,
                 want_zero);
}

static void check_kernel(const tsr_row_f32_kernel *kernel)
{
    static const tsr_dtype dtypes[] = {TSR_F32, TSR_BF16, TSR_F16};
    static const double ranges[][2] = {{-1, 1}, {2, 3}, {-3, -2}, {0, 0}, {-1e-7, 3e-7}, {-60000, 50000}};
    for (int64_t n = 1; n <= MOST; n += n < 36 ? 1 : 19)
        for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
            for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
                for (int format = TSR_WEIGHT_INT8; format <= TSR_WEIGHT_INT4_ZERO; format++) {
                    const tsr_tensor x = kit_uniform(KIT_NEW(dtypes[i], KIT_ROWS, 1, n), ranges[r][0],
                                                     ranges[r][1]);
                    check_row(kernel, (tsr_weight_format)format, &x, n);
                    kit_free_all();
                }
}

static void every_kernel(void **state)
{
    (void)state;
    for (int i = 0; tsr_row_f32_kernels[i] != NULL; i++)
        if (tsr_isa_missing(tsr_row_f32_kernels[i]->isa) == NULL) check_kernel(tsr_row_f32_kernels[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kernel)};
    return cmocka_run_group_tests_name("quantise", tests, NULL, NULL);
}
