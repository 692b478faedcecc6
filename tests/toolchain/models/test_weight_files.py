"""Weight files: old names load with diffusers' outputs; what is not whole, or not the network's, is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel, Transformer2DModel, UNet2DModel
from safetensors.torch import load_file, save_file
from scripts.published.encoders import TOKENS

from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models import loading as models
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.models.loading import load, load_model
from dq_toolchain.toolchain.models.source import find_model
from tests.tiny import noise, tiny_unet, write_tiny_model
from tests.tiny_pipelines import WIDTH, pixart, save_transformer

NAME = "diffusion_pytorch_model.safetensors"
OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
"""Names of before diffusers 0.17."""


def old_name(name: str) -> str:
    for new, old in OLD.items():
        name = name.replace(new, old)
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@torch.no_grad()
def test_names_of_before_diffusers_0_17_load_as_diffusers_loads_them(folder: Path) -> None:
    file = folder / "unet" / NAME
    state = load_file(file)
    save_file({old_name(name): tensor for name, tensor in state.items()}, file)
    assert not any("to_q" in name for name in load_file(file))
    x, time, label = noise(2), torch.tensor([5.0, 900.0]), torch.tensor([1, 10])
    ours = load_model(folder).network
    theirs = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True)
    assert torch.equal(ours(x, time, label).sample, theirs(x, time, label).sample)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    both = {old_name(name): tensor for name, tensor in state.items()} | {
        name: t.clone() for name, t in state.items() if "to_q" in name
    }
    save_file(both, file)
    with pytest.raises(ModelError, match="one tensor under an old name and a new one"):
        load_model(folder)


@torch.no_grad()
def test_a_published_pixart_loads_as_diffusers_loads_it(tmp_path: Path) -> None:
    """Its config names Transformer2DModel, in the folder and in the index."""
    folder = save_transformer(pixart(), tmp_path)
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text()) | {"_class_name": "Transformer2DModel", "double_self_attention": False}
    path.write_text(json.dumps(config))
    index = {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "Transformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    theirs = Transformer2DModel.from_pretrained(folder / "transformer", use_safetensors=True)
    model = load_model(folder)
    assert isinstance(theirs, PixArtTransformer2DModel)
    assert model.config["_class_name"] == type(model.network).__name__ == "PixArtTransformer2DModel"
    x, time, states = torch.randn(1, 4, 8, 8), torch.tensor([9.0]), torch.randn(1, TOKENS, WIDTH)
    expected = theirs(x, encoder_hidden_states=states, timestep=time, return_dict=False)[0]
    assert torch.equal(call_network(model.network, x, time, {"encoder_hidden_states": states}), expected[:, :4])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: data[: len(data) // 2], r"it is incomplete, [\d,]+ of [\d,]+ bytes are there; download it again"),
        (lambda data: data[:-1], r"incomplete, [\d,]+ of [\d,]+ bytes"),
        (lambda data: data[:100], "incomplete, 100 bytes .*download it again"),
        (lambda data: b"", "incomplete, 0 bytes .*download it again"),
        (lambda data: data[:8], "incomplete, 8 bytes"),
        (
            lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "git-LFS pointer .*download it again, with `git lfs pull`",
        ),
        (lambda data: b"\n<!DOCTYPE html><html>Access denied</html>", "a web page .*download it again"),
        (lambda data: b"PK\x03\x04" + data, "it is a pickle under another name; only safetensors are read"),
        (lambda data: b"\x80\x04" + data, "it is a pickle under another name"),
    ],
)
def test_a_file_that_is_not_whole_is_found_before_it_is_read(content: object, message: str, folder: Path) -> None:
    file = folder / "unet" / NAME
    file.write_bytes(content(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelError, match=rf"cannot read {file}: .*{message}|{message}") as caught:
        find_model(folder)
    assert str(file) in str(caught.value)


def test_a_shard_that_is_missing_is_counted(folder: Path) -> None:
    tiny_unet().save_pretrained(folder / "unet", max_shard_size="40KB")
    (folder / "unet" / NAME).unlink()
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    assert torch.equal(
        load_model(folder).network.state_dict()["conv_in.weight"], tiny_unet().state_dict()["conv_in.weight"]
    )
    shards[1].unlink()
    with pytest.raises(
        ModelError,
        match=rf"incomplete: {len(shards) - 1} of {len(shards)} weight files .*missing {shards[1].name}; download",
    ):
        find_model(folder)
    index = folder / "unet" / f"{NAME}.index.json"
    listings: list[object] = [{}, {"a": "../x.safetensors"}, {"a": "x.bin"}, [], None]
    for listed in listings:
        index.write_text(json.dumps({"weight_map": listed}))
        with pytest.raises(ModelError, match=r"weight_map does not list safetensors files beside it"):
            find_model(folder)


def test_nothing_of_the_weights_is_read_when_the_config_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_embed_type": "timestep"}))
    (folder / "unet" / NAME).unlink()
    with pytest.raises(ModelError, match="class_embed_type"):
        find_model(folder)
    hashed: list[Path] = []

    def digest(file: Path) -> str:
        hashed.append(file)
        return "0" * 64

    monkeypatch.setattr(models, "sha256", digest)
    source = find_model(write_tiny_model(folder.parent / "good"))
    assert hashed == []
    assert load(source).weight_hash == "0" * 64
    assert hashed == list(source.weights)


def test_weights_that_are_no_floats_are_refused(folder: Path) -> None:
    file = folder / "unet" / NAME
    save_file(load_file(file) | {"conv_in.weight": torch.zeros(16, 1, 3, 3, dtype=torch.int8)}, file)
    with pytest.raises(ModelError, match=r"'conv_in\.weight' is of type I8, allowed are floats"):
        load_model(folder)
