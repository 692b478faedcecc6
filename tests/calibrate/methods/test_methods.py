"""Every method calibrates a tiny model into an artifact that holds; combinations go together or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.finalize import held_out_reference
from dq_toolchain.calibrate.methods import names, resolve, with_settings
from dq_toolchain.calibrate.pipeline import calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.run import calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError, RecipeError
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.recipe.loading import load_recipe
from tests import tiny_pipelines

QUIET = Reporter(quiet=True)
BLOCKS = {"rows": 16, "batch": 8, "iterations": 4, "activation_iterations": 2}


def small(model: Path, out: Path, method: str, **sections: dict[str, Any]) -> Any:
    settings = {"method": method, "samples": 8, "batch": 4, "warmup": 2, "settling": 2, "group_iterations": 1}
    base: dict[str, dict[str, Any]] = {
        "model": {"path": model},
        "run": {"out": out, "device": "cpu"},
        "sampler": {"steps": 5},
        "calibrate": settings,
        "blocks": BLOCKS,
        "reference": {"seeds": 2},
    }
    for section, values in sections.items():
        base[section] = base.get(section, {}) | values
    return load_recipe(None, base)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of all methods: equal stages are done once."""
    return tmp_path_factory.mktemp("methods") / "work"


@pytest.mark.parametrize("name", names())
def test_a_method_leaves_an_artifact_near_fp32(name: str, work: Path, tiny_model: Path, tmp_path: Path) -> None:
    made = calibrated(small(tiny_model, work.parent, name), QUIET, work)
    artifact, context = made.artifact, made.context
    held_out = context.draw(held_out_seeds(2))
    reference = held_out_reference(artifact, context.network, context.table, held_out, batch=2)
    artifact.save(tmp_path, reference)
    loaded = Artifact.load(tmp_path)
    assert loaded.record["recipe"]["calibrate"]["method"] == name
    error = (reference.simulation_latents[-1] - reference.fp32_latents[-1]).norm() / reference.fp32_latents[-1].norm()
    assert 1e-5 < error < 0.2
    assert loaded.table == artifact.table
    assert loaded.smoothed == artifact.smoothed


@pytest.mark.parametrize("name", ["eda-dm", "tfmq", "gac", "mse+eda-dm", "tfmq+tac"])
def test_a_method_for_unets_refuses_a_transformer_before_any_work(name: str, tmp_path: Path) -> None:
    recipe = small(tiny_pipelines.save_transformer(tiny_pipelines.dit(), tmp_path), tmp_path / "out", name)
    with pytest.raises(CalibrationError, match=r"this DiTTransformer2DModel .*a(nother)? method"):
        setup(recipe, resolve(name))


def test_every_method_of_the_issue_is_there() -> None:
    wanted = [
        "minmax",
        "mse",
        "ptq4dm",
        "qdiffusion",
        "ptqd",
        "qncd",
        "tfmq",
        "eda-dm",
        "tac",
        "stepbaq",
        "gac",
        "accuquant",
    ]
    assert set(wanted) <= set(names())
    assert names()[0] == "accuquant"


def test_a_method_fills_in_what_the_recipe_leaves_open(tiny_model: Path, tmp_path: Path) -> None:
    method = resolve("minmax")
    assert with_settings(small(tiny_model, tmp_path, "minmax"), method).calibrate.ranges == "minmax"
    assert with_settings(small(tiny_model, tmp_path, "minmax"), method).quantize.step_groups == 1
    own = small(tiny_model, tmp_path, "minmax", quantize={"step_groups": 2}, calibrate={"ranges": "percentile"})
    assert with_settings(own, method).calibrate.ranges == "percentile"
    assert with_settings(own, method).quantize.step_groups == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonsense", r"got 'nonsense', allowed are accuquant, "),
        ("accuquant+accuquant", "twice"),
        ("accuquant+qdiffusion", "both fit weights"),
        ("accuquant+gac", "reconstructs none"),
        ("ptq4dm+ptq4dm-paper", "calibration set"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        resolve(name)


def test_a_combination_takes_the_fit_of_the_first_and_what_is_the_seconds_own(tiny_model: Path, tmp_path: Path) -> None:
    both = calibrated(small(tiny_model, tmp_path, "accuquant+tac"), QUIET, tmp_path / "work")
    alone = calibrated(small(tiny_model, tmp_path, "accuquant"), QUIET, tmp_path / "work")
    assert torch.equal(both.artifact.scale, alone.artifact.scale)
    assert alone.artifact.table.correction is None
    assert both.artifact.table.correction is not None
    assert len(both.artifact.step_groups) == 5


def test_calibrations_in_one_folder_share_rollouts_and_fits(tiny_model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = calibrated(small(tiny_model, tmp_path, "qdiffusion"), QUIET, work)
    files = {path.name: path.stat().st_mtime_ns for path in work.glob("*.safetensors")}
    second = calibrated(small(tiny_model, tmp_path, "ptqd"), QUIET, work)
    assert {path.name: path.stat().st_mtime_ns for path in work.glob("*.safetensors")} == files
    for name, layer in first.artifact.layers.items():
        assert torch.equal(layer.weight_q, second.artifact.layers[name].weight_q)
    assert second.seconds > first.seconds - 1e-3  # what was shared counts for both
    apart = calibrated(small(tiny_model, tmp_path, "ptqd"), QUIET, tmp_path / "other")
    assert apart.artifact.table == second.artifact.table


def test_guidance_goes_through_every_phase(tiny_model: Path, tmp_path: Path) -> None:
    sampler = {"steps": 5, "guidance": 2.0}
    for name in ("eda-dm", "qncd", "tfmq+tac"):
        _, artifact, _ = calibrate(small(tiny_model, tmp_path / name, name, sampler=sampler), QUIET)
        assert artifact.guidance == 2.0
