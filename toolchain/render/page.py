"""The verdict as one self-contained HTML page: pictures, error per step, sites, operations, sizes and times.

No script and no outside file, so that it can be mailed and opened years later.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS, Check, outcome_of, overall, readable
from dq_toolchain.toolchain.console.printable import printable
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.metrics import to_unit
from dq_toolchain.toolchain.models.decoder import Decode
from dq_toolchain.toolchain.parts.chain import Chain
from dq_toolchain.toolchain.render.chain import heads, rows, source
from dq_toolchain.toolchain.render.pictures import data_uri, png, strip
from dq_toolchain.toolchain.render.show import PARTS, worst_text
from dq_toolchain.toolchain.verdict.comparison import note_of, row_of
from dq_toolchain.toolchain.verdict.result import Verdict, median_ms

TEMPLATES = Path(__file__).parent / "templates"
MOST_SAMPLES, MOST_DECODED = 16, 4
GAIN = 8
"""The difference picture shows device - FP32 this many times larger, grey = equal."""


def write_page(path: Path, verdicts: Sequence[Verdict], decode: Decode | None = None) -> None:
    """Write the page of one report, or of several side by side.

    Args:
        decode: latents to pictures; None shows the latents.
    Raises:
        ToolchainError: it cannot be written, or the latents are not what ``decode`` takes.
    """
    if path.is_dir():
        raise ToolchainError(f"cannot write {path}: it is a folder; --html takes a file name such as out.html")
    write_bytes(
        path, (render(verdicts[0], decode) if len(verdicts) == 1 else render_comparison(verdicts, decode)).encode()
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters["figure"] = _figure
    return environment


def _shown(value: Any) -> Any:
    """Text as a page may show it, whoever wrote it; what this module made itself is ``Markup``."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render_comparison(verdicts: Sequence[Verdict], decode: Decode | None = None) -> str:
    """The page of several reports as text."""
    rows = [row_of(verdict) for verdict in verdicts]
    reference = verdicts[0].reference
    shown = _Shown(reference.fp32_latents[-1], decode)
    pictures = [("FP32", shown.fp32)]
    pictures += [
        (f"{row.target}, {row.device}", shown.of(verdict.report.latents[-1]))
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.report.latents.shape[2:] == reference.start.shape[1:]
    ]
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            rows=rows,
            note=note_of(rows),
            plot=_comparison_plot(verdicts),
            outcome=outcome_of([row.verdict for row in rows]),
            judged=[
                {
                    "report": row.report,
                    "by": verdict.match.describe(),
                    "remedy": verdict.remedy(),
                    "notes": verdict.notes,
                }
                for row, verdict in zip(rows, verdicts, strict=True)
            ],
            pictures=[{"title": title, "uri": data_uri(png(strip(images)), "image/png")} for title, images in pictures],
        )
    )


def render(verdict: Verdict, decode: Decode | None = None) -> str:
    """The page as text; equal verdicts give equal text."""
    parts = []
    for title, question, name in PARTS:
        checks: tuple[Check, ...] = getattr(verdict, name)
        parts.append(
            {
                "title": title,
                "question": question,
                "checks": checks,
                "step": verdict.first_step_of(checks),
                "outcome": overall(checks),
            }
        )
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            verdict=verdict,
            data=verdict.report.data,
            bundle=verdict.bundle,
            parts=parts,
            pictures=_pictures(verdict, decode),
            worst=_worst(verdict, decode),
            chain=_chain(verdict.chain),
            scores=None
            if verdict.chain is None
            else {"heads": heads(verdict.chain), "rows": rows(verdict.chain), "source": source(verdict.chain)},
            sites=[_site(row) for row in verdict.bundle.sites],
            minimum=MINIMUM_SEEDS,
            plots=[_plot(verdict, which) for which in ("error", "ratio")],
            ms=median_ms(verdict),
            gain=GAIN,
            sizes=[(name, f"{_figure(_number(size, 1e6))} MB") for name, size in sorted(verdict.bundle.sizes.items())],
        )
    )


def _figure(value: float | None, form: str = ".3f") -> str:
    return "n/a" if value is None else readable(value, form) if form.endswith("f") else format(value, form)


def _number(value: Any, unit: float = 1.0) -> float | None:
    return value / unit if isinstance(value, int | float) and not isinstance(value, bool) else None


def _site(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of sites; what the bundle leaves out or holds in another form is "n/a"."""
    ranges = row.get("range")
    pairs = [
        pair if isinstance(pair, list | tuple) and len(pair) == 2 else (None, None)
        for pair in (ranges if isinstance(ranges, list | tuple) else ())
    ]
    return {name: str(row.get(name) or "") for name in ("site", "kind", "weight_bits", "activation_bits", "scheme")} | {
        "range": [f"{_figure(_number(low), '.3g')} to {_figure(_number(high), '.3g')}" for low, high in pairs]
        or ["n/a"]
    }


class _Shown:
    """The samples that a page shows, as pictures (S, C, H, W) in [0, 1]."""

    def __init__(self, fp32: Tensor, decode: Decode | None, count: int | None = None) -> None:
        self.count, self.decode = count or (MOST_SAMPLES if decode is None else MOST_DECODED), decode
        self.reference = self._picture(fp32)
        self.fp32 = to_unit(self.reference, self.reference)

    def of(self, latents: Tensor) -> Tensor:
        return to_unit(self._picture(latents), self.reference)

    def _picture(self, latents: Tensor) -> Tensor:
        finite = latents[: self.count].nan_to_num(0, 0, 0)
        return finite if self.decode is None else self.decode(finite)


def _pictures(verdict: Verdict, decode: Decode | None) -> list[dict[str, str]]:
    shown = _Shown(verdict.reference.fp32_latents[-1], decode)
    wanted, got = shown.fp32, shown.of(verdict.report.latents[-1])
    rows = [
        ("FP32", wanted),
        ("simulation", shown.of(verdict.reference.expected_latents[-1])),
        ("device", got),
        (f"device minus FP32, {GAIN} times", (0.5 + GAIN / 2 * (got - wanted)).clamp(0, 1)),
    ]
    return [{"title": title, "uri": data_uri(png(strip(images)), "image/png")} for title, images in rows]


def _chain(chain: Chain | None) -> list[dict[str, str]]:
    """FP32's pictures, and those of each stage with what they lost."""
    if chain is None:
        return []
    named = " | ".join(chain.prompts)
    rows = [(f"FP32: {named}" if named else "FP32", chain.fp32)]
    rows += [
        (f"{each.title}: {', '.join(f'{value:.1f}' for value in each.psnr)} dB", each.pictures) for each in chain.stages
    ]
    last = chain.stages[-1].pictures.float() - chain.fp32.float()
    rows.append((f"the last minus FP32, {GAIN} times", (127.5 + GAIN / 2 * last).clamp(0, 255)))
    return [
        {"title": title, "uri": data_uri(png(strip(pictures.float() / 255)), "image/png")} for title, pictures in rows
    ]


def _worst(verdict: Verdict, decode: Decode | None) -> list[dict[str, str]]:
    """FP32, device and simulation of the seeds with the lowest PSNR, side by side."""
    found = []
    for each in verdict.worst:
        one = slice(each.seed, each.seed + 1)
        shown = _Shown(verdict.reference.fp32_latents[-1][one], decode, 1)
        parts = [
            shown.fp32,
            shown.of(verdict.report.latents[-1][one]),
            shown.of(verdict.reference.expected_latents[-1][one]),
        ]
        found.append({"title": worst_text(each), "uri": data_uri(png(strip(torch.cat(parts))), "image/png")})
    return found


def _axes() -> Any:
    """The only axes of a new figure; light background in both themes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # takes a second; only the page needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    return figure.add_subplot()


def _svg(axes: Any) -> str:
    """The figure over its steps, as a data URI."""
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dq-toolchain", "svg.fonttype": "path"}):
        axes.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(stream.getvalue(), "image/svg+xml")


def _comparison_plot(verdicts: Sequence[Verdict]) -> str:
    axes = _axes()
    for verdict in verdicts:
        errors = [np.nan if row.error_fp32 is None else row.error_fp32 for row in verdict.steps]
        label = printable(f"{verdict.bundle.target}, {verdict.report.data['device']}", 60)
        axes.plot(range(len(errors)), errors, marker="o", markersize=3, label=label.replace("$", r"\$").lstrip("_"))
    axes.set(yscale="log", ylabel="relative error of the latents", title="Own rollouts against FP32")
    return _svg(axes)


def _plot(verdict: Verdict, which: str) -> str:
    axes = _axes()
    steps = [row.step for row in verdict.steps]

    def line(name: str, label: str, **style: Any) -> None:
        values = [np.nan if getattr(row, name) is None else getattr(row, name) for row in verdict.steps]
        axes.plot(steps, values, label=label, **style)

    if which == "error":
        line("error_limit", "limit", color="#b00020", linestyle="--")
        line("simulation_error", "simulation", color="#777777", marker="o", markersize=3)
        line("error_fp32", "device", color="#0b62a4", marker="o", markersize=3)
        axes.set(yscale="log", ylabel="relative error of the latents", title="Own rollout against FP32")
    else:
        limit = float(verdict.limits["conformance"]["ratio_step"])
        low, high = (
            [np.nan if (v := getattr(row, n)) is None else v for row in verdict.steps]
            for n in ("ratio_low", "ratio_high")
        )
        axes.axhspan(1 / limit, limit, color="#2e7d32", alpha=0.12, label="allowed")
        axes.fill_between(
            steps, np.clip(low, 0.25, 4), np.clip(high, 0.25, 4), color="#0b62a4", alpha=0.2, label="interval"
        )
        line("ratio", "device / simulation", color="#0b62a4", marker="o", markersize=3)
        axes.set(yscale="log", ylabel="size of the output's error", title="Fed the simulation's latents")
    return _svg(axes)
