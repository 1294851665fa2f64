/*
 * check_tape_memory.c - what the tape keeps, for how long; and random programs against a plain twin, whose
 * gradients come out right only if nothing is given away too early
 */
#include "kit/kit.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "kit/tape.h"
#include "tape/pool.h"
#include "tessera/tape_ops.h"

/* ---- memory ---- */

enum { BIG = 1000, BIG_NBYTES = (BIG * (int)sizeof(double) + 63) / 64 * 64, LINE = 64, DEPTH = 10 };

/* y = square(square(... x)): DEPTH times; handles are released as a layer does. */
static tsr_var chain(double *x, double *dx)
{
    tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, BIG)};
    if (dx != NULL) p.grad = tsr_tensor_1d(dx, TSR_F64, BIG);
    tsr_var a;
    KIT_OK(tsr_tape_parameter(kit_tape, &p, &a));
    for (int i = 0; i < DEPTH; i++) {
        const tsr_var b = kit_var_square(a);
        tsr_tape_release(kit_tape, a);
        a = b;
    }
    const tsr_var y = kit_var_sum(a);
    tsr_tape_release(kit_tape, a);
    return y;
}

/*
 * What must be saved: the input of every square but the first (that one is the caller's), DEPTH - 1 values;
 * then the peak is the forward's last moment, when the last square's output waits to be summed: DEPTH values
 * and the sum; or the first of the backward: the DEPTH - 1 saved, one gradient (written over each other from
 * there on), the loss and its gradient.
 */
static void test_peak_is_what_must_be_saved(void **state)
{
    (void)state;
    static double x[BIG], dx[BIG];
    const tsr_var y = chain(x, dx);
    const tsr_tape_memory forward = tsr_tape_memory_use(kit_tape);
    assert_int_equal(forward.in_use_nbytes, (DEPTH - 1) * BIG_NBYTES + LINE);
    assert_int_equal(forward.step_peak_nbytes, DEPTH * BIG_NBYTES + LINE);
    KIT_OK(tsr_tape_backward(kit_tape, y, 1));
    const tsr_tape_memory backward = tsr_tape_memory_use(kit_tape);
    assert_int_equal(backward.in_use_nbytes, LINE); /* the loss, still held */
    assert_int_equal(backward.step_peak_nbytes, DEPTH * BIG_NBYTES + 2 * LINE);
    assert_int_equal(backward.peak_nbytes, backward.step_peak_nbytes);
    assert_true(backward.reserved_nbytes >= backward.peak_nbytes);
}

/* Without gradients two values are alive at a time, however deep the chain is. */
static void test_inference_keeps_nothing(void **state)
{
    (void)state;
    static double x[BIG], dx[BIG];
    chain(x, NULL);
    assert_int_equal(tsr_tape_memory_use(kit_tape).step_peak_nbytes, 2 * BIG_NBYTES);
    KIT_OK(tsr_tape_reset(kit_tape));
    tsr_tape_set_recording(kit_tape, 0);
    chain(x, dx);
    assert_int_equal(tsr_tape_memory_use(kit_tape).step_peak_nbytes, 2 * BIG_NBYTES);
    assert_int_equal(tsr_tape_memory_use(kit_tape).in_use_nbytes, LINE);
}

static void test_steady_state_allocates_nothing(void **state)
{
    (void)state;
    enum { ROWS = 1 << 18 }; /* 2 MiB a value: the first step needs several segments */
    static double x[ROWS], dx[ROWS];
    uint64_t n_after_two = 0;
    size_t reserved = 0;
    for (int step = 0; step < 5; step++) {
        tsr_var a, b = {0};
        const tsr_parameter p = {.value = tsr_tensor_1d(x, TSR_F64, ROWS),
                                 .grad = tsr_tensor_1d(dx, TSR_F64, ROWS)};
        KIT_OK(tsr_tape_parameter(kit_tape, &p, &a));
        for (int i = 0; i < 4; i++, a = b) b = kit_var_square(a);
        KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(a), 1));
        KIT_OK(tsr_tape_reset(kit_tape));
        const tsr_tape_memory m = tsr_tape_memory_use(kit_tape);
        if (step == 0) assert_true(m.n_allocations > 2);
        if (step == 1) n_after_two = m.n_allocations, reserved = m.reserved_nbytes;
        if (step > 1) assert_int_equal(m.n_allocations, n_after_two);
        if (step > 1) assert_int_equal(m.reserved_nbytes, reserved);
    }
    assert_true(reserved < 2 * tsr_tape_memory_use(kit_tape).peak_nbytes);
}

/* y = x w^T keeps x only for w's gradient, and w for x's: what is frozen costs nothing. */
static void test_frozen_parameters_save_memory(void **state)
{
    (void)state;
    static double w[BIG], dw[BIG], x[N], dx[N];
    for (int trained = 0; trained < 2; trained++) {
        tsr_var vw, y;
        tsr_parameter p = {.value = tsr_tensor_2d(w, TSR_F64, BIG / 2, 2)};
        if (trained) p.grad = tsr_tensor_2d(dw, TSR_F64, BIG / 2, 2);
        KIT_OK(tsr_tape_parameter(kit_tape, &p, &vw));
        const tsr_var a = kit_var_square(kit_var_leaf(x, dx));
        const size_t before = tsr_tape_memory_use(kit_tape).in_use_nbytes;
        KIT_OK(tsr_tape_linear(kit_tape, a, vw, (tsr_var){0}, &y));
        tsr_tape_release(kit_tape, a);
        const size_t after = tsr_tape_memory_use(kit_tape).in_use_nbytes;
        assert_int_equal(after, before + BIG_NBYTES - (trained ? 0 : LINE));
        KIT_OK(tsr_tape_reset(kit_tape));
    }
}

/* A gradient is written over a value only if nobody will look at the value again. */
static void test_held_values_stay(void **state)
{
    (void)state;
    double x[N] = {1, 2, 3, 4}, dx[N] = {0};
    tsr_var y, z;
    tsr_tensor t;
    const tsr_var gate = kit_var_square(kit_var_leaf(x, dx)), up = kit_var_square(kit_var_leaf(x, dx));
    KIT_OK(tsr_tape_swiglu(kit_tape, gate, up, &y));
    KIT_OK(tsr_tape_softmax(kit_tape, y, &z));
    KIT_OK(tsr_tape_backward(kit_tape, kit_var_sum(z), 1));
    KIT_OK(tsr_tape_value(kit_tape, gate, &t));
    kit_check_equal(t.data, (const double[]){1, 4, 9, 16});
    KIT_OK(tsr_tape_value(kit_tape, up, &t));
    kit_check_equal(t.data, (const double[]){1, 4, 9, 16});
}

/* Taken spans never share a byte; when all are given back, each segment is one span again. */
static void test_pool_gives_each_byte_once(void **state)
{
    (void)state;
    enum { SLOTS = 40 };
    tsr_pool pool = {.ctx = tsr_tape_context(kit_tape)};
    struct {
        uint32_t span;
        size_t nbytes;
        unsigned char *data;
    } slot[SLOTS] = {{0}};
    tsr_random r = {.seed = 7};
    for (int i = 0; i < 20000; i++) {
        const size_t k = tsr_random_below(&r, SLOTS);
        if (slot[k].data == NULL) {
            void *data;
            slot[k].nbytes = 1 + tsr_random_below(&r, i % 100 == 0 ? 3000000 : 5000);
            KIT_OK(tsr_pool_take(&pool, slot[k].nbytes, &slot[k].span, &data));
            assert_int_equal((uintptr_t)data % 64, 0);
            slot[k].data = memset(data, (int)k, slot[k].nbytes);
        } else {
            for (size_t b = 0; b < slot[k].nbytes; b++)
                if (slot[k].data[b] != k) fail_msg("byte %zu of span %zu was given twice", b, k);
            tsr_pool_give(&pool, slot[k].span);
            slot[k].data = NULL;
        }
    }
    for (int k = 0; k < SLOTS; k++)
        if (slot[k].data != NULL) tsr_pool_give(&pool, slot[k].span);
    assert_int_equal(pool.in_use, 0);
    uint32_t n_spans = 0;
    for (uint32_t i = 1; i <= pool.n_spans; i++) n_spans += pool.spans[i].used;
    assert_true(pool.n_segments > 1);
    assert_int_equal(n_spans, pool.n_segments);
    const size_t reserved = pool.reserved;
    KIT_OK(tsr_pool_settle(&pool));
    assert_int_equal(pool.n_segments, 1);
    assert_int_equal(pool.reserved, reserved);
    tsr_pool_clear(&pool);
}

/* ---- random programs against a plain twin ---- */

/*
 * A program over values [2, 2]: each line makes a value from one or two earlier ones. The tape runs it with
 * handles released at random, some sums in place; the twin keeps everything and goes back line by line.
 */
enum { LINES = 24 };
typedef enum line_kind { LEAF, SQUARE, ADD, ADD_IN_PLACE, SWIGLU, SILU, TRANSPOSE, N_KINDS } line_kind;
typedef struct program {
    line_kind kind[LINES];
    int a[LINES], b[LINES];
    double value[LINES][N], grad[LINES][N];
} program;

static double silu(double x) { return x / (1 + exp(-x)); }
static double silu_slope(double x)
{
    const double s = 1 / (1 + exp(-x));
    return s + x * s * (1 - s);
}
static int turned(int i) { return i % 2 * 2 + i / 2; }

static void twin_forward(program *p, int l)
{
    const double *a = p->value[p->a[l]], *b = p->value[p->b[l]];
    for (int i = 0; i < N; i++) {
        double *y = &p->value[l][i];
        switch (p->kind[l]) {
        case SQUARE: *y = a[i] * a[i]; break;
        case ADD:
        case ADD_IN_PLACE: *y = a[i] + b[i]; break;
        case SWIGLU: *y = silu(a[i]) * b[i]; break;
        case SILU: *y = silu(a[i]); break;
        case TRANSPOSE: *y = a[turned(i)]; break;
        case LEAF:
        case N_KINDS: break;
        }
    }
}

static void twin_backward(program *p, int l)
{
    const double *a = p->value[p->a[l]], *b = p->value[p->b[l]];
    double *da = p->grad[p->a[l]], *db = p->grad[p->b[l]];
    for (int i = 0; i < N; i++) {
        const double dy = p->grad[l][i];
        switch (p->kind[l]) {
        case SQUARE: da[i] += 2 * a[i] * dy; break;
        case ADD:
        case ADD_IN_PLACE: da[i] += dy, db[i] += dy; break;
        case SWIGLU: da[i] += silu_slope(a[i]) * b[i] * dy, db[i] += silu(a[i]) * dy; break;
        case SILU: da[i] += silu_slope(a[i]) * dy; break;
        case TRANSPOSE: da[turned(i)] += dy; break;
        case LEAF:
        case N_KINDS: break;
        }
    }
}

static tsr_status tape_line(const program *p, int l, const tsr_var *v, tsr_var *y)
{
    const tsr_var a = v[p->a[l]], b = v[p->b[l]];
    switch (p->kind[l]) {
    case SQUARE: return kit_apply_like(&kit_square_op, a, 0, y);
    case ADD: return tsr_tape_add(kit_tape, a, b, 0, y);
    case ADD_IN_PLACE: return tsr_tape_add(kit_tape, a, b, 1, y);
    case SWIGLU: return tsr_tape_swiglu(kit_tape, a, b, y);
    case SILU: return tsr_tape_activation(kit_tape, TSR_ACTIVATION_SILU, a, y);
    case TRANSPOSE: return tsr_tape_transpose(kit_tape, a, 0, 1, y);
    case LEAF:
    case N_KINDS: break;
    }
    return TSR_ERR_ARGUMENT;
}

/* Writes and runs line l. A line that the tape refuses (in place on a saved value, a value that is gone) is
 * rewritten until one is taken. */
static void next_line(program *p, int l, tsr_random *r, tsr_var *v)
{
    tsr_status status;
    do {
        p->kind[l] = (line_kind)(1 + tsr_random_below(r, N_KINDS - 1));
        p->a[l] = (int)tsr_random_below(r, (uint64_t)l);
        p->b[l] = (int)tsr_random_below(r, (uint64_t)l);
        status = tape_line(p, l, v, &v[l]);
        assert_true(status == TSR_OK || status == TSR_ERR_OVERLAP || status == TSR_ERR_ARGUMENT);
    } while (status != TSR_OK);
    twin_forward(p, l);
    double largest = 0;
    for (int i = 0; i < N; i++) largest = fmax(largest, fabs(p->value[l][i]));
    assert_true(isfinite(largest));
    if (tsr_random_below(r, 3) == 0) tsr_tape_release(kit_tape, v[tsr_random_below(r, (uint64_t)l)]);
}

/* The sum of all values that can still be used; starts the twin's gradients. */
static tsr_var total(program *p, const tsr_var *v)
{
    tsr_var all = kit_var_sum(v[LINES - 1]), one;
    for (int i = 0; i < N; i++) p->grad[LINES - 1][i] = 1;
    for (int l = 2; l < LINES - 1; l++) {
        if (tsr_tape_sum(kit_tape, v[l], &one) != TSR_OK) continue;
        all = kit_var_add(all, one);
        for (int i = 0; i < N; i++) p->grad[l][i] = 1;
    }
    return all;
}

static void run_program(uint64_t seed)
{
    tsr_random r = {.seed = seed};
    static program p;
    tsr_var v[LINES];
    double dx[2][N] = {{0}};
    memset(&p, 0, sizeof p);
    for (int l = 0; l < 2; l++) {
        for (int i = 0; i < N; i++) p.value[l][i] = 0.6 * tsr_random_uniform(&r) - 0.3;
        v[l] = kit_var_leaf(p.value[l], dx[l]);
    }
    for (int l = 2; l < LINES; l++) next_line(&p, l, &r, v);
    KIT_OK(tsr_tape_backward(kit_tape, total(&p, v), 1));
    for (int l = LINES - 1; l >= 2; l--) twin_backward(&p, l);
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < N; i++)
            if (fabs(dx[l][i] - p.grad[l][i]) > 1e-12 * (1 + fabs(p.grad[l][i])))
                fail_msg("seed %d: leaf %d element %d: %.17g, must be %.17g", (int)seed, l, i, dx[l][i],
                         p.grad[l][i]);
    KIT_OK(tsr_tape_reset(kit_tape));
    assert_int_equal(tsr_tape_memory_use(kit_tape).in_use_nbytes, 0);
}

static void test_random_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) run_program(seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_tape_set_up, kit_tape_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_peak_is_what_must_be_saved),
        TEST(test_inference_keeps_nothing),
        TEST(test_steady_state_allocates_nothing),
        TEST(test_frozen_parameters_save_memory),
        TEST(test_held_values_stay),
        TEST(test_pool_gives_each_byte_once),
        TEST(test_random_programs),
    };
    return cmocka_run_group_tests_name("tape_memory", tests, NULL, NULL);
}
