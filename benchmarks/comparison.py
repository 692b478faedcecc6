"""The tables and pictures of docs/ from what `dq-toolchain compare` wrote.

    python -m benchmarks.comparison dq-out/compare                       # tables in Markdown
    python -m benchmarks.comparison dq-out/compare --setting ddim20-w4a8 --methods qdiffusion,accuquant --picture samples.png
    python -m benchmarks.comparison dq-out/compare --setting ddim20-w4a8 --curve errors.svg

The picture has FP32's samples above those of each method, the same noise; the curve the error that accumulates over the steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dq_toolchain.calibrate.compare.cells import load_samples
from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.page import spread_text
from dq_toolchain.calibrate.compare.plots import per_step
from dq_toolchain.calibrate.compare.results import JSON, SCHEMA, VERSION
from dq_toolchain.calibrate.compare.rows import METRICS, Row, Spread
from dq_toolchain.toolchain.disk.files import read_json
from dq_toolchain.toolchain.render.pictures import strip

COLUMNS = {
    "psnr_median": "PSNR, median (dB)",
    "psnr_p10": "10th percentile",
    "frechet": "Fréchet to FP32",
    "agreement": "classes alike",
    "calibration_seconds": "seconds",
}
ZOOM, GAP, LABEL = 2, 3, 12
"""Enlargement; white pixels between strips; height of a strip's title."""


def rows_of(data: dict[str, Any], setting: str) -> list[Row]:
    """The complete rows of a setting, best median PSNR first."""
    rows = []
    for row in data["rows"]:
        if row["setting"] != setting or not row["seeds"]:
            continue
        names = ("sampler", "steps", "weight_bits", "activation_bits", "method")
        cell = Cell(**{name: row[name] for name in names}, seed=row["seeds"][0])
        figures = {key: None if value is None else Spread(**value) for key, value in row["figures"].items()}
        curves = (tuple(row["free_running"]), tuple(row["teacher_forced"]))
        rows.append(Row(cell, tuple(row["seeds"]), row["failed"], row["pending"], row["running"], figures, *curves))
    return sorted(rows, key=lambda row: -(row.figures["psnr_median"] or Spread(0, 0, 0)).mean)


def table(data: dict[str, Any], setting: str) -> str:
    """A Markdown table: the mean of the calibration seeds, their range in brackets."""
    forms = {metric.key: metric.form for metric in METRICS} | {"calibration_seconds": ".0f", "agreement": ".3f"}
    lines = ["| method | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows_of(data, setting):
        cells = [spread_text(row.figures.get(key), forms[key]) for key in COLUMNS]
        count = len(row.seeds)
        seeds = "" if count == most_seeds(data) else f" ({count} seed{'s' * (count > 1)})"
        lines.append(f"| `{row.cell.method}`{seeds} | " + " | ".join(cells) + " |")
    floor = data["frechet_of_other_seeds"].get(setting)
    remarks = [] if floor is None else [f"FP32 with other seeds has a Fréchet distance of {floor:.4g}."]
    remarks += [f"{line[0].upper()}{line[1:]}." for line in data["verdicts"][setting]]
    return "\n".join(lines) + "\n\n" + "\n".join(remarks)


def most_seeds(data: dict[str, Any]) -> int:
    return max(len(row["seeds"]) for row in data["rows"])


def picture(folder: Path, rows: list[Row]) -> Image.Image:
    """Samples of FP32, then of each row's first calibration seed, each strip under its title."""
    samples = [load_samples(folder / "cells" / row.first_complete.name) for row in rows]
    titled = [("FP32", samples[0]["fp32_pictures"])]
    titled += [(row.cell.method, found["pictures"]) for row, found in zip(rows, samples, strict=True)]
    strips = [np.asarray(strip(images / 255)) for _, images in titled]
    height, width = strips[0].shape[:2]
    step = LABEL + height * ZOOM + GAP
    sheet = Image.new("RGB", (width * ZOOM, step * len(strips)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, ((title, _), pixels) in enumerate(zip(titled, strips, strict=True)):
        draw.text((0, number * step), title, fill="black")
        big = Image.fromarray(pixels).resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)
        sheet.paste(big, (0, number * step + LABEL))
    return sheet


def curve(rows: list[Row], title: str, path: Path) -> None:
    """Free-running and teacher-forced error per step, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained", facecolor="white")
    forced, free = figure.subplots(1, 2, sharey=True)
    methods = [row.cell.method for row in rows]
    per_step(forced, rows, "teacher_forced", methods, "fed the FP32 latents", "network output")
    per_step(free, rows, "free_running", methods, "own rollout", "latents")
    figure.legend(*free.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def main(args: argparse.Namespace) -> None:
    data = read_json(args.folder / JSON, SCHEMA, VERSION, "run `dq-toolchain compare` again")
    settings = [args.setting] if args.setting else list(data["verdicts"])
    if not args.picture and not args.curve:
        for setting in settings:
            print(f"### {setting}\n\n{table(data, setting)}\n")
    wanted = args.methods.split(",") if args.methods else None
    rows = [row for row in rows_of(data, settings[0]) if wanted is None or row.cell.method in wanted]
    if args.picture:
        picture(args.folder, rows).save(args.picture)
    if args.curve:
        curve(rows, settings[0], args.curve)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what compare wrote, such as dq-out/compare")
    parser.add_argument("--setting", help="such as ddim20-w4a8; default: all, for pictures the first")
    parser.add_argument("--methods", help="in pictures; default: all")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", type=Path)
    main(parser.parse_args())
