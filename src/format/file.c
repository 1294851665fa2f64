/* format/file.c - reading regular files; replacing them through a locked, synced temporary */
#define _DEFAULT_SOURCE
#include "format/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/tensor.h"

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

static tsr_status refuse_kind(const char *path, mode_t mode)
{
    return tsr_fail(TSR_ERR_IO, "%s is %s, must be a regular file", path, kind_of(mode));
}

/* O_NONBLOCK: opening a FIFO must not wait for its other end. */
static tsr_status open_regular(const char *path, int *out, size_t *nbytes)
{
    if (path == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "path is NULL");
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        const int error = errno;
        if (fd >= 0) close(fd);
        return tsr_fail(TSR_ERR_IO, "%s cannot be opened: %s", path, strerror(error));
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return refuse_kind(path, info.st_mode);
    }
    *out = fd;
    *nbytes = (size_t)info.st_size;
    return TSR_OK;
}

static tsr_status read_all(int fd, const char *path, unsigned char *data, size_t nbytes)
{
    for (size_t done = 0; done < nbytes;) {
        const ssize_t n = read(fd, data + done, nbytes - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            return tsr_fail(TSR_ERR_IO, "%s became shorter while it was read", path);
        else if (errno != EINTR)
            return tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", path, strerror(errno));
    }
    return TSR_OK;
}

tsr_status tsr_file_read(const char *path, size_t max_nbytes, tsr_file *out)
{
    int fd = -1;
    size_t nbytes = 0;
    TSR_TRY(open_regular(path, &fd, &nbytes));
    tsr_status status = TSR_OK;
    unsigned char *data = NULL;
    if (nbytes > max_nbytes || nbytes > SIZE_MAX - TSR_ALIGN)
        status = tsr_fail(TSR_ERR_FORMAT, "%s has %zu bytes, must have at most %zu", path, nbytes,
                          max_nbytes);
    else if ((data = aligned_alloc(TSR_ALIGN, (nbytes / TSR_ALIGN + 1) * TSR_ALIGN)) == NULL)
        status = tsr_fail(TSR_ERR_MEMORY, "%s: no memory for its %zu bytes", path, nbytes);
    else
        status = read_all(fd, path, data, nbytes);
    close(fd);
    if (status != TSR_OK) {
        free(data);
        return status;
    }
    *out = (tsr_file){.data = data, .nbytes = nbytes};
    return TSR_OK;
}

tsr_status tsr_file_map(const char *path, tsr_file *out)
{
    int fd = -1;
    size_t nbytes = 0;
    TSR_TRY(open_regular(path, &fd, &nbytes));
    if (nbytes == 0) { /* cannot be mapped */
        close(fd);
        return tsr_file_read(path, 0, out);
    }
    void *data = mmap(NULL, nbytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (data == MAP_FAILED) return tsr_fail(TSR_ERR_IO, "%s cannot be mapped: %s", path, strerror(error));
    *out = (tsr_file){.data = data, .nbytes = nbytes, .mapped = true};
    return TSR_OK;
}

void tsr_file_release(tsr_file *file)
{
    if (file->mapped)
        munmap(file->data, file->nbytes);
    else
        free(file->data);
    *file = (tsr_file){0};
}

struct tsr_writer {
    int fd;
    int error;       /* errno of the first failure, 0 before       */
    char *name;      /* as the caller gave it, for messages        */
    char *path;      /* the name to replace, links resolved        */
    char *temporary; /* path + ".tessera-tmp"                      */
    size_t used;     /* bytes in buffer that are still to be written */
    unsigned char buffer[1 << 16];
};

static tsr_status refuse_write(const char *name, int error)
{
    if (error == EBUSY) return tsr_fail(TSR_ERR_IO, "%s is being written by somebody else", name);
    return tsr_fail(TSR_ERR_IO, "%s cannot be written: %s", name, strerror(error));
}

/* What to rename to: the file that a link leads to, so that the link stays. old_mode: 0 for a new file. */
static tsr_status resolve(const char *name, char **path, mode_t *old_mode)
{
    struct stat info;
    *old_mode = 0;
    if (name == NULL || *name == '\0') return tsr_fail(TSR_ERR_ARGUMENT, "the name of the file is empty");
    if (stat(name, &info) == 0) {
        if (!S_ISREG(info.st_mode)) return refuse_kind(name, info.st_mode);
        if (access(name, W_OK) != 0) return refuse_write(name, errno);
        *old_mode = info.st_mode & 07777;
        *path = realpath(name, NULL);
    } else if (lstat(name, &info) == 0) {
        return tsr_fail(TSR_ERR_IO, "%s is a link to nothing, must be a regular file", name);
    } else {
        *path = strdup(name);
    }
    return *path != NULL ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "%s: no memory for its name", name);
}

/*
 * Opens, empties and locks the temporary. Whoever holds the lock on the file of that name, and only
 * he, may rename or remove it; so after locking the name is looked up again. Where a file system
 * has no locks the writers of one path are not told apart.
 * Returns -1 with errno, EBUSY if another writer has it.
 */
static int open_locked(const char *temporary)
{
    for (int attempt = 0; attempt < 16; attempt++) {
        const int fd = open(temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (fd < 0) return -1;
        struct stat opened, named;
        int error = 0;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            error = EBUSY;
        } else if (fstat(fd, &opened) == 0 && lstat(temporary, &named) == 0 &&
                   opened.st_dev == named.st_dev && opened.st_ino == named.st_ino) {
            if (S_ISREG(opened.st_mode) && opened.st_nlink == 1 && ftruncate(fd, 0) == 0) return fd;
            error = EEXIST;
        }
        close(fd);
        if (error != 0) {
            errno = error;
            return -1;
        }
    }
    errno = EBUSY;
    return -1;
}

static void free_writer(tsr_writer *w)
{
    free(w->name);
    free(w->path);
    free(w->temporary);
    free(w);
}

tsr_status tsr_writer_open(const char *path, tsr_writer **out)
{
    char *target;
    mode_t old_mode;
    TSR_TRY(resolve(path, &target, &old_mode));
    static const char suffix[] = ".tessera-tmp";
    tsr_writer *w = malloc(sizeof *w);
    char *name = strdup(path), *temporary = malloc(strlen(target) + sizeof suffix);
    if (w == NULL || name == NULL || temporary == NULL) {
        free(target), free(w), free(name), free(temporary);
        return tsr_fail(TSR_ERR_MEMORY, "%s: no memory to write it", path);
    }
    strcpy(temporary, target);
    strcat(temporary, suffix);
    w->fd = open_locked(temporary);
    w->error = w->fd < 0 ? errno : 0;
    w->name = name, w->path = target, w->temporary = temporary, w->used = 0;
    if (w->fd < 0) {
        const tsr_status status = refuse_write(path, w->error);
        free_writer(w);
        return status;
    }
    if (old_mode != 0) fchmod(w->fd, old_mode); /* what was private stays so, where files have modes */
    *out = w;
    return TSR_OK;
}

static void write_all(tsr_writer *w, const unsigned char *data, size_t nbytes)
{
    while (nbytes > 0 && w->error == 0) {
        const ssize_t n = write(w->fd, data, nbytes);
        if (n > 0)
            data += n, nbytes -= (size_t)n;
        else if (n == 0)
            w->error = ENOSPC;
        else if (errno != EINTR)
            w->error = errno;
    }
}

static void flush(tsr_writer *w)
{
    write_all(w, w->buffer, w->used);
    w->used = 0;
}

tsr_status tsr_writer_write(tsr_writer *w, const void *data, size_t nbytes)
{
    if (nbytes > sizeof w->buffer - w->used) flush(w);
    if (nbytes > sizeof w->buffer) {
        write_all(w, data, nbytes);
    } else if (nbytes > 0) {
        memcpy(w->buffer + w->used, data, nbytes);
        w->used += nbytes;
    }
    return w->error == 0 ? TSR_OK : refuse_write(w->name, w->error);
}

tsr_status tsr_writer_tensor(tsr_writer *w, const tsr_tensor *t)
{
    TSR_TRY(tsr_tensor_validate(t, "the tensor to be written"));
    if (t->device != TSR_DEVICE_CPU)
        return tsr_fail(TSR_ERR_DEVICE, "%s: the tensor to be written must be in host memory", w->name);
    const size_t element = tsr_dtype_nbytes(t->dtype);
    const int64_t numel = tsr_tensor_numel(t);
    if (numel == 0 || tsr_tensor_is_contiguous(t))
        return tsr_writer_write(w, t->data, (size_t)numel * element);

    /* Not contiguous, so the rank is at least 1: rows of the last dimension, counted through the others. */
    const int32_t last = t->rank - 1;
    const int64_t n = t->shape[last], step = t->stride[last];
    const size_t piece = step == 1 ? (size_t)n * element : element;
    int64_t index[TSR_MAX_RANK] = {0};
    for (int64_t row = 0; row < numel / n; row++) {
        const int64_t start = tsr_tensor_offset(t, index);
        for (int64_t j = 0; j < (step == 1 ? 1 : n); j++)
            TSR_TRY(tsr_writer_write(w, tsr_tensor_at(t, start + j * step), piece));
        for (int32_t d = last - 1; d >= 0 && ++index[d] == t->shape[d]; d--) index[d] = 0;
    }
    return TSR_OK;
}

/* The rename itself must survive a power cut. Some file systems cannot sync a directory; then nobody can. */
static int sync_directory_of(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash != NULL) slash[slash == path ? 1 : 0] = '\0'; /* "/name" lies in "/" */
    const int fd = open(slash != NULL ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    const int error = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
    close(fd);
    return error;
}

tsr_status tsr_writer_commit(tsr_writer *w)
{
    flush(w);
    if (w->error == 0 && fsync(w->fd) != 0) w->error = errno;
    if (w->error == 0 && rename(w->temporary, w->path) != 0) w->error = errno;
    tsr_status status = TSR_OK;
    if (w->error != 0) {
        status = refuse_write(w->name, w->error);
        tsr_writer_discard(w);
        return status;
    }
    const int error = sync_directory_of(w->path);
    if (error != 0)
        status = tsr_fail(TSR_ERR_IO, "%s is written, but its directory cannot be synced: %s", w->name,
                          strerror(error));
    close(w->fd);
    free_writer(w);
    return status;
}

void tsr_writer_discard(tsr_writer *w)
{
    if (w == NULL) return;
    unlink(w->temporary);
    close(w->fd);
    free_writer(w);
}
