"""A finished tiny calibration with its FP32 trajectories, for what methods do to an artifact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.calibrate.data.context import Context
from dq_toolchain.calibrate.data.trajectories import Trajectories
from dq_toolchain.calibrate.finalize import finalize
from dq_toolchain.calibrate.ranges.quantized import quantize_with
from dq_toolchain.toolchain.formats.artifact import Artifact
from dq_toolchain.toolchain.sampler.rollout import rollout
from tests.calibrate.conftest import measured


@dataclass(frozen=True)
class Finished:
    """An artifact of ranges only, and what it came from."""

    artifact: Artifact
    trajectories: Trajectories
    context: Context

    def damaged(self, gain: float, shift: float) -> Artifact:
        """The artifact whose last layer answers gain * f + shift."""
        floats = dict(self.artifact.float_parameters)
        floats["conv_out.bias"] = floats["conv_out.bias"] * gain + shift
        layer = self.artifact.layers["conv_out"]
        layers = dict(self.artifact.layers) | {"conv_out": replace(layer, weight_scale=layer.weight_scale * gain)}
        return replace(self.artifact, float_parameters=floats, layers=layers)

    @torch.no_grad()
    def final_error(self, artifact: Artifact) -> float:
        """Relative error of the last latents against FP32, calibration samples."""
        network = self.trajectories.quantized(artifact, artifact.table)
        samples = self.trajectories.samples
        end = rollout(artifact.table, network, samples.start, noise=samples.step_noise)[-1]
        target = self.trajectories.targets.latents[-1]
        return float((end - target).norm() / target.norm())


def finish(model: Path, out: Path, **sections: Any) -> Finished:
    made = measured(model, out, **sections)
    network = quantize_with(made.context, made.scale, made.zero_point, made.recipe)
    return Finished(finalize(network, made.context, {}), made.trajectories, made.context)


@pytest.fixture(scope="package")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tiny_model, tmp_path_factory.mktemp("finished"))
