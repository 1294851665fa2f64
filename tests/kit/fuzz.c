/* tests/kit/fuzz.c - the corpus and its deterministic mutations; a crash names what repeats it */
#define _XOPEN_SOURCE 700
#include "kit/fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"

enum { N_MUTATIONS = 20000, MAX_FILES = 256, MAX_NBYTES = 1 << 16, MAX_STEPS = 4 };

typedef struct input {
    char *name;
    uint8_t *data;
    size_t nbytes;
} input;

static input files[MAX_FILES];
static size_t n_files;
static char running[512]; /* what is being tried, for the handler */

/* A sanitizer catches signals itself and has this hook; without one the symbol is NULL. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_death(void)
{
    const ssize_t ignored = write(STDERR_FILENO, running, strlen(running));
    (void)ignored;
}

static void on_signal(int signal_number)
{
    on_death();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void watch_for_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(on_death);
        signal(SIGABRT, on_signal);
        return;
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], on_signal);
}

static void announce(const char *name, long mutation)
{
    snprintf(running, sizeof running, "crashed on %s, mutation %ld\n", name, mutation);
}

static int load(const char *path)
{
    FILE *f = fopen(path, "rb");
    input in = {.name = strdup(path), .data = malloc(MAX_NBYTES)};
    if (f == NULL || in.name == NULL || in.data == NULL || n_files == MAX_FILES) {
        fprintf(stderr, "%s: cannot be loaded\n", path);
        if (f != NULL) fclose(f);
        free(in.name), free(in.data);
        return 1;
    }
    in.nbytes = fread(in.data, 1, MAX_NBYTES, f);
    fclose(f);
    files[n_files++] = in;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const input *)a)->name, ((const input *)b)->name);
}

/* Sorted, as a folder has no order: the mutations must be the same everywhere. */
static int load_folder(const char *folder)
{
    DIR *d = opendir(folder);
    int failed = d == NULL;
    for (struct dirent *e; !failed && (e = readdir(d)) != NULL;) {
        char path[4096 + 1 + sizeof e->d_name];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        failed = load(path);
    }
    if (d != NULL) closedir(d);
    if (n_files == 0) fprintf(stderr, "%s: no corpus there\n", folder);
    qsort(files, n_files, sizeof *files, by_name);
    return failed || n_files == 0;
}

/* In memory of its exact size, so that a sanitizer sees the first byte read beyond. */
static void try_one(kit_fuzz_target target, const uint8_t *data, size_t nbytes)
{
    uint8_t *exact = malloc(nbytes > 0 ? nbytes : 1);
    if (exact == NULL) abort();
    memcpy(exact, data, nbytes);
    target(exact, nbytes);
    free(exact);
}

/* A run of bytes moved, copied, lost or repeated; the length changes. */
static size_t move_run(tsr_random *r, uint8_t *data, size_t nbytes)
{
    const size_t at = tsr_random_below(r, nbytes), left = nbytes - at;
    const size_t run = 1 + tsr_random_below(r, left < 32 ? left : 32);
    switch (tsr_random_below(r, 3)) {
    case 0: /* lost */ memmove(data + at, data + at + run, left - run); return nbytes - run;
    case 1: /* repeated */
        if (nbytes + run > MAX_NBYTES) return nbytes;
        memmove(data + at + run, data + at, left);
        return nbytes + run;
    default: /* copied from elsewhere */
        memmove(data + at, data + tsr_random_below(r, nbytes - run + 1), run);
        return nbytes;
    }
}

/* Digits, quotes and brackets are what the text in these files is made of. */
static uint8_t telling_byte(tsr_random *r)
{
    static const char bytes[] = "0129-+.eE\"'\\{}[]():,ntfTF<>|\x00\x01\x7f\x80\xff";
    return (uint8_t)bytes[tsr_random_below(r, sizeof bytes - 1)];
}

static size_t mutate(tsr_random *r, uint8_t *data, size_t nbytes)
{
    static const uint64_t words[] = {0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
    if (nbytes == 0) return 0;
    const size_t at = tsr_random_below(r, nbytes);
    switch (tsr_random_below(r, 6)) {
    case 0: data[at] ^= (uint8_t)(1u << tsr_random_below(r, 8)); return nbytes;
    case 1: data[at] = telling_byte(r); return nbytes;
    case 2: data[at] = (uint8_t)tsr_random_below(r, 256); return nbytes;
    case 3: {
        const uint64_t word = words[tsr_random_below(r, sizeof words / sizeof *words)];
        const size_t width = (size_t)1 << tsr_random_below(r, 4);
        if (at + width <= nbytes) memcpy(data + at, &word, width);
        return nbytes;
    }
    case 4: return tsr_random_below(r, 8) == 0 ? at : nbytes; /* cut short */
    default: return move_run(r, data, nbytes);
    }
}

static void run_mutations(kit_fuzz_target target)
{
    static uint8_t data[MAX_NBYTES];
    for (uint32_t i = 0; i < N_MUTATIONS; i++) {
        tsr_random r = {.seed = 1, .stream = i}; /* each by itself, so that its number repeats it */
        const input *in = &files[i % n_files];
        size_t nbytes = in->nbytes;
        memcpy(data, in->data, nbytes);
        const uint64_t steps = 1 + tsr_random_below(&r, MAX_STEPS);
        for (uint64_t s = 0; s < steps; s++) nbytes = mutate(&r, data, nbytes);
        announce(in->name, (long)i);
        try_one(target, data, nbytes);
    }
}

int kit_fuzz(const char *format, kit_fuzz_target target, int argc, char **argv)
{
    int failed = 0;
    watch_for_crashes();
    if (argc > 1) {
        for (int i = 1; i < argc && !failed; i++) failed = load(argv[i]);
    } else {
        char folder[4096];
        snprintf(folder, sizeof folder, "%s/%s", TSR_CORPUS, format);
        failed = load_folder(folder);
    }
    for (size_t i = 0; i < n_files && !failed; i++) {
        announce(files[i].name, -1);
        try_one(target, files[i].data, files[i].nbytes);
    }
    if (argc == 1 && !failed) run_mutations(target);
    printf("%s: %zu files, %d mutations\n", format, n_files, argc == 1 ? N_MUTATIONS : 0);
    for (size_t i = 0; i < n_files; i++) free(files[i].name), free(files[i].data);
    return failed;
}
