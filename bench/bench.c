/* bench/bench.c - rounds, peaks before and after, rows */
#define _GNU_SOURCE
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "bench_impl.h"

enum {
    MAX_ROUNDS = 64,
    LEAST_ROUNDS = 7,
    LEAST_QUICK_ROUNDS = 3,
    MAX_REPEATS = 3,
    LEAST_READ_NBYTES = 256 << 20,
    TRIAL_CACHE_NBYTES = 4 << 20
};

/* Runs of less are to show their rows, not what these take: a cache of hundreds of MiB is not emptied for it.
 */
static const double trial_scale = 0.01;
static const double most_moved = 1.03; /* of a peak, from before a row to after, for the row to count */

void bench_close(bench *b)
{
    if (b == NULL) return;
    bench_peers_close(b->peers);
    tsr_context_destroy(b->ctx);
    tsr_threads_destroy(b->threads);
    free(b->memory);
    free(b);
}

/* For each rate the loop of the best set that has one and serves `isa`. */
static void pick_peaks(bench *b, tsr_isa isa)
{
    for (const tsr_peak_kernel *const *kernel = tsr_peak_kernels; *kernel != NULL; kernel++) {
        if (!tsr_isa_serves((*kernel)->isa, isa) && kernel[1] != NULL) continue;
        for (int f = 0; f < BENCH_N_FLOORS; f++)
            if (b->loops[f] == NULL) b->loops[f] = bench_loop_of(*kernel, f);
        if (b->reader == NULL && (*kernel)->read != NULL) b->reader = *kernel;
    }
}

tsr_status bench_open(const bench_options *options, bench **out)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    b->options = *options;
    const tsr_context_options context = {.backend = options->backend, .n_threads = options->n_threads};
    tsr_status status = tsr_isa_choose(&b->isa);
    if (status == TSR_OK) status = tsr_context_create(&context, &b->ctx);
    if (status == TSR_OK) status = tsr_threads_create(options->n_threads, NULL, NULL, &b->threads);
    if (status == TSR_OK) {
        const bool trial = options->scale < trial_scale;
        if (trial) bench_limit_cache(TRIAL_CACHE_NBYTES);
        b->memory_nbytes = (4 * bench_cache_nbytes() + 0xffff) & ~(size_t)0xffff;
        if (b->memory_nbytes < LEAST_READ_NBYTES && !trial) b->memory_nbytes = LEAST_READ_NBYTES;
        b->memory = malloc(b->memory_nbytes);
        if (b->memory == NULL) status = tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    }
    if (status != TSR_OK) {
        bench_close(b);
        return status;
    }
    memset(b->memory, 1, b->memory_nbytes);
    pick_peaks(b, b->isa);
    *out = b;
    return TSR_OK;
}

tsr_context *bench_context(bench *b) { return b->ctx; }

tsr_status bench_open_peers(bench *b, bench_use use, const bench_peer_options *options)
{
    bench_peers_close(b->peers);
    b->peers = NULL;
    return bench_peers_open(use, options, tsr_context_n_threads(b->ctx), &b->peers);
}

static void print_peak(const bench *b, const char *isa, int floor, const bench_spread *one,
                       const bench_spread *all)
{
    const int n = (int)tsr_threads_count(b->threads);
    const char *what = bench_floor_names[floor];
    const char *unit = floor == BENCH_READ ? "gbytes_per_s" : floor == BENCH_EXP ? "gexp_per_s" : "gflops";
    if (b->options.json) {
        printf("{\"op\":\"peak\",\"floor\":\"%s\",\"isa\":\"%s\",\"threads\":%d", what, isa, n);
        printf(",\"%s_one\":%.1f,\"%s_one_median\":%.1f,\"%s_one_least\":%.1f", unit, one->most, unit,
               one->median, unit, one->least);
        printf(",\"%s_all\":%.1f,\"%s_all_median\":%.1f,\"%s_all_least\":%.1f}\n", unit, all->most, unit,
               all->median, unit, all->least);
    } else if (floor == BENCH_READ) {
        printf("memory     read               %8.1f GB/s on one thread,    %8.1f on %d\n", one->most,
               all->most, n);
    } else if (floor == BENCH_EXP) {
        printf("%-10s %-4s exponentials %7.2f G/s on one thread,     %8.2f on %d\n", isa, "f32", one->most,
               all->most, n);
    } else {
        printf("%-10s %-4s multiply-add  %8.1f GFLOP/s on one thread, %8.1f on %d\n", isa, what, one->most,
               all->most, n);
    }
    fflush(stdout);
}

/* Which set the rows use, and why not a better one that has a peak above. */
static void print_set_of_rows(const bench *b)
{
    printf("rows use %s", tsr_isa_name(b->isa));
    for (int i = (int)b->isa + 1; !tsr_isa_is_plain((tsr_isa)i); i++)
        if (tsr_isa_missing((tsr_isa)i) == NULL && tsr_isa_slower((tsr_isa)i) != NULL)
            printf("; not %s: %s", tsr_isa_name((tsr_isa)i), tsr_isa_slower((tsr_isa)i));
    printf("\n");
}

void bench_print_machine(bench *b)
{
    tsr_threads *single = NULL;
    if (tsr_threads_create(1, NULL, NULL, &single) != TSR_OK) return;
    for (int i = 0; tsr_peak_kernels[i] != NULL; i++) {
        const tsr_peak_kernel *kernel = tsr_peak_kernels[i];
        const char *isa = tsr_isa_name(kernel->isa), *missing = tsr_isa_missing(kernel->isa);
        if (missing != NULL) {
            fprintf(stderr, "%-10s not here: %s\n", isa, missing);
            continue;
        }
        for (int f = 0; f < BENCH_N_FLOORS; f++) {
            const tsr_peak_loop loop = bench_loop_of(kernel, f);
            if (loop == NULL) continue;
            const bench_spread one = bench_loop_peak(single, loop), all = bench_loop_peak(b->threads, loop);
            print_peak(b, isa, f, &one, &all);
        }
    }
    const bench_spread one = bench_read_peak(single, b->reader, b->memory, b->memory_nbytes),
                       all = bench_read_peak(b->threads, b->reader, b->memory, b->memory_nbytes);
    print_peak(b, tsr_isa_name(b->reader->isa), BENCH_READ, &one, &all);
    if (!b->options.json) print_set_of_rows(b);
    fflush(stdout);
    tsr_threads_destroy(single);
}

/* The floor's peak now: the clock follows what neighbours leave of it, for a row as for its peak. */
static double measure_floor(bench *b, int floor)
{
    return b->peak[floor] = floor == BENCH_READ
                                ? bench_read_peak(b->threads, b->reader, b->memory, b->memory_nbytes).median
                                : bench_loop_peak(b->threads, b->loops[floor]).median;
}

/* Where the set has no instruction for the compute type, f32's. */
static int multiply_floor(const bench *b, const bench_row *row)
{
    return b->loops[row->compute] != NULL ? (int)row->compute : BENCH_F32;
}

/* What the row asks of a floor, in the unit of its peak times 10^9. */
static double work_for(const bench_row *row, int floor)
{
    return floor == BENCH_READ ? row->nbytes : floor == BENCH_EXP ? row->n_exp : row->flop;
}

static double floor_seconds(const bench *b, const bench_row *row, int floor)
{
    const double work = work_for(row, floor);
    return work > 0 ? work * 1e-9 / b->peak[floor] : 0;
}

/* Of a row whose operands stay in cache memory is no floor. */
static double read_seconds(const bench *b, const bench_row *row)
{
    return row->in_cache ? 0 : floor_seconds(b, row, BENCH_READ);
}

/* What bounds the row, by the peaks as last measured. */
static int floor_of(const bench *b, const bench_row *row)
{
    int slowest = multiply_floor(b, row);
    if (!row->in_cache && floor_seconds(b, row, BENCH_READ) > floor_seconds(b, row, slowest))
        slowest = BENCH_READ;
    if (floor_seconds(b, row, BENCH_EXP) > floor_seconds(b, row, slowest)) slowest = BENCH_EXP;
    return slowest;
}

/* All peaks that the row is held against. */
static void measure_floors(bench *b, const bench_row *row)
{
    measure_floor(b, multiply_floor(b, row));
    if (row->nbytes > 0 && !row->in_cache) measure_floor(b, BENCH_READ);
    if (row->n_exp > 0) measure_floor(b, BENCH_EXP), measure_floor(b, BENCH_F32); /* f32: for share_f32 */
}

typedef struct row_times {
    bench_spread ours, rivals[BENCH_MAX_PEERS];
    bool failed[BENCH_MAX_PEERS];
    int n_rounds;
    double peak_moved; /* the floor's peak after over before, or before over after: 1 and more */
} row_times;

/* Long enough for threads that spin to have gone to sleep. */
static void let_threads_sleep(void) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }

typedef struct our_round {
    const bench_row *row;
    int64_t n_calls; /* of a round */
    bool warm_up;
} our_round;

static tsr_status time_round(const our_round *r, double *out)
{
    if (r->warm_up) TSR_TRY(r->row->run(r->row->arg));
    const double start = bench_seconds();
    for (int64_t i = 0; i < r->n_calls; i++) TSR_TRY(r->row->run(r->row->arg));
    *out = (bench_seconds() - start) / (double)r->n_calls;
    return TSR_OK;
}

/* Rounds of as many calls as take a hundredth of a second at least, each followed by the rivals' own. */
static tsr_status time_rounds(const bench_row *row, double scale, row_times *out)
{
    double ours[MAX_ROUNDS], rivals[BENCH_MAX_PEERS][MAX_ROUNDS];
    const double least = 0.01 * scale;
    int n = 0;
    const int least_rounds = row->is_quick ? LEAST_QUICK_ROUNDS : LEAST_ROUNDS;
    TSR_TRY(row->run(row->arg));
    const double first = bench_seconds();
    TSR_TRY(row->run(row->arg));
    const double once = bench_seconds() - first;
    const our_round round = {.row = row,
                             .n_calls = once < least ? (int64_t)(least / (once + 1e-9)) + 1 : 1,
                             .warm_up = row->n_rivals > 0 && once < BENCH_LONG_CALL_SECONDS};
    const double end = bench_seconds() + (row->is_quick ? 0.2 : 1) * scale * (1 + row->n_rivals);
    memset(out, 0, sizeof *out);
    while (n < MAX_ROUNDS && (n < least_rounds || bench_seconds() < end)) {
        TSR_TRY(time_round(&round, &ours[n]));
        if (row->n_rivals > 0) let_threads_sleep();
        for (int r = 0; r < row->n_rivals; r++)
            if (!out->failed[r] && !row->rivals[r].round(row->rivals[r].arg, least, &rivals[r][n]))
                out->failed[r] = true;
        n++;
    }
    out->n_rounds = n;
    out->ours = bench_spread_of(ours, n);
    for (int r = 0; r < row->n_rivals; r++)
        if (!out->failed[r]) out->rivals[r] = bench_spread_of(rivals[r], n);
    return TSR_OK;
}

tsr_status bench_time(bench *b, tsr_status (*run)(void *arg), void *arg, double *out)
{
    const bench_row row = {.run = run, .arg = arg};
    row_times t;
    TSR_TRY(time_rounds(&row, 0.2 * b->options.scale, &t));
    *out = t.ours.median;
    return TSR_OK;
}

static void print_json(const bench *b, const bench_row *row, const row_times *t, int floor, double share)
{
    printf("{\"op\":\"%s\",%s,\"threads\":%d,\"ms\":%.4f,\"ms_least\":%.4f,\"ms_most\":%.4f,\"rounds\":%d",
           row->op, row->json, (int)tsr_context_n_threads(b->ctx), 1e3 * t->ours.median, 1e3 * t->ours.least,
           1e3 * t->ours.most, t->n_rounds);
    printf(",\"gflops\":%.2f,\"gbytes_per_s\":%.2f,\"floor\":\"%s\",\"floor_peak\":%.1f,\"peak_moved\":%.3f,"
           "\"share\":%.3f",
           row->flop / t->ours.median * 1e-9, row->nbytes / t->ours.median * 1e-9, bench_floor_names[floor],
           b->peak[floor], t->peak_moved, share);
    if (row->n_exp > 0)
        printf(",\"share_f32\":%.3f,\"floor_multiply_ms\":%.4f,\"floor_exp_ms\":%.4f,\"floor_read_ms\":%.4f",
               floor_seconds(b, row, BENCH_F32) / t->ours.median,
               1e3 * floor_seconds(b, row, multiply_floor(b, row)), 1e3 * floor_seconds(b, row, BENCH_EXP),
               1e3 * read_seconds(b, row));
    if (row->unit_seconds > 0)
        printf(",\"unit\":\"%s\",\"unit_ms\":%.4f,\"units\":%.3f", row->unit, 1e3 * row->unit_seconds,
               t->ours.median / row->unit_seconds);
    static const char *const keys[] = {"peers", "peers_least", "peers_most", "peers_call"};
    for (int key = 0; key < 4; key++) {
        const char *separator = "";
        printf(",\"%s\":{", keys[key]);
        for (int r = 0; r < row->n_rivals; r++) {
            if (t->failed[r]) continue;
            const bench_spread *s = &t->rivals[r];
            printf("%s\"%s\":", separator, row->rivals[r].name);
            if (key == 3)
                printf("\"%s\"", row->rivals[r].how);
            else
                printf("%.4f", 1e3 * (key == 0 ? s->median : key == 1 ? s->least : s->most));
            separator = ",";
        }
        printf("}");
    }
    printf("}\n");
}

static void print_floors(const bench *b, const bench_row *row)
{
    char reading[32] = "in cache";
    if (!row->in_cache) snprintf(reading, sizeof reading, "%.3f ms", 1e3 * read_seconds(b, row));
    printf("%-10s floors: products %.3f ms, exponentials %.3f ms, reading %s%s\n", "",
           1e3 * floor_seconds(b, row, multiply_floor(b, row)), 1e3 * floor_seconds(b, row, BENCH_EXP),
           reading, row->note);
}

static void print_line(bench *b, const bench_row *row, const row_times *t, int floor, double share)
{
    char spread[32];
    if (!b->header_printed)
        printf("\n%-10s %-58s %10s %17s %9s %7s %5s %6s\n", "op", "shape", "ms", "(least-most)", "GFLOP/s",
               "GB/s", "floor", "share");
    b->header_printed = true;
    snprintf(spread, sizeof spread, "(%.3g-%.3g)", 1e3 * t->ours.least, 1e3 * t->ours.most);
    printf("%-10s %-58s %10.3f %17s %9.1f %7.1f %5s %6.2f%s", row->op, row->shape, 1e3 * t->ours.median,
           spread, row->flop / t->ours.median * 1e-9, row->nbytes / t->ours.median * 1e-9,
           bench_floor_names[floor], share, t->peak_moved < most_moved ? "" : "?");
    if (row->unit_seconds > 0) printf("  %.2f of a %s", t->ours.median / row->unit_seconds, row->unit);
    for (int r = 0; r < row->n_rivals; r++)
        if (!t->failed[r])
            printf("  %s %.3f (%.3g-%.3g)", row->rivals[r].name, 1e3 * t->rivals[r].median,
                   1e3 * t->rivals[r].least, 1e3 * t->rivals[r].most);
    putchar('\n');
    if (row->n_exp > 0) print_floors(b, row);
}

static void copy_figures(const bench_row *row, const row_times *t, double floor_ms, bench_figures *out)
{
    *out = (bench_figures){.ms = 1e3 * t->ours.median, .floor_ms = floor_ms};
    for (int r = 0; r < row->n_rivals; r++)
        out->rivals_ms[r] = t->failed[r] ? (double)NAN : 1e3 * t->rivals[r].median;
}

tsr_status bench_measure(bench *b, const bench_row *row, bench_figures *out)
{
    int floor = 0;
    row_times t;
    for (int repeat = 0; repeat < MAX_REPEATS; repeat++) {
        measure_floors(b, row);
        floor = floor_of(b, row);
        const double before = b->peak[floor];
        TSR_TRY(time_rounds(row, b->options.scale, &t));
        let_threads_sleep();
        const double after = measure_floor(b, floor);
        t.peak_moved = after > before ? after / before : before / after;
        if (before > after) b->peak[floor] = before;
        if (t.peak_moved < most_moved || b->options.scale < 0.5 || repeat + 1 == MAX_REPEATS) break;
        fprintf(stderr, "%s %s: the machine's %s peak moved by %.0f %%, measuring again\n", row->op,
                row->shape, bench_floor_names[floor], 100 * (t.peak_moved - 1));
    }
    const double share = floor_seconds(b, row, floor) / t.ours.median;
    if (b->options.json)
        print_json(b, row, &t, floor, share);
    else
        print_line(b, row, &t, floor, share);
    fflush(stdout);
    b->n_rows++;
    if (out != NULL) copy_figures(row, &t, 1e3 * floor_seconds(b, row, floor), out);
    return TSR_OK;
}

tsr_status bench_check_rows(const bench *b, int64_t n)
{
    return b->n_rows > n ? TSR_OK : tsr_fail(TSR_ERR_UNSUPPORTED, "nothing could be measured");
}
