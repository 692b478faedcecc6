"""Other step counts and guidance scales are refused before any work, and get held-out rollouts of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.data.samples import held_out_seeds
from dq_toolchain.calibrate.pipeline import Calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.run import _held_out, calibrate
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import RecipeError, SamplerError
from dq_toolchain.toolchain.formats.artifact import Artifact, load_reference
from dq_toolchain.toolchain.sampler.denoiser import Denoiser
from dq_toolchain.toolchain.sampler.rollout import rollout
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.conftest import QUIET, tiny_recipe
from tests.tiny_artifacts import corrected

FAST = {"rounding": "nearest", "warmup": 0, "iterations": 0, "settling": 0, "group_iterations": 0}


@pytest.mark.parametrize(
    ("sections", "error", "text"),
    [
        ({"reference": {"more_steps": [4]}}, RecipeError, "--more-steps: got 4, at which it is calibrated"),
        ({"reference": {"more_steps": [2, 2]}}, RecipeError, "--more-steps: got 2 twice"),
        ({"reference": {"more_steps": list(range(5, 22))}}, RecipeError, "allowed are 16"),
        ({"reference": {"more_guidance": [2.0]}}, RecipeError, "no unconditional calls"),
        (
            {"reference": {"more_guidance": [2.0]}, "sampler": {"steps": 4, "guidance": 2.0}},
            RecipeError,
            "at which it is calibrated",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    sections: dict[str, Any], error: type[Exception], text: str, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, **sections)
    with pytest.raises(error, match=text):
        setup(recipe)


def test_a_count_that_the_scheduler_refuses_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "scheduler"
    path.mkdir()
    config = json.loads((tiny_model / "scheduler" / "scheduler_config.json").read_text())
    (path / "scheduler_config.json").write_text(json.dumps(config | {"num_train_timesteps": 50}))
    recipe = tiny_recipe(tiny_model, tmp_path, reference={"more_steps": [51]})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"scheduler": path})})
    with pytest.raises(SamplerError, match="--more-steps 51: steps must be an integer in 1-50"):
        setup(recipe)


def test_the_artifact_holds_the_rollouts_of_each(tiny_model: Path, tmp_path: Path) -> None:
    """FP32's own at that count, from the noise of the calibrated one, and those of the simulation with the groups by timestep."""
    recipe = tiny_recipe(
        tiny_model,
        tmp_path,
        sampler={"steps": 4, "guidance": 2.0},
        calibrate=FAST,
        reference={"seeds": 2, "more_steps": [2, 6], "more_guidance": [1.0]},
    )
    folder, artifact, reference = calibrate(recipe, QUIET)
    loaded = Artifact.load(folder)
    assert (loaded.steps, loaded.samplings) == (4, artifact.samplings)
    assert [(each.steps, each.guidance) for each in loaded.samplings] == [
        (2, 1.0),
        (2, 2.0),
        (4, 1.0),
        (6, 1.0),
        (6, 2.0),
    ]
    fp32 = setup(recipe).network
    for sampling in loaded.samplings:
        other, at = load_reference(folder, sampling), artifact.at(sampling)
        assert torch.equal(other.start, reference.start)
        denoiser = Denoiser(fp32, sampling.table, other.conditioning, sampling.guidance)
        with torch.no_grad():
            assert torch.allclose(other.fp32_latents, rollout(sampling.table, denoiser, other.start), atol=1e-5)
            network = SimulatedNetwork(at)
            denoiser = Denoiser(network, at.table, other.conditioning, at.guidance, network.set_step)
            assert torch.allclose(other.simulation_latents, rollout(at.table, denoiser, other.start), atol=1e-5)
    assert loaded.holding((), ()).samplings == ()
    assert [each.steps for each in loaded.holding((6,), ()).samplings] == [6]
    again, *_ = calibrate(tiny_recipe(tiny_model, tmp_path, calibrate=FAST), QUIET)
    assert not list(again.glob("reference-*"))  # those of the older artifact went with it
    assert not {"steps", "samplings"} & set(json.loads((again / "calibration.json").read_text()))


@pytest.mark.parametrize("method", ["tfmq", "adp-dm"])
def test_step_groups_that_a_method_finds_are_also_those_of_the_others(
    method: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Of more groups than the recipe asks for, every call of another count takes that of the nearest timestep."""
    recipe = tiny_recipe(
        tiny_model,
        tmp_path,
        calibrate=FAST | {"method": method, "samples": 4},
        blocks={"rows": 4, "batch": 2, "iterations": 1, "activation_iterations": 1},
        reference={"seeds": 2, "more_steps": [3]},
    )
    folder, artifact, _ = calibrate(recipe, QUIET)
    loaded = Artifact.load(folder)
    assert len(loaded.step_groups) > 1
    at = loaded.at(loaded.samplings[0])
    calibrated, groups = torch.tensor(loaded.table.timesteps), loaded.group_of_step
    nearest = [int((calibrated - timestep).abs().argmin()) for timestep in at.table.timesteps]
    assert at.group_of_step == tuple(groups[k] for k in nearest)
    assert len(at.step_groups) == len(loaded.step_groups) == len(artifact.scale)


class Heard(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        self.lines.append(line)


def test_a_correction_belongs_to_the_calibrated_table_and_that_is_said(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model, tmp_path, calibrate=FAST, reference={"seeds": 2, "more_steps": [2]})
    _, artifact, plain = calibrate(recipe, QUIET)
    context, reporter = setup(recipe), Heard()
    made = Calibrated(corrected(artifact), replace(context, table=context.table.uncorrected), 0.0, torch.zeros(0))
    own, other = _held_out(made, recipe, reporter)
    assert not torch.equal(own.simulation_latents, plain.simulation_latents)
    assert torch.equal(
        other.simulation_latents, load_reference(tmp_path / "calibration", artifact.samplings[0]).simulation_latents
    )
    assert len(reporter.lines) == 1
    assert (
        "belongs to 4 steps, guidance 1: at 2 steps, guidance 1 the network is sampled without it" in reporter.lines[0]
    )
    assert len(held_out_seeds(2)) == own.seeds
