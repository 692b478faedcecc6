"""Calibration on a device that is not the CPU, though pretended: nothing is on the wrong side, and the result is the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.ranges.observer import Histogram
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests.pretend_gpu import NAME
from tests.processes import Ended, run

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
}


def _command(*arguments: str) -> Ended:
    return run("from tests.pretend_gpu import main; main()", *arguments)


def _recipe(folder: Path, model: Path, method: str = "accuquant", quantize: str = "", calibrate: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=model, method=method, quantize=quantize, calibrate=calibrate))
    return path


Made = tuple[Artifact, Reference]

LIMITS = {"scales": 3e-2, "integers": 0.02, "error of the latents": 0.35}
"""Ranges are searched among shares of the largest value that are 1 % of it apart, 2 % and more of the smaller ones;
a rounding that falls otherwise changes the fit. Measured with accuquant: scales 1.4e-3, integers 0, error 8 %; the fault
planted below: scales 5.8e-2."""

SITE = "up_blocks.0.attentions.0.to_q:input"


def _here(recipe: Path, out: Path) -> Made:
    """What the CPU calibrates."""
    return calibrate(load_recipe(recipe, {"run": {"out": out, "device": "cpu"}}), Reporter(quiet=True))[1:]


def _beyond(there: Made, here: Made) -> dict[str, float]:
    """By what two calibrations differ more than ``LIMITS`` allows, and how much."""
    errors = [float((each.simulation_latents - each.fp32_latents).norm()) for _, each in (there, here)]
    scales = (there[0].scale / here[0].scale - 1).abs()
    found = {
        "scales": float(scales.max()),
        "integers": max(float((there[0].layers[name].weight_q != layer.weight_q).float().mean())
                        for name, layer in here[0].layers.items()),
        "error of the latents": abs(errors[0] / errors[1] - 1),
    }  # fmt: skip
    return {name: distance for name, distance in found.items() if not distance <= LIMITS[name]}


def _calibrates_as_the_cpu_does(recipe: Path, folder: Path) -> None:
    done = _command("calibrate", "--recipe", str(recipe), "--out", str(folder / "gpu"))
    assert done.returncode == 0, done.stderr
    there = Artifact.load(folder / "gpu/calibration"), load_reference(folder / "gpu/calibration")
    here = _here(recipe, folder / "cpu")
    assert (there[0].record["device"], here[0].record["device"]) == (NAME, "cpu")
    assert there[0].table.calls == here[0].table.calls  # corrections are fitted to samples, which differ as below
    assert _beyond(there, here) == {}


def test_a_site_observed_in_part_is_found(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the sites counts every second row of what it is given."""
    recipe = _recipe(tmp_path, tiny_model)
    here, collect = _here(recipe, tmp_path / "whole"), Histogram.collect

    def partly(self: Histogram, x: torch.Tensor, site: str) -> None:
        collect(self, x[::2] if site == SITE else x, site)

    monkeypatch.setattr(Histogram, "collect", partly)
    assert "scales" in _beyond(_here(recipe, tmp_path / "part"), here)


def test_accuquant(tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(_recipe(tmp_path, tiny_model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["qdiffusion", "eda-dm", "gac", "qncd", "tac", "ptqd", "stepbaq", "accuquant-blocks", "ptq4dm"]
)
def test_other_methods(method: str, tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(_recipe(tmp_path, tiny_model, method), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(_recipe(tmp_path, tiny_model, **OPTIONS[name]), tmp_path)


@pytest.mark.slow
def test_compare(tiny_model: Path, tmp_path: Path) -> None:
    done = _command(
        "compare", "--recipe", str(_recipe(tmp_path, tiny_model)), "--out", str(tmp_path), "--methods", "mse,accuquant",
        "--bits", "W8A8", "--steps", "3", "--seeds", "1", "--held-out", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "accuquant" in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_an_iteration(tiny_model: Path) -> None:
    script = f"""
from pathlib import Path
from tests.pretend_gpu import install, leave
from benchmarks.scaling import Case, measure
from dq_toolchain.calibrate.prepare import setup
device = install()
setup.choose_device = lambda _name: device
found = measure(Case("tiny", Path({str(tiny_model)!r}), "adjoint", 2, 2, 1))
print(found.device, found.seconds > 0)
leave(0)
"""
    done = run(script)
    assert done.stdout.strip() == f"{NAME} True", done.stderr


def test_what_is_left_on_the_wrong_side_is_refused() -> None:
    """The device of these tests finds what they are there to find."""
    script = """
import torch
from tests.pretend_gpu import install, leave
x = torch.ones(3, device=install())
assert float((x + torch.tensor(2.0)).sum()) == 9.0 and x.cpu().device.type == "cpu"
try:
    x + torch.ones(3)
except RuntimeError as error:
    print(error)
leave(0)
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert f"some of its tensors are on {NAME}, others on cpu" in done.stdout
