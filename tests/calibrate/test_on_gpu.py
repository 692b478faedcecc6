"""Calibration on a real GPU: the result is the CPU's, within the same bounds as on the pretended one; two runs are one.

``DQ_TEST_DEVICE=cpu`` runs these tests on the CPU, to see that they can be run at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.compare.command import compare
from dq_toolchain.calibrate.compare.plan import Request
from dq_toolchain.calibrate.compare.progress import GridReporter
from tests.calibrate.devices import LIMITS, LIMITS_OF_BLOCKS, METHODS, OPTIONS, beyond, limits_of, made_on, recipe_file
from tests.conftest import GPU

pytestmark = pytest.mark.gpu


def calibrates_as_the_cpu_does(recipe: Path, folder: Path, limits: Mapping[str, float] = LIMITS, **run: Any) -> None:
    there, here = made_on(GPU, recipe, folder / "there", **run), made_on("cpu", recipe, folder / "here", **run)
    assert there[0].record["device"] == GPU
    assert there[0].table.calls == here[0].table.calls
    assert beyond(there, here, limits) == {}


def test_fit(tiny_model: Path, tmp_path: Path) -> None:
    calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model), tmp_path)


def test_blocks(tiny_model: Path, tmp_path: Path) -> None:
    calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, "accuquant-blocks"), tmp_path, LIMITS_OF_BLOCKS)


@pytest.mark.parametrize("quantize", ["", 'budget = "size=0.2"'])
def test_offload(quantize: str, tiny_model: Path, tmp_path: Path) -> None:
    calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, quantize=quantize), tmp_path, offload=True)


def test_compare(tiny_model: Path, tmp_path: Path) -> None:
    """PSNR differs no more than the errors of the latents may."""
    psnr = {}
    for device in {GPU, "cpu"}:
        folder = tmp_path / device
        folder.mkdir()
        recipe = recipe_file(folder, tiny_model)
        recipe.write_text(f'{recipe.read_text()}[run]\ndevice = "{device}"\n')
        compare(Request(recipe=recipe, out=folder, methods="mse,accuquant", held_out=4), GridReporter(quiet=True))
        rows = json.loads((folder / "compare/compare.json").read_text())["rows"]
        psnr[device] = {row["method"]: row["figures"]["psnr_mean"]["mean"] for row in rows}
    assert set(psnr["cpu"]) == {"mse", "accuquant"}
    for method, value in psnr[GPU].items():
        assert abs(value - psnr["cpu"][method]) < 20 * math.log10(1 + LIMITS["error of the latents"])


def test_two_runs_give_the_same(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tiny_model)
    (one, first), (two, second) = (made_on(GPU, recipe, tmp_path / name) for name in ("one", "two"))
    assert torch.equal(one.scale, two.scale)
    assert all(torch.equal(layer.weight_q, two.layers[name].weight_q) for name, layer in one.layers.items())
    assert torch.equal(first.simulation_latents, second.simulation_latents)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, tiny_model: Path, tmp_path: Path) -> None:
    calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, **OPTIONS[name]), tmp_path, limits_of(name))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "accuquant-blocks"])
def test_other_methods(method: str, tiny_model: Path, tmp_path: Path) -> None:
    calibrates_as_the_cpu_does(recipe_file(tmp_path, tiny_model, method), tmp_path, LIMITS_OF_BLOCKS)
