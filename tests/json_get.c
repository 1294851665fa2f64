/*
 * json_get.c - looks into JSON that the program printed, for e2e tests
 *
 *     json_get FILE KEY
 *
 * The file must hold one object and nothing else; prints the value of the key as JSON.
 */
#include <jansson.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    json_error_t error;
    json_t *root = json_load_file(argv[1], JSON_REJECT_DUPLICATES, &error);
    const json_t *value = json_object_get(root, argv[2]);
    if (value == NULL)
        fprintf(stderr, "%s: %s\n", argv[1], root == NULL ? error.text : "no object with that key");
    else
        json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_COMPACT), putchar('\n');
    json_decref(root);
    return value == NULL;
}
