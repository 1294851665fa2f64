/*
 * peak_amx.c - the multiply-add rates of AMX tiles: four accumulators, as many as leave room for operands
 *
 * A product follows the last one into its accumulator by four, 64 cycles, and takes 52. What is not done in
 * tiles is measured as in the set below.
 */
#include "backend/cpu/kernel/peak.h"

#include "backend/cpu/tile.h"

enum { N_ACC = 4, ROWS = 16, ROW_NBYTES = 64 };

extern const tsr_peak_kernel tsr_peak_avx512bf16;

/* Tiles 0 to 3 accumulate, 4 and 5 are one operand, 6 and 7 the other. */
static void fill_tiles(uint32_t word)
{
    tile_config config = {.palette = 1};
    uint32_t words[ROWS * ROW_NBYTES / 4];
    for (int i = 0; i < ROWS * ROW_NBYTES / 4; i++) words[i] = word;
    for (int t = 0; t < 8; t++) config.rows[t] = ROWS, config.row_nbytes[t] = ROW_NBYTES;
    tile_configure(&config); /* zeroes the accumulators */
    TILE_LOAD(4, words, ROW_NBYTES);
    TILE_LOAD(5, words, ROW_NBYTES);
    TILE_LOAD(6, words, ROW_NBYTES);
    TILE_LOAD(7, words, ROW_NBYTES);
}

static void empty_tiles(float *sink)
{
    float words[ROWS * ROW_NBYTES / 4];
    TILE_STORE(0, words, ROW_NBYTES);
    *sink += words[0];
    tile_release();
}

static double multiply_add_bf16(int64_t reps, float *sink)
{
    fill_tiles(0x30003000u); /* pairs of 2^-31 */
    for (int64_t r = 0; r < reps; r++) {
        TILE_ADD_BF16(0, 4, 6);
        TILE_ADD_BF16(1, 4, 7);
        TILE_ADD_BF16(2, 5, 6);
        TILE_ADD_BF16(3, 5, 7);
    }
    empty_tiles(sink);
    return 2.0 * (double)reps * N_ACC * ROWS * ROWS * ROW_NBYTES / 2;
}

static double multiply_add_s8(int64_t reps, float *sink)
{
    fill_tiles(0x00010001u);
    for (int64_t r = 0; r < reps; r++) {
        TILE_ADD_S8(0, 4, 6);
        TILE_ADD_S8(1, 4, 7);
        TILE_ADD_S8(2, 5, 6);
        TILE_ADD_S8(3, 5, 7);
    }
    empty_tiles(sink);
    return 2.0 * (double)reps * N_ACC * ROWS * ROWS * ROW_NBYTES;
}

static double multiply_add(int64_t reps, float *sink) { return tsr_peak_avx512bf16.multiply_add(reps, sink); }
static double exp2_rate(int64_t reps, float *sink) { return tsr_peak_avx512bf16.exp2(reps, sink); }
static float read_all(const void *data, size_t nbytes) { return tsr_peak_avx512bf16.read(data, nbytes); }

const tsr_peak_kernel TSR_NAME(tsr_peak) = {
    .name = "peak_" TSR_SET_NAME,
    .isa = TSR_ISA_HERE,
    .multiply_add = multiply_add,
    .multiply_add_bf16 = multiply_add_bf16,
    .multiply_add_s8 = multiply_add_s8,
    .exp2 = exp2_rate,
    .read = read_all,
};
