/* tests/kit/files.h - a folder of the test's own, and files in it; every failure fails the test */
#ifndef TSR_KIT_FILES_H
#define TSR_KIT_FILES_H

#include <stddef.h>

/* A new empty folder under TMPDIR or /tmp; removed with all it holds when the program ends. */
const char *kit_folder(void);

/* "<folder>/<name>": in that folder, or any other. Static memory, good for the next 7 calls. */
const char *kit_path(const char *name);
const char *kit_path_in(const char *folder, const char *name);

void kit_write_file(const char *path, const void *data, size_t nbytes);

/* The whole file, with a zero byte after it; free it. nbytes may be NULL. */
char *kit_read_file(const char *path, size_t *nbytes);

/*
 * The test goes on only if body(arg) returns 0 in a child process whose files may have
 * `max_nbytes` at most, as on a disk that fills up (writing beyond gives EFBIG).
 */
void kit_on_full_disk(size_t max_nbytes, int (*body)(const void *arg), const void *arg);

#endif
