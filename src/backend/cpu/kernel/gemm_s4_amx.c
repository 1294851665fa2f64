/*
 * gemm_s4_amx.c - s4 GEMM micro-kernel in AMX tiles: C[32, 32] = alpha A[32, k] B[k, 32] + beta C
 *
 * What gemm_s4.c computes, from the same panels in groups: a group's sums are integers, here of a * (u4 -
 * zero), whose second factor fits s8; groups are added in f32, in order. Along k it goes by steps, of 64
 * elements or of a group if that is shorter. While tiles multiply a step, vectors do the rest, in the first
 * cache:
 *
 *     step s + AHEAD of B    -> words of four s8, 1 or 2 KiB
 *     step s                 -> products, s32; behind a group's last step its sums are stored
 *     the group before       -> totals += scale * sums, f32, a part of the rows with each step
 *
 * A tile load waits until earlier stores have left the processor, so B is widened AHEAD steps before it is
 * needed (16 rows, groups of 128: 250 cycles a group; one step ahead 350 to 480). Widening takes 64 stores a
 * group of 128, however few the rows; sums and totals take 4 more for each row. A group takes some 120 to 140
 * cycles more than it has stores, of which one leaves in a cycle.
 */
#include "backend/cpu/kernel/amx_tiles.h"
#include "backend/cpu/kernel/gemm.h"
#include "backend/cpu/kernel/gemm_result.h"
#include "backend/cpu/kernel/pack_s4.h"

enum {
    NV = NR / VL,
    AHEAD = 3, /* steps */
    RING = AHEAD + 1,
    FETCH_NBYTES = 2048,    /* ahead in B, for the first cache ... */
    FETCH_FAR_NBYTES = 8192 /* ... and for the second */
};

/* What one run works on. */
typedef struct s4_run {
    const char *a;
    int64_t a_stride, m;
    const char *b;
    int64_t group_nbytes; /* of b */
    int64_t n_steps;
    int group_shift; /* a group has 1 or 2 steps, 1 << group_shift */
    _Alignas(64) uint32_t unpacked[RING][TILE_ROWS][NR];
    int32_t sums[2][MR][NR];
    char apart[2048]; /* or a total would seem, by its last 12 bits, the sum that is just being stored */
    float totals[MR][NR];
} s4_run;

TSR_INLINE const char *group_at(const s4_run *r, int64_t g) { return r->b + g * r->group_nbytes; }

TSR_INLINE vu32 load_and_fetch_ahead(const char *at)
{
    __builtin_prefetch(at + FETCH_NBYTES);
    __builtin_prefetch(at + FETCH_FAR_NBYTES, 0, 2);
    return vu32_load(at);
}

/* Step s of B; beyond the last there is none. */
TSR_INLINE void unpack(s4_run *r, int64_t s, const int depth, const bool has_zeros, const int nv)
{
    if (s >= r->n_steps) return;
    const uint8_t *zeros = (const uint8_t *)group_at(r, s >> r->group_shift) + 4 * NR;
    const char *words = (const char *)zeros + (has_zeros ? NR : 0);
    words += (s & ((1 << r->group_shift) - 1)) * depth / 2 * NR * 4;
    UNROLL for (int j = 0; j < nv; j++)
    {
        const char *from = words + j * VL * 4;
        uint32_t *to = &r->unpacked[s % RING][0][j * VL];
        vi8x4 zero = {0};
        if (has_zeros) zero = (vi8x4)(vu32_from_u8(zeros + j * VL) * 0x01010101u);
        UNROLL for (int64_t q = 0; q < depth / 2; q++)
        {
            const vu32 w = load_and_fetch_ahead(from + q * NR * 4);
            UNROLL for (int half = 0; half < 2; half++, to += NR)
                vu32_store(to, has_zeros ? (vu32)((vi8x4)vu32_half_bytes(w, half) - zero)
                                         : vu32_half_bytes_less_8(w, half));
        }
    }
}

/* Step s of A times that of B, which is the first of a group or not. */
TSR_INLINE void step(const s4_run *r, int64_t s, const int depth, const bool begins, const bool lower,
                     const bool right)
{
    const char *a = r->a + s * depth * 4, *b = (const char *)r->unpacked[s % RING];
    TILE_LOAD(A0, a, r->a_stride);
    TILE_LOAD(B0, b, NR * 4);
    if (right) TILE_LOAD(B1, b + TILE_NBYTES, NR * 4);
    if (lower) TILE_LOAD(A1, a + TILE_ROWS * r->a_stride, r->a_stride);
    if (begins) {
        TILE_ZERO(C00);
        if (right) TILE_ZERO(C01);
        if (lower) TILE_ZERO(C10);
        if (lower && right) TILE_ZERO(C11);
    }
    TILE_ADD_S8(C00, A0, B0);
    if (right) TILE_ADD_S8(C01, A0, B1);
    if (lower) TILE_ADD_S8(C10, A1, B0);
    if (lower && right) TILE_ADD_S8(C11, A1, B1);
}

/* Rows [first, end) of group g's sums, to the totals. */
TSR_INLINE void add_group(s4_run *r, int64_t g, int64_t first, int64_t end, const int nv)
{
    vf32 scale[NV];
    UNROLL for (int j = 0; j < nv; j++) scale[j] = vf32_load((const float *)group_at(r, g) + j * VL);
    UNROLL_BY_4 for (int64_t i = first; i < end; i++) UNROLL for (int j = 0; j < nv; j++)
    {
        const vi32 sums = (vi32)vu32_load(&r->sums[g % 2][i][j * VL]);
        float *total = &r->totals[i][j * VL];
        vf32_store(total, vf32_load(total) + __builtin_convertvector(sums, vf32) * scale[j]);
    }
}

/* depth, words of four s8 in a step, has_zeros, lower and right are constants at every call. */
TSR_INLINE void add_groups(s4_run *r, const int depth, const bool has_zeros, const bool lower,
                           const bool right)
{
    const int nv = right ? NV : NV / 2;
    const int64_t n = 1 << r->group_shift, n_groups = r->n_steps >> r->group_shift;
    for (int64_t s = 0; s < AHEAD; s++) unpack(r, s, depth, has_zeros, nv);
    for (int64_t g = 0; g < n_groups; g++) {
        for (int64_t i = 0; i < n; i++) {
            step(r, g * n + i, depth, i == 0, lower, right);
            unpack(r, g * n + i + AHEAD, depth, has_zeros, nv);
            if (g > 0) add_group(r, g - 1, r->m * i >> r->group_shift, r->m * (i + 1) >> r->group_shift, nv);
        }
        store_tiles((char *)r->sums[g % 2], NR * 4, lower, right);
    }
    if (n_groups > 0) add_group(r, n_groups - 1, 0, r->m, nv);
}

TSR_INLINE void add_all(s4_run *r, const int depth, const bool has_zeros, int64_t m, int64_t n)
{
    const bool lower = m > TILE_ROWS, right = n > TILE_ROWS;
    if (lower && right)
        add_groups(r, depth, has_zeros, true, true);
    else if (lower)
        add_groups(r, depth, has_zeros, true, false);
    else if (right)
        add_groups(r, depth, has_zeros, false, true);
    else
        add_groups(r, depth, has_zeros, false, false);
}

static void run(const tsr_gemm_tile *t, int64_t m, int64_t n)
{
    s4_run r;
    const int64_t group_words = t->group / 4, depth = group_words < TILE_ROWS ? group_words : TILE_ROWS;
    r.a = t->a, r.a_stride = t->a_row * 4, r.m = m;
    r.b = t->b;
    r.group_nbytes = tsr_gemm_s4_panel_nbytes(NR, t->group, t->group, t->has_zeros);
    r.group_shift = group_words > depth;
    r.n_steps = t->k * WORD / 4 / depth;
    memset(r.totals, 0, (size_t)m * sizeof r.totals[0]);
    configure(m, TILE_ROWS, depth);
    if (depth == TILE_ROWS && t->has_zeros)
        add_all(&r, TILE_ROWS, true, m, n);
    else if (depth == TILE_ROWS)
        add_all(&r, TILE_ROWS, false, m, n);
    else if (t->has_zeros)
        add_all(&r, TILE_ROWS / 2, true, m, n);
    else
        add_all(&r, TILE_ROWS / 2, false, m, n);
    float *c = t->c;
    for (int64_t i = 0; i < m; i++, c += t->c_row)
        UNROLL for (int j = 0; j < NV; j++)
            store_result(c + j * VL, vf32_load(&r.totals[i][j * VL]), t->alpha, t->beta, n - j * VL);
}

const tsr_gemm_kernel TSR_NAME(tsr_gemm_s4) = {
    .name = "gemm_s4_" TSR_SET_NAME "_32x32",
    .isa = TSR_ISA_HERE,
    .lanes = VL,
    .mr = MR,
    .nr = NR,
    .k_word = WORD,
    .k_align = 1,
    .chunk_words = TSR_GEMM_CHUNK_WORDS,
    .block_rows = 512,
    .block_columns = 512, /* whose panels take half of the second cache: tiles of rows meet them from there */
    .run = run,
    .pack_s4 = pack_s4,
    .a_words = 1,
    .pack_a = pack_a,
    .enter = enter,
    .leave = leave,
};
