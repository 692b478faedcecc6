"""Rows read ahead are those of the records, in whatever order they are asked for; reconstruction asks as it has announced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dq_toolchain.calibrate.blocks import unit_problem
from dq_toolchain.calibrate.blocks.reading import Reader, Rows, Stage
from tests.calibrate.blocks.test_reconstruct import OPTIONS, start, state
from tests.calibrate.blocks.test_units import tiny

CPU = torch.device("cpu")


class Watched(Stage):
    """From the host to the host. ``begun``: rows read, and by which thread. ``taken``: rows that were handed over."""

    def __init__(self) -> None:
        self.begun: list[tuple[list[int], int]] = []
        self.taken: list[list[int]] = []

    def read(self, records: Rows, index: Tensor) -> Callable[[], Rows]:
        if bool((index < 0).any()):
            raise ValueError("no such row")
        self.begun.append((index.tolist(), threading.get_ident()))
        rows = {key: torch.index_select(record, 0, index) for key, record in records.items()}

        def ready() -> Rows:
            self.taken.append(index.tolist())
            return rows

        return ready


RECORDS = {("input", 0): torch.randn(9, 3, 4), ("output", ""): torch.arange(9)}


def test_rows_are_those_of_the_records_expected_or_not() -> None:
    stage = Watched()
    ahead, plain = Reader(RECORDS, CPU, stage), Reader(RECORDS, CPU)
    for expected, asked in (([1, 2], [1, 2]), (None, [4]), ([5, 6], [0, 3]), (None, [5, 6]), ([7], [8, 1])):
        if expected is not None:
            ahead.expect(torch.tensor(expected))
            plain.expect(torch.tensor(expected))
        found, wanted = ahead.read(torch.tensor(asked)), plain.read(torch.tensor(asked))
        assert found.keys() == wanted.keys() == RECORDS.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in RECORDS)
    assert [index for index, _ in stage.begun] == [[1, 2], [4], [5, 6], [0, 3], [7], [8, 1]]  # [5, 6] are read once
    assert threading.get_ident() not in {thread for _, thread in stage.begun}
    with pytest.raises(ValueError, match="no such row"):
        ahead.read(torch.tensor([-1]))
    assert torch.equal(ahead.read(torch.tensor([2]))["output", ""], torch.tensor([2]))


@pytest.mark.parametrize("name", ["qdiffusion", "aligned_joint"])
def test_reconstruction_ends_alike_and_reads_what_it_announced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, case, stage = tiny(step_groups=2, samples=3), tiny(step_groups=2, samples=3), Watched()
    records = start(exact, tmp_path / "plain", OPTIONS[name])
    monkeypatch.setattr(unit_problem, "stage_for", lambda _device: stage)
    found = start(case, tmp_path / "ahead", OPTIONS[name])
    assert [{**r, "seconds": 0} for r in found] == [{**r, "seconds": 0} for r in records]
    wanted = state(exact)
    assert all(torch.equal(value, wanted[key]) for key, value in state(case).items())
    assert sorted(index for index, _ in stage.begun) == sorted(stage.taken)  # nothing in vain
