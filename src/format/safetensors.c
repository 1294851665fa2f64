/* format/safetensors.c - reading: nothing of a header is believed before the file's length bears it out */
#define _DEFAULT_SOURCE
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/tensor.h"
#include "format/json.h"
#include "format/printable.h"

enum {
    LENGTH_NBYTES = 8,
    MAX_HEADER_NBYTES = 100000000, /* the reference implementation's limit */
    MAX_INDEX_NBYTES = 100000000,
    MAX_FILE_NAME = 255,
};

static const char *const dtype_names[TSR_DTYPE_COUNT] = {
    [TSR_F32] = "F32", [TSR_F64] = "F64", [TSR_BF16] = "BF16", [TSR_F16] = "F16",
    [TSR_S8] = "I8",   [TSR_I32] = "I32", [TSR_I64] = "I64",   [TSR_BOOL] = "BOOL",
};

const char *tsr_safetensors_dtype_name(tsr_dtype dtype)
{
    return (unsigned)dtype < TSR_DTYPE_COUNT ? dtype_names[dtype] : "invalid";
}

typedef struct shard {
    tsr_file file;  /* zeroed where the memory is the caller's */
    json_t *header; /* owns the tensors' names                 */
} shard;

struct tsr_safetensors {
    char *name;
    tsr_stored *tensors;
    size_t n_tensors;
    shard *shards;
    size_t n_shards;
};

static tsr_status parse_dtype(const json_t *entry, const char *what, tsr_dtype *out)
{
    const char *text = NULL;
    TSR_TRY(tsr_json_string(entry, what, "dtype", &text));
    for (int i = 0; i < TSR_DTYPE_COUNT; i++) {
        if (strcmp(text, dtype_names[i]) == 0) {
            *out = (tsr_dtype)i;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_FORMAT, "%s: dtype is %s, must be F32, F64, BF16, F16, I8, I32, I64 or BOOL",
                    what, tsr_printable(text).text);
}

static tsr_status parse_shape(const json_t *entry, const char *what, tsr_stored *t)
{
    json_t *shape = NULL;
    TSR_TRY(tsr_json_array(entry, what, "shape", &shape));
    if (json_array_size(shape) > TSR_MAX_RANK)
        return tsr_fail(TSR_ERR_FORMAT, "%s has %zu dimensions, must have at most %d", what,
                        json_array_size(shape), TSR_MAX_RANK);
    t->rank = (int32_t)json_array_size(shape);
    int64_t numel = 1;
    for (int32_t i = 0; i < t->rank; i++) {
        const json_t *extent = json_array_get(shape, (size_t)i);
        t->shape[i] = json_integer_value(extent);
        if (!json_is_integer(extent) || t->shape[i] < 0)
            return tsr_fail(TSR_ERR_FORMAT, "%s: extent %d of its shape is no size", what, (int)i);
        if (tsr_mul_overflows(numel, t->shape[i], &numel) || numel > INT64_MAX / 8)
            return tsr_fail(TSR_ERR_FORMAT, "%s: its shape is too large", what);
    }
    t->nbytes = (size_t)numel * tsr_dtype_nbytes(t->dtype);
    return TSR_OK;
}

static tsr_status parse_entry(const json_t *entry, const char *name, const unsigned char *data,
                              size_t data_nbytes, tsr_stored *t)
{
    char what[160];
    snprintf(what, sizeof what, "tensor '%s'", tsr_printable(name).text);
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return tsr_fail(TSR_ERR_FORMAT, "%s must have dtype, shape and data_offsets, and nothing else", what);
    t->name = name;
    TSR_TRY(parse_dtype(entry, what, &t->dtype));
    TSR_TRY(parse_shape(entry, what, t));
    json_t *offsets = NULL;
    TSR_TRY(tsr_json_array(entry, what, "data_offsets", &offsets));
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return tsr_fail(TSR_ERR_FORMAT, "%s: data_offsets must be two integers", what);
    const int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_nbytes)
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: data_offsets are %lld to %lld, the file has %zu bytes of elements", what,
                        (long long)begin, (long long)end, data_nbytes);
    if ((uint64_t)(end - begin) != t->nbytes)
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld bytes, must have %zu by its shape and dtype", what,
                        (long long)(end - begin), t->nbytes);
    t->data = data + begin;
    return TSR_OK;
}

static int compare_place(const void *a, const void *b)
{
    const tsr_stored *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->nbytes > y->nbytes) - (x->nbytes < y->nbytes); /* empty ones first */
}

static int compare_name(const void *a, const void *b)
{
    return strcmp(((const tsr_stored *)a)->name, ((const tsr_stored *)b)->name);
}

static tsr_status check_coverage(tsr_stored *t, size_t n, const unsigned char *data, size_t nbytes)
{
    size_t end = 0;
    qsort(t, n, sizeof *t, compare_place);
    for (size_t i = 0; i < n; i++) {
        const size_t begin = (size_t)(t[i].data - data);
        if (begin < end)
            return tsr_fail(TSR_ERR_FORMAT, "tensor '%s' shares bytes with tensor '%s'",
                            tsr_printable(t[i].name).text, tsr_printable(t[i - 1].name).text);
        if (begin > end)
            return tsr_fail(TSR_ERR_FORMAT, "bytes %zu to %zu, before tensor '%s', belong to no tensor", end,
                            begin, tsr_printable(t[i].name).text);
        end = begin + t[i].nbytes;
    }
    if (end != nbytes)
        return tsr_fail(TSR_ERR_FORMAT, "the last %zu bytes belong to no tensor", nbytes - end);
    return TSR_OK;
}

static tsr_status parse_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return tsr_fail(TSR_ERR_FORMAT, "__metadata__ is %s, must be an object", tsr_json_kind(metadata));
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return tsr_fail(
        TSR_ERR_FORMAT, "__metadata__: %s is %s, must be a string", tsr_printable(key).text,
        tsr_json_kind(value));
    return TSR_OK;
}

/* The header's tensors, appended to st->tensors. */
static tsr_status parse_header(tsr_safetensors *st, json_t *header, const unsigned char *data, size_t nbytes)
{
    const size_t n_old = st->n_tensors, room = n_old + json_object_size(header) + 1;
    tsr_stored *grown = realloc(st->tensors, room * sizeof *grown);
    if (grown == NULL) return tsr_fail(TSR_ERR_MEMORY, "no memory for %zu tensors", room);
    st->tensors = grown;
    const char *key;
    json_t *entry;
    size_t n = n_old;
    json_object_foreach(header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0)
            TSR_TRY(parse_metadata(entry));
        else
            TSR_TRY(parse_entry(entry, key, data, nbytes, &grown[n++]));
    }
    TSR_TRY(check_coverage(grown + n_old, n - n_old, data, nbytes));
    st->n_tensors = n;
    return TSR_OK;
}

/* A whole file. The header's JSON becomes the shard's in any case. */
static tsr_status parse_file(tsr_safetensors *st, const char *name, const unsigned char *data, size_t nbytes,
                             shard *s)
{
    if (nbytes < LENGTH_NBYTES)
        return tsr_fail(TSR_ERR_FORMAT, "%s has %zu bytes, too few for a safetensors file", name, nbytes);
    uint64_t length = 0;
    memcpy(&length, data, LENGTH_NBYTES);
    if (length > MAX_HEADER_NBYTES || length > nbytes - LENGTH_NBYTES)
        return tsr_fail(
            TSR_ERR_FORMAT,
            "%s: its safetensors header says to have %llu bytes; the file has %zu left, and %d are "
            "the most",
            name, (unsigned long long)length, nbytes - LENGTH_NBYTES, MAX_HEADER_NBYTES);
    const unsigned char *header = data + LENGTH_NBYTES;
    if (length == 0 || header[0] != '{')
        return tsr_fail(TSR_ERR_FORMAT, "%s: its safetensors header does not start with '{'", name);
    TSR_TRY(tsr_json_parse(name, header, (size_t)length, &s->header));
    const tsr_status status = parse_header(st, s->header, header + length,
                                           nbytes - LENGTH_NBYTES - (size_t)length);
    return status == TSR_OK ? TSR_OK : tsr_fail_within(status, "%s", name);
}

void tsr_safetensors_close(tsr_safetensors *st)
{
    if (st == NULL) return;
    for (size_t i = 0; i < st->n_shards; i++) {
        json_decref(st->shards[i].header);
        tsr_file_release(&st->shards[i].file);
    }
    free(st->shards);
    free(st->tensors);
    free(st->name);
    free(st);
}

/* NULL if there is no memory. */
static tsr_safetensors *create(const char *name, size_t n_shards)
{
    tsr_safetensors *st = calloc(1, sizeof *st);
    char *copy = strdup(name);
    shard *shards = calloc(n_shards, sizeof *shards);
    if (st == NULL || copy == NULL || shards == NULL) {
        free(st), free(copy), free(shards);
        return NULL;
    }
    *st = (tsr_safetensors){.name = copy, .shards = shards, .n_shards = n_shards};
    return st;
}

static tsr_status refuse_memory(const char *name)
{
    return tsr_fail(TSR_ERR_MEMORY, "%s: no memory to open it", name);
}

static tsr_status finish(tsr_safetensors *st, tsr_status status, tsr_safetensors **out)
{
    if (status != TSR_OK) {
        tsr_safetensors_close(st);
        return status;
    }
    if (st->n_tensors > 0) qsort(st->tensors, st->n_tensors, sizeof *st->tensors, compare_name);
    *out = st;
    return TSR_OK;
}

tsr_status tsr_safetensors_parse(const char *name, const void *data, size_t nbytes, tsr_safetensors **out)
{
    tsr_safetensors *st = create(name, 1);
    if (st == NULL) return refuse_memory(name);
    return finish(st, parse_file(st, name, data, nbytes, &st->shards[0]), out);
}

static tsr_status open_shard(tsr_safetensors *st, const char *path, shard *s)
{
    TSR_TRY(tsr_file_map(path, &s->file));
    return parse_file(st, path, s->file.data, s->file.nbytes, s);
}

static tsr_status open_single(const char *path, tsr_safetensors **out)
{
    tsr_safetensors *st = create(path, 1);
    if (st == NULL) return refuse_memory(path);
    return finish(st, open_shard(st, path, &st->shards[0]), out);
}

static bool ends_with(const char *text, const char *suffix)
{
    const size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* A shard's name must be one of a file beside the index, fit for a message. */
static bool is_shard_name(const char *s)
{
    if (s == NULL || s[0] == '.' || strlen(s) > MAX_FILE_NAME || !ends_with(s, ".safetensors")) return false;
    for (; *s != '\0'; s++)
        if (*s == '/' || *s == '\\' || (unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

tsr_status tsr_safetensors_parse_index(const char *name, const void *text, size_t nbytes, json_t **out)
{
    json_t *root = NULL, *map = NULL, *shard_name;
    const char *key;
    TSR_TRY(tsr_json_parse(name, text, nbytes, &root));
    tsr_status status = tsr_json_object(root, name, "weight_map", &map);
    if (status == TSR_OK && json_object_size(map) == 0)
        status = tsr_fail(TSR_ERR_FORMAT, "%s: its weight_map is empty", name);
    json_object_foreach(map, key, shard_name)
    {
        const char *s = json_string_value(shard_name);
        if (is_shard_name(s)) continue;
        status = tsr_fail(
            TSR_ERR_FORMAT, "%s: tensor '%s' is in '%s', must be in a .safetensors file of the same folder",
            name, tsr_printable(key).text, tsr_printable(s != NULL ? s : tsr_json_kind(shard_name)).text);
        break;
    }
    if (status == TSR_OK) *out = json_incref(map);
    json_decref(root);
    return status;
}

/* The distinct shards of a weight_map, as the keys of an object. */
static json_t *distinct_shards(json_t *map)
{
    json_t *names = json_object(), *shard_name;
    const char *key;
    json_object_foreach(map, key, shard_name)
    {
        const char *s = json_string_value(shard_name);
        if (json_object_get(names, s) != NULL) continue;
        if (json_object_set_new(names, s, json_true()) != 0) {
            json_decref(names);
            return NULL;
        }
    }
    return names;
}

static char *join(const char *index_path, const char *file)
{
    const char *slash = strrchr(index_path, '/');
    const size_t folder = slash == NULL ? 0 : (size_t)(slash - index_path) + 1;
    char *path = malloc(folder + strlen(file) + 1);
    if (path != NULL) {
        memcpy(path, index_path, folder);
        strcpy(path + folder, file);
    }
    return path;
}

/* Opens one shard; each of its tensors must be listed, and listed here. */
static tsr_status open_listed(tsr_safetensors *st, const char *index_path, const json_t *map,
                              const char *file, shard *s)
{
    char *path = join(index_path, file);
    if (path == NULL) return refuse_memory(index_path);
    const size_t n_old = st->n_tensors;
    tsr_status status = open_shard(st, path, s);
    free(path);
    for (size_t i = n_old; i < st->n_tensors && status == TSR_OK; i++) {
        const char *listed = json_string_value(json_object_get(map, st->tensors[i].name));
        if (listed == NULL || strcmp(listed, file) != 0)
            status = tsr_fail(TSR_ERR_FORMAT, "%s: %s holds tensor '%s', which the index does not list there",
                              index_path, file, tsr_printable(st->tensors[i].name).text);
    }
    return status;
}

static tsr_status open_shards(tsr_safetensors *st, const char *index_path, json_t *map, json_t *names)
{
    const char *key;
    json_t *value;
    size_t i = 0;
    json_object_foreach(names, key, value) TSR_TRY(open_listed(st, index_path, map, key, &st->shards[i++]));
    if (st->n_tensors == json_object_size(map)) return TSR_OK;
    qsort(st->tensors, st->n_tensors, sizeof *st->tensors, compare_name);
    json_object_foreach(map, key, value) if (tsr_safetensors_find(st, key) == NULL) return tsr_fail(
        TSR_ERR_FORMAT, "%s: tensor '%s' is not in %s, where the index lists it", index_path,
        tsr_printable(key).text, json_string_value(value));
    return TSR_OK;
}

static tsr_status open_index(const char *path, tsr_safetensors **out)
{
    tsr_file file = {0};
    json_t *map = NULL;
    TSR_TRY(tsr_file_read(path, MAX_INDEX_NBYTES, &file));
    const tsr_status parsed = tsr_safetensors_parse_index(path, file.data, file.nbytes, &map);
    tsr_file_release(&file);
    TSR_TRY(parsed);
    json_t *names = distinct_shards(map);
    tsr_safetensors *st = names == NULL ? NULL : create(path, json_object_size(names));
    const tsr_status status = st == NULL ? refuse_memory(path)
                                         : finish(st, open_shards(st, path, map, names), out);
    json_decref(names);
    json_decref(map);
    return status;
}

static tsr_status open_folder(const char *path, tsr_safetensors **out)
{
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    const size_t n = strlen(path);
    char *name = malloc(n + 1 + sizeof index);
    if (name == NULL) return refuse_memory(path);
    strcpy(name, path);
    strcpy(name + n, "/");
    struct stat info;
    tsr_status status;
    if (stat(strcat(name, single), &info) == 0) {
        status = open_single(name, out);
    } else {
        strcpy(name + n + 1, index);
        status = stat(name, &info) == 0
                     ? open_index(name, out)
                     : tsr_fail(TSR_ERR_IO, "%s holds neither %s nor %s", path, single, index);
    }
    free(name);
    return status;
}

tsr_status tsr_safetensors_open(const char *path, tsr_safetensors **out)
{
    struct stat info;
    if (path == NULL) return tsr_fail(TSR_ERR_ARGUMENT, "path is NULL");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return open_folder(path, out);
    return ends_with(path, ".json") ? open_index(path, out) : open_single(path, out);
}

const tsr_stored *tsr_safetensors_list(const tsr_safetensors *st, size_t *n)
{
    *n = st->n_tensors;
    return st->tensors;
}

const tsr_stored *tsr_safetensors_find(const tsr_safetensors *st, const char *name)
{
    const tsr_stored key = {.name = name};
    if (st->n_tensors == 0) return NULL;
    return bsearch(&key, st->tensors, st->n_tensors, sizeof key, compare_name);
}

tsr_status tsr_safetensors_expect(const tsr_safetensors *st, const char *name, int32_t rank,
                                  const int64_t *shape, const tsr_stored **out)
{
    tsr_tensor expected = {.rank = rank}, found = {0};
    memcpy(expected.shape, shape, (size_t)rank * sizeof *shape);
    const tsr_stored *t = tsr_safetensors_find(st, name);
    if (t == NULL)
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' is missing, must be %s", st->name, name,
                        tsr_shape_of(&expected).text);
    found.rank = t->rank;
    memcpy(found.shape, t->shape, sizeof found.shape);
    if (!tsr_tensor_same_shape(&expected, &found))
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' is %s, must be %s", st->name, name,
                        tsr_shape_of(&found).text, tsr_shape_of(&expected).text);
    *out = t;
    return TSR_OK;
}

/* `n` elements between the three types that f32 holds exactly. */
static void convert_through_f32(const void *in, tsr_dtype from, void *out, tsr_dtype to, size_t n)
{
    const float *f32 = in;
    const uint16_t *half = in;
    for (size_t i = 0; i < n; i++) {
        const float x = from == TSR_F32    ? f32[i]
                        : from == TSR_BF16 ? tsr_f32_from_bf16(half[i])
                                           : tsr_f32_from_f16(half[i]);
        if (to == TSR_F32)
            ((float *)out)[i] = x;
        else
            ((uint16_t *)out)[i] = to == TSR_BF16 ? tsr_bf16_from_f32(x) : tsr_f16_from_f32(x);
    }
}

static bool is_float(tsr_dtype dtype)
{
    return dtype == TSR_F32 || dtype == TSR_F64 || dtype == TSR_BF16 || dtype == TSR_F16;
}

tsr_status tsr_stored_read(const tsr_stored *stored, tsr_dtype dtype, void *out)
{
    const tsr_dtype from = stored->dtype;
    if (from != dtype && !(is_float(from) && is_float(dtype)))
        return tsr_fail(TSR_ERR_DTYPE, "tensor '%s' is %s, cannot be read as %s",
                        tsr_printable(stored->name).text, tsr_dtype_name(from), tsr_dtype_name(dtype));
    if (from == TSR_BOOL) {
        for (size_t i = 0; i < stored->nbytes; i++) ((uint8_t *)out)[i] = stored->data[i] != 0;
    } else if (from == dtype) {
        if (stored->nbytes > 0) memcpy(out, stored->data, stored->nbytes);
    } else {
        /* A piece at a time into aligned memory, as the file's may not be. */
        _Alignas(8) unsigned char piece[8192];
        char *to = out;
        for (size_t done = 0; done < stored->nbytes;) {
            const size_t left = stored->nbytes - done, nbytes = left < sizeof piece ? left : sizeof piece;
            const size_t n = nbytes / tsr_dtype_nbytes(from);
            memcpy(piece, stored->data + done, nbytes);
            if (from != TSR_F64 && dtype != TSR_F64)
                convert_through_f32(piece, from, to, dtype, n);
            else
                for (size_t i = 0; i < n; i++)
                    tsr_store_f64(to, dtype, (int64_t)i, tsr_load_f64(piece, from, (int64_t)i));
            to += n * tsr_dtype_nbytes(dtype);
            done += nbytes;
        }
    }
    return TSR_OK;
}
