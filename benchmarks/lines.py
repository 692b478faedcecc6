"""A line plot of a study: a figure against what was varied, the mean of the calibration seeds and their range."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Mapping[float, Sequence[float]]
"""x -> the values of the seeds."""


def save_lines(path: Path, lines: Mapping[str, Points], xlabel: str, ylabel: str, title: str) -> None:
    """Write the plot, with a logarithmic x axis, in the format that the file's ending names."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(6.5, 3.8), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        xs = sorted(points)
        means = [statistics.mean(points[x]) for x in xs]
        axes.plot(xs, means, marker="osD^v<>P"[number % 8], label=name)
        axes.fill_between(xs, [min(points[x]) for x in xs], [max(points[x]) for x in xs], alpha=0.15)
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
