/*
 * check_checkpoint.c - what a run may begin with: options, directories, text, and checkpoints that lie
 *
 * Whatever is refused changes nothing; whatever fails while it is saved leaves what was there before.
 */
#define _XOPEN_SOURCE 700
#include "kit/run.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/safetensors.h"
#include "kit/model.h"

static const char *text;  /* what the runs below learn from            */
static const char *half;  /* the folder of one, stopped after step 7   */
static const char *whole; /* of the same one, unbroken                 */

static tsr_train_options options_for(const char *out)
{
    tsr_train_options o = kit_run_options(text, out);
    o.dim = 16, o.ffn = 24, o.heads = 2, o.kv_heads = 1, o.context = 16;
    return o;
}

static int make_runs(void **state)
{
    (void)state;
    text = kit_name("text"), half = kit_name("half"), whole = kit_name("whole");
    kit_write_text(text, 600, 1);
    tsr_train_options o = options_for(half);
    assert_false(kit_run(&o, 1, 7));
    o.out = whole;
    assert_true(kit_run(&o, 1, -1));
    return 0;
}

static const char *const run_files[] = {"checkpoint.safetensors", "model.safetensors", "config.json",
                                        "tokenizer.json", "tokenizer_config.json"};
enum { RUN_FILES = 5 };

/* A copy of the stopped run. */
static tsr_train_options copy_half(const char *name)
{
    tsr_train_options o = options_for(kit_name(name));
    assert_int_equal(mkdir(o.out, 0700), 0);
    for (int i = 0; i < RUN_FILES; i++) {
        size_t n;
        char *data = kit_read_file(kit_path_in(half, run_files[i]), &n);
        kit_write_file(kit_path_in(o.out, run_files[i]), data, n);
        free(data);
    }
    o.resume = true;
    return o;
}

static void expect_open_fails(tsr_status status, const char *words, const tsr_train_options *o)
{
    tsr_trainer t;
    KIT_FAILS(status, words, tsr_trainer_open(kit_cpu(), o, &t));
}

static void test_options(void **state)
{
    (void)state;
    tsr_train_options o = options_for(kit_name("refused"));
    KIT_OK(tsr_train_check_options(&o));
    const tsr_train_options defaults = tsr_train_defaults();
    KIT_FAILS(TSR_ERR_ARGUMENT, "steps and minutes are both 0", tsr_train_check_options(&defaults));
#define REFUSED(field, value, status, words)                                                                 \
    do {                                                                                                     \
        tsr_train_options changed = o;                                                                       \
        changed.field = value;                                                                               \
        expect_open_fails(status, words, &changed);                                                          \
    } while (0)
    REFUSED(vocab, 256, TSR_ERR_ARGUMENT, "vocab is 256, must be 257 to");
    REFUSED(vocab, INT64_MAX, TSR_ERR_ARGUMENT, "vocab is 9223372036854775807");
    REFUSED(dim, 0, TSR_ERR_ARGUMENT, "dim is 0");
    REFUSED(dim, 18, TSR_ERR_ARGUMENT, "dim is 18, must be an even multiple of heads, 2");
    REFUSED(layers, -1, TSR_ERR_ARGUMENT, "layers is -1");
    REFUSED(layers, INT32_MAX, TSR_ERR_ARGUMENT, "layers is 2147483647, must be 1 to 1000");
    REFUSED(heads, 3, TSR_ERR_ARGUMENT, "heads");
    REFUSED(kv_heads, 0, TSR_ERR_ARGUMENT, "kv-heads is 0");
    REFUSED(kv_heads, 3, TSR_ERR_ARGUMENT, "heads is 2, must be a multiple of kv-heads, 3");
    REFUSED(ffn, 0, TSR_ERR_ARGUMENT, "ffn is 0");
    REFUSED(context, 0, TSR_ERR_ARGUMENT, "context is 0");
    REFUSED(batch, 1 << 17, TSR_ERR_ARGUMENT, "batch is 131072");
    REFUSED(accumulate, 0, TSR_ERR_ARGUMENT, "accumulate is 0");
    REFUSED(steps, -1, TSR_ERR_ARGUMENT, "steps is -1");
    REFUSED(steps, 0, TSR_ERR_ARGUMENT, "steps and minutes are both 0");
    REFUSED(warmup, -1, TSR_ERR_ARGUMENT, "warmup is -1");
    REFUSED(n_evaluations, 0, TSR_ERR_ARGUMENT, "evaluations is 0");
    REFUSED(minutes, NAN, TSR_ERR_ARGUMENT, "minutes is");
    REFUSED(lr, INFINITY, TSR_ERR_ARGUMENT, "lr is inf, must be 0 to 10");
    REFUSED(weight_decay, -0.1, TSR_ERR_ARGUMENT, "weight-decay is -0.1");
    REFUSED(clip, NAN, TSR_ERR_ARGUMENT, "clip is");
    REFUSED(dropout, 1, TSR_ERR_ARGUMENT, "dropout is 1, must be 0 to 0.99");
    REFUSED(dtype, TSR_F64, TSR_ERR_DTYPE, "dtype is f64, must be f32 or bf16");
    REFUSED(context, 4000, TSR_ERR_FORMAT, "one context needs 4001");
    REFUSED(data, kit_path("nowhere"), TSR_ERR_IO, "nowhere");
#undef REFUSED
    assert_int_not_equal(access(o.out, F_OK), 0);
}

static void test_directories(void **state)
{
    (void)state;
    tsr_train_options o = options_for(half);
    expect_open_fails(TSR_ERR_IO, "holds a model already (checkpoint.safetensors)", &o);
    o.out = text;
    expect_open_fails(TSR_ERR_IO, "text: not a directory", &o);
    o.out = kit_name("no/such/parent");
    expect_open_fails(TSR_ERR_IO, "no/such/parent: No such file or directory", &o);
    o.resume = true;
    expect_open_fails(TSR_ERR_IO, "no/such/parent/checkpoint.safetensors", &o);
    o = copy_half("overwritten");
    o.resume = false, o.overwrite = true;
    o.seed = 9;
    assert_false(kit_run(&o, 1, 1));
    assert_int_not_equal(access(kit_path_in(o.out, "model.safetensors"), F_OK), 0); /* the old one is gone */
    assert_int_equal(access(kit_path_in(o.out, "checkpoint.safetensors"), F_OK), 0);
}

/* A run goes on with the text that it began with, and with nothing else; a refusal changes no file. */
static void test_other_text(void **state)
{
    (void)state;
    tsr_train_options o = copy_half("other-text");
    size_t n;
    char *data = kit_read_file(text, &n);
    const size_t places[] = {10, n - 10};
    for (int i = 0; i < 2; i++) {
        const char old = data[places[i]];
        data[places[i]] = '@';
        kit_write_file(kit_path("other"), data, n);
        o.data = kit_path("other");
        expect_open_fails(TSR_ERR_FORMAT, "not the text that the run in", &o);
        data[places[i]] = old;
    }
    free(data);
    for (int i = 0; i < RUN_FILES; i++) assert_true(kit_same_file(o.out, half, run_files[i]));
    o.data = text;
    assert_true(kit_run(&o, 1, -1));
    kit_expect_same_run(o.out, whole);
}

/* The tensors of the stopped run's checkpoint, to be written again with a change. */
typedef struct copied {
    tsr_safetensors *file;
    tsr_named_tensor list[8];
    size_t n;
    int64_t integers[32];
    double reals[16];
    int64_t n_integers, n_reals;
} copied;

static tsr_named_tensor *find(copied *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->list[i].name, name) == 0) return &c->list[i];
    fail_msg("no tensor '%s'", name);
    return NULL;
}

static void read_copy(copied *c)
{
    size_t n;
    KIT_OK(tsr_safetensors_open(kit_path_in(half, "checkpoint.safetensors"), &c->file));
    const tsr_stored *stored = tsr_safetensors_list(c->file, &n);
    assert_int_equal(n, 6);
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        tsr_tensor t = tsr_tensor_1d((void *)stored[i].data, stored[i].dtype, stored[i].shape[0]);
        if (stored[i].rank == 2) t = tsr_tensor_2d(t.data, t.dtype, stored[i].shape[0], stored[i].shape[1]);
        c->list[i] = (tsr_named_tensor){stored[i].name, t};
    }
    tsr_tensor *integers = &find(c, "integers")->tensor, *reals = &find(c, "reals")->tensor;
    c->n_integers = integers->shape[0], c->n_reals = reals->shape[0];
    memcpy(c->integers, integers->data, (size_t)c->n_integers * 8);
    memcpy(c->reals, reals->data, (size_t)c->n_reals * 8);
    integers->data = c->integers, reals->data = c->reals;
}

static void write_copy(const copied *c, const tsr_train_options *o)
{
    KIT_OK(tsr_safetensors_write(kit_path_in(o->out, "checkpoint.safetensors"), c->list, c->n, NULL, NULL));
}

/* Opens it: refused with a message, or at the step that it was at. */
static bool is_refused(const tsr_train_options *o)
{
    tsr_trainer t;
    const tsr_status status = tsr_trainer_open(kit_cpu(), o, &t);
    if (status == TSR_OK) {
        tsr_trainer_close(&t);
        return false;
    }
    assert_true(status == TSR_ERR_FORMAT || status == TSR_ERR_ARGUMENT || status == TSR_ERR_DTYPE);
    assert_true(strlen(tsr_last_error()) > 10);
    return true;
}

/* Every number of a checkpoint, one at a time, becomes one that no run can have. */
static void test_absurd_numbers(void **state)
{
    (void)state;
    const tsr_train_options o = copy_half("absurd");
    copied c;
    read_copy(&c);
    int accepted = 0;
    static const int64_t integers[] = {-1, INT64_MIN, INT64_MAX, INT64_C(1) << 32};
    for (int64_t i = 0; i < c.n_integers; i++) {
        const int64_t old = c.integers[i];
        for (int k = 0; k < 4; k++) {
            c.integers[i] = integers[k];
            write_copy(&c, &o);
            accepted += !is_refused(&o);
        }
        c.integers[i] = old;
    }
    /* Any seed and any count of draws is one; 2^32 steps may be the warm-up. */
    assert_int_equal(accepted, 4 + 4 + 1);
    static const double reals[] = {NAN, -1, 1e300};
    accepted = 0;
    for (int64_t i = 0; i < c.n_reals; i++) {
        const double old = c.reals[i];
        for (int k = 0; k < 3; k++) {
            c.reals[i] = reals[k];
            write_copy(&c, &o);
            accepted += !is_refused(&o);
        }
        c.reals[i] = old;
    }
    assert_int_equal(accepted, 1 + 2); /* no model may be good yet; a sum of losses may be anything */
    write_copy(&c, &o);
    assert_false(is_refused(&o));
    tsr_safetensors_close(c.file);
}

static void test_wrong_tensors(void **state)
{
    (void)state;
    const tsr_train_options o = copy_half("wrong");
    static const char *const names[] = {"master", "m", "v", "integers", "reals", "history"};
    copied c;
    for (int i = 0; i < 6; i++) {
        char words[64];
        snprintf(words, sizeof words, "'%s' is missing or of another kind", names[i]);
        read_copy(&c);
        tsr_named_tensor *x = find(&c, names[i]);
        const tsr_named_tensor old = *x;
        x->name = "other";
        write_copy(&c, &o);
        expect_open_fails(TSR_ERR_FORMAT, words, &o);
        *x = old;
        x->tensor.shape[x->tensor.rank - 1]--; /* its rows a number short */
        write_copy(&c, &o);
        expect_open_fails(TSR_ERR_FORMAT, words, &o);
        *x = old;
        x->tensor.dtype = TSR_I32;
        write_copy(&c, &o);
        expect_open_fails(TSR_ERR_FORMAT, words, &o);
        tsr_safetensors_close(c.file);
    }
    read_copy(&c);
    double history[3] = {NAN, 1, 1};
    find(&c, "history")->tensor = tsr_tensor_2d(history, TSR_F64, 1, 3);
    write_copy(&c, &o);
    expect_open_fails(TSR_ERR_FORMAT, "row 0 of its history is step nan", &o);
    history[0] = 8; /* it stopped after 7 */
    write_copy(&c, &o);
    expect_open_fails(TSR_ERR_FORMAT, "row 0 of its history is step 8", &o);
    tsr_safetensors_close(c.file);
}

static void test_damaged_file(void **state)
{
    (void)state;
    const tsr_train_options o = copy_half("damaged");
    const char *path = kit_name("damaged/checkpoint.safetensors");
    size_t n;
    char *data = kit_read_file(path, &n);
    for (size_t length = 0; length < n; length += n / 7) {
        kit_write_file(path, data, length);
        expect_open_fails(TSR_ERR_FORMAT, "checkpoint.safetensors", &o);
    }
    tsr_random random = {.seed = 5};
    for (int i = 0; i < 60; i++) { /* in the header; the most are refused, and none does harm */
        const size_t at = (size_t)tsr_random_below(&random, 500);
        const char old = data[at];
        data[at] ^= (char)(1 << tsr_random_below(&random, 7));
        kit_write_file(path, data, n);
        is_refused(&o);
        data[at] = old;
    }
    free(data);
    unlink(path);
    expect_open_fails(TSR_ERR_IO, "checkpoint.safetensors cannot be opened: No such file", &o);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_open_fails(TSR_ERR_IO, "is a FIFO", &o);
}

/* A run whose saving fails says so; what was saved before is whole, and a run goes on from it as if nothing
 * had been. */
typedef struct full_disk {
    const tsr_train_options *options;
    const char *words;
} full_disk;

static int run_fails(const void *arg)
{
    const full_disk *d = arg;
    tsr_context *ctx = kit_cpu_with_threads(1);
    tsr_trainer t;
    bool finished;
    if (tsr_trainer_open(ctx, d->options, &t) != TSR_OK) return 1;
    const tsr_status status = tsr_trainer_run(&t, &(tsr_train_hooks){.stop = NULL}, &finished);
    if (status != TSR_ERR_IO) return 2;
    if (strstr(tsr_last_error(), d->words) == NULL) return 3;
    tsr_trainer_close(&t);
    tsr_context_destroy(ctx);
    return 0;
}

static int open_fails(const void *arg)
{
    const full_disk *d = arg;
    tsr_context *ctx = kit_cpu_with_threads(1);
    tsr_trainer t;
    if (tsr_trainer_open(ctx, d->options, &t) != TSR_ERR_IO) return 1;
    tsr_context_destroy(ctx);
    return strstr(tsr_last_error(), d->words) == NULL ? 2 : 0;
}

static void test_full_disk(void **state)
{
    (void)state;
    const tsr_train_options o = copy_half("full");
    struct stat model;
    assert_int_equal(stat(kit_path_in(o.out, "model.safetensors"), &model), 0);
    const full_disk for_nothing = {&o, "model.safetensors cannot be written: File too large"};
    kit_on_full_disk(1000, run_fails, &for_nothing);
    for (int i = 0; i < RUN_FILES; i++) assert_true(kit_same_file(o.out, half, run_files[i]));

    const full_disk for_the_model = {&o, "checkpoint.safetensors cannot be written: File too large"};
    kit_on_full_disk((size_t)model.st_size, run_fails, &for_the_model);
    assert_true(kit_same_file(o.out, half, "checkpoint.safetensors"));
    assert_int_not_equal(access(kit_path_in(o.out, "checkpoint.safetensors.tessera-tmp"), F_OK), 0);
    assert_true(kit_run(&o, 1, -1));
    kit_expect_same_run(o.out, whole);

    tsr_train_options over = copy_half("full-over");
    over.resume = false, over.overwrite = true;
    const full_disk for_no_tokenizer = {&over, "tokenizer.json cannot be written: File too large"};
    kit_on_full_disk(1000, open_fails, &for_no_tokenizer);
    for (int i = 0; i < RUN_FILES; i++) assert_true(kit_same_file(over.out, half, run_files[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),       cmocka_unit_test(test_directories),
        cmocka_unit_test(test_other_text),    cmocka_unit_test(test_absurd_numbers),
        cmocka_unit_test(test_wrong_tensors), cmocka_unit_test(test_damaged_file),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, make_runs, NULL);
}
