"""A whole small Stable Diffusion on ExecuTorch: BK-SDM-Tiny's topology, W8A8 against float by the stock recipe, side by side.

    python -m benchmarks.bk_sdm --side 256 [--threads 1,2] [--calls 3] [--scale 1] [--json bk.json]

Text encoder (CLIP-L), network and decoder with random weights, each as the program of a bundle and as the float program of a plain
export with XNNPACK (torch.export, to_edge_transform_and_lower with the XnnpackPartitioner). Bytes are the programs'.
Every program runs in a process of its own; both kinds take turns. Memory is the most that the process held above what it held with
the runtime loaded and no program. ``--scale 4`` divides every width, to try it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.executorch_speed import integer_program
from dq_toolchain.backends.common.call import Call
from dq_toolchain.backends.executorch.fp32 import lower_fp32
from dq_toolchain.backends.executorch.graph.parts import part_program
from dq_toolchain.backends.executorch.graph.program import lower_methods
from dq_toolchain.calibrate.parts.quantize import quantized
from dq_toolchain.toolchain.parts.part import DECODER, architecture
from dq_toolchain.toolchain.parts.picture import PictureDecoder

TOKENS, STEPS, PIXELS = 77, 20, 8
PARTS = ("text encoder", "network", "decoder")
KINDS = ("w8a8", "float")
Row = dict[str, Any]
RUN = """
import json, sys, time, torch
from pathlib import Path
from dq_toolchain.backends.executorch.runtime.device import Device
from dq_toolchain.backends.executorch.vendor import runtime, set_threads
def memory(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024
runtime()
program, inputs, threads, calls = sys.argv[1:]
given = torch.load(inputs, weights_only=True)
set_threads(int(threads))
before = memory("VmRSS")
device = Device(Path(program), ("forward",))
device.outputs("forward", given)
times = []
for _ in range(int(calls)):
    begin = time.perf_counter(); device.outputs("forward", given); times.append(time.perf_counter() - begin)
print(json.dumps({"seconds": times, "bytes": memory("VmHWM") - before}))
"""


def network(side: int, scale: int) -> tuple[nn.Module, Call]:
    """BK-SDM-Tiny's UNet: three levels, one layer each, no middle block; 323 M parameters."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=side // PIXELS, layers_per_block=1, mid_block_type=None, attention_head_dim=8,
        block_out_channels=(320 // scale, 640 // scale, 1280 // scale), cross_attention_dim=768 // scale, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    text = {"encoder_hidden_states": torch.randn(1, TOKENS, 768 // scale)}
    latent = torch.randn(1, 4, side // PIXELS, side // PIXELS)
    return unet.eval().requires_grad_(False), Call(latent, torch.tensor([500.0]), text)


def decoder(scale: int) -> dict[str, Any]:
    """Config of Stable Diffusion's autoencoder."""
    widths = [128 // scale, 256 // scale, 512 // scale, 512 // scale]
    vae = AutoencoderKL(
        block_out_channels=widths, layers_per_block=2, norm_num_groups=8, latent_channels=4, scaling_factor=0.18215,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return {"_class_name": "AutoencoderKL", **{k: v for k, v in vae.config.items() if not k.startswith("_")}}


def text(scale: int) -> dict[str, Any]:
    """Config of CLIP ViT-L's text encoder."""
    return {
        "vocab_size": 49408, "max_position_embeddings": TOKENS, "hidden_size": 768 // scale, "intermediate_size": 3072 // scale,
        "num_hidden_layers": 12 // scale, "num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "projection_dim": 768 // scale,
    }  # fmt: skip


def stock(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
    """A float program without any rewrite."""
    with torch.no_grad():
        return lower_methods({"forward": torch.export.export(module, inputs, strict=False)})


def random_module(kind: str, config: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """A part's module with the weights that its layers begin with."""
    torch.manual_seed(1)
    module = PictureDecoder(config) if kind == DECODER else type(architecture(kind, config, options))(config, **options)
    return module.eval().requires_grad_(False)


def lower_all(side: int, scale: int, folder: Path, say: Callable[[str], None]) -> None:
    """PART-KIND.pte and PART-KIND.inputs of all parts."""

    def keep(name: str, kind: str, program: bytes, inputs: Sequence[torch.Tensor]) -> None:
        (folder / f"{name}-{kind}.pte").write_bytes(program)
        torch.save(list(inputs), folder / f"{name}-{kind}.inputs")
        say(f"{name}, {kind}: {len(program):,} bytes")

    unet, call = network(side, scale)
    program, ranges = integer_program(unet, call)
    keep("network", "w8a8", program, call.with_ranges(ranges).arguments)
    keep("network", "float", lower_fp32(unet, call, rewritten=False), call.arguments)
    del unet
    ids = torch.randint(0, 49408, (1, TOKENS))
    parts: tuple[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, torch.Tensor], str], ...] = (
        ("text encoder", "clip", text(scale), {"skip": 0, "pooled": False}, {"ids": ids}, "hidden"),
        ("decoder", DECODER, decoder(scale), {}, {"latents": call.sample}, "picture"),
    )
    for name, kind, config, options, given, output in parts:
        module = random_module(kind, config, dict(options))
        inputs = tuple(given.values())
        keep(
            name, "w8a8", part_program(quantized(name, kind, config, dict(options), module, [given], (output,))), inputs
        )
        keep(name, "float", stock(module, inputs), inputs)


def measure(folder: Path, threads: Sequence[int], calls: int) -> list[Row]:
    """A row for each part, number of threads and kind."""
    rows = []
    for part in PARTS:
        for count in threads:
            for kind in KINDS:
                place = folder / f"{part}-{kind}"
                command = [sys.executable, "-c", RUN, f"{place}.pte", f"{place}.inputs", str(count), str(calls)]
                found = json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
                )
                size = Path(f"{place}.pte").stat().st_size
                rows.append(
                    {"part": part, "kind": kind, "threads": count, "size": size, "memory": found["bytes"],
                     "seconds": statistics.median(found["seconds"])}
                )  # fmt: skip
    return rows


def whole(rows: Sequence[Row], kind: str, threads: int) -> Row:
    """A picture: text twice (guidance), the network twice a step, the decoder once; parts loaded one after the other."""
    of = {row["part"]: row for row in rows if (row["kind"], row["threads"]) == (kind, threads)}
    calls = {"text encoder": 2, "network": 2 * STEPS, "decoder": 1}
    return {
        "part": f"whole, {STEPS} steps", "kind": kind, "threads": threads, "size": sum(row["size"] for row in of.values()),
        "memory": max(row["memory"] for row in of.values()),
        "seconds": sum(of[part]["seconds"] * count for part, count in calls.items()),
    }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    table = Table("part", "threads", "MB", "MB float", "ratio", "s", "s float", "ratio", "MB held", "MB float", "ratio")
    pairs: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row["part"], row["threads"]), {})[row["kind"]] = row
    for (part, count), both in pairs.items():
        ours, theirs = both["w8a8"], both["float"]
        cells = []
        for key, unit, form in (("size", 1e6, ".1f"), ("seconds", 1.0, ".3f"), ("memory", 1e6, ".0f")):
            a, b = ours[key] / unit, theirs[key] / unit
            cells += [format(a, form), format(b, form), f"{a / b:.2f}"]
        table.add_row(part, str(count), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--calls", type=int, default=3, help="timed calls of each program")
    parser.add_argument("--scale", type=int, default=1, help="divides every width")
    parser.add_argument("--folder", type=Path, help="where programs are kept and found again; default: a temporary one")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "decoder-float.pte").exists():
            lower_all(given.side, given.scale, place, lambda line: print(line, file=sys.stderr, flush=True))
        counts = [int(word) for word in given.threads.split(",")]
        found = measure(place, counts, given.calls)
    found += [whole(found, kind, count) for count in counts for kind in KINDS]
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
