/*
 * format/file.h - files read whole, and files replaced whole
 *
 * Only regular files are read or replaced: a directory, FIFO, socket or device gives
 * TSR_ERR_IO with a message, without blocking and without being changed.
 */
#ifndef TSR_FORMAT_FILE_H
#define TSR_FORMAT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "tessera/tensor.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the formats hold little-endian numbers as they are");

/* A file's bytes. data is never NULL after a success, 64-byte aligned, and the owner's to change
 * where it was read; a mapping is read-only. */
typedef struct tsr_file {
    unsigned char *data;
    size_t nbytes;
    bool mapped;
} tsr_file;

/* Reads all of it into memory. More than max_nbytes: TSR_ERR_FORMAT before anything is allocated. */
tsr_status tsr_file_read(const char *path, size_t max_nbytes, tsr_file *out);

/*
 * Maps it. For files too large to copy: pages are read when they are touched. If another
 * process cuts the file short meanwhile, touching the lost part is SIGBUS; writers that
 * replace files by renaming, as tsr_writer does, never do that.
 */
tsr_status tsr_file_map(const char *path, tsr_file *out);

/* A zeroed tsr_file is allowed. */
void tsr_file_release(tsr_file *file);

/*
 * Replaces a file as a whole: bytes go to "<path>.tessera-tmp" beside it, which is synced and
 * renamed on commit. Until then, and on any error, the file of that name stays as it was.
 *
 * The temporary is locked while in use: a second writer of the same path is refused, and one
 * that a killed process left behind is used again instead of piling up.
 */
typedef struct tsr_writer tsr_writer;

tsr_status tsr_writer_open(const char *path, tsr_writer **out);

/* After a failure all further writes, and the commit, fail too. */
tsr_status tsr_writer_write(tsr_writer *writer, const void *data, size_t nbytes);

/* The elements of a view in host memory, in row-major order, whatever its strides. */
tsr_status tsr_writer_tensor(tsr_writer *writer, const tsr_tensor *t);

/* Both end the writer, whatever they return. Discarding NULL is allowed. */
tsr_status tsr_writer_commit(tsr_writer *writer);
void tsr_writer_discard(tsr_writer *writer);

#endif
