/*
 * tests/vec_words.h - the words of backend/cpu/vec.h and vec_int.h as functions over arrays, one record per
 * instruction set
 *
 * vec.h is static and compiled once per set; so is vec_words.c, with the same flags. n is a multiple of 16.
 */
#ifndef TSR_TESTS_VEC_WORDS_H
#define TSR_TESTS_VEC_WORDS_H

#include <stdint.h>

#include "backend/cpu/isa.h"
#include "tessera/tensor.h"

typedef struct vec_words {
    const char *name;
    tsr_isa isa;
    int lanes;
    void (*exp2)(int64_t n, const float *x, float *y);
    void (*exp2_below_127)(int64_t n, const float *x, float *y); /* x beyond counts as 127 */
    void (*exp2_for_bf16)(int64_t n, const float *x, float *y);  /* likewise */
    void (*exp2_for_bf16_unlimited)(int64_t n, const float *x, float *y);
    void (*exp)(int64_t n, const float *x, float *y);
    void (*sigmoid)(int64_t n, const float *x, float *y);
    void (*tanh)(int64_t n, const float *x, float *y);
    void (*sqrt)(int64_t n, const float *x, float *y);
    void (*abs)(int64_t n, const float *x, float *y);
    void (*normal)(int64_t n, const float *x, float *y);
    void (*density)(int64_t n, const float *x, float *y);
    void (*max)(int64_t n, const float *a, const float *b, float *y);
    void (*min)(int64_t n, const float *a, const float *b, float *y);
    void (*select_less)(int64_t n, const float *a, const float *b, float *y); /* a < b ? a : b */
    void (*load_as)(int64_t n, const void *x, tsr_dtype dtype, float *y);
    void (*store_as)(int64_t n, void *x, tsr_dtype dtype, const float *y);
    void (*bf16_from_two)(int64_t n, uint16_t *x, const float *y); /* n a multiple of 32 */
    /* y has room for one vector; load_n fills it all. 0 <= n <= lanes. */
    void (*load_as_n)(int64_t n, const void *x, tsr_dtype dtype, float *y);
    void (*store_as_n)(int64_t n, void *x, tsr_dtype dtype, const float *y);
    void (*from_bf16_pairs)(int64_t n, const uint16_t *x, float *y); /* n a multiple of 32; zipped again */
    void (*unzip)(int64_t n, const float *x, float *y); /* each two vectors: even lanes, then odd ones */
    float (*sum)(const float *x);
    float (*max_lane)(const float *x);
    void (*mulhi)(int64_t n, const uint32_t *a, uint32_t b, uint32_t *y);
    /* words of 4 * lanes columns */
    void (*dropout_words)(uint32_t *words, uint64_t seed, uint32_t offset, uint32_t head, uint32_t row,
                          uint32_t column);
    /* Words that hold quads of bytes or pairs of halves; y += the products. */
    void (*dot_quads)(int64_t n, const uint32_t *u, const uint32_t *s, uint32_t *y);
    void (*dot_pairs)(int64_t n, const uint32_t *a, const uint32_t *b, uint32_t *y);
    void (*dot_quads_to_pairs)(int64_t n, const uint32_t *u, const uint32_t *s, uint32_t *y);
    void (*from_u8)(int64_t n, const uint8_t *x, uint32_t *y);
    void (*half_bytes)(int64_t n, const uint32_t *x, int half, uint32_t *y);
    void (*half_bytes_less_8)(int64_t n, const uint32_t *x, int half, uint32_t *y);
    /* One vector, all of it, to and from the first n words of x. */
    void (*load_words_n)(int64_t n, const uint32_t *x, uint32_t *y);
    void (*store_words_n)(int64_t n, uint32_t *x, const uint32_t *y);
} vec_words;

#endif
