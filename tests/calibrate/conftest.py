"""A tiny model on disk and a recipe that calibrates it in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.calibrate.data.context import ACTIVATION_LIMIT, Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.network.activation_memory import ActivationMemory
from dq_toolchain.calibrate.network.insert import Prepared
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.calibrate.ranges.measure import choose_all, observe_rollouts
from dq_toolchain.calibrate.work.lagged import Lagged
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from dq_toolchain.toolchain.simulation.network import SimulatedNetwork
from tests.calibrate.network.counting import streaming
from tests.tiny import write_tiny_model

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers come one iteration late, as from a device with a queue."""
    begin = Lagged.__init__

    def lagging(self: Lagged[Any], device: torch.device, name: str) -> None:
        begin(self, device, name)
        self.lag = 1

    monkeypatch.setattr(Lagged, "__init__", lagging)


def context_of(network: nn.Module, table: SamplerTable, samples: Samples) -> Context:
    """A context around any network, without sites: for what works on trajectories alone."""
    return Context(
        model=Model("tiny", "0" * 64, {}, {}, network, Path("tiny")),
        prepared=Prepared(network=network, splits={}, sites=()),
        table=table,
        guidance=1.0,
        step_groups=even_step_groups(table.calls, 1),
        bank=samples.conditioning,
        samples=samples,
        device=torch.device("cpu"),
        seed=0,
    )


def streamed_elsewhere(context: Context) -> Context:
    """The context as if its weights were streamed to a device, which computes nothing: what works here works on the host."""
    return replace(context, device=torch.device("meta"), streaming=streaming()[0])


def with_room(context: Context, samples: int) -> Context:
    """The context as if the host's activations had room for so many samples at once."""
    return replace(context, activation_memory=ActivationMemory(ACTIVATION_LIMIT // samples, 0, 0))


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every call of a simulation."""
    found, forward = list[int](), SimulatedNetwork.forward

    def noted(self: SimulatedNetwork, sample: Tensor, *rest: Any, **named: Any) -> Any:
        found.append(len(sample))
        return forward(self, sample, *rest, **named)

    monkeypatch.setattr(SimulatedNetwork, "forward", noted)
    return found


def tiny_recipe(model: Path, out: Path, **sections: Mapping[str, object]) -> Recipe:
    base: dict[str, dict[str, object]] = {
        "model": {"path": model},
        "run": {"out": out, "device": "cpu"},
        "sampler": {"steps": 4},
        "quantize": {"step_groups": 2},
        "calibrate": {
            "samples": 8,
            "batch": 4,
            "rounding": "learned",
            "warmup": 4,
            "iterations": 4,
            "settling": 2,
            "horizon": 2,
            "group_iterations": 2,
        },
        "reference": {"seeds": 2},
    }
    for section, values in sections.items():
        base[section] = base.get(section, {}) | dict(values)
    return load_recipe(None, base)


@dataclass(frozen=True)
class Measured:
    """A tiny model before its fit: activation parameters (G, L) chosen on FP32 rollouts."""

    recipe: Recipe
    context: Context
    trajectories: Trajectories
    scale: Tensor
    zero_point: Tensor


def measured(model: Path, out: Path, **sections: Any) -> Measured:
    recipe = tiny_recipe(model, out, **sections)
    context = setup(recipe)
    targets, histograms = observe_rollouts(context)
    scale, zero_point = choose_all(context, histograms, recipe.calibrate)
    return Measured(recipe, context, Trajectories(context, targets), scale, zero_point)
