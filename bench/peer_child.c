/* bench/peer_child.c - the peer's own process: opens its library, answers the program's requests */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_impl.h"

typedef struct served {
    const peer_api *api;
    int32_t n_threads;
    gemm_operands operands;
    attention_operands attention;
    bool ready, is_attention; /* what is ready */
    int64_t copy;             /* whose turn it is      */
    double once;              /* seconds of a call     */
} served;

static void call(served *s)
{
    if (s->is_attention) {
        peer_attention_run();
        return;
    }
    s->api->run(s->copy);
    s->copy = (s->copy + 1) % s->operands.n_copies;
}

static void finish(served *s)
{
    if (s->ready && s->is_attention) peer_attention_finish();
    if (s->ready && !s->is_attention) s->api->finish();
    gemm_operands_destroy(&s->operands);
    attention_operands_destroy(&s->attention);
    s->ready = false;
}

/* The first two calls: one whose result is looked at, one that is timed. */
static void time_once(served *s)
{
    const double start = bench_seconds();
    call(s);
    s->once = bench_seconds() - start;
}

static void prepare_attention(served *s, const attention_problem *p, peer_reply *reply)
{
    finish(s);
    if (!attention_operands_create(p, &s->attention)) {
        snprintf(reply->text, PEER_TEXT, "not enough memory");
        return;
    }
    if (!peer_attention_prepare(&s->attention, s->api->sgemm, s->n_threads, reply->text)) return;
    s->ready = s->is_attention = true;
    call(s);
    attention_sample(&s->attention, reply->samples);
    time_once(s);
    reply->ok = true;
}

static void prepare(served *s, const gemm_problem *p, peer_reply *reply)
{
    finish(s);
    if (!gemm_operands_create(p, &s->operands)) {
        snprintf(reply->text, PEER_TEXT, "not enough memory");
        return;
    }
    if (!s->api->prepare(&s->operands, reply->text)) return;
    s->ready = true;
    s->is_attention = false;
    s->copy = 0;
    call(s);
    gemm_sample(&s->operands, reply->samples);
    time_once(s);
    reply->ok = true;
}

static void time_round(served *s, double least_seconds, peer_reply *reply)
{
    if (!s->ready) return;
    const int64_t n = s->once < least_seconds ? (int64_t)(least_seconds / (s->once + 1e-9)) + 1 : 1;
    if (s->once < BENCH_LONG_CALL_SECONDS) call(s);
    const double start = bench_seconds();
    for (int64_t i = 0; i < n; i++) call(s);
    reply->seconds = (bench_seconds() - start) / (double)n;
    s->once = reply->seconds;
    reply->ok = true;
}

static void *load(const char *path, char text[PEER_TEXT])
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) snprintf(text, PEER_TEXT, "cannot be loaded: %s", dlerror());
    return library;
}

/* A path, which may hold any character, or the loader's names with ':' between. */
static bool open_library(served *s, const char *name, const char *paths, char text[PEER_TEXT])
{
    char names[128];
    void *library = NULL;
    if (strchr(paths, '/') != NULL) {
        library = load(paths, text);
    } else {
        snprintf(names, sizeof names, "%s", paths);
        for (char *rest = names, *one; library == NULL && (one = strsep(&rest, ":")) != NULL;)
            library = load(one, text);
    }
    if (library == NULL) return false;
    s->api = strncmp(name, "onednn", 6) == 0 ? &peer_onednn : &peer_cblas;
    return s->api->open(library, text);
}

/* A text that a line, or a JSON string, can hold. */
static void make_plain(char text[PEER_TEXT])
{
    for (char *c = text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') *c = ' ';
}

static bool send_reply(peer_reply *reply)
{
    make_plain(reply->text);
    return send(PEER_SOCKET, reply, sizeof *reply, MSG_NOSIGNAL) == (ssize_t)sizeof *reply;
}

int bench_serve_peer(const char *name, const char *paths, const char *n_threads)
{
    served s = {.n_threads = (int32_t)strtol(n_threads, NULL, 10)};
    peer_request request;
    peer_reply reply = {.ok = false};
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* stopped or not */
    reply.ok = open_library(&s, name, paths, reply.text);
    if (!send_reply(&reply) || !reply.ok) return 1;
    for (;;) {
        const ssize_t n = recv(PEER_SOCKET, &request, sizeof request, MSG_WAITALL);
        if (n < 0 && errno == EINTR) continue;
        if (n != (ssize_t)sizeof request) return 0;
        reply = (peer_reply){.ok = false};
        if (request.kind == PEER_PREPARE)
            prepare(&s, &request.problem, &reply);
        else if (request.kind == PEER_PREPARE_ATTENTION)
            prepare_attention(&s, &request.attention, &reply);
        else
            time_round(&s, request.least_seconds, &reply);
        if (!send_reply(&reply)) return 1;
    }
}
