/* check_data.c - corpora, windows, the learning rate */
#define _GNU_SOURCE
#include "kit/kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/data.h"
#include "train/schedule.h"

static char folder[] = "/tmp/tessera-data-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text, int times)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    for (int i = 0; i < times; i++) fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) != 0;
}

/* Bytes as tokens: an eos, then one id a byte. */
static tsr_tokenizer *byte_tokenizer(void)
{
    tsr_tokenizer *t = NULL;
    const char *special[] = {"<|endoftext|>"};
    KIT_OK(tsr_tokenizer_create(special, 1, NULL, 0, &t));
    return t;
}

static void test_windows(void **state)
{
    (void)state;
    write_text("b.txt", "0123456789abcdefghi\n", 30); /* 600 bytes: the last 30 begin inside a line */
    write_text("a.txt", "x", 40);
    write_text(".hidden", "no", 1);
    assert_int_equal(symlink("a.txt", path_of("link")), 0);
    assert_int_equal(mkdir(path_of("sub"), 0700), 0);
    tsr_corpus corpus;
    KIT_OK(tsr_corpus_load(folder, &corpus));
    assert_int_equal(corpus.n_files, 2);
    assert_int_equal(corpus.train_nbytes + corpus.held_nbytes, 640);
    assert_true(corpus.held_at[0] == 38 && corpus.held_at[1] == 580); /* moved on to the last line's start */

    tsr_tokenizer *tokenizer = byte_tokenizer();
    tsr_dataset d;
    KIT_OK(tsr_dataset_create(&corpus, tokenizer, 16, &d));
    assert_int_equal(d.train.n, 1 + 38 + 1 + 580);
    assert_int_equal(d.held.n, 1 + 2 + 1 + 20);
    assert_int_equal(tsr_dataset_n_held(&d), 2);
    int32_t ids[16], targets[16];
    tsr_dataset_held_window(&d, 0, ids, targets);
    const int32_t x = tsr_tokenizer_find(tokenizer, "x", 1);
    assert_true(ids[0] == d.eos && targets[0] == x && ids[1] == x && targets[1] == x);
    assert_int_equal(targets[2], TSR_IGNORE); /* the eos between the files */
    assert_int_equal(targets[3], tsr_tokenizer_find(tokenizer, "0", 1));
    tsr_dataset_held_window(&d, 1, ids, targets);
    for (int i = 7; i < 16; i++) assert_int_equal(targets[i], TSR_IGNORE);

    tsr_random random = {.seed = 3};
    for (int i = 0; i < 500; i++) {
        tsr_dataset_train_window(&d, &random, ids, targets);
        assert_memory_equal(ids + 1, targets, 15 * sizeof *ids);
        for (int j = 0; j < 16; j++) assert_true(targets[j] >= 0);
    }
    tsr_dataset_free(&d);
    tsr_tokenizer_free(tokenizer);
    tsr_corpus_free(&corpus);
}

/* Every held-out byte is predicted exactly once, whatever the context. */
static void test_held_out_text_is_counted_once(void **state)
{
    (void)state;
    write_text("c.txt", "abcdefghijklmnopqrstuvwxyz", 100);
    tsr_tokenizer *tokenizer = byte_tokenizer();
    for (int64_t context = 1; context <= 200; context += 7) {
        tsr_corpus corpus;
        tsr_dataset d;
        KIT_OK(tsr_corpus_load(path_of("c.txt"), &corpus));
        KIT_OK(tsr_dataset_create(&corpus, tokenizer, context, &d));
        int32_t ids[200], targets[200];
        size_t counted = 0;
        for (int64_t w = 0; w < tsr_dataset_n_held(&d) + 2; w++) {
            tsr_dataset_held_window(&d, w, ids, targets);
            for (int64_t i = 0; i < context; i++) counted += targets[i] != TSR_IGNORE;
        }
        assert_int_equal(counted, d.held_nbytes);
        tsr_dataset_free(&d);
        tsr_corpus_free(&corpus);
    }
    tsr_tokenizer_free(tokenizer);
}

static void test_bad_data_is_refused(void **state)
{
    (void)state;
    tsr_corpus corpus;
    tsr_dataset d;
    KIT_FAILS(TSR_ERR_IO, "absent", tsr_corpus_load(path_of("absent"), &corpus));
    KIT_FAILS(TSR_ERR_FORMAT, "no text", tsr_corpus_load(path_of("sub"), &corpus));
    write_text("empty.txt", "", 1);
    KIT_FAILS(TSR_ERR_FORMAT, "no text", tsr_corpus_load(path_of("empty.txt"), &corpus));
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    KIT_FAILS(TSR_ERR_IO, "fifo", tsr_corpus_load(path_of("fifo"), &corpus));
    write_text("short.txt", "short", 20);
    KIT_OK(tsr_corpus_load(path_of("short.txt"), &corpus));
    tsr_tokenizer *tokenizer = byte_tokenizer();
    KIT_FAILS(TSR_ERR_FORMAT, "one context needs 257", tsr_dataset_create(&corpus, tokenizer, 256, &d));
    tsr_corpus_free(&corpus);
    tsr_tokenizer_free(tokenizer);
}

static void test_learning_rate(void **state)
{
    (void)state;
    const tsr_schedule s = {.peak = 2, .warmup = 10, .n_steps = 110};
    assert_true(tsr_schedule_lr(&s, 0) == 0.2 && tsr_schedule_lr(&s, 9) == 2);
    assert_true(fabs(tsr_schedule_lr(&s, 60) - 1.1) < 1e-12); /* half way between the peak and its tenth */
    assert_true(fabs(tsr_schedule_lr(&s, 110) - 0.2) < 1e-12 && fabs(tsr_schedule_lr(&s, 999) - 0.2) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_held_out_text_is_counted_once),
        cmocka_unit_test(test_bad_data_is_refused),
        cmocka_unit_test(test_learning_rate),
    };
    return cmocka_run_group_tests_name("data", tests, make_folder, remove_folder);
}
