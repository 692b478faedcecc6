"""What `dq-toolchain compare` does: plan, work, and the results of what is complete."""

from __future__ import annotations

from dq_toolchain.calibrate.compare.floor import frechet_floor
from dq_toolchain.calibrate.compare.locks import alone
from dq_toolchain.calibrate.compare.page import write_page
from dq_toolchain.calibrate.compare.plan import Request, plan
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.results import Comparison, collect, write_results
from dq_toolchain.calibrate.compare.run import grid_result, run


def compare(request: Request, reporter: GridReporter) -> Comparison:
    """Work on the grid until no cell is left for this process, then write ``<out>/compare/compare.{json,csv,html}``.

    Raises:
        ToolchainError: the request is refused, before any work, or a folder cannot be written.
    """
    grid = plan(request)
    run(grid, reporter)
    with alone(grid.folder / ".results"):  # of two processes the last to write knows all
        comparison = collect(grid, grid_result(grid), lambda cell: frechet_floor(grid, cell, reporter))
        write_results(comparison)
        write_page(comparison)
    return comparison
