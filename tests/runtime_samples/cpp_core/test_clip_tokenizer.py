"""CLIP's tokens are those of transformers, id by id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.unicode_tables import CODES, FILES, all_tables, cpp
from transformers import CLIPTokenizer

from tests.runtime_samples.cpp_core.conftest import SOURCE, assert_refused, run
from tests.runtime_samples.cpp_core.texts import texts
from tests.runtime_samples.cpp_core.tokenizing import assert_alike

FILES_OF_SD = SOURCE.parents[1] / "models" / "scenes" / "tokenizer"


def padded_with(pad: str, folder: Path) -> CLIPTokenizer:
    """Its tokenizer.json is written into the folder, as into a bundle."""
    tokenizer = CLIPTokenizer.from_pretrained(FILES_OF_SD, pad_token=pad)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    return tokenizer


@pytest.fixture(scope="module", params=["<|endoftext|>", "!"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPTokenizer, Path]:
    """The tokenizer of Stable Diffusion 1, and that of 2 and of SDXL's second encoder, which pads with a sign."""
    folder = tmp_path_factory.mktemp("clip")
    return padded_with(request.param, folder), folder


@pytest.mark.parametrize(
    "lines", [pytest.param(["", " ", "\n\t"], id="empty"), pytest.param([*texts(2000, 1)], id="texts")]
)
def test_texts_of_every_kind(lines: list[str], clip: tuple[CLIPTokenizer, Path], sanitized: Path) -> None:
    assert_alike(clip[0], sanitized / "dq-parts", lines, "clip", clip[1])


@pytest.mark.slow
def test_a_hundred_thousand_texts_and_every_character(clip: tuple[CLIPTokenizer, Path], sanitized: Path) -> None:
    assert_alike(clip[0], sanitized / "dq-parts", [*texts(100_000, 2), *map(chr, CODES)], "clip", clip[1])


@pytest.mark.slow
def test_the_tables_are_what_the_tokenizers_package_says() -> None:
    tables = all_tables()
    for file, names in FILES.items():
        assert (SOURCE / "src" / file).read_text() == cpp(names, tables)


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[:-1], "not valid JSON"),
    "id": (lambda text: text.replace('"!":0', '"!":-1'), "the id of ! must be 0 to 2147483647, got -1"),
    "merge": (lambda text: text.replace('["i","n"]', '["i"]', 1), "a merge must be two tokens, got 1"),
    "merge of one": (
        lambda text: text.replace('["i","n"]', '"in"', 1),
        "a merge must be two tokens with a space between",
    ),
    "unknown token": (lambda text: text.replace('["i","n"]', '["i","\u0416"]', 1), "needs the token \u0416"),
    "normalizer": (lambda text: text.replace('"NFC"', '"NFKC"'), "type must be NFC, got NFKC"),
    "pattern": (lambda text: text.replace("[\\\\p{N}]|", "[\\\\p{N}]+|"), "Regex must be"),
    "flag": (
        lambda text: text.replace('"lstrip":false', '"lstrip":true'),
        "<|startoftext|> has lstrip, which is not supported",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_or_of_another_kind_is_refused(name: str, sanitized: Path, tmp_path: Path) -> None:
    change, said = DAMAGE[name]
    padded_with("<|endoftext|>", tmp_path)
    path = tmp_path / "tokenizer.json"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    assert_refused(run(sanitized / "dq-parts", "tokens", "clip", tmp_path), said)
