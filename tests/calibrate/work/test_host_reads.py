"""No loop of a calibration waits for the device more than once an iteration, and the counter finds what would."""

from __future__ import annotations

import json

import pytest
import torch

from dq_toolchain.calibrate.work.host_reads import HostReads, Place, read_on_host
from dq_toolchain.calibrate.work.lagged import Lagged
from tests.calibrate.work.counted import BLOCKS, PLANTED, STEPS
from tests.processes import run

Lap = list[Place]
"""What was waited for in one iteration, a place as often as it was."""


@pytest.fixture(scope="module")
def laps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Lap]]:
    done = run("from tests.calibrate.work.counted import main; main()", tmp_path_factory.mktemp("counted"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {
        name: [[Place(kind, where, name) for kind, where, name, count in lap for _ in range(count)] for lap in every]
        for name, every in found.items()
    }


def waits(lap: Lap) -> Lap:
    """Reads, and copies that were not queued."""
    return [place for place in lap if place.kind != "queued"]


ITERATIONS = [
    *(f"fit {gradient}" for gradient in ("adjoint", "surrogate", "full")),
    *(f"blocks {name}" for name in BLOCKS),
    "fit: before a validation",
    "rollouts",
    "rollouts, ranges observed",
    "ranges of known rollouts",
]
ONCE = ["validation", "growth", "after rollouts", "choice of eda-dm", "choice of ptq4dm", "finish of tfmq"]
STEP_BY_STEP = [f"finish of {name}" for name in ("ptqd", "qncd", "stepbaq", "tac")]


@pytest.mark.parametrize("loop", ITERATIONS + ONCE)
def test_one_read_at_most(loop: str, laps: dict[str, list[Lap]]) -> None:
    for lap in laps[loop]:
        assert len(waits(lap)) <= 1, "\n".join(map(str, waits(lap)))
        assert all(place.name for place in waits(lap))  # on purpose


def test_a_unit_is_read_for_its_error_before_and_after_and_its_last_loss(laps: dict[str, list[Lap]]) -> None:
    """Its records stay on the device."""
    for lap in laps["blocks: between units"]:
        names = [place.name for place in waits(lap)]
        assert sorted(names) in (["error of a unit"], ["error of a unit", "error of a unit", "loss"]), names


@pytest.mark.parametrize("loop", STEP_BY_STEP)
def test_one_read_for_every_step_of_the_sampler(loop: str, laps: dict[str, list[Lap]]) -> None:
    """Building the simulated network comes first: its weights are brought to the device."""
    (lap,) = laps[loop]
    reads = [place for place in lap if place.kind == "read"]
    assert [place.name for place in reads] == ["output of a step"] * STEPS, "\n".join(map(str, lap))


@pytest.mark.parametrize("loop", [loop for loop in ITERATIONS if loop.startswith(("fit ", "blocks "))])
def test_losses_are_read(loop: str, laps: dict[str, list[Lap]]) -> None:
    assert any(place.name == "loss" for lap in laps[loop] for place in lap)


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_where_it_is(what: str, laps: dict[str, list[Lap]]) -> None:
    (lap,) = laps[f"planted: {what}"]
    kind, _ = PLANTED[what]
    assert [place.kind for place in lap] == ([] if kind is None else [kind]), "\n".join(map(str, lap))
    assert all(place.where.startswith("tests/calibrate/work/counted.py:") for place in lap)


def test_nothing_is_found_on_the_host() -> None:
    with HostReads() as counter:
        x = torch.arange(4.0, requires_grad=True)
        loss = (x * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert float(read_on_host(loss.detach(), "loss")) == 20.0
        assert x.detach()[x.detach() > 1].tolist() == [2.0, 3.0]
    assert not counter.found


def test_numbers_come_at_once_on_a_cpu_and_one_late_elsewhere() -> None:
    at_once: Lagged[int] = Lagged(torch.device("cpu"), "loss")
    assert at_once.put(torch.tensor([1.0, 2.0]), 7) == [([1.0, 2.0], 7)]
    assert at_once.rest() == []
    late: Lagged[int] = Lagged(torch.device("cpu"), "loss")
    late.lag = 1
    assert late.put(torch.tensor([1.0]), 0) == []
    assert late.put(torch.tensor([2.0]), 1) == [([1.0], 0)]
    assert late.rest() == [([2.0], 1)]
    assert late.rest() == []
