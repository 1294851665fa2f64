/*
 * check_npy.c - .npy files: NumPy's own are read and written alike, those that lie are refused
 *
 * tests/fixtures/format/ is made by tools/make_fixtures_format.py: element i, in C order, is
 * i - 5; of a bool array it is i % 3 == 0.
 */
#define _DEFAULT_SOURCE
#include "kit/kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dtype.h"
#include "base/tensor.h"
#include "format/npy.h"
#include "kit/files.h"

static const char *fixture(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/format/%s.npy", TSR_FIXTURES, name);
    return path;
}

static double value_at(tsr_dtype dtype, int64_t i)
{
    return dtype == TSR_BOOL ? i % 3 == 0 : (double)(i - 5);
}

/* Every element by its index, through the strides. */
static void expect_values(const char *name, const tsr_tensor *t)
{
    int64_t index[TSR_MAX_RANK] = {0};
    for (int64_t i = 0; i < tsr_tensor_numel(t); i++) {
        const double got = tsr_load_f64(t->data, t->dtype, tsr_tensor_offset(t, index));
        if (got != value_at(t->dtype, i))
            fail_msg("%s: element %lld is %g, must be %g", name, (long long)i, got, value_at(t->dtype, i));
        for (int32_t d = t->rank - 1; d >= 0 && ++index[d] == t->shape[d]; d--) index[d] = 0;
    }
}

static const struct {
    const char *name;
    tsr_dtype dtype;
    const char *shape;
    bool written_alike; /* version 1, C order: our writer gives the same bytes */
} good[] = {
    {"float32_c", TSR_F32, "[2, 3, 4]", true},
    {"float32_f", TSR_F32, "[2, 3, 4]", false},
    {"float64_c", TSR_F64, "[2, 3, 4]", true},
    {"float64_f", TSR_F64, "[2, 3, 4]", false},
    {"float16_c", TSR_F16, "[2, 3, 4]", true},
    {"float16_f", TSR_F16, "[2, 3, 4]", false},
    {"int8_c", TSR_S8, "[2, 3, 4]", true},
    {"int8_f", TSR_S8, "[2, 3, 4]", false},
    {"int32_c", TSR_I32, "[2, 3, 4]", true},
    {"int32_f", TSR_I32, "[2, 3, 4]", false},
    {"int64_c", TSR_I64, "[2, 3, 4]", true},
    {"int64_f", TSR_I64, "[2, 3, 4]", false},
    {"bool_c", TSR_BOOL, "[2, 3, 4]", true},
    {"bool_f", TSR_BOOL, "[2, 3, 4]", false},
    {"version2", TSR_F32, "[5, 2]", false},
    {"version3", TSR_F32, "[5, 2]", false},
    {"rank0", TSR_F32, "[]", true},
    {"rank1", TSR_I32, "[7]", true},
    {"rank4", TSR_S8, "[2, 1, 3, 2]", true},
    {"empty", TSR_F32, "[3, 0]", true},
};

static void test_numpys_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        tsr_npy npy;
        KIT_OK(tsr_npy_read(fixture(good[i].name), &npy));
        assert_int_equal(npy.tensor.dtype, good[i].dtype);
        assert_string_equal(tsr_shape_of(&npy.tensor).text, good[i].shape);
        assert_int_equal((uintptr_t)npy.tensor.data % 64, 0);
        expect_values(good[i].name, &npy.tensor);

        const char *path = kit_path("written.npy");
        size_t expected_nbytes, nbytes;
        KIT_OK(tsr_npy_write(path, &npy.tensor));
        tsr_npy_release(&npy);
        char *expected = kit_read_file(fixture(good[i].name), &expected_nbytes);
        char *written = kit_read_file(path, &nbytes);
        if (good[i].written_alike) {
            assert_int_equal(nbytes, expected_nbytes);
            assert_memory_equal(written, expected, nbytes);
        }
        free(expected);
        free(written);
        KIT_OK(tsr_npy_read(path, &npy));
        assert_string_equal(tsr_shape_of(&npy.tensor).text, good[i].shape);
        assert_true(tsr_tensor_is_contiguous(&npy.tensor));
        expect_values(good[i].name, &npy.tensor);
        tsr_npy_release(&npy);
    }
}

static void test_fortran_order_shows_in_strides(void **state)
{
    (void)state;
    tsr_npy npy;
    KIT_OK(tsr_npy_read(fixture("float32_f"), &npy));
    const int64_t stride[3] = {1, 2, 6};
    assert_memory_equal(npy.tensor.stride, stride, sizeof stride);
    tsr_npy_release(&npy);
    assert_null(npy.file.data);
}

static void test_refuses_other_dtypes_by_name(void **state)
{
    (void)state;
    tsr_npy npy;
    KIT_FAILS(TSR_ERR_FORMAT, "a big-endian dtype, '>f4', must be '<f4'",
              tsr_npy_read(fixture("big_endian"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "an object dtype, '|O'", tsr_npy_read(fixture("object"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "a structured dtype", tsr_npy_read(fixture("structured"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "a structured or void dtype, '|V2'", tsr_npy_read(fixture("void"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "an unsupported dtype, '|u1'", tsr_npy_read(fixture("uint8"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "an unsupported dtype, '<c8'", tsr_npy_read(fixture("complex"), &npy));
    KIT_FAILS(TSR_ERR_FORMAT, "more than 4 dimensions", tsr_npy_read(fixture("rank5"), &npy));
}

static void test_refuses_what_is_no_file(void **state)
{
    (void)state;
    tsr_npy npy;
    const char *fifo = kit_path("fifo.npy");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    KIT_FAILS(TSR_ERR_IO, "fifo.npy is a FIFO", tsr_npy_read(fifo, &npy));
    KIT_FAILS(TSR_ERR_IO, "is a directory", tsr_npy_read(kit_folder(), &npy));
    KIT_FAILS(TSR_ERR_IO, "none.npy cannot be opened", tsr_npy_read(kit_path("none.npy"), &npy));
    KIT_FAILS(TSR_ERR_ARGUMENT, "NULL", tsr_npy_read(NULL, &npy));
}

/* A file in memory of its exact size: version, the header's text, then elements. `lie` is added to the
 * header's stated length. Returns the parse's status. */
static tsr_status parse(int version, const char *header, size_t element_nbytes, int64_t lie, tsr_tensor *out)
{
    const size_t n = strlen(header), start = version == 1 ? 10 : 12, nbytes = start + n + element_nbytes;
    unsigned char *data = NULL;
    assert_int_equal(posix_memalign((void **)&data, 64, nbytes), 0);
    memset(data, 7, nbytes);
    memcpy(data, "\x93NUMPY", 6);
    data[6] = (unsigned char)version, data[7] = 0;
    const uint64_t length = (uint64_t)((int64_t)n + lie);
    memcpy(data + 8, &length, start - 8);
    memcpy(data + start, header, n);
    const tsr_status status = tsr_npy_parse("x.npy", data, nbytes, out);
    if (status == TSR_OK && element_nbytes > 0)
        assert_true((uintptr_t)out->data % 64 == 0 &&
                    *(unsigned char *)out->data == (out->dtype == TSR_BOOL ? 1 : 7));
    free(data);
    return status;
}

static void accept(const char *header, size_t element_nbytes, const char *shape)
{
    for (int version = 1; version <= 3; version++) {
        tsr_tensor t;
        KIT_OK(parse(version, header, element_nbytes, 0, &t));
        assert_string_equal(tsr_shape_of(&t).text, shape);
    }
}

static void refuse(const char *words, const char *header, size_t element_nbytes)
{
    for (int version = 1; version <= 3; version++) {
        tsr_tensor t = {.rank = 77};
        KIT_FAILS(TSR_ERR_FORMAT, words, parse(version, header, element_nbytes, 0, &t));
        assert_int_equal(t.rank, 77);
    }
}

static void test_spellings_of_the_header(void **state)
{
    (void)state;
    accept("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, "[2, 3]");
    accept("{'shape':(2,3),'fortran_order':True,'descr':'<f4'}", 24, "[2, 3]");
    accept("{\"descr\": \"<f4\", 'fortran_order': False, 'shape': ( 2 , 3 , ) }   \n\n", 24, "[2, 3]");
    accept("{'descr': '<i1', 'fortran_order': False, 'shape': (3,)}", 3, "[3]");
    accept("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", 3, "[3]");
    accept("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", 8, "[]");
    accept("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000)}", 0, "[0, 1000000000000]");
}

static void test_refuses_headers(void **state)
{
    (void)state;
#define REST ", 'fortran_order': False, 'shape': (2,)}"
    refuse("'{' must stand", "", 8);
    refuse("'{' must stand", "[]", 8);
    refuse("lacks the key 'descr'", "{}", 8);
    refuse("lacks the key 'shape'", "{'descr': '<f4', 'fortran_order': False}", 8);
    refuse("a second key 'descr'", "{'descr': '<f4', 'descr': '<f4'" REST, 8);
    refuse("an unknown key 'extra'", "{'extra': 1, 'descr': '<f4'" REST, 8);
    refuse("a key must stand", "{descr: '<f4'" REST, 8);
    refuse("':' must stand", "{'descr' '<f4'" REST, 8);
    refuse("',' or '}' must stand", "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", 8);
    refuse("a dtype must stand", "{'descr': 4" REST, 8);
    refuse("a dtype must stand", "{'descr': '<f4", 8);
    refuse("a dtype must stand", "{'descr': '\\x3cf4'" REST, 8);
    refuse("structured", "{'descr': [('a', '<f4')]" REST, 8);
    refuse("structured", "{'descr': ('<f4', (2,))" REST, 8);
    refuse("big-endian", "{'descr': '>f4'" REST, 8);
    refuse("object", "{'descr': 'O'" REST, 8);
    refuse("unsupported dtype, ''", "{'descr': ''" REST, 8);
    refuse("unsupported dtype, '<f4?[1m'", "{'descr': '<f4\x1b[1m'" REST, 8);
    refuse("its end must stand", "{'descr': '<f4'" REST " x", 8);
    refuse("True or False", "{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}", 8);
    refuse("True or False", "{'descr': '<f4', 'fortran_order': Tru", 8);
#undef REST
}

static void test_refuses_shapes(void **state)
{
    (void)state;
#define SHAPE(text) "{'descr': '<f4', 'fortran_order': False, 'shape': " text "}"
    refuse("the shape must stand", SHAPE("2"), 8);
    refuse("the shape must stand", SHAPE("[2]"), 8);
    refuse("(3,)", SHAPE("(2)"), 8);
    refuse("an extent of the shape", SHAPE("(-2,)"), 8);
    refuse("an extent of the shape", SHAPE("(,)"), 8);
    refuse("an extent of the shape", SHAPE("(2,,3)"), 24);
    refuse("',' or ')'", SHAPE("(2 3)"), 24);
    refuse("',' or ')'", SHAPE("(2.0,)"), 8);
    refuse("',' or ')'", SHAPE("(2"), 8);
    refuse("more than 4 dimensions", SHAPE("(1, 1, 1, 1, 1)"), 4);
    refuse("does not fit in 63 bits", SHAPE("(9223372036854775808,)"), 8);
    refuse("does not fit in 63 bits", SHAPE("(99999999999999999999999999,)"), 8);
    refuse("too large", SHAPE("(4294967296, 4294967296)"), 0);
    refuse("too large", SHAPE("(9223372036854775807,)"), 8);
    refuse("too large", SHAPE("(2305843009213693952, 2)"), 0);
    refuse("too large", SHAPE("(0, 4294967296, 4294967296)"), 0);
    refuse("[2] of f32 needs 8 bytes of elements, the file has 7", SHAPE("(2,)"), 7);
    refuse("[2] of f32 needs 8 bytes of elements, the file has 9", SHAPE("(2,)"), 9);
    refuse("[1000000000000] of f32 needs 4000000000000 bytes", SHAPE("(1000000000000,)"), 8);
#undef SHAPE
}

static void test_refuses_lengths_that_lie(void **state)
{
    (void)state;
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n";
    tsr_tensor t;
    KIT_FAILS(TSR_ERR_FORMAT, "says to have 65 bytes, the file has 64 left", parse(1, header, 8, 9, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "says to have 4294967295 bytes", parse(2, header, 8, UINT32_MAX - 56, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "its end must stand", parse(1, header, 8, 3, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "',' or '}' must stand", parse(3, header, 8, -2, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "version 4.0, must be 1.0, 2.0 or 3.0", parse(4, header, 8, 0, &t));
    KIT_FAILS(TSR_ERR_FORMAT, "version 0.0", parse(0, header, 8, 0, &t));

    size_t nbytes;
    char *whole = kit_read_file(fixture("version2"), &nbytes);
    for (size_t n = 0; n < nbytes; n++) {
        char *part = malloc(n + 1); /* malloc(0) may be NULL */
        memcpy(part, whole, n);
        assert_int_equal(tsr_npy_parse("part", part, n, &t), TSR_ERR_FORMAT);
        free(part);
    }
    free(whole);
    KIT_FAILS(TSR_ERR_FORMAT, "is not a .npy file", tsr_npy_parse("x", "PK\3\4aaaaaaaa", 12, &t));
}

static int write_too_much(const void *path)
{
    static float x[100][300];
    const tsr_tensor t = tsr_tensor_2d(x, TSR_F32, 100, 300), transposed = tsr_tensor_transpose(&t, 0, 1);
    if (tsr_npy_write(path, &t) != TSR_ERR_IO) return 1;
    return tsr_npy_write(path, &transposed) == TSR_ERR_IO ? 0 : 2;
}

static void test_writing_refuses(void **state)
{
    (void)state;
    const char *path = kit_path("kept.npy");
    uint16_t x[4] = {0};
    tsr_tensor t = tsr_tensor_1d(x, TSR_F16, 4);
    KIT_OK(tsr_npy_write(path, &t));
    size_t nbytes, nbytes_now;
    char *before = kit_read_file(path, &nbytes);

    kit_on_full_disk(100000, write_too_much, path);
    t.dtype = TSR_BF16;
    KIT_FAILS(TSR_ERR_DTYPE, "bf16 has no .npy dtype", tsr_npy_write(path, &t));
    t.dtype = TSR_F16, t.device = TSR_DEVICE_FENCED;
    KIT_FAILS(TSR_ERR_DEVICE, "host memory", tsr_npy_write(path, &t));
    t.device = TSR_DEVICE_CPU, t.shape[0] = -1;
    KIT_FAILS(TSR_ERR_SHAPE, "negative", tsr_npy_write(path, &t));
    KIT_FAILS(TSR_ERR_ARGUMENT, "NULL", tsr_npy_write(path, NULL));
    t.shape[0] = 4;
    KIT_FAILS(TSR_ERR_IO, "is a directory", tsr_npy_write(kit_folder(), &t));

    char *after = kit_read_file(path, &nbytes_now);
    assert_int_equal(nbytes, nbytes_now);
    assert_memory_equal(before, after, nbytes);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numpys_files),
        cmocka_unit_test(test_fortran_order_shows_in_strides),
        cmocka_unit_test(test_refuses_other_dtypes_by_name),
        cmocka_unit_test(test_refuses_what_is_no_file),
        cmocka_unit_test(test_spellings_of_the_header),
        cmocka_unit_test(test_refuses_headers),
        cmocka_unit_test(test_refuses_shapes),
        cmocka_unit_test(test_refuses_lengths_that_lie),
        cmocka_unit_test(test_writing_refuses),
    };
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
