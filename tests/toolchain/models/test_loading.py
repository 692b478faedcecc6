"""Loading a diffusers folder: safetensors only, exact fit, float32; every defect is named with its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dq_toolchain.toolchain.disk import spill
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.loading import build_network, load, load_model
from dq_toolchain.toolchain.models.source import find_model
from tests.pages import file_of
from tests.tiny import noise, tiny_condition_unet, tiny_unet, write_tiny_model

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@torch.no_grad()
def test_the_loaded_network_is_the_saved_one(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    model, x, time, label = load_model(folder), noise(2), torch.tensor([5.0, 900.0]), torch.tensor([1, 10])
    assert torch.equal(model.network(x, time, label).sample, tiny_unet()(x, time, label).sample)
    assert model.id == "model"
    assert model.weight_hash == sha256(folder / WEIGHTS)
    assert model.scheduler_config["_class_name"] == "DDIMScheduler"
    assert not any(p.requires_grad for p in model.network.parameters())
    assert not model.network.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_to_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(narrow, folder / WEIGHTS)
    state = load_model(folder).network.state_dict()
    assert all(
        tensor.dtype == torch.float32 and torch.equal(tensor, narrow[name].float()) for name, tensor in state.items()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_on_disk_are_those_in_memory(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only narrow ones are widened there; it is known of each parameter whether the system can drop it."""
    monkeypatch.setattr(spill, "SMALLEST", 1)
    folder = write_tiny_model(tmp_path / "model")
    save_file({name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    source = find_model(folder)
    plain, kept = load(source), load(source, spill=spill.Spill(tmp_path / "spill"))
    state = plain.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.network.state_dict().items())
    assert kept.weight_hash == plain.weight_hash
    assert set(plain.in_pages.values()) == {dtype == torch.float32}
    assert set(kept.in_pages.values()) == {True}
    assert set(plain.in_pages) == set(kept.in_pages) == set(state)
    assert (tmp_path / "spill").exists()
    assert list((tmp_path / "spill").iterdir()) == []
    if sys.platform == "linux":
        for model in (plain, kept):
            found = {name: file_of(tensor) for name, tensor in model.network.named_parameters()}
            assert all((file is not None) == model.in_pages[name] for name, file in found.items())
            own = {file == str(folder / WEIGHTS) for file in found.values() if file is not None}
            assert own <= {dtype == torch.float32}


def test_values_that_are_not_finite_are_named_on_the_way_to_the_disk(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    state = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    state["conv_in.weight"][0, 0, 0, 0] = float("inf")
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ModelError, match=r"'conv_in\.weight' holds NaN or infinity"):
        load(find_model(folder), spill=spill.Spill(tmp_path / "spill"))
    assert list((tmp_path / "spill").iterdir()) == []


def test_both_architectures_are_rebuilt_from_their_config() -> None:
    for unet, name in ((tiny_unet(), "UNet2DModel"), (tiny_condition_unet(), "UNet2DConditionModel")):
        again = build_network(dict(unet.config) | {"_class_name": name})
        assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in unet.state_dict().items()}


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": [16]},
        {"block_out_channels": "wide"},
        {"block_out_channels": []},
        {"norm_num_groups": 7},
        {"norm_num_groups": 0},
        {"down_block_types": ["NoBlock2D", "DownBlock2D"]},
        {"in_channels": "one"},
        {"in_channels": -1},
        {"layers_per_block": None},
        {"attention_head_dim": 0},
        {"num_class_embeds": -2},
        {"down_block_types": []},
    ],
)
def test_a_config_that_diffusers_cannot_build_is_a_model_error(change: dict[str, object]) -> None:
    config = dict(tiny_unet().config) | {"_class_name": "UNet2DModel"} | change
    with pytest.raises(ModelError) as caught:
        build_network(config)
    assert "UNet2DModel" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors: .*only safetensors are read"):
        load_model(folder)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    state = load_file(folder / WEIGHTS)
    for changed, name in (
        ({**state, "extra.weight": torch.zeros(1)}, "extra.weight"),
        ({n: t for n, t in state.items() if n != "conv_in.bias"}, "conv_in.bias"),
        ({**state, "conv_in.bias": torch.zeros(3)}, "conv_in.bias"),
    ):
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(ModelError, match=rf"safetensors does not fit unet/config.json: .*{name}"):
            load_model(folder)


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_config_file_that_is_no_json_object_is_named(name: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    for content in (b"{", b"\xff\xfe", json.dumps([1]).encode()):
        (folder / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            load_model(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"cannot read .*{name}"):
        load_model(folder)
