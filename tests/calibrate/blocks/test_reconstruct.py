"""Block reconstruction: no unit gets worse, the network gets better, and a resumed run is bit-identical."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks import storage as module
from dq_toolchain.calibrate.blocks.reconstruct import (
    BlockBudget,
    BlockOptions,
    planned_iterations,
    reconstruct,
    units_of,
)
from dq_toolchain.calibrate.blocks.storage import IN_MEMORY, Storage
from dq_toolchain.calibrate.blocks.temporal import TEMPORAL
from dq_toolchain.calibrate.blocks.unit_fit import UnitFit
from dq_toolchain.calibrate.blocks.unit_problem import UnitProblem
from dq_toolchain.calibrate.network.activation_checkpointing import outermost_blocks
from dq_toolchain.calibrate.work.checkpoint import CheckpointFile
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.quant.qparams import fp16_exact
from tests.calibrate.blocks.test_units import Tiny, tiny
from tests.calibrate.network.counting import streaming

BUDGET = BlockBudget(iterations=3, activation_iterations=2, batch=4, lr=0.1, scale_lr=1e-2)
OPTIONS = {
    "qdiffusion": BlockOptions(),
    "tiar": BlockOptions(temporal=True),
    "fbr": BlockOptions(inner=0.8),
    "joint": BlockOptions(joint=True),
    "eda_dm": BlockOptions(inner=0.8, drop=0.5, joint=True),
    "aligned": BlockOptions(aligned=True),
    "aligned_joint": BlockOptions(temporal=True, joint=True, aligned=True),
}
ALWAYS = ("qdiffusion", "aligned_joint")
"""Both orders of phases, and every option but those that add a term to the loss."""
FEW = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in OPTIONS]


def start(
    case: Tiny,
    folder: Path,
    options: BlockOptions = OPTIONS["qdiffusion"],
    budget: BlockBudget = BUDGET,
    advance: Callable[..., None] = lambda n=1, note="": None,
    storage: Storage = IN_MEMORY,
) -> list[dict[str, Any]]:
    checkpoint = CheckpointFile(folder / "blocks.safetensors", "tiny")
    return reconstruct(case.network, case.fp32, case.rows, options, budget, 5, checkpoint, advance, storage)


def state(case: Tiny) -> dict[str, Tensor]:
    network = case.network
    integers = {name: layer.weight_quantizer.export()[0] for name, layer in network.layers.items()}
    return integers | {name: value.detach().clone() for name, value in network.scale_parameters().items()}


@torch.no_grad()
def network_error(case: Tiny) -> float:
    total = 0.0
    for step in case.rows.step.unique():
        rows = case.rows.select(case.rows.step == step)
        case.network.set_step(int(step))
        total += float((case.run_rows(case.network, rows) - case.run_rows(case.fp32, rows)).square().sum())
    return total


@pytest.mark.parametrize("conditional", [False, True])
def test_units_never_get_worse_and_the_network_gets_better_than_nearest_rounding(
    conditional: bool, tmp_path: Path
) -> None:
    case = tiny(conditional=conditional, attention=conditional, step_groups=2, scale_factor=1.3)
    before, told = network_error(case), [0]
    budget = BlockBudget(iterations=20, activation_iterations=5, batch=16, lr=0.1, scale_lr=1e-2)

    def advance(n: int = 1, note: str = "") -> None:
        told[0] += n

    records = start(case, tmp_path, budget=budget, advance=advance)
    units = units_of(case.network, case.rows, BlockOptions())
    assert [(r["phase"], r["unit"]) for r in records] == [
        (p, u.name) for p in ("weights", "activations") for u in units
    ]
    assert all(r["after"] <= r["before"] for r in records)
    assert all((r["after"] == r["before"]) or not r["put_back"] for r in records)
    assert sum(r["after"] < r["before"] for r in records if r["phase"] == "weights") > len(units) / 2
    assert network_error(case) < 0.8 * before
    assert told[0] == planned_iterations(case.network, BlockOptions(), budget)


@pytest.mark.parametrize("name", FEW)
def test_replayed_outputs_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    found = []
    for folder, limit in (("replayed", None), ("some", 10_000), ("computed", 0)):
        if limit is not None:
            monkeypatch.setattr(module, "MOST_IN_MEMORY", limit)
        case = tiny(step_groups=2, samples=3)
        inside = next(name for name in case.network.layers if name.endswith("resnets.0.conv1"))
        case.network.layers[inside].register_forward_hook(lambda *_: calls.append(1))
        calls.clear()
        records = start(case, tmp_path / folder, OPTIONS[name])
        found.append((state(case), [{**r, "seconds": 0} for r in records], len(calls)))
    for values, records, _ in found[1:]:
        assert records == found[0][1]
        assert all(torch.equal(value, found[0][0][key]) for key, value in values.items())
    replayed, _, computed = (count for _, _, count in found)
    assert replayed < computed


@pytest.mark.parametrize("name", ["qdiffusion", "joint", "eda_dm", "aligned_joint"])
def test_a_lean_network_with_records_on_disk_ends_alike(name: str, tmp_path: Path) -> None:
    found = []
    for low_memory, streams in ((False, False), (True, False), (True, True)):
        case, storage = tiny(step_groups=2, samples=3, learned_rounding=False), IN_MEMORY
        if low_memory:
            case.network.low_memory, storage = True, Storage(32, tmp_path)
        if streams:
            engine, copier = streaming(hidden=(torch.float32,))
            engine.attach(case.fp32)
            case.network.stream(engine)
        records = start(case, tmp_path / f"{low_memory} {streams}", OPTIONS[name], storage=storage)
        if streams:
            assert copier.most == 2
            assert len(copier.started) == 2 * len(outermost_blocks(case.fp32))
            engine.close()
            copier.show()
        found.append((state(case), [{**r, "seconds": 0} for r in records]))
    for values, records in found[1:]:
        assert records == found[0][1]
        assert all(torch.equal(value, values[key]) for key, value in found[0][0].items())
    assert not list(tmp_path.glob("*.records"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    case = tiny(step_groups=2, samples=3)
    start(case, tmp_path_factory.mktemp("plain"))
    return state(case)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_runs_differs_from_the_plain_one_and_leaves_valid_integers(
    name: str, plain: dict[str, Tensor], tmp_path: Path
) -> None:
    case = tiny(step_groups=2, samples=3)
    biases = {n: b.clone() for n, b in case.network.biases().items()}
    records = start(case, tmp_path, OPTIONS[name])
    assert all(r["after"] <= r["before"] for r in records)
    assert (records[0]["unit"] == TEMPORAL) is OPTIONS[name].temporal
    for layer in case.network.layers.values():
        integers, scale = layer.weight_quantizer.export()
        kind = layer.weight_quantizer.kind
        assert layer.fixed_weight is None
        assert int(integers.min()) >= kind.qmin
        assert int(integers.max()) <= kind.qmax
        assert torch.equal(scale, fp16_exact(scale))
    for quantizer in case.network.activations.values():
        scale = fp16_exact(quantizer.log_scale.exp())
        assert bool(scale.isfinite().all())
        assert quantizer.float_share == 0.0
        assert quantizer.generator is None
    assert all(parameter.requires_grad for parameter in case.network.scale_parameters().values())
    assert all(parameter.requires_grad for parameter in case.network.weight_parameters().values())
    assert all(torch.equal(b, biases[n]) for n, b in case.network.biases().items())
    if name != "qdiffusion":
        found = state(case)
        assert any(not torch.equal(found[key], value) for key, value in plain.items())


@pytest.mark.parametrize("options", [BlockOptions(temporal=True, aligned=True, drop=0.5), OPTIONS["eda_dm"]])
def test_a_run_that_was_killed_and_resumed_ends_bit_identical(options: BlockOptions, tmp_path: Path) -> None:
    whole, killed = (tiny(step_groups=2, samples=3) for _ in range(2))
    (tmp_path / "whole").mkdir()
    records = start(whole, tmp_path / "whole", options)
    total, told = planned_iterations(whole.network, options, BUDGET), [0]

    class Killed(Exception):
        pass

    def kill_after(n: int, count: int = 1) -> None:
        told[0] += count
        if told[0] > n:
            raise Killed

    with pytest.raises(Killed):
        start(killed, tmp_path, options, advance=lambda n=1, note="": kill_after(2 * total // 3, n))
    killed = tiny(step_groups=2, samples=3)
    told[0] = 0
    resumed = start(killed, tmp_path, options, advance=lambda n=1, note="": kill_after(10**9, n))
    assert told[0] == total
    assert [{**r, "seconds": 0} for r in resumed] == [{**r, "seconds": 0} for r in records]
    expected = state(whole)
    assert all(torch.equal(value, expected[name]) for name, value in state(killed).items())
    checkpoint = CheckpointFile(tmp_path / "blocks.safetensors", "tiny")
    saved = [checkpoint.part(number).load() for number in range(len(resumed) + 1)]
    assert [part and part[1] for part in saved] == [*resumed, None]


def test_guidance_rows_and_nearest_rounding_without_offsets(tmp_path: Path) -> None:
    case = tiny(guidance=2.0, samples=3, learned_rounding=False)
    assert len(case.rows) == 2 * 4 * 3
    before = network_error(case)
    start(case, tmp_path)
    assert network_error(case) < before


def test_a_unit_that_gets_worse_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(fit: UnitFit, problem: UnitProblem, *_: object) -> None:
        for name in problem.unit.layers:
            quantizer = fit.network.layers[name].weight_quantizer
            quantizer.choose(torch.full_like(quantizer.weight, quantizer.kind.qmax))
        for activation in problem.quantizers.values():
            activation.log_scale.data.add_(3.0)

    monkeypatch.setattr(UnitFit, "run", spoil)
    case = tiny(samples=2)
    expected = state(case)
    records = start(case, tmp_path)
    assert all(r["put_back"] for r in records)
    assert all(torch.equal(value, expected[name]) for name, value in state(case).items())


def test_a_loss_that_is_not_finite_names_the_unit_and_leaves_the_network_usable(tmp_path: Path) -> None:
    case = tiny(samples=2)
    case.rows.sample[3] = math.nan
    with pytest.raises(CalibrationError, match="conv_in"):
        start(case, tmp_path, budget=BlockBudget(2, 0, 8))
    assert all(layer.fixed_weight is None for layer in case.network.layers.values())
    assert all(parameter.requires_grad for parameter in case.network.scale_parameters().values())


@pytest.mark.parametrize("name", ["qdiffusion", "aligned_joint"])
def test_losses_that_come_late_change_no_number(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = []
    for folder in ("at once", "late"):
        if folder == "late":
            request.getfixturevalue("late")
        case = tiny(step_groups=2, samples=3)
        records = start(case, tmp_path / folder, OPTIONS[name])
        found.append((state(case), [{**r, "seconds": 0} for r in records]))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][key]) for key, value in found[0][0].items())


def test_a_late_loss_that_is_not_finite_is_refused_before_its_unit_is_saved(late: None, tmp_path: Path) -> None:
    case = tiny(samples=2)
    case.rows.sample[3] = math.nan
    with pytest.raises(CalibrationError, match="conv_in, weights, iteration 0"):
        start(case, tmp_path, budget=BlockBudget(1, 0, 8))
    checkpoint = CheckpointFile(tmp_path / "blocks.safetensors", "tiny")
    saved = [checkpoint.part(number).load() for number in range(len(list(tmp_path.iterdir())))]
    assert "conv_in" not in [part and part[1]["unit"] for part in saved]
    assert case.network.layers["conv_in"].weight_quantizer.chosen is None


def test_a_share_of_elements_is_left_in_float_alike_for_the_same_seed() -> None:
    quantizer = next(iter(tiny(samples=2).network.activations.values())).requires_grad_(False)
    x, generator = torch.randn(1000, generator=torch.Generator().manual_seed(0)), torch.Generator()
    whole = quantizer(x)
    quantizer.float_share, quantizer.generator = 0.3, generator
    generator.manual_seed(1)
    first, second = quantizer(x), quantizer(x)
    generator.manual_seed(1)
    assert torch.equal(quantizer(x), first)
    assert not torch.equal(first, second)
    assert bool(((first == x) | (first == whole)).all())
    assert 0.25 < float((first == x).float().mean()) < 0.35
    quantizer.float_share = 1.0
    assert quantizer(x) is x
