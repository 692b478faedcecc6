"""Progress: the time left over the whole grid, and stages shown below its bar."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from dq_toolchain.calibrate.compare.grid import Cell
from dq_toolchain.calibrate.compare.progress import GridReporter, seconds_left

MINMAX, MSE = (Cell("ddim", 20, 8, 8, method, 0) for method in ("minmax", "mse"))


@pytest.fixture
def terminal() -> GridReporter:
    reporter = GridReporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    reporter.bars = True
    return reporter


def written(reporter: GridReporter) -> str:
    text = reporter.console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_time_left_counts_methods_and_steps() -> None:
    longer = replace(MINMAX, steps=40)
    assert seconds_left([MSE], []) is None
    assert seconds_left([], [(MINMAX, 10.0)]) == 0
    assert seconds_left([MINMAX, longer], [(MINMAX, 10.0), (MINMAX, 20.0), (MSE, 99.0)]) == pytest.approx(15 + 30)
    assert seconds_left([MSE], [(MINMAX, 10.0)]) == pytest.approx(10)


def test_stages_appear_below_the_bar_of_cells(terminal: GridReporter) -> None:
    with terminal.grid(4) as show:
        show(1, MINMAX.name, 3725.0)
        with terminal.task("evaluation", 10) as advance, terminal.bar("inner") as progress:
            advance(3, note="half")
            progress(1, 2)
            terminal.say("a line")
            time.sleep(0.3)  # drawn ten times a second
    last = written(terminal)
    for text in ("cells", "1/4", MINMAX.name, "1:02:05", "evaluation", "3/10", "half", "inner", "1/2", "a line"):
        assert text in last


def test_outside_a_grid_a_stage_has_its_own_bar(terminal: GridReporter) -> None:
    with terminal.task("alone", 2) as advance:
        advance(2)
    assert "2/2" in written(terminal)


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_a_line_per_cell_is_written_and_no_stages(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = GridReporter(quiet)
    with reporter.grid(2) as show, reporter.task("evaluation", 3) as advance:
        show(0, "first", None)
        show(1, "second", 61.0)
        advance(1)
    lines = ["0/2 cells done, left unknown, now first", "1/2 cells done, left 0:01:01, now second"]
    assert capsys.readouterr() == ("", "" if quiet else "\n".join([*lines, ""]))
