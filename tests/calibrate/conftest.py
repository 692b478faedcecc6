"""A tiny model on disk and a recipe that calibrates it in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.samples import Samples
from dq_toolchain.calibrate.network.insert import Prepared
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.models.loading import Model
from dq_toolchain.toolchain.recipe.loading import load_recipe
from dq_toolchain.toolchain.recipe.sections import Recipe
from dq_toolchain.toolchain.sampler.step_groups import even_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable
from tests.tiny import write_tiny_model

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def context_of(network: nn.Module, table: SamplerTable, samples: Samples) -> Context:
    """A context around any network, without sites: for what works on trajectories alone."""
    return Context(
        model=Model("tiny", "0" * 64, {}, {}, network, Path("tiny")),
        prepared=Prepared(network, {}, ()),
        table=table,
        guidance=1.0,
        step_groups=even_step_groups(table.calls, 1),
        bank=samples.conditioning,
        samples=samples,
        device=torch.device("cpu"),
        seed=0,
    )


def tiny_recipe(model: Path, out: Path, **sections: Mapping[str, object]) -> Recipe:
    base: dict[str, dict[str, object]] = {
        "model": {"path": model},
        "run": {"out": out, "device": "cpu"},
        "sampler": {"steps": 4},
        "quantize": {"step_groups": 2},
        "calibrate": {
            "samples": 8,
            "batch": 4,
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
