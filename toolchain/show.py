"""A verdict on the console: one line each for fidelity and conformance, the table of steps, what failed and why."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dq_toolchain.toolchain.checks import Check, readable
from dq_toolchain.toolchain.verdict import StepFigures, Verdict


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print the verdict; failed checks are listed with their step and figures."""
    data = verdict.report.data
    console.print(f"[bold]{escape(data['target'])}[/] on {escape(data['device'])}, {escape(data['runtime']['name'])} "
                  f"{escape(data['runtime']['version'])}, {escape(data['compute_unit'])}: "
                  f"{verdict.reference.seeds} seeds, {verdict.reference.calls} steps, "
                  f"{time_per_step(verdict)}", highlight=False)
    console.print(_table(verdict))
    for title, question, checks in PARTS:
        part: tuple[Check, ...] = getattr(verdict, checks)
        good = all(check.passed for check in part)
        step = verdict.first_step_of(part)
        where = "" if step is None else f", first step outside its limits: {step}"
        console.print(f"{_mark(good)} [bold]{title}[/] ({question}){where}", highlight=False)
        for check in part:
            if not check.passed or title != "claims":
                console.print(f"    {_mark(check.passed)} {check.name.split('.')[1]}: {escape(check.detail)}",
                              highlight=False, soft_wrap=True)
    console.print(f"[bold]verdict: {_mark(verdict.passed)}[/]", highlight=False)


def show_comparison(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print several verdicts, a row each."""
    from dq_toolchain.toolchain.comparison import note_of, row_of

    def text(value: float | None, form: str) -> str:
        return "n/a" if value is None else format(value, form)

    rows = [row_of(verdict) for verdict in verdicts]
    table = Table("report", "target", "device", "fidelity", "conformance", "first bad step", "PSNR", "simulation's",
                  "error vs FP32", "output error ratio", "ms", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        milliseconds = "emulated" if row.emulated else text(row.step_ms, ".1f")
        table.add_row(escape(row.report), row.target, escape(row.device), _mark(row.fidelity), _mark(row.conformance),
                      "" if row.first_step is None else str(row.first_step), text(row.psnr, ".1f"),
                      text(row.simulation_psnr, ".1f"), text(row.error, ".4f"), text(row.ratio, ".3f"), milliseconds)
    console.print(table)
    note = note_of(rows)
    if note is not None:
        console.print(f"[yellow]note:[/] {note}", highlight=False)
    console.print(f"[bold]verdict: {_mark(all(row.passed for row in rows))}[/]", highlight=False)


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print checks, a line each."""
    for check in checks:
        console.print(f"{_mark(check.passed)} {check.name.split('.')[1]}: {escape(check.detail)}", highlight=False, soft_wrap=True)


PARTS = (
    ("fidelity", "device against FP32: is the picture right?", "fidelity"),
    ("conformance", "device against simulation: does the runtime compute what was calibrated?", "conformance"),
    ("claims", "do the report's figures follow from its latents?", "claims"),
)


def median_ms(verdict: Verdict) -> float | None:
    """Median time per network call in ms, as reported; None if it was not measured."""
    times = sorted(time for time in verdict.report.data["step_ms"] if time is not None)
    return float(times[len(times) // 2]) if times else None


def time_per_step(verdict: Verdict) -> str:
    """The same in words."""
    milliseconds = median_ms(verdict)
    if milliseconds is None:
        return "emulated, no timing" if verdict.report.data.get("emulated") else "time not measured"
    return f"{milliseconds:.1f} ms per step"


def _mark(good: bool) -> str:
    return "[green]pass[/]" if good else "[red]FAIL[/]"


def _table(verdict: Verdict) -> Table:
    table = Table("step", "step group", "error vs FP32", "limit", "simulation's", "output error ratio", "interval",
                  "bias", "difference", "ms", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for row in verdict.steps:
        table.add_row(*_cells(row), style="red" if row.step == verdict.first_step else None)
    return table


def _cells(row: StepFigures) -> list[str]:
    def text(value: float | None, form: str) -> str:
        return "n/a" if value is None else readable(value, form)

    interval = f"{text(row.ratio_low, '.2f')}-{text(row.ratio_high, '.2f')}"
    return [str(row.step), str(row.step_group), text(row.error_fp32, ".4f"), text(row.error_limit, ".4f"),
            text(row.simulation_error, ".4f"), text(row.ratio, ".3f"), interval, text(row.bias, "+.3f"),
            text(row.difference, ".3f"), text(row.step_ms, ".1f")]
