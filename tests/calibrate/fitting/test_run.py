"""A method's fit: none leaves the network as it is, blocks record their units, and launches that cannot share are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.fitting.phase import FitResult, Work, phases_of
from dq_toolchain.calibrate.fitting.run import check_workers, fit_network
from dq_toolchain.calibrate.methods import resolve
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.calibrate.work.workers import ALONE, Workers
from dq_toolchain.toolchain.errors import RecipeError
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from tests.calibrate.conftest import QUIET, Measured, measured, tiny_recipe


@pytest.fixture(scope="module")
def ready(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    blocks = {"rows": 8, "batch": 4, "iterations": 1, "activation_iterations": 1}
    return measured(tiny_model, tmp_path_factory.mktemp("fitting"), blocks=blocks, calibrate={"samples": 4})


Tensors = dict[str, Tensor]


def fitted(ready: Measured, method: str, folder: Path) -> tuple[FitResult, Tensors, Tensors]:
    """What the fit says, and the scales before and after it."""
    network = quantize_with(ready.context, ready.scale, ready.zero_point, ready.recipe)
    before = {name: value.detach().clone() for name, value in network.scale_parameters().items()}
    work = Work(
        recipe=ready.recipe,
        network=network,
        trajectories=ready.trajectories,
        chosen=None,
        block_options={},
        checkpoint=CheckpointFile.of(folder, "fit", "0" * 64),
        reporter=QUIET,
    )
    found = fit_network(phases_of(resolve(method).fit, ready.recipe), work)
    return found, before, dict(network.scale_parameters())


def test_a_method_of_ranges_alone_fits_nothing(ready: Measured, tmp_path: Path) -> None:
    found, before, after = fitted(ready, "mse", tmp_path)
    assert (found.stages, found.growth, found.seconds) == ([], None, 0.0)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(tmp_path.iterdir()) == []


def test_a_method_of_blocks_records_every_unit_and_no_time(ready: Measured, tmp_path: Path) -> None:
    found, before, after = fitted(ready, "qdiffusion", tmp_path)
    assert [stage["phase"] for stage in found.stages].count("weights") == len(found.stages) / 2
    assert all(stage["after"] <= stage["before"] for stage in found.stages)
    assert all("seconds" not in stage for stage in found.stages)  # an artifact holds nothing that differs between runs
    assert found.seconds > 0
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("method", "offload", "refused"),
    [("accuquant", False, False), ("qdiffusion", False, True), ("accuquant", True, True)],
)
def test_blocks_are_reconstructed_by_one_process_only(
    method: str, offload: bool, refused: bool, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, run={"offload": offload}, calibrate={"samples": 16, "batch": 8})
    groups = even_step_groups(4, 2)
    phases = phases_of(resolve(method).fit, recipe)
    check_workers(method, phases, recipe, ALONE, groups)
    if refused:
        with pytest.raises(
            RecipeError, match=r"2 processes share the samples of multi-step fits, but .* start it alone"
        ):
            check_workers(method, phases, recipe, Workers(0, 2), groups)
    else:
        check_workers(method, phases, recipe, Workers(0, 2), groups)
