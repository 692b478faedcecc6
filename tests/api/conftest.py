"""A module of one's own, calibrated and exported once for all tests of the API."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import dq_toolchain as dq
from tests import modules, tiny, tiny_pipelines
from tests.api.drawing import GUIDANCE
from tests.shared import once

FAST: dict[str, Any] = {
    "steps": 4,
    "step_groups": 2,
    "samples": 8,
    "batch": 4,
    "warmup": 4,
    "iterations": 2,
    "settling": 2,
    "horizon": 2,
    "group_iterations": 1,
    "device": "cpu",
}
SEEDS = {"reference": {"seeds": 10}}


def calibrated_wave(out: Path, **more: Any) -> dq.Calibration:
    return dq.calibrate(
        modules.wave(),
        out=out,
        scheduler=tiny.scheduler(),
        sample_shape=(2, 16),
        conditioning=modules.words(),
        **{"recipe": SEEDS, **FAST, **more},
    )


@pytest.fixture(scope="session")
def wave(tmp_path_factory: pytest.TempPathFactory) -> dq.Calibration:
    return calibrated_wave(tmp_path_factory.mktemp("wave"))


@pytest.fixture(scope="session")
def wave_bundle(wave: dq.Calibration) -> dq.Bundle:
    return dq.export(wave, "tensorrt")


def _draw(folder: Path) -> None:
    tiny_pipelines.save_sd(folder / "model")
    (folder / "prompts.txt").write_text("a red fox\ntwo ships\n")
    made = dq.calibrate(
        folder / "model", out=folder, prompts=folder / "prompts.txt", guidance=GUIDANCE, recipe=SEEDS, **FAST
    )
    dq.run(dq.export(made, "executorch", image_to_image=True))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, calibration, executorch (a bundle that can begin with an image) and its report.

    It is made once, which takes minutes, and a copy of it handed out: what a test writes there, no other process sees.
    """
    copy = tmp_path_factory.mktemp("drawn")
    return Path(shutil.copytree(once(tmp_path_factory, "drawn-once", _draw), copy, dirs_exist_ok=True))
