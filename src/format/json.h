/*
 * format/json.h - JSON through jansson, with the checks every file of ours wants
 *
 * Refused: duplicate keys, text after the document, invalid UTF-8, nesting beyond jansson's
 * limit. Messages carry the file and the line, or the file and the field.
 */
#ifndef TSR_FORMAT_JSON_H
#define TSR_FORMAT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "tessera/status.h"

/* `name` stands for the file in messages. Release *out with json_decref. */
tsr_status tsr_json_parse(const char *name, const void *text, size_t nbytes, json_t **out);
tsr_status tsr_json_read(const char *path, size_t max_nbytes, json_t **out);

/* True if the object has the field and it is not null. */
bool tsr_json_has(const json_t *object, const char *key);

/*
 * A field of an object; missing, of another type or out of [low, high] is TSR_ERR_FORMAT, and
 * *out stays. Strings and values are borrowed from the document. A real may be written as an integer.
 */
tsr_status tsr_json_integer(const json_t *object, const char *name, const char *key, int64_t low,
                            int64_t high, int64_t *out);
tsr_status tsr_json_real(const json_t *object, const char *name, const char *key, double low, double high,
                         double *out);
tsr_status tsr_json_bool(const json_t *object, const char *name, const char *key, bool *out);
tsr_status tsr_json_string(const json_t *object, const char *name, const char *key, const char **out);
tsr_status tsr_json_object(const json_t *object, const char *name, const char *key, json_t **out);
tsr_status tsr_json_array(const json_t *object, const char *name, const char *key, json_t **out);

/* "a string", "an object" ...: what a value is, for messages; NULL is "missing". */
const char *tsr_json_kind(const json_t *value);

#endif
