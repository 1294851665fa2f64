/*
 * cli/arrays.h - NumPy files as tensors on a context's device, and back
 *
 * An array keeps its order (C or Fortran) as strides. All that were loaded or made are released together.
 */
#ifndef TSR_CLI_ARRAYS_H
#define TSR_CLI_ARRAYS_H

#include "cli.h"

enum { MAX_ARRAYS = 32 };

typedef struct arrays {
    tsr_context *ctx;
    const char *command;    /* for notes on stderr                        */
    const char *int8_needs; /* options with which an int8 array would do  */
    void *data[MAX_ARRAYS];
    int n;
    json_t *saved; /* what was written: [{"path", "dtype", "shape"}, ...] */
} arrays;

/* Loads `path`, the value of option `flag`, as `dtype`: float files to a float type (float64 narrowed with
 * a note), integer files to s8, i32 or i64 where every value fits, bool to bool. */
tsr_status arrays_load(arrays *a, const char *flag, const char *path, tsr_dtype dtype, tsr_tensor *out);

/* Makes a copy with the elements in row-major order where they are not. */
tsr_status arrays_to_rows(arrays *a, tsr_tensor *t);

/* A row-major tensor, not cleared. */
tsr_status arrays_new(arrays *a, tsr_dtype dtype, int32_t rank, const int64_t *shape, tsr_tensor *out);

/* A file that is to be written, and the option that names it; path NULL: not asked for. */
typedef struct output_file {
    const char *flag, *path;
} output_file;

/* Before any work is done: OPTIONS_READ if each can be written and no two are the same file, else the exit
 * status after a message. */
int arrays_check_outputs(const char *command, const output_file *outputs, int n);

/* Writes a row-major tensor: floats as float32, integers as int32. */
tsr_status arrays_save(arrays *a, const output_file *output, const tsr_tensor *t);

/* What was written, how long the operator took and on what: text or one JSON object on stdout. */
void arrays_report(const arrays *a, const common_options *common, double seconds);

void arrays_release(arrays *a);

#endif
