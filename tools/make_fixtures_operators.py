#!/usr/bin/env python3
"""Makes tests/fixtures/operators/*.fix with PyTorch, so that the tests' truth is not our own reading.

    python3 -m venv venv && venv/bin/pip install numpy torch
    venv/bin/python tools/make_fixtures_operators.py

Inputs are stored as f32, results (gradients by autograd) as f64: everything is computed in float64.
A file is a sequence of records, read by tests/kit/fixture.c: a line, then the data, little-endian.

    case NAME\n
    tensor NAME DTYPE RANK EXTENT ...\n  data, row-major
"""
import math
import pathlib

import numpy
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "operators"
DTYPES = {"float32": "f32", "float64": "f64", "int32": "i32", "bool": "bool"}

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


class Writer:
    def __init__(self, name):
        self.file = open(FOLDER / f"{name}.fix", "wb")

    def case(self, name, inputs, results, **numbers):
        """Inputs are narrowed to f32, which they hold exactly; None is left out."""
        self.file.write(f"case {name}\n".encode())
        for key, t in inputs.items():
            if t is not None:
                self.tensor(key, t.float() if t.is_floating_point() else t)
        for key, t in results.items():
            if t is not None:
                self.tensor(key, t)
        for key, number in numbers.items():
            self.tensor(key, torch.tensor(float(number)))

    def tensor(self, name, t):
        a = numpy.ascontiguousarray(t.detach().numpy())
        words = ["tensor", name, DTYPES[str(a.dtype)], str(t.dim()), *map(str, t.shape)]
        self.file.write((" ".join(words) + "\n").encode() + a.tobytes())


def exact(t):
    """Rounded to f32, held in f64."""
    return t.float().double()


def normal(*shape, gradient=True):
    return exact(torch.randn(*shape)).requires_grad_(gradient)


def number(x):
    """What a C float makes of x."""
    return float(numpy.float32(x))


def activations():
    w = Writer("activation")
    for name, f in [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu),
                    ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"))]:
        x = exact(torch.cat([torch.linspace(-9, 9, 37), torch.randn(22), torch.tensor([-40.0, 40.0])]))
        x.requires_grad_()
        dy = normal(*x.shape)
        y = f(x)
        y.backward(dy)
        w.case(name, {"x": x, "dy": dy}, {"y": y, "dx": x.grad})
    gate, up, dy = normal(3, 19), normal(3, 19), normal(3, 19)
    y = F.silu(gate) * up
    y.backward(dy)
    w.case("swiglu", {"gate": gate, "up": up, "dy": dy}, {"y": y, "dgate": gate.grad, "dup": up.grad})


def softmaxes():
    w = Writer("softmax")
    x, dy = exact(4 * torch.randn(3, 21)).requires_grad_(), normal(3, 21)
    y = F.softmax(x, -1)
    y.backward(dy)
    w.case("rows", {"x": x, "dy": dy}, {"y": y, "dx": x.grad})


def norms():
    w = Writer("norm")
    eps = number(1e-5)
    for centred in (False, True):
        x, weight, bias, dy = normal(2, 3, 17), normal(17), normal(17), normal(2, 3, 17)
        y = F.layer_norm(x, (17,), weight, bias, eps) if centred else F.rms_norm(x, (17,), weight, eps)
        y.backward(dy)
        bias = bias if centred else None
        w.case("layer_norm" if centred else "rms_norm", {"x": x, "weight": weight, "bias": bias, "dy": dy},
               {"y": y, "dx": x.grad, "dweight": weight.grad, "dbias": bias.grad if centred else None},
               eps=eps)


def ropes():
    """Complex numbers turned by exp(i angle): halves as Llama checkpoints of Hugging Face have them."""
    w = Writer("rope")
    b, h, l, d, theta = 2, 2, 4, 8, 500.0
    positions = torch.randint(0, 90, (b, l), dtype=torch.int32)
    angle = positions[:, None, :, None] * theta ** (-2 * torch.arange(d // 2) / d)
    turn = torch.polar(torch.ones_like(angle), angle)
    for interleaved in (False, True):
        x, dy = normal(b, h, l, d), normal(b, h, l, d)
        if interleaved:
            y = torch.view_as_real(torch.view_as_complex(x.reshape(b, h, l, d // 2, 2)) * turn).flatten(-2)
        else:
            z = torch.complex(x[..., : d // 2], x[..., d // 2:]) * turn
            y = torch.cat([z.real, z.imag], -1)
        y.backward(dy)
        w.case("interleaved" if interleaved else "halves", {"x": x, "dy": dy, "positions": positions},
               {"y": y, "dx": x.grad}, theta=theta, interleaved=interleaved)


def embeddings():
    w = Writer("embedding")
    table, ids = normal(6, 5), torch.tensor([[3, 0, 3], [5, 3, 0]])
    dout = normal(2, 3, 5)
    out = F.embedding(ids, table)
    out.backward(dout)
    w.case("repeated", {"table": table, "ids": ids.int(), "dout": dout}, {"out": out, "dtable": table.grad})


def products():
    w = Writer("bmm")
    a, b, c, dc = normal(2, 3, 7), normal(2, 7, 5), normal(2, 3, 5), normal(2, 3, 5)
    alpha, beta = 1.5, -0.25
    result = torch.baddbmm(c, a, b, beta=beta, alpha=alpha)
    result.backward(dc)
    w.case("alpha_beta", {"a": a, "b": b, "c": c, "dc": dc}, {"result": result, "da": a.grad, "db": b.grad},
           alpha=alpha, beta=beta)


def cross_entropies():
    w = Writer("cross_entropy")
    x, words = normal(9, 6), normal(13, 6)
    targets = torch.tensor([3, -100, 12, 0, 3, -100, 7, 7, 1])
    logits = x @ words.T
    loss = F.cross_entropy(logits, targets, ignore_index=-100)
    (2.5 * loss).backward()
    w.case("ignored", {"x": x, "w": words, "targets": targets.int()},
           {"loss": loss, "lse": logits.logsumexp(-1), "dx": x.grad, "dw": words.grad}, dloss=2.5,
           ignore_index=-100)


def optimisers():
    w = Writer("adamw")
    lr, beta1, beta2, eps, decay = map(number, (3e-2, 0.9, 0.95, 1e-6, 0.1))
    start = normal(2, 11)
    p = torch.nn.Parameter(start.detach().clone())
    steps = normal(5, 2, 11, gradient=False)
    optimiser = torch.optim.AdamW([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    for g in steps:
        p.grad = g.clone()
        optimiser.step()
    moments = optimiser.state[p]
    w.case("five_steps", {"p": start, "g": steps},
           {"p_after": p, "m_after": moments["exp_avg"], "v_after": moments["exp_avg_sq"]},
           lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)


def philox(seed, counter):
    """Philox4x32-10: ten rounds on four words."""
    c, key = list(counter), [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [right >> 32 ^ c[1] ^ key[0], right & 0xFFFFFFFF, left >> 32 ^ c[3] ^ key[1], left & 0xFFFFFFFF]
        key = [key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF]
    return c


def kept(b, h, lq, lk, p, seed, offset):
    keep = torch.zeros(b, h, lq, lk)
    for head in range(b * h):
        for row in range(lq):
            for column in range(lk):
                word = philox(seed, [column >> 2, row, head, offset])[column & 3]
                keep[head // h, head % h, row, column] = word >= math.floor(p * 2**32)
    return keep


def attend(q, k, v, *, scale, softcap=0, alibi=None, bias=None, visible=None, sinks=None, factor=1):
    """One padded batch by the formula; visible and factor (dropout) are [.., Lq, Lk]."""
    (lq, lk), group = (q.shape[2], k.shape[2]), q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    s = scale * q @ k.transpose(-1, -2)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    if alibi is not None:
        s = s - alibi[:, None, None] * (torch.arange(lq)[:, None] + lk - lq - torch.arange(lk)).abs()
    if bias is not None:
        s = s + bias
    if visible is not None:
        s = s.masked_fill(~visible, -math.inf)
    if sinks is not None:
        s = torch.cat([s, sinks[None, :, None, None].expand(q.shape[0], -1, lq, 1)], -1)
    # A row that sees nothing: softmax gives NaN there, the contract is zeros without gradients.
    empty = (s == -math.inf).all(-1, keepdim=True)
    p = F.softmax(s.masked_fill(empty, 0), -1).masked_fill(empty, 0)
    lse = s.logsumexp(-1)
    return (factor * p[..., :lk]) @ v, lse


def window_of(lq, lk, left, right):
    ahead = torch.arange(lk) - (torch.arange(lq)[:, None] + lk - lq)
    return ((ahead >= -left) | torch.tensor(left < 0)) & ((ahead <= right) | torch.tensor(right < 0))


def store_attention(w, name, x, out, lse, numbers):
    dout = normal(*out.shape)
    dlse = normal(*lse.shape)
    loss = (out * dout).sum() + torch.where(lse.isinf(), 0, lse * dlse).sum()
    loss.backward()
    gradients = {f"d{key}": x[key].grad for key in ("q", "k", "v", "bias", "sinks") if x.get(key) is not None}
    w.case(name, {**x, "dout": dout, "dlse": dlse}, {"out": out, "lse": lse, **gradients}, **numbers)


def agree(a, b):
    assert torch.allclose(a, b, rtol=1e-12, atol=1e-12), (a - b).abs().max()


def attentions():
    w = Writer("attention")
    scale = number(0.3)

    def make(name, b=1, hq=2, hkv=1, lq=5, lk=7, d=6, dv=4, *, also=None, window=None, causal=False, **features):
        q, k, v = normal(b, hq, lq, d), normal(b, hkv, lk, d), normal(b, hkv, lk, dv)
        left, right = window or (-1, -1)
        visible = window_of(lq, lk, left, 0 if causal else right) if causal or window else None
        mask = features.pop("mask", None)
        if mask is not None:
            visible = mask if visible is None else visible & mask
        dropout = features.pop("dropout", None)
        factor = kept(b, hq, lq, lk, *dropout) / (1 - dropout[0]) if dropout else 1
        out, lse = attend(q, k, v, scale=scale, visible=visible, factor=factor, **features)
        if also is not None:
            agree(out, also(q, k, v))
        numbers = {"scale": scale, "causal": causal, "softcap": features.get("softcap", 0)}
        if window:
            numbers |= {"window_left": left, "window_right": right}
        if dropout:
            numbers |= dict(zip(("dropout_p", "dropout_seed", "dropout_offset"), dropout))
        x = {"q": q, "k": k, "v": v, "mask": mask, **{key: features.get(key) for key in ("alibi", "bias", "sinks")}}
        store_attention(w, name, x, out, lse, numbers)

    def sdpa(**options):
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale, **options)

    mask = torch.rand(2, 1, 4, 5) < 0.6
    mask[0, 0, 1] = False  # a row that sees nothing
    bias = normal(1, 2, 5, 1)
    full_bias = normal(2, 2, 3, 4)
    slopes = exact(torch.tensor([0.5, 0.125]))

    make("plain", hkv=2, also=sdpa())
    make("grouped_heads", hq=6, hkv=2, lq=3, lk=4, also=sdpa(enable_gqa=True))
    make("causal_square", hkv=2, lq=6, lk=6, causal=True, also=sdpa(is_causal=True))
    make("causal_more_keys", hkv=2, lq=4, lk=7, causal=True, also=sdpa(attn_mask=causal_lower_right(4, 7)))
    make("causal_more_queries", hkv=2, lq=7, lk=4, causal=True)
    make("window", lq=9, lk=9, window=(2, 1), also=sdpa(attn_mask=window_of(9, 9, 2, 1), enable_gqa=True))
    make("window_left_only_causal", lq=6, lk=9, window=(3, -1), causal=True)
    make("softcap", softcap=number(1.3))
    make("bias", b=2, hkv=2, lq=3, lk=4, bias=full_bias, also=sdpa(attn_mask=full_bias))
    make("bias_broadcast", b=2, lq=5, lk=6, bias=bias)
    make("mask", b=2, hkv=2, lq=4, lk=5, mask=mask)
    make("alibi", lq=5, lk=8, alibi=slopes)
    make("sinks", sinks=normal(2))
    make("dropout", b=2, lq=5, lk=9, dropout=(number(0.3), 0x123456789AB, 5))
    make("all", b=2, hq=4, hkv=2, lq=6, lk=8, causal=True, window=(4, 0), softcap=number(2.5),
         bias=normal(1, 4, 6, 8), alibi=exact(torch.rand(4)), mask=torch.rand(2, 4, 6, 8) < 0.8, sinks=normal(4),
         dropout=(number(0.1), 99, 0))


def packed_attention():
    """Sequences one after the other, each attended on its own; one has no keys, one no queries."""
    w = Writer("attention_packed")
    lq, lk, hq, hkv, d, dv, scale = [3, 2, 0, 4], [5, 0, 2, 4], 2, 1, 6, 4, number(0.4)
    q, k, v = normal(sum(lq), hq, d), normal(sum(lk), hkv, d), normal(sum(lk), hkv, dv)
    bias, slopes = normal(4, 1, max(lq), max(lk)), exact(torch.rand(hq))
    outs, lses, q0, k0 = [], [], 0, 0
    for b, (nq, nk) in enumerate(zip(lq, lk)):
        rows = [t.transpose(0, 1)[None] for t in (q[q0:q0 + nq], k[k0:k0 + nk], v[k0:k0 + nk])]
        out, lse = attend(*rows, scale=scale, alibi=slopes, bias=bias[b, :, :nq, :nk],
                          visible=window_of(nq, nk, -1, 0))
        outs.append(out[0].transpose(0, 1))
        lses.append(lse[0])
        q0, k0 = q0 + nq, k0 + nk
    starts = [torch.tensor([0, *numpy.cumsum(x)], dtype=torch.int32) for x in (lq, lk)]
    x = {"q": q, "k": k, "v": v, "bias": bias, "alibi": slopes, "cu_seqlens_q": starts[0],
         "cu_seqlens_k": starts[1]}
    store_attention(w, "sequences", x, torch.cat(outs), torch.cat(lses, 1),
                    {"scale": scale, "causal": True, "max_lq": max(lq), "max_lk": max(lk)})


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for make_all in (activations, softmaxes, norms, ropes, embeddings, products, cross_entropies, optimisers,
                     attentions, packed_attention):
        make_all()
    total = sum(f.stat().st_size for f in FOLDER.glob("*.fix"))
    print(f"{len(list(FOLDER.glob('*.fix')))} files, {total} bytes in {FOLDER}")
