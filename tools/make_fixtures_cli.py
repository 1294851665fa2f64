#!/usr/bin/env python3
"""Makes tests/fixtures/cli/: the .npy files that tests/e2e_gemm.sh and tests/e2e_attention.sh hand to the
program, and what must come out, computed by NumPy and PyTorch in float64.

    python3 -m venv venv && venv/bin/pip install numpy torch
    venv/bin/python tools/make_fixtures_cli.py
"""
import math
import pathlib
import shutil

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "cli"


def save(name, array, dtype=np.float32):
    path = FOLDER / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(array, torch.Tensor):
        array = array.detach().numpy()
    np.save(path, np.asarray(array).astype(dtype, order="K"))


# GEMM: small whole numbers, so that every product is exact; those with fractions say so.


def make_gemm():
    rng = np.random.default_rng(1)

    def whole(*shape):
        return rng.integers(-4, 5, shape).astype(np.float64)

    a, b, c, bias = whole(5, 7), whole(7, 9), whole(5, 9), whole(9)
    save("gemm/a", a)
    save("gemm/a_fortran", np.asfortranarray(a))
    save("gemm/a_float64", a, np.float64)
    save("gemm/a_float16", a, np.float16)
    save("gemm/a_int8", a, np.int8)
    save("gemm/b", b)
    save("gemm/b_transposed", b.T.copy())
    save("gemm/c", c)
    save("gemm/bias", bias)
    product = a @ b
    save("gemm/want", product)
    affine = 2 * product - 0.5 * c + bias
    save("gemm/want_affine", affine)
    save("gemm/want_relu", np.maximum(affine, 0))
    x = torch.from_numpy(product / 16)
    save("gemm/want_gelu", torch.nn.functional.gelu(x))
    save("gemm/want_gelu_tanh", torch.nn.functional.gelu(x, approximate="tanh"))
    save("gemm/want_silu", torch.nn.functional.silu(x))

    a3, b3 = whole(4, 5, 7), whole(1, 7, 9)
    save("gemm/a3", a3)
    save("gemm/a3_fortran", np.asfortranarray(a3))
    save("gemm/b3", b3)
    save("gemm/want3", a3 @ b3)
    a4, b4 = whole(2, 1, 5, 7), whole(3, 7, 9)
    save("gemm/a4", a4)
    save("gemm/a4_fortran", np.asfortranarray(a4))
    save("gemm/b4", b4)
    save("gemm/b4_transposed", b4.swapaxes(-1, -2).copy())
    save("gemm/want4", a4 @ b4)

    fa, fb = rng.standard_normal((5, 7)).astype(np.float32), rng.standard_normal((7, 9)).astype(np.float32)
    save("gemm/fraction_a", fa)
    save("gemm/fraction_b", fb)
    for name, dtype in ("bf16", torch.bfloat16), ("f16", torch.float16):
        ra, rb = torch.from_numpy(fa).to(dtype).double(), torch.from_numpy(fb).to(dtype).double()
        save(f"gemm/want_{name}", ra @ rb)

    save("gemm/a_empty", np.zeros((3, 0)))
    save("gemm/b_empty", np.zeros((0, 2)))
    save("gemm/want_empty", np.zeros((3, 2)))
    save("gemm/vector", bias)
    save("gemm/big_endian", a, ">f4")

    # s8: the whole range, and sums that f32 could not hold.
    rng = np.random.default_rng(2)

    def integers(*shape):
        return rng.integers(-128, 128, shape)

    a, b, c = integers(5, 1101), integers(1101, 9), rng.integers(-(10**6), 10**6, (5, 9))
    a[0], b[:, 0] = -128, -128
    a[1], b[:, 1] = -127, 127
    save("gemm/s8_a", a, np.int8)
    save("gemm/s8_a_int64", np.asfortranarray(a), np.int64)
    save("gemm/s8_b", b, np.int8)
    save("gemm/s8_b_transposed", b.T.copy(), np.int8)
    save("gemm/s8_c", c, np.int32)
    save("gemm/s8_want", a @ b, np.int32)
    save("gemm/s8_want_affine", 3 * (a @ b) - 2 * c, np.int32)
    a4, b4 = integers(2, 1, 5, 7), integers(3, 7, 9)
    save("gemm/s8_a4", a4, np.int8)
    save("gemm/s8_b4", b4, np.int8)
    save("gemm/s8_want4", a4 @ b4, np.int32)
    wide = np.asfortranarray(a[:, :7])
    wide[2, 3] = 128
    save("gemm/s8_wide", wide, np.int32)


# Attention, one score after the other.


def philox(seed, counter):
    """Philox4x32-10 (Salmon et al., 2011)."""
    key, c = [seed & 0xFFFFFFFF, seed >> 32], list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ key[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ key[1], p0 & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def attend(q, k, v, b, h, n_heads, o):
    """One head of one sequence: q [Lq, D], k [Lk, D], v [Lk, Dv] -> out [Lq, Dv], lse [Lq]."""
    lq, lk = q.shape[0], k.shape[0]
    out, lse = [], []
    for i in range(lq):
        scores, seen = [], []
        for j in range(lk):
            diagonal = i + lk - lq
            left, right = o.get("window", (-1, -1))
            if o.get("causal") and j > diagonal:
                continue
            if left >= 0 and j < diagonal - left or right >= 0 and j > diagonal + right:
                continue
            if "mask" in o and not pick(o["mask"], b, h, i, j):
                continue
            s = o.get("scale", q.shape[1] ** -0.5) * (q[i] * k[j]).sum()
            if "softcap" in o:
                s = o["softcap"] * torch.tanh(s / o["softcap"])
            if "alibi" in o:
                s = s - o["alibi"][h] * abs(diagonal - j)
            if "bias" in o:
                s = s + pick(o["bias"], b, h, i, j)
            scores.append(s)
            seen.append(j)
        logits = scores + ([o["sinks"][h]] if "sinks" in o else [])
        if not logits:
            out.append(torch.zeros(v.shape[1]))
            lse.append(torch.tensor(-math.inf))
            continue
        total = torch.logsumexp(torch.stack(logits), 0)
        row = torch.zeros(v.shape[1])
        for s, j in zip(scores, seen):
            p = torch.exp(s - total)
            if "dropout" in o:
                share, seed = o["dropout"]
                word = philox(seed, (j >> 2, i, b * n_heads + h, 0))[j & 3]
                p = p / (1 - share) if word >= int(share * 2**32) else 0 * p
            row = row + p * v[j]
        out.append(row)
        lse.append(total)
    return (torch.stack(out), torch.stack(lse)) if out else (torch.zeros(0, v.shape[1]), torch.zeros(0))


def pick(t, *index):
    return t[tuple(0 if n == 1 else i for i, n in zip(index, t.shape))]


def padded(q, k, v, **o):
    """q [B, Hq, Lq, D] ...: rows beyond seqlens stay 0 (lse -inf)."""
    batch, heads, lq, _ = q.shape
    out = torch.zeros(batch, heads, lq, v.shape[3])
    lse = torch.full((batch, heads, lq), -math.inf)
    for b in range(batch):
        nq = o["seqlens_q"][b] if "seqlens_q" in o else lq
        nk = o["seqlens_k"][b] if "seqlens_k" in o else k.shape[2]
        for h in range(heads):
            g = h * k.shape[1] // heads
            out[b, h, :nq], lse[b, h, :nq] = attend(q[b, h, :nq], k[b, g, :nk], v[b, g, :nk], b, h, heads, o)
    return out, lse


def packed(q, k, v, cu_q, cu_k, **o):
    """q [total, Hq, D] ...; lse [Hq, total]."""
    heads = q.shape[1]
    out, lse = torch.zeros(q.shape[0], heads, v.shape[2]), torch.zeros(heads, q.shape[0])
    for b in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        for h in range(heads):
            g = h * k.shape[1] // heads
            out[rows, h], lse[h, rows] = attend(q[rows, h], k[keys, g], v[keys, g], b, h, heads, o)
    return out, lse


def narrow(t):
    """What the files hold, exactly."""
    return t.float().double()


def make_attention():
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    B, HQ, HKV, LQ, LK, D, DV = 2, 4, 2, 5, 7, 4, 3
    q, k, v = (narrow(torch.randn(*s)) for s in ((B, HQ, LQ, D), (B, HKV, LK, D), (B, HKV, LK, DV)))
    alibi, sinks = narrow(torch.rand(HQ)), narrow(torch.randn(HQ))
    bias, mask = narrow(torch.randn(1, HQ, LQ, LK)), torch.rand(B, 1, LQ, LK) < 0.7
    mask[0, 0, 2] = False  # a row that sees nothing but the sink
    for name, t in dict(q=q, k=k, v=v, alibi=alibi, sinks=sinks, bias=bias).items():
        save(f"attention/{name}", t)
    save("attention/q_fortran", np.asfortranarray(q.numpy()))
    save("attention/mask", mask, bool)

    def want(name, result):
        save(f"attention/{name}_out", result[0])
        save(f"attention/{name}_lse", result[1])

    want("plain", padded(q, k, v))
    want("causal", padded(q, k, v, causal=True, scale=0.7))
    want("window", padded(q, k, v, window=(1, 0)))
    features = dict(softcap=1.5, alibi=alibi, bias=bias, mask=mask, sinks=sinks)
    want("features", padded(q, k, v, **features))
    want("dropout", padded(q, k, v, dropout=(0.4, 1234567890123)))
    save("attention/seqlens_q", [3, 5], np.int32)
    save("attention/seqlens_k", [7, 0], np.int64)
    want("seqlens", padded(q, k, v, seqlens_q=[3, 5], seqlens_k=[7, 0]))
    for name, dtype in ("bf16", torch.bfloat16), ("f16", torch.float16):
        want(name, padded(*(t.to(dtype).double() for t in (q, k, v))))

    leaves = [t.clone().requires_grad_() for t in (q, k, v, bias, sinks)]
    dout, dlse = narrow(torch.randn(B, HQ, LQ, DV)), narrow(torch.randn(B, HQ, LQ))
    dlse[~mask.expand(B, HQ, LQ, LK).any(-1)] = 0
    save("attention/dout", dout)
    save("attention/dlse", dlse)
    out, lse = padded(*leaves[:3], softcap=1.5, alibi=alibi, bias=leaves[3], mask=mask, sinks=leaves[4])
    torch.autograd.backward([out, lse], [dout, dlse])
    for name, leaf in zip(("dq", "dk", "dv", "dbias", "dsinks"), leaves):
        save(f"attention/want_{name}", leaf.grad)

    cu_q, cu_k = [0, 3, 3, 8], [0, 4, 6, 11]
    pq, pk, pv = (narrow(torch.randn(*s)) for s in ((8, HQ, D), (11, HKV, D), (11, HKV, DV)))
    for name, t in dict(packed_q=pq, packed_k=pk, packed_v=pv).items():
        save(f"attention/{name}", t)
    save("attention/cu_q", cu_q, np.int32)
    save("attention/cu_k", cu_k, np.int32)
    save("attention/cu_beyond", [0, 4, 6, 12], np.int32)
    save("attention/cu_down", [0, 4, 3, 11], np.int32)
    save("attention/huge_lengths", [1 << 40, 1], np.int64)
    want("packed", packed(pq, pk, pv, cu_q, cu_k, causal=True))
    want("int8", make_pages(q, k, v))


def make_pages(q, k, v):
    """k and v in pages of 4, 6 to a pool; and int8 ones, with what attention makes of those."""
    table = [[4, 1], [0, 5]]
    save("attention/block_table", table, np.int32)
    save("attention/block_table_beyond", [[4, 1], [0, 6]], np.int32)
    save("attention/seqlens_all", [k.shape[2]] * k.shape[0], np.int32)

    def pool(name, x, fill, dtype=np.float32):
        pages = torch.full((6, 4, *x.shape[1:2], *x.shape[3:]), float(fill))
        for b in range(x.shape[0]):
            for j in range(x.shape[2]):
                pages[table[b][j // 4], j % 4] = x[b, :, j]
        save(f"attention/pool_{name}", pages, dtype)

    def whole(x, factor):
        return (torch.arange(x.numel()) * factor % 255 - 127).reshape(x.shape).double()

    def powers(x, most, period):
        n = x.shape[:3].numel()
        return (2.0 ** -(most + torch.arange(n) % period)).reshape(x.shape[:3]).double()

    k8, v8, k_scale, v_scale = whole(k, 37), whole(v, 53), powers(k, 6, 3), powers(v, 5, 4)
    pool("k", k, "nan"), pool("v", v, "nan")
    pool("k8", k8, 0, np.int8), pool("v8", v8, 0, np.int8)
    pool("k_scale", k_scale, "nan"), pool("v_scale", v_scale, "nan")
    return padded(q, k8 * k_scale[..., None], v8 * v_scale[..., None])


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    make_gemm()
    make_attention()
