/*
 * format/npy.h - NumPy's .npy files
 *
 *     \x93NUMPY | major minor | header length | header ............... \n | elements
 *      6 bytes       1 + 1      u16, or u32     a Python dict literal,
 *                               from version 2  padded with spaces
 *
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
 *
 * Read: versions 1 to 3, C and Fortran order, rank 0 to 4, little-endian f32, f64, f16, s8, i32,
 * i64 and bool (any nonzero byte is true). Refused by name: big-endian, object and structured
 * dtypes. The file must end where the elements end.
 */
#ifndef TSR_FORMAT_NPY_H
#define TSR_FORMAT_NPY_H

#include "format/file.h"

/* An array and the memory that it lies in. */
typedef struct tsr_npy {
    tsr_tensor tensor; /* Fortran order shows in its strides */
    tsr_file file;
} tsr_npy;

tsr_status tsr_npy_read(const char *path, tsr_npy *out);
void tsr_npy_release(tsr_npy *npy);

/*
 * The same from memory. The view lies inside `data`; elements that the file did not align are
 * moved to its beginning, which must be 64-byte aligned. `name` stands for the file in messages.
 */
tsr_status tsr_npy_parse(const char *name, void *data, size_t nbytes, tsr_tensor *out);

/* Version 1, C order, from a view in host memory with any strides. bf16 has no .npy dtype: TSR_ERR_DTYPE. */
tsr_status tsr_npy_write(const char *path, const tsr_tensor *t);

#endif
