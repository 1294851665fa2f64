/* format/safetensors_write.c - writing: the header first, then one tensor after another */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/tensor.h"
#include "format/json.h"
#include "format/printable.h"
#include "format/safetensors.h"

/* The reference implementation's order: its dtypes from the last to the first, by alignment in the main. */
static const int place_of[TSR_DTYPE_COUNT] = {
    [TSR_I64] = 0,  [TSR_F64] = 1, [TSR_F32] = 2, [TSR_I32] = 3,
    [TSR_BF16] = 4, [TSR_F16] = 5, [TSR_S8] = 6,  [TSR_BOOL] = 7,
};

typedef struct entry {
    const tsr_named_tensor *tensor;
    size_t i; /* in the caller's list */
} entry;

static int compare(const void *a, const void *b)
{
    const tsr_named_tensor *x = ((const entry *)a)->tensor, *y = ((const entry *)b)->tensor;
    const int order = place_of[x->tensor.dtype] - place_of[y->tensor.dtype];
    return order != 0 ? order : strcmp(x->name, y->name);
}

static size_t nbytes_of(const tsr_tensor *t)
{
    return (size_t)tsr_tensor_numel(t) * tsr_dtype_nbytes(t->dtype);
}

static json_t *describe(const tsr_tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int32_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tsr_safetensors_dtype_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + nbytes_of(t)));
}

/* The header's JSON, unpadded; free it. */
static tsr_status format_header(const char *path, const entry *entries, size_t n, char **out)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t begin = 0;
    tsr_status status = TSR_OK;
    for (size_t i = 0; i < n && status == TSR_OK; i++) {
        const char *name = entries[i].tensor->name;
        json_t *description = describe(&entries[i].tensor->tensor, begin);
        if (header == NULL || description == NULL)
            status = tsr_fail(TSR_ERR_MEMORY, "%s: no memory for its header", path);
        else if (json_object_get(header, name) != NULL)
            status = tsr_fail(TSR_ERR_ARGUMENT, "%s: the name '%s' is taken", path, tsr_printable(name).text);
        else if (json_object_set(header, name, description) != 0)
            status = tsr_fail(TSR_ERR_ARGUMENT, "%s: the name '%s' is no valid UTF-8", path,
                              tsr_printable(name).text);
        else if (__builtin_add_overflow(begin, nbytes_of(&entries[i].tensor->tensor), &begin) ||
                 begin > INT64_MAX)
            status = tsr_fail(TSR_ERR_OVERFLOW, "%s: the tensors' bytes do not fit in 63 bits", path);
        json_decref(description);
    }
    char *text = status == TSR_OK ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (status == TSR_OK && text == NULL)
        status = tsr_fail(TSR_ERR_MEMORY, "%s: no memory for its header", path);
    if (status == TSR_OK) *out = text;
    return status;
}

static tsr_status write_header(tsr_writer *w, const char *text)
{
    static const char spaces[8] = "        ";
    const size_t n = strlen(text), padding = (8 - n % 8) % 8;
    const uint64_t length = n + padding;
    TSR_TRY(tsr_writer_write(w, &length, sizeof length));
    TSR_TRY(tsr_writer_write(w, text, n));
    return tsr_writer_write(w, spaces, padding);
}

static tsr_status write_tensors(tsr_writer *w, const entry *entries, size_t n, tsr_tensor_source source,
                                void *user)
{
    for (size_t i = 0; i < n; i++) {
        const tsr_tensor *promised = &entries[i].tensor->tensor;
        tsr_tensor t = *promised;
        if (source != NULL) {
            TSR_TRY(source(user, entries[i].i, &t));
            if (t.dtype != promised->dtype || !tsr_tensor_same_shape(&t, promised))
                return tsr_fail(TSR_ERR_SHAPE, "tensor '%s': its source gave %s %s, must be %s %s",
                                tsr_printable(entries[i].tensor->name).text, tsr_dtype_name(t.dtype),
                                tsr_shape_of(&t).text, tsr_dtype_name(promised->dtype),
                                tsr_shape_of(promised).text);
        }
        TSR_TRY(tsr_writer_tensor(w, &t));
    }
    return TSR_OK;
}

static tsr_status check_list(const char *path, const tsr_named_tensor *list, size_t n)
{
    if (path == NULL || (list == NULL && n > 0))
        return tsr_fail(TSR_ERR_ARGUMENT, "%s is NULL", path == NULL ? "path" : "list");
    for (size_t i = 0; i < n; i++) {
        if (list[i].name == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "tensor %zu has no name", i);
        TSR_TRY(tsr_tensor_validate(&list[i].tensor, list[i].name));
    }
    return TSR_OK;
}

tsr_status tsr_safetensors_write(const char *path, const tsr_named_tensor *list, size_t n,
                                 tsr_tensor_source source, void *user)
{
    TSR_TRY(check_list(path, list, n));
    entry *entries = calloc(n + 1, sizeof *entries);
    if (entries == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: no memory for %zu names", path, n);
    for (size_t i = 0; i < n; i++) entries[i] = (entry){.tensor = &list[i], .i = i};
    qsort(entries, n, sizeof *entries, compare);
    char *header = NULL;
    tsr_writer *w = NULL;
    tsr_status status = format_header(path, entries, n, &header);
    if (status == TSR_OK) status = tsr_writer_open(path, &w);
    if (status == TSR_OK) status = write_header(w, header);
    if (status == TSR_OK) status = write_tensors(w, entries, n, source, user);
    if (status == TSR_OK)
        status = tsr_writer_commit(w);
    else
        tsr_writer_discard(w);
    free(header);
    free(entries);
    return status;
}
