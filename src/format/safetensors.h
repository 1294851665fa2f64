/*
 * format/safetensors.h - named tensors in a file, or in several under one index
 *
 *     u64 N | header: N bytes of JSON, padded with spaces     | elements
 *           | {"__metadata__": {"format": "pt"},              |
 *           |  "w": {"dtype": "F32", "shape": [2, 3],         | row-major, little-endian,
 *           |        "data_offsets": [0, 24]}, ...}           | offsets count from here
 *
 *     model.safetensors.index.json: {"metadata": {...},
 *                                    "weight_map": {"w": "model-00001-of-00002.safetensors", ...}}
 *
 * Everything is checked on opening: the header's length, duplicate names, dtype and shape
 * against the bytes, and that the tensors cover the elements without holes or overlaps; with
 * an index, that every shard lies in its folder and holds exactly what the index says.
 */
#ifndef TSR_FORMAT_SAFETENSORS_H
#define TSR_FORMAT_SAFETENSORS_H

#include <jansson.h>

#include "format/file.h"

/* One tensor of a file. */
typedef struct tsr_stored {
    const char *name;
    tsr_dtype dtype;
    int32_t rank;
    int64_t shape[TSR_MAX_RANK];
    const unsigned char *data; /* in the mapped file, at any alignment: copy it or read it with
                                  tsr_stored_read, never through a pointer to its element type */
    size_t nbytes;
} tsr_stored;

typedef struct tsr_safetensors tsr_safetensors;

/*
 * path: a .safetensors file, an .index.json, or a folder with model.safetensors or else
 * model.safetensors.index.json. Files are mapped; data is read from disk when it is touched.
 */
tsr_status tsr_safetensors_open(const char *path, tsr_safetensors **out);

/* The same from memory, which must stay until the closing. `name` stands for the file in messages. */
tsr_status tsr_safetensors_parse(const char *name, const void *data, size_t nbytes, tsr_safetensors **out);

/* NULL is allowed. */
void tsr_safetensors_close(tsr_safetensors *st);

/* All tensors, sorted by name. They and their names live as long as `st`. */
const tsr_stored *tsr_safetensors_list(const tsr_safetensors *st, size_t *n);

/* NULL if there is none of that name. */
const tsr_stored *tsr_safetensors_find(const tsr_safetensors *st, const char *name);

/* The tensor of that name; TSR_ERR_FORMAT with one clear message if it is missing or has another shape. */
tsr_status tsr_safetensors_expect(const tsr_safetensors *st, const char *name, int32_t rank,
                                  const int64_t *shape, const tsr_stored **out);

/*
 * Copies all elements to `out`, row-major and aligned for `dtype`, converting between f32, f64,
 * bf16 and f16 with one rounding. Other types convert to themselves only (else TSR_ERR_DTYPE);
 * any nonzero byte of a bool is true.
 */
tsr_status tsr_stored_read(const tsr_stored *stored, tsr_dtype dtype, void *out);

/* "F32", "BF16" ...: a dtype's name in these files. */
const char *tsr_safetensors_dtype_name(tsr_dtype dtype);

/* Checks an index and gives its weight_map (release with json_decref): name -> file name of a shard. */
tsr_status tsr_safetensors_parse_index(const char *name, const void *text, size_t nbytes, json_t **out);

/* What is to be stored: rank, shape and dtype are read from the view, and the data unless there is a source.
 */
typedef struct tsr_named_tensor {
    const char *name;
    tsr_tensor tensor;
} tsr_named_tensor;

/*
 * Gives tensor i of the list as a host view of the same dtype and shape, any strides; it must
 * stay until the next call. For tensors on a device, or kept in another dtype: one copy at a time.
 */
typedef tsr_status (*tsr_tensor_source)(void *user, size_t i, tsr_tensor *out);

/*
 * Replaces the file as a whole (see tsr_writer). Tensors are stored by alignment, largest first,
 * then by name, byte for byte as the reference implementation does. source: NULL if the
 * list's views are in host memory.
 */
tsr_status tsr_safetensors_write(const char *path, const tsr_named_tensor *list, size_t n,
                                 tsr_tensor_source source, void *user);

#endif
