"""One gradient of the same network with our fake quantization, with plain PyTorch's and with none, in turn: the ratios.

    python -m benchmarks.fake_quant_speed [--model FOLDER] [--samples 16] [--repeats 7] [--json ratios.json]
    python -m benchmarks.fake_quant_speed --dry-run        # the embedded model, two samples, once

Measured is a forward pass and the gradient of everything that a fit learns, at one step of the sampler. Rows:

float     the same network with nothing quantized; its weights and biases get gradients.
ours      the network of a fit: kernels on a GPU that has them, operations in place elsewhere.
unfused   the same without the kernels, where there are any.
composed  the same function in torch's elementary operations, gradients by autograd.
torch     torch's own learnable fake-quantization; weights have no learned rounding.

The device is a GPU if torch sees one. Each round runs all rows, and ratios are of the same round; the first warms up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.common import recipe_of
from benchmarks.scaling import peak_bytes
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.network import fake_quant
from dq_toolchain.calibrate.network.fake_quant import ActivationQuantizer, WeightQuantizer
from dq_toolchain.calibrate.network.insert import QuantizedNetwork
from dq_toolchain.calibrate.network.kernel_choice import why_not
from dq_toolchain.calibrate.network.sharing import with_tensors
from dq_toolchain.calibrate.network.straight_through import fp16_scale, per_channel, straight_through
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.quant.qparams import SMALLEST_WEIGHT_SCALE
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.denoiser import Denoiser

SCALE = 2.0**-5
"""Of activations: the time does not depend on it."""
ROUNDING = "closed-form+learned"
"""What an iteration learns; the default at 8 bits has none."""


@dataclass(frozen=True)
class Row:
    """Median seconds of one gradient, the median of its ratios to float's, and bytes beyond what lives on between two."""

    name: str
    seconds: float
    ratio: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """``kernels``: whether ours ran in fused kernels; ``why_not`` has the reason if a GPU has none."""

    device: str
    kernels: bool
    why_not: str | None
    parameters: int
    samples: int
    rows: tuple[Row, ...]


class ComposedActivation(nn.Module):
    """What ``ActivationQuantizer`` computes, in elementary operations."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.given, self.kind = quantizer, quantizer.kind
        self.float_share = 0.0

    def forward(self, x: Tensor) -> Tensor:
        g = self.given.switch.current
        scale = fp16_scale(self.given.log_scale[g : g + 1])
        ratio = (x / scale).clamp(self.given.lowest[g], self.given.highest[g])
        return straight_through(ratio.round(), ratio) * scale


class ComposedWeight(nn.Module):
    """What ``WeightQuantizer`` computes, in elementary operations."""

    def __init__(self, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.given = quantizer

    def forward(self) -> Tensor:
        moved = self.given.ratio if self.given.offset is None else self.given.ratio + self.given.offset
        held = moved.clamp(self.given.kind.qmin, self.given.kind.qmax)
        scale = fp16_scale(self.given.log_scale, SMALLEST_WEIGHT_SCALE)
        return straight_through(held.round(), held) * per_channel(scale, held)


class TorchActivation(nn.Module):
    """torch's operator of a learned scale, for a whole tensor."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.scale = nn.Parameter(quantizer.log_scale.detach()[:1].exp())
        self.zero_point = nn.Parameter(quantizer.zero_point[:1].clone())
        self.kind, self.float_share = quantizer.kind, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return torch._fake_quantize_learnable_per_tensor_affine(
            x, self.scale, self.zero_point, self.kind.qmin, self.kind.qmax, 1.0
        )


class TorchWeight(nn.Module):
    """torch's operator of a learned scale, for each output channel."""

    def __init__(self, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.weight = nn.Parameter(quantizer.weight)
        self.scale = nn.Parameter(quantizer.log_scale.detach().exp())
        self.zero_point = nn.Parameter(torch.zeros_like(self.scale))
        self.kind = quantizer.kind

    def forward(self) -> Tensor:
        return torch._fake_quantize_learnable_per_channel_affine(
            self.weight, self.scale, self.zero_point, 0, self.kind.qmin, self.kind.qmax, 1.0
        )


def replaced(network: QuantizedNetwork, activation: type[nn.Module], weight: type[nn.Module]) -> QuantizedNetwork:
    """The network with these in the places of its quantizers."""
    for name, module in list(network.named_modules()):
        if isinstance(module, ActivationQuantizer):
            network.set_submodule(name, activation(module))
        elif isinstance(module, WeightQuantizer):
            network.set_submodule(name, weight(module))
    return network


def measure(model: Path | None, *, samples: int, repeats: int, conditioning: Path | None = None) -> Figures:
    """All rows, on the device that a calibration would take.

    Args:
        model: diffusers folder; None is the embedded model.
        samples: trajectories of an iteration.
        repeats: timed rounds.
        conditioning: rows of a model that needs some, as [conditioning] file of a recipe.
    """
    recipe = recipe_of(
        {
            "model": {"path": model},
            "conditioning": {"file": conditioning},
            "calibrate": {"samples": samples, "rounding": ROUNDING},
        }
    )
    return measured(setup(recipe), recipe, repeats)


def measured(context: Context, recipe: Recipe, repeats: int) -> Figures:
    """All rows, of a context: its samples are the trajectories of an iteration."""
    device, noise = context.device, context.samples.start.to(context.device)
    shape = (len(context.step_groups), len(context.prepared.sites))

    def quantized() -> QuantizedNetwork:
        return quantize_with(context, torch.full(shape, SCALE), torch.zeros(shape, dtype=torch.int32), recipe)

    networks: dict[str, nn.Module] = {
        "float": with_tensors(context.prepared.network, lambda tensor: tensor.clone()).requires_grad_(True),
        "ours": quantized(),
        "composed": replaced(quantized(), ComposedActivation, ComposedWeight),
        "torch": replaced(quantized(), TorchActivation, TorchWeight),
    }
    keep = context.samples.conditioning.to(device)

    def gradient_of(network: nn.Module) -> Callable[[], None]:
        denoiser = Denoiser(network, context.table, keep, context.guidance)

        def iteration() -> None:
            denoiser(noise, 0).square().mean().backward()
            network.zero_grad(set_to_none=True)

        return iteration

    iterations = {name: gradient_of(network) for name, network in networks.items()}
    has_kernels = device.type == "cuda" and why_not(device) is None
    if has_kernels:
        iterations["unfused"] = _without_kernels(iterations["ours"])
    seconds = _in_turn(iterations, repeats, device)
    return Figures(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        kernels=has_kernels,
        why_not=why_not(device),
        parameters=sum(p.numel() for p in context.model.network.parameters()),
        samples=len(context.samples),
        rows=tuple(
            Row(
                name,
                statistics.median(found),
                statistics.median(a / b for a, b in zip(found, seconds["float"], strict=True)),
                _peak(iterations[name], device),
            )
            for name, found in seconds.items()
        ),
    )


def _without_kernels(iteration: Callable[[], None]) -> Callable[[], None]:
    def without() -> None:
        with patch.object(fake_quant, "usable", lambda _x: False):
            iteration()

    return without


def _in_turn(iterations: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in iterations}
    for iteration in iterations.values():
        iteration()
    for _ in range(repeats):
        for name, iteration in iterations.items():
            _wait(device)
            begin = time.perf_counter()
            iteration()
            _wait(device)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(iteration: Callable[[], None], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_bytes(iteration)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    iteration()
    return torch.cuda.max_memory_allocated(device) - before


def say(figures: Figures) -> None:
    """The rows on stdout."""
    how = (
        "fused kernels"
        if figures.kernels
        else "torch's operations" + (f" ({figures.why_not})" if figures.why_not else "")
    )
    print(f"{figures.device}, {figures.parameters / 1e6:.1f} M parameters, {figures.samples} samples; ours in {how}")
    for row in figures.rows:
        print(f"{row.name:9} {row.seconds:8.4f} s  {row.ratio:6.2f} of float's  {row.peak_bytes / 2**20:8.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="diffusers folder; default: the embedded model")
    parser.add_argument("--conditioning", type=Path, help="its conditioning, as [conditioning] file of a recipe")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dry-run", action="store_true", help="two samples, one round")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    samples, repeats = (2, 1) if arguments.dry_run else (arguments.samples, arguments.repeats)
    figures = measure(arguments.model, samples=samples, repeats=repeats, conditioning=arguments.conditioning)
    say(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
