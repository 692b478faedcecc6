"""A fused LoRA answers as its adapters do, leaves the network's structure, and misfits are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from dq_toolchain.toolchain.architectures import call_network
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.files import write_tensors
from dq_toolchain.toolchain.lora import Lora, fuse_into_network
from dq_toolchain.toolchain.models import load_model
from tests.tiny_pipelines import WIDTH, save_sd, unet


def with_adapter() -> Any:
    torch.manual_seed(5)
    network = unet().eval()
    network.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "to_v", "conv1"]))
    for name, parameter in network.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(False)


def saved(network: Any, folder: Path) -> Path:
    metadata = network.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(network), unet_lora_adapter_metadata=metadata
    )
    return folder / "pytorch_lora_weights.safetensors"


@torch.no_grad()
def answer(network: torch.nn.Module) -> torch.Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    return call_network(network, x, torch.tensor([5.0]), {"encoder_hidden_states": torch.ones(1, 3, WIDTH)})


def test_fused_it_answers_as_its_adapters_do(tmp_path: Path) -> None:
    adapted = with_adapter()
    file, expected = saved(adapted, tmp_path), answer(adapted)
    torch.manual_seed(5)
    plain = unet().eval()
    names, before = set(plain.state_dict()), answer(plain)
    fuse_into_network(plain, Lora(file))
    torch.testing.assert_close(answer(plain), expected, rtol=1e-3, atol=1e-4)
    assert float((before - expected).abs().max()) > 0.01
    assert set(plain.state_dict()) == names


def test_a_model_with_a_lora_is_another_model(tmp_path: Path) -> None:
    folder, file = save_sd(tmp_path / "sd"), saved(with_adapter(), tmp_path)
    plain, full, half = (
        load_model(folder),
        load_model(folder, lora=Lora(file)),
        load_model(folder, lora=Lora(file, 0.5)),
    )
    assert len({plain.weight_hash, full.weight_hash, half.weight_hash}) == 3
    assert not torch.equal(answer(plain.unet), answer(full.unet))
    moved = [
        (
            one.unet.state_dict()["mid_block.resnets.0.conv1.weight"]
            - plain.unet.state_dict()["mid_block.resnets.0.conv1.weight"]
        )
        for one in (half, full)
    ]
    torch.testing.assert_close(2 * moved[0], moved[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.ones(1)},
        {"unet.no_such_layer.lora_A.weight": torch.ones(2, 3), "unet.no_such_layer.lora_B.weight": torch.ones(3, 2)},
        {"text_encoder.x.lora_A.weight": torch.ones(2, 3), "text_encoder.x.lora_B.weight": torch.ones(3, 2)},
    ],
)
def test_what_does_not_fit_is_refused(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write_tensors(tmp_path / "l.safetensors", tensors)
    with pytest.raises(ModelError, match=r"l\.safetensors"):
        fuse_into_network(unet(), Lora(tmp_path / "l.safetensors"))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.bin").write_bytes(b"pickle")
    with pytest.raises(ToolchainError, match="one safetensors file"):
        fuse_into_network(unet(), Lora(tmp_path / "l.bin"))
