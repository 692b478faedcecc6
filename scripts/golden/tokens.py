"""Golden vectors of tokenizers, CLIP's and T5's: texts that tokenizers disagree on, and their ids.

    python -m scripts.golden.tokens [--out runtime_samples/golden/tokens]

CLIP's vocabulary is the bytes and the first merges of its own, T5's is trained on a few words, so that the files stay small.
Ids are those of transformers, without what begins and ends a prompt.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.runtime_samples.cpp_core.test_t5_tokenizer import trained
from tests.runtime_samples.cpp_core.texts import texts
from tests.runtime_samples.cpp_core.tokenizing import wanted_ids
from transformers import CLIPTokenizer

from dq_toolchain.toolchain.disk.files import write_bytes

OUT = Path("runtime_samples/golden/tokens")
MERGES = Path("models/scenes/tokenizer/merges.txt")
COUNT, MERGED, SEED = 2000, 1000, 3
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def small_clip() -> CLIPTokenizer:
    """CLIP's tokenizer with its first merges alone."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1 : MERGED + 1]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), BEGIN, END]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, pad_token=END)


def write(folder: Path) -> None:
    """``folder``/KIND/tokenizer.json, and texts.json: rows of a text and its ids, in one string each."""
    for kind, tokenizer in (("clip", small_clip()), ("t5", trained())):
        lines = list(texts(COUNT, SEED))
        ids = wanted_ids(tokenizer, lines)
        saved = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()), ensure_ascii=False)
        write_bytes(folder / kind / "tokenizer.json", (saved + "\n").encode())
        rows = [json.dumps([text, " ".join(map(str, row))]) for text, row in zip(lines, ids, strict=True)]
        write_bytes(folder / kind / "texts.json", ("[\n" + ",\n".join(rows) + "\n]\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    write(parser.parse_args().out)
