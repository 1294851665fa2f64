/*
 * base/threads.h - the one door to parallelism: independent items, in any order, perhaps serially
 *
 * run() starts up to `count` lanes; each claims items in ascending order until none is
 * left. There is no barrier inside a run (phases are separate runs). `slot` tells an item
 * which piece of scratch memory is its own while it runs: items that run at the same time
 * have different slots. A result must never depend on it.
 */
#ifndef TSR_BASE_THREADS_H
#define TSR_BASE_THREADS_H

#include <stdint.h>

#include "tessera/context.h"

typedef struct tsr_threads tsr_threads;
typedef void (*tsr_item)(void *arg, int64_t item, int32_t slot);

/* count: 0 = tsr_default_thread_count(). parallel_for: NULL = a pool of our own. */
tsr_status tsr_threads_create(int32_t count, tsr_parallel_for parallel_for, void *user, tsr_threads **out);
void tsr_threads_destroy(tsr_threads *threads);

/* Number of slots: the most items that run at once. */
int32_t tsr_threads_count(const tsr_threads *threads);

void tsr_threads_run(tsr_threads *threads, int64_t n_items, tsr_item run, void *arg);

/* The smallest of the process's affinity, its cgroup's processor quota and the machine's cores. */
int32_t tsr_default_thread_count(void);

#endif
