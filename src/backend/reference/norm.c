/*
 * backend/reference/norm.c - RMSNorm and LayerNorm over the last dimension
 *
 *     x' = (x - mean) * rstd      y = x' * weight + bias      rstd = 1 / sqrt(mean((x - mean)^2) + eps)
 *
 * RMSNorm is the same with mean = 0 and no bias.
 */
#include <math.h>
#include <string.h>

#include "backend/reference/reference.h"

/* One row of a view: where it starts, and the step along it. Absent: at is never used. */
typedef struct ref_row {
    const tsr_tensor *t;
    int64_t at, step;
} ref_row;

static ref_row row_of(const tsr_tensor *t, int64_t row)
{
    if (t->data == NULL) return (ref_row){.t = t};
    const int32_t last = t->rank - 1;
    return (ref_row){t, ref_offset(t, last, row), t->stride[last]};
}
static double get(ref_row r, int64_t j) { return ref_get(r.t, r.at + j * r.step); }
static void set(ref_row r, int64_t j, double value) { ref_set(r.t, r.at + j * r.step, value); }

/* Entry `row` of a per-row view (mean, rstd). */
static double get_of_row(const tsr_tensor *t, int64_t row) { return ref_get(t, ref_offset(t, t->rank, row)); }
static void set_of_row(const tsr_tensor *t, int64_t row, double value)
{
    if (t->data != NULL) ref_set(t, ref_offset(t, t->rank, row), value);
}

tsr_status ref_norm_fwd(void *state, const tsr_norm_fwd_args *args, void *workspace)
{
    (void)state, (void)workspace;
    const int64_t n = args->x.shape[args->x.rank - 1];
    /* Rows without an element have statistics all the same. */
    const int64_t n_rows = args->rstd.data != NULL ? tsr_tensor_numel(&args->rstd) : ref_n_rows(&args->x);
    const ref_row weight = row_of(&args->weight, 0), bias = row_of(&args->bias, 0);
    for (int64_t row = 0; row < n_rows; row++) {
        const ref_row x = row_of(&args->x, row), y = row_of(&args->y, row);
        double mean = 0, square = 0;
        for (int64_t j = 0; j < n && args->centred; j++) mean += get(x, j);
        mean /= (double)n;
        for (int64_t j = 0; j < n; j++) square += (get(x, j) - mean) * (get(x, j) - mean);
        const double rstd = 1 / sqrt(square / (double)n + args->eps);
        for (int64_t j = 0; j < n; j++)
            set(y, j,
                (get(x, j) - mean) * rstd * get(weight, j) + (args->bias.data != NULL ? get(bias, j) : 0));
        set_of_row(&args->mean, row, mean);
        set_of_row(&args->rstd, row, rstd);
    }
    return TSR_OK;
}

/* The workspace: double sums of dweight [n] and dbias [n]. */
size_t ref_norm_bwd_workspace(const void *state, const tsr_norm_bwd_args *args)
{
    (void)state;
    const size_t n = (size_t)args->x.shape[args->x.rank - 1];
    return n > SIZE_MAX / (2 * sizeof(double)) ? SIZE_MAX : 2 * n * sizeof(double);
}

/*
 * g = dy * weight     dx = rstd * (g - mean(g) - x' mean(g x'))     RMSNorm: without mean(g)
 * dweight = sum over rows of dy * x'                                dbias = sum over rows of dy
 */
static void backward_row(const tsr_norm_bwd_args *args, int64_t row, double *dweight, double *dbias)
{
    const int64_t n = args->x.shape[args->x.rank - 1];
    const ref_row x = row_of(&args->x, row), dy = row_of(&args->dy, row), dx = row_of(&args->dx, row);
    const ref_row weight = row_of(&args->weight, 0);
    const double mean = args->centred ? get_of_row(&args->mean, row) : 0, rstd = get_of_row(&args->rstd, row);
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < n; j++) {
        const double normal = (get(x, j) - mean) * rstd, g = get(dy, j) * get(weight, j);
        mean_g += args->centred ? g : 0;
        mean_gx += g * normal;
        dweight[j] += get(dy, j) * normal;
        dbias[j] += get(dy, j);
    }
    mean_g /= (double)n, mean_gx /= (double)n;
    for (int64_t j = 0; j < n && args->dx.data != NULL; j++) {
        const double normal = (get(x, j) - mean) * rstd, g = get(dy, j) * get(weight, j);
        const double gradient = rstd * (g - mean_g - normal * mean_gx);
        set(dx, j, args->accumulate ? get(dx, j) + gradient : gradient);
    }
}

tsr_status ref_norm_bwd(void *state, const tsr_norm_bwd_args *args, void *workspace)
{
    (void)state;
    const int64_t n = args->x.shape[args->x.rank - 1], n_rows = ref_n_rows(&args->x);
    double *dweight = workspace, *dbias = dweight + n;
    memset(workspace, 0, 2 * (size_t)n * sizeof(double));
    for (int64_t row = 0; row < n_rows; row++) backward_row(args, row, dweight, dbias);
    for (int64_t j = 0; j < n; j++) {
        if (args->dweight.data != NULL) set(row_of(&args->dweight, 0), j, dweight[j]);
        if (args->dbias.data != NULL) set(row_of(&args->dbias, 0), j, dbias[j]);
    }
    return TSR_OK;
}
