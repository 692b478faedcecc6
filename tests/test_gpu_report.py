"""The report for a GPU: a part that fails, dies or hangs costs itself alone, the time is kept, and the whole runs on a CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from benchmarks.gpu.goals import GOALS, Goal
from benchmarks.gpu.kernels import covered
from benchmarks.gpu.page import table
from benchmarks.gpu.parts import PARTS, chosen, limits

from tests.processes import run, start

REPORT = """
import signal, sys
from pathlib import Path
from benchmarks import gpu_report
from benchmarks.gpu.parts import Part
out, minutes, *names = sys.argv[1:]
Path(out).mkdir()
signal.signal(signal.SIGTERM, gpu_report._tell)
parts = tuple(Part(name, name.capitalize(), 1.0, "tests.report_parts") for name in names)
print(gpu_report.report(Path(out), parts, float(minutes), True))
"""
"""Of parts made for these tests."""
DRY = "from benchmarks.gpu_report import main; main()"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_each_part_may_fail_die_or_hang(tmp_path: Path) -> None:
    out, begin = tmp_path / "out", time.monotonic()
    done = run(REPORT, out, 0.15, "failing", "dying", "hanging", "good")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 60
    report = read(out / "report.json")
    assert report["seconds"] <= 0.15 * 60
    failing, dying, hanging, good = report["parts"]
    assert [each["state"] for each in report["parts"]] == ["failed", "failed", "stopped at its limit", "done"]
    assert failing["reason"] == "exit code 1: RuntimeError: CUDA out of memory"
    assert failing["tables"] == {"Found": [{"what": "before", "plan": "cpu"}]}
    assert "Traceback" in (out / "00_failing.log").read_text()
    assert dying["reason"].startswith("exit code -9")
    assert (hanging["tables"], hanging["values"]) == ({"Found": [{"what": "a row", "seconds": 1.5}]}, {"found": 3})
    assert ended(int((out / "child.pid").read_text()))  # though it left the group of processes
    assert good["tables"]["Found"][0]["seconds_left"] > 1
    page = (out / "report.md").read_text()
    assert "| a row | 1.5 |" in page
    assert "CUDA out of memory" in page


def test_told_to_end_it_writes_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start(REPORT, out, 5, "good", "hanging", "failing")
    while not (out / "01_hanging.json").is_file():
        assert running.is_alive
        time.sleep(0.05)
    running.process.terminate()
    done = running.end()
    assert done.stdout.splitlines()[-1] == "False"
    report = read(out / "report.json")
    assert [each["state"] for each in report["parts"]] == ["done", "interrupted", "not begun"]
    assert report["card"] == "a card"
    assert report["parts"][1]["tables"]["Found"]
    assert ended(int((out / "child.pid").read_text()))


def test_it_all_runs_on_a_cpu(tmp_path: Path) -> None:
    """The script that a GPU host runs, with tiny networks: every part to its end."""
    done = run(DRY, "--dry-run", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "report.json")
    assert {each["part"]: (each["state"], each.get("reason")) for each in report["parts"]} == {
        part.name: ("done", None) for part in PARTS
    }
    measured = {goal["goal"]: goal["measured"] for goal in report["goals"]}
    assert [text for text, value in measured.items() if not value] == ["peak memory, n = 20 compared with n = 1"]
    assert {goal["verdict"] for goal in report["goals"]} == {"not judged", "not measured"}


def test_a_part_by_name() -> None:
    assert [part.name for part in chosen("quick,environment")] == ["environment", "quick"]
    assert chosen(None) == PARTS
    with pytest.raises(ValueError, match="--parts: got 'slow', allowed are environment, checks"):
        chosen("slow")


def test_what_a_part_leaves_goes_to_the_later_ones() -> None:
    assert limits([1, 1, 2], 40) == 10
    assert limits([1, 2], 39) == 13
    assert limits([2], 38) == 38
    assert sum(part.share for part in PARTS) == pytest.approx(540)


@pytest.mark.parametrize(
    ("values", "judge", "verdict", "measured"),
    [
        ({"seconds": 2.0}, True, "met", "2 s"),
        ({"seconds": 2.1}, True, "not met", "2.1 s"),
        ({"seconds": 2.1}, False, "not judged", "2.1 s"),
        ({"seconds_estimated": 9.0}, True, "not finished", "about 9 s, estimated"),
        ({}, True, "not measured", ""),
    ],
)
def test_goals(values: dict[str, float], judge: bool, verdict: str, measured: str) -> None:
    found = Goal("it", "part", "seconds", 2.0, "s").judged({"part": values}, judge)
    assert found == {"goal": "it", "wanted": "at most 2 s", "measured": measured, "verdict": verdict}


def test_goals_are_of_parts_that_there_are() -> None:
    assert {goal.part for goal in GOALS} <= {part.name for part in PARTS}


def test_overlapping_spans_count_once() -> None:
    assert covered([(5, 8), (0, 2), (1, 4), (6, 7)]) == 7


def test_a_table_has_every_column() -> None:
    assert table([{"a": 1, "b": 0.12345678}, {"a": "x|y", "c": None}]) == [
        "| a | b | c |", "|---|---|---|", "| 1 | 0.1235 |  |", "| x\\|y |  |  |",
    ]  # fmt: skip
