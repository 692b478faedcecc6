"""A fused LoRA answers as its adapters do, leaves the network's structure, and misfits are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from scripts.published.encoders import text_config
from transformers import CLIPTextModel

from dq_toolchain.toolchain.disk import spill
from dq_toolchain.toolchain.disk.files import write_tensors
from dq_toolchain.toolchain.errors import ModelError, ToolchainError
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.models.loading import load, load_model
from dq_toolchain.toolchain.models.lora import Lora, fuse_into_encoders, fuse_into_network
from dq_toolchain.toolchain.models.source import find_model
from tests.pages import file_of
from tests.tiny import write_tiny_model
from tests.tiny_pipelines import WIDTH, flux, save_sd, unet


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
    assert not torch.equal(answer(plain.network), answer(full.network))
    moved = [
        (
            one.network.state_dict()["mid_block.resnets.0.conv1.weight"]
            - plain.network.state_dict()["mid_block.resnets.0.conv1.weight"]
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


LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.time_emb_proj", "time_embedding.linear_1", "conv_in",
    "up_blocks.1.resnets.0.conv_shortcut",
)  # fmt: skip
FIRST = f"lora_unet_{LAYERS[0].replace('.', '_')}"


def kohya(
    module: torch.nn.Module, layers: tuple[str, ...] = LAYERS, prefix: str = "lora_unet_"
) -> dict[str, torch.Tensor]:
    """A LoRA of rank 4 as kohya-ss writes it, every layer with another alpha, the last with none."""
    found: dict[str, torch.Tensor] = {}
    for i, layer in enumerate(layers):
        shape, name = module.get_parameter(f"{layer}.weight").shape, prefix + layer.replace(".", "_")
        found[f"{name}.lora_down.weight"] = torch.randn(4, *shape[1:], generator=torch.Generator().manual_seed(i))
        ones = (1,) * (len(shape) - 2)
        found[f"{name}.lora_up.weight"] = torch.randn(
            shape[0], 4, *ones, generator=torch.Generator().manual_seed(99 + i)
        )
        found[f"{name}.alpha"] = torch.tensor(1.0 + i)
    del found[f"{name}.alpha"]
    return found


def added(tensors: dict[str, torch.Tensor], layer: str, prefix: str = "lora_unet_") -> torch.Tensor:
    """alpha / rank * B @ A, alpha = rank where there is none."""
    name = prefix + layer.replace(".", "_")
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    return float(tensors.get(f"{name}.alpha", 4.0)) / 4 * torch.einsum("or,r...->o...", up.flatten(1), down)


def test_weights_are_what_they_were_plus_scale_alpha_over_rank_times_the_factors(tmp_path: Path) -> None:
    network = unet()
    before, tensors = {k: v.clone() for k, v in network.state_dict().items()}, kohya(network)
    write_tensors(tmp_path / "l.safetensors", tensors)
    found = fuse_into_network(network, Lora(tmp_path / "l.safetensors", 0.7))
    assert found.adapters == {"unet": len(LAYERS)}
    for layer in LAYERS:
        expected = before.pop(f"{layer}.weight") + 0.7 * added(tensors, layer)
        torch.testing.assert_close(network.get_submodule(layer).weight.data, expected)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_changed_weights_are_in_memory_unless_there_is_a_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SMALLEST", 1)
    folder = write_tiny_model(tmp_path / "model", unet())
    write_tensors(tmp_path / "l.safetensors", kohya(unet()))
    source, lora = find_model(folder), Lora(tmp_path / "l.safetensors")
    plain, kept = load(source, lora), load(source, lora, spill.Spill(tmp_path))
    assert {name for name, is_in in plain.in_pages.items() if not is_in} == {f"{layer}.weight" for layer in LAYERS}
    assert all(kept.in_pages.values())
    state = plain.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.network.state_dict().items())
    if sys.platform == "linux":
        assert all(file_of(tensor) is not None for tensor in kept.network.parameters())


def test_encoders_get_theirs_and_are_named_where_they_are_not_used(tmp_path: Path) -> None:
    encoder = CLIPTextModel(text_config(WIDTH))
    layers = tuple(name for name, each in encoder.named_modules() if isinstance(each, torch.nn.Linear))
    network, before = unet(), {k: v.clone() for k, v in encoder.state_dict().items()}
    prefix = "lora_te_text_model_"
    tensors = kohya(encoder, layers, prefix)
    write_tensors(tmp_path / "l.safetensors", tensors | kohya(network))
    lora = fuse_into_network(network, Lora(tmp_path / "l.safetensors"))
    fuse_into_encoders(SimpleNamespace(text_encoder=encoder), network, lora)
    for layer in layers:
        expected = before[f"{layer}.weight"] + added(tensors, layer, prefix)
        torch.testing.assert_close(encoder.state_dict()[f"{layer}.weight"], expected)
    assert lora.notes(["text_encoder"], "") == []
    assert lora.record(["text_encoder"])["left_out"] == {}
    (line,) = lora.notes([], "prompts come from elsewhere")
    assert f"{len(layers)} adapters of text_encoder are left out, since prompts come from elsewhere" in line
    assert lora.record([]) | {"sha256": ""} == {
        "file": "l.safetensors", "sha256": "", "scale": 1.0, "fused": {"unet": len(LAYERS)},
        "left_out": {"text_encoder": len(layers)},
    }  # fmt: skip
    assert "--lora-scale is 0" in Lora(lora.file, 0.0).notes([], "")[0]


OTHER = FIRST.replace("down_blocks_0", "down_blocks_2")


@pytest.mark.parametrize(("change", "message"), [
    ({f"{FIRST}.dora_scale": torch.ones(16, 1)}, "DoRA"), ({f"{FIRST}.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
    ({f"{FIRST}.lokr_w1": torch.ones(2, 2)}, "LoKr"), ({f"{FIRST}.diff": torch.ones(2)}, "full difference of weights"),
    ({f"{FIRST}.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "three factors"),
    ({f"{OTHER}.lora_down.weight": torch.ones(4, 16), f"{OTHER}.lora_up.weight": torch.ones(16, 4)},
     "1 of its 10 adapters .* lacks, first"),
    ({f"{FIRST}.lora_down.weight": torch.full((4, 16), float("nan"))}, "NaN"),
    ({f"{FIRST}.lora_down.weight": torch.ones(0, 16), f"{FIRST}.lora_up.weight": torch.ones(16, 0)}, "two factors of one rank"),
    ({f"{FIRST}.lora_down.weight": torch.ones(4, 99)}, "made for another model"), ({f"{FIRST}.alpha": torch.ones(2)}, "is no LoRA"),
    ({"emb.x": torch.ones(2)}, "holds no adapters of the unet"),
    ({"lora_unet_a.alpha": torch.tensor(1.0)}, "no LoRA that diffusers knows"),
])  # fmt: skip
def test_a_tensor_that_would_be_dropped_is_refused(
    change: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    network = unet()
    write_tensors(tmp_path / "l.safetensors", kohya(network) | change)
    with pytest.raises(ModelError, match=message):
        fuse_into_network(network, Lora(tmp_path / "l.safetensors"))


def test_names_of_kohya_for_a_transformer_are_refused_with_the_reason(tmp_path: Path) -> None:
    """diffusers' converter for them joins and splits tensors, so that none could be missed without being seen."""
    name = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {f"{name}.lora_down.weight": torch.randn(2, 16), f"{name}.lora_up.weight": torch.randn(16, 2)}
    write_tensors(tmp_path / "l.safetensors", tensors)
    network = flux()
    with pytest.raises(ModelError, match="names of kohya-ss are read for UNets only, take a LoRA that diffusers saved"):
        fuse_into_network(network, Lora(tmp_path / "l.safetensors"))
