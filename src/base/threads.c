/*
 * base/threads.c - a pool that spins briefly, then sleeps
 *
 * A run publishes its job under a new generation number. Workers see the number change
 * while spinning, or are woken when asleep; each runs a lane and counts `running` down.
 * A forked child has no workers: the first run notices the other process id and starts new ones.
 */
#define _GNU_SOURCE
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/error.h"
#include "base/fp_mode.h"

enum { SPINS = 4000, MAX_THREADS = 1024 };

typedef struct job {
    tsr_item run;
    void *arg;
    int64_t n_items;
    _Atomic int64_t next;      /* first item not claimed yet */
    _Atomic int32_t next_slot; /* for lanes started by the caller's parallel-for */
} job;

struct tsr_threads {
    int32_t count;
    tsr_parallel_for parallel_for; /* the caller's, or NULL: the pool below */
    void *user;
    job job;

    pthread_t *workers; /* count - 1 of them */
    int32_t n_started;
    pid_t pid;
    _Atomic uint32_t generation; /* jobs published so far, as all threads count them */
    _Atomic int32_t running;     /* workers that have not finished the job */
    _Atomic bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t published, finished;
    int32_t n_asleep; /* under mutex */
};

typedef struct worker_start {
    tsr_threads *threads;
    int32_t slot;
    uint32_t generation;
} worker_start;

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void run_lane(job *j, int32_t slot)
{
    const tsr_fp_mode old = tsr_fp_mode_enter();
    for (;;) {
        const int64_t item = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (item >= j->n_items) break;
        j->run(j->arg, item, slot);
    }
    tsr_fp_mode_restore(old);
}

static void *worker_main(void *arg)
{
    const worker_start start = *(worker_start *)arg;
    free(arg);
    tsr_threads *t = start.threads;
    uint32_t seen = start.generation;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&t->generation, memory_order_acquire) == seen && spins++ < SPINS)
            pause_briefly();
        if (atomic_load_explicit(&t->generation, memory_order_acquire) == seen) {
            pthread_mutex_lock(&t->mutex);
            t->n_asleep++;
            while (atomic_load_explicit(&t->generation, memory_order_acquire) == seen)
                pthread_cond_wait(&t->published, &t->mutex);
            t->n_asleep--;
            pthread_mutex_unlock(&t->mutex);
        }
        seen++;
        if (atomic_load_explicit(&t->stop, memory_order_acquire)) return NULL;
        run_lane(&t->job, start.slot);
        if (atomic_fetch_sub_explicit(&t->running, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&t->mutex);
            pthread_cond_signal(&t->finished);
            pthread_mutex_unlock(&t->mutex);
        }
    }
}

static void publish(tsr_threads *t)
{
    pthread_mutex_lock(&t->mutex);
    atomic_fetch_add_explicit(&t->generation, 1, memory_order_release);
    if (t->n_asleep > 0) pthread_cond_broadcast(&t->published);
    pthread_mutex_unlock(&t->mutex);
}

static void stop_workers(tsr_threads *t)
{
    atomic_store_explicit(&t->stop, true, memory_order_release);
    publish(t);
    for (int32_t i = 0; i < t->n_started; i++) pthread_join(t->workers[i], NULL);
    pthread_mutex_destroy(&t->mutex);
    pthread_cond_destroy(&t->published);
    pthread_cond_destroy(&t->finished);
}

static tsr_status start_workers(tsr_threads *t)
{
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->published, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->n_asleep = t->n_started = 0;
    t->pid = getpid();
    for (int32_t i = 0; i < t->count - 1; i++) {
        worker_start *start = malloc(sizeof *start);
        if (start != NULL)
            *start = (worker_start){.threads = t, .slot = i + 1, .generation = atomic_load(&t->generation)};
        if (start == NULL || pthread_create(&t->workers[i], NULL, worker_main, start) != 0) {
            free(start);
            return tsr_fail(TSR_ERR_MEMORY, "threads: the system refused thread %d of %d", (int)i + 2,
                            (int)t->count);
        }
        t->n_started++;
    }
    return TSR_OK;
}

tsr_status tsr_threads_create(int32_t count, tsr_parallel_for parallel_for, void *user, tsr_threads **out)
{
    if (count < 0 || count > MAX_THREADS)
        return tsr_fail(TSR_ERR_ARGUMENT, "n_threads is %d, must be 0 (automatic) to %d", (int)count,
                        MAX_THREADS);
    tsr_threads *t = calloc(1, sizeof *t);
    if (t == NULL) return tsr_fail(TSR_ERR_MEMORY, "threads: out of memory");
    t->count = count == 0 ? tsr_default_thread_count() : count;
    t->parallel_for = parallel_for;
    t->user = user;
    if (parallel_for == NULL) {
        t->workers = calloc((size_t)t->count, sizeof *t->workers);
        const tsr_status status = t->workers == NULL ? tsr_fail(TSR_ERR_MEMORY, "threads: out of memory")
                                                     : start_workers(t);
        if (status != TSR_OK) {
            tsr_threads_destroy(t);
            return status;
        }
    }
    *out = t;
    return TSR_OK;
}

void tsr_threads_destroy(tsr_threads *t)
{
    if (t == NULL) return;
    /* A forked child has no workers, and would wait for ever for those that slept when it was forked. */
    if (t->workers != NULL && t->pid == getpid()) stop_workers(t);
    free(t->workers);
    free(t);
}

int32_t tsr_threads_count(const tsr_threads *t) { return t->count; }

static void run_numbered_lane(void *arg, int64_t lane)
{
    (void)lane; /* the caller may number its tasks as it likes: slots are ours */
    job *j = arg;
    run_lane(j, atomic_fetch_add_explicit(&j->next_slot, 1, memory_order_relaxed));
}

static void wait_until_finished(tsr_threads *t)
{
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&t->running, memory_order_acquire) == 0) return;
        pause_briefly();
    }
    pthread_mutex_lock(&t->mutex);
    while (atomic_load_explicit(&t->running, memory_order_acquire) != 0)
        pthread_cond_wait(&t->finished, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
}

void tsr_threads_run(tsr_threads *t, int64_t n_items, tsr_item run, void *arg)
{
    if (n_items <= 0) return;
    job *j = &t->job;
    j->run = run, j->arg = arg, j->n_items = n_items;
    atomic_store_explicit(&j->next, 0, memory_order_relaxed);
    atomic_store_explicit(&j->next_slot, 0, memory_order_relaxed);
    if (n_items == 1 || t->count == 1) {
        run_lane(j, 0);
    } else if (t->parallel_for != NULL) {
        t->parallel_for(t->user, n_items < t->count ? n_items : t->count, run_numbered_lane, j);
    } else {
        /* In a forked child fewer workers, or none, still do all the work: lanes claim what is left. */
        if (t->pid != getpid()) (void)start_workers(t);
        atomic_store_explicit(&t->running, t->n_started, memory_order_relaxed);
        publish(t);
        run_lane(j, 0);
        wait_until_finished(t);
    }
}
