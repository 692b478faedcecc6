"""The action heads of ``examples/diffusion_policy``: the task, its expert, small untrained policies through the whole chain."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import dq_toolchain as dq

FOLDER = Path(__file__).parents[2] / "examples" / "diffusion_policy"
NAMES = ("task", "policies", "acting", "train", "quantize")
FAST: dict[str, Any] = {"samples": 8, "batch": 4, "warmup": 2, "device": "cpu", "effort": "quick"}


@pytest.fixture(scope="module")
def example() -> Iterator[dict[str, ModuleType]]:
    """The example's files by name, as its scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in NAMES}


def _small(example: dict[str, ModuleType], name: str) -> torch.nn.Module:
    """Untrained; what adaLN-Zero starts at zero is drawn, too."""
    torch.manual_seed(0)
    policies = example["policies"]
    made: torch.nn.Module = policies.UNet(16, 16, 16) if name == "unet" else policies.DiT(32, 1, 2)
    for parameter in made.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def test_the_expert_solves_every_table(example: dict[str, ModuleType]) -> None:
    task = example["task"]
    assert task.reached(lambda state, _chunk, _tables: task.planned(state), task.starts(200, seed=3)).all()


def test_an_agent_that_stays_solves_none(example: dict[str, ModuleType]) -> None:
    task = example["task"]
    stays = task.reached(
        lambda state, _chunk, _tables: state.agent[:, None].expand(-1, 16, -1), task.starts(20, seed=3)
    )
    assert not stays.any()


def test_the_same_seed_is_the_same_task_to_the_bit(example: dict[str, ModuleType]) -> None:
    task = example["task"]
    first, again, other = (task.demonstrations(8, seed=seed, steps=12) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


def test_commands_are_the_numbers_of_a_policy_in_millimetres(example: dict[str, ModuleType]) -> None:
    task = example["task"]
    state = task.starts(4, seed=5)
    plan = task.planned(state)
    numbers = task.to_numbers(plan, state.agent)
    assert numbers.shape == (4, 2, task.HORIZON)
    assert torch.allclose(task.to_commands(numbers, state.agent), plan, atol=1e-4)
    assert (plan[:, 1:] - plan[:, :-1]).norm(dim=2).max() <= task.SPEED + 1e-9


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_the_kept_weights_solve_the_task(name: str, example: dict[str, ModuleType]) -> None:
    policies, acting, task = example["policies"], example["acting"], example["task"]
    sampler = acting.of_diffusers(policies.trained(name), policies.scheduler_of(name), policies.STEPS[name])
    assert task.reached(acting.acting(sampler, 10), task.starts(10, seed=7)).sum() >= 8


def test_training_repeats_to_the_bit(example: dict[str, ModuleType]) -> None:
    train = example["train"]
    first, again = (train.train("dit", 3, episodes=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def _outcomes(generator: torch.Generator, chances: list[float], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Success of two programs on the same starts; chances: both, the first only, the second only, none."""
    drawn = torch.multinomial(torch.tensor(chances), count, replacement=True, generator=generator)
    return drawn <= 1, (drawn == 0) | (drawn == 2)


def test_the_interval_of_a_difference_of_success_holds_it(example: dict[str, ModuleType]) -> None:
    difference, generator = example["quantize"].difference, torch.Generator().manual_seed(0)
    for chances in ([0.9, 0.01, 0.02, 0.07], [0.85, 0.06, 0.05, 0.04]):
        found = [difference(*_outcomes(generator, chances, 500)) for _ in range(1000)]
        true = 100 * (chances[1] - chances[2])
        assert 0.93 <= sum(each["low"] <= true <= each["high"] for each in found) / len(found) <= 0.985


def test_a_difference_of_success_is_of_pairs(example: dict[str, ModuleType]) -> None:
    difference = example["quantize"].difference
    first, second = torch.tensor([True] * 90 + [False] * 10), torch.tensor([True] * 88 + [False] * 9 + [True] * 3)
    one, other = difference(first, second), difference(second, first)
    assert (one["solved"], one["gained"], one["lost"], one["percent"]) == (90, 2, 3, -1.0)
    assert (one["low"], one["high"]) == (pytest.approx(-other["high"]), pytest.approx(-other["low"]))
    assert one["high"] - one["low"] < 11  # of samples that are no pairs: 17
    assert difference(first, first)["low"] < 0 < difference(first, first)["high"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), [("unet", ["down"]), ("dit", [])])
def test_from_policy_to_verdict_on_executorch(
    name: str, kept: list[str], example: dict[str, ModuleType], tmp_path: Path
) -> None:
    acting, quantize = example["acting"], example["quantize"]
    network = _small(example, name)
    steps = 4 if name == "dit" else 2
    recipe = {"reference": {"seeds": 10}}
    calibration = quantize.calibrated(
        name, network, tmp_path, **{"recipe": recipe, "steps": steps, "step_groups": steps, "keep_float": kept, **FAST}
    )
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Linear)]
    assert len(calibration.artifact.layers) == len(layers) - len(kept)
    bundle = dq.export(calibration, "executorch", step_groups_as="input")
    verdict = dq.validate(dq.run(bundle, threads=1))
    assert verdict.outcome != "fail", [check.detail for check in verdict.checks if not check.passed]
    assert sum(row.count for row in bundle.description.operations if "keep_float" in row.why) == len(kept)
    assert not [row for row in bundle.description.operations if "squeeze" in row.name]
    reference = calibration.reference
    seen = reference.conditioning.cond["observation"]
    played = acting.of_bundle(bundle.folder)(reference.start, seen)
    simulated = acting.of_simulation(calibration.artifact)(reference.start, seen)
    assert (simulated - reference.simulation_latents[-1]).abs().max() < 1e-4 * simulated.abs().max()
    apart = quantize.millimetres(torch.stack([played, played]), torch.stack([simulated, simulated]))
    assert len(apart["per_control_step"]) == 16
    assert max(apart["per_control_step"]) < 5.0
