"""The tests that are marked ``gpu``, each reported when it has ended."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.record import Plan, Record

ROOT = Path(__file__).parents[2]
MARK = "pytest.mark.gpu"
ONE = "test_fit"
"""Of a dry run, on the CPU."""
PLUGINS = ("no:xdist", "no:cacheprovider")


class Noting:
    """A plugin of pytest."""

    def __init__(self, record: Record) -> None:
        self.record, self.counts = record, Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] += 1
        text = (
            str(report.longrepr[2])
            if isinstance(report.longrepr, tuple)
            else report.longreprtext.strip().splitlines()[-1:]
        )
        self.record.row("Tests", test=report.nodeid, outcome=report.outcome, seconds=report.duration,
                        why=text if isinstance(text, str) else "".join(text)[:200])  # fmt: skip
        for outcome, count in self.counts.items():
            self.record.value(outcome, count)


def files() -> list[Path]:
    """Test files that hold such a test; the others are not even imported."""
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARK in path.read_text(encoding="utf-8")]


def run(record: Record, plan: Plan) -> None:
    """Raises AssertionError: a test failed."""
    os.chdir(ROOT)
    os.environ["DQ_TEST_DEVICE"] = plan.device
    arguments = ["-q", "-m", "gpu", *(f"-p{name}" for name in PLUGINS), *map(str, files())]
    if plan.tiny:
        arguments += ["-k", ONE]
    torch.set_num_threads(min(4, torch.get_num_threads()))  # on networks as small as these, more only wait
    noting = Noting(record)
    code = pytest.main(arguments, plugins=[noting])
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), f"pytest ended with {code!r}"
    assert sum(noting.counts.values()), "no test is marked gpu"
