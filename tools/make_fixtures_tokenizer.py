#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer: small tokenizers of the styles in use, and the ids that the
`tokenizers` library gives for a list of texts, which tests/check_tokenizer.c reads; and the corpus of
tests/fuzz_tokenizer.c.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3
    venv/bin/python tools/make_fixtures_tokenizer.py
"""
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors, trainers

CORPUS = """The tokenizer splits the text and then merges the pieces; the most frequent pairs come first.
There is nothing that the bytes of a text can't say, and we'll say that they're the alphabet.
We've seen the words, the numbers 1234567890 and 2024, and the signs: "quoted", (closed), [open], {}.
    for (int i = 0; i < n; i++) { total += weight[i] * value[i]; }
        return total; /* the end */
Les élèves étaient à l'école; die Straße führt über die Brücke; naïve cafés.
Привет, мир! Это текст на русском языке. 你好，世界。 こんにちは世界。 🙂🙂 🚀🚀
""" * 4

TEXTS = [
    "", " ", "a", "the", " the", "of", "me(of)it;number plit\nle", "\n", "  \n  the", "the  text   and    more \t\t\n\n end  ",
    "They'll say we've can't I'M YOU'RE it's 'tis 's 'ſ",
    "The number 1234567890, ½ and ① or ٣٤٥, 3.14159.",
    "for (int i = 0; i < n; i++) {\r\n    total += i;\r\n}\r\n",
    "Les élèves e\u0301taient à l'école, était, Å A\u030a \u212b.",
    "Привет, мир! 你好，世界。 한국어 각 \u1100\u1161\u11a8 🙂👨‍👩‍👧 🚀",
    "\u00a0\u3000\u2028\u0085\u180e\u200b\ufeff mixed \u1680spaces\u205f",
    "\u0001\u001f\u007f\u0080\uffff\U0010ffff",
    "<|endoftext|>", "the<|endoftext|>the", "<|end|><|endof|><|endoftext|", "  <|endoftext|>  the",
    "<|eot|> x <|eot_id|>y", "the <mask> end <mask><mask> <mask>", " left  <left>  right  <right>  \u3000<right>\u3000 x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!",
    "thethethethethethethethethethethethethethethethethethetextandandandwordswordswordstotaltotaltotalthe" * 2,
]

ALPHABET = sorted(pre.ByteLevel.alphabet())
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
          r"|\s*[\r\n]|\s+(?!\S)|\s+")


def byte_level(**options):
    return pre.ByteLevel(**{"add_prefix_space": False, **options})


def split(pattern):
    return pre.Split(Regex(pattern), "isolated")


def train(pre_tokenizer, special, ignore_merges=False, normalizer=None, added=()):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.ByteLevel()
    if normalizer is not None:
        t.normalizer = normalizer
    t.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=400, special_tokens=special, min_frequency=2,
                                                        initial_alphabet=ALPHABET, show_progress=False))
    t.add_tokens(list(added))
    return t


def llama3():
    t = train(pre.Sequence([split(LLAMA3), byte_level(use_regex=False)]), ["<|bos|>", "<|eot|>", "<|eot_id|>"],
              ignore_merges=True)
    template = processors.TemplateProcessing(single="<|bos|> $A", pair="<|bos|> $A <|bos|>:1 $B:1",
                                             special_tokens=[("<|bos|>", t.token_to_id("<|bos|>"))])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    document = json.loads(t.to_str())  # tokens that no merge gives: ignore_merges finds them whole
    document["model"]["merges"] = document["model"]["merges"][:-40]
    return Tokenizer.from_str(json.dumps(document))


STYLES = {
    "gpt2": train(byte_level(), ["<|endoftext|>"]),
    "llama3": llama3(),
    "qwen": train(pre.Sequence([split(CL100K), byte_level(use_regex=False)]), ["<|endoftext|>"],
                  normalizer=normalizers.NFC(), added=[AddedToken("e\u0301t", normalized=True)]),
    "strips": train(pre.Sequence([pre.Digits(individual_digits=True), byte_level()]), ["<|endoftext|>"],
                    added=[AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<left>", lstrip=True),
                           AddedToken("<right>", rstrip=True), AddedToken("  ", normalized=False)]),
    "prefix": train(byte_level(add_prefix_space=True), ["<|endoftext|>"]),
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def shortened(document):
    """The same tokenizer with its alphabet and eight merges: mutations then meet the rest of it more often."""
    model = document["model"]
    merges = model["merges"][:8]
    made = {pair if isinstance(pair, str) else " ".join(pair) for pair in merges}
    keep = {pair.replace(" ", "") for pair in made} | set(ALPHABET)
    keep |= {token["content"] for token in document["added_tokens"]} & set(model["vocab"])
    ids = {key: i for i, key in enumerate(sorted(keep, key=model["vocab"].get))}
    added = [token["content"] for token in document["added_tokens"]]
    places = {key: ids.get(key, len(ids) + i) for i, key in enumerate(added)}
    text = json.dumps({**document, "model": None, "added_tokens": None})
    for token in document["added_tokens"]:
        text = text.replace(f'"ids": [{token["id"]}]', f'"ids": [{places[token["content"]]}]')
        token["id"] = places[token["content"]]
    return {**json.loads(text), "added_tokens": document["added_tokens"],
            "model": {**model, "vocab": ids, "merges": merges}}


def main():
    tests = pathlib.Path(__file__).resolve().parent.parent / "tests"
    for name, t in STYLES.items():
        document = json.loads(t.to_str())
        if name == "gpt2":  # the older spelling of merges
            document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
        write(tests / "fixtures/tokenizer" / f"{name}.json", document)
        write(tests / "fixtures/tokenizer" / f"{name}_cases.json",
              [{"text": text, "ids": t.encode(text).ids} for text in TEXTS])
        write(tests / "corpus/tokenizer" / f"{name}.json", shortened(document))
    for name, pattern in {"llama3": LLAMA3, "cl100k": CL100K, "empty": r"a*|(?=b)", "lines": r"^[^\s]+$|(?<!x)\z"}.items():
        text = pattern.encode() + b"\n" + "".join(TEXTS[3:9]).encode() + b" \xff\xc3 aab\xe4\xbd"
        (tests / "corpus/tokenizer" / f"pattern_{name}.txt").write_bytes(text)


main()
