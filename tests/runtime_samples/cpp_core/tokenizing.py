"""Many texts through the C++ tokenizers, and through the originals."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def ids_of(program: Path, lines: Sequence[str], *arguments: str) -> list[list[int]]:
    """Ids of each text from dq-parts."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return [list(map(int, line.split())) for line in done.stdout.split("\n")[:-1]]


def wanted_ids(tokenizer: Any, lines: Sequence[str]) -> list[list[int]]:
    """The same from a fast tokenizer of transformers, without what begins and ends a prompt."""
    backend, ids = tokenizer.backend_tokenizer, []
    backend.no_truncation()
    backend.no_padding()
    for begin in range(0, len(lines), 20_000):  # an encoding is much larger than its ids
        part = list(lines[begin : begin + 20_000])
        ids += [encoding.ids for encoding in backend.encode_batch(part, add_special_tokens=False)]
    return ids


def assert_alike(tokenizer: Any, program: Path, lines: Sequence[str], kind: str, folder: Path) -> None:
    """``folder`` holds the tokenizer's own tokenizer.json."""
    got, wanted = ids_of(program, lines, "tokens", kind, str(folder)), wanted_ids(tokenizer, lines)
    different = [(text, a, b) for text, a, b in zip(lines, got, wanted, strict=True) if a != b]
    assert different == []
