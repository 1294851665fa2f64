/* fuzz_npy.c - any bytes as a .npy file: refused with a message, or a view inside those bytes */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "format/npy.h"
#include "kit/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    /* The parser moves elements within the memory that it is given. */
    unsigned char *copy = NULL;
    if (posix_memalign((void **)&copy, 64, nbytes > 0 ? nbytes : 1) != 0) return 0;
    if (nbytes > 0) memcpy(copy, data, nbytes);
    tsr_tensor t;
    const tsr_status status = tsr_npy_parse("fuzz", copy, nbytes, &t);
    if (status == TSR_OK) {
        uintptr_t low, high;
        if (tsr_tensor_validate(&t, "t") != TSR_OK) abort();
        tsr_tensor_extent(&t, &low, &high);
        if (low != high && (low < (uintptr_t)copy || high > (uintptr_t)copy + nbytes)) abort();
        volatile unsigned sum = 0; /* every byte of it may be read */
        for (size_t i = low - (uintptr_t)copy; low != high && i < high - (uintptr_t)copy; i++) sum += copy[i];
        (void)sum;
    } else if (status != TSR_ERR_FORMAT || tsr_last_error()[0] == '\0') {
        abort();
    }
    free(copy);
    return 0;
}

KIT_FUZZ_MAIN("npy");
