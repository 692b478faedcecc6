"""Scores of a CLIP model: those of transformers' own forward pass, and what is no such model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from scripts.published.encoders import TOKENS, tokenizer
from transformers import CLIPImageProcessorPil, CLIPModel

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.parts.chain import FP32, STAGES, Chain, Stage
from dq_toolchain.toolchain.parts.clip_scores import ClipModel, scored
from dq_toolchain.toolchain.render.chain import WITHOUT, heads, rows, source
from dq_toolchain.toolchain.render.show import show_chain
from tests.tiny_clip import save_clip

PROMPTS = ("a red fox", "two ships")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    save_clip(folder)
    return folder


@pytest.fixture
def chain() -> Chain:
    """Two pictures of 20 x 24, so that they are resized and cropped; the device's are farther from FP32's by each part."""
    generator = torch.Generator().manual_seed(3)
    fp32 = torch.randint(0, 256, (2, 3, 20, 24), generator=generator, dtype=torch.uint8)
    stages = []
    for k, (name, title) in enumerate(STAGES.items()):
        noise = torch.randn(fp32.shape, generator=generator) * 40 * k
        pictures = (fp32 + noise).clamp(0, 255).round().byte()
        stages.append(Stage(name, title, (30.0 - k, 31.0 - k), (0.9, 0.8), pictures))
    return Chain(PROMPTS, fp32, tuple(stages))


def test_the_scores_are_those_of_the_models_own_forward_pass(folder: Path, chain: Chain) -> None:
    clip = scored(chain, ClipModel(folder)).clip
    assert clip is not None
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pictures_of = {FP32: chain.fp32, **{stage.name: stage.pictures for stage in chain.stages}}
    for name, pictures in pictures_of.items():
        for prompt, picture, score in zip(PROMPTS, pictures, clip.prompt[name], strict=True):
            ids = tokenizer()(prompt, return_tensors="pt")
            pixels = processor([picture.permute(1, 2, 0).numpy()], return_tensors="pt")
            with torch.no_grad():
                found = model(**ids, **pixels)
            assert score == pytest.approx(float((found.logits_per_text / model.logit_scale.exp()).item()), abs=1e-5)
    assert clip.picture["decoder"] == pytest.approx((1.0, 1.0), abs=1e-5), "the same pictures"
    assert max(clip.picture["prompt"]) < 0.9999
    assert clip.prompt[FP32] == pytest.approx(clip.prompt["decoder"], abs=1e-5)
    assert len({round(value, 3) for value in (*clip.prompt[FP32], *clip.prompt["prompt"])}) > 2
    assert json.loads(json.dumps(clip.to_json()))["picture"].keys() == STAGES.keys()


def test_a_chain_without_prompts(folder: Path, chain: Chain) -> None:
    """Of a model that draws classes."""
    found = scored(Chain((), chain.fp32, chain.stages), ClipModel(folder))
    assert found.clip is not None
    assert found.clip.prompt == {}
    assert set(found.clip.picture) == set(STAGES)
    assert heads(found)[-1] == "CLIP, FP32's picture"
    assert [len(row) for row in rows(found)] == [4] * len(STAGES)


def test_a_prompt_that_is_too_long_is_named(folder: Path) -> None:
    model = ClipModel(folder)
    fits, long = "a" * (TOKENS - 2), "a" * (TOKENS - 1)
    assert model.notes_on((fits,)) == ()
    assert model.notes_on((fits, long)) == (
        f"{long!r} is longer than the {TOKENS} tokens of tiny-clip, which scored its beginning",
    )
    assert torch.isfinite(model.texts((long,))).all()


def test_the_table_says_where_scores_come_from(folder: Path, chain: Chain) -> None:
    def shown(each: Chain) -> str:
        console = Console(file=io.StringIO(), width=200)
        show_chain(console, each)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    without, given = shown(chain), shown(scored(chain, ClipModel(folder)))
    assert WITHOUT in without
    assert "CLIP," not in without
    assert "31.0, " not in without.splitlines()[0]
    assert "30.0, 31.0" in without
    assert WITHOUT not in given
    assert "CLIP: cosines by tiny-clip" in source(scored(chain, ClipModel(folder)))
    assert "(none: FP32)" in given
    assert all(title in given for title in STAGES.values())


def _without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)


def _text_alone(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip_text_model"}')


def _nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _other_words(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    save_file(tensors | {name: tensors[name][:40].clone()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json; give the folder of a CLIP model"),
        (_text_alone, "'clip_text_model', allowed is 'clip'"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "only safetensors are read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "it is incomplete"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be read as CLIPImageProcessorPil"),
        (_without_tokenizer, r"has no tokenizer\.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be read as CLIPTokenizer"),
        (_nan, "holds NaN or infinity"),
        (_other_words, "the tokenizer in .* has 54 tokens, the model 40"),
    ],
)  # fmt: skip
def test_what_is_no_model_of_this_kind(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    save_clip(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError, match=said):
        ClipModel(tmp_path)
