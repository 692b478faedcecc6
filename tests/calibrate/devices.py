"""One tiny calibration on two devices, and by how much they may differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.recipe.loading import load_recipe

RECIPE = """
[model]
path = "{model}"
[conditioning]
null_label = 10
[sampler]
steps = 3
guidance = 2.0
[quantize]
step_groups = 2
{quantize}
[calibrate]
method = "{method}"
samples = 6
batch = 3
warmup = 2
iterations = 1
settling = 2
horizon = 2
group_iterations = 1
{calibrate}
[blocks]
rows = 8
batch = 4
iterations = 2
activation_iterations = 1
[reference]
seeds = 2
"""
OPTIONS = {
    "int8 attention, bits by a budget": {"quantize": 'attention = "int8"\nscheme = "affine"\nbudget = "size=0.2"'},
    "growth, surrogate, inherited": {"calibrate": 'steps = "growth"\ngradient = "surrogate"\nstart = "inherited"'},
    "step vectors, block reconstruction": {"method": "qdiffusion", "quantize": "step_vectors = true"},
}
METHODS = ("qdiffusion", "eda-dm", "gac", "qncd", "tac", "ptqd", "stepbaq", "accuquant-blocks", "ptq4dm")

Made = tuple[Artifact, Reference]

LIMITS = {"scales": 3e-2, "integers": 0.02, "largest difference of integers": 1, "error of the latents": 0.35}
"""Ranges are searched among shares of the largest value that are 1 % of it apart, 2 % and more of the smaller ones;
a rounding that falls otherwise changes the fit. Measured with accuquant: scales 1.4e-3, integers 0, error 8 %; a site that is
observed in part (test_gpu.py): scales 5.8e-2."""
LIMITS_OF_BLOCKS = {**LIMITS, "integers": 0.035}
"""Of methods that fit block after block: there one rounding is enough for all that follows to go its own way, as Adam's first
steps have the same size however small the gradient. With eda-dm one thread and two of the same CPU differ in 2.3 % of a layer's
integers, by 1 each; two unrelated sets of samples in 3.3 % at most."""


def limits_of(option: str) -> Mapping[str, float]:
    """By how much calibrations with one of OPTIONS may differ."""
    return LIMITS_OF_BLOCKS if OPTIONS[option].get("method") in METHODS else LIMITS


def recipe_file(folder: Path, model: Path, method: str = "accuquant", quantize: str = "", calibrate: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=model, method=method, quantize=quantize, calibrate=calibrate))
    return path


def made_on(device: str, recipe: Path, out: Path, **run: object) -> Made:
    """What this device calibrates, in this process. ``run``: more of [run]."""
    settings = load_recipe(recipe, {"run": {"out": out, "device": device, **run}})
    return calibrate(settings, Reporter(quiet=True))[1:]


def beyond(there: Made, here: Made, limits: Mapping[str, float] = LIMITS) -> dict[str, float]:
    """By what two calibrations differ more than ``limits`` allow, and how much."""
    errors = [float((each.simulation_latents - each.fp32_latents).norm()) for _, each in (there, here)]
    scales = (there[0].scale / here[0].scale - 1).abs()
    integers = [there[0].layers[name].weight_q.int() - layer.weight_q.int() for name, layer in here[0].layers.items()]
    found = {
        "scales": float(scales.max()),
        "integers": max(float((apart != 0).float().mean()) for apart in integers),
        "largest difference of integers": max(int(apart.abs().max()) for apart in integers),
        "error of the latents": abs(errors[0] / errors[1] - 1),
    }  # fmt: skip
    return {name: distance for name, distance in found.items() if not distance <= limits[name]}
