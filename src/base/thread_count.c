/* base/thread_count.c - how many threads this process may usefully run */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/threads.h"

/* Processors' worth of time that one cgroup v2 directory allows; 0 = no limit or not readable. */
static double quota_of(const char *directory)
{
    char path[512];
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    FILE *f = fopen(path, "r");
    if (f == NULL) return 0;
    double quota = 0, period = 0;
    const int n = fscanf(f, "%lf %lf", &quota, &period); /* "max 100000" reads nothing */
    fclose(f);
    return n == 2 && period > 0 ? quota / period : 0;
}

/* cgroup v1: two files, -1 for no limit. */
static double quota_v1(void)
{
    double quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r");
    if (f != NULL) {
        if (fscanf(f, "%lf", &quota) != 1) quota = 0;
        fclose(f);
    }
    f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
    if (f != NULL) {
        if (fscanf(f, "%lf", &period) != 1) period = 0;
        fclose(f);
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* The tightest limit from this process's cgroup up to the root. */
static double cgroup_quota(void)
{
    double least = quota_v1();
    char line[256], directory[400] = "";
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (f == NULL) return least;
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "0::", 3) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(directory, sizeof directory, "/sys/fs/cgroup%s", line + 3);
    }
    fclose(f);
    const size_t root = strlen("/sys/fs/cgroup");
    while (strlen(directory) >= root) {
        const double quota = quota_of(directory);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        char *slash = strrchr(directory, '/');
        if (slash == NULL) break;
        *slash = 0;
    }
    return least;
}

int32_t tsr_default_thread_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < n) n = CPU_COUNT(&set);
    const double quota = cgroup_quota();
    if (quota > 0 && quota < (double)n) n = (long)quota;
    return n < 1 ? 1 : n > 1024 ? 1024 : (int32_t)n;
}
