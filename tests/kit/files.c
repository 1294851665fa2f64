/* tests/kit/files.c - files for tests */
#define _XOPEN_SOURCE 700
#include "kit/files.h"

#include "kit/kit.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char own_folder[4096];
static pid_t owner;

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    if (getpid() == owner)
        nftw(own_folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS); /* not in a forked child */
}

const char *kit_folder(void)
{
    if (own_folder[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(own_folder, sizeof own_folder, "%s/tessera-test-XXXXXX",
                 base != NULL && *base != '\0' ? base : "/tmp");
        if (mkdtemp(own_folder) == NULL) fail_msg("%s: %s", own_folder, strerror(errno));
        owner = getpid();
        atexit(remove_folder);
    }
    return own_folder;
}

const char *kit_path_in(const char *folder, const char *name)
{
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    const int n = snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof paths[0]) fail_msg("%s: the path is too long", name);
    return path;
}

const char *kit_path(const char *name) { return kit_path_in(kit_folder(), name); }

void kit_write_file(const char *path, const void *data, size_t nbytes)
{
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, nbytes, f) != nbytes || fclose(f) != 0)
        fail_msg("%s: %s", path, strerror(errno));
}

char *kit_read_file(const char *path, size_t *nbytes)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s: %s", path, strerror(errno));
    char *data = NULL;
    size_t used = 0, capacity = 0, n;
    do {
        capacity = capacity == 0 ? 4096 : 2 * capacity;
        data = realloc(data, capacity + 1);
        assert_non_null(data);
        n = fread(data + used, 1, capacity - used, f);
        used += n;
    } while (used == capacity);
    fclose(f);
    data[used] = '\0';
    if (nbytes != NULL) *nbytes = used;
    return data;
}

void kit_on_full_disk(size_t max_nbytes, int (*body)(const void *arg), const void *arg)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit limit = {max_nbytes, max_nbytes};
        signal(SIGXFSZ, SIG_IGN);
        _exit(setrlimit(RLIMIT_FSIZE, &limit) != 0 ? 99 : body(arg));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("on a full disk: %s %d", WIFEXITED(status) ? "exit status" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}
