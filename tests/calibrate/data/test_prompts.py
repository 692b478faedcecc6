"""Prompts go through the pipeline's own encoders, whole ones, and what is left out of a prompt is said each time."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts.published.encoders import tokenizer
from torch import nn

from dq_toolchain.calibrate.data.encoders import encoders_of, text_pipeline
from dq_toolchain.calibrate.data.notes import read_literally
from dq_toolchain.calibrate.data.prompts import cut_short, encoded_prompts, read_prompts
from dq_toolchain.calibrate.data.prompts import encode as encode_by
from dq_toolchain.toolchain.errors import ModelError, RecipeError
from dq_toolchain.toolchain.models.loading import Model
from tests.tiny_chat import sana_pipeline
from tests.tiny_pipelines import PROMPTS, save_sdxl


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL whose first encoder is plain and whose second exists in fp16 only, in shards."""
    folder = save_sdxl(tmp_path_factory.mktemp("sdxl"))
    second = text_pipeline(folder).text_encoder_2.half()
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    second.save_pretrained(folder / "text_encoder_2", variant="fp16", max_shard_size="2KB")
    assert len(list((folder / "text_encoder_2").glob("model.fp16-*"))) > 1
    return folder


def encode(folder: Path, cache: Path, prompts: tuple[str, ...] = PROMPTS) -> tuple[Any, list[str]]:
    cache.mkdir(exist_ok=True)
    (cache / "p.txt").write_text("\n".join(prompts))
    lines: list[str] = []
    model = Model("made up", "0", {"_class_name": "UNet2DConditionModel"}, {}, nn.Identity(), folder)
    return encoded_prompts(model, cache / "p.txt", "fog", True, cache, lines.append), lines


def test_each_encoder_is_read_in_the_variant_that_it_has(sdxl: Path, tmp_path: Path) -> None:
    prompts = ("a fox", "snow")
    found, lines = encode(sdxl, tmp_path, prompts)
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl, variant="fp16", torch_dtype=torch.float32)
    with torch.no_grad():
        states, other, pooled, other_pooled = pipeline.encode_prompt(
            list(prompts), negative_prompt=["fog"] * 2, device="cpu"
        )
    assert lines == []
    torch.testing.assert_close(found.cond["encoder_hidden_states"], states)
    torch.testing.assert_close(found.cond["text_embeds"], pooled)
    torch.testing.assert_close(found.uncond["encoder_hidden_states"], other[:1])
    torch.testing.assert_close(found.uncond["text_embeds"], other_pooled[:1])


def test_sanas_prompts_stand_behind_the_instruction_that_its_call_gives() -> None:
    pipeline = sana_pipeline()
    pipeline.tokenizer.model_max_length = 100_000
    prompts = ["a red fox", "snow"]
    given = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    with torch.no_grad():
        cond, uncond = encode_by(pipeline, {"_class_name": "SanaTransformer2DModel"}, prompts, "fog")
        states, mask, other, other_mask = pipeline.encode_prompt(
            prompts, negative_prompt=["fog"] * 2, device="cpu", complex_human_instruction=given
        )
    torch.testing.assert_close(cond["encoder_hidden_states"], states)
    torch.testing.assert_close(cond["encoder_attention_mask"], mask.float())
    torch.testing.assert_close(uncond["encoder_hidden_states"], other)
    torch.testing.assert_close(uncond["encoder_attention_mask"], other_mask.float())


@pytest.mark.parametrize("is_longer", [False, True])
def test_what_sanas_call_leaves_out_of_a_prompt_is_named(is_longer: bool) -> None:
    pipeline = sana_pipeline()
    pipeline.tokenizer.model_max_length = 100_000
    most = 299
    own = len(pipeline.tokenizer("a").input_ids) - 1
    prompt = "a" * (most - own + is_longer)
    lines = list(cut_short(pipeline, [prompt]))
    assert (
        lines
        == [f"prompt {prompt[:40]!r} has {most + 1} tokens, tokenizer takes {most}: the rest is left out"] * is_longer
    )


def test_what_is_said_of_prompts_is_said_again_of_cached_ones(sdxl: Path, tmp_path: Path) -> None:
    prompts = ("a fox <lora:fur:0.8> of a length that no encoder here takes", "(snow:1.3) and <mine>", "a (ship:0.5)")
    first, lines = encode(sdxl, tmp_path, prompts)
    wanted = (
        "'<lora:fur:0.8>' is read as plain text",
        "'(snow:1.3)' and 1 more are read",
        "'<mine>' is read",
        "the rest is left",
    )
    assert all(sum(words in line for line in lines) >= 1 for words in wanted)
    assert sum("plain text" in line for line in lines) == 3
    (kept,) = tmp_path.glob("*.safetensors")
    before = kept.stat().st_mtime_ns
    again, said = encode(sdxl, tmp_path, prompts)
    assert said == lines
    assert torch.equal(first.cond["text_embeds"], again.cond["text_embeds"])
    assert kept.stat().st_mtime_ns == before


def test_of_many_prompts_that_are_cut_short_the_first_are_named(sdxl: Path, tmp_path: Path) -> None:
    words = ("fox", "sea", "sky", "sun", "old oak")
    prompts = tuple(f"a long line about the {word} that no encoder here takes" for word in words)
    _, lines = encode(sdxl, tmp_path, prompts)
    for name in ("tokenizer", "tokenizer_2"):
        assert sum(f" tokens, {name} takes " in line for line in lines) == 3
        assert (
            sum(
                line.startswith("2 more of 6 prompts have more tokens") and line.endswith(f"{name} takes")
                for line in lines
            )
            == 1
        )


def test_prompts_beyond_any_calibration_are_refused_before_they_are_encoded(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    for text, message in (
        ("a fox\n" * 10_001, "holds more than 10,000 prompts, allowed are 10,000"),
        ("x" * 10_001, "of 10,001 characters"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=message):
            read_prompts(file)
    file.write_text("# a fox\n" * 10_001 + "snow\n")
    assert read_prompts(file) == ["snow"]


def test_words_that_a_tokenizer_knows_and_brackets_of_plain_text_are_not_mentioned() -> None:
    own = tokenizer()
    own.add_tokens(["<mine>"])
    assert list(read_literally(["a <mine> fox (red)", "2 < 3 > 1", "<|endoftext|>", "[a]"], [own])) == []


def test_a_folder_whose_parts_are_not_whole_or_not_diffusers_is_refused(sdxl: Path, tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "own")
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    for change, message in (
        ({"_class_name": "Zero123PlusPipeline"}, "'Zero123PlusPipeline' is no pipeline of diffusers .* never run"),
        ({"_class_name": ["pipeline", "Own"]}, "'Own' is no pipeline of diffusers"),
        (
            {"_class_name": "AudioLDMPipeline"},
            "is no pipeline of diffusers|does not encode prompts|takes no tokenizer_2",
        ),
        (
            {"text_encoder": ["own", "Encoder"]},
            "text_encoder is 'Encoder' of 'own', allowed are classes of transformers",
        ),
        ({"text_encoder": ["transformers", "AutoModel"]}, "allowed are classes of transformers"),
        ({"text_encoder_3": ["transformers", "T5EncoderModel"]}, "text_encoder_3 is missing"),
        ({"tokenizer_2": [None, None]}, "text_encoder_2 comes without its tokenizer_2"),
    ):
        path.write_text(json.dumps(index | change))
        with pytest.raises(ModelError, match=message):
            text_pipeline(folder)
    path.write_text(json.dumps(index))
    state = load_file(folder / "text_encoder" / "model.safetensors")
    name = next(name for name in state if "fc1.weight" in name)
    del state[name]
    save_file(state, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights that CLIPTextModel needs are missing"):
        encode(folder, tmp_path / "cache")
    assert encoders_of(folder) == ("text_encoder", "text_encoder_2")
    path.write_text(json.dumps(index | {"text_encoder": [None, None], "tokenizer": [None, None]}))
    assert encoders_of(folder) == ("text_encoder_2",)
