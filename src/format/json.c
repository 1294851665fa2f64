/* format/json.c - documents and typed fields */
#include "format/json.h"

#include "base/error.h"
#include "format/file.h"
#include "format/printable.h"

tsr_status tsr_json_parse(const char *name, const void *text, size_t nbytes, json_t **out)
{
    json_error_t error;
    json_t *root = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        const tsr_status status = json_error_code(&error) == json_error_out_of_memory ? TSR_ERR_MEMORY
                                                                                      : TSR_ERR_FORMAT;
        return tsr_fail(status, "%s, line %d: %s", name, error.line, tsr_printable(error.text).text);
    }
    *out = root;
    return TSR_OK;
}

tsr_status tsr_json_read(const char *path, size_t max_nbytes, json_t **out)
{
    tsr_file file = {0};
    TSR_TRY(tsr_file_read(path, max_nbytes, &file));
    const tsr_status status = tsr_json_parse(path, file.data, file.nbytes, out);
    tsr_file_release(&file);
    return status;
}

const char *tsr_json_kind(const json_t *value)
{
    if (value == NULL) return "missing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "unknown";
}

bool tsr_json_has(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value != NULL && !json_is_null(value);
}

static tsr_status refuse_kind(const json_t *value, const char *name, const char *key, const char *expected)
{
    return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %s, must be %s", name, tsr_printable(key).text,
                    tsr_json_kind(value), expected);
}

tsr_status tsr_json_integer(const json_t *object, const char *name, const char *key, int64_t low,
                            int64_t high, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) return refuse_kind(value, name, key, "an integer");
    const int64_t i = json_integer_value(value);
    if (i < low || i > high)
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %lld, must be %lld to %lld", name, tsr_printable(key).text,
                        (long long)i, (long long)low, (long long)high);
    *out = i;
    return TSR_OK;
}

tsr_status tsr_json_real(const json_t *object, const char *name, const char *key, double low, double high,
                         double *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) return refuse_kind(value, name, key, "a number");
    const double x = json_number_value(value);
    if (!(x >= low && x <= high))
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %g, must be %g to %g", name, tsr_printable(key).text, x,
                        low, high);
    *out = x;
    return TSR_OK;
}

tsr_status tsr_json_bool(const json_t *object, const char *name, const char *key, bool *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value)) return refuse_kind(value, name, key, "true or false");
    *out = json_is_true(value);
    return TSR_OK;
}

tsr_status tsr_json_string(const json_t *object, const char *name, const char *key, const char **out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return refuse_kind(value, name, key, "a string");
    *out = json_string_value(value);
    return TSR_OK;
}

tsr_status tsr_json_object(const json_t *object, const char *name, const char *key, json_t **out)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_object(value)) return refuse_kind(value, name, key, "an object");
    *out = value;
    return TSR_OK;
}

tsr_status tsr_json_array(const json_t *object, const char *name, const char *key, json_t **out)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_array(value)) return refuse_kind(value, name, key, "an array");
    *out = value;
    return TSR_OK;
}
