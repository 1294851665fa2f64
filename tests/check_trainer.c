/*
 * check_trainer.c - whole training runs: the same bits for any number of threads, however often interrupted
 *
 * Also: gradient accumulation, bf16 with f32 master weights, a run by the clock, which model is kept, memory.
 */
#define _XOPEN_SOURCE 700
#include "kit/run.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dtype.h"
#include "kit/fenced.h"
#include "kit/llama.h"
#include "kit/model.h"

static const char *text; /* the file that runs learn from */

static int make_text(void **state)
{
    (void)state;
    text = kit_name("text");
    kit_write_text(text, 2000, 1);
    return 0;
}

static void test_threads(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char name[32];
        tsr_train_options o = kit_run_options(text, NULL);
        o.dtype = bf16 ? TSR_BF16 : TSR_F32;
        o.accumulate = 2;
        const char *out[4];
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "threads-%d-%d", bf16, i);
            o.out = out[i] = kit_name(name);
            assert_true(kit_run(&o, i < 3 ? i + 1 : 1, -1)); /* 1, 2, 3, and 1 once more */
            kit_expect_same_run(out[i], out[0]);
        }
        o.seed = 1;
        o.overwrite = true;
        assert_true(kit_run(&o, 1, -1));
        assert_false(kit_same_file(out[3], out[0], "model.safetensors"));
    }
}

/* Stopped wherever, on one number of threads, and resumed on another. */
static void test_stop_and_resume(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char name[32];
        tsr_train_options o = kit_run_options(text, NULL);
        o.dtype = bf16 ? TSR_BF16 : TSR_F32;
        snprintf(name, sizeof name, "unbroken-%d", bf16);
        const char *unbroken = o.out = kit_name(name);
        assert_true(kit_run(&o, 2, -1));
        for (int64_t stop = 0; stop < 12; stop += bf16 ? 7 : 2) {
            snprintf(name, sizeof name, "stopped-%d-%d", bf16, (int)stop);
            o.out = kit_name(name);
            o.resume = false;
            assert_false(kit_run(&o, 2, stop));
            o.resume = true;
            if (stop < 9) assert_false(kit_run(&o, 1, stop + 3)); /* and once more */
            assert_true(kit_run(&o, 3, -1));
            kit_expect_same_run(o.out, unbroken);
            assert_true(kit_run(&o, 1, -1)); /* of a finished run nothing is left to do */
            kit_expect_same_run(o.out, unbroken);
        }
    }
}

/* kill -9 after step 8: the last checkpoint is of step 6. A file that was being written stays behind. */
static void test_kill(void **state)
{
    (void)state;
    tsr_train_options o = kit_run_options(text, kit_name("unkilled"));
    const char *unbroken = o.out;
    assert_true(kit_run(&o, 2, -1));
    o.out = kit_name("killed");
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        tsr_context *ctx = kit_cpu_with_threads(2);
        kit_stop stop = {.at = 8, .kill = true};
        tsr_trainer t;
        if (tsr_trainer_open(ctx, &o, &t) == TSR_OK) kit_continue(&t, &stop);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    kit_write_file(kit_path_in(o.out, "checkpoint.safetensors.tessera-tmp"), "half", 4);
    o.resume = true;
    tsr_trainer t;
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    assert_int_equal(t.state.step, 6);
    kit_stop never = {.at = -1};
    assert_true(kit_continue(&t, &never));
    tsr_trainer_close(&t);
    kit_expect_same_run(o.out, unbroken);
    assert_int_not_equal(access(kit_path_in(o.out, "checkpoint.safetensors.tessera-tmp"), F_OK), 0);
}

static float *host_copy(tsr_context *ctx, const tsr_tensor *t)
{
    float *host = malloc((size_t)tsr_tensor_numel(t) * sizeof *host);
    assert_non_null(host);
    KIT_OK(tsr_download(ctx, host, t->data, (size_t)tsr_tensor_numel(t) * sizeof *host));
    return host;
}

/* Two passes of two windows give the gradient of one pass of four. */
static void test_accumulation(void **state)
{
    (void)state;
    float *grads[2];
    double loss[2], largest = 0;
    int64_t n = 0;
    for (int i = 0; i < 2; i++) {
        tsr_train_options o = kit_run_options(text, kit_name(i == 0 ? "at-once" : "accumulated"));
        o.dropout = 0;
        o.batch = i == 0 ? 4 : 2, o.accumulate = i == 0 ? 1 : 2;
        tsr_trainer t;
        KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
        assert_int_equal(tsr_trainer_step_tokens(&t), 4 * 32);
        KIT_OK(tsr_trainer_step(&t, &loss[i]));
        grads[i] = host_copy(t.ctx, &t.weights.grads);
        n = t.weights.row_n;
        tsr_trainer_close(&t);
    }
    assert_true(fabs(loss[0] - loss[1]) < 1e-5);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)grads[0][i]));
    assert_true(largest > 1e-3);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)grads[0][i] - (double)grads[1][i]) < 1e-5 * largest))
            fail_msg("gradient %d is %g at once, %g accumulated", (int)i, (double)grads[0][i],
                     (double)grads[1][i]);
    free(grads[0]);
    free(grads[1]);
}

/* Both dtypes learn, to much the same; bf16's weights are its f32 master weights, rounded. */
static void test_learning(void **state)
{
    (void)state;
    double first[2], last[2];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        tsr_train_options o = kit_run_options(text, kit_name(bf16 ? "learns-bf16" : "learns-f32"));
        o.dtype = bf16 ? TSR_BF16 : TSR_F32;
        o.steps = 60, o.dropout = 0, o.lr = 1e-2;
        tsr_trainer t;
        KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
        KIT_OK(tsr_trainer_evaluate(&t, &first[bf16]));
        kit_stop never = {.at = -1};
        assert_true(kit_continue(&t, &never));
        KIT_OK(tsr_trainer_evaluate(&t, &last[bf16]));
        assert_true(last[bf16] == t.history[t.n_history - 1].held_bits);
        if (!(last[bf16] < 0.6 * first[bf16]))
            fail_msg("%s: %g bits per byte at first, %g at last", o.out, first[bf16], last[bf16]);
        if (bf16) {
            float *master = host_copy(t.ctx, &t.master);
            uint16_t *values = kit_row(&t.weights);
            int64_t rounded = 0;
            for (int64_t i = 0; i < t.weights.row_n; i++) {
                assert_int_equal(values[i], tsr_bf16_from_f32(master[i]));
                rounded += tsr_f32_from_bf16(values[i]) != master[i];
            }
            assert_true(rounded > t.weights.row_n / 2);
            free(master);
            free(values);
        }
        tsr_trainer_close(&t);
    }
    assert_true(fabs(last[0] - last[1]) < 0.1 * last[0]);
}

static void expect_same_rows(const tsr_trainer *a, const tsr_trainer *b)
{
    assert_int_equal(a->weights.row_n, b->weights.row_n);
    float *x = host_copy(a->ctx, &a->master), *y = host_copy(b->ctx, &b->master);
    assert_memory_equal(x, y, (size_t)a->weights.row_n * sizeof *x);
    free(x);
    free(y);
}

/* The number of steps is not known at first, then fixed for good; the run is that of so many steps. */
static void test_minutes(void **state)
{
    (void)state;
    tsr_train_options o = kit_run_options(text, kit_name("minutes"));
    o.steps = 0, o.minutes = 0.01, o.warmup = 30;
    tsr_trainer t, by_steps;
    assert_false(kit_run(&o, 1, 3));
    o.resume = true;
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    assert_int_equal(t.state.step, 3);
    assert_int_equal(t.state.n_steps, 0);
    assert_int_equal(t.n_history, 0);
    kit_stop stop = {.at = 11};
    const bool finished = kit_continue(&t, &stop); /* eight steps after the start it is known */
    const int64_t n_steps = t.state.n_steps;
    assert_true(n_steps > 11);
    assert_false(finished);
    tsr_trainer_close(&t);
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    assert_int_equal(t.state.n_steps, n_steps);
    stop = (kit_stop){.at = -1};
    assert_true(kit_continue(&t, &stop));
    assert_int_equal(t.state.step, n_steps);
    assert_int_equal(t.state.n_steps, n_steps);

    tsr_train_options same = kit_run_options(text, kit_name("minutes-as-steps"));
    same.steps = n_steps, same.warmup = 30;
    KIT_OK(tsr_trainer_open(kit_cpu(), &same, &by_steps));
    assert_true(kit_continue(&by_steps, &stop));
    expect_same_rows(&t, &by_steps);
    tsr_trainer_close(&t);
    tsr_trainer_close(&by_steps);
}

/* Held-out text that is unlike the rest: the more is learned, the worse it is foretold. */
static void test_best_model(void **state)
{
    (void)state;
    const char *data = kit_name("unlike");
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    for (int i = 0; i < 475; i++) fputs("always the same line\n", f);
    for (int i = 0; i < 25; i++)
        fprintf(f, "%c%c%cQZ!%d?XJK#%c\n", 'A' + i, '0' + i % 10, 'z' - i, i * i, '%' + i);
    assert_int_equal(fclose(f), 0);
    tsr_train_options o = kit_run_options(data, kit_name("best"));
    o.steps = 40, o.n_evaluations = 20, o.lr = 2e-2;
    tsr_trainer t, at_best;
    kit_stop stop = {.at = -1};
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    assert_true(kit_continue(&t, &stop));
    const tsr_train_point *best = &t.history[0];
    for (int64_t i = 0; i < t.n_history; i++)
        if (t.history[i].held_bits < best->held_bits) best = &t.history[i];
    assert_int_equal(t.n_history, 20);
    assert_true(best->step < 40 && best->held_bits < t.history[19].held_bits);
    assert_true(t.state.best_bits == best->held_bits);
    assert_int_equal(t.state.best_step, (int64_t)best->step);

    tsr_weights model;
    KIT_OK(tsr_weights_load(kit_cpu(), o.out, TSR_F32, 0, &model));
    o.out = kit_name("at-best");
    stop = (kit_stop){.at = t.state.best_step};
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &at_best));
    assert_false(kit_continue(&at_best, &stop));
    kit_expect_same_rows(&model, &at_best.weights);
    tsr_weights_free(&model);
    tsr_trainer_close(&at_best);
    tsr_trainer_close(&t);
}

/* Steps and evaluations hold what must be kept, and no more of the device's memory from step to step. */
static void test_memory(void **state)
{
    (void)state;
    tsr_train_options o = kit_run_options(text, kit_name("memory"));
    o.dropout = 0;
    tsr_trainer t;
    double number;
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    const kit_llama_sizes sizes = {.dtype = TSR_F32,
                                   .vocabulary = t.weights.config.vocab_size,
                                   .dim = 32,
                                   .n_layers = 2,
                                   .n_heads = 4,
                                   .n_kv_heads = 2,
                                   .head_dim = 8,
                                   .feed_forward = 64,
                                   .n_positions = 32,
                                   .tied = 1};
    KIT_OK(tsr_trainer_step(&t, &number));
    KIT_OK(tsr_trainer_evaluate(&t, &number));
    const tsr_tape_memory first = tsr_tape_memory_use(t.tape);
    assert_int_equal(first.peak_nbytes, kit_llama_peak_nbytes(&sizes, 2 * 32));
    for (int i = 0; i < 4; i++) {
        KIT_OK(tsr_trainer_step(&t, &number));
        KIT_OK(tsr_trainer_evaluate(&t, &number));
    }
    const tsr_tape_memory last = tsr_tape_memory_use(t.tape);
    assert_int_equal(last.peak_nbytes, first.peak_nbytes);
    assert_int_equal(last.reserved_nbytes, first.reserved_nbytes);
    assert_int_equal(last.n_allocations, first.n_allocations);
    assert_int_equal(last.in_use_nbytes, 0);
    tsr_trainer_close(&t);
}

/* A run whose loss is none ends with a message, and with what was saved before. */
static void test_divergence(void **state)
{
    (void)state;
    tsr_train_options o = kit_run_options(text, kit_name("diverged"));
    assert_false(kit_run(&o, 1, 7));
    const char *path = kit_path_in(o.out, "checkpoint.safetensors");
    char *before = kit_read_file(path, NULL);
    o.resume = true;
    tsr_trainer t;
    bool finished;
    KIT_OK(tsr_trainer_open(kit_cpu(), &o, &t));
    const float none = NAN;
    KIT_OK(tsr_upload(t.ctx, t.master.data, &none, sizeof none));
    KIT_FAILS(TSR_ERR_ARGUMENT, "the loss of step 7 is nan and its gradient's norm nan; try a smaller lr",
              tsr_trainer_run(&t, &(tsr_train_hooks){.stop = NULL}, &finished));
    assert_int_equal(t.state.step, 7);
    tsr_trainer_close(&t);
    char *after = kit_read_file(kit_path_in(o.out, "checkpoint.safetensors"), NULL);
    assert_memory_equal(before, after, 1000);
    free(before);
    free(after);
}

/* A device that the host cannot look into comes to the reference's bits; also if a run ends in mid-air. */
static void test_fenced(void **state)
{
    (void)state;
    const char *short_text = kit_name("short");
    kit_write_text(short_text, 150, 2);
    tsr_context *ctx[2] = {kit_reference(), kit_fenced()};
    tsr_trainer t[2];
    for (int i = 0; i < 2; i++) {
        tsr_train_options o = kit_run_options(short_text, kit_name(i == 0 ? "reference" : "fenced"));
        o.dim = 8, o.heads = 2, o.kv_heads = 1, o.ffn = 12, o.context = 8, o.layers = 1;
        o.steps = 3, o.dtype = TSR_BF16, o.n_evaluations = 2;
        double loss;
        KIT_OK(tsr_trainer_open(ctx[i], &o, &t[i]));
        assert_true(kit_continue(&t[i], &(kit_stop){.at = -1}));
        KIT_OK(tsr_trainer_step(&t[i], &loss)); /* the update is still queued */
    }
    expect_same_rows(&t[0], &t[1]);
    kit_expect_same_run(t[0].options.out, t[1].options.out);
    double loss;
    KIT_OK(tsr_trainer_step(&t[1], &loss));
    assert_true(kit_fenced_queued(ctx[1]) > 0);
    tsr_trainer_close(&t[0]);
    tsr_trainer_close(&t[1]);
    tsr_context_destroy(ctx[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_kill),       cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_learning),   cmocka_unit_test(test_minutes),
        cmocka_unit_test(test_best_model), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_divergence), cmocka_unit_test(test_fenced),
    };
    return cmocka_run_group_tests_name("trainer", tests, make_text, NULL);
}
