"""The error of a row, and which rows may share a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import dq_toolchain as dq
from dq_toolchain.calibrate.blocks import unit_problem
from dq_toolchain.calibrate.blocks.unit_problem import Pools, row_errors
from tests import modules
from tests.calibrate.blocks.test_units import tiny
from tests.tiny import scheduler


def test_row_errors_sum_channels_and_average_places() -> None:
    a, b = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(row_errors(a, b, 2.0), (a - b).square().sum(1).mean((1, 2)))
    torch.testing.assert_close(row_errors(a[..., 0, 0], b[..., 0, 0], 2.0), (a - b)[..., 0, 0].square().sum(1))
    tokens, other = a.flatten(2).transpose(1, 2), b.flatten(2).transpose(1, 2)
    torch.testing.assert_close(row_errors(tokens, other, 2.4), row_errors(a, b, 2.4))


def test_channels_are_those_of_the_layer_whatever_its_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows in time, (B, C, T): errors of channels are summed, those of places averaged."""
    found: dict[tuple[int, ...], int | None] = {}

    def noted(output: Tensor, target: Tensor, norm: float, axis: int | None = None) -> Tensor:
        found[tuple(output.shape[1:])] = axis
        errors = row_errors(output, target, norm, axis)
        if output.dim() == 3:
            torch.testing.assert_close(errors, (output - target).abs().pow(norm).sum(1).mean(1))
        return errors

    monkeypatch.setattr(unit_problem, "row_errors", noted)
    dq.calibrate(
        modules.wave(),
        out=tmp_path,
        scheduler=scheduler(),
        sample_shape=(2, 16),
        conditioning=modules.words(),
        method="qdiffusion",
        steps=2,
        samples=4,
        device="cpu",
        recipe={
            "reference": {"seeds": 2},
            "blocks": {"rows": 4, "batch": 2, "iterations": 2, "activation_iterations": 1},
        },
    )
    assert {axis for shape, axis in found.items() if len(shape) == 2} == {1}
    assert {axis for shape, axis in found.items() if len(shape) == 1} == {-1}


def test_pools_keep_step_groups_apart_and_cover_every_row_once() -> None:
    case = tiny(samples=5)
    pools = Pools.by_step_group(case.rows, (0, 0, 0, 1))
    assert [len(part) for part in pools.parts] == [15, 5]
    assert sorted(torch.cat(pools.passes(4)).tolist()) == list(range(20))
    generator, counts = torch.Generator().manual_seed(0), [0, 0]
    for _ in range(200):
        chosen, index = pools.draw(8, generator)
        counts[chosen] += 1
        assert set(index.tolist()) <= set(pools.parts[chosen].tolist())
        assert len(set(index.tolist())) == len(index) == min(8, len(pools.parts[chosen]))
    assert 120 < counts[0] < 180
    part = pools.share(8)
    assert [len(p) for p in part.parts] == [6, 2]
    rest = pools.without(part)
    assert sorted(torch.cat([*rest.parts, *part.parts]).tolist()) == list(range(20))
