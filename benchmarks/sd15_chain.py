"""The whole chain on Stable Diffusion 1.5's topology with random weights: time and peak memory of every command.

    python -m benchmarks.sd15_chain [--scale 1] [--targets executorch,coreml,tensorrt] [--json chain.json]

64x64 latents, guidance, two denoising steps, two step groups, two iterations of every stage, ``--offload``. Memory is the most
that a command's process ever held (VmHWM), read while it runs. ``--scale 2`` halves every width, a quarter of the parameters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.watched import watched

RECIPE = """
[sampler]
steps = 2
guidance = 7.5
[conditioning]
file = "{rows}"
[quantize]
step_groups = 2
[calibrate]
samples = 3
batch = 2
warmup = 2
iterations = 2
settling = 2
group_iterations = 2
horizon = 2
[blocks]
rows = 4
batch = 2
iterations = 2
activation_iterations = 2
[reference]
seeds = 2
[run]
offload = true
"""
TARGETS = ("executorch", "coreml", "tensorrt")
MAKE = "from pathlib import Path; from benchmarks.sd15_chain import write_model; write_model(Path({!r}), {!r})"
COMMAND = "from dq_toolchain.toolchain.cli.entry import main; main()"


def write_model(folder: Path, scale: float) -> None:
    """A pipeline's folder without encoders, and conditioning for it; in a process of its own, whose memory does not count."""
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from safetensors.torch import save_file

    from benchmarks.sd15 import TEXT, TOKENS, config

    torch.manual_seed(0)
    UNet2DConditionModel(**config(scale)).save_pretrained(folder / "unet")
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False).save_pretrained(folder / "scheduler")
    rows = {f"{side}.encoder_hidden_states": torch.randn(2, TOKENS, int(TEXT / scale)) for side in ("cond", "uncond")}
    save_file(rows, folder / "rows.safetensors")


def chain(folder: Path, scale: float, targets: Sequence[str]) -> list[dict[str, Any]]:
    model, out = folder / "model", folder / "out"
    subprocess.run([sys.executable, "-c", MAKE.format(str(model), scale)], check=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(rows=model / "rows.safetensors"))
    commands = {"calibrate": ["calibrate", "--model", str(model), "--recipe", str(recipe), "--out", str(out)]}
    commands |= {f"export {target}": ["export", "--target", target, "--out", str(out)] for target in targets}
    rows = []
    for name, arguments in commands.items():
        rows.append({"command": name, **watched(["-c", COMMAND, *arguments]).to_json()})
        print(f"{name:18} {rows[-1]['seconds']:7.0f} s   peak {rows[-1]['peak_gib']:5.1f} GiB", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="divides every width")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--folder", type=Path, help="where to work and leave everything; default: a temporary one")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = chain(given.folder or Path(temporary), given.scale, given.targets.split(","))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
