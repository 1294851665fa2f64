/* misuse_nn.c - what layers and the key-value cache refuse, and with which words */
#include "kit/kit.h"

#include "kit/isa.h"
#include "kit/llama.h"
#include "kit/tensor.h"

static tsr_context *ctx;
static tsr_tape *tape;

static int set_up(void **state)
{
    (void)state;
    ctx = kit_reference();
    KIT_OK(tsr_tape_create(ctx, &tape));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tsr_tape_destroy(tape);
    kit_free_all();
    return 0;
}

enum { B = 2, L = 4, DIM = 6, HQ = 4, HKV = 2, D = 4, OUT = 3 };

static tsr_linear random_linear(int64_t n_out, int64_t n_in)
{
    return (tsr_linear){.weight.value = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, n_out, n_in))};
}

static tsr_var input(const tsr_tensor *t)
{
    tsr_var x;
    KIT_OK(tsr_tape_input(tape, t, &x));
    return x;
}

static void test_layers_are_checked(void **state)
{
    (void)state;
    tsr_attention_layer l = {.q = random_linear((int64_t)HQ * D, DIM),
                             .k = random_linear((int64_t)HKV * D, DIM),
                             .v = random_linear((int64_t)HKV * D, DIM),
                             .o = random_linear(OUT, (int64_t)HQ * D),
                             .n_heads = HQ,
                             .n_kv_heads = HKV,
                             .head_dim = D};
    const tsr_tensor x = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B, L, DIM));
    const tsr_tensor flat = kit_normal(KIT_NEW(TSR_F64, KIT_ROWS, B * L, DIM));
    tsr_var y;
    KIT_FAILS(TSR_ERR_SHAPE, "x has shape [8, 6], must be [B, L, dim]",
              tsr_attention_layer_forward(tape, &l, input(&flat), NULL, &y));
    l.n_kv_heads = 3;
    KIT_FAILS(TSR_ERR_SHAPE, "k.weight is [8, 6], must have 3 heads * 4 rows",
              tsr_attention_layer_forward(tape, &l, input(&x), NULL, &y));
    l.head_dim = 0;
    KIT_FAILS(TSR_ERR_SHAPE, "4 heads of 0", tsr_attention_layer_forward(tape, &l, input(&x), NULL, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_block_forward(tape, NULL, input(&x), NULL, NULL, &y));
    KIT_FAILS(TSR_ERR_ARGUMENT, "null pointer", tsr_linear_forward(tape, NULL, input(&x), &y));
    const tsr_linear none = {0};
    KIT_FAILS(TSR_ERR_ARGUMENT, "value has no data", tsr_linear_forward(tape, &none, input(&x), &y));
    const tsr_linear wrong = random_linear(3, DIM + 1);
    KIT_FAILS(TSR_ERR_SHAPE, "matmul2d", tsr_linear_forward(tape, &wrong, input(&x), &y));
}

static void test_cache_is_checked(void **state)
{
    (void)state;
    tsr_kv_cache_options o = {
        .n_layers = 2, .batch = 2, .n_kv_heads = 2, .capacity = 4, .head_dim = 4, .dtype = TSR_F32};
    tsr_kv_cache *cache;
    tsr_kv_layer kv;
    o.capacity = 0;
    KIT_FAILS(TSR_ERR_ARGUMENT, "at least 1", tsr_kv_cache_create(ctx, &o, &cache));
    o.capacity = INT64_MAX / 2;
    KIT_FAILS(TSR_ERR_OVERFLOW, "too large", tsr_kv_cache_create(ctx, &o, &cache));
    o.capacity = 4, o.dtype = (tsr_dtype)77;
    KIT_FAILS(TSR_ERR_DTYPE, "unknown dtype", tsr_kv_cache_create(ctx, &o, &cache));
    o.dtype = TSR_F32;
    KIT_OK(tsr_kv_cache_create(ctx, &o, &cache));
    KIT_FAILS(TSR_ERR_ARGUMENT, "no step was begun", tsr_kv_cache_layer(cache, 0, &kv));
    KIT_FAILS(TSR_ERR_ARGUMENT, "n_rows is 5", tsr_kv_cache_extend(cache, 5, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "lengths[1] is 4", tsr_kv_cache_extend(cache, 3, (const int32_t[]){3, 4}));
    KIT_OK(tsr_kv_cache_extend(cache, 3, (const int32_t[]){1, 3}));
    KIT_FAILS(TSR_ERR_ARGUMENT, "sequence 1 has 3 rows and gets 2", tsr_kv_cache_extend(cache, 2, NULL));
    KIT_FAILS(TSR_ERR_ARGUMENT, "index is 2, must be 0 to 1", tsr_kv_cache_layer(cache, 2, &kv));
    KIT_FAILS(TSR_ERR_ARGUMENT, "length is 2, must be 0 to 1", tsr_kv_cache_shorten(cache, 0, 2));
    KIT_FAILS(TSR_ERR_ARGUMENT, "no sequence 2", tsr_kv_cache_shorten(cache, 2, 0));
    tsr_kv_cache_destroy(cache);
}

/* Gradients do not flow through a cache: an error, not a silent zero. */
static void test_no_gradient_through_a_cache(void **state)
{
    (void)state;
    kit_llama m;
    tsr_kv_cache *cache;
    tsr_var hidden;
    const kit_llama_sizes small = {.dtype = TSR_F32,
                                   .vocabulary = 13,
                                   .dim = 16,
                                   .n_layers = 2,
                                   .n_heads = 4,
                                   .n_kv_heads = 2,
                                   .head_dim = 4,
                                   .feed_forward = 24,
                                   .n_positions = 4};
    kit_llama_make(&m, ctx, &small, 1);
    const tsr_kv_cache_options o = {
        .n_layers = 2, .batch = 1, .n_kv_heads = 2, .capacity = 4, .head_dim = 4, .dtype = TSR_F32};
    KIT_OK(tsr_kv_cache_create(ctx, &o, &cache));
    KIT_OK(tsr_kv_cache_extend(cache, 2, NULL));
    const tsr_tensor ids = kit_device_ids(ctx, small.vocabulary, 2, (const int64_t[]){1, 2});
    KIT_FAILS(TSR_ERR_UNSUPPORTED, "kv_append has no backward",
              kit_llama_hidden(&m, tape, &ids, cache, &hidden));
    KIT_OK(tsr_tape_reset(tape));
    tsr_tape_set_recording(tape, 0);
    KIT_OK(kit_llama_hidden(&m, tape, &ids, cache, &hidden));
    KIT_OK(tsr_free(ctx, ids.data));
    tsr_kv_cache_destroy(cache);
    kit_llama_free(&m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_layers_are_checked),
        TEST(test_cache_is_checked),
        TEST(test_no_gradient_through_a_cache),
    };
    return cmocka_run_group_tests_name("misuse_nn", tests, NULL, NULL);
}
