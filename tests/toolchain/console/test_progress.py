"""Off a terminal a long task says where it is once in a while; a short one says nothing; stdout stays empty."""

from __future__ import annotations

import pytest
from rich.progress import Progress

from dq_toolchain.toolchain.console import progress
from dq_toolchain.toolchain.console.progress import Reporter, clock


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, as its last item."""
    shown = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: shown[-1])
    monkeypatch.setattr(
        progress, "Progress", lambda *columns, **options: Progress(*columns, get_time=lambda: shown[-1], **options)
    )
    return shown


def test_a_long_task_says_how_far_it_is_and_what_is_left(
    hours: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().task("fit", 100) as advance:
        for _ in range(10):
            hours.append(hours[-1] + 30)
            advance(5, note="error 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"fit: {done}/100, left {clock(6 * (100 - done))}, error 0.5" for done in (10, 20, 30, 40, 50)
    ]


def test_what_was_done_before_a_restart_does_not_count_as_fast(
    hours: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().task("fit", 100) as advance:
        advance(80)
        hours.append(100.0)
        advance(1)
    assert capsys.readouterr().err == "fit: 81/100, left 0:31:40\n"


@pytest.mark.parametrize(("quiet", "seconds"), [(True, 1000.0), (False, 50.0)])
def test_nothing_is_said_of_a_short_task_or_when_quiet(
    quiet: bool, seconds: float, hours: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(quiet)
    with reporter.bar("sampling") as show:
        hours.append(seconds)
        show(1, 2)
    if quiet:
        reporter.say("a line")
    assert capsys.readouterr() == ("", "")
