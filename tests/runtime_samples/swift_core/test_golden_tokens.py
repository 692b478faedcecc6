"""What the Swift packages are tested with: tables of Unicode, golden tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.golden.tokens import OUT, write
from scripts.unicode_tables import CPP, FILES, SWIFT, SWIFT_FILES, Tables, cpp, swift

from tests.runtime_samples.swift import ROOT

SAMPLES = ROOT / "runtime_samples"


def numbers_of(source: str) -> dict[str, list[int]]:
    """The tables of a C++ file by name."""
    found = {}
    for part in source.split("numbers_of_")[1:]:
        name, _, rest = part.partition("[] = {")
        if rest:
            found[name] = [int(word, 0) for word in rest.partition("}")[0].split(",")]
    return found


def test_the_tables_of_swift_are_those_of_cpp() -> None:
    """Which a slow test of C++ compares with the tokenizers package."""
    numbers: dict[str, list[int]] = {}
    for file in FILES:
        numbers |= numbers_of((SAMPLES / CPP / file).read_text())
    tables = Tables(**numbers)
    for file, names in FILES.items():
        assert (SAMPLES / CPP / file).read_text() == cpp(names, tables)
    for file, names in SWIFT_FILES.items():
        assert (SAMPLES / SWIFT / file).read_text() == swift(names, tables)


@pytest.mark.slow
def test_golden_tokens_are_what_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (ROOT / OUT / path.relative_to(tmp_path)).read_bytes()
