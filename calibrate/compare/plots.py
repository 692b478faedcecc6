"""The plots of a comparison: what calibration time buys, and where along the sampler errors arise.

SVG without date and with fixed ids: equal results give equal files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from dq_toolchain.calibrate.compare.results import Comparison
from dq_toolchain.calibrate.compare.rows import METRICS, Row

SHORTEST = 1e-2
"""Seconds; the time axis is logarithmic."""
WIDE = 20
"""Largest over smallest Frechet distance from which their axis is logarithmic."""
MARKERS = "osD^v<>PX*hp"


def plot(comparison: Comparison, setting: str, methods: Sequence[str]) -> bytes:
    """One figure as SVG: PSNR and Frechet distance over calibration time, both errors per step.

    Args:
        methods: all of the comparison, so that a method looks the same in every figure.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # takes a second; only the page needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    (quality, distance), (forced, free) = figure.subplots(2, 2)
    rows = [row for row in comparison.rows_of(setting) if row.seeds]
    over_time(quality, rows, "psnr_median", methods, None)
    over_time(distance, rows, "frechet", methods, comparison)
    per_step(forced, rows, "teacher_forced", methods, "Teacher-forced: fed the FP32 latents", "network output")
    per_step(free, rows, "free_running", methods, "Free-running: own rollout", "latents")
    handles, labels = free.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(setting)
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dq-toolchain", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def over_time(axes: Any, rows: Sequence[Row], key: str, methods: Sequence[str], judged: Comparison | None) -> None:
    """A figure against calibration seconds: the mean of the calibration seeds, their range as bars."""
    metric = next(metric for metric in METRICS if metric.key == key)
    title = metric.title
    if judged is not None:
        title = f"{title}\n{judged.extractor or 'not available'}"
    axes.set(xlabel="calibration (s)", ylabel=title, xscale="log")
    axes.grid(alpha=0.25)
    if judged is not None and judged.extractor is None:
        axes.text(0.5, 0.5, "no feature extractor", ha="center", va="center", transform=axes.transAxes)
        return
    times, values = [], []
    for row in rows:
        value, seconds = row.figures.get(key), row.figures.get("calibration_seconds")
        if value is None or seconds is None:
            continue
        x = [max(SHORTEST, second) for second in (seconds.mean, seconds.low, seconds.high)]
        axes.errorbar(
            [x[0]], [value.mean], xerr=[[x[0] - x[1]], [x[2] - x[0]]],
            yerr=[[value.mean - value.low], [value.high - value.mean]], capsize=2, **_style(row, methods),
        )  # fmt: skip
        times += x
        values += [value.low, value.high]
    if times:
        axes.set_xlim(*_log_limits(times))
    if judged is not None and values and max(values) > WIDE * min(values) > 0:
        axes.set(yscale="log", ylim=_log_limits(values))


def _log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis; matplotlib's own fail for a single value."""
    low, high = min(values), max(values)
    room = max(1.2, (high / low) ** 0.05)
    return low / room, high * room


def per_step(axes: Any, rows: Sequence[Row], curve: str, methods: Sequence[str], title: str, of: str) -> None:
    """Median error over the held-out seeds after every network call, a line per method."""
    from matplotlib.ticker import MaxNLocator

    for row in rows:
        values = getattr(row, curve)
        axes.plot(range(len(values)), values, linewidth=1, **_style(row, methods))
    positive = [value for row in rows for value in getattr(row, curve) if value > 0]
    if positive:
        axes.set(yscale="log", ylim=_log_limits(positive))
    axes.set(xlabel="step", ylabel=f"relative error of the {of}, median", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)


def _style(row: Row, methods: Sequence[str]) -> dict[str, Any]:
    import matplotlib

    place = methods.index(row.cell.method)
    colors = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    first_dark = [*colors[::2], *colors[1::2]]
    return {"color": first_dark[place % 20], "marker": MARKERS[place % len(MARKERS)], "markersize": 4,
            "label": row.cell.method}  # fmt: skip
