"""Calibration on a device that is not the CPU, though pretended: nothing is on the wrong side, and the result is the CPU's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dq_toolchain.calibrate.ranges.observer import Histogram
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from tests.calibrate.devices import LIMITS, LIMITS_OF_BLOCKS, METHODS, OPTIONS, beyond, limits_of, made_on, recipe_file
from tests.pretend_gpu import NAME
from tests.processes import Ended, run

SITE = "up_blocks.0.attentions.0.to_q:input"


def _command(*arguments: str) -> Ended:
    return run("from tests.pretend_gpu import main; main()", *arguments)


def _calibrates_as_the_cpu_does(recipe: Path, folder: Path, limits: Mapping[str, float] = LIMITS) -> None:
    done = _command("calibrate", "--recipe", str(recipe), "--out", str(folder / "gpu"))
    assert done.returncode == 0, done.stderr
    there = Artifact.load(folder / "gpu/calibration"), load_reference(folder / "gpu/calibration")
    here = made_on("cpu", recipe, folder / "cpu")
    assert (there[0].record["device"], here[0].record["device"]) == (NAME, "cpu")
    assert there[0].table.calls == here[0].table.calls  # corrections are fitted to samples, which differ as below
    assert beyond(there, here, limits) == {}


def test_a_site_observed_in_part_is_found(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the sites counts every second row of what it is given."""
    recipe = recipe_file(tmp_path, tiny_model)
    here, collect = made_on("cpu", recipe, tmp_path / "whole"), Histogram.collect

    def partly(self: Histogram, x: torch.Tensor, site: str) -> None:
        collect(self, x[::2] if site == SITE else x, site)

    monkeypatch.setattr(Histogram, "collect", partly)
    assert "scales" in beyond(made_on("cpu", recipe, tmp_path / "part"), here)


def test_accuquant(tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_other_methods(method: str, tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, method), tmp_path, LIMITS_OF_BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, tiny_model: Path, tmp_path: Path) -> None:
    _calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, **OPTIONS[name]), tmp_path, limits_of(name))


@pytest.mark.slow
def test_compare(tiny_model: Path, tmp_path: Path) -> None:
    done = _command(
        "compare", "--recipe", str(recipe_file(tmp_path, tiny_model)), "--out", str(tmp_path), "--methods", "mse,accuquant",
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
    """The device of these tests finds what they are there to find, as strictly as torch: numbers of the host may only be read."""
    script = """
import torch
from tests.pretend_gpu import install, leave
x, number = torch.ones(3, device=install()), torch.tensor(2.0)
assert float((x + number).sum()) == 9.0 and x.cpu().device.type == "cpu"
assert float(x.clone().mul_(number).sum()) == 6.0
for mixed in (
    lambda: x + torch.ones(3),
    lambda: torch.tensor(0.0).add_(x.sum()),
    lambda: torch.add(x.sum(), 1.0, out=torch.tensor(0.0)),
    lambda: torch.stack([x.sum(), number]),
    lambda: torch.cat([x, torch.ones(3)]),
):
    try:
        print("taken", mixed())
    except RuntimeError as error:
        print(error)
leave(0)
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 5
    assert all(f"some of its tensors are on {NAME}, others on cpu" in line for line in said), done.stdout
