"""What the project wants to reach on an H100, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """``part`` and ``value``: where the figure is found. ``most``: in ``unit``."""

    text: str
    part: str
    value: str
    most: float
    unit: str

    def judged(self, found: Mapping[str, Mapping[str, Any]], judge: bool) -> dict[str, Any]:
        """A row of the report.

        Args:
            found: values by part. judge: False in a dry run, whose sizes are not those of the goals.
        """
        values = found.get(self.part, {})
        value, estimate = values.get(self.value), values.get(f"{self.value}_estimated")
        if value is not None:
            verdict = "not judged" if not judge else "met" if value <= self.most else "not met"
            measured = f"{value:.4g} {self.unit}".strip()
        elif estimate is not None:
            verdict, measured = "not finished", f"about {estimate:.4g} {self.unit}, estimated"
        else:
            verdict, measured = "not measured", ""
        goal = f"at most {self.most:g} {self.unit}".strip()
        return {"goal": self.text, "wanted": goal, "measured": measured, "verdict": verdict}


GOALS = (
    Goal("SD1.5's size, single-step iteration, batch 4", "iterations", "single_step_seconds", 0.35, "s"),
    Goal("SD1.5's size, multi-step iteration, adjoint, n = 4", "iterations", "adjoint_4_seconds", 2.5, "s"),
    Goal("SD1.5's size, peak memory of the GPU", "iterations", "peak_gb", 24, "GB"),
    Goal("peak memory, n = 20 compared with n = 1", "iterations", "peak_20_to_1", 1.05, ""),
    Goal("idle share of the GPU, single-step iteration", "iterations", "idle_share", 0.1, ""),
    Goal("SD1.5's size, whole calibration, --effort quick", "quick", "seconds", 1200, "s"),
    Goal("embedded model, default calibration", "embedded", "seconds", 40, "s"),
)


def judged(found: Mapping[str, Mapping[str, Any]], judge: bool) -> list[dict[str, Any]]:
    return [goal.judged(found, judge) for goal in GOALS]
