/*
 * backend/cpu/gemm_split.h - a batch of products, cut into items for threads
 *
 * An item is a block of C: at most 4096 rows x 128 columns of one product (AMX: 512 x 512), over all of k.
 * Its panels of B for a chunk fit the second cache, and B is packed by the item itself: no phase of packing
 * that all wait for; but once before all items where tiles multiply so fast that packing it for each block
 * would show. Blocks shrink where there would be too few for the threads; small products are whole items,
 * several to one where they are tiny.
 *
 *     A in place      items of all products in one run, but where B is packed once
 *     A packed once   for each product: a run that packs A, and B if that is packed once; a run of items
 *     A packed by     items are rows x all columns of a product: batches of products that are too small for
 *     its item        two runs each
 */
#ifndef TSR_CPU_GEMM_SPLIT_H
#define TSR_CPU_GEMM_SPLIT_H

#include "backend/cpu/gemm_block.h"

typedef enum gemm_a_mode { GEMM_A_IN_PLACE, GEMM_A_PACKED_ONCE, GEMM_A_PACKED_BY_ITEM } gemm_a_mode;

typedef struct gemm_split {
    const tsr_cpu *cpu;
    int64_t n_products;
    gemm_a_mode a_mode;
    int64_t n_row_blocks, n_column_blocks; /* of a product */
    int64_t products_per_item;             /* more than 1 only if a product is one block */
    int64_t rows;                          /* of the largest block */
    char *b_panels;                        /* B packed once, for all blocks of a product; or NULL */
    gemm_product *of_slot;                 /* A_PACKED_BY_ITEM: a_packed of each slot is in it */
    gemm_scratch *scratch;                 /* of each slot */
} gemm_split;

/* Describes product i: sets its operands in *p, which is a copy of the template. */
typedef void (*gemm_describe)(const void *batch, int64_t i, gemm_product *p);

/* Plans for n_products alike to `p` (a template: types, extents, strides) and takes the memory. */
gemm_split gemm_plan_split(const tsr_cpu *cpu, gemm_product *p, int64_t n_products, tsr_arena *memory);
void gemm_run_split(const gemm_split *split, const gemm_product *p, gemm_describe describe,
                    const void *batch);

#endif
