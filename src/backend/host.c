/* backend/host.c - the list of backends, and memory for those that live on the host */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"

const tsr_backend *const tsr_backends[] = {&tsr_backend_cpu, &tsr_backend_reference, NULL};

enum { HUGE_PAGE_NBYTES = 2 << 20, LARGE_NBYTES = 4 << 20 };

/*
 * Rows of large matrices are pages apart, and fetching ahead ends at a page: with pages of 2 MiB neither
 * costs anything. A hint: where the kernel has no such pages, nothing changes.
 */
static void ask_for_huge_pages(void *data, size_t nbytes)
{
#if defined(MADV_HUGEPAGE)
    madvise(data, nbytes, MADV_HUGEPAGE);
#else
    (void)data, (void)nbytes;
#endif
}

tsr_status tsr_host_allocate(void *state, size_t nbytes, void **out)
{
    (void)state;
    if (nbytes > SIZE_MAX / 2) return tsr_fail(TSR_ERR_MEMORY, "allocate: %zu bytes is too much", nbytes);
    /* aligned_alloc wants a multiple of the alignment, and 0 bytes still deserve an address. */
    const size_t align = nbytes >= LARGE_NBYTES ? HUGE_PAGE_NBYTES : TSR_ALIGN;
    void *data = aligned_alloc(align, (nbytes / align + 1) * align);
    if (data != NULL && align == HUGE_PAGE_NBYTES) ask_for_huge_pages(data, nbytes);
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
