/*
 * bench/peer.h - other libraries' products and attention, each in a process of its own
 *
 * The program starts itself anew for each peer (`tessera bench serve-peer`), with the environment in which
 * that library's threads do best; the child opens the library and answers requests over a socket. PyTorch's
 * child is a Python that runs peer_torch.py instead. It is
 * stopped (SIGSTOP) whenever it is not its turn, so that threads which spin slow nobody down, and dies with
 * the program.
 */
#ifndef TSR_BENCH_PEER_H
#define TSR_BENCH_PEER_H

#include <stddef.h>

#include "attention_operands.h"
#include "base/threads.h"
#include "bench.h"
#include "operands.h"

enum { PEER_SOCKET = 3, PEER_TEXT = 160 };

typedef enum peer_request_kind { PEER_PREPARE, PEER_PREPARE_ATTENTION, PEER_ROUND } peer_request_kind;

enum { PEER_N_SAMPLES = 256 };
_Static_assert((int)GEMM_N_SAMPLES == PEER_N_SAMPLES && (int)ATTENTION_N_SAMPLES == PEER_N_SAMPLES,
               "one reply serves both");

/* peer_torch.py knows both by the places of their fields. */
typedef struct peer_request {
    int32_t kind, unused;
    double least_seconds;           /* ROUND             */
    attention_problem attention;    /* PREPARE_ATTENTION */
    int64_t places[PEER_N_SAMPLES]; /* the same: which elements are the samples */
    gemm_problem problem;           /* PREPARE           */
} peer_request;
_Static_assert(offsetof(peer_request, attention) == 16 && offsetof(peer_request, places) == 16 + 14 * 8,
               "as in peer_torch.py");

typedef struct peer_reply {
    int32_t ok, unused;
    double seconds;                 /* ROUND: of one call           */
    double samples[PEER_N_SAMPLES]; /* PREPARE...: of the first one */
    char text[PEER_TEXT];           /* the library; what it calls; or why not */
} peer_reply;
_Static_assert(sizeof(peer_reply) == 16 + 8 * PEER_N_SAMPLES + PEER_TEXT, "as in peer_torch.py");

extern const char peer_torch_script[];

typedef struct bench_peers bench_peers;

/* All that are found and named, stopped. A library that is not there is said on stderr; one that was named
 * and cannot be used is an error. */
tsr_status bench_peers_open(bench_use use, const bench_peer_options *options, int32_t n_threads,
                            bench_peers **out);
void bench_peers_close(bench_peers *peers);

/*
 * Lets each make its operands and multiply once. rivals[]: those that can, and did it right; why not is said
 * on stderr. Returns how many. They stay valid until the next call.
 */
int bench_peers_prepare(bench_peers *peers, const gemm_problem *p, const double truth[GEMM_N_SAMPLES],
                        bench_rival rivals[BENCH_MAX_PEERS]);
/* The same for attention; a result with dropout cannot be compared, for each draws its own bits. At most
 * BENCH_MAX_PEERS - 1. */
int bench_peers_prepare_attention(bench_peers *peers, const attention_problem *p,
                                  const double truth[ATTENTION_N_SAMPLES], bench_rival *rivals);

/* The places where a library is looked for: a pattern's first match, else names for the loader. */
typedef struct peer_place {
    const char *api;
    bool uses[BENCH_N_USES];
    const char *patterns[6];
    const char *names; /* with ':' between; NULL: it must be named */
} peer_place;
extern const peer_place peer_places[];

/* The environment of the child; *out and its texts are to be freed. NULL: out of memory. */
char **peer_environment(const char *api, bench_use use, const char *path, int32_t n_threads);
void peer_environment_free(char **environment);
/* The settings of it that matter, for people. */
void peer_environment_describe(const char *api, char *const *environment, char *text, size_t size);

/* cblas_sgemm of row-major matrices without gaps between rows but for what ld says. */
typedef void peer_sgemm(bool trans_a, bool trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc);

/* What a child knows a library by. */
typedef struct peer_api {
    const char *name;
    /* Looks up what it needs; says in `text` which library it is, or why it cannot be used. */
    bool (*open)(void *library, char text[PEER_TEXT]);
    /* Makes ready for calls of run(); says in `text` what they call, or why there are none. */
    bool (*prepare)(const gemm_operands *o, char text[PEER_TEXT]);
    void (*run)(int64_t copy);
    void (*finish)(void);
    peer_sgemm *sgemm; /* for attention; NULL if it has none */
} peer_api;

extern const peer_api peer_cblas, peer_onednn;

/* Attention made from a library's sgemm, as peer_api makes products: prepare() says in `text` how, or why
 * not. */
bool peer_attention_prepare(const attention_operands *o, peer_sgemm *sgemm, int32_t n_threads,
                            char text[PEER_TEXT]);
void peer_attention_run(void);
void peer_attention_finish(void);

#endif
