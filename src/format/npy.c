/* format/npy.c - a strict parser of the header's dict literal; elements as they are */
#include "format/npy.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/tensor.h"
#include "format/printable.h"

enum { PREFIX_NBYTES = 8 }; /* magic and version */
static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* The first spelling of a dtype is the one to write. */
static const struct {
    const char *descr;
    tsr_dtype dtype;
} descrs[] = {{"<f4", TSR_F32}, {"<f8", TSR_F64},  {"<f2", TSR_F16}, {"|i1", TSR_S8},  {"<i4", TSR_I32},
              {"<i8", TSR_I64}, {"|b1", TSR_BOOL}, {"<i1", TSR_S8},  {"<b1", TSR_BOOL}};
static const char *const supported = "'<f4', '<f8', '<f2', '|i1', '<i4', '<i8' or '|b1'";

typedef struct cursor {
    const char *name; /* the file, for messages */
    const char *at, *end;
} cursor;

static tsr_status refuse_header(const cursor *c, const char *expected)
{
    const size_t left = (size_t)(c->end - c->at);
    return tsr_fail(TSR_ERR_FORMAT, "%s: the .npy header has \"%s\" where %s must stand", c->name,
                    tsr_printable_n(c->at, left < 24 ? left : 24).text, expected);
}

static void skip_spaces(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) c->at++;
}

static bool take(cursor *c, char expected)
{
    skip_spaces(c);
    if (c->at == c->end || *c->at != expected) return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word)
{
    const size_t n = strlen(word);
    cursor ahead = *c;
    if (!take(&ahead, word[0]) || (size_t)(ahead.end - ahead.at) < n - 1 ||
        memcmp(ahead.at, word + 1, n - 1) != 0)
        return false;
    c->at = ahead.at + n - 1;
    return true;
}

/* Strings of either quote, without escapes: no field has any. */
static bool take_string(cursor *c, const char **s, size_t *n)
{
    cursor ahead = *c;
    const char quote = take(&ahead, '\'') ? '\'' : take(&ahead, '"') ? '"' : '\0';
    if (quote == '\0') return false;
    const char *start = ahead.at;
    while (ahead.at < ahead.end && *ahead.at != quote)
        if (*ahead.at++ == '\\') return false;
    if (ahead.at == ahead.end) return false;
    *s = start;
    *n = (size_t)(ahead.at - start);
    c->at = ahead.at + 1;
    return true;
}

static tsr_status parse_descr(cursor *c, tsr_dtype *out)
{
    const char *s;
    size_t n;
    cursor ahead = *c;
    if (take(&ahead, '[') || take(&ahead, '('))
        return tsr_fail(TSR_ERR_FORMAT, "%s holds an array of a structured dtype, must be %s", c->name,
                        supported);
    if (!take_string(c, &s, &n)) return refuse_header(c, "a dtype");
    for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++) {
        if (n == strlen(descrs[i].descr) && memcmp(s, descrs[i].descr, n) == 0) {
            *out = descrs[i].dtype;
            return TSR_OK;
        }
    }
    const char *what = "an unsupported";
    if (n > 0 && s[0] == '>') what = "a big-endian";
    if (n > 0 && (s[0] == 'O' || (n > 1 && s[1] == 'O'))) what = "an object";
    if (n > 1 && s[1] == 'V') what = "a structured or void";
    return tsr_fail(TSR_ERR_FORMAT, "%s holds an array of %s dtype, '%s', must be %s", c->name, what,
                    tsr_printable_n(s, n).text, supported);
}

static tsr_status parse_extent(cursor *c, int64_t *out)
{
    skip_spaces(c);
    int64_t value = 0;
    const char *start = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (tsr_mul_overflows(value, 10, &value) || tsr_add_overflows(value, *c->at - '0', &value))
            return tsr_fail(TSR_ERR_FORMAT, "%s: an extent of its shape does not fit in 63 bits", c->name);
    }
    if (c->at == start) return refuse_header(c, "an extent of the shape");
    *out = value;
    return TSR_OK;
}

/* A tuple: () or (3,) or (3, 4) or (3, 4,). */
static tsr_status parse_shape(cursor *c, tsr_tensor *t)
{
    if (!take(c, '(')) return refuse_header(c, "the shape");
    bool comma = true; /* since the last extent, or no extent yet */
    t->rank = 0;
    while (!take(c, ')')) {
        if (!comma) return refuse_header(c, "',' or ')'");
        if (t->rank == TSR_MAX_RANK)
            return tsr_fail(TSR_ERR_FORMAT, "%s has more than %d dimensions", c->name, TSR_MAX_RANK);
        TSR_TRY(parse_extent(c, &t->shape[t->rank++]));
        comma = take(c, ',');
    }
    if (t->rank == 1 && !comma) return refuse_header(c, "a shape (\"(3)\" is a number, \"(3,)\" a shape)");
    return TSR_OK;
}

static tsr_status parse_header(cursor *c, tsr_tensor *t, bool *fortran)
{
    enum { DESCR, ORDER, SHAPE, N_KEYS };
    static const char *const keys[N_KEYS] = {"descr", "fortran_order", "shape"};
    bool seen[N_KEYS] = {false};
    if (!take(c, '{')) return refuse_header(c, "'{'");
    bool comma = true;
    while (!take(c, '}')) {
        const char *key;
        size_t n;
        if (!comma) return refuse_header(c, "',' or '}'");
        if (!take_string(c, &key, &n)) return refuse_header(c, "a key");
        int which = 0;
        while (which < N_KEYS && (n != strlen(keys[which]) || memcmp(key, keys[which], n) != 0)) which++;
        if (which == N_KEYS || seen[which])
            return tsr_fail(TSR_ERR_FORMAT, "%s: the .npy header has %s key '%s'", c->name,
                            which == N_KEYS ? "an unknown" : "a second", tsr_printable_n(key, n).text);
        seen[which] = true;
        if (!take(c, ':')) return refuse_header(c, "':'");
        if (which == DESCR)
            TSR_TRY(parse_descr(c, &t->dtype));
        else if (which == SHAPE)
            TSR_TRY(parse_shape(c, t));
        else if (!(*fortran = take_word(c, "True")) && !take_word(c, "False"))
            return refuse_header(c, "True or False");
        comma = take(c, ',');
    }
    for (int i = 0; i < N_KEYS; i++)
        if (!seen[i])
            return tsr_fail(TSR_ERR_FORMAT, "%s: the .npy header lacks the key '%s'", c->name, keys[i]);
    skip_spaces(c);
    return c->at == c->end ? TSR_OK : refuse_header(c, "its end");
}

/* Where the header lies; its length is held against the file's before it is used. */
static tsr_status find_header(const char *name, const unsigned char *data, size_t nbytes, cursor *out)
{
    if (nbytes < PREFIX_NBYTES || memcmp(data, magic, sizeof magic) != 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s is not a .npy file: it does not start with \\x93NUMPY", name);
    const unsigned char major = data[6], minor = data[7];
    if (major < 1 || major > 3 || minor != 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s is a .npy file of version %d.%d, must be 1.0, 2.0 or 3.0", name,
                        major, minor);
    const size_t length_nbytes = major == 1 ? 2 : 4;
    if (nbytes < PREFIX_NBYTES + length_nbytes)
        return tsr_fail(TSR_ERR_FORMAT, "%s: the .npy file ends within its first %zu bytes", name,
                        PREFIX_NBYTES + length_nbytes);
    size_t length = 0;
    for (size_t i = 0; i < length_nbytes; i++) length |= (size_t)data[PREFIX_NBYTES + i] << (8 * i);
    const size_t start = PREFIX_NBYTES + length_nbytes;
    if (length > nbytes - start)
        return tsr_fail(TSR_ERR_FORMAT, "%s: its .npy header says to have %zu bytes, the file has %zu left",
                        name, length, nbytes - start);
    *out = (cursor){
        .name = name, .at = (const char *)data + start, .end = (const char *)data + start + length};
    return TSR_OK;
}

/* Extents of 0 count as 1 here, so that strides are sane and a shape that overflows is refused even if empty.
 */
static tsr_status set_strides(const char *name, tsr_tensor *t, bool fortran)
{
    int64_t stride = 1;
    for (int32_t i = 0; i < t->rank; i++) {
        const int32_t d = fortran ? i : t->rank - 1 - i;
        t->stride[d] = stride;
        if (tsr_mul_overflows(stride, t->shape[d] > 0 ? t->shape[d] : 1, &stride) || stride > INT64_MAX / 8)
            return tsr_fail(TSR_ERR_FORMAT, "%s: its shape %s is too large", name, tsr_shape_of(t).text);
    }
    return TSR_OK;
}

tsr_status tsr_npy_parse(const char *name, void *data, size_t nbytes, tsr_tensor *out)
{
    cursor c = {0};
    tsr_tensor t = {0};
    bool fortran = false;
    TSR_TRY(find_header(name, data, nbytes, &c));
    const size_t offset = (size_t)(c.end - (const char *)data);
    TSR_TRY(parse_header(&c, &t, &fortran));
    TSR_TRY(set_strides(name, &t, fortran));
    const uint64_t needed = (uint64_t)tsr_tensor_numel(&t) * tsr_dtype_nbytes(t.dtype);
    if (needed != nbytes - offset)
        return tsr_fail(
            TSR_ERR_FORMAT, "%s: its shape %s of %s needs %llu bytes of elements, the file has %zu", name,
            tsr_shape_of(&t).text, tsr_dtype_name(t.dtype), (unsigned long long)needed, nbytes - offset);
    unsigned char *elements = (unsigned char *)data + offset;
    if (offset % TSR_ALIGN != 0) elements = memmove(data, elements, (size_t)needed);
    if (t.dtype == TSR_BOOL)
        for (uint64_t i = 0; i < needed; i++) elements[i] = elements[i] != 0;
    t.data = elements;
    *out = t;
    return TSR_OK;
}

tsr_status tsr_npy_read(const char *path, tsr_npy *out)
{
    tsr_npy npy = {0};
    TSR_TRY(tsr_file_read(path, SIZE_MAX, &npy.file));
    const tsr_status status = tsr_npy_parse(path, npy.file.data, npy.file.nbytes, &npy.tensor);
    if (status != TSR_OK)
        tsr_file_release(&npy.file);
    else
        *out = npy;
    return status;
}

void tsr_npy_release(tsr_npy *npy)
{
    tsr_file_release(&npy->file);
    *npy = (tsr_npy){0};
}

/* Elements start at a multiple of 64 bytes, as NumPy has it. */
static size_t format_header(const tsr_tensor *t, const char *descr, char *header, size_t capacity)
{
    char shape[96] = "";
    size_t n = 0;
    for (int32_t i = 0; i < t->rank; i++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, i == 0 ? "%lld" : ", %lld",
                              (long long)t->shape[i]);
    const size_t start = PREFIX_NBYTES + 2;
    size_t end = start;
    end += (size_t)snprintf(header + start, capacity - start,
                            "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", descr, shape,
                            t->rank == 1 ? "," : "");
    while ((end + 1) % TSR_ALIGN != 0) header[end++] = ' ';
    header[end++] = '\n';
    memcpy(header, magic, sizeof magic);
    header[6] = 1, header[7] = 0;
    header[8] = (char)((end - start) & 0xff), header[9] = (char)((end - start) >> 8);
    return end;
}

tsr_status tsr_npy_write(const char *path, const tsr_tensor *t)
{
    TSR_TRY(tsr_tensor_validate(t, "the tensor to be written"));
    size_t i = 0;
    const size_t n_descrs = sizeof descrs / sizeof *descrs;
    while (i < n_descrs && descrs[i].dtype != t->dtype) i++;
    if (i == n_descrs)
        return tsr_fail(TSR_ERR_DTYPE, "%s: %s has no .npy dtype, must be converted to f32 first", path,
                        tsr_dtype_name(t->dtype));
    char header[4 * TSR_ALIGN]; /* at most 10 + 52 + 4 * 21 bytes, rounded up */
    const size_t header_nbytes = format_header(t, descrs[i].descr, header, sizeof header);
    tsr_writer *w;
    TSR_TRY(tsr_writer_open(path, &w));
    tsr_status status = tsr_writer_write(w, header, header_nbytes);
    if (status == TSR_OK) status = tsr_writer_tensor(w, t);
    if (status == TSR_OK) return tsr_writer_commit(w);
    tsr_writer_discard(w);
    return status;
}
