/* bench/memory.c - mapped memory, and the counters of /proc */
#define _GNU_SOURCE
#include "memory.h"

#include <stdio.h>
#include <sys/mman.h>

void *bench_map(size_t nbytes)
{
    void *memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, nbytes, MADV_HUGEPAGE);
#endif
    return memory;
}

void bench_unmap(void *memory, size_t nbytes)
{
    if (memory != NULL) munmap(memory, nbytes);
}

void bench_drop_pages(void *memory, size_t nbytes)
{
    if (memory != NULL) madvise(memory, nbytes, MADV_DONTNEED);
}

/* What the first line of the file that fits the format says, in kilobytes, as bytes; 0 if there is none. */
static size_t nbytes_of(const char *path, const char *format)
{
    char line[128];
    unsigned long kilobytes = 0;
    FILE *f = fopen(path, "r");
    if (f == NULL) return 0;
    while (kilobytes == 0 && fgets(line, sizeof line, f) != NULL) sscanf(line, format, &kilobytes);
    fclose(f);
    return (size_t)kilobytes << 10;
}

size_t bench_available_nbytes(void) { return nbytes_of("/proc/meminfo", "MemAvailable: %lu"); }
size_t bench_resident_nbytes(void) { return nbytes_of("/proc/self/status", "VmRSS: %lu"); }
size_t bench_peak_resident_nbytes(void) { return nbytes_of("/proc/self/status", "VmHWM: %lu"); }

void bench_reset_peak_resident(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f == NULL) return;
    fputc('5', f);
    fclose(f);
}

uint64_t bench_mixed(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
