/* check_file.c - only regular files are read; a file is replaced as a whole or not at all; JSON is refused
 * with its line */
#define _DEFAULT_SOURCE
#include "kit/kit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/file.h"
#include "format/json.h"
#include "format/printable.h"
#include "kit/files.h"

static void expect_content(const char *path, const char *expected)
{
    size_t nbytes;
    char *content = kit_read_file(path, &nbytes);
    assert_int_equal(nbytes, strlen(expected));
    assert_string_equal(content, expected);
    free(content);
}

static void expect_absent(const char *path) { assert_int_not_equal(access(path, F_OK), 0); }

static void test_reads_and_maps(void **state)
{
    (void)state;
    const char *path = kit_path("text"), *empty = kit_path("empty");
    kit_write_file(path, "hello", 5);
    kit_write_file(empty, "", 0);
    tsr_file f;
    KIT_OK(tsr_file_read(path, 5, &f));
    assert_int_equal(f.nbytes, 5);
    assert_int_equal((uintptr_t)f.data % 64, 0);
    assert_memory_equal(f.data, "hello", 5);
    tsr_file_release(&f);
    KIT_OK(tsr_file_map(path, &f));
    assert_memory_equal(f.data, "hello", 5);
    tsr_file_release(&f);
    KIT_OK(tsr_file_map(empty, &f));
    assert_int_equal(f.nbytes, 0);
    assert_non_null(f.data);
    tsr_file_release(&f);
    tsr_file_release(&f);
    KIT_FAILS(TSR_ERR_FORMAT, "has 5 bytes, must have at most 4", tsr_file_read(path, 4, &f));
    KIT_FAILS(TSR_ERR_IO, "absent cannot be opened", tsr_file_read(kit_path("absent"), 4, &f));
    KIT_FAILS(TSR_ERR_ARGUMENT, "NULL", tsr_file_map(NULL, &f));
}

/* Neither reading nor writing touches what is not a regular file, nor waits for it. */
static void test_refuses_what_is_no_file(void **state)
{
    (void)state;
    const char *fifo = kit_path("fifo"), *folder = kit_path("folder");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    tsr_file f;
    tsr_writer *w;
    KIT_FAILS(TSR_ERR_IO, "fifo is a FIFO, must be a regular file", tsr_file_read(fifo, 10, &f));
    KIT_FAILS(TSR_ERR_IO, "fifo is a FIFO, must be a regular file", tsr_file_map(fifo, &f));
    KIT_FAILS(TSR_ERR_IO, "folder is a directory, must be a regular file", tsr_file_read(folder, 10, &f));
    KIT_FAILS(TSR_ERR_IO, "/dev/zero is a device, must be a regular file",
              tsr_file_read("/dev/zero", 10, &f));
    KIT_FAILS(TSR_ERR_IO, "fifo is a FIFO", tsr_writer_open(fifo, &w));
    KIT_FAILS(TSR_ERR_IO, "folder is a directory", tsr_writer_open(folder, &w));
    KIT_FAILS(TSR_ERR_IO, "/dev/null is a device", tsr_writer_open("/dev/null", &w));
    KIT_FAILS(TSR_ERR_ARGUMENT, "empty", tsr_writer_open("", &w));
    KIT_FAILS(TSR_ERR_IO, "absent/file cannot be written: No such file",
              tsr_writer_open(kit_path("absent/file"), &w));
}

static void write_text(const char *path, const char *text)
{
    tsr_writer *w;
    KIT_OK(tsr_writer_open(path, &w));
    KIT_OK(tsr_writer_write(w, text, strlen(text)));
    KIT_OK(tsr_writer_commit(w));
}

static void test_replaces_on_commit_only(void **state)
{
    (void)state;
    const char *path = kit_path("replaced"), *temporary = kit_path("replaced.tessera-tmp");
    write_text(path, "old");
    expect_content(path, "old");
    assert_int_equal(chmod(path, 0640), 0);

    tsr_writer *w, *second;
    KIT_OK(tsr_writer_open(path, &w));
    KIT_OK(tsr_writer_write(w, "new", 3));
    expect_content(path, "old");
    KIT_FAILS(TSR_ERR_IO, "being written by somebody else", tsr_writer_open(path, &second));
    tsr_writer_discard(w);
    expect_content(path, "old");
    expect_absent(temporary);

    /* What a killed process left behind is used again. */
    kit_write_file(temporary, "a longer piece of an unfinished file", 36);
    write_text(path, "new");
    expect_content(path, "new");
    expect_absent(temporary);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void test_links(void **state)
{
    (void)state;
    const char *target = kit_path("target"), *link = kit_path("link"), *dangling = kit_path("dangling");
    kit_write_file(target, "old", 3);
    assert_int_equal(symlink("target", link), 0);
    assert_int_equal(symlink("nothing", dangling), 0);
    write_text(link, "new");
    expect_content(target, "new");
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    tsr_writer *w;
    KIT_FAILS(TSR_ERR_IO, "link to nothing", tsr_writer_open(dangling, &w));

    /* A temporary that is a link, to a file or a second name of one, is not followed. */
    const char *path = kit_path("plain"), *temporary = kit_path("plain.tessera-tmp");
    assert_int_equal(symlink("target", temporary), 0);
    KIT_FAILS(TSR_ERR_IO, "plain cannot be written", tsr_writer_open(path, &w));
    assert_int_equal(unlink(temporary), 0);
    assert_int_equal(linkat(AT_FDCWD, target, AT_FDCWD, temporary, 0), 0);
    KIT_FAILS(TSR_ERR_IO, "plain cannot be written", tsr_writer_open(path, &w));
    expect_content(target, "new");
}

static int write_beyond_limit(const void *path)
{
    static const char block[5000];
    tsr_writer *w;
    if (tsr_writer_open(path, &w) != TSR_OK) return 1;
    tsr_status status = TSR_OK;
    for (int i = 0; i < 60; i++) status = tsr_writer_write(w, block, sizeof block);
    if (status != TSR_ERR_IO || strstr(tsr_last_error(), "full cannot be written: File too large") == NULL)
        return 2;
    return tsr_writer_commit(w) == TSR_ERR_IO ? 0 : 3;
}

/* What fits into the writer's buffer meets the disk on commit only. */
static int commit_beyond_limit(const void *path)
{
    static const char block[5000];
    tsr_writer *w;
    if (tsr_writer_open(path, &w) != TSR_OK || tsr_writer_write(w, block, sizeof block) != TSR_OK) return 1;
    return tsr_writer_commit(w) == TSR_ERR_IO ? 0 : 2;
}

static void test_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = kit_path("full");
    kit_write_file(path, "old", 3);
    kit_on_full_disk(100000, write_beyond_limit, path);
    kit_on_full_disk(1000, commit_beyond_limit, path);
    expect_content(path, "old");
    expect_absent(kit_path("full.tessera-tmp"));
}

/* Every way that a view can lie in memory comes out in row-major order. */
static void test_writes_views(void **state)
{
    (void)state;
    int32_t x[24];
    for (int i = 0; i < 24; i++) x[i] = i;
    const tsr_tensor base = tsr_tensor_3d(x, TSR_I32, 2, 3, 4);
    tsr_tensor views[] = {
        base,
        tsr_tensor_transpose(&base, 0, 2),
        tsr_tensor_transpose(&base, 0, 1),
        tsr_tensor_slice(&base, 1, 1, 2),
        tsr_tensor_slice(&base, 2, 1, 0),
        {.data = x + 5, .dtype = TSR_I32},
        {.data = x + 23, .dtype = TSR_I32, .rank = 2, .shape = {3, 4}, .stride = {-8, -1}},
        {.data = x, .dtype = TSR_I32, .rank = 2, .shape = {3, 2}, .stride = {0, 1}},
        {.data = x, .dtype = TSR_I32, .rank = 4, .shape = {2, 3, 2, 1}, .stride = {12, 4, 1, 7}},
    };
    for (size_t v = 0; v < sizeof views / sizeof *views; v++) {
        const tsr_tensor t = views[v];
        const char *path = kit_path("view");
        tsr_writer *w;
        KIT_OK(tsr_writer_open(path, &w));
        KIT_OK(tsr_writer_tensor(w, &t));
        KIT_OK(tsr_writer_commit(w));
        size_t nbytes, n = 0;
        char *content = kit_read_file(path, &nbytes);
        int64_t shape[4] = {1, 1, 1, 1}, stride[4] = {0}; /* padded on the left */
        for (int d = 0; d < t.rank; d++)
            shape[4 - t.rank + d] = t.shape[d], stride[4 - t.rank + d] = t.stride[d];
        for (int64_t a = 0; a < shape[0]; a++)
            for (int64_t b = 0; b < shape[1]; b++)
                for (int64_t c = 0; c < shape[2]; c++)
                    for (int64_t d = 0; d < shape[3]; d++) {
                        int32_t got;
                        assert_true((n + 1) * 4 <= nbytes);
                        memcpy(&got, content + 4 * n++, 4);
                        assert_int_equal(
                            got, ((const int32_t *)
                                      t.data)[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]]);
                    }
        assert_int_equal(nbytes, 4 * n);
        free(content);
    }
    tsr_writer *w;
    KIT_OK(tsr_writer_open(kit_path("view"), &w));
    tsr_tensor elsewhere = base;
    elsewhere.device = TSR_DEVICE_FENCED;
    KIT_FAILS(TSR_ERR_DEVICE, "host memory", tsr_writer_tensor(w, &elsewhere));
    tsr_writer_discard(w);
}

static void refuse_json(const char *words, const char *text)
{
    json_t *root;
    KIT_FAILS(TSR_ERR_FORMAT, words, tsr_json_parse("x.json", text, strlen(text), &root));
}

static void test_json(void **state)
{
    (void)state;
    refuse_json("x.json, line 3: duplicate object key", "{\n\"a\": 1,\n\"a\": 2}");
    refuse_json("x.json, line 1", "");
    refuse_json("line 1", "{} {}");
    refuse_json("line 1", "{\"a\": \"\xff\"}");
    refuse_json("line 1", "{\"a\": \"\\u0000\"}");
    refuse_json("line 1", "{\"a\": 99999999999999999999}");
    refuse_json("near '?", "{\"a\": \x1b[31m}");
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    refuse_json("depth", deep);
    free(deep);

    static const char text[] =
        "{\"i\": 7, \"x\": 0.5, \"b\": true, \"s\": \"t\", \"o\": {}, \"a\": [], \"n\": null}";
    const char *path = kit_path("good.json");
    kit_write_file(path, text, strlen(text));
    json_t *root, *value = NULL;
    KIT_FAILS(TSR_ERR_FORMAT, "at most 10", tsr_json_read(path, 10, &root));
    KIT_OK(tsr_json_read(path, 1000, &root));
    int64_t i = 0;
    double x = 0;
    bool b = false;
    const char *s = NULL;
    KIT_OK(tsr_json_integer(root, "f", "i", 7, 7, &i));
    KIT_OK(tsr_json_real(root, "f", "i", 0, 10, &x));
    assert_int_equal(i, 7);
    assert_true(x == 7);
    KIT_OK(tsr_json_real(root, "f", "x", 0.5, 0.5, &x));
    KIT_OK(tsr_json_bool(root, "f", "b", &b));
    KIT_OK(tsr_json_string(root, "f", "s", &s));
    KIT_OK(tsr_json_object(root, "f", "o", &value));
    KIT_OK(tsr_json_array(root, "f", "a", &value));
    assert_true(x == 0.5 && b && strcmp(s, "t") == 0 && json_is_array(value));
    assert_true(tsr_json_has(root, "i") && !tsr_json_has(root, "n") && !tsr_json_has(root, "z"));
    KIT_FAILS(TSR_ERR_FORMAT, "f: i is 7, must be 8 to 9", tsr_json_integer(root, "f", "i", 8, 9, &i));
    KIT_FAILS(TSR_ERR_FORMAT, "f: x is 0.5, must be 1 to 2", tsr_json_real(root, "f", "x", 1, 2, &x));
    KIT_FAILS(TSR_ERR_FORMAT, "f: z is missing, must be an integer",
              tsr_json_integer(root, "f", "z", 0, 9, &i));
    KIT_FAILS(TSR_ERR_FORMAT, "f: s is a string, must be a number", tsr_json_real(root, "f", "s", 0, 9, &x));
    KIT_FAILS(TSR_ERR_FORMAT, "f: n is null, must be true or false", tsr_json_bool(root, "f", "n", &b));
    KIT_FAILS(TSR_ERR_FORMAT, "f: a is an array, must be a string", tsr_json_string(root, "f", "a", &s));
    KIT_FAILS(TSR_ERR_FORMAT, "f: b is true, must be an object", tsr_json_object(root, "f", "b", &value));
    KIT_FAILS(TSR_ERR_FORMAT, "f: o is an object, must be an array", tsr_json_array(root, "f", "o", &value));
    json_decref(root);
}

static void test_printable(void **state)
{
    (void)state;
    assert_string_equal(tsr_printable("a\n\x1b[1m\x7f\xc3\xa9").text, "a??[1m?\xc3\xa9");
    char text[200];
    memset(text, 'x', sizeof text);
    text[123] = '\xc3', text[124] = '\xa9'; /* the cut falls into this letter: it goes as a whole */
    const tsr_printable_text p = tsr_printable_n(text, sizeof text);
    assert_int_equal(strlen(p.text), 126);
    assert_string_equal(p.text + 122, "x...");
    assert_int_equal(strlen(tsr_printable_n(text, 127).text), 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_maps),
        cmocka_unit_test(test_refuses_what_is_no_file),
        cmocka_unit_test(test_replaces_on_commit_only),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_full_disk_keeps_the_old_file),
        cmocka_unit_test(test_writes_views),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_printable),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
