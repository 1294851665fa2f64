/* tests/misuse_options.c - options out of range and indices in the data, for operators other than attention
 */
#include <math.h>

#include "kit/isa.h"
#include "kit/misuse.h"
#include "tessera/tessera.h"

static int free_all(void **state)
{
    (void)state;
    kit_free_all();
    return 0;
}

static tsr_tensor matrix(int64_t m, int64_t n) { return kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, m, n)); }
static tsr_tensor row(int64_t n) { return kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, n)); }
static tsr_tensor ids(int64_t n, int last)
{
    const tsr_tensor t = kit_constant(KIT_NEW(TSR_I32, KIT_GAPS, n), 0);
    kit_set(&t, n - 1, last);
    return t;
}

static void norms(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor x = matrix(2, 5), w = row(5), y = matrix(2, 5), mean = row(2), rstd = row(2);
    const float wrong[] = {-1e-6f, NAN, INFINITY};
    for (int i = 0; i < 3; i++) {
        KIT_REFUSES(TSR_ERR_ARGUMENT, "rms_norm_fwd: eps is ",
                    tsr_rms_norm_fwd(ctx, &x, &w, wrong[i], &y, NULL));
        KIT_REFUSES(TSR_ERR_ARGUMENT, "layer_norm_fwd: eps is ",
                    tsr_layer_norm_fwd(ctx, &x, &w, NULL, wrong[i], &y, NULL, NULL));
    }
    KIT_REFUSES(TSR_ERR_ARGUMENT, "mean and rstd: one is NULL",
                tsr_layer_norm_fwd(ctx, &x, &w, NULL, 0, &y, &mean, NULL));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "mean and rstd: one is NULL",
                tsr_layer_norm_fwd(ctx, &x, &w, NULL, 0, &y, NULL, &rstd));
}

static void rope(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor cos = matrix(6, 2), sin = matrix(6, 2);
    const double wrong[] = {0, -1, NAN, INFINITY};
    for (int i = 0; i < 4; i++)
        KIT_REFUSES(TSR_ERR_ARGUMENT, "rope_table: theta is ", tsr_rope_table(ctx, wrong[i], &cos, &sin));
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 1, 1, 3, 4)),
                     odd = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 1, 1, 3, 5));
    tsr_rope_options o = {.start = -1};
    KIT_REFUSES(TSR_ERR_ARGUMENT, "start is -1", tsr_rope(ctx, &x, &cos, &sin, &o, &x));
    o.start = 4;
    KIT_REFUSES(TSR_ERR_INDEX, "start is 4, with 3 rows it must end within the table's 6",
                tsr_rope(ctx, &x, &cos, &sin, &o, &x));
    o.start = INT64_MAX;
    KIT_REFUSES(TSR_ERR_INDEX, "it must end within", tsr_rope(ctx, &x, &cos, &sin, &o, &x));
    KIT_REFUSES(TSR_ERR_SHAPE, "its last extent must be even", tsr_rope(ctx, &odd, &cos, &sin, NULL, &odd));
    for (int last = -1; last <= 6; last += 7) {
        const tsr_tensor p = ids(3, last);
        tsr_tensor positions;
        KIT_OK(tsr_tensor_reshape(&p, 2, (const int64_t[]){1, 3}, &positions));
        KIT_REFUSES(TSR_ERR_INDEX, "must be 0 to 5",
                    tsr_rope(ctx, &x, &cos, &sin, &(tsr_rope_options){.positions = &positions}, &x));
    }
    o.start = 3;
    KIT_OK(tsr_rope(ctx, &x, &cos, &sin, &o, &x));
}

static void ids_out_of_range(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor table = matrix(4, 3), rows = matrix(2, 3), loss = row(1), lse = row(2);
    for (int last = -1; last <= 4; last += 5) {
        const tsr_tensor wrong = ids(2, last);
        KIT_REFUSES(TSR_ERR_INDEX, "embedding_fwd: ", tsr_embedding_fwd(ctx, &table, &wrong, &rows));
        KIT_REFUSES(TSR_ERR_INDEX, "embedding_bwd: ", tsr_embedding_bwd(ctx, &wrong, &rows, 0, &table));
        const tsr_tensor x = matrix(2, 3), dx = matrix(2, 3), dw = matrix(4, 3);
        KIT_REFUSES(TSR_ERR_INDEX, "linear_cross_entropy_fwd: ",
                    tsr_linear_cross_entropy_fwd(ctx, &x, &table, &wrong, -100, &loss, &lse, NULL));
        KIT_REFUSES(
            TSR_ERR_INDEX, "linear_cross_entropy_bwd: ",
            tsr_linear_cross_entropy_bwd(ctx, &x, &table, &wrong, -100, &lse, &loss, 0, &dx, &dw, NULL));
        KIT_OK(tsr_linear_cross_entropy_fwd(ctx, &x, &table, &wrong, last, &loss, &lse, NULL)); /* ignored */
    }
}

static void rows_beyond_the_cache(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 2, 1, 3, 4)),
                     cache = kit_normal(KIT_NEW(TSR_F32, KIT_GAPS, 2, 1, 5, 4));
    const tsr_tensor negative = ids(2, -1), late = ids(2, 3), right = ids(2, 2), too_many = ids(2, 4),
                     two = ids(2, 2);
    KIT_REFUSES(TSR_ERR_INDEX, "kv_append: ", tsr_kv_append(ctx, &x, &negative, NULL, &cache));
    KIT_REFUSES(TSR_ERR_INDEX, "kv_append: ", tsr_kv_append(ctx, &x, &late, NULL, &cache));
    KIT_REFUSES(TSR_ERR_INDEX, "kv_append: ", tsr_kv_append(ctx, &x, &right, &too_many, &cache));
    KIT_REFUSES(TSR_ERR_INDEX, "kv_append: ", tsr_kv_append(ctx, &x, &right, &negative, &cache));
    KIT_OK(tsr_kv_append(ctx, &x, &right, NULL, &cache));
    KIT_OK(tsr_kv_append(ctx, &x, &late, &two, &cache));
}

static void activations(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor x = matrix(2, 3), y = matrix(2, 3);
    for (int a = -1; a <= 5; a += 6) {
        KIT_REFUSES(TSR_ERR_ARGUMENT, "activation_fwd: activation is ",
                    tsr_activation_fwd(ctx, (tsr_activation)a, &x, &y));
        KIT_REFUSES(TSR_ERR_ARGUMENT, "activation_bwd: activation is ",
                    tsr_activation_bwd(ctx, (tsr_activation)a, &x, &x, &y));
    }
}

static void dropouts(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor x = matrix(2, 3), y = matrix(2, 3);
    const float wrong[] = {-0.5f, 1, 2, NAN};
    for (int i = 0; i < 4; i++)
        KIT_REFUSES(TSR_ERR_ARGUMENT, "dropout_add: dropout.p is ",
                    tsr_dropout_add(ctx, &x, NULL, &(tsr_dropout){.p = wrong[i]}, &y));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "dropout_add: dropout is NULL", tsr_dropout_add(ctx, &x, NULL, NULL, &y));
}

static void mixed_dtypes(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor x = matrix(2, 3), half = kit_copy(&x, TSR_F16, KIT_ROWS), wide = kit_f64(&x);
    KIT_REFUSES(TSR_ERR_DTYPE, "softmax_fwd: y is f16, must be of x's dtype, f32",
                tsr_softmax_fwd(ctx, &x, &half));
    KIT_REFUSES(TSR_ERR_DTYPE, "add: b is f64, must be f32, bf16 or f16", tsr_add(ctx, 1, &x, 1, &wide, &x));
    const tsr_tensor sum = row(1), two = row(2);
    KIT_REFUSES(TSR_ERR_SHAPE, "sum: out has shape [2], must have one element", tsr_sum(ctx, &x, 0, &two));
    KIT_REFUSES(TSR_ERR_SHAPE, "sum_rows: out has shape [1], must have x's last extent, [3]",
                tsr_sum_rows(ctx, &x, 0, &sum));
}

static void adamw(void **state)
{
    tsr_context *ctx = *state;
    const tsr_tensor p = kit_normal(KIT_NEW(TSR_F32, KIT_ROWS, 3)), g = kit_copy(&p, TSR_F32, KIT_ROWS),
                     m = kit_copy(&p, TSR_F32, KIT_ROWS),
                     v = kit_uniform(KIT_NEW(TSR_F32, KIT_ROWS, 3), 0, 1),
                     master = kit_copy(&p, TSR_F32, KIT_ROWS), half = kit_copy(&p, TSR_BF16, KIT_ROWS);
    const tsr_adamw_options right = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .step = 1};
    tsr_adamw_options o = right;
    float *const fields[] = {&o.lr, &o.beta1, &o.beta2, &o.eps, &o.weight_decay, &o.grad_scale};
    const char *const words[] = {"options.lr is ",  "options.beta1 is ",        "options.beta2 is ",
                                 "options.eps is ", "options.weight_decay is ", "options.grad_scale is "};
    for (int i = 0; i < 6; i++) {
        const float wrong[] = {-0.5f, NAN, INFINITY};
        for (int j = 0; j < 3; j++) {
            o = right;
            *fields[i] = wrong[j];
            KIT_REFUSES(TSR_ERR_ARGUMENT, words[i], tsr_adamw(ctx, &o, &p, NULL, &g, &m, &v));
        }
    }
    o = right, o.step = 0;
    KIT_REFUSES(TSR_ERR_ARGUMENT, "options.step is 0, must be at least 1",
                tsr_adamw(ctx, &o, &p, NULL, &g, &m, &v));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "options is NULL", tsr_adamw(ctx, NULL, &p, NULL, &g, &m, &v));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "master is given, must be NULL: p is f32",
                tsr_adamw(ctx, &right, &p, &master, &g, &m, &v));
    KIT_REFUSES(TSR_ERR_ARGUMENT, "master is NULL, must be f32 weights: p is bf16",
                tsr_adamw(ctx, &right, &half, NULL, &g, &m, &v));
    KIT_OK(tsr_adamw(ctx, &right, &half, &master, &g, &m, &v));
}

int main(void)
{
    tsr_context *contexts[] = {kit_reference(), kit_cpu()};
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        tsr_context *ctx = contexts[i];
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate_setup_teardown(norms, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(rope, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(ids_out_of_range, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(rows_beyond_the_cache, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(activations, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(dropouts, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(mixed_dtypes, NULL, free_all, ctx),
            cmocka_unit_test_prestate_setup_teardown(adamw, NULL, free_all, ctx),
        };
        n_failed += cmocka_run_group_tests_name(tsr_context_backend(ctx), tests, NULL, NULL);
    }
    return n_failed;
}
