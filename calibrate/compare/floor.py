"""What a Frechet distance is worth: that between FP32's own samples of two sets of seeds.

A method far below it draws FP32's pictures; one near it draws others of the same kind, paired figures aside.
"""

from __future__ import annotations

from pathlib import Path

from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.held_out import held_out, other_samples
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.sets import SetJudge, name_of
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.disk.files import read_json, write_json
from dq_toolchain.toolchain.errors import ArtifactError

SCHEMA, VERSION = "dq-toolchain/compare-floor", 1


def frechet_floor(grid: Grid, cell: Cell, reporter: Reporter, *, locks: bool = True) -> float | None:
    """The distance at the cell's sampler, from its file or found now; None without a feature extractor.

    Args:
        locks: as in ``held_out``.
    Raises:
        ToolchainError: the file cannot be written.
    """
    recipe = grid.recipes[cell]
    held = held_out(recipe, grid.held_out, grid.folder / "held_out", reporter, locks=locks)
    name, path = name_of(held.final[:1], grid.model), held.file.with_suffix(".floor.json")
    if name is None:
        return None
    saved = _saved(path, name)
    if saved is not None:
        return saved
    found = SetJudge.of(held.final, grid.model).figures(other_samples(recipe, grid.held_out, reporter))["frechet"]
    write_json(path, {"schema": SCHEMA, "schema_version": VERSION, "extractor": name, "frechet": found})
    return found


def _saved(path: Path, extractor: str) -> float | None:
    """What the file holds; None if it is missing, damaged, or of another extractor."""
    try:
        saved = read_json(path, SCHEMA, VERSION, "")
        return float(saved["frechet"]) if saved["extractor"] == extractor else None
    except (ArtifactError, KeyError, TypeError, ValueError):
        return None
