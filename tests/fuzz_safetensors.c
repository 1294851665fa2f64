/* fuzz_safetensors.c - any bytes as a safetensors file or, if they start like JSON, as an index of shards */
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"
#include "kit/fuzz.h"

static void use(const tsr_safetensors *st, const uint8_t *data, size_t nbytes)
{
    size_t n, total = 0;
    const tsr_stored *list = tsr_safetensors_list(st, &n);
    for (size_t i = 0; i < n; i++) {
        const tsr_stored *s = &list[i];
        if (s->data < data || s->nbytes > (size_t)(data + nbytes - s->data)) abort();
        if (tsr_safetensors_find(st, s->name) != s) abort();
        double *copy = malloc(s->nbytes + 1);
        if (copy == NULL || tsr_stored_read(s, s->dtype, copy) != TSR_OK) abort();
        free(copy);
        total += s->nbytes;
    }
    if (total > nbytes) abort(); /* no byte belongs to two tensors */
}

static tsr_status try_index(const uint8_t *data, size_t nbytes)
{
    json_t *map, *shard;
    const char *name;
    const tsr_status status = tsr_safetensors_parse_index("fuzz", data, nbytes, &map);
    if (status != TSR_OK) return status;
    json_object_foreach(map, name, shard) if (strchr(json_string_value(shard), '/') != NULL ||
                                              json_string_value(shard)[0] == '.') abort();
    json_decref(map);
    return TSR_OK;
}

static tsr_status try_file(const uint8_t *data, size_t nbytes)
{
    tsr_safetensors *st;
    const tsr_status status = tsr_safetensors_parse("fuzz", data, nbytes, &st);
    if (status != TSR_OK) return status;
    use(st, data, nbytes);
    tsr_safetensors_close(st);
    return TSR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    /* The files that start with '{' too, whose header has 123 bytes modulo 256, go untried. */
    const tsr_status status = nbytes > 0 && data[0] == '{' ? try_index(data, nbytes) : try_file(data, nbytes);
    if (status != TSR_OK && (status != TSR_ERR_FORMAT || tsr_last_error()[0] == '\0')) abort();
    return 0;
}

KIT_FUZZ_MAIN("safetensors");
