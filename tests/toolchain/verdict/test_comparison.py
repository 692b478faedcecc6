"""Several reports side by side: one row each, judged by its own bundle, with a note where they hardly compare."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dq_toolchain.toolchain.checks import MINIMUM_SEEDS
from dq_toolchain.toolchain.cli.entry import run_command
from dq_toolchain.toolchain.formats.report import first_seeds, write_report
from dq_toolchain.toolchain.render.page import render_comparison
from dq_toolchain.toolchain.verdict.comparison import note_of, row_of, to_json
from dq_toolchain.toolchain.verdict.judge import validate
from dq_toolchain.toolchain.verdict.result import median_ms
from tests.toolchain.devices import Case, case, header, run, skipping, write_bundle, write_run


@pytest.fixture(scope="module")
def made() -> Case:
    return case(seeds=12)


@pytest.fixture
def reports(made: Case, tmp_path: Path) -> list[Path]:
    """A good device and one that skips a step."""
    good, bad = (write_bundle(tmp_path / name, made) for name in ("good", "bad"))
    table = skipping(made.artifact.table, 3)
    return [
        write_run(good, made, run(made.artifact, made.reference)),
        write_run(bad, made, run(made.artifact, made.reference, table=table)),
    ]


def test_a_row_says_what_the_verdict_says(reports: list[Path]) -> None:
    verdicts = [validate(path) for path in reports]
    rows = [row_of(verdict) for verdict in verdicts]
    assert [row.passed for row in rows] == [True, False]
    assert [row.first_step for row in rows] == [None, 3]
    assert rows[0].psnr == pytest.approx(rows[0].simulation_psnr)
    assert rows[0].ratio == pytest.approx(1.0)
    assert rows[0].step_ms == 2.0
    assert rows[0].model_bytes == 7
    assert note_of(rows) is None


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two(reports: list[Path]) -> None:
    """The contract of reports (runtime_samples/README.md): of four steps' times, of four steps' ratios."""
    verdict = validate(reports[0])
    steps = [replace(row, ratio=ratio) for row, ratio in zip(verdict.steps[:4], (4.0, 1.0, 8.0, 2.0), strict=True)]
    report = replace(verdict.report, data={**verdict.report.data, "step_ms": [10.0, 1.0, 40.0, 20.0, None]})
    row = row_of(replace(verdict, report=report, steps=(*steps, replace(steps[0], ratio=None))))
    assert row.step_ms == median_ms(replace(verdict, report=report)) == 15.0
    assert row.ratio == 3.0


def test_other_models_are_noted(reports: list[Path], tmp_path: Path) -> None:
    other = case(seed=3, seeds=4)
    path = write_run(write_bundle(tmp_path / "other", other), other, run(other.artifact, other.reference))
    rows = [row_of(validate(each)) for each in (reports[0], path)]
    assert "different numbers of seeds" in str(note_of(rows)) or "different models" in str(note_of(rows))


def test_the_page_stands_alone(reports: list[Path], tmp_path: Path) -> None:
    verdicts = [validate(path) for path in reports]
    text = render_comparison(verdicts)
    assert text == render_comparison(verdicts)
    assert text.count("data:image/png;base64,") == 3
    assert text.count("data:image/svg+xml;base64,") == 1
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert "a &lt;test&gt; device" in text
    assert text.count("FAIL") >= 2


def test_the_command(reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run_command(["validate", *map(str, reports), "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert "verdict: FAIL" in out
    assert "2 device reports" in page.read_text()
    assert run_command(["validate", str(reports[0]), str(reports[0]), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["passed"]
    assert len(said["reports"]) == 2
    assert said["verdict"] == "pass"


def test_each_report_is_judged_by_the_bundle_it_was_made_with(
    reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = case(seed=3, seeds=12)
    elsewhere = write_run(write_bundle(tmp_path / "other", other), other, run(other.artifact, other.reference))
    inbox = [
        Path(shutil.copytree(path.parent, tmp_path / f"inbox{index}"))
        for index, path in enumerate((reports[0], elsewhere))
    ]
    given = [str(tmp_path / "other"), str(tmp_path / "good")]
    flags = [word for folder in given for word in ("--bundle", folder)]
    assert run_command(["validate", *map(str, inbox), *flags, "--json", "--html", str(tmp_path / "page.html")]) == 0
    rows = json.loads(capsys.readouterr().out)["reports"]
    assert [row["bundle"] for row in rows] == [given[1], given[0]]
    page = (tmp_path / "page.html").read_text()
    assert all(
        f"{folder} (sha256 {row['bundle_sha256'][:12]}, given with --bundle)" in page
        for folder, row in zip(reversed(given), rows, strict=True)
    )
    assert run_command(["validate", *map(str, inbox), *flags]) == 0
    assert all(f"judged by the bundle {folder}" in capsys.readouterr().out for folder in given[:1])


def test_one_bad_report_fails_all_and_one_open_one_leaves_them_open(reports: list[Path], made: Case) -> None:
    few = first_seeds(made.reference, 4)
    report = reports[0].parents[1] / "few"
    write_report(report, header(reports[0].parents[1]), few.simulation_latents, few.simulation_outputs, few)
    good, bad, open_ = (validate(path) for path in (*reports, report))
    together = {"bad": [good, bad, open_], "open": [good, open_], "good": [good]}
    outcomes = {name: to_json(verdicts) for name, verdicts in together.items()}
    assert {name: (said["verdict"], said["passed"], said["more_seeds"]) for name, said in outcomes.items()} == {
        "bad": ("fail", False, None),
        "open": ("not decided", False, MINIMUM_SEEDS - 4),
        "good": ("pass", True, None),
    }
    text = render_comparison([good, open_])
    assert "not decided" in text
    assert f"{MINIMUM_SEEDS - 4} more seeds needed" in text
