"""A verdict on the console: one line each for fidelity and conformance, the table of steps, what failed and why."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dq_toolchain.toolchain.checks import Check, Outcome, outcome_of, overall, readable
from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.parts.chain import Chain
from dq_toolchain.toolchain.render.chain import heads, rows, source
from dq_toolchain.toolchain.verdict.result import StepFigures, Verdict, WorstSeed, median_ms


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print the verdict; failed checks are listed with their step and figures."""
    data = verdict.report.data
    console.print(
        f"[bold]{plain(data['target'])}[/] on {plain(data['device'])}, {plain(data['runtime']['name'])} "
        f"{plain(data['runtime']['version'])}, {plain(data['compute_unit'])}: "
        f"{verdict.reference.seeds} seeds, {verdict.reference.calls} steps, "
        f"{f'of the samplers of the bundle {verdict.sampler}, ' if verdict.sampler else ''}"
        f"{time_per_step(verdict)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"judged by the bundle {plain(verdict.match.describe())}", highlight=False, soft_wrap=True)
    console.print(_table(verdict))
    for title, question, name in PARTS:
        part: tuple[Check, ...] = getattr(verdict, name)
        step = verdict.first_step_of(part)
        where = "" if step is None else f", first step outside its limits: {step}"
        console.print(f"{mark(overall(part))} [bold]{title}[/] ({question}){where}", highlight=False)
        for check in part:
            if not check.passed or title != "claims":
                console.print(
                    f"    {mark(check.outcome)} {plain(check.name.split('.')[1])}: {plain(check.detail)}",
                    highlight=False,
                    soft_wrap=True,
                )
    console.print(f"worst seeds: {plain('; '.join(map(worst_text, verdict.worst)))}", highlight=False, soft_wrap=True)
    if verdict.chain is not None:
        show_chain(console, verdict.chain)
    for note in verdict.notes:
        console.print(f"[yellow]note:[/] {plain(note)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]verdict: {mark(verdict.outcome)}[/]{_further(verdict)}", highlight=False, soft_wrap=True)


def show_comparison(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print several verdicts, a row each."""
    from dq_toolchain.toolchain.verdict.comparison import note_of, row_of

    def text(value: float | None, form: str) -> str:
        return "n/a" if value is None else format(value, form)

    devices = [row_of(verdict) for verdict in verdicts]
    table = Table(
        "report",
        "target",
        "device",
        "fidelity",
        "conformance",
        "first bad step",
        "PSNR",
        "worst",
        "simulation's",
        "error vs FP32",
        "output error ratio",
        "ms",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for row in devices:
        milliseconds = "emulated" if row.emulated else text(row.step_ms, ".1f")
        table.add_row(
            plain(row.report),
            plain(row.target),
            plain(row.device),
            mark(row.fidelity_verdict),
            mark(row.conformance_verdict),
            "" if row.first_step is None else str(row.first_step),
            text(row.psnr, ".1f"),
            text(row.worst_psnr, ".1f"),
            text(row.simulation_psnr, ".1f"),
            text(row.error, ".4f"),
            text(row.ratio, ".3f"),
            milliseconds,
        )
    console.print(table)
    for row, verdict in zip(devices, verdicts, strict=True):
        console.print(
            f"{plain(row.report)}: {mark(verdict.outcome)}{_further(verdict)}; judged by the bundle "
            f"{plain(verdict.match.describe())}",
            highlight=False,
            soft_wrap=True,
        )
        for note in verdict.notes:
            console.print(f"    [yellow]note:[/] {plain(note)}", highlight=False, soft_wrap=True)
        if verdict.chain is not None and verdict.chain.clip is not None:
            show_chain(console, verdict.chain)
    note_of_all = note_of(devices)
    if note_of_all is not None:
        console.print(f"[yellow]note:[/] {plain(note_of_all)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]verdict: {mark(outcome_of([verdict.outcome for verdict in verdicts]))}[/]", highlight=False)


def show_chain(console: Console, chain: Chain) -> None:
    """Print the scores of the pictures, a row for each part more of the device."""
    table = Table(*heads(chain), box=None, pad_edge=False, header_style="bold")
    for row in rows(chain):
        table.add_row(*map(plain, row))
    console.print(table)
    console.print(plain(source(chain)), highlight=False, soft_wrap=True)


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print checks, a line each."""
    for check in checks:
        console.print(
            f"{mark(check.outcome)} {plain(check.name.split('.')[1])}: {plain(check.detail)}",
            highlight=False,
            soft_wrap=True,
        )


def plain(text: object) -> str:
    """Foreign text for ``console.print``: no markup, no escapes."""
    return escape(printable(text))


def worst_text(worst: WorstSeed) -> str:
    """One of the worst seeds in words."""
    device = "not finite" if worst.psnr is None else f"{worst.psnr:.1f} dB"
    return f"seed {worst.seed} {device} (simulation {worst.simulation_psnr:.1f})"


def _further(verdict: Verdict) -> str:
    remedy = verdict.remedy()
    return "" if remedy is None else f", {plain(remedy)}"


PARTS = (
    ("fidelity", "device against FP32: is the picture right?", "fidelity"),
    ("conformance", "device against simulation: does the runtime compute what was calibrated?", "conformance"),
    ("claims", "do the report's figures follow from its latents?", "claims"),
)


def time_per_step(verdict: Verdict) -> str:
    """The same in words."""
    milliseconds = median_ms(verdict)
    if milliseconds is None:
        return "emulated, no timing" if verdict.report.data.get("emulated") else "time not measured"
    return f"{milliseconds:.1f} ms per step"


MARKS: dict[Outcome, str] = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "not decided": "[yellow]not decided[/]"}


def mark(outcome: Outcome) -> str:
    """The outcome as a word in its colour."""
    return MARKS[outcome]


def _table(verdict: Verdict) -> Table:
    table = Table(
        "step",
        "step group",
        "error vs FP32",
        "limit",
        "simulation's",
        "output error ratio",
        "interval",
        "bias",
        "difference",
        "ms",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in table.columns:
        column.justify = "right"
    for row in verdict.steps:
        table.add_row(*_cells(row), style="red" if row.step == verdict.first_step else None)
    return table


def _cells(row: StepFigures) -> list[str]:
    def text(value: float | None, form: str) -> str:
        return "n/a" if value is None else readable(value, form)

    interval = f"{text(row.ratio_low, '.2f')}-{text(row.ratio_high, '.2f')}"
    return [
        str(row.step),
        str(row.step_group),
        text(row.error_fp32, ".4f"),
        text(row.error_limit, ".4f"),
        text(row.simulation_error, ".4f"),
        text(row.ratio, ".3f"),
        interval,
        text(row.bias, "+.3f"),
        text(row.difference, ".3f"),
        text(row.step_ms, ".1f"),
    ]
