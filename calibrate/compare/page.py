"""The comparison as one self-contained HTML page: tables, verdicts, plots and pictures of the same seeds.

No script and no outside file, so that it can be mailed and opened years later.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image
from torch import Tensor

from dq_toolchain.calibrate.compare.cells import load_samples
from dq_toolchain.calibrate.compare.plots import plot
from dq_toolchain.calibrate.compare.results import PAGE, Comparison
from dq_toolchain.calibrate.compare.rows import METRICS, Spread
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.render.pictures import strip

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 560
"""Pixels that a strip of pictures is enlarged to, at least."""


def write_page(comparison: Comparison) -> Path:
    """Write ``compare.html``. Raises ToolchainError: it cannot be written."""
    path = comparison.folder / PAGE
    write_bytes(path, render(comparison).encode())
    return path


def render(comparison: Comparison) -> str:
    """The page as text; equal results give equal text."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    methods = list(dict.fromkeys(row.cell.method for row in comparison.rows))
    sections = [
        {
            "setting": setting,
            "rows": comparison.rows_of(setting),
            "verdicts": comparison.verdicts[setting],
            "plot": _data_uri(plot(comparison, setting, methods), "image/svg+xml"),
            "pictures": _pictures(comparison, setting),
        }
        for setting in comparison.settings
    ]
    return environment.get_template("compare.html.j2").render(
        comparison=comparison, sections=sections, metrics=METRICS, spread=spread_text
    )


def spread_text(spread: Spread | None, form: str) -> str:
    """``33.10 (32.90–33.30)``; the mean alone where the range is that, "n/a" where it is unknown."""
    if spread is None:
        return "n/a"
    mean, low, high = (format(value, form) for value in (spread.mean, spread.low, spread.high))
    return mean if low == high else f"{mean} ({low}–{high})"


def _pictures(comparison: Comparison, setting: str) -> list[dict[str, str]]:
    """FP32 and, for the same held-out seeds, every method with its first calibration seed."""
    rows: list[tuple[str, Tensor]] = []
    for row in comparison.rows_of(setting):
        if row.seeds:
            samples = load_samples(comparison.folder / "cells" / row.first_complete.name)
            rows = rows or [("FP32", samples["fp32_pictures"])]
            rows.append((f"{row.cell.method}, calibration seed {row.seeds[0]}", samples["pictures"]))
    return [{"title": title, "uri": _data_uri(_png(strip(images / 255)), "image/png")} for title, images in rows]


def _png(pixels: Any) -> bytes:
    picture, stream = Image.fromarray(pixels), io.BytesIO()
    factor = max(1, WIDTH // picture.width)
    picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
