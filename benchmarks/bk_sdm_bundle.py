"""Two folders of BK-SDM-Tiny's topology with random weights that the C++ program draws with: the bundle, and float programs.

    python -m benchmarks.bk_sdm_bundle --side 256 --folder WORK [--scale 1]

WORK/w8a8 is a bundle as ``dq.calibrate`` and ``dq.export`` make it of a pipeline's folder (CLIP-L, the network, Stable
Diffusion's autoencoder, DDIM, guidance 7.5). What decides neither its size nor its speed is cheap: weights rounded to nearest,
ranges and held-out rollouts of two samples and two steps; afterwards its sampler table is that of 20 steps. WORK/float has the
same description with the float programs of ``benchmarks.bk_sdm_programs`` in the place of the integer ones, so that the same
program draws with both. ``--scale 4`` divides every width, to try it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

import dq_toolchain as dq
from benchmarks.bk_sdm_programs import PARTS, decoder, float_programs, network, text
from dq_toolchain.toolchain.disk.files import sha256
from dq_toolchain.toolchain.formats.bundle import JSON, RANGES, Bundle
from dq_toolchain.toolchain.sampler.probe import probe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups

KINDS = ("w8a8", "float")
STEPS, GUIDANCE, CALIBRATED_STEPS = 20, 7.5, 2
SCENES = Path(__file__).parents[1] / "models" / "scenes"
PLACES = dict(zip(PARTS, ("parts/text_encoder.pte", "model.pte", "parts/decoder.pte"), strict=True))
"""Of the programs in a bundle."""


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def write_pipeline(folder: Path, side: int, scale: int) -> None:
    """As ``save_pretrained`` of a StableDiffusionPipeline writes it; the tokenizer is CLIP's own."""
    unet: Any = network(side, scale)[0]
    unet.save_pretrained(folder / "unet")
    AutoencoderKL.from_config(decoder(scale)).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**text(scale), eos_token_id=49407)).save_pretrained(folder / "text_encoder")
    scheduler().save_pretrained(folder / "scheduler")
    shutil.copytree(SCENES / "tokenizer", folder / "tokenizer")
    shutil.copy(SCENES / "model_index.json", folder)  # last: a folder without it is not whole


def of_steps(bundle: Bundle, steps: int) -> Bundle:
    """The same with DDIM's table of other steps. The held-out rollouts in its folder are not of this table."""
    table = probe(scheduler(), steps)
    return replace(bundle, table=table, step_groups=even_step_groups(table.calls, len(bundle.step_groups)))


def make_bundle(folder: Path, side: int, scale: int) -> None:
    """``folder``/w8a8."""
    pipeline = folder / "pipeline"
    if not (pipeline / "model_index.json").exists():
        shutil.rmtree(pipeline, ignore_errors=True)
        write_pipeline(pipeline, side, scale)
    if not (folder / "calibration" / "calibration.json").exists():
        dq.calibrate(
            pipeline, out=folder, steps=CALIBRATED_STEPS, guidance=GUIDANCE, step_groups=2, prompts=["a red house", "a blue ball"],
            samples=2, batch=2, ranges="minmax", rounding="nearest", warmup=0, recipe={"reference": {"seeds": 2}}, on_note=say,
        )  # fmt: skip
    bundle = dq.export(folder / "calibration", "executorch", out=folder / "w8a8", on_note=say).description
    of_steps(bundle, STEPS).save(folder / "w8a8")


def make_float(bundle: Path, folder: Path, programs: Mapping[str, Path]) -> None:
    """A folder with a bundle's description and other programs, which take no ranges.

    Args:
        programs: .pte files by part.
    """
    description = Bundle.load(bundle)
    names = [name for name in description.files if name != RANGES]
    sources = {name: bundle / name for name in names} | {place: programs[part] for part, place in PLACES.items()}
    shutil.rmtree(folder, ignore_errors=True)
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    replace(
        description, form="float", inputs=tuple(port for port in description.inputs if port.name != "ranges"),
        operations=(), sites=(), sizes={name: (folder / name).stat().st_size for name in names},
        files={name: sha256(folder / name) for name in names},
    ).save(folder)  # fmt: skip


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--scale", type=int, default=1, help="divides every width")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    if not (given.folder / "w8a8" / JSON).exists():
        make_bundle(given.folder, given.side, given.scale)
    programs = float_programs(given.side, given.scale, given.folder / "programs", say)
    make_float(given.folder / "w8a8", given.folder / "float", programs)
