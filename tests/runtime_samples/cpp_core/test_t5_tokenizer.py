"""T5's tokens are those of transformers, id by id, with a vocabulary that is trained here and SentencePiece's own normalization."""

from __future__ import annotations

import importlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.unicode_tables import CODES
from transformers import T5Tokenizer

from tests.runtime_samples.cpp_core.conftest import assert_refused, run
from tests.runtime_samples.cpp_core.texts import WORDS, texts
from tests.runtime_samples.cpp_core.tokenizing import assert_alike


def trained() -> T5Tokenizer:
    """A unigram model of the words in the texts, with T5's special tokens; most other characters are unknown to it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    protobuf: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    model, chance = io.BytesIO(), random.Random(5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(chance.choices(WORDS, k=8)) for _ in range(500)]),
        model_writer=model,
        vocab_size=300,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
        hard_vocab_limit=False,
    )
    proto = protobuf.ModelProto.FromString(model.getvalue())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    pieces += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    return T5Tokenizer(vocab=pieces, _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[T5Tokenizer, Path]:
    tokenizer, folder = trained(), tmp_path_factory.mktemp("t5")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    return tokenizer, folder


def test_it_knows_words_signs_and_spaces(t5: tuple[T5Tokenizer, Path]) -> None:
    """Else there would be nothing to get wrong."""
    ids = t5[0]("photo of an astronaut", add_special_tokens=False).input_ids
    assert 4 <= len(ids) < 15
    assert 2 not in ids


@pytest.mark.parametrize(
    "lines", [pytest.param(["", " ", "\n\t"], id="empty"), pytest.param([*texts(2000, 3)], id="texts")]
)
def test_texts_of_every_kind(lines: list[str], t5: tuple[T5Tokenizer, Path], sanitized: Path) -> None:
    assert_alike(t5[0], sanitized / "dq-parts", lines, "t5", t5[1])


@pytest.mark.slow
def test_a_hundred_thousand_texts_and_every_character(t5: tuple[T5Tokenizer, Path], sanitized: Path) -> None:
    around = [f"{c} a{c} {c}a \uff21{c}" for c in map(chr, CODES[1:])]
    assert_alike(t5[0], sanitized / "dq-parts", [*texts(100_000, 4), *around], "t5", t5[1])


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "split": (lambda text: text.replace('"WhitespaceSplit"', '"Whitespace"'), "type must be WhitespaceSplit, got Whitespace"),
    "mark": (lambda text: text.replace('"replacement":"\u2581"', '"replacement":"_"', 1), "replacement must be"),
    "fallback": (lambda text: text.replace('"byte_fallback":false', '"byte_fallback":true'), "byte_fallback is not supported"),
    "unknown": (lambda text: text.replace('"unk_id":2', '"unk_id":99999'), "unk_id must be a token of the vocabulary"),
    "piece": (lambda text: text.replace('["</s>",0.0]', '["</s>"]'), "a piece must be a text and a score, got 1 values"),
    "normalizer": (lambda text: text.replace('"Precompiled"', '"Lowercase"'), "type must be Precompiled, got Lowercase"),
    "charsmap": (lambda text: text.replace('_charsmap":"', '_charsmap":"!'), "precompiled_charsmap is not base64"),
    "charsmap, cut off": (lambda text: text.replace('_charsmap":"', '_charsmap":"AAAA","x":"'), "precompiled_charsmap is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_or_of_another_kind_is_refused(
    name: str, t5: tuple[T5Tokenizer, Path], sanitized: Path, tmp_path: Path
) -> None:
    change, said = DAMAGE[name]
    text = (t5[1] / "tokenizer.json").read_text()
    changed = change(text)
    assert changed != text
    json.loads(changed)
    (tmp_path / "tokenizer.json").write_text(changed)
    assert_refused(run(sanitized / "dq-parts", "tokens", "t5", tmp_path), said)
