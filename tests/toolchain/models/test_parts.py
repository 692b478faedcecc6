"""A part is read in the variant that is there, to the last weight; what a library would begin at random is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts.published.encoders import text_config
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.parts import find_weights, load_part
from tests.tiny_pipelines import WIDTH

Tensors = dict[str, torch.Tensor]


def t5() -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=32, num_layers=3, num_heads=2))


@pytest.mark.parametrize("size", ["6KB", "1GB"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_every_weight_of_a_variant_is_read_sharded_or_not(variant: str | None, size: str, tmp_path: Path) -> None:
    saved = t5().half().float()
    saved.save_pretrained(tmp_path, variant=variant, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) is (size == "6KB")
    found = load_part(T5EncoderModel, tmp_path, "model")
    assert all(torch.equal(found.state_dict()[name], value) for name, value in saved.state_dict().items())


def test_plain_weights_come_first_and_whole_ones_before_those_that_lack_a_shard(tmp_path: Path) -> None:
    def variant() -> str | None:
        return find_weights(tmp_path, "model").variant

    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps(index)
    )  # all JSON is downloaded, whatever the variant
    for name in ("bf16", "fp16"):
        save_file({"a": torch.ones(1)}, tmp_path / f"model.{name}.safetensors")
    assert variant() == "fp16"
    for name in index["weight_map"].values():
        save_file({"a": torch.ones(1)}, tmp_path / name)
    assert variant() is None


def drop(state: Tensors) -> None:
    del state["encoder.layers.0.mlp.fc1.weight"]


def cut(state: Tensors) -> None:
    state["encoder.layers.0.mlp.fc1.weight"] = torch.ones(1, WIDTH)


def spoil(state: Tensors) -> None:
    state["encoder.layers.0.mlp.fc1.weight"][0, 0] = float("nan")


@pytest.mark.parametrize(("change", "message"), [
    (drop, "1 weights that CLIPTextModel needs are missing .* first 'encoder.layers.0.mlp.fc1.weight'"),
    (cut, "of another shape, first 'encoder.layers.0.mlp.fc1.weight'"), (spoil, "holds NaN or infinity"),
    (lambda state: [state.pop(name) for name in list(state)[2:]], r"describes CLIPTextModel with [\d,]+ numbers"),
])  # fmt: skip
def test_weights_that_are_not_there_are_refused_by_name(
    change: Callable[[Tensors], None], message: str, tmp_path: Path
) -> None:
    CLIPTextModel(text_config(WIDTH)).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        load_part(CLIPTextModel, tmp_path, "model")


def test_weights_under_older_names_or_tied_ones_are_all_there_and_what_has_no_place_is_said(tmp_path: Path) -> None:
    clip, lines = CLIPTextModel(text_config(WIDTH)), list[str]()
    clip.save_pretrained(tmp_path / "clip")
    state = {
        f"text_model.{name.removeprefix('text_model.')}": value.clone() for name, value in clip.state_dict().items()
    }
    state |= {"text_model.embeddings.position_ids": torch.arange(12)[None], "vision_model.x": torch.ones(1)}
    save_file(state, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    found = load_part(CLIPTextModel, tmp_path / "clip", "model", lines.append)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in clip.state_dict().items())
    assert len(lines) == 1
    assert "1 weights in model.safetensors are left out" in lines[0]
    assert "'vision_model.x'" in lines[0]
    saved = t5()
    saved.save_pretrained(tmp_path / "t5")
    tied = load_file(tmp_path / "t5" / "model.safetensors")
    tied["encoder.embed_tokens.weight"] = tied.pop("shared.weight")
    save_file(tied, tmp_path / "t5" / "model.safetensors", {"format": "pt"})
    assert torch.equal(load_part(T5EncoderModel, tmp_path / "t5", "model").shared.weight, saved.shared.weight)


@pytest.mark.parametrize(("content", "message"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "incomplete .a pointer of git-lfs.*download it again"),
    (b"", "incomplete"), (None, "incomplete"),
])  # fmt: skip
def test_a_file_that_was_cut_or_not_fetched_is_incomplete(content: bytes | None, message: str, tmp_path: Path) -> None:
    CLIPTextModel(text_config(WIDTH)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9] if content is None else content)
    with pytest.raises(ModelError, match=message):
        load_part(CLIPTextModel, tmp_path, "model")


def test_no_part_leads_elsewhere_or_takes_endless_memory(tmp_path: Path) -> None:
    CLIPTextModel(text_config(WIDTH)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changes = (({"hidden_size": 2**20}, "describes CLIPTextModel with"), ({"num_hidden_layers": 10**9}, "at most 1000"))
    for change, message in changes:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=message):
            load_part(CLIPTextModel, tmp_path, "model")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(ModelError, match="another model are not read"):
        load_part(CLIPTextModel, tmp_path, "model")
