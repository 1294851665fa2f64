/*
 * backend/reference/linear.c - packed weights and the products with them
 *
 *     | scales f32 [n, groups] | zeros s8 [n, groups] | values [n, k] |  then the same of the gate
 *
 * A weight as it is has values alone. Sums of quantised values are whole numbers and exact; they are scaled,
 * and all that follows happens, in double.
 */
#include "backend/reference/reference.h"
#include "backend/weight_values.h"
#include "base/arena.h"
#include "base/error.h"

/* W or G: values [n, k] where they lie; scales and zeros of a quantised one. */
typedef struct matrix {
    tsr_tensor values;
    float *scales;
    int8_t *zeros; /* NULL: none */
} matrix;

static matrix take_matrix(tsr_arena *packed, const tsr_weight_layout *layout)
{
    const size_t n_scales = (size_t)(layout->n * tsr_weight_n_groups(layout));
    const bool has_zeros = layout->format == TSR_WEIGHT_INT4_ZERO;
    matrix m = {.values = tsr_tensor_2d(NULL, layout->dtype, layout->n, layout->k)};
    m.scales = tsr_arena_take(packed, n_scales, sizeof *m.scales);
    m.zeros = tsr_arena_take(packed, has_zeros ? n_scales : 0, sizeof *m.zeros);
    if (!has_zeros) m.zeros = NULL;
    m.values.data = tsr_arena_take(packed, (size_t)(layout->n * layout->k), tsr_dtype_nbytes(layout->dtype));
    return m;
}

size_t ref_weight_nbytes(const void *state, const tsr_weight_layout *layout)
{
    (void)state;
    tsr_arena counted = {0};
    take_matrix(&counted, layout);
    if (layout->gated) take_matrix(&counted, layout);
    return counted.used;
}

static void pack(const tsr_weight_layout *layout, const tsr_weight_source *src, const matrix *to)
{
    const int64_t numel = tsr_tensor_numel(&to->values), n_groups = tsr_weight_n_groups(layout);
    if (layout->format == TSR_WEIGHT_AS_IS) {
        for (int64_t i = 0; i < numel; i++) ref_set(&to->values, i, ref_get_nth(&src->values, i));
        return;
    }
    if (n_groups == 0) return; /* k = 0: there may be more rows than anyone could count to */
    for (int64_t j = 0; j < layout->n; j++)
        tsr_weight_quantise_row(layout, src, j, (int8_t *)to->values.data + j * layout->k,
                                to->scales + j * n_groups,
                                to->zeros != NULL ? to->zeros + j * n_groups : NULL);
}

tsr_status ref_weight_pack(void *state, const tsr_weight_pack_args *args, void *workspace)
{
    (void)workspace;
    TSR_TRY(tsr_check_weight_values(args));
    tsr_arena packed = tsr_arena_over(args->packed, ref_weight_nbytes(state, &args->layout));
    const matrix w = take_matrix(&packed, &args->layout);
    pack(&args->layout, &args->w, &w);
    if (args->layout.gated) {
        const matrix gate = take_matrix(&packed, &args->layout);
        pack(&args->layout, &args->gate, &gate);
    }
    return TSR_OK;
}

/* One row of x; quantised where the weight is: x = s * q. */
typedef struct row {
    const tsr_tensor *x;
    int64_t first; /* offset in x */
    int8_t *q;
    double s;
} row;

static double dot(const row *r, const matrix *w, int64_t j)
{
    double sum = 0;
    const int64_t x_stride = r->x->stride[1], w_first = j * w->values.stride[0];
    for (int64_t p = 0; p < w->values.shape[1]; p++)
        sum += ref_get(r->x, r->first + p * x_stride) *
               ref_get(&w->values, w_first + p * w->values.stride[1]);
    return sum;
}

static double quantised_dot(const tsr_weight_layout *layout, const row *r, const matrix *w, int64_t j)
{
    double sum = 0;
    const int64_t n_groups = tsr_weight_n_groups(layout), length = n_groups > 0 ? layout->k / n_groups : 0;
    const int8_t *values = (const int8_t *)w->values.data + j * layout->k;
    for (int64_t g = 0; g < n_groups; g++) {
        const int zero = w->zeros != NULL ? w->zeros[j * n_groups + g] : 0;
        int64_t whole = 0;
        for (int64_t p = g * length; p < (g + 1) * length; p++) whole += r->q[p] * (values[p] - zero);
        sum += (double)w->scales[j * n_groups + g] * (double)whole;
    }
    return r->s * sum;
}

static double scaled(const tsr_linear_args *args, const row *r, const matrix *w, const tsr_tensor *bias,
                     int64_t j)
{
    const double product = args->layout.format == TSR_WEIGHT_AS_IS ? dot(r, w, j)
                                                                   : quantised_dot(&args->layout, r, w, j);
    return args->scale * product + (bias->data != NULL ? ref_get(bias, j * bias->stride[0]) : 0);
}

static void multiply_row(const tsr_linear_args *args, const row *r, const matrix *w, const matrix *gate,
                         int64_t i)
{
    const tsr_tensor *y = &args->y, *residual = &args->residual;
    for (int64_t j = 0; j < args->layout.n; j++) {
        double v = scaled(args, r, w, &args->bias, j);
        if (args->layout.gated)
            v *= ref_activate(args->activation, scaled(args, r, gate, &args->gate_bias, j));
        else
            v = ref_activate(args->activation, v);
        if (residual->data != NULL) v += ref_get(residual, i * residual->stride[0] + j * residual->stride[1]);
        ref_set(y, i * y->stride[0] + j * y->stride[1], v / args->y_scale);
    }
}

/* A quantised row of x. */
size_t ref_linear_workspace(const void *state, const tsr_linear_args *args)
{
    (void)state;
    return args->layout.format == TSR_WEIGHT_AS_IS ? 0 : (size_t)args->layout.k;
}

tsr_status ref_linear(void *state, const tsr_linear_args *args, void *workspace)
{
    const tsr_tensor *x = &args->x;
    const bool quantised = args->layout.format != TSR_WEIGHT_AS_IS;
    matrix w = {.values = args->plain}, gate = {.scales = NULL};
    if (args->packed != NULL) {
        /* Only read from here on: an arena knows no const. */
        tsr_arena packed = tsr_arena_over((void *)args->packed, ref_weight_nbytes(state, &args->layout));
        w = take_matrix(&packed, &args->layout);
        if (args->layout.gated) gate = take_matrix(&packed, &args->layout);
    }
    for (int64_t i = 0, n_rows = ref_n_rows(&args->y); i < n_rows; i++) {
        row r = {.x = x, .first = i * x->stride[0], .q = workspace};
        if (quantised)
            r.s = (double)tsr_quantise_row(tsr_tensor_at(x, r.first), x->dtype, x->stride[1], args->layout.k,
                                           r.q);
        multiply_row(args, &r, &w, &gate, i);
    }
    return TSR_OK;
}
