"""The outcome of a comparison: what is complete, failed or pending, gathered into rows; JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.calibrate.compare.cells import CellResult
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.locks import held
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.rows import METRICS, Row, State, row_of, verdicts_of
from dq_toolchain.toolchain.disk.files import write_bytes, write_json

SCHEMA, VERSION = "dq-toolchain/compare", 1
JSON, CSV, PAGE = "compare.json", "compare.csv", "compare.html"


@dataclass(frozen=True)
class Comparison:
    """Everything that is printed. ``extractor_reason`` says why there is no extractor.

    ``floors``: by setting, the Frechet distance of FP32's samples of other seeds. ``pictures_reason``: why latents are shown.
    """

    folder: Path
    model: str
    held_out: int
    extractor: str | None
    extractor_reason: str | None
    rows: tuple[Row, ...]
    states: Mapping[str, State]
    verdicts: Mapping[str, tuple[str, ...]]
    floors: Mapping[str, float]
    pictures_reason: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Steps and bits that methods are compared within, in order."""
        return tuple(dict.fromkeys(row.cell.setting for row in self.rows))

    def rows_of(self, setting: str) -> list[Row]:
        return [row for row in self.rows if row.cell.setting == setting]

    def with_state(self, state: str) -> dict[str, str | None]:
        """Cells that are "complete", "failed", "pending" or "running", with the reason of a failure."""
        return {name: reason for name, (found, reason) in self.states.items() if found == state}

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "schema_version": VERSION, "model": self.model, "held_out_seeds": self.held_out,
            "extractor": self.extractor, "extractor_reason": self.extractor_reason,
            "frechet_of_other_seeds": dict(self.floors), "pictures_reason": self.pictures_reason,
            "rows": [row.to_json() for row in self.rows], "verdicts": {k: list(v) for k, v in self.verdicts.items()},
            "cells": [{"name": n, "state": s, "reason": r} for n, (s, r) in self.states.items()],
        }  # fmt: skip


def collect(
    grid: Grid,
    result_of: Callable[[Cell], CellResult | None],
    floor_of: Callable[[Cell], float | None] = lambda _cell: None,
) -> Comparison:
    """The outcome so far: what is complete, failed, running elsewhere or not begun."""
    results = {cell: result_of(cell) for cell in grid.cells}
    states = {cell: _state(result, held(grid.lock(cell))) for cell, result in results.items()}
    cells_of: dict[tuple[str, str], list[Cell]] = {}
    for cell in grid.cells:
        cells_of.setdefault((cell.setting, cell.method), []).append(cell)
    order = list(dict.fromkeys(cell.setting for cell in grid.cells))
    groups = sorted(cells_of.values(), key=lambda cells: order.index(cells[0].setting))
    rows = tuple(row_of(cells, results, states) for cells in groups)
    complete = [result for result in results.values() if result is not None and result.complete]
    of_steps = {cell.steps: floor_of(cell) for cell in {r.cell.steps: r.cell for r in complete}.values()}
    floors = {cell.setting: floor for cell in grid.cells if (floor := of_steps.get(cell.steps)) is not None}
    return Comparison(
        grid.folder,
        grid.model_id,
        grid.held_out,
        next((result.extractor for result in complete), None),
        next((result.extractor_reason for result in complete), None),
        rows,
        {cell.name: states[cell] for cell in grid.cells},
        {setting: verdicts_of([row for row in rows if row.cell.setting == setting]) for setting in order},
        floors,
        next((result.pictures_reason for result in complete if result.pictures_reason), None),
    )


def _state(result: CellResult | None, running: bool) -> State:
    if result is not None and result.complete:
        return "complete", None
    if running:
        return "running", None
    return ("pending", None) if result is None else ("failed", result.reason)


def write_results(comparison: Comparison) -> None:
    """Write ``compare.json`` and ``compare.csv``. Raises ToolchainError."""
    write_json(comparison.folder / JSON, comparison.to_json())
    write_bytes(comparison.folder / CSV, to_csv(comparison).encode())


def to_csv(comparison: Comparison) -> str:
    """A line per row: mean, low and high of every figure, empty where unknown; floats in full."""
    names = ("setting", "sampler", "steps", "weight_bits", "activation_bits", "method", "failed", "pending")
    columns = [f"{metric.key}_{part}" for metric in METRICS for part in ("mean", "low", "high")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*names, "seeds", "extractor", *columns])
    for row in comparison.rows:
        data, spreads = row.to_json(), [row.figures.get(metric.key) for metric in METRICS]
        values = [
            v for s in spreads for v in (("", "", "") if s is None else (repr(s.mean), repr(s.low), repr(s.high)))
        ]
        seeds = " ".join(map(str, row.seeds))
        writer.writerow([*(data[name] for name in names), seeds, comparison.extractor or "", *values])
    return stream.getvalue()
