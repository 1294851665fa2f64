/* bench/peer.c - starting the peers, their turns, stopping them in between */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "format/printable.h"

typedef struct peer {
    char name[32];
    const char *api;
    pid_t pid;
    int socket;           /* -1: dead */
    char text[PEER_TEXT]; /* the library, then what it calls */
    char said[PEER_TEXT]; /* the last reason for not taking part: said once */
} peer;

struct bench_peers {
    peer list[BENCH_MAX_PEERS];
    int n;
};

static void bury(peer *p)
{
    if (p->socket < 0) return;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    close(p->socket);
    p->socket = -1;
}

/* Stopped for certain when this returns; a child that ended instead is noticed at its next turn. */
static void stop(const peer *p)
{
    siginfo_t info;
    kill(p->pid, SIGSTOP);
    while (waitid(P_PID, (id_t)p->pid, &info, WSTOPPED | WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
}

static bool receive(const peer *p, peer_reply *reply)
{
    size_t got = 0;
    while (got < sizeof *reply) {
        const ssize_t n = recv(p->socket, (char *)reply + got, sizeof *reply - got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        got += (size_t)n;
    }
    reply->text[PEER_TEXT - 1] = '\0';
    return true;
}

/* One turn: continued, asked, answered, stopped. false: the child is gone, which is said on stderr. */
static bool take_turn(peer *p, const peer_request *request, peer_reply *reply)
{
    if (p->socket < 0) return false;
    kill(p->pid, SIGCONT);
    if (send(p->socket, request, sizeof *request, MSG_NOSIGNAL) == (ssize_t)sizeof *request &&
        receive(p, reply)) {
        stop(p);
        return true;
    }
    fprintf(stderr, "peer %s: its process ended while it worked, it is out\n", p->name);
    bury(p);
    return false;
}

static bool spawn(peer *p, bench_use use, const char *paths, int32_t n_threads)
{
    int pair[2];
    char settings[sizeof p->said], threads[16], size[16];
    snprintf(threads, sizeof threads, "%d", (int)n_threads);
    snprintf(size, sizeof size, "%zu", sizeof(peer_request));
    const bool is_python = strcmp(p->api, "torch") == 0;
    const char *program = is_python ? paths : "/proc/self/exe";
    char *ours[] = {"tessera", "bench", "serve-peer", p->name, (char *)paths, threads, NULL};
    char *python[] = {(char *)paths, "-c", (char *)peer_torch_script, size, threads, NULL};
    char **environment = peer_environment(p->api, use, paths, n_threads);
    if (environment == NULL) return false;
    peer_environment_describe(p->api, environment, settings, sizeof settings);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        peer_environment_free(environment);
        return false;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pair[1], PEER_SOCKET);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    const int failed = posix_spawnp(&p->pid, program, &actions, NULL, is_python ? python : ours, environment);
    posix_spawn_file_actions_destroy(&actions);
    peer_environment_free(environment);
    close(pair[1]);
    p->socket = pair[0];
    if (failed) {
        close(pair[0]);
        p->socket = -1;
        return false;
    }
    fcntl(p->socket, F_SETFD, FD_CLOEXEC);
    snprintf(p->said, sizeof p->said, "%s", settings);
    return true;
}

/* Starts one and hears which library it is. named: the path as the user wrote it, so that not to have it is
 * an error; NULL: it was looked for. */
static tsr_status open_one(bench_peers *peers, bench_use use, const char *name, const char *api,
                           const char *paths, const char *named, int32_t n_threads)
{
    peer *p = &peers->list[peers->n];
    peer_reply reply;
    *p = (peer){.api = api, .socket = -1};
    snprintf(p->name, sizeof p->name, "%s", name);
    if (!spawn(p, use, paths, n_threads)) {
        if (named != NULL)
            return tsr_fail(TSR_ERR_IO, "--peer %s: %s: it cannot be started", name,
                            tsr_printable(named).text);
        fprintf(stderr, "peer %s: no process can be started for it\n", name);
        return TSR_OK;
    }
    const bool answered = receive(p, &reply);
    if (!answered || !reply.ok) {
        const char *why = answered                    ? reply.text
                          : strcmp(api, "torch") == 0 ? "it is no Python that runs a script"
                                                      : "its process ended as the library was opened";
        bury(p);
        if (named != NULL)
            return tsr_fail(TSR_ERR_IO, "--peer %s: %s: %s", name, tsr_printable(named).text, why);
        fprintf(stderr, "peer %s: not used: %s\n", name, why);
        return TSR_OK;
    }
    stop(p);
    fprintf(stderr, "peer %s: %s, %s\n", name, reply.text, p->said);
    p->said[0] = '\0';
    peers->n++;
    return TSR_OK;
}

/* The API that a peer's name begins with, "mkl" of "mkl-2026"; NULL if there is none of that use. */
static const char *api_of(bench_use use, const char *name, size_t n)
{
    for (const peer_place *place = peer_places; place->api != NULL; place++) {
        const size_t length = strlen(place->api);
        if (place->uses[use] && n >= length && strncmp(name, place->api, length) == 0) return place->api;
    }
    return NULL;
}

/* A name that is safe in JSON and on a terminal, and how long it is; 0 if it is not. */
static size_t name_length(const char *text)
{
    const size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_+");
    return text[n] == '=' && n < sizeof((peer *)0)->name ? n : 0;
}

/* The loader would look elsewhere for a name without a folder. Links are followed by nobody: beside the name
 * that was given lie the libraries that this one needs, and by its own a Python knows its environment. */
static tsr_status open_path(bench_peers *peers, bench_use use, const char *name, const char *api,
                            const char *path, int32_t n_threads)
{
    const bool is_python = strcmp(api, "torch") == 0;
    const bool is_command = is_python && strchr(path, '/') == NULL; /* found by PATH */
    char *whole = NULL;
    if (asprintf(&whole, "%s%s", is_python || strchr(path, '/') != NULL ? "" : "./", path) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "--peer %s: out of memory", name);
    if (!is_command && access(whole, R_OK) != 0) {
        const int error = errno;
        free(whole);
        return tsr_fail(TSR_ERR_IO, "--peer %s: %s: %s", name, tsr_printable(path).text, strerror(error));
    }
    const tsr_status status = open_one(peers, use, name, api, whole, path, n_threads);
    free(whole);
    return status;
}

static tsr_status open_named(bench_peers *peers, bench_use use, const bench_peer_options *options,
                             int32_t n_threads)
{
    for (int i = 0; i < options->n_peers; i++) {
        const char *text = options->peers[i];
        const size_t n = name_length(text);
        const char *api = api_of(use, text, n), *path = text + n + 1;
        char name[sizeof((peer *)0)->name];
        if (api == NULL)
            return tsr_fail(TSR_ERR_ARGUMENT,
                            "--peer: '%s' is not name=path with a name that begins with openblas, blis, mkl "
                            "or %s",
                            tsr_printable(text).text, use == BENCH_PRODUCTS ? "onednn" : "torch");
        snprintf(name, sizeof name, "%.*s", (int)n, text);
        if (*path == '\0') return tsr_fail(TSR_ERR_ARGUMENT, "--peer %s: its path is empty", name);
        TSR_TRY(open_path(peers, use, name, api, path, n_threads));
    }
    return TSR_OK;
}

static bool has(const bench_peers *peers, const char *name)
{
    for (int i = 0; i < peers->n; i++)
        if (strcmp(peers->list[i].name, name) == 0) return true;
    return false;
}

static tsr_status open_found(bench_peers *peers, bench_use use, int32_t n_threads)
{
    for (const peer_place *place = peer_places; place->api != NULL; place++) {
        if (!place->uses[use] || place->names == NULL) continue;
        if (has(peers, place->api)) continue; /* a newer one was named */
        glob_t found = {0};
        const char *paths = place->names;
        for (int i = 0; place->patterns[i] != NULL && paths == place->names; i++)
            if (glob(place->patterns[i], i == 0 ? 0 : GLOB_APPEND, NULL, &found) == 0)
                paths = found.gl_pathv[0];
        const tsr_status status = open_one(peers, use, place->api, place->api, paths, NULL, n_threads);
        globfree(&found);
        TSR_TRY(status);
    }
    return TSR_OK;
}

tsr_status bench_peers_open(bench_use use, const bench_peer_options *options, int32_t n_threads,
                            bench_peers **out)
{
    bench_peers *peers = calloc(1, sizeof *peers);
    if (peers == NULL) return tsr_fail(TSR_ERR_MEMORY, "bench: out of memory");
    if (options->n_peers > BENCH_MAX_PEERS - 4) {
        free(peers);
        return tsr_fail(TSR_ERR_ARGUMENT, "--peer: given %d times, must be at most %d", options->n_peers,
                        BENCH_MAX_PEERS - 4);
    }
    tsr_status status = open_named(peers, use, options, n_threads);
    if (status == TSR_OK && !options->no_peers) status = open_found(peers, use, n_threads);
    if (status != TSR_OK) {
        bench_peers_close(peers);
        return status;
    }
    *out = peers;
    return TSR_OK;
}

void bench_peers_close(bench_peers *peers)
{
    if (peers == NULL) return;
    for (int i = 0; i < peers->n; i++) bury(&peers->list[i]);
    free(peers);
}

static bool time_round(void *arg, double least_seconds, double *out)
{
    const peer_request request = {.kind = PEER_ROUND, .least_seconds = least_seconds};
    peer_reply reply;
    if (!take_turn(arg, &request, &reply) || !reply.ok) return false;
    *out = reply.seconds;
    return true;
}

/* One peer's answer: whether it takes part. error: of its result, as a multiple of what is allowed; `what`
 * is said where it does not. */
static bool takes_part(peer *p, const peer_reply *reply, double error, const char *what, bench_rival *rival)
{
    const bool is_right = error <= 1;
    if (reply->ok && !is_right)
        snprintf(p->text, sizeof p->text, "its result is wrong, %.3g times what is allowed", error);
    else
        snprintf(p->text, sizeof p->text, "%s", reply->text);
    if (reply->ok && is_right) {
        *rival = (bench_rival){.name = p->name, .how = p->text, .round = time_round, .arg = p};
        return true;
    }
    if (strcmp(p->said, p->text) != 0) {
        fprintf(stderr, "peer %s: left out of %s: %s\n", p->name, what, p->text);
        snprintf(p->said, sizeof p->said, "%s", p->text);
    }
    return false;
}

int bench_peers_prepare(bench_peers *peers, const gemm_problem *problem, const double truth[GEMM_N_SAMPLES],
                        bench_rival rivals[BENCH_MAX_PEERS])
{
    const peer_request request = {.kind = PEER_PREPARE, .problem = *problem};
    char what[64];
    int n = 0;
    snprintf(what, sizeof what, "%s %s", tsr_dtype_name(problem->dtype), gemm_form_names[problem->form]);
    for (int i = 0; peers != NULL && i < peers->n; i++) {
        peer_reply reply;
        if (!take_turn(&peers->list[i], &request, &reply)) continue;
        const double error = reply.ok ? gemm_error(problem, reply.samples, truth) : 0;
        n += takes_part(&peers->list[i], &reply, error, what, &rivals[n]);
    }
    return n;
}

int bench_peers_prepare_attention(bench_peers *peers, const attention_problem *problem,
                                  const double truth[ATTENTION_N_SAMPLES], bench_rival *rivals)
{
    peer_request request = {.kind = PEER_PREPARE_ATTENTION, .attention = *problem};
    char what[64];
    int n = 0;
    attention_places(problem, request.places);
    snprintf(what, sizeof what, "%s %s", attention_pass_names[problem->pass],
             tsr_dtype_name((tsr_dtype)problem->dtype));
    for (int i = 0; peers != NULL && i < peers->n; i++) {
        peer_reply reply;
        if (!take_turn(&peers->list[i], &request, &reply)) continue;
        const bool is_comparable = reply.ok && !(problem->dropout > 0);
        const double error = is_comparable ? attention_error(problem, reply.samples, truth) : 0;
        n += takes_part(&peers->list[i], &reply, error, what, &rivals[n]);
    }
    return n;
}
