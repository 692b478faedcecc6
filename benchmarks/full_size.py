"""Published transformers of 4 and 6 G parameters through a target's lowering: seconds, bytes, and peak memory by size.

    python -m benchmarks.full_size --target tensorrt [--model flux.2-klein-4b] [--blocks 4,8,20] [--image 1024] [--execute]

Random int8 weights are written to a file, which is mapped; one step group unless --step-groups says more. Each size is lowered
and audited as `export` does, in a process of its own, which is killed at --limit GiB. --blocks are those of the most frequent
kind (FLUX.2-klein-4B: 20 single ones and a quarter as many double ones; Z-Image: 30), the full size by default. --execute runs
the program once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.watched import watched

TARGETS = ("tensorrt", "coreai", "coreml")
RESULT = "result.json"


def lower(
    target: str, config: dict[str, Any], folder: Path, image: int, step_groups: int, execute: bool
) -> dict[str, Any]:
    """In this process: what was written, and what the target says it needs."""
    from benchmarks.full_lowerings import LOWERINGS, Size
    from benchmarks.full_topologies import TOPOLOGIES, call_of, random_artifact
    from dq_toolchain.backends.common.machine import peak_memory

    begin = time.perf_counter()

    def say(text: str) -> None:
        print(
            f"{time.perf_counter() - begin:7.1f} s {peak_memory() / 2**30:6.2f} GiB  {text}",
            file=sys.stderr,
            flush=True,
        )

    topology = next(each for each in TOPOLOGIES.values() if each.config(1)["_class_name"] == config["_class_name"])
    artifact = random_artifact(config, folder, step_groups)
    say("artifact mapped")
    out = folder / "out"
    out.mkdir()
    size: Size = LOWERINGS[target](artifact, call_of(topology, image), out, say, execute)
    return {
        "parameters": sum(layer.weight_q.numel() for layer in artifact.layers.values()),
        "products": len(artifact.layers), "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        **size,
    }  # fmt: skip


def measure(target: str, model: str, blocks: int, given: argparse.Namespace) -> dict[str, Any]:
    """Write the weights, then lower them in another process."""
    from benchmarks.full_topologies import TOPOLOGIES, write_random

    config = TOPOLOGIES[model].config(blocks)
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write_random(config, folder)
        request = folder / "request.json"
        fields = {"image": given.image, "step_groups": given.step_groups, "execute": given.execute}
        request.write_text(json.dumps({"target": target, "config": config, "folder": str(folder), **fields}))
        row: dict[str, Any] = {"target": target, "model": model, "blocks": blocks}
        try:
            took = watched(["-m", "benchmarks.full_size", "--request", str(request)], limit_gib=given.limit)
        except (MemoryError, subprocess.CalledProcessError) as error:
            return row | {"failed": str(error)[:300]}
        found: dict[str, Any] = json.loads((folder / RESULT).read_text())
        return row | took.to_json() | found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, default="tensorrt")
    parser.add_argument("--model", default="flux.2-klein-4b", help="flux.2-klein-4b or z-image")
    parser.add_argument("--blocks", help="numbers of blocks, by commas; default: the full size")
    parser.add_argument("--image", type=int, default=1024, help="pixels of a side")
    parser.add_argument("--step-groups", type=int, default=1)
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--limit", type=float, default=19.0, help="GiB of memory at which a process is killed")
    parser.add_argument("--folder", type=Path, help="where to put large files; default: the system's temporary folder")
    parser.add_argument("--request", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.request is not None:
        request = json.loads(given.request.read_text())
        folder = Path(request.pop("folder"))
        (folder / RESULT).write_text(json.dumps(lower(folder=folder, **request)))
    else:
        from benchmarks.full_topologies import TOPOLOGIES

        sizes = [TOPOLOGIES[given.model].blocks] if given.blocks is None else list(map(int, given.blocks.split(",")))
        for size in sizes:
            print(json.dumps(measure(given.target, given.model, size, given)), flush=True)
