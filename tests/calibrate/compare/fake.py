"""A calibrator of a moment: min-max integers of the tiny model, spoiled by method and seed so that cells differ.

``main`` works on a grid in a process of its own and kills it: arguments FOLDER MODEL CELLS.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dq_toolchain.calibrate.compare.held_out import PLAIN
from dq_toolchain.calibrate.compare.plan import Grid, Request, plan
from dq_toolchain.calibrate.compare.progress import GridReporter
from dq_toolchain.calibrate.compare.run import run
from dq_toolchain.calibrate.pipeline import Calibrated
from dq_toolchain.calibrate.prepare.setup import setup
from dq_toolchain.toolchain.console.progress import Reporter
from dq_toolchain.toolchain.errors import CalibrationError
from dq_toolchain.toolchain.recipe.sections import Recipe
from tests.tiny_artifacts import tiny_artifact

SPOIL = {"minmax": 1.0, "mse": 0.5, "accuquant": 0.875}
RECIPE = '[quantize]\nstep_groups = 2\n[run]\ndevice = "cpu"\n[calibrate]\nsamples = 4\n'


@dataclass
class FakeCalibrator:
    """Remembers what it was asked for; refuses some methods, kills its process in some cell.

    Attributes:
        log: a line per call. failing: methods that raise. deadly: number of calls after which it does not return.
    """

    log: Path
    failing: tuple[str, ...] = ()
    deadly: int = 10**6

    def __call__(self, recipe: Recipe, _reporter: Reporter, work: Path) -> Calibrated:
        method = recipe.calibrate.method
        with self.log.open("a") as log:
            log.write(f"{method} w{recipe.quantize.weight_bits} {recipe.sampler.steps} {recipe.run.seed}\n")
        if len(self.calls) > self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if method.partition("+")[0] in self.failing:
            raise CalibrationError(f"method {method} does not\nlike this sampler; choose another")
        context = setup(recipe, PLAIN)
        torch.manual_seed(0)
        artifact, _ = tiny_artifact(recipe.sampler.steps, 2, weight_bits=recipe.quantize.weight_bits)
        factor = SPOIL[method.partition("+")[0]] * 2.0**-recipe.run.seed
        return Calibrated(
            replace(artifact, scale=artifact.scale * factor), context, 2.0 + recipe.run.seed, torch.zeros(0)
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def tiny_grid(folder: Path, model: Path, **changes: object) -> Grid:
    """Two methods, one setting, two calibration seeds, five held-out seeds."""
    (folder / "dq.toml").write_text(RECIPE)
    request = Request(folder / "dq.toml", model, folder / "out", "minmax,mse", "W8A8", "3", 2, 5)
    return plan(replace(request, **changes))  # type: ignore[arg-type]


def main() -> None:
    folder, model, cells = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    run(tiny_grid(folder, model), GridReporter(), FakeCalibrator(folder / "log", deadly=cells))
