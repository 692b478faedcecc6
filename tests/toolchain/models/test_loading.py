"""Loading a diffusers folder: safetensors only, exact fit, float32; every defect is named with its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.errors import ModelError
from dq_toolchain.toolchain.models.loading import build_network, load_model
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
