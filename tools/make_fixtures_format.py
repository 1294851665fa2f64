#!/usr/bin/env python3
"""Writes tests/fixtures/format/ and tests/corpus/: files of NumPy, safetensors and transformers, so
that readers and writers are held against the formats' own makers, and against files that lie.

    python3 -m venv venv && venv/bin/pip install numpy 'safetensors>=0.8'
    venv/bin/python tools/make_fixtures_format.py

The same versions give the same bytes. Values follow one rule, element i (in C order) is i - 5,
bools are i % 3 == 0, which tests/check_npy.c and tests/check_safetensors.c know too.
"""
import io
import json
import pathlib
import struct

import numpy as np
from numpy.lib import format as npy
import safetensors

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests"
FIXTURES = TESTS / "fixtures" / "format"


def values(dtype, shape):
    i = np.arange(int(np.prod(shape)))
    return (i % 3 == 0 if dtype == "bool" else (i - 5).astype(dtype)).reshape(shape)


def npy_bytes(array, version=(1, 0)):
    out = io.BytesIO()
    npy.write_array(out, array, version=version, allow_pickle=True)
    return out.getvalue()


def make_npy(folder):
    good = {}
    for dtype in ["float32", "float64", "float16", "int8", "int32", "int64", "bool"]:
        good[f"{dtype}_c"] = npy_bytes(values(dtype, (2, 3, 4)))
        good[f"{dtype}_f"] = npy_bytes(np.asfortranarray(values(dtype, (2, 3, 4))))
    good["version2"] = npy_bytes(values("float32", (5, 2)), (2, 0))
    good["version3"] = npy_bytes(values("float32", (5, 2)), (3, 0))
    good["rank0"] = npy_bytes(np.array(-5, dtype="float32"))
    good["rank1"] = npy_bytes(values("int32", (7,)))
    good["rank4"] = npy_bytes(values("int8", (2, 1, 3, 2)))
    good["empty"] = npy_bytes(values("float32", (3, 0)))
    bad = {
        "big_endian": npy_bytes(values(">f4", (2, 3))),
        "object": npy_bytes(np.array([None, 1], dtype=object)),
        "structured": npy_bytes(np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")])),
        "void": npy_bytes(np.zeros(2, dtype="V2")),
        "uint8": npy_bytes(np.zeros(2, dtype="u1")),
        "complex": npy_bytes(np.zeros(2, dtype="c8")),
        "rank5": npy_bytes(np.zeros((1, 1, 1, 1, 1), dtype="f4")),
    }
    for name, data in (good | bad).items():
        (folder / f"{name}.npy").write_bytes(data)
    keep = ["float32_c", "float64_f", "bool_c", "version2", "rank0", "empty", "big_endian", "structured"]
    return {name: (good | bad)[name] for name in keep}


def bf16_bytes(array):
    """Exact for the small integers used here: the upper half of each f32."""
    return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16",
          "I64": "int64", "I32": "int32", "I8": "int8", "BOOL": "bool"}


def serialize(tensors):
    """tensors: name -> (dtype's name in the file, shape). The reference implementation does the rest."""
    buffers = []  # alive until serialised: a TensorSpec holds an address
    entries = {}
    for name, (dtype, shape) in tensors.items():
        array = values("float32" if dtype == "BF16" else DTYPES[dtype], shape)
        buffers.append(np.frombuffer(bf16_bytes(array) if dtype == "BF16" else array.tobytes(), dtype="u1"))
        entries[name] = safetensors.TensorSpec(dtype=DTYPES[dtype], shape=list(shape),
                                               data_ptr=buffers[-1].ctypes.data, data_len=buffers[-1].size)
    return bytes(safetensors.serialize(entries, metadata={"format": "pt"}))


def make_safetensors(folder):
    every = {f"t.{dtype.lower()}": (dtype, (2, 3)) for dtype in DTYPES}
    every |= {"scalar": ("F32", ()), "empty": ("F32", (0, 4)), "rank4": ("I8", (1, 2, 1, 3)),
              "name \"with\" \\ and \u00e9": ("F16", (3,))}
    whole = serialize(every)
    (folder / "every_dtype.safetensors").write_bytes(whole)

    shards = folder / "sharded"
    shards.mkdir(exist_ok=True)
    parts = [{"a": ("F32", (2, 2)), "c": ("BF16", (4,))}, {"b": ("F32", (3,))}]
    weight_map = {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        (shards / name).write_bytes(serialize(part))
        weight_map |= {tensor: name for tensor in part}
    index = json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}, indent=2).encode()
    (shards / "model.safetensors.index.json").write_bytes(index)

    def raw(header, nbytes):
        text = json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text + bytes(nbytes)

    hole = raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "I8", "shape": [2], "data_offsets": [8, 10]}}, 10)
    unaligned = raw({"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
                     "b": {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]}}, 17)
    return {"every_dtype": whole, "small": serialize(parts[1]), "hole": hole, "unaligned": unaligned,
            "index": index}


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": [2, 7], "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 160, "max_position_embeddings": 512, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 1000,
}


def make_config(folder):
    """The two spellings that transformers has used: rope_theta alone (4), rope_parameters (5)."""
    old = dict(CONFIG)
    new = {k: v for k, v in CONFIG.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new |= {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
    least = {k: CONFIG[k] for k in ("model_type", "vocab_size", "hidden_size", "intermediate_size",
                                    "num_hidden_layers", "num_attention_heads")}
    scaled = old | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    files = {name: json.dumps(c, indent=2).encode() + b"\n"
             for name, c in {"old": old, "new": new, "least": least, "scaled": scaled}.items()}
    for name, data in files.items():
        (folder / f"config_{name}.json").write_bytes(data)
    return files


def main():
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for kind, make in [("npy", make_npy), ("safetensors", make_safetensors), ("config", make_config)]:
        corpus = TESTS / "corpus" / kind
        corpus.mkdir(parents=True, exist_ok=True)
        for name, data in make(FIXTURES).items():
            (corpus / name).write_bytes(data)


if __name__ == "__main__":
    main()
