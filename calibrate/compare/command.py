"""What `dq-toolchain compare` does: plan, work, and the results of what is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dq_toolchain.calibrate.compare.floor import frechet_floor
from dq_toolchain.calibrate.compare.grid import Cell, parse_place
from dq_toolchain.calibrate.compare.locks import alone
from dq_toolchain.calibrate.compare.page import write_page
from dq_toolchain.calibrate.compare.plan import Grid, Request, plan
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import Comparison, collect, write_results
from dq_toolchain.calibrate.compare.run import grid_result, run


def compare(request: Request, reporter: GridReporter, on: str = "here") -> Comparison:
    """Work on the grid until no cell is left for this process, then write ``<out>/compare/compare.{json,csv,html}``.

    Args:
        on: "here": cells are done by this process; "ray": by the machines of a Ray cluster, which share the output folder.
    Raises:
        ToolchainError: the request is refused, before any work, or a folder cannot be written.
    """
    if parse_place(on) == "ray":
        return _on_ray(request, reporter)
    grid = plan(request)
    run(grid, reporter)
    with alone(grid.folder / ".results"):  # of two processes the last to write knows all
        return _written(grid, lambda cell: frechet_floor(grid, cell, reporter))


def _on_ray(request: Request, reporter: GridReporter) -> Comparison:
    from dq_toolchain.calibrate.compare.driver import run_elsewhere
    from dq_toolchain.calibrate.compare.on_ray import joined

    with joined(reporter) as cluster:
        grid = plan(replace(request, gpus=cluster.gpus))
        floors = run_elsewhere(grid, reporter, cluster)
    return _written(grid, lambda cell: floors.get(cell.steps))


def _written(grid: Grid, floor_of: Callable[[Cell], float | None]) -> Comparison:
    comparison = collect(grid, grid_result(grid), floor_of)
    write_results(comparison)
    write_page(comparison)
    return comparison
