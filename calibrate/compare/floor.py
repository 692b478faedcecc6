"""What a Frechet distance is worth: that between FP32's own samples of two sets of seeds.

A method far below it draws FP32's pictures; one near it draws others of the same kind, paired figures aside.
"""

from __future__ import annotations

import json

from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.held_out import held_out, other_samples
from dq_toolchain.calibrate.compare.plan import Grid
from dq_toolchain.calibrate.compare.sets import SetJudge, name_of
from dq_toolchain.toolchain.files import write_json
from dq_toolchain.toolchain.progress import Reporter


def frechet_floor(grid: Grid, cell: Cell, reporter: Reporter) -> float | None:
    """The distance at the cell's sampler, from its file or found now; None without a feature extractor.

    Raises:
        ToolchainError: the file cannot be written.
    """
    recipe = grid.recipes[cell]
    held = held_out(recipe, grid.held_out, grid.folder / "held_out", reporter)
    name, path = name_of(held.final[:1], grid.model), held.file.with_suffix(".floor.json")
    if name is None:
        return None
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["extractor"] == name:
            return float(saved["frechet"])
    found = SetJudge.of(held.final, grid.model).figures(other_samples(recipe, grid.held_out, reporter))["frechet"]
    write_json(path, {"extractor": name, "frechet": found})
    return found
