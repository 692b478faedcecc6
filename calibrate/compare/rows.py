"""One row of a comparison: a method at one setting, its calibration seeds gathered; and who is best of several rows.

A spread is the mean and the range over calibration seeds, never a standard error: there are few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dq_toolchain.calibrate.compare.cells import CellResult
from dq_toolchain.calibrate.compare.grid import Cell

State = tuple[str, str | None]
"""complete, failed, running (in another process) or pending; and why it failed."""


@dataclass(frozen=True)
class Metric:
    """A column. ``best`` is what is wanted of it; ``judged``: it comes from the feature extractor."""

    key: str
    title: str
    form: str
    best: Literal["high", "low"]
    judged: bool = False


METRICS = (
    Metric("psnr_median", "PSNR, median (dB)", ".2f", "high"),
    Metric("psnr_mean", "PSNR, mean (dB)", ".2f", "high"),
    Metric("psnr_p10", "PSNR, 10th percentile (dB)", ".2f", "high"),
    Metric("psnr_pooled", "PSNR, pooled (dB)", ".2f", "high"),
    Metric("ssim_mean", "SSIM, mean", ".4f", "high"),
    Metric("frechet", "Frechet to FP32", ".4g", "low", judged=True),
    Metric("agreement", "class agreement", ".4f", "high", judged=True),
    Metric("error_final", "error of the samples, median", ".4f", "low"),
    Metric("calibration_seconds", "calibration (s)", ".1f", "low"),
)


@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest over calibration seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more; the mean lies within the range, whatever the rounding."""
        low, high = min(values), max(values)
        return cls(min(max(sum(values) / len(values), low), high), low, high)

    def overlaps(self, other: Spread) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Row:
    """One method at one setting, over its calibration seeds.

    Attributes:
        cell: of the first seed. seeds: those complete.
        pending: cells not there yet, of these ``running`` in another process.
        figures: by key of METRICS, None where there is no feature extractor; empty without a complete cell.
        free_running, teacher_forced: median error per network call, mean over the calibration seeds.
    """

    cell: Cell
    seeds: tuple[int, ...]
    failed: int
    pending: int
    running: int
    figures: Mapping[str, Spread | None]
    free_running: tuple[float, ...]
    teacher_forced: tuple[float, ...]

    @property
    def first_complete(self) -> Cell:
        """The complete cell of the lowest seed."""
        return replace(self.cell, seed=self.seeds[0])

    def to_json(self) -> dict[str, Any]:
        named = {"setting": self.cell.setting, **asdict(self.cell)}
        del named["seed"]
        return named | {name: value for name, value in asdict(self).items() if name != "cell"}


def row_of(cells: Sequence[Cell], results: Mapping[Cell, CellResult | None], states: Mapping[Cell, State]) -> Row:
    """The row of cells that differ in the calibration seed only."""
    found = [result for cell in cells if (result := results[cell]) is not None and result.complete]
    values = [{**(result.figures or {}), "calibration_seconds": result.calibration_seconds} for result in found]
    figures = {metric.key: _spread([value.get(metric.key) for value in values]) for metric in METRICS} if values else {}
    count = [states[cell][0] for cell in cells].count
    return Row(
        cells[0],
        tuple(result.cell.seed for result in found),
        count("failed"),
        count("pending") + count("running"),
        count("running"),
        figures,
        _mean_of([result.free_running.median for result in found if result.free_running is not None]),
        _mean_of([result.teacher_forced.median for result in found if result.teacher_forced is not None]),
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread.of(known) if len(known) == len(values) else None


def _mean_of(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(step) / len(curves) for step in zip(*curves, strict=True))


def verdicts_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Who has the lowest Frechet distance and the highest PSNR, and whether another method's seeds reach there."""
    lines = []
    for key, title in (("frechet", "lowest Frechet to FP32"), ("psnr_median", "highest median PSNR")):
        metric = next(metric for metric in METRICS if metric.key == key)
        spreads = {row.cell.method: spread for row in rows if (spread := row.figures.get(key)) is not None}
        if not spreads:
            continue
        sign = 1 if metric.best == "low" else -1
        best = min(spreads, key=lambda method: sign * spreads[method].mean)
        others = [method for method, spread in spreads.items() if method != best and spread.overlaps(spreads[best])]
        figure = f"{title}: {best}, {format(spreads[best].mean, metric.form)}"
        lines.append(f"{figure} ({_reach(rows, spreads, best, others)})")
    return tuple(lines)


def _reach(rows: Sequence[Row], spreads: Mapping[str, Spread], best: str, others: Sequence[str]) -> str:
    if len(spreads) == 1:
        return "no other method to compare with"
    if any(len(row.seeds) < 2 for row in rows if row.cell.method in spreads):
        reach = f"; {', '.join(others)} may be as good" if others else ""
        return f"one calibration seed for some methods, their spreads are unknown{reach}"
    if others:
        return f"its seeds' spread overlaps with {', '.join(others)}"
    return "its seeds' spread overlaps with no other method's"
