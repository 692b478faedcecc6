"""Calibration with --offload of published transformers' topologies at full width: what it says it needs, and its peak memory.

    python -m benchmarks.full_calibration [--model flux.2-klein-4b] [--blocks 1,2,4] [--dtype BF16] [--method mse] [--image 128]

Random weights are written in shards, as on the hub, and calibrated with two steps and two samples; the text has 16 tokens. Peak
memory is the command's, by polling; killed at --limit GiB. BF16 is what the models are published in.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.watched import watched

RECIPE = """
[sampler]
steps = 2
guidance = 1.0
[conditioning]
file = "{rows}"
[quantize]
step_groups = 1
[calibrate]
method = "{method}"
samples = 2
batch = 1
warmup = 1
iterations = 1
settling = 1
group_iterations = 1
horizon = 1
[blocks]
rows = 2
batch = 1
iterations = 1
activation_iterations = 1
[reference]
seeds = 2
[run]
offload = true
"""
COMMAND = "from dq_toolchain.toolchain.cli.entry import main; main()"
NEEDS = re.compile(r"calibration needs about ([\d.]+) GiB")
TEXT_TOKENS, SHARD = 16, 12
"""Tokens of text; tensors in a shard."""


def write_model(folder: Path, model: str, blocks: int, image: int, dtype: str) -> int:
    """A pipeline's folder without encoders, its rows of conditioning, and the number of its parameters."""
    import numpy as np
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from safetensors.torch import save_file

    from benchmarks.full_topologies import TOPOLOGIES, write_streamed
    from dq_toolchain.toolchain.models.loading import build_network

    topology = TOPOLOGIES[model]
    config = topology.config(blocks)
    inside = folder / "transformer"
    inside.mkdir(parents=True)
    (inside / "config.json").write_text(json.dumps(config | {"sample_size": image // topology.pixels}))
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    generator = np.random.default_rng(0)

    def normal(count: int) -> bytes:
        """Of a standard deviation of 0.02."""
        x = generator.standard_normal(count, np.float32) * np.float32(0.02)
        return x.tobytes() if dtype == "F32" else (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()

    shapes = {name: tuple(tensor.shape) for name, tensor in build_network(config).state_dict().items()}
    shards = list(map(list, _shards(shapes)))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05}-of-{len(shards):05}.safetensors"
        write_streamed(inside / file, dtype, {name: shapes[name] for name in names}, normal)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": places}
    (inside / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    save_file(
        {"cond.encoder_hidden_states": torch.randn(2, TEXT_TOKENS, config[topology.text])}, folder / "rows.safetensors"
    )
    return int(sum(np.prod(shape, dtype=np.int64) for shape in shapes.values()))


def _shards(shapes: Mapping[str, Any]) -> Iterator[list[str]]:
    names = sorted(shapes)
    return (names[begin : begin + SHARD] for begin in range(0, len(names), SHARD))


def said(model: str, blocks: int, image: int, method: str) -> float:
    """GiB that the command says such a calibration needs, from shapes alone."""
    import tomllib
    from dataclasses import replace

    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from benchmarks.common import recipe_of
    from benchmarks.full_topologies import TOPOLOGIES
    from benchmarks.gpu_memory import Large, context_of
    from dq_toolchain.calibrate.methods import effective, resolve
    from dq_toolchain.calibrate.prepare.memory import estimate
    from dq_toolchain.toolchain.models.loading import build_network
    from dq_toolchain.toolchain.sampler.probe import probe

    topology = TOPOLOGIES[model]
    config, side = topology.config(blocks), image // topology.pixels
    inputs = {"encoder_hidden_states": (TEXT_TOKENS, config[topology.text])}
    large = Large(model, lambda: build_network(config), (topology.channels, side, side), inputs, guided=False)
    settings = tomllib.loads(RECIPE.format(rows="rows.safetensors", method=method)) | {
        "model": {"path": Path("nowhere")}
    }
    recipe, host = effective(recipe_of(settings)), torch.device("cpu")
    table = probe(FlowMatchEulerDiscreteScheduler(shift=3.0), recipe.sampler.steps or 2)
    context = context_of(large, recipe.calibrate.samples)
    pages = dict.fromkeys((name for name, _ in context.network.named_parameters()), True)
    from_files = replace(context.model, in_pages=pages)
    context = replace(context, model=from_files, table=table, step_groups=((0, 1),), device=host)
    return estimate(context, recipe, resolve(method)).on(host) / 2**30


def measure(model: str, blocks: int, given: argparse.Namespace) -> dict[str, Any]:
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        parameters = write_model(folder / "model", model, blocks, given.image, given.dtype)
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE.format(rows=folder / "model" / "rows.safetensors", method=given.method))
        arguments = [
            "calibrate",
            "--model",
            str(folder / "model"),
            "--recipe",
            str(recipe),
            "--out",
            str(folder / "out"),
        ]
        said = folder / "said.txt"
        row: dict[str, Any] = {"model": model, "blocks": blocks, "parameters": parameters, "dtype": given.dtype,
                               "method": given.method}  # fmt: skip
        with said.open("w") as output:
            try:
                row |= watched(
                    ["-c", COMMAND, *arguments], limit_gib=given.limit, output=output, errors=output
                ).to_json()
            except (MemoryError, subprocess.CalledProcessError) as error:
                row["failed"] = f"{str(error)[:200]}; {said.read_text()[-600:]}"
        found = NEEDS.search(said.read_text())
        return row | {"says_gib": None if found is None else float(found[1])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="flux.2-klein-4b", help="flux.2-klein-4b or z-image")
    parser.add_argument("--blocks", default="1,2,4", help="numbers of blocks, by commas")
    parser.add_argument("--image", type=int, default=128, help="pixels of a side")
    parser.add_argument("--dtype", choices=("BF16", "F32"), default="BF16")
    parser.add_argument("--method", default="accuquant")
    parser.add_argument("--limit", type=float, default=16.0, help="GiB of memory at which a process is killed")
    parser.add_argument("--folder", type=Path, help="where to put large files; default: the system's temporary folder")
    given = parser.parse_args()
    for size in map(int, given.blocks.split(",")):
        print(json.dumps(measure(given.model, size, given)), flush=True)
