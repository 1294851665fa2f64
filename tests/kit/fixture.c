/* tests/kit/fixture.c - reads cases of named tensors */
#include "kit/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "kit/files.h"

kit_fixture kit_fixture_open(const char *file)
{
    kit_fixture f = {0};
    char path[512];
    size_t nbytes;
    snprintf(f.file, sizeof f.file, "%s", file);
    snprintf(path, sizeof path, "%s/operators/%s.fix", TSR_FIXTURES, file);
    f.bytes = kit_read_file(path, &nbytes);
    f.at = f.bytes;
    f.end = f.bytes + nbytes;
    return f;
}

static tsr_dtype dtype_named(const char *name)
{
    int dtype = 0;
    while (dtype < TSR_DTYPE_COUNT && strcmp(name, tsr_dtype_name((tsr_dtype)dtype)) != 0) dtype++;
    return (tsr_dtype)dtype;
}

/* The words of a "tensor" line, then its data; false if the file breaks the format. */
static bool read_tensor(kit_fixture *f)
{
    if (f->n_tensors == KIT_FIXTURE_TENSORS) return false;
    kit_fixture_tensor_record *r = &f->tensor[f->n_tensors++];
    char dtype[8];
    int rank, used;
    if (sscanf(f->at, "tensor %31s %7s %d%n", r->name, dtype, &rank, &used) != 3) return false;
    if (rank < 0 || rank > TSR_MAX_RANK || dtype_named(dtype) == TSR_DTYPE_COUNT) return false;
    f->at += used;
    r->view = (tsr_tensor){.dtype = dtype_named(dtype), .rank = rank};
    for (int i = 0; i < rank; i++) {
        long long extent;
        if (sscanf(f->at, "%lld%n", &extent, &used) != 1) return false;
        r->view.shape[i] = extent;
        f->at += used;
    }
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; stride *= r->view.shape[i--]) r->view.stride[i] = stride;
    if (*f->at++ != '\n') return false;
    const int64_t nbytes = stride * (int64_t)tsr_dtype_nbytes(r->view.dtype);
    if (nbytes > f->end - f->at) return false;
    r->view.data = (char *)f->bytes + (f->at - f->bytes);
    f->at += nbytes;
    return true;
}

bool kit_fixture_next(kit_fixture *f)
{
    f->n_tensors = 0;
    if (f->at == f->end) {
        free(f->bytes);
        f->bytes = NULL;
        return false;
    }
    int used = 0;
    if (sscanf(f->at, "case %31s%n", f->name, &used) != 1 || f->at[used] != '\n')
        fail_msg("%s.fix: no case at byte %td", f->file, f->at - f->bytes);
    f->at += used + 1;
    while (strncmp(f->at, "tensor ", 7) == 0)
        if (!read_tensor(f)) fail_msg("%s.fix: a broken record near byte %td", f->file, f->at - f->bytes);
    return true;
}

static const kit_fixture_tensor_record *find(const kit_fixture *f, const char *tensor)
{
    for (int32_t i = 0; i < f->n_tensors; i++)
        if (strcmp(f->tensor[i].name, tensor) == 0) return &f->tensor[i];
    return NULL;
}

bool kit_fixture_has(const kit_fixture *f, const char *tensor) { return find(f, tensor) != NULL; }

/* The file gives no alignment: elements are moved by bytes first. */
tsr_tensor kit_fixture_get(const kit_fixture *f, const char *tensor, tsr_dtype dtype, kit_layout layout)
{
    const kit_fixture_tensor_record *r = find(f, tensor);
    if (r == NULL) {
        fail_msg("%s.fix, case %s: there is no %s", f->file, f->name, tensor);
        return (tsr_tensor){0};
    }
    const tsr_tensor rows = kit_like(&r->view, r->view.dtype, KIT_ROWS);
    memcpy(rows.data, r->view.data, (size_t)tsr_tensor_numel(&rows) * tsr_dtype_nbytes(rows.dtype));
    return kit_copy(&rows, dtype, layout);
}

double kit_fixture_number(const kit_fixture *f, const char *tensor, double absent)
{
    if (!kit_fixture_has(f, tensor)) return absent;
    const tsr_tensor t = kit_fixture_get(f, tensor, TSR_F64, KIT_ROWS);
    return kit_get(&t, 0);
}
