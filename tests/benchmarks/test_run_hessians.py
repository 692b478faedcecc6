"""Hessians of a whole run are products of the gradients that autograd finds, and the benchmark compares what they round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.coherence import MEASURES, main, parser
from benchmarks.run_hessians import Pair, run_hessians
from torch import Tensor

from benchmarks import common
from dq_toolchain.calibrate.bits.sensitivity import sweep
from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.quant.layers import Layer
from tests.benchmarks.test_rounding import Pixels
from tests.calibrate.conftest import tiny_recipe
from tests.tiny import write_tiny_model

OF_ONE_PLACE = ("time_embedding.linear_1", "time_embedding.linear_2")
"""Layers with one output for a sample, so that no places are left out."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("tiny")
    return setup(tiny_recipe(write_tiny_model(folder), folder, sampler={"steps": 4, "guidance": 1.0}))


def hessians(context: Context, samples: int = 1) -> dict[str, Pair]:
    layers: dict[str, Layer] = {name: context.network.get_submodule(name) for name in OF_ONE_PLACE}  # type: ignore[misc]
    return run_hessians(
        context, layers, dict.fromkeys(layers, torch.tensor(1.0)), context.samples.select(slice(0, samples))
    )


def gradients(context: Context) -> dict[str, list[Tensor]]:
    """Of v' x[N] with respect to each weight, (out, in) step by step: what each pass back adds."""
    found: dict[str, list[Tensor]] = {name: [] for name in OF_ONE_PLACE}
    for name in OF_ONE_PLACE:
        weight = context.network.get_parameter(f"{name}.weight").requires_grad_(True)
        handle = weight.register_hook(found[name].append)
        sweep(context, context.samples, 0)
        handle.remove()
        weight.requires_grad_(False).grad = None
    return found


def test_they_are_products_of_the_steps_gradients(context: Context) -> None:
    steps, scales = gradients(context), []
    for name, pair in hessians(context).items():
        assert len(steps[name]) == context.table.calls
        together = torch.stack(steps[name]).sum(0).T @ torch.stack(steps[name]).sum(0)
        apart = sum(each.T @ each for each in steps[name])
        scales.append(pair.together[0].norm() / together.norm())
        torch.testing.assert_close(pair.together[0], scales[-1] * together, rtol=1e-3, atol=1e-4 * float(scales[-1]))
        torch.testing.assert_close(pair.apart[0], scales[-1] * apart, rtol=1e-3, atol=1e-4 * float(scales[-1]))
        assert (pair.together - pair.apart).norm() > 0.01 * pair.apart.norm()
    assert scales[0] == pytest.approx(float(scales[1]), rel=1e-3)  # one for all layers of a run


def test_runs_count_alike_and_the_network_is_left_as_it_was(context: Context) -> None:
    for count in (1, 3):
        pairs = hessians(context, count).values()
        assert sum(float(pair.apart.diagonal(dim1=1, dim2=2).sum()) for pair in pairs) >= 0.5 * count
    assert not any(module._forward_hooks for module in context.network.modules())
    assert not any(parameter.requires_grad for parameter in context.network.parameters())


def test_each_rounding_is_best_by_its_own_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "extractor_for", lambda *_: Pixels())
    wanted = ("--model", write_tiny_model(tmp_path / "model"), "--steps", 4, "--held-out", 4, "--trajectories", 4)
    rows = main(parser().parse_args([str(each) for each in (*wanted, "--json", tmp_path / "rows.json")]))
    nearest, apart, summed = rows
    assert [nearest[measure] for measure in MEASURES] == [0.0] * 4
    assert apart["own_apart"] > max(summed["own_apart"], 0)
    assert summed["own_sum"] > max(apart["own_sum"], 0)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
