/* cli/arrays.c - NumPy files as tensors on a context's device, and back */
#define _XOPEN_SOURCE 700
#include "arrays.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/tensor.h"
#include "format/npy.h"
#include "format/printable.h"
#include "tessera/elementwise.h"

static bool is_float(tsr_dtype dtype)
{
    return dtype == TSR_F32 || dtype == TSR_F64 || dtype == TSR_BF16 || dtype == TSR_F16;
}

static bool is_integer(tsr_dtype dtype) { return dtype == TSR_S8 || dtype == TSR_I32 || dtype == TSR_I64; }

/* NumPy's names, which is what the user of these files sees. */
static const char *numpy_name(tsr_dtype dtype)
{
    switch (dtype) {
    case TSR_F32: return "float32";
    case TSR_F64: return "float64";
    case TSR_F16: return "float16";
    case TSR_S8: return "int8";
    case TSR_I32: return "int32";
    case TSR_I64: return "int64";
    case TSR_BOOL: return "bool";
    case TSR_BF16:
    case TSR_DTYPE_COUNT: break;
    }
    return tsr_dtype_name(dtype);
}

static tsr_status check_dtype(const arrays *a, const char *flag, const char *path, tsr_dtype has,
                              tsr_dtype wanted)
{
    if (is_float(wanted) && is_float(has)) {
        if (has == TSR_F64)
            fprintf(stderr, "tessera %s: note: %s is float64, narrowed to %s\n", a->command,
                    tsr_printable(path).text, numpy_name(wanted));
        return TSR_OK;
    }
    if ((is_integer(wanted) && is_integer(has)) || has == wanted) return TSR_OK;
    const char *must = is_float(wanted)     ? "float16, float32 or float64"
                       : is_integer(wanted) ? "int8, int32 or int64"
                                            : numpy_name(wanted);
    const bool is_int8 = has == TSR_S8 && a->int8_needs != NULL;
    return tsr_fail(TSR_ERR_DTYPE, "%s: %s holds %s, must hold %s%s%s%s", flag, tsr_printable(path).text,
                    numpy_name(has), must, is_int8 ? " (int8 needs " : "", is_int8 ? a->int8_needs : "",
                    is_int8 ? ")" : "");
}

/* Integers that become narrower: the first that does not fit is named by its place in the array. */
static tsr_status check_fits(const char *flag, const char *path, const tsr_tensor *t, tsr_dtype dtype)
{
    if (!is_integer(dtype) || tsr_dtype_nbytes(t->dtype) <= tsr_dtype_nbytes(dtype)) return TSR_OK;
    const int64_t low = dtype == TSR_S8 ? INT8_MIN : INT32_MIN, high = dtype == TSR_S8 ? INT8_MAX : INT32_MAX;
    tsr_tensor at = {.rank = t->rank}; /* its shape is an index */
    for (int64_t i = 0, n = tsr_tensor_numel(t); i < n; i++) {
        const int64_t offset = tsr_tensor_offset(t, at.shape);
        const int64_t value = t->dtype == TSR_I32 ? ((const int32_t *)t->data)[offset]
                                                  : ((const int64_t *)t->data)[offset];
        if (value < low || value > high)
            return tsr_fail(TSR_ERR_ARGUMENT, "%s: %s%s is %lld, must be %lld to %lld", flag,
                            tsr_printable(path).text, tsr_shape_of(&at).text, (long long)value,
                            (long long)low, (long long)high);
        for (int32_t d = t->rank - 1; d >= 0 && ++at.shape[d] == t->shape[d]; d--) at.shape[d] = 0;
    }
    return TSR_OK;
}

/* Puts a host tensor, whose elements lie without gaps in some order, onto the device as `dtype`. */
static tsr_status put(arrays *a, tsr_tensor host, tsr_dtype dtype, tsr_tensor *out)
{
    const int64_t n = tsr_tensor_numel(&host);
    const size_t nbytes = (size_t)n * tsr_dtype_nbytes(dtype);
    void *converted = NULL;
    if (host.dtype != dtype) {
        converted = malloc(nbytes + 1);
        if (converted == NULL) return tsr_fail(TSR_ERR_MEMORY, "out of memory for %zu bytes", nbytes);
        for (int64_t i = 0; i < n; i++)
            tsr_store_f64(converted, dtype, i, tsr_load_f64(host.data, host.dtype, i));
        host.data = converted;
    }
    tsr_tensor device;
    tsr_status status = arrays_new(a, dtype, host.rank, host.shape, &device);
    if (status == TSR_OK) status = tsr_upload(a->ctx, device.data, host.data, nbytes);
    if (status == TSR_OK) {
        memcpy(device.stride, host.stride, sizeof device.stride);
        *out = device;
    }
    free(converted);
    return status;
}

tsr_status arrays_load(arrays *a, const char *flag, const char *path, tsr_dtype dtype, tsr_tensor *out)
{
    tsr_npy npy;
    tsr_status status = tsr_npy_read(path, &npy);
    if (status != TSR_OK) return tsr_fail_within(status, "%s", flag);
    status = check_dtype(a, flag, path, npy.tensor.dtype, dtype);
    if (status == TSR_OK) status = check_fits(flag, path, &npy.tensor, dtype);
    if (status == TSR_OK) {
        status = put(a, npy.tensor, dtype, out);
        if (status != TSR_OK) tsr_fail_within(status, "%s", flag);
    }
    tsr_npy_release(&npy);
    return status;
}

tsr_status arrays_to_rows(arrays *a, tsr_tensor *t)
{
    if (tsr_tensor_is_contiguous(t)) return TSR_OK;
    tsr_tensor rows;
    TSR_TRY(arrays_new(a, t->dtype, t->rank, t->shape, &rows));
    TSR_TRY(tsr_copy(a->ctx, t, &rows));
    *t = rows;
    return TSR_OK;
}

tsr_status arrays_new(arrays *a, tsr_dtype dtype, int32_t rank, const int64_t *shape, tsr_tensor *out)
{
    if (a->n == MAX_ARRAYS) return tsr_fail(TSR_ERR_MEMORY, "more than %d arrays", MAX_ARRAYS);
    TSR_TRY(tsr_tensor_allocate(a->ctx, dtype, rank, shape, out));
    a->data[a->n++] = out->data;
    return TSR_OK;
}

/* The one name of a file, however its folder is spelled and whether or not it is there; NULL: out of memory.
 */
static char *whole_name(const char *path)
{
    char *whole = realpath(path, NULL), *folder = NULL;
    if (whole != NULL) return whole;
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    char *before = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    if (before != NULL) folder = realpath(before, NULL);
    free(before);
    if (folder == NULL) return strdup(path); /* which cannot be written */
    const size_t size = strlen(folder) + strlen(name) + 2;
    whole = malloc(size);
    if (whole != NULL) snprintf(whole, size, "%s/%s", folder, name);
    free(folder);
    return whole;
}

static bool is_same_file(const char *a, const char *b)
{
    char *whole_a = whole_name(a), *whole_b = whole_name(b);
    const bool same = whole_a != NULL && whole_b != NULL && strcmp(whole_a, whole_b) == 0;
    free(whole_a);
    free(whole_b);
    return same;
}

static tsr_status check_writable(const output_file *output)
{
    tsr_writer *writer;
    const tsr_status status = tsr_writer_open(output->path, &writer);
    if (status != TSR_OK) return tsr_fail_within(status, "%s", output->flag);
    tsr_writer_discard(writer);
    return TSR_OK;
}

int arrays_check_outputs(const char *command, const output_file *outputs, int n)
{
    for (int i = 0; i < n; i++) {
        if (outputs[i].path == NULL) continue;
        if (*outputs[i].path == '\0')
            return usage_error(command, "%s: the name of the file is empty", outputs[i].flag);
        for (int j = 0; j < i; j++)
            if (outputs[j].path != NULL && is_same_file(outputs[j].path, outputs[i].path))
                return usage_error(command, "%s, %s: %s is one file, must be two", outputs[j].flag,
                                   outputs[i].flag, tsr_printable(outputs[i].path).text);
    }
    for (int i = 0; i < n; i++)
        if (outputs[i].path != NULL && check_writable(&outputs[i]) != TSR_OK) return work_failed(command);
    return OPTIONS_READ;
}

static json_t *describe(const char *path, const tsr_tensor *t)
{
    json_t *shape = json_array();
    for (int32_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:o, s:s, s:o}", "path", json_path(path), "dtype", numpy_name(t->dtype), "shape",
                     shape);
}

tsr_status arrays_save(arrays *a, const output_file *output, const tsr_tensor *t)
{
    const int64_t n = tsr_tensor_numel(t);
    tsr_tensor host = *t;
    tsr_tensor rows = *t;
    host.device = rows.device = TSR_DEVICE_CPU;
    rows.dtype = is_integer(t->dtype) ? TSR_I32 : TSR_F32;
    host.data = malloc((size_t)n * tsr_dtype_nbytes(t->dtype) + 1);
    rows.data = malloc((size_t)n * tsr_dtype_nbytes(rows.dtype) + 1);
    tsr_status status = TSR_OK;
    if (host.data == NULL || rows.data == NULL)
        status = tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", tsr_printable(output->path).text);
    if (status == TSR_OK)
        status = tsr_download(a->ctx, host.data, t->data, (size_t)n * tsr_dtype_nbytes(t->dtype));
    if (status == TSR_OK) {
        for (int64_t i = 0; i < n; i++)
            tsr_store_f64(rows.data, rows.dtype, i, tsr_load_f64(host.data, host.dtype, i));
        status = tsr_npy_write(output->path, &rows);
    }
    if (status == TSR_OK) {
        if (a->saved == NULL) a->saved = json_array();
        json_array_append_new(a->saved, describe(output->path, &rows));
    } else {
        tsr_fail_within(status, "%s", output->flag);
    }
    free(host.data);
    free(rows.data);
    return status;
}

/* Whole, but on one line. */
static void print_name(const char *name)
{
    for (const char *c = name; *c != '\0'; c++) putchar((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c);
}

void arrays_report(const arrays *a, const common_options *common, double seconds)
{
    const char *backend = tsr_context_backend(a->ctx);
    const int threads = tsr_context_n_threads(a->ctx);
    if (common->json) {
        json_t *report = json_pack("{s:s, s:O, s:f, s:s, s:i}", "command", a->command, "outputs", a->saved,
                                   "seconds", seconds, "backend", backend, "threads", threads);
        json_dumpf(report, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(report);
        return;
    }
    size_t i;
    json_t *output;
    json_array_foreach(a->saved, i, output)
    {
        char *shape = json_dumps(json_object_get(output, "shape"), 0);
        print_name(json_string_value(json_object_get(output, "path")));
        printf(": %s %s\n", json_string_value(json_object_get(output, "dtype")), shape);
        free(shape);
    }
    printf("%.3f ms on %s, %d %s\n", 1e3 * seconds, backend, threads, threads == 1 ? "thread" : "threads");
}

void arrays_release(arrays *a)
{
    for (int i = 0; i < a->n; i++) tsr_free(a->ctx, a->data[i]);
    json_decref(a->saved);
    a->n = 0;
    a->saved = NULL;
}
