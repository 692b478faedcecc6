"""A comparison on the console: a table per setting, verdicts, and the cells that are missing and why."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dq_toolchain.calibrate.compare.page import spread_text
from dq_toolchain.calibrate.compare.results import CSV, JSON, PAGE, Comparison
from dq_toolchain.calibrate.compare.rows import METRICS

COLUMNS = (
    "psnr_median",
    "psnr_p10",
    "psnr_pooled",
    "ssim_mean",
    "frechet",
    "agreement",
    "error_final",
    "calibration_seconds",
)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print everything that is known."""
    metrics = [metric for key in COLUMNS for metric in METRICS if metric.key == key]
    if comparison.extractor is None:
        metrics = [metric for metric in metrics if not metric.judged]
    for setting in comparison.settings:
        judge = "" if comparison.extractor is None else f"; Frechet and classes by {escape(comparison.extractor)}"
        table = Table("method", "seeds", *(metric.title for metric in metrics), box=None, pad_edge=False,
                      header_style="bold", title_justify="left", title=f"{setting}, integer simulation against FP32, "
                      f"{comparison.held_out} held-out seeds{judge}")  # fmt: skip
        for row in comparison.rows_of(setting):
            figures = [spread_text(row.figures.get(metric.key), metric.form) for metric in metrics]
            missing = [f"{count} {word}" for count, word in ((row.failed, "failed"), (row.pending, "pending")) if count]
            table.add_row(escape(row.cell.method), ", ".join([str(len(row.seeds)), *missing]), *figures)
        console.print(table)
        if setting in comparison.floors:
            console.print(
                f"[bold]{setting}[/] FP32 with other seeds has a Frechet distance of {comparison.floors[setting]:.4g}"
            )
        for verdict in comparison.verdicts[setting]:
            console.print(f"[bold]{setting}[/] {escape(verdict)}", soft_wrap=True)
    _show_missing(console, comparison)
    if comparison.extractor is None and comparison.with_state("complete"):
        console.print(
            f"Frechet and class agreement: not available: {escape(comparison.extractor_reason or '')}", soft_wrap=True
        )
    files = ", ".join(str(comparison.folder / name) for name in (PAGE, CSV, JSON))
    console.print(f"results: {escape(files)}", soft_wrap=True)


def _show_missing(console: Console, comparison: Comparison) -> None:
    for name, reason in comparison.with_state("failed").items():
        console.print(f"[red]failed[/] {escape(name)}: {escape(reason or '')}", soft_wrap=True)
    for state, words in (("running", "pending, another process is at it"), ("pending", "pending")):
        cells = comparison.with_state(state)
        if cells:
            console.print(f"[yellow]{words}[/]: {escape(', '.join(cells))}", soft_wrap=True)
