/*
 * check_safetensors.c - the reference implementation's files are read and written alike; those that
 * lie are refused, single or in shards
 *
 * tests/fixtures/format/ is made by tools/make_fixtures_format.py: element i is i - 5; of a bool
 * tensor it is i % 3 == 0.
 */
#define _DEFAULT_SOURCE
#include "kit/kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dtype.h"
#include "base/tensor.h"
#include "format/safetensors.h"
#include "kit/files.h"

static const char *const every_dtype = TSR_FIXTURES "/format/every_dtype.safetensors";
static const char *const sharded = TSR_FIXTURES "/format/sharded";

static double value_at(tsr_dtype dtype, int64_t i)
{
    return dtype == TSR_BOOL ? i % 3 == 0 : (double)(i - 5);
}

static int64_t numel_of(const tsr_stored *s) { return (int64_t)(s->nbytes / tsr_dtype_nbytes(s->dtype)); }

/* Read as `dtype` (the stored one or another float): exact for the small integers used here. */
static void expect_values(const tsr_stored *s, tsr_dtype dtype)
{
    double memory[8]; /* aligned for every dtype */
    assert_true(numel_of(s) <= 8);
    KIT_OK(tsr_stored_read(s, dtype, memory));
    for (int64_t i = 0; i < numel_of(s); i++)
        if (tsr_load_f64(memory, dtype, i) != value_at(dtype, i))
            fail_msg("%s: element %lld is %g, must be %g", s->name, (long long)i,
                     tsr_load_f64(memory, dtype, i), value_at(dtype, i));
}

static const struct {
    const char *name;
    tsr_dtype dtype;
    int32_t rank;
    int64_t shape[4];
} in_every_dtype[] = {
    {"empty", TSR_F32, 2, {0, 4}},      {"name \"with\" \\ and \xc3\xa9", TSR_F16, 1, {3}},
    {"rank4", TSR_S8, 4, {1, 2, 1, 3}}, {"scalar", TSR_F32, 0, {0}},
    {"t.bf16", TSR_BF16, 2, {2, 3}},    {"t.bool", TSR_BOOL, 2, {2, 3}},
    {"t.f16", TSR_F16, 2, {2, 3}},      {"t.f32", TSR_F32, 2, {2, 3}},
    {"t.f64", TSR_F64, 2, {2, 3}},      {"t.i32", TSR_I32, 2, {2, 3}},
    {"t.i64", TSR_I64, 2, {2, 3}},      {"t.i8", TSR_S8, 2, {2, 3}},
};
enum { N_EVERY = sizeof in_every_dtype / sizeof *in_every_dtype };

static void test_reads_every_dtype(void **state)
{
    (void)state;
    tsr_safetensors *st;
    KIT_OK(tsr_safetensors_open(every_dtype, &st));
    size_t n;
    const tsr_stored *list = tsr_safetensors_list(st, &n);
    assert_int_equal(n, N_EVERY);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(list[i].name, in_every_dtype[i].name);
        const tsr_stored *s;
        KIT_OK(tsr_safetensors_expect(st, in_every_dtype[i].name, in_every_dtype[i].rank,
                                      in_every_dtype[i].shape, &s));
        assert_ptr_equal(s, &list[i]);
        assert_int_equal(s->dtype, in_every_dtype[i].dtype);
        expect_values(s, s->dtype);
    }
    tsr_safetensors_close(st);
}

static void test_expect_says_what_is_wrong(void **state)
{
    (void)state;
    tsr_safetensors *st;
    KIT_OK(tsr_safetensors_open(every_dtype, &st));
    const tsr_stored *s = NULL;
    const int64_t shape[] = {3, 2};
    KIT_FAILS(TSR_ERR_FORMAT, "every_dtype.safetensors: tensor 't.f32' is [2, 3], must be [3, 2]",
              tsr_safetensors_expect(st, "t.f32", 2, shape, &s));
    KIT_FAILS(TSR_ERR_FORMAT, "tensor 't.f32' is [2, 3], must be [3]",
              tsr_safetensors_expect(st, "t.f32", 1, shape, &s));
    KIT_FAILS(TSR_ERR_FORMAT, "tensor 'other' is missing, must be [3, 2]",
              tsr_safetensors_expect(st, "other", 2, shape, &s));
    assert_null(s);
    assert_null(tsr_safetensors_find(st, "t"));
    assert_null(tsr_safetensors_find(st, "__metadata__"));
    tsr_safetensors_close(st);
    tsr_safetensors_close(NULL);
}

/* Our writer, given the tensors in another order, gives the reference implementation's bytes. */
static void test_writes_as_the_reference_does(void **state)
{
    (void)state;
    double memory[N_EVERY][8];
    tsr_named_tensor list[N_EVERY];
    for (int i = 0; i < N_EVERY; i++) {
        tsr_tensor t = {.data = memory[i], .dtype = in_every_dtype[i].dtype, .rank = in_every_dtype[i].rank};
        for (int64_t j = 0; j < 8; j++) tsr_store_f64(memory[i], t.dtype, j, value_at(t.dtype, j));
        for (int32_t d = t.rank - 1, stride = 1; d >= 0; d--) {
            t.shape[d] = in_every_dtype[i].shape[d], t.stride[d] = stride;
            stride *= (int32_t)t.shape[d];
        }
        list[i] = (tsr_named_tensor){in_every_dtype[i].name, t};
    }
    const char *path = kit_path("written.safetensors");
    KIT_OK(tsr_safetensors_write(path, list, N_EVERY, NULL, NULL));
    size_t nbytes, expected_nbytes;
    char *written = kit_read_file(path, &nbytes), *expected = kit_read_file(every_dtype, &expected_nbytes);
    assert_int_equal(nbytes, expected_nbytes);
    assert_memory_equal(written, expected, nbytes);
    free(written);
    free(expected);
    KIT_OK(tsr_safetensors_write(path, NULL, 0, NULL, NULL)); /* no tensors at all */
    tsr_safetensors *st;
    KIT_OK(tsr_safetensors_open(path, &st));
    tsr_safetensors_close(st);
}

static tsr_status give(void *user, size_t i, tsr_tensor *out)
{
    *out = ((const tsr_tensor *)user)[i];
    return TSR_OK;
}

/* Tensors on a device come through a source, as host views of any strides, one at a time. */
static void test_writes_from_a_source(void **state)
{
    (void)state;
    float x[6] = {-5, -2, -4, -1, -3, 0}; /* element i of its transpose is i - 5 */
    int8_t y[3] = {-5, -4, -3};
    const tsr_tensor stored_x = tsr_tensor_2d(x, TSR_F32, 3, 2);
    tsr_tensor views[2] = {tsr_tensor_1d(y, TSR_S8, 3), tsr_tensor_transpose(&stored_x, 0, 1)};
    tsr_named_tensor list[2] = {{"y", views[0]}, {"x", tsr_tensor_2d(x, TSR_F32, 2, 3)}};
    list[0].tensor.device = list[1].tensor.device = TSR_DEVICE_FENCED;
    const char *path = kit_path("source.safetensors");
    KIT_OK(tsr_safetensors_write(path, list, 2, give, views));
    tsr_safetensors *st;
    KIT_OK(tsr_safetensors_open(path, &st));
    const tsr_stored *s;
    KIT_OK(tsr_safetensors_expect(st, "x", 2, (const int64_t[]){2, 3}, &s));
    expect_values(s, TSR_F32);
    KIT_OK(tsr_safetensors_expect(st, "y", 1, (const int64_t[]){3}, &s));
    expect_values(s, TSR_S8);
    tsr_safetensors_close(st);

    KIT_FAILS(TSR_ERR_DEVICE, "host memory", tsr_safetensors_write(path, list, 2, NULL, NULL));
    views[1] = stored_x;
    KIT_FAILS(TSR_ERR_SHAPE, "tensor 'x': its source gave f32 [3, 2], must be f32 [2, 3]",
              tsr_safetensors_write(path, list, 2, give, views));
    KIT_OK(tsr_safetensors_open(path, &st)); /* the file of before */
    tsr_safetensors_close(st);
}

static void test_writing_refuses(void **state)
{
    (void)state;
    float x[2] = {0};
    const char *path = kit_path("refused.safetensors");
    tsr_named_tensor list[2] = {{"a", tsr_tensor_1d(x, TSR_F32, 2)}, {"a", tsr_tensor_1d(x, TSR_F32, 1)}};
    KIT_FAILS(TSR_ERR_ARGUMENT, "the name 'a' is taken", tsr_safetensors_write(path, list, 2, NULL, NULL));
    list[1].name = "__metadata__";
    KIT_FAILS(TSR_ERR_ARGUMENT, "the name '__metadata__' is taken",
              tsr_safetensors_write(path, list, 2, NULL, NULL));
    list[1].name = "\xff";
    KIT_FAILS(TSR_ERR_ARGUMENT, "no valid UTF-8", tsr_safetensors_write(path, list, 2, NULL, NULL));
    list[1].name = NULL;
    KIT_FAILS(TSR_ERR_ARGUMENT, "tensor 1 has no name", tsr_safetensors_write(path, list, 2, NULL, NULL));
    list[1].name = "b", list[1].tensor.data = NULL;
    KIT_FAILS(TSR_ERR_ARGUMENT, "b has no data", tsr_safetensors_write(path, list, 2, NULL, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "path is NULL", tsr_safetensors_write(NULL, list, 1, NULL, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "list is NULL", tsr_safetensors_write(path, NULL, 1, NULL, NULL));
    assert_int_not_equal(access(path, F_OK), 0);
}

static int write_too_much(const void *path)
{
    static float x[100000];
    const tsr_named_tensor list[] = {{"x", tsr_tensor_1d(x, TSR_F32, 100000)}};
    const tsr_status status = tsr_safetensors_write(path, list, 1, NULL, NULL);
    return status == TSR_ERR_IO && strstr(tsr_last_error(), "File too large") != NULL ? 0 : 1;
}

static void test_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = kit_path("full.safetensors");
    kit_write_file(path, "old", 3);
    kit_on_full_disk(100000, write_too_much, path);
    char *content = kit_read_file(path, NULL);
    assert_string_equal(content, "old");
    free(content);
    assert_int_not_equal(access(kit_path("full.safetensors.tessera-tmp"), F_OK), 0);
}

/* A file in memory of its exact size; `lie` is added to the stated length of the header. */
static tsr_status parse(const char *header, size_t element_nbytes, int64_t lie)
{
    const uint64_t n = strlen(header), stated = n + (uint64_t)lie;
    unsigned char *data = calloc(1, 8 + n + element_nbytes);
    assert_non_null(data);
    memcpy(data, &stated, 8);
    for (uint64_t i = 0; i < n; i++) data[8 + i] = (unsigned char)header[i];
    tsr_safetensors *st = NULL;
    const tsr_status status = tsr_safetensors_parse("x", data, 8 + n + element_nbytes, &st);
    assert_true((st != NULL) == (status == TSR_OK));
    tsr_safetensors_close(st);
    free(data);
    return status;
}

static void refuse(const char *words, const char *header, size_t element_nbytes)
{
    KIT_FAILS(TSR_ERR_FORMAT, words, parse(header, element_nbytes, 0));
}

static void test_accepts(void **state)
{
    (void)state;
    KIT_OK(parse("{}", 0, 0));
    KIT_OK(parse("{}       ", 0, 0));
    KIT_OK(parse("{\"__metadata__\":{\"a\":\"b\"}}", 0, 0));
    KIT_OK(parse("{\"a\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[2,5]},"
                 "\"b\":{\"data_offsets\":[0,2],\"shape\":[1],\"dtype\":\"F16\"}}",
                 5, 0));
    KIT_OK(parse("{\"a\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[2,2]},"
                 "\"b\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]},"
                 "\"c\":{\"dtype\":\"I8\",\"shape\":[9,0,9],\"data_offsets\":[0,0]}}",
                 2, 0));
}

static void test_refuses_headers(void **state)
{
    (void)state;
    KIT_FAILS(TSR_ERR_FORMAT, "says to have 3 bytes; the file has 2 left", parse("{}", 0, 1));
    KIT_FAILS(TSR_ERR_FORMAT, "says to have 18446744073709551615 bytes", parse("{}", 0, -3));
    KIT_FAILS(TSR_ERR_FORMAT, "says to have 9223372036854775807 bytes", parse("{}", 0, INT64_MAX - 2));
    KIT_FAILS(TSR_ERR_FORMAT, "does not start with '{'", parse("{}", 0, -2));
    refuse("does not start with '{'", " {}", 0);
    refuse("does not start with '{'", "[]", 0);
    refuse("x, line 1", "{} {}", 0);
    refuse("x, line 1", "{\"a\":", 0);
    refuse("x, line 1", "{\"\xff\":{}}", 0);
    refuse("duplicate object key", "{\"a\":{},\"a\":{}}", 0);
    refuse("duplicate object key",
           "{\"a\":{\"dtype\":\"I8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuse("__metadata__ is an array", "{\"__metadata__\":[]}", 0);
    refuse("__metadata__: a is an integer, must be a string", "{\"__metadata__\":{\"a\":1}}", 0);
    refuse("the last 5 bytes belong to no tensor", "{}", 5);
    tsr_safetensors *st;
    for (size_t n = 0; n < 8; n++)
        KIT_FAILS(TSR_ERR_FORMAT, "too few", tsr_safetensors_parse("x", "\2\0\0\0\0\0\0", n, &st));
}

/* One tensor over 8 bytes of elements. */
static void refuse_entry(const char *words, const char *entry)
{
    char header[1000];
    snprintf(header, sizeof header, "{\"name\":%s}", entry);
    refuse(words, header, 8);
}

static void test_refuses_entries(void **state)
{
    (void)state;
#define ENTRY(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    refuse_entry("x: tensor 'name' must have dtype, shape and data_offsets", "[]");
    refuse_entry("tensor 'name' must have dtype, shape and data_offsets",
                 "{\"dtype\":\"F32\",\"shape\":[2]}");
    refuse_entry("and nothing else", "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"extra\":0}");
    refuse_entry("tensor 'name': data_offsets is missing", "{\"dtype\":\"F32\",\"shape\":[2],\"extra\":0}");
    refuse_entry("dtype is an integer, must be a string", ENTRY("7", "[2]", "[0,8]"));
    refuse_entry("dtype is F8_E4M3, must be F32", ENTRY("\"F8_E4M3\"", "[8]", "[0,8]"));
    refuse_entry("dtype is f32, must be F32", ENTRY("\"f32\"", "[2]", "[0,8]"));
    refuse_entry("shape is an integer, must be an array", ENTRY("\"F32\"", "2", "[0,8]"));
    refuse_entry("has 5 dimensions", ENTRY("\"F32\"", "[1,1,1,1,2]", "[0,8]"));
    refuse_entry("extent 1 of its shape is no size", ENTRY("\"F32\"", "[2,-1]", "[0,8]"));
    refuse_entry("extent 0 of its shape is no size", ENTRY("\"F32\"", "[2.0]", "[0,8]"));
    refuse_entry("extent 0 of its shape is no size", ENTRY("\"F32\"", "[null]", "[0,8]"));
    refuse_entry("its shape is too large", ENTRY("\"F32\"", "[4611686018427387904,2]", "[0,8]"));
    refuse_entry("its shape is too large", ENTRY("\"F64\"", "[2305843009213693952]", "[0,0]"));
    refuse_entry("its shape is too large", ENTRY("\"I8\"", "[4294967296,4294967296]", "[0,0]"));
    refuse_entry("integer", ENTRY("\"F32\"", "[18446744073709551618]", "[0,8]"));
    refuse_entry("data_offsets must be two integers", ENTRY("\"F32\"", "[2]", "[0]"));
    refuse_entry("data_offsets must be two integers", ENTRY("\"F32\"", "[2]", "[0,8,8]"));
    refuse_entry("data_offsets must be two integers", ENTRY("\"F32\"", "[2]", "[0,8.0]"));
    refuse_entry("data_offsets are 0 to 9, the file has 8 bytes", ENTRY("\"I8\"", "[9]", "[0,9]"));
    refuse_entry("data_offsets are -8 to 0", ENTRY("\"F32\"", "[2]", "[-8,0]"));
    refuse_entry("data_offsets are 8 to 0", ENTRY("\"F32\"", "[2]", "[8,0]"));
    refuse_entry("data_offsets are 9223372036854775800 to 9223372036854775807",
                 ENTRY("\"I8\"", "[7]", "[9223372036854775800,9223372036854775807]"));
    refuse_entry("has 8 bytes, must have 12", ENTRY("\"F32\"", "[3]", "[0,8]"));
    refuse_entry("has 8 bytes, must have 4", ENTRY("\"F32\"", "[]", "[0,8]"));
    refuse_entry("the last 4 bytes belong to no tensor", ENTRY("\"F32\"", "[1]", "[0,4]"));
    refuse_entry("bytes 0 to 4, before tensor 'name', belong to no tensor", ENTRY("\"F32\"", "[1]", "[4,8]"));
#define TWO(first, second) "{\"a\":" first ",\"b\":" second "}"
    refuse("tensor 'b' shares bytes with tensor 'a'",
           TWO(ENTRY("\"I8\"", "[5]", "[0,5]"), ENTRY("\"I8\"", "[4]", "[4,8]")), 8);
    refuse("tensor 'b' shares bytes with tensor 'a'",
           TWO(ENTRY("\"I8\"", "[8]", "[0,8]"), ENTRY("\"I8\"", "[0]", "[3,3]")), 8);
    refuse("shares bytes with", TWO(ENTRY("\"I8\"", "[8]", "[0,8]"), ENTRY("\"F64\"", "[]", "[0,8]")), 8);
    refuse("bytes 3 to 4, before tensor 'a'",
           TWO(ENTRY("\"I8\"", "[4]", "[4,8]"), ENTRY("\"I8\"", "[3]", "[0,3]")), 8);
#undef TWO
#undef ENTRY
}

static void test_refuses_truncated(void **state)
{
    (void)state;
    size_t nbytes;
    char *whole = kit_read_file(every_dtype, &nbytes);
    for (size_t n = 0; n < nbytes; n++) {
        char *part = malloc(n + 1);
        memcpy(part, whole, n);
        tsr_safetensors *st;
        assert_int_equal(tsr_safetensors_parse("part", part, n, &st), TSR_ERR_FORMAT);
        free(part);
    }
    free(whole);
}

/* Every pair of float types, at an odd address, over more than one piece of the conversion. */
static void test_converts_unaligned(void **state)
{
    (void)state;
    enum { N = 3000 };
    static const tsr_dtype floats[] = {TSR_F32, TSR_F64, TSR_BF16, TSR_F16};
    static double source[N + 1], got[N];
    for (int from = 0; from < 4; from++) {
        const size_t nbytes = tsr_dtype_nbytes(floats[from]);
        unsigned char *odd = (unsigned char *)source + 1;
        for (int64_t i = 0; i < N; i++) {
            double element;
            tsr_store_f64(&element, floats[from], 0, ((double)i - 1500.3) * 1.7);
            memcpy(odd + (size_t)i * nbytes, &element, nbytes);
        }
        const tsr_stored s = {.name = "t", .dtype = floats[from], .data = odd, .nbytes = N * nbytes};
        for (int to = 0; to < 4; to++) {
            KIT_OK(tsr_stored_read(&s, floats[to], got));
            for (int64_t i = 0; i < N; i++) {
                double stored, expected;
                memcpy(&stored, odd + (size_t)i * nbytes, nbytes);
                tsr_store_f64(&expected, floats[to], 0, tsr_load_f64(&stored, floats[from], 0));
                assert_true(tsr_load_f64(got, floats[to], i) == tsr_load_f64(&expected, floats[to], 0));
            }
        }
        KIT_FAILS(TSR_ERR_DTYPE, "cannot be read as i32", tsr_stored_read(&s, TSR_I32, got));
    }
    const tsr_stored truths = {
        .name = "t", .dtype = TSR_BOOL, .data = (const unsigned char *)"\0\1\2", .nbytes = 3};
    uint8_t truth[3];
    KIT_OK(tsr_stored_read(&truths, TSR_BOOL, truth));
    assert_memory_equal(truth, "\0\1\1", 3);
    KIT_FAILS(TSR_ERR_DTYPE, "tensor 't' is bool, cannot be read as f32",
              tsr_stored_read(&truths, TSR_F32, got));
}

static void test_reads_shards(void **state)
{
    (void)state;
    const char *const paths[] = {sharded, TSR_FIXTURES "/format/sharded/model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        tsr_safetensors *st;
        KIT_OK(tsr_safetensors_open(paths[i], &st));
        size_t n;
        const tsr_stored *list = tsr_safetensors_list(st, &n);
        assert_int_equal(n, 3);
        static const char *const names[] = {"a", "b", "c"};
        for (size_t j = 0; j < n; j++) {
            assert_string_equal(list[j].name, names[j]);
            expect_values(&list[j], list[j].dtype);
        }
        tsr_safetensors_close(st);
    }
}

/* A folder of its own with shards s0 (tensor "a") and s1 ("b"), and an index of the given map. */
static void refuse_index(const char *words, tsr_status status, const char *weight_map)
{
    static const char header[] = "{\"%c\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]}}";
    const char *folder = kit_path("shards");
    mkdir(folder, 0700);
    for (int i = 0; i < 2; i++) {
        char name[32], content[120];
        const size_t n = (size_t)snprintf(content + 8, sizeof content - 8, header, 'a' + i);
        for (int byte = 0; byte < 8; byte++) content[byte] = (char)((uint64_t)n >> (8 * byte));
        memset(content + 8 + n, 1, 4);
        snprintf(name, sizeof name, "s%d.safetensors", i);
        kit_write_file(kit_path_in(folder, name), content, 8 + n + 4);
    }
    char text[1000];
    snprintf(text, sizeof text, "{\"weight_map\":%s}", weight_map);
    kit_write_file(kit_path_in(folder, "model.safetensors.index.json"), text, strlen(text));
    tsr_safetensors *st = NULL;
    if (status == TSR_OK) {
        KIT_OK(tsr_safetensors_open(folder, &st));
        tsr_safetensors_close(st);
    } else {
        KIT_FAILS(status, words, tsr_safetensors_open(folder, &st));
    }
}

static void test_refuses_indices(void **state)
{
    (void)state;
#define S0 "\"s0.safetensors\""
#define S1 "\"s1.safetensors\""
    refuse_index("", TSR_OK, "{\"a\":" S0 ",\"b\":" S1 "}");
    refuse_index("", TSR_OK, "{\"a\":" S0 "}"); /* what the index does not name is not opened */
    refuse_index("weight_map is an array", TSR_ERR_FORMAT, "[]");
    refuse_index("weight_map is empty", TSR_ERR_FORMAT, "{}");
    refuse_index("duplicate object key", TSR_ERR_FORMAT, "{\"a\":" S0 ",\"a\":" S1 "}");
    refuse_index("tensor 'c' is not in s0.safetensors, where the index lists it", TSR_ERR_FORMAT,
                 "{\"a\":" S0 ",\"c\":" S0 "}");
    refuse_index("s0.safetensors holds tensor 'a', which the index does not list there", TSR_ERR_FORMAT,
                 "{\"x\":" S0 ",\"b\":" S1 "}");
    refuse_index("s0.safetensors holds tensor 'a', which the index does not list there", TSR_ERR_FORMAT,
                 "{\"b\":" S0 ",\"a\":" S1 "}");
    refuse_index("s7.safetensors cannot be opened: No such file", TSR_ERR_IO, "{\"a\":\"s7.safetensors\"}");
    static const char *const outside[] = {
        "\"../s0.safetensors\"",
        "\"/tmp/s0.safetensors\"",
        "\"x/s0.safetensors\"",
        "\"..\"",
        "\".safetensors\"",
        "\"\"",
        "\"a\\\\b.safetensors\"",
        "\"s0.safetensors\\u0007.safetensors\"",
        "\"/dev/zero\"",
        "7",
        "null",
    };
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char map[200];
        snprintf(map, sizeof map, "{\"a\":%s}", outside[i]);
        refuse_index("must be in a .safetensors file of the same folder", TSR_ERR_FORMAT, map);
    }
#undef S0
#undef S1
}

static void test_refuses_what_is_no_file(void **state)
{
    (void)state;
    const char *folder = kit_path("strange"), *fifo = kit_path("strange/fifo.safetensors");
    const char *single = kit_path("strange/model.safetensors");
    const char *index = kit_path("strange/model.safetensors.index.json");
    tsr_safetensors *st;
    assert_int_equal(mkdir(folder, 0700), 0);
    KIT_FAILS(TSR_ERR_IO, "strange holds neither model.safetensors nor model.safetensors.index.json",
              tsr_safetensors_open(folder, &st));
    assert_int_equal(mkfifo(fifo, 0600), 0);
    KIT_FAILS(TSR_ERR_IO, "is a FIFO", tsr_safetensors_open(fifo, &st));
    kit_write_file(index, "{\"weight_map\":{\"a\":\"fifo.safetensors\"}}", 39);
    KIT_FAILS(TSR_ERR_IO, "fifo.safetensors is a FIFO", tsr_safetensors_open(folder, &st));
    assert_int_equal(mkdir(single, 0700), 0);
    KIT_FAILS(TSR_ERR_IO, "model.safetensors is a directory", tsr_safetensors_open(folder, &st));
    KIT_FAILS(TSR_ERR_IO, "nothing cannot be opened", tsr_safetensors_open(kit_path("nothing"), &st));
    KIT_FAILS(TSR_ERR_ARGUMENT, "NULL", tsr_safetensors_open(NULL, &st));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_dtype),
        cmocka_unit_test(test_expect_says_what_is_wrong),
        cmocka_unit_test(test_writes_as_the_reference_does),
        cmocka_unit_test(test_writes_from_a_source),
        cmocka_unit_test(test_writing_refuses),
        cmocka_unit_test(test_full_disk_keeps_the_old_file),
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses_headers),
        cmocka_unit_test(test_refuses_entries),
        cmocka_unit_test(test_refuses_truncated),
        cmocka_unit_test(test_converts_unaligned),
        cmocka_unit_test(test_reads_shards),
        cmocka_unit_test(test_refuses_indices),
        cmocka_unit_test(test_refuses_what_is_no_file),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
