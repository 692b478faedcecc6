"""What a prompt may hold, how outputs of encoders are joined, and what noise a seed gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.published.encoders import tokenizer

from dq_toolchain.toolchain.errors import ArtifactError, RecipeError
from dq_toolchain.toolchain.parts.assembly import assemble, without_prompt
from dq_toolchain.toolchain.parts.beginning import noise_of
from dq_toolchain.toolchain.parts.pipeline import Encoder, Pipeline, Tokenizer
from dq_toolchain.toolchain.parts.prompting import Wish, check_wish
from dq_toolchain.toolchain.parts.tokens import Tokens
from dq_toolchain.toolchain.sampler.probe import probe
from tests import tiny
from tests.tiny_pipelines import t5_tokenizer

CLIP = Tokenizer(name="tokenizer", kind="clip", folder=".", length=12, begin=52, end=53, pad=53)
TEXT = Pipeline(
    pipeline="StableDiffusionPipeline",
    tokenizers=(CLIP,),
    encoders=(Encoder(name="text_encoder", tokenizer="tokenizer", mask=False, outputs=("hidden",)),),
    conditioning={"encoder_hidden_states": (("text_encoder.hidden",),)},
    constants=None,
    zeros_without_negative=False,
    decoder=None,
)
BARE = replace(TEXT, tokenizers=(), encoders=(), conditioning={})


FOREIGN = (
    "a (red:1.3) fox",
    "a ((red)) fox",
    "[[snow]]",
    "a <my-style> fox",
    "<lora:detail:0.8> snow",
    "a <|endoftext|> fox",
    "(a fox : -2)",
)


@pytest.mark.parametrize("text", FOREIGN)
def test_notation_of_other_programs_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="write plain words"):
        check_wish(Wish(prompt=text), TEXT, takes_labels=False)
    with pytest.raises(RecipeError, match="write plain words"):
        check_wish(Wish(prompt="snow", negative=text), TEXT, takes_labels=False)


@pytest.mark.parametrize("text", ["", "a fox (red) at 1:30", "x < y > z", "[draft] a fox", "a: b, c; 3 > 2"])
def test_plain_words_are_taken(text: str) -> None:
    check_wish(Wish(prompt=text), TEXT, takes_labels=False)


@pytest.mark.parametrize(
    ("wish", "pipeline", "takes_labels", "said"),
    [
        (Wish(), TEXT, False, "--prompt is missing"),
        (Wish(prompt="x", label=1), TEXT, False, "takes no class"),
        (Wish(prompt="x"), BARE, True, "give --label"),
        (Wish(), BARE, True, "draws a class"),
        (Wish(label=-1), BARE, True, "got -1"),
        (Wish(prompt="x" * 10_001), TEXT, False, "10,001 characters"),
    ],
)
def test_a_wish_that_does_not_fit_is_refused(wish: Wish, pipeline: Pipeline, takes_labels: bool, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_wish(wish, pipeline, takes_labels=takes_labels)


@pytest.mark.parametrize("text", ["", "a red fox", "two ships at sea and more words than fit", "GRUESSE  an\tAlle"])
def test_ids_are_those_of_transformers(text: str, tmp_path: Path) -> None:
    for library, about in (
        (tokenizer(), CLIP),
        (t5_tokenizer(), Tokenizer(name="t", kind="t5", folder=".", length=12, begin=None, end=1, pad=0)),
    ):
        library.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
        want = library(text, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
        tokens = Tokens(about, tmp_path)
        ids, mask = tokens(text)
        assert torch.equal(ids, want.input_ids)
        length = int(mask.sum())
        assert ids[0, length - 1] == about.end
        assert not (ids[0, : length - 1] == about.end).any()
        whole = len(library(text, verbose=False).input_ids)
        assert tokens.left_out(text) == max(0, whole - 12)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokens(CLIP, tmp_path)


def test_rows_are_padded_to_the_widest() -> None:
    pipeline = replace(TEXT, conditioning={"encoder_hidden_states": (("a.x", "b.x"), ("c.x",))})
    parts = {"a.x": torch.ones(1, 2, 3), "b.x": torch.full((1, 2, 2), 2.0), "c.x": torch.full((1, 4, 7), 3.0)}
    made = assemble(pipeline, parts)["encoder_hidden_states"]
    assert made.shape == (1, 6, 7)
    assert made[0, 0].tolist() == [1, 1, 1, 2, 2, 0, 0]
    assert bool((made[0, 2:] == 3).all())


def test_an_empty_negative_prompt_can_mean_zeros() -> None:
    given, zeros = {"x": torch.ones(1, 2)}, replace(TEXT, zeros_without_negative=True)
    assert bool((without_prompt(zeros, given, "")["x"] == 0).all())
    assert bool((without_prompt(zeros, given, "bad")["x"] == 1).all())
    assert bool((without_prompt(TEXT, given, "")["x"] == 1).all())


def test_a_manifest_that_names_what_is_not_there_is_refused() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"conditioning": {"encoder_hidden_states": [["text_encoder_2.hidden"]]}},
        {"conditioning": {"encoder_hidden_states": []}},
        {"tokenizers": []},
        {"encoders": [{"name": "x"}]},
    )
    for change in changes:
        with pytest.raises(ArtifactError, match=r"pipeline\.json"):
            Pipeline.from_json({**TEXT.to_json(), **change}, "pipeline.json", "do it again")
    assert Pipeline.from_json(TEXT.to_json(), "pipeline.json", "") == TEXT


def test_noise_is_that_of_diffusers_pipelines() -> None:
    table = probe(tiny.scheduler(), 4)
    start, noise = noise_of(7, (1, 4, 8, 8), table)
    generator = torch.Generator("cpu").manual_seed(7)
    assert torch.equal(start, torch.randn((1, 4, 8, 8), generator=generator) * table.init_noise_sigma)
    assert noise is None
    stochastic = replace(table, c=tuple(0.1 for _ in table.c))
    _, noise = noise_of(7, (1, 4, 8, 8), stochastic)
    assert noise is not None
    assert torch.equal(noise[0], torch.randn((1, 4, 8, 8), generator=generator))
    with pytest.raises(RecipeError, match="--seed"):
        noise_of(-1, (1, 4, 8, 8), table)


@pytest.mark.parametrize(
    ("label", "said"), [(10, "got 10; give its number, 0 to 9"), (None, "got None"), (-1, "got -1")]
)
def test_a_label_is_one_of_the_classes(label: int | None, said: str) -> None:
    check_wish(Wish(label=9), BARE, takes_labels=True, classes=10)
    with pytest.raises(RecipeError, match=said):
        check_wish(Wish(label=label), BARE, takes_labels=True, classes=10)
