"""Tiny networks whose blocks are streamed, and what calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.network.activation_checkpointing import checkpointed
from dq_toolchain.calibrate.network.insert import Prepared, QuantizedNetwork, prepare
from dq_toolchain.toolchain.models.architectures import call_network
from dq_toolchain.toolchain.recipe.sections import QuantizeSection
from tests.calibrate.network.counting import HOST, CountingCopier, streaming
from tests.tiny import noise, tiny_condition_unet
from tests.tiny_pipelines import sd3

NETWORKS: dict[str, Callable[[], nn.Module]] = {"unet": tiny_condition_unet, "sd3": sd3}


def inputs(network: nn.Module, seed: int = 1, device: torch.device = HOST) -> Callable[..., Any]:
    """What calls a network like this one, with latents of its own if it is given some."""
    inner = network.inner if isinstance(network, QuantizedNetwork) else network
    keywords = {"encoder_hidden_states": torch.ones(2, 3, 8, device=device)}
    if type(inner).__name__.startswith("SD3"):
        keywords["pooled_projections"] = torch.ones(2, 16, device=device)
    drawn, times = noise(2, seed=seed, channels=4).to(device), torch.tensor([5.0, 6.0], device=device)
    return lambda called, x=drawn: call_network(called, x, times, keywords)


def call(network: nn.Module, seed: int = 1) -> Any:
    return inputs(network, seed)(network)


def first(out: Tensor | tuple[Tensor]) -> Tensor:
    """A quantized network gives a tuple."""
    return out[0] if isinstance(out, tuple) else out


def prepared_of(name: str) -> Prepared:
    torch.manual_seed(0)
    return prepare(NETWORKS[name](), QuantizeSection(attention="int8" if name == "unet" else "float"), call)


def quantized_of(prepared: Prepared) -> QuantizedNetwork:
    shape = (1, len(prepared.sites))
    weights = {site.layer: torch.full((len(weight_of(prepared, site.layer)),), 2.0**-7)
               for site in prepared.sites if site.weight_bits is not None}  # fmt: skip
    return QuantizedNetwork(
        prepared,
        torch.full(shape, 2.0**-5),
        torch.zeros(shape, dtype=torch.int32),
        weights,
        (0,),
        learned_rounding=False,
        low_memory=True,
    )


def weight_of(prepared: Prepared, layer: str) -> Tensor:
    return prepared.network.get_parameter(f"{layer}.weight")


def both(name: str) -> tuple[Prepared, QuantizedNetwork]:
    prepared = prepared_of(name)
    return prepared, quantized_of(prepared)


def streamed(name: str) -> tuple[Prepared, QuantizedNetwork, CountingCopier]:
    """FP32 and quantized, of which nothing is right but what was brought."""
    prepared, (engine, copier) = prepared_of(name), streaming(hidden=(torch.float32, torch.int8))
    engine.attach(prepared.network)
    network = quantized_of(prepared)
    network.stream(engine)
    return prepared, network, copier


def gradients(network: QuantizedNetwork) -> dict[str, Tensor]:
    network.zero_grad()
    with checkpointed(network.inner), network.weights_once():
        call(network)[0].square().sum().backward()
    learned = network.weight_parameters() | network.scale_parameters()
    return {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}


def per_block(copier: CountingCopier) -> set[int]:
    found = set(copier.started.values())
    copier.started.clear()
    return found
