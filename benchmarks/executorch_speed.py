"""Speed of one network call, side by side in one run: integer .pte, FP32 .pte with and without rewrites, torch.

    python benchmarks/executorch_speed.py                       # the embedded model, 10 M and 35 M parameters
    python benchmarks/executorch_speed.py --model 10m --threads 1 --json

The competitors take turns, two timed calls each, so that a busy machine slows all of them alike. Each turn begins with a
rest and two calls that are not timed: the threads of the runtime before spin on the cores for a while when it has returned.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.fp32 import lower_fp32
from dq_toolchain.backends.executorch.graph.layers import Geometry, RangesInput, SentinelLayer, range_table
from dq_toolchain.backends.executorch.graph.program import export, lower_methods, with_integer_layers
from dq_toolchain.backends.executorch.graph.rewrites import rewrite
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.vendor import set_threads
from dq_toolchain.toolchain.formats.artifact import LayerWeights
from dq_toolchain.toolchain.models.loading import load_model
from dq_toolchain.toolchain.quant.qparams import activation_type, quantize, range_to_qparams, weight_type
from dq_toolchain.toolchain.quant.sites import weighted_layers

Network = Callable[[], object]
REST, UNTIMED, TIMED = 0.1, 2, 2
"""One turn: seconds of rest, calls."""


def random_unet(channels: tuple[int, int, int]) -> nn.Module:
    """RGB 32x32, one layer per block, attention at 16x16; random weights."""
    torch.manual_seed(0)
    unet: nn.Module = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=32,
    )
    return unet.eval().requires_grad_(False)


def build(name: str) -> tuple[nn.Module, Call]:
    """A model by name, and one call of it."""
    if name == "embedded":
        unet, keywords = load_model().network, {"class_labels": torch.tensor([3])}
    else:
        unet, keywords = random_unet({"10m": (96, 192, 192), "35m": (192, 352, 352)}[name]), {}
    config: Any = unet.config
    shape = (1, config["in_channels"], config["sample_size"], config["sample_size"])
    return unet, Call(torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0]), keywords)


@torch.no_grad()
def integer_program(unet: nn.Module, call: Call) -> tuple[bytes, Tensor]:
    """W8A8 in the sentinel form with min-max ranges of this one call, and its (1, 2L) ranges."""
    low, high, handles = {}, {}, []
    for name, layer in weighted_layers(unet):

        def observe(_layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            low[name], high[name] = inputs[0].min(), inputs[0].max()

        handles.append(layer.register_forward_pre_hook(observe))
    unet(call.sample, call.timestep, **call.conditioning)
    for handle in handles:
        handle.remove()
    order = list(low)
    lows, highs = (torch.stack([end[name] for name in order])[None] for end in (low, high))
    scale, zero_point = range_to_qparams(lows, highs, activation_type(8), "symmetric")
    ranges, port, kind = range_table(scale, zero_point), RangesInput(), weight_type(8)

    def integer_layer(name: str, layer: nn.Conv1d | nn.Conv2d | nn.Linear, geometry: Geometry) -> nn.Module:
        flat = layer.weight.flatten(1)
        weight_scale, _ = range_to_qparams(flat.amin(1), flat.amax(1), kind, "symmetric")
        view = weight_scale.view(-1, *[1] * (layer.weight.dim() - 1))
        weights = LayerWeights(quantize(layer.weight, view, 0, kind).to(torch.int8), weight_scale)
        return SentinelLayer(weights, layer.bias, geometry, 8, order.index(name), port)

    network = with_integer_layers(rewrite(copy.deepcopy(unet)), call, integer_layer)
    return lower_methods({"forward": export(network, call, ranges, port)}), ranges


@dataclass(frozen=True)
class Programs:
    """Files of one model, so that the lowering is done once for all thread counts."""

    integer: Path
    rewritten: Path
    stock: Path
    ranges: Tensor


def lower_all(unet: nn.Module, call: Call, folder: Path) -> Programs:
    integer, ranges = integer_program(unet, call)
    programs = Programs(folder / "w8a8.pte", folder / "fp32.pte", folder / "stock.pte", ranges)
    programs.integer.write_bytes(integer)
    programs.rewritten.write_bytes(lower_fp32(unet, call))
    programs.stock.write_bytes(lower_fp32(unet, call, rewritten=False))
    return programs


def competitors(unet: nn.Module, call: Call, programs: Programs) -> dict[str, Network]:
    """What is timed, by name."""
    compiled = torch.compile(unet)

    def eager() -> object:
        return unet(call.sample, call.timestep, **call.conditioning, return_dict=False)

    def compiled_call() -> object:
        return compiled(call.sample, call.timestep, **call.conditioning, return_dict=False)

    def program(path: Path, ranges: Tensor | None = None) -> Network:
        device, inputs = Device(path, ("forward",)), call.with_ranges(ranges).arguments
        return lambda: device("forward", inputs)

    return {
        "W8A8 .pte": program(programs.integer, programs.ranges),
        "FP32 .pte, rewrites": program(programs.rewritten),
        "FP32 .pte, stock": program(programs.stock),
        "torch eager": eager,
        "torch.compile": compiled_call,
    }


@torch.no_grad()
def interleaved(networks: dict[str, Network], rounds: int) -> dict[str, dict[str, float]]:
    """Median and minimum milliseconds of each, after three calls that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for round_ in range(rounds + 3):
        for name, network in networks.items():
            time.sleep(REST)
            for call in range(UNTIMED + TIMED):
                start = time.perf_counter()
                network()
                if round_ >= 3 and call >= UNTIMED:
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: {"median_ms": statistics.median(values), "min_ms": min(values)} for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=("embedded", "10m", "35m"), help="default: all three")
    parser.add_argument("--threads", action="append", type=int, help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = []
    for model in arguments.model or ("embedded", "10m", "35m"):
        unet, call = build(model)
        with tempfile.TemporaryDirectory() as folder:
            programs = lower_all(unet, call, Path(folder))
            sizes = {path.name: path.stat().st_size for path in (programs.integer, programs.rewritten, programs.stock)}
            for threads in arguments.threads or (1, 2):
                torch.set_num_threads(threads)
                set_threads(threads)
                torch.compiler.reset()
                timed = interleaved(competitors(unet, call, programs), arguments.rounds)
                integer = timed["W8A8 .pte"]["median_ms"]
                results.append(
                    {
                        "model": model,
                        "parameters": sum(p.numel() for p in unet.parameters()),
                        "threads": threads,
                        "sizes": sizes,
                        "ms": timed,
                        "w8a8_relative_to": {n: integer / t["median_ms"] for n, t in timed.items()},
                    }
                )
                if not arguments.json:
                    show(results[-1])
    if arguments.json:
        json.dump(results, sys.stdout, indent=1)
        print()


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['model']}, {result['parameters'] / 1e6:.1f} M parameters, {result['threads']} thread(s)")
    for name, timed in result["ms"].items():
        print(
            f"  {name:22} median {timed['median_ms']:8.2f} ms   min {timed['min_ms']:8.2f} ms   "
            f"W8A8 takes {result['w8a8_relative_to'][name]:.2f} of it"
        )


if __name__ == "__main__":
    main()
