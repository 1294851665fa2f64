"""PyTorch's scaled_dot_product_attention as a peer of `tessera bench attention --peer torch=PYTHON`.

Started by the program as PYTHON -c SCRIPT REQUEST_NBYTES THREADS with a socket as file 3. Requests and
replies are the structs of bench/peer.h; tensors get the values of bench/attention_operands.c, so that
the program can hold samples of the results against the truth.
"""
import ctypes
import os
import signal
import socket
import struct
import sys
import time

PREPARE_GEMM, PREPARE_ATTENTION, ROUND = 0, 1, 2
FORWARD, BACKWARD, DECODE = 0, 1, 2
Q, K, V, DOUT = 0, 1, 2, 3
REQUEST = "=iid13qd256q"  # kind, unused, least_seconds; the problem; places
REPLY = "=iid256d160s"  # ok, unused, seconds, samples, text
N_SAMPLES, RUN = 256, 16
LONG_CALL_SECONDS = 0.02
F32, BF16, F16 = 0, 2, 3  # tsr_dtype


def mixed(x):
    """SplitMix64 on int64, whose products wrap; shifts must be those of unsigned numbers."""
    x = x + signed(0x9E3779B97F4A7C15)
    x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
    return x ^ shifted(x, 31)


def signed(x):
    return x - (1 << 64) if x >= 1 << 63 else x


def shifted(x, n):
    return (x >> n) & ((1 << (64 - n)) - 1)


def values(torch, name, shape, dtype):
    n = 1
    for extent in shape:
        n *= extent
    words = torch.arange(0, (n + 3) // 4, dtype=torch.int64) * 4
    bits = mixed(words ^ (name << 40))
    parts = torch.stack([bits >> (16 * i) for i in range(4)], dim=1).reshape(-1)[:n]
    parts = ((parts & 0xFFFF) ^ 0x8000) - 0x8000
    return (parts.to(torch.float32) * 2.0**-14).to(dtype).reshape(shape)


class Case:
    """One problem's tensors, and a call."""

    def __init__(self, torch, problem):
        self.which, dtype, kv_dtype, b, hq, hkv, lq, lk, d, dv, causal, page, copies, dropout = problem
        types = {F32: torch.float32, BF16: torch.bfloat16, F16: torch.float16}
        if kv_dtype not in types or page > 0:
            raise ValueError("it has no int8 and no pages here")
        if causal and lq != lk:
            raise ValueError("its causal mask is another where Lq is not Lk")
        kind = types[dtype]
        self.torch = torch
        self.q = values(torch, Q, (b, hq, lq, d), kind)
        self.k = values(torch, K, (b, hkv, lk, d), kind)
        self.v = values(torch, V, (b, hkv, lk, dv), kind)
        self.copies = [(self.k, self.v)] + [(self.k.clone(), self.v.clone()) for _ in range(copies - 1)]
        self.turn = 0
        self.options = {"is_causal": bool(causal), "dropout_p": dropout}
        if hq != hkv:
            self.options["enable_gqa"] = True
        if self.which == BACKWARD:
            self.inputs = [t.requires_grad_() for t in (self.q, self.k, self.v)]
            self.dout = values(torch, DOUT, (b, hq, lq, dv), kind)
            self.out = self.attend()

    def attend(self):
        attention = self.torch.nn.functional.scaled_dot_product_attention
        k, v = self.copies[self.turn % len(self.copies)]
        self.turn += 1
        return attention(self.q, k, v, **self.options)

    def run(self):
        """The results, in the order of attention_results()."""
        if self.which == BACKWARD:
            return self.torch.autograd.grad(self.out, self.inputs, self.dout, retain_graph=True)
        with self.torch.no_grad():
            return (self.attend(),)

    def prepare(self, places):
        results = [t.contiguous().reshape(-1).to(self.torch.float64) for t in self.run()]
        samples = [results[s // RUN % len(results)][places[s]].item() for s in range(N_SAMPLES)]
        self.once = self.time(1)
        return samples

    def time(self, n):
        start = time.perf_counter()
        for _ in range(n):
            self.run()
        return (time.perf_counter() - start) / n

    def round(self, least_seconds):
        if self.once < LONG_CALL_SECONDS:
            self.run()
        self.once = self.time(int(least_seconds / (self.once + 1e-9)) + 1 if self.once < least_seconds else 1)
        return self.once


def answer(torch, cases, request):
    """cases: the one that is ready, if any. Returns what goes back."""
    fields = struct.unpack_from(REQUEST, request)
    kind, least_seconds, problem, places = fields[0], fields[2], fields[3:17], fields[17:]
    if kind == PREPARE_ATTENTION:
        cases.clear()  # frees its tensors first
        case = Case(torch, problem)
        samples = case.prepare(places)
        cases.append(case)
        return 1, 0, 0.0, samples, "scaled_dot_product_attention"
    if kind == ROUND and cases:
        return 1, 0, cases[0].round(least_seconds), [0.0] * N_SAMPLES, ""
    return 0, 0, 0.0, [0.0] * N_SAMPLES, "it has attention only"


def send(peer, ok, unused, seconds, samples, text):
    line = " ".join(text.split())
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else " " for c in line).encode()[:159]
    peer.sendall(struct.pack(REPLY, ok, unused, seconds, *samples, plain))


def receive(peer, n):
    data = b""
    while len(data) < n:
        part = peer.recv(n - len(data))
        if not part:
            return None
        data += part
    return data


def main():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: goes with the program, stopped or not
    peer = socket.socket(fileno=3)
    nothing = [0.0] * N_SAMPLES
    try:
        import torch
    except Exception as error:
        send(peer, 0, 0, 0.0, nothing, f"{os.path.basename(sys.executable)} has no torch: {error}")
        return
    torch.set_num_threads(int(sys.argv[2]))
    send(peer, 1, 0, 0.0, nothing, f"PyTorch {torch.__version__}")
    cases = []
    while request := receive(peer, int(sys.argv[1])):
        try:
            reply = answer(torch, cases, request)
        except Exception as error:  # a shape that it does not take, or too little memory
            cases.clear()
            reply = 0, 0, 0.0, nothing, str(error)
        send(peer, *reply)


main()
