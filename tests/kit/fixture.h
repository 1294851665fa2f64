/*
 * tests/kit/fixture.h - what another program computed: cases of named tensors, from tests/fixtures/operators
 *
 * A file is a sequence of records (tools/make_fixtures_operators.py writes them):
 *
 *     case NAME\n
 *     tensor NAME DTYPE RANK EXTENT ...\n   then its data, row-major, little-endian
 */
#ifndef TSR_KIT_FIXTURE_H
#define TSR_KIT_FIXTURE_H

#include "kit/tensor.h"

enum { KIT_FIXTURE_TENSORS = 32 };

typedef struct kit_fixture_tensor_record {
    char name[32];
    tsr_tensor view; /* row-major; its data may lie at any address */
} kit_fixture_tensor_record;

typedef struct kit_fixture {
    char *bytes;
    const char *at, *end;
    char file[32], name[32]; /* of the case */
    int32_t n_tensors;
    kit_fixture_tensor_record tensor[KIT_FIXTURE_TENSORS];
} kit_fixture;

/* "attention" opens attention.fix; any failure, here or below, fails the test. Ends with the last case. */
kit_fixture kit_fixture_open(const char *file);

/* The next case, or false and the file is closed. */
bool kit_fixture_next(kit_fixture *f);

bool kit_fixture_has(const kit_fixture *f, const char *tensor);

/* A tensor of the case: in memory of the kit, in the dtype and layout wanted. */
tsr_tensor kit_fixture_get(const kit_fixture *f, const char *tensor, tsr_dtype dtype, kit_layout layout);

/* Its only element; `absent` if the case has none. */
double kit_fixture_number(const kit_fixture *f, const char *tensor, double absent);

#endif
