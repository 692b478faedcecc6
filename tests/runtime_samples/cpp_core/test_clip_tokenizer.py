"""CLIP's tokens are those of transformers, id by id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from scripts.unicode_tables import CODES, FILES, all_tables, cpp
from transformers import CLIPTokenizer

from tests.runtime_samples.cpp_core.conftest import SOURCE, assert_refused, run
from tests.runtime_samples.cpp_core.texts import texts
from tests.runtime_samples.cpp_core.tokenizing import ids_of, wanted_ids

FILES_OF_SD = SOURCE.parents[1] / "models" / "scenes" / "tokenizer"


def padded_with(pad: str, folder: Path) -> CLIPTokenizer:
    """Written to ``folder``/two as vocab.json and merges.txt, and to ``folder``/one as tokenizer.json."""
    two = Path(shutil.copytree(FILES_OF_SD, folder / "two"))
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        data = json.loads((two / name).read_text())
        (two / name).write_text(json.dumps(data | {"pad_token": pad}))
    tokenizer = CLIPTokenizer.from_pretrained(two)
    tokenizer.save_pretrained(folder / "one")
    return tokenizer


@pytest.fixture(scope="module", params=["<|endoftext|>", "!"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPTokenizer, Path]:
    """The tokenizer of Stable Diffusion 1, and that of 2 and of SDXL's second encoder, which pads with a sign."""
    folder = tmp_path_factory.mktemp("clip")
    return padded_with(request.param, folder), folder


def assert_alike(clip: tuple[CLIPTokenizer, Path], program: Path, lines: Sequence[str], *forms: str) -> None:
    tokenizer, folder = clip
    special = [str(tokenizer.pad_token_id), str(tokenizer.bos_token_id), str(tokenizer.eos_token_id)]
    wanted = wanted_ids(tokenizer, lines)
    for form in forms:
        got = ids_of(program, lines, "clip", str(folder / form), *special)
        different = [(text, a, b) for text, a, b in zip(lines, got, wanted, strict=True) if a != b]
        assert different == []


def test_texts_of_every_kind(clip: tuple[CLIPTokenizer, Path], sanitized: Path) -> None:
    assert_alike(clip, sanitized / "dq-parts", list(texts(2000, 1)), "one", "two")


@pytest.mark.slow
def test_a_hundred_thousand_texts_and_every_character(clip: tuple[CLIPTokenizer, Path], sanitized: Path) -> None:
    assert_alike(clip, sanitized / "dq-parts", [*texts(100_000, 2), *map(chr, CODES)], "two")


@pytest.mark.slow
def test_the_tables_are_what_the_tokenizers_package_says() -> None:
    tables = all_tables()
    for file, names in FILES.items():
        assert (SOURCE / "src" / file).read_text() == cpp(names, tables)


def test_an_empty_text_has_no_tokens(clip: tuple[CLIPTokenizer, Path], sanitized: Path) -> None:
    assert_alike(clip, sanitized / "dq-parts", ["", " ", "\n\t"], "two")


DAMAGE = {
    "vocab.json: {": ("two", "vocab.json", lambda text: text.rstrip()[:-1], "not valid JSON"),
    "vocab.json: id": ("two", "vocab.json", lambda text: text.replace('"!": 0,', '"!": -1,'), "the id of ! must be 0"),
    "merges.txt": ("two", "merges.txt", lambda text: text.replace("i n\n", "in\n", 1), "a merge must be two tokens"),
    "merges.txt: token": ("two", "merges.txt", lambda text: text.replace("i n\n", "i \u0416\n", 1), "needs the token"),
    "normalizer": ("one", "tokenizer.json", lambda text: text.replace('"NFC"', '"NFKC"'), "type must be NFC, got NFKC"),
    "pattern": ("one", "tokenizer.json", lambda text: text.replace("[\\\\p{N}]|", "[\\\\p{N}]+|"), "Regex must be"),
    "flag": ("one", "tokenizer.json", lambda text: text.replace('"lstrip": false', '"lstrip": true'), "has lstrip"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_or_of_another_kind_is_refused(name: str, sanitized: Path, tmp_path: Path) -> None:
    form, file, change, said = DAMAGE[name]
    padded_with("<|endoftext|>", tmp_path)
    path = tmp_path / form / file
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    assert_refused(run(sanitized / "dq-parts", "clip", tmp_path / form, "49407", "49406", "49407"), said)
