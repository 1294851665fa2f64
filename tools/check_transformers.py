#!/usr/bin/env python3
"""Opens a model that tessera trained in Hugging Face transformers and compares the two.

    build/release/tessera train --data /usr/share/common-licenses --out licences --steps 30
    tools/check_transformers.py licences [--program build/release/tessera] [--text FILE]

For several prompts: the same token ids, logits of the next token within 1e-4, the same greedy continuation.
Runs on the CPU in float32. Where torch and transformers cannot be imported, they are installed from PyPI
into a virtual environment, build/venv-transformers. Exit status 0: all agree; 1: they do not.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
PROMPTS = [
    "This License",
    "  the Free Software Foundation,\n\n   51 Franklin Street",
    "a",
    "GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n\n Copyright (C) 2007",
    "Tabs\tand \"quotes\", 12345, it's we'll; naïve café, 日本語, \N{GRINNING FACE}!",
    "one<|endoftext|>two",
]


def in_environment():
    """Goes on in an environment that has what is needed."""
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return
    folder = ROOT / "build" / "venv-transformers"
    python = folder / "bin" / "python"
    if pathlib.Path(sys.prefix) == folder:
        sys.exit(f"{folder}: torch or transformers is missing; remove it and try again")
    if not python.exists():
        print(f"installing torch and transformers into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "transformers", "numpy"], check=True)
    os.execv(python, [python, *sys.argv])


def ask_tessera(program, directory, prompt, n_tokens):
    """Token ids of the prompt, logits after it, ids of the greedy continuation."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        logits = pathlib.Path(folder) / "logits.npy"
        command = [program, "generate", directory, f"--prompt={prompt}", f"--tokens={n_tokens}", "--temperature=0",
                   "--json", f"--logits={logits}"]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return answer["prompt_ids"], np.load(logits), answer["ids"]


def ask_transformers(model, tokenizer, prompt, n_tokens):
    import torch

    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        batch = torch.tensor([ids])
        logits = model(batch).logits[0, -1].numpy()
        text = model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=n_tokens, do_sample=False,
                              pad_token_id=tokenizer.eos_token_id)
    continuation = text[0, len(ids):].tolist()
    if tokenizer.eos_token_id in continuation:
        continuation = continuation[:continuation.index(tokenizer.eos_token_id)]
    return ids, logits, continuation


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", help="a model that tessera trained")
    parser.add_argument("--program", default=str(ROOT / "build" / "release" / "tessera"))
    parser.add_argument("--text", help="a file whose beginnings, of growing length, are further prompts")
    parser.add_argument("--tokens", type=int, default=40, help="to compare of each continuation (default 40)")
    options = parser.parse_args()
    in_environment()

    import numpy as np
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(options.directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(options.directory, dtype=torch.float32).eval()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}: "
          f"{type(tokenizer).__name__}, {type(model).__name__}, {model.num_parameters()} parameters")

    prompts = list(PROMPTS)
    if options.text:
        text = pathlib.Path(options.text).read_text(encoding="utf-8")
        prompts += [text[:n] for n in (1, 10, 100, 400)]
    room = model.config.max_position_embeddings
    worst, largest, failures = 0.0, 0.0, 0
    for prompt in prompts:
        n_tokens = min(options.tokens, room - len(tokenizer(prompt)["input_ids"]))
        if n_tokens < 0:
            print(f"left out, longer than {room} tokens: {prompt[:40]!r}")
            continue
        mine = ask_tessera(options.program, options.directory, prompt, n_tokens)
        theirs = ask_transformers(model, tokenizer, prompt, n_tokens)
        difference = float(np.abs(mine[1] - theirs[1]).max())
        worst, largest = max(worst, difference), max(largest, float(np.abs(theirs[1]).max()))
        wrong = [what for what, differs in (("token ids", mine[0] != theirs[0]),
                                            ("logits", not difference <= TOLERANCE),
                                            ("continuation", mine[2] != theirs[2])) if differs]
        failures += bool(wrong)
        print(f"{len(mine[0]):4} tokens, logits differ by {difference:.2e}, {len(mine[2]):3} more tokens: "
              f"{', '.join(wrong) + ' DIFFER' if wrong else 'the same'}   {prompt[:40]!r}")
    print(f"{len(prompts)} prompts, {failures} differ; logits of up to {largest:.1f} by {worst:.2e} at most "
          f"(allowed: {TOLERANCE:g})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
