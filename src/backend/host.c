/* backend/host.c - the list of backends, and memory for those that live on the host */
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"

const tsr_backend *const tsr_backends[] = {&tsr_backend_cpu, &tsr_backend_reference, NULL};

tsr_status tsr_host_allocate(void *state, size_t nbytes, void **out)
{
    (void)state;
    if (nbytes > SIZE_MAX / 2) return tsr_fail(TSR_ERR_MEMORY, "allocate: %zu bytes is too much", nbytes);
    /* aligned_alloc wants a multiple of the alignment, and 0 bytes still deserve an address. */
    void *data = aligned_alloc(TSR_ALIGN, (nbytes / TSR_ALIGN + 1) * TSR_ALIGN);
    if (data == NULL) return tsr_fail(TSR_ERR_MEMORY, "allocate: out of memory for %zu bytes", nbytes);
    *out = data;
    return TSR_OK;
}

tsr_status tsr_host_release(void *state, void *data)
{
    (void)state;
    free(data);
    return TSR_OK;
}

tsr_status tsr_host_copy(void *state, void *to, const void *from, size_t nbytes)
{
    (void)state;
    if (nbytes > 0) memmove(to, from, nbytes);
    return TSR_OK;
}

tsr_status tsr_host_synchronise(void *state)
{
    (void)state;
    return TSR_OK;
}
