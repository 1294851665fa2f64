/*
 * tests/kit/tensor.h - tensors for tests: any dtype, layout and place, in memory that tells on trespassers
 *
 *     PROT_NONE | poison  [ the view's elements, poison in its gaps ]  poison | PROT_NONE
 *
 * Each tensor has pages of its own between two that no one may touch; its first or its last element lies
 * flush against one of them, or some elements away, so that every alignment occurs. All bytes that are no
 * element of the view hold poison (NaN in every float type, 0x7f.. in integers): a kernel that reads a gap
 * spoils its result, one that writes a gap is found by kit_check_gaps, one that leaves the pages dies.
 *
 * Tensors live until kit_free_all(). All randomness comes from one stream; its seed is TSR_SEED (a number,
 * or "time") and stands in every failure's line.
 */
#ifndef TSR_KIT_TENSOR_H
#define TSR_KIT_TENSOR_H

#include <stdbool.h>

#include "base/random.h"
#include "kit/kit.h"
#include "tessera/tensor.h"

/* The stream of this program, and what it started from. */
tsr_random *kit_random(void);
uint64_t kit_seed(void);
void kit_random_restart(void);

/*
 * A stream of its own for part `part` (below 16) of case `number`: what a case draws does not depend on the
 * cases before it, and failures name it as TSR_CASE.
 */
void kit_random_case(uint32_t number, uint32_t part);
int64_t kit_case(void); /* -1: none */

int64_t kit_between(int64_t low, int64_t high); /* low..high, both included */
bool kit_one_in(int64_t n);

typedef enum kit_layout {
    KIT_ROWS,       /* row-major, no gaps                                         */
    KIT_PADDED,     /* row-major, random gaps between rows, planes ...            */
    KIT_GAPS,       /* the same, and gaps between the elements of a row           */
    KIT_TRANSPOSED, /* the last two dimensions exchanged in memory, random gaps   */
    KIT_SHUFFLED,   /* the dimensions in random order in memory, random gaps      */
    KIT_REVERSED,   /* as KIT_PADDED, with a negative stride in a random dimension */
    KIT_OUTPUT_LAYOUTS,
    KIT_BROADCAST = KIT_OUTPUT_LAYOUTS, /* a stride of 0 in a random dimension: inputs only */
    KIT_INPUT_LAYOUTS
} kit_layout;

static inline kit_layout kit_any_input(void) { return (kit_layout)kit_between(0, KIT_INPUT_LAYOUTS - 1); }
static inline kit_layout kit_any_output(void) { return (kit_layout)kit_between(0, KIT_OUTPUT_LAYOUTS - 1); }

/* Flush against the page after or before it, then moved `away` elements from there. */
typedef enum kit_place { KIT_AT_END, KIT_AT_START } kit_place;

/* A poisoned tensor on the host, at a random place. */
tsr_tensor kit_new(tsr_dtype dtype, kit_layout layout, int32_t rank, const int64_t *shape);
tsr_tensor kit_new_at(kit_place place, int64_t away, tsr_dtype dtype, kit_layout layout, int32_t rank,
                      const int64_t *shape);

/* kit_new with the extents as arguments: KIT_NEW(TSR_F32, KIT_GAPS, m, n). */
#define KIT_NEW(dtype, layout, ...)                                                                          \
    kit_new(dtype, layout, (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                    \
            (const int64_t[]){__VA_ARGS__})

/* A new tensor of t's shape, poisoned, or with t's values (converted). */
tsr_tensor kit_like(const tsr_tensor *t, tsr_dtype dtype, kit_layout layout);
tsr_tensor kit_copy(const tsr_tensor *t, tsr_dtype dtype, kit_layout layout);

/* The same bytes, gaps included, in the same layout at the same place between pages of their own. */
tsr_tensor kit_clone(const tsr_tensor *t);

/* The same values in double, row-major: what the reference takes. */
tsr_tensor kit_f64(const tsr_tensor *t);

/* Releases every tensor made so far. */
void kit_free_all(void);

/* Elements, as double. `index` counts through the view in row-major order. */
double kit_get(const tsr_tensor *t, int64_t index);
void kit_set(const tsr_tensor *t, int64_t index, double value);

/* Fills return the tensor: tsr_tensor a = kit_normal(KIT_NEW(...)). */
tsr_tensor kit_normal(tsr_tensor t);
tsr_tensor kit_uniform(tsr_tensor t, double low, double high);
tsr_tensor kit_integers(tsr_tensor t, int64_t low, int64_t high); /* exact in every dtype if small */
tsr_tensor kit_constant(tsr_tensor t, double value);

/* Fails unless every byte around and between t's elements still holds poison. */
void kit_check_gaps(const tsr_tensor *t, const char *what);
bool kit_gaps_intact(const tsr_tensor *t);

/*
 * kit_seal remembers the bytes of every tensor alive; kit_check_sealed fails, naming `what`, if one has
 * changed since: a call that reports an error leaves everything as it was.
 */
void kit_seal(void);
void kit_check_sealed(const char *what);

#endif
