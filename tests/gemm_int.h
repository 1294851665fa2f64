/*
 * tests/gemm_int.h - what the tests of the GEMM families s8 and s4 share
 *
 * C is a part of a larger tile of numbers that must survive; packed operands lie flush against a page that no
 * one may touch.
 */
#ifndef TSR_TESTS_GEMM_INT_H
#define TSR_TESTS_GEMM_INT_H

#include <stdbool.h>

#include <string.h>

#include "backend/cpu/kernel/gemm.h"
#include "base/tensor.h"
#include "kit/compare.h"
#include "kit/kit.h"
#include "kit/tensor.h"

enum { MAX_MR = 32, MAX_NR = 32, MAX_K = 640 };

typedef void (*tile_run)(const tsr_gemm_tile *tile, int64_t m, int64_t n);

static inline void for_each_kernel(const tsr_gemm_kernel *const *kernels,
                                   void (*check)(const tsr_gemm_kernel *kernel))
{
    for (; *kernels != NULL; kernels++) {
        const tsr_gemm_kernel *kernel = *kernels;
        const bool elsewhere = kernel->enter != NULL &&
                               kernel->pack_s4 == NULL; /* check_gemm_bf16 has s8 on AMX */
        if (tsr_isa_missing(kernel->isa) != NULL || elsewhere) continue;
        _Alignas(64) char tiles[64];
        if (kernel->enter != NULL) kernel->enter(tiles);
        check(kernel);
        if (kernel->leave != NULL) kernel->leave(tiles);
        kit_free_all();
    }
}

/* Names those that this machine lacks. */
static inline void announce_skipped(const tsr_gemm_kernel *const *kernels)
{
    for (; *kernels != NULL; kernels++) {
        const char *missing = tsr_isa_missing((*kernels)->isa);
        if (missing != NULL) print_message("skipped natively: %s (%s)\n", (*kernels)->name, missing);
    }
}

/* All of s8, its ends often. */
static inline tsr_tensor any_s8(tsr_tensor t)
{
    kit_integers(t, -128, 127);
    const int64_t count = tsr_tensor_numel(&t);
    for (int64_t i = 0; i < count; i++)
        if (kit_one_in(3)) kit_set(&t, i, kit_one_in(2) ? -128 : 127);
    return t;
}

/* The first m rows of x packed, flush against a page that no one may touch. */
static inline tsr_tensor packed_rows(const tsr_gemm_kernel *kernel, const tsr_tensor *x, int64_t m,
                                     int64_t k_padded, int64_t sum_every, int32_t *sums, int64_t n_sums)
{
    const int64_t k = x->shape[1], words = k_padded / 4 * kernel->a_words;
    const tsr_tensor packed = kit_new_at(KIT_AT_END, 0, TSR_I32, KIT_PADDED, 2, (int64_t[]){m, words});
    kernel->pack_a(packed.data, packed.stride[0], x->data, x->stride[0], x->stride[1], m, k, sum_every, sums,
                   n_sums);
    return packed;
}

static inline int64_t round_up(int64_t x, int64_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

/* C with a margin on all sides. */
enum { MARGIN = 5, C_ROW = MAX_NR + 2 * MARGIN, C_COUNT = (MAX_MR + 2) * C_ROW };
typedef union c_tile {
    int32_t s32[C_COUNT];
    float f32[C_COUNT];
} c_tile;
static inline int64_t at(int64_t i, int64_t j) { return (i + 1) * C_ROW + MARGIN + j; }

/* Wrong twins, each with a mistake that a real kernel might have. */
static const tsr_gemm_kernel *twin_of;

static inline void twin_without_tail(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    twin_of->run(t, m, n > twin_of->lanes ? n - n % twin_of->lanes : n);
}
static inline void twin_one_word_short(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    s.k -= t->group > 0 ? t->group / 8 : 1;
    twin_of->run(&s, m, n);
}
static inline void twin_sums_of_another_row(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile s = *t;
    twin_of->run(t, m, n);
    if (m == 1 || s.a_sums == NULL) return;
    s.a_sums += t->group > 0 ? t->a_sums_row : 1;
    s.beta = 0;
    twin_of->run(&s, 1, n);
}
static inline void twin_last_row_off_by_one(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    tsr_gemm_tile last = *t;
    twin_of->run(t, m, n);
    if (m == 1) return;
    last.c = (int32_t *)t->c + (m - 1) * t->c_row; /* row 0 of A where the last one belongs */
    last.beta = 0;
    twin_of->run(&last, 1, n);
}

#endif
