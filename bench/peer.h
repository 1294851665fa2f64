/*
 * bench/peer.h - other libraries' products, each in a process of its own
 *
 * The program starts itself anew for each peer (`tessera bench serve-peer`), with the environment in which
 * that library's threads do best; the child opens the library and answers requests over a socket. It is
 * stopped (SIGSTOP) whenever it is not its turn, so that threads which spin slow nobody down, and dies with
 * the program.
 */
#ifndef TSR_BENCH_PEER_H
#define TSR_BENCH_PEER_H

#include "bench.h"
#include "operands.h"

enum { PEER_SOCKET = 3, PEER_TEXT = 160 };

typedef enum peer_request_kind { PEER_PREPARE, PEER_ROUND } peer_request_kind;

typedef struct peer_request {
    peer_request_kind kind;
    gemm_problem problem; /* PREPARE */
    double least_seconds; /* ROUND   */
} peer_request;

typedef struct peer_reply {
    int32_t ok;
    double seconds;                 /* ROUND: of one call        */
    double samples[GEMM_N_SAMPLES]; /* PREPARE: of the first one */
    char text[PEER_TEXT];           /* the library; what it calls; or why not */
} peer_reply;

typedef struct bench_peers bench_peers;

/* All that are found and named, stopped. A library that is not there is said on stderr; one that was named
 * and cannot be used is an error. */
tsr_status bench_peers_open(const bench_gemm_options *options, int32_t n_threads, bench_peers **out);
void bench_peers_close(bench_peers *peers);

/*
 * Lets each make its operands and multiply once. rivals[]: those that can, and did it right; why not is said
 * on stderr. Returns how many. They stay valid until the next call.
 */
int bench_peers_prepare(bench_peers *peers, const gemm_problem *p, const double truth[GEMM_N_SAMPLES],
                        bench_rival rivals[BENCH_MAX_PEERS]);

/* The places where a library is looked for: a pattern's first match, else names for the loader. */
typedef struct peer_place {
    const char *api;
    const char *patterns[6];
    const char *names; /* with ':' between */
} peer_place;
extern const peer_place peer_places[];

/* The environment of the child; *out and its texts are to be freed. NULL: out of memory. */
char **peer_environment(const char *api, const char *path, int32_t n_threads);
void peer_environment_free(char **environment);
/* The settings of it that matter, for people. */
void peer_environment_describe(const char *api, char *const *environment, char *text, size_t size);

/* What a child knows a library by. */
typedef struct peer_api {
    const char *name;
    /* Looks up what it needs; says in `text` which library it is, or why it cannot be used. */
    bool (*open)(void *library, char text[PEER_TEXT]);
    /* Makes ready for calls of run(); says in `text` what they call, or why there are none. */
    bool (*prepare)(const gemm_operands *o, char text[PEER_TEXT]);
    void (*run)(int64_t copy);
    void (*finish)(void);
} peer_api;

extern const peer_api peer_cblas, peer_onednn;

#endif
