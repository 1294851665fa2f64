/* bench/peer_places.c - where the peers' libraries lie, and the environment in which their threads do best */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"

const peer_place peer_places[] = {
    {"openblas",
     {true, true},
     {"/usr/lib/*/openblas-pthread/libopenblas.so.0", "/usr/lib/*/openblas-openmp/libopenblas.so.0",
      "/usr/lib64/libopenblasp.so.0", "/opt/OpenBLAS/lib/libopenblas.so.0"},
     "libopenblas.so.0"},
    {"blis",
     {true, true},
     {"/usr/lib/*/blis-openmp/libblis.so.*", "/usr/lib/*/blis-pthread/libblis.so.*",
      "/opt/AMD/aocl/*/gcc/lib/libblis-mt.so"},
     "libblis.so.4:libblis.so.3"},
    {"mkl",
     {true, true},
     {"/opt/intel/oneapi/mkl/latest/lib/libmkl_rt.so", "/usr/lib/*/libmkl_rt.so"},
     "libmkl_rt.so.3:libmkl_rt.so.2:libmkl_rt.so"},
    {"onednn", {true, false}, {"/opt/intel/oneapi/dnnl/latest/lib/libdnnl.so.3"}, "libdnnl.so.3"},
    {"torch", {false, true}, {NULL}, NULL}, /* a Python that has it */
    {0},
};

static const char the_threads[] = "as many as the program uses", the_waiting[] = "by use";

/*
 * Waiting threads spin: nobody else runs while a peer has its turn. But where a library makes the products of
 * attention alone, our softmax between them has threads of its own, and spinning ones would take their time.
 */
static const char *waiting(const char *api, bench_use use)
{
    return use == BENCH_ATTENTION && strcmp(api, "torch") != 0 ? "passive" : "active";
}

typedef struct setting {
    const char *api, *name, *value; /* api NULL: of all; value NULL: must not be set */
} setting;

static const setting settings[] = {
    {NULL, "OMP_NUM_THREADS", the_threads},       {NULL, "OMP_DYNAMIC", "false"},
    {NULL, "OMP_WAIT_POLICY", the_waiting},       {"openblas", "OPENBLAS_NUM_THREADS", the_threads},
    {"openblas", "OPENBLAS_CORETYPE", NULL}, /* it finds the processor, and the cache's size, itself */
    {"openblas", "OPENBLAS_L2_SIZE", NULL},       {"blis", "BLIS_NUM_THREADS", the_threads},
    {"mkl", "MKL_NUM_THREADS", the_threads},      {"mkl", "MKL_DYNAMIC", "false"},
    {"onednn", "DPCPP_CPU_NUM_CUS", the_threads}, /* builds whose threads are a SYCL device's */
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static bool applies(const setting *s, const char *api) { return s->api == NULL || strcmp(s->api, api) == 0; }

static bool is_named(const char *entry, const char *name)
{
    const size_t n = strlen(name);
    return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

/* A wheel's library finds those beside it, and its SYCL runtime the driver there, only if it is told; which
 * cannot be done of a folder whose name holds what separates folders. */
static bool add_folder(const char *path, char **out)
{
    const char *slash = strrchr(path, '/'), *old = getenv("LD_LIBRARY_PATH");
    char *driver = NULL;
    if (slash == NULL) return true;
    const int n = (int)(slash - path);
    if (strcspn(path, ":;") < (size_t)n) return true;
    if (asprintf(&out[0], "LD_LIBRARY_PATH=%.*s%s%s", n, path, old == NULL ? "" : ":",
                 old == NULL ? "" : old) < 0) {
        out[0] = NULL;
        return false;
    }
    if (asprintf(&driver, "OCL_ICD_FILENAMES=%.*s/libintelocl.so", n, path) < 0) return false;
    if (access(strchr(driver, '=') + 1, R_OK) == 0)
        out[1] = driver;
    else
        free(driver);
    return true;
}

/* "NAME=value"; NULL: out of memory. */
static char *text_of(const setting *s, const char *api, bench_use use, int32_t n_threads)
{
    char *text = NULL;
    const int n = s->value == the_threads ? asprintf(&text, "%s=%d", s->name, (int)n_threads)
                                          : asprintf(&text, "%s=%s", s->name,
                                                     s->value == the_waiting ? waiting(api, use) : s->value);
    return n < 0 ? NULL : text;
}

char **peer_environment(const char *api, bench_use use, const char *path, int32_t n_threads)
{
    int n = 0;
    while (environ[n] != NULL) n++;
    char **out = calloc((size_t)n + N_SETTINGS + 3, sizeof *out);
    if (out == NULL) return NULL;
    bool good = strcmp(api, "torch") == 0 || add_folder(path, out);
    n = out[0] == NULL ? 0 : out[1] == NULL ? 1 : 2;
    const int n_own = n;
    for (int i = 0; i < N_SETTINGS && good; i++) {
        const setting *s = &settings[i];
        if (!applies(s, api) || s->value == NULL) continue;
        out[n] = text_of(s, api, use, n_threads);
        good = out[n] != NULL;
        n += good;
    }
    for (int i = 0; environ[i] != NULL && good; i++) {
        bool ours = false;
        for (int s = 0; s < N_SETTINGS; s++)
            ours = ours || (applies(&settings[s], api) && is_named(environ[i], settings[s].name));
        for (int j = 0; j < n_own; j++)
            ours = ours || strncmp(environ[i], out[j], (size_t)(strchr(out[j], '=') + 1 - out[j])) == 0;
        if (ours) continue;
        out[n] = strdup(environ[i]);
        good = out[n] != NULL;
        n += good;
    }
    if (good) return out;
    peer_environment_free(out);
    return NULL;
}

void peer_environment_free(char **environment)
{
    for (int i = 0; environment != NULL && environment[i] != NULL; i++) free(environment[i]);
    free(environment);
}

void peer_environment_describe(const char *api, char *const *environment, char *text, size_t size)
{
    text[0] = '\0';
    for (int s = 0; s < N_SETTINGS; s++) {
        if (!applies(&settings[s], api)) continue;
        const size_t used = strlen(text);
        if (settings[s].value == NULL)
            snprintf(text + used, size - used, "%s%s unset", used == 0 ? "" : " ", settings[s].name);
        for (int i = 0; environment[i] != NULL; i++)
            if (settings[s].value != NULL && is_named(environment[i], settings[s].name))
                snprintf(text + used, size - used, "%s%s", used == 0 ? "" : " ", environment[i]);
    }
}
