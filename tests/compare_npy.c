/*
 * compare_npy.c - what e2e tests look into .npy files with, so that they need no Python
 *
 *     compare_npy GOT WANT TOLERANCE     0 if both are float32 of one shape and each element differs by
 *                                        at most TOLERANCE * (1 + |wanted|); -inf equals -inf, NaN nothing
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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
    if (got.tensor.dtype != TSR_F32 || want.tensor.dtype != TSR_F32 ||
        !tsr_tensor_same_shape(&got.tensor, &want.tensor)) {
        fprintf(stderr, "%s: %s %s, must be f32 %s\n", argv[1], tsr_dtype_name(got.tensor.dtype),
                tsr_shape_of(&got.tensor).text, tsr_shape_of(&want.tensor).text);
        return 1;
    }
    const double tolerance = strtod(argv[3], NULL);
    int64_t index[TSR_MAX_RANK] = {0};
    for (int64_t i = 0; i < tsr_tensor_numel(&want.tensor); i++) {
        const float g = *(const float *)tsr_tensor_at(&got.tensor, tsr_tensor_offset(&got.tensor, index));
        const float w = *(const float *)tsr_tensor_at(&want.tensor, tsr_tensor_offset(&want.tensor, index));
        if (g != w && !(fabs((double)g - w) <= tolerance * (1 + fabs((double)w)))) {
            fprintf(stderr, "%s: element %lld is %.9g, must be %.9g within %g\n", argv[1], (long long)i,
                    (double)g, (double)w, tolerance);
            return 1;
        }
        for (int32_t d = want.tensor.rank - 1; d >= 0 && ++index[d] == want.tensor.shape[d]; d--)
            index[d] = 0;
    }
    tsr_npy_release(&got);
    tsr_npy_release(&want);
    return 0;
}
