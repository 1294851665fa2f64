/*
 * backend/cpu/gemm_operands.h - one product as the loops see it, and its operands, in place or packed
 */
#ifndef TSR_CPU_GEMM_OPERANDS_H
#define TSR_CPU_GEMM_OPERANDS_H

#include "backend/cpu/cpu.h"
#include "base/arena.h"

/* What a product multiplies in. */
typedef enum gemm_type { GEMM_F32, GEMM_BF16, GEMM_S8, GEMM_S4 } gemm_type;

/* A matrix as it lies. */
typedef struct gemm_operand {
    const char *data;
    tsr_dtype dtype;
    int64_t row, col;
} gemm_operand;

typedef struct gemm_product {
    gemm_type type;
    const tsr_gemm_kernel *kernel;
    const tsr_gemm_store_kernel *store_kernel;
    const tsr_row_f32_kernel *row_kernel;
    int64_t m, n, k;
    int64_t c_columns; /* n, but half of the panels' columns where C is gated */
    gemm_operand a, b;

    /*
     * A packed: | chunk 0: m rows of ld words | chunk 1: ... |, ld a little longer than the chunk, so that
     * rows do not fall into the same sets of a cache. NULL: A is read in place.
     */
    uint32_t *a_packed;
    int32_t *a_sums;     /* s8: [chunk][m]; s4: [chunk][m][groups of a chunk] */
    int8_t *a_quantised; /* s8, s4 where A is of floats: its rows [m][k] as integers ...  */
    float *a_scales;     /* ... and what 1 of each row stands for                         */

    const char *b_packed; /* all panels, each over all of k; NULL: b is packed as it is needed */
    int64_t b_panel_nbytes;
    bool packs_b;      /* into b_packed, before the blocks */
    tsr_dtype b_dtype; /* f32 products: what panels of b_packed hold */
    bool b_in_place;
    bool b_columns_in_place;  /* through run_columns */
    int32_t group_chunks;     /* whose panels are held at a time, where rows are many */
    int32_t group, has_zeros; /* s4 */

    float alpha, beta;
    bool c_in_place;           /* the micro-kernel writes C */
    tsr_gemm_store_args store; /* pointers at element (0, 0); what C is, in either case */
} gemm_product;

/* Elements of k in a whole chunk, how many chunks there are (at least one), and elements of one of them. */
int64_t gemm_chunk_k(const gemm_product *p);
int64_t gemm_n_chunks(const gemm_product *p);
int64_t gemm_chunk_elements(const gemm_product *p, int64_t chunk);

/* Bytes of one panel over k elements, of which chunks are whole but for the last. */
int64_t gemm_panel_nbytes(const gemm_product *p, int64_t k);

/* True if so few rows of A meet contiguous columns of B that they are multiplied where they lie. */
bool gemm_b_columns_in_place(const gemm_product *p);

/* True if the micro-kernel can read A where it lies. */
bool gemm_a_in_place(const gemm_product *p);
/* Takes memory for a_packed, a_sums and the quantised rows. */
void gemm_take_a(gemm_product *p, tsr_arena *memory);
/* Packs rows [i, i + m) of A, quantised first where they are floats that meet integers. */
void gemm_pack_a(const gemm_product *p, int64_t i, int64_t m);

/* Packs panel `index` of B where it belongs among all panels. */
void gemm_pack_panel(const gemm_product *p, int64_t index, char *panels);

/* A's rows in one chunk, from row 0 on, as the micro-kernel takes them. */
typedef struct gemm_rows {
    const char *a;
    int64_t row_nbytes;
    int64_t row, k;      /* a_row and a_k of a tile */
    const int32_t *sums; /* a_sums and a_sums_row, or NULL */
    int64_t sums_row;
} gemm_rows;

gemm_rows gemm_rows_of(const gemm_product *p, int64_t chunk);

/* A panel of one chunk, and where its rows are. */
typedef struct gemm_panel {
    const void *data;
    int64_t row; /* words */
} gemm_panel;

/* That of n columns from j on: where it lies, or packed, or widened with `widens`, into scratch. */
gemm_panel gemm_panel_of(const gemm_product *p, int64_t chunk, int64_t j, int64_t n, bool widens,
                         char *scratch);
/* Where it lies among packed ones. */
const char *gemm_packed_panel(const gemm_product *p, int64_t chunk, int64_t j);
/* Bytes of a chunk's panel that a thread makes for itself. */
int64_t gemm_own_panel_nbytes(const gemm_product *p);

/* Packed panels of 16 bits, which products in f32 widen; and so many rows that they are widened once. */
bool gemm_has_panels_of_16(const gemm_product *p);
bool gemm_widens_first(const gemm_product *p, int64_t rows);

/* Words of k elements, with the zeros that panels and packed rows end in. */
int64_t gemm_padded_words(const gemm_product *p, int64_t k);

static inline int64_t gemm_nbytes_of(tsr_dtype dtype) { return (int64_t)tsr_dtype_nbytes(dtype); }
static inline int64_t gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t gemm_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t gemm_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

#endif
