"""The outcome: spreads, verdicts, and the same figures in JSON, CSV, table and page."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from dq_toolchain.calibrate.compare.page import render, spread_text, write_page
from dq_toolchain.calibrate.compare.results import CSV, JSON, Comparison, to_csv, write_results
from dq_toolchain.calibrate.compare.rows import METRICS, Row, Spread, verdicts_of
from dq_toolchain.calibrate.compare.show import show_comparison

METHODS = ("minmax", "mse", "accuquant+tac")


def with_figures(comparison: Comparison, **values: tuple[Spread, ...]) -> list[Row]:
    """The complete rows of the first setting with other figures."""
    rows = [row for row in comparison.rows_of(comparison.settings[0]) if row.seeds]
    return [replace(row, figures={key: spreads[i] for key, spreads in values.items()}) for i, row in enumerate(rows)]


def test_rows_are_in_the_order_asked_for(finished: Comparison) -> None:
    assert finished.settings == ("ddim3-w8a8", "ddim3-w4a8")
    for setting in finished.settings:
        assert [row.cell.method for row in finished.rows_of(setting)] == ["minmax", "mse", "accuquant+tac"]


def test_a_spread_is_the_mean_and_the_range(finished: Comparison) -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([0.1] * 3) == Spread(0.1, 0.1, 0.1)
    row = finished.rows[0]
    assert row.seeds == (0, 1)
    assert row.figures["calibration_seconds"] == Spread(2.5, 2.0, 3.0)
    folder = finished.folder / "cells"
    cells = [json.loads((folder / f"ddim3-w8a8-minmax-s{seed}" / "cell.json").read_text()) for seed in (0, 1)]
    assert row.figures["psnr_median"] == Spread.of([cell["figures"]["psnr_median"] for cell in cells])
    medians = [cell["free_running"]["median"] for cell in cells]
    assert row.free_running == pytest.approx([sum(step) / 2 for step in zip(*medians, strict=True)])
    assert len(row.teacher_forced) == 3


def test_json_and_csv_agree(finished: Comparison) -> None:
    write_results(finished)
    data = json.loads((finished.folder / JSON).read_text())
    lines = list(csv.DictReader(io.StringIO((finished.folder / CSV).read_text())))
    assert len(lines) == len(data["rows"]) == 6
    for line, row in zip(lines, data["rows"], strict=True):
        for name in ("setting", "sampler", "method"):
            assert line[name] == row[name]
        for name in ("steps", "weight_bits", "activation_bits", "failed", "pending"):
            assert int(line[name]) == row[name]
        assert line["seeds"] == " ".join(map(str, row["seeds"]))
        for metric in METRICS:
            spread = row["figures"].get(metric.key)
            for part in ("mean", "low", "high"):
                text = line[f"{metric.key}_{part}"]
                assert (text == "") if spread is None else (float(text) == spread[part])
    assert to_csv(finished) == (finished.folder / CSV).read_text()
    assert {cell["state"] for cell in data["cells"]} == {"complete", "failed"}


def test_the_verdict_names_the_best_and_says_whether_spreads_overlap(finished: Comparison) -> None:
    apart, near = (Spread(30.0, 29.0, 31.0), Spread(20.0, 19.0, 21.0)), (Spread(2.0, 1.0, 3.0), Spread(1.5, 1.4, 1.6))
    frechet, psnr = verdicts_of(with_figures(finished, psnr_median=apart, frechet=near))
    assert psnr == "highest median PSNR: minmax, 30.00 (its seeds' spread overlaps with no other method's)"
    assert frechet == "lowest Frechet to FP32: mse, 1.5 (its seeds' spread overlaps with minmax)"
    rows = with_figures(finished, psnr_median=apart)
    (alone,) = verdicts_of(rows[:1])
    assert "no other method" in alone
    (one,) = verdicts_of([replace(row, seeds=(0,)) for row in rows])
    assert "their spreads are unknown)" in one
    assert verdicts_of([]) == ()


def test_the_page_holds_every_method_and_nothing_from_outside(finished: Comparison) -> None:
    text = write_page(finished).read_text()
    assert text == render(finished)
    for name in (*METHODS, *finished.settings, *finished.with_state("failed")):
        assert name in text
    assert not re.search(r"https?:|<script|<link|@import|url\(|href=", text)
    sources = re.findall(r'src="([^"]{,30})', text)
    assert len(sources) == 2 * (1 + 3)  # per setting: plots, and pictures of FP32 and the two methods that did not fail
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert "not available: Inception features need" in text


def test_an_extractor_is_named_wherever_its_figures_are(finished: Comparison) -> None:
    figures = {"frechet": Spread(1.0, 1.0, 1.0), "agreement": Spread(0.5, 0.5, 0.5)}
    rows = tuple(replace(row, figures={**row.figures, **figures}) if row.seeds else row for row in finished.rows)
    judged = replace(finished, extractor="quarters & halves", extractor_reason=None, rows=rows)
    text = render(judged)
    assert text.count("Frechet to FP32 (quarters &amp; halves)") == len(judged.settings)
    assert "not available" not in text
    assert to_csv(judged).count("quarters & halves") == len(judged.rows)


def test_the_console_shows_rows_failures_and_why_columns_are_missing(finished: Comparison) -> None:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    show_comparison(console, finished)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text.count(f"\n{method} ") == 2 for method in METHODS)
    assert text.count("0, 2 failed") == 2
    assert text.count("not available: Inception") == 1
    assert "failed ddim3-w8a8-accuquant+tac-s0: method accuquant+tac does not like this sampler" in text


def test_an_empty_comparison_can_be_shown(finished: Comparison) -> None:
    rows = tuple(
        replace(row, seeds=(), figures={}, free_running=(), teacher_forced=(), pending=2) for row in finished.rows
    )
    states = dict.fromkeys(finished.states, ("pending", None))
    empty = replace(
        finished, rows=rows, states=states, verdicts=dict.fromkeys(finished.settings, ()), extractor_reason=None
    )
    assert "no cell is complete" in render(empty)
    show_comparison(Console(file=io.StringIO()), empty)
    assert to_csv(empty).count(",2,") >= len(rows)


def test_spreads_are_readable() -> None:
    assert spread_text(Spread(2.0, 1.0, 3.0), ".1f") == "2.0 (1.0–3.0)"
    assert spread_text(Spread(2.0, 2.0, 2.0), ".1f") == "2.0"
    assert spread_text(None, ".1f") == "n/a"
