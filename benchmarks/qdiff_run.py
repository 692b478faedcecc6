"""One reconstruction by Q-Diffusion's own code, in the order and with the arguments of its sampling scripts."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.qdiff_checkout import patched, rounding_rate, specials_of
from dq_toolchain.calibrate.blocks.evaluations import Evaluations
from dq_toolchain.calibrate.network.call_order import order_of_calls
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.toolchain.models.architectures import call_network

OWN_RATE, OWN_SCALE_RATE, OWN_NORM = 1e-3, 4e-4, 2.4
"""Adam's default, which their rounding is learned with; their defaults of --cali_lr and --cali_p."""
INITIAL_WEIGHT_ROWS, INITIAL_ROWS = 8, 64
"""Rows on which their quantizers of weights (which do not depend on them) and activations are initialised."""


@dataclass(frozen=True)
class Quantizers:
    """Quantizers of their own: how scales are found, and whether activations are symmetric. Weights are affine per channel."""

    weight_method: str
    activation_method: str
    symmetric: bool
    weight_bits: int
    edge_bits: int | None = None
    """Of the first and the last convolution; None: as all others, which is what their code does."""
    activation_bits: int = 8


@dataclass(frozen=True)
class Given:
    """Quantizers of ours, by layer. ``weights``: scale (out,), qmin, qmax. ``activations``: scale (), zero_point, qmin, qmax."""

    weights: Mapping[str, tuple[Tensor, int, int]]
    activations: Mapping[str, tuple[Tensor, float, int, int]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Iterations for each unit, rows per batch of the rounding, its learning rate, and whose quantizers.

    Attributes:
        quantizers: of their own; None has those given.
        own_weights_only: activations have those given all the same.
    """

    quantizers: Quantizers | None
    own_weights_only: bool = False
    iterations: int
    activation_iterations: int
    batch: int
    lr: float

    @property
    def own_activations(self) -> bool:
        """Whether activations have quantizers of their own; then attention products are quantized, and they split by themselves."""
        return self.quantizers is not None and not self.own_weights_only


class _Called(nn.Module):
    """A diffusers network, called as their code calls one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.in_channels = 0  # read and never used

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        return call_network(self.network, x, timesteps, {} if labels is None else {"class_labels": labels})


class _Sampled(nn.Module):
    """Their network, called as our sampler calls one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Tensor, timestep: Tensor, **keywords: Tensor) -> Tensor:
        out: Tensor = self.network(sample, timestep, keywords.get("class_labels"))
        return out


def given_by(network: QuantizedNetwork) -> Given:
    """The quantizers of our network, with one step group, before its fit. Raises ValueError: quantized attention products."""
    if any(site.weight_bits is None for site in network.sites) or len(set(network.group_of_step)) > 1:
        raise ValueError("the comparison takes our quantizers with float attention products and one step group")
    weights, activations = {}, {}
    for site in network.sites:
        weight, activation = network.layers[site.layer].weight_quantizer, network.activations[site.name]
        weights[site.layer] = weight.searched, weight.kind.qmin, weight.kind.qmax
        scale = activation.log_scale.detach()[0].exp()
        activations[site.layer] = scale, float(activation.zero_point[0]), activation.kind.qmin, activation.kind.qmax
    return Given(weights, activations)


def reconstructed(
    parts: Mapping[str, ModuleType],
    fp32: nn.Module,
    rows: Evaluations,
    run: Run,
    *,
    names: Collection[str],
    edges: Collection[str],
    splits: Mapping[str, tuple[int, ...]],
    given: Given,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Their quantized network, to be called as a diffusers network is.

    Args:
        names: of the layers to be quantized. edges: those of the first and the last convolution.
        fp32: stays as it is; with our splits in it unless activations have quantizers of their own.
        splits: shortcut convolution -> channels of the concatenation that it reads, for those.
        given: what is not in ``run.quantizers``.
    """
    if set(rows.keywords) - {"class_labels"}:
        raise SystemExit(
            f"networks with {', '.join(rows.keywords)} are not supported here; take one with class labels or none"
        )
    own = run.quantizers
    torch.manual_seed(seed)
    specials = specials_of(parts, quantize_attention=run.own_activations)
    with patched(parts, specials, device):
        net = parts["quant_model"].QuantModel(model=_Called(copy.deepcopy(fp32)), **_params(own))
        net.to(device).eval()
        layers = {name: net.model.network.get_submodule(_inside(net, parts, name)) for name in names}
        if not run.own_activations:
            _give_activations(layers, given)
        if own is None:
            _give_weights(layers, given)
        elif own.edge_bits is not None:
            for name in edges:
                layers[name].weight_quantizer.bitwidth_refactor(own.edge_bits)
        if run.own_activations:
            for name, channels in splits.items():
                layers[name].split = channels[0]
                layers[name].set_split()
        _reconstruct(parts, net, rows, run)
    net.set_quant_state(True, True)
    return _Sampled(net.eval())


def _params(own: Quantizers | None) -> dict[str, dict[str, Any]]:
    q = own or Quantizers("max", "max", False, 8)  # bits and methods of which nothing is left
    return {
        "weight_quant_params": {"n_bits": q.weight_bits, "channel_wise": True, "scale_method": q.weight_method},
        "act_quant_params": {
            "n_bits": q.activation_bits,
            "symmetric": q.symmetric,
            "channel_wise": False,
            "scale_method": q.activation_method,
            "leaf_param": True,
        },
    }


def _give_weights(layers: Mapping[str, Any], given: Given) -> None:
    """Our scales and integer ranges in their quantizers, whose integers begin at 0."""
    for name, (scale, low, high) in given.weights.items():
        layer, quantizer = layers[name], layers[name].weight_quantizer
        quantizer.delta = scale.view(-1, *[1] * (layer.weight.dim() - 1)).clone()
        quantizer.zero_point, quantizer.n_levels, quantizer.inited = -low, high - low + 1, True


def _give_activations(layers: Mapping[str, Any], given: Given) -> None:
    """The same of activations; what is set is not searched."""
    for name, (step, zero_point, low, high) in given.activations.items():
        quantizer = layers[name].act_quantizer
        quantizer.delta = nn.Parameter(step.clone())
        quantizer.zero_point, quantizer.n_levels, quantizer.inited = zero_point - low, high - low + 1, True


def _reconstruct(parts: Mapping[str, ModuleType], net: Any, rows: Evaluations, run: Run) -> None:
    """Their script: weights of all units in order with float activations, then activation scales of all units."""
    labels = rows.keywords.get("class_labels")
    data = (rows.sample, rows.timestep) if labels is None else (rows.sample, rows.timestep, labels)
    net.set_quant_state(True, False)
    first = tuple(x[:INITIAL_WEIGHT_ROWS] for x in data)
    units = _units(parts, net, first)
    with torch.no_grad():
        net(*first)
    weights = {
        "batch_size": run.batch, "iters": run.iterations, "weight": 0.01, "asym": True, "b_range": (20, 2), "warmup": 0.2,
        "act_quant": False, "opt_mode": "mse",
    }  # fmt: skip
    with rounding_rate(run.lr):
        for unit in units:
            unit(cali_data=data, cond=labels is not None, **weights)
    net.set_quant_state(True, True)
    chosen = torch.randperm(len(rows))[:INITIAL_ROWS]
    with torch.no_grad():
        net(*(x[chosen] for x in data))
    if run.activation_iterations:
        scales = {
            "iters": run.activation_iterations,
            "act_quant": True,
            "opt_mode": "mse",
            "lr": OWN_SCALE_RATE,
            "p": OWN_NORM,
        }
        for unit in units:
            unit(cali_data=data, cond=labels is not None, **scales)


def _units(parts: Mapping[str, ModuleType], net: Any, first: tuple[Tensor, ...]) -> list[Any]:
    """Blocks, and layers outside of blocks, in the order of execution; each with the function that reconstructs it."""
    block, layer = parts["quant_block"].BaseQuantBlock, parts["quant_layer"].QuantModule
    blocks = [name for name, module in net.named_modules() if isinstance(module, block)]
    alone = [
        name
        for name, module in net.named_modules()
        if isinstance(module, layer) and not any(name.startswith(f"{outer}.") for outer in blocks)
    ]
    found = []
    for name in order_of_calls(net, [*blocks, *alone], lambda network: network(*first)):
        of_block = name in blocks
        function = parts["block_recon"].block_reconstruction if of_block else parts["layer_recon"].layer_reconstruction
        found.append(partial(function, net, net.get_submodule(name)))
    return found


def _inside(net: Any, parts: Mapping[str, ModuleType], layer: str) -> str:
    """The name of a layer behind the blocks that were put around diffusers' own."""
    names: list[str] = []
    module = net.model.network
    for piece in layer.split("."):
        if isinstance(module, parts["quant_block"].BaseQuantBlock):
            held = "block" if hasattr(module, "block") else "attention"
            names.append(held)
            module = getattr(module, held)
        names.append(piece)
        module = module.get_submodule(piece)
    return ".".join(names)
