/*
 * compare_npy.c - what e2e tests look into .npy files with, so that they need no Python
 *
 *     compare_npy GOT WANT TOLERANCE     0 if both are float32, or int32, of one shape and each element
 * differs by at most TOLERANCE * (1 + |wanted|); -inf equals -inf, NaN nothing
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/dtype.h"
#include "base/tensor.h"
#include "format/npy.h"

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: compare_npy GOT WANT TOLERANCE\n");
        return 2;
    }
    tsr_npy got, want;
    if (tsr_npy_read(argv[1], &got) != TSR_OK || tsr_npy_read(argv[2], &want) != TSR_OK) {
        fprintf(stderr, "compare_npy: %s\n", tsr_last_error());
        return 1;
    }
    const tsr_dtype dtype = want.tensor.dtype;
    if (got.tensor.dtype != dtype || (dtype != TSR_F32 && dtype != TSR_I32) ||
        !tsr_tensor_same_shape(&got.tensor, &want.tensor)) {
        fprintf(stderr, "%s: %s %s, must be %s %s\n", argv[1], tsr_dtype_name(got.tensor.dtype),
                tsr_shape_of(&got.tensor).text, tsr_dtype_name(dtype), tsr_shape_of(&want.tensor).text);
        return 1;
    }
    const double tolerance = strtod(argv[3], NULL);
    int64_t index[TSR_MAX_RANK] = {0};
    for (int64_t i = 0; i < tsr_tensor_numel(&want.tensor); i++) {
        const double g = tsr_load_f64(got.tensor.data, dtype, tsr_tensor_offset(&got.tensor, index));
        const double w = tsr_load_f64(want.tensor.data, dtype, tsr_tensor_offset(&want.tensor, index));
        if (g != w && !(fabs(g - w) <= tolerance * (1 + fabs(w)))) {
            fprintf(stderr, "%s: element %lld is %.9g, must be %.9g within %g\n", argv[1], (long long)i, g, w,
                    tolerance);
            return 1;
        }
        for (int32_t d = want.tensor.rank - 1; d >= 0 && ++index[d] == want.tensor.shape[d]; d--)
            index[d] = 0;
    }
    tsr_npy_release(&got);
    tsr_npy_release(&want);
    return 0;
}
