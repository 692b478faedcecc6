"""Weights whose scales fp16 does not hold: XNNPACK takes them as they are, in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain import backends
from dq_toolchain.backends.common.running import run as run_bundle
from dq_toolchain.backends.executorch.proof.audit import audit
from dq_toolchain.backends.executorch.proof.pte_file import read_pte
from dq_toolchain.backends.executorch.support import check_static_biases
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.verdict.judge import validate
from tests import tiny, tiny_artifacts
from tests.backends.executorch.conftest import lower_into, small_artifact

LAYER = "down_blocks.0.resnets.0.conv2"


def test_a_bias_that_is_too_many_steps_is_refused_by_name() -> None:
    artifact, _, _ = small_artifact()
    check_static_biases(artifact)
    name = "conv_out"
    small = replace(artifact.layers[name], weight_scale=artifact.layers[name].weight_scale * 2.0**-28)
    bias = {f"{name}.bias": torch.full_like(artifact.float_parameters[f"{name}.bias"], 0.5)}
    with pytest.raises(BackendError, match=rf"^{name} has weights so small beside its bias.*--step-groups-as input"):
        check_static_biases(
            replace(
                artifact,
                layers={**artifact.layers, name: small},
                float_parameters={**artifact.float_parameters, **bias},
            )
        )


@pytest.mark.slow
def test_small_weights_run_and_pass_and_a_scale_that_is_off_by_two_is_found(tmp_path: Path) -> None:
    unet = tiny.small_unet()
    with torch.no_grad():
        unet.get_parameter(f"{LAYER}.weight")[:4] *= torch.logspace(-4, -24, 4, base=2).view(-1, 1, 1, 1)
        unet.get_parameter(f"{LAYER}.weight")[4] = 0
        unet.up_blocks[0].resnets[0].conv1.weight.zero_()
    artifact, network = tiny_artifacts.tiny_artifact(unet=unet)
    assert float(artifact.layers[LAYER].weight_scale.min()) < 2.0**-30
    bundle, folder = lower_into(tmp_path, artifact, tiny_artifacts.tiny_reference(artifact, network))
    verdict = validate(run_bundle(backends.load("executorch"), bundle, folder, tmp_path / "run", threads=1))
    assert not verdict.failed, verdict.to_json()
    layer = artifact.layers[LAYER]
    other = replace(artifact, layers={**artifact.layers, LAYER: replace(layer, weight_scale=layer.weight_scale * 2)})
    with pytest.raises(BackendError, match=f"a weight scale of {LAYER} differs"):
        audit(read_pte(folder / "model.pte"), other, bundle.ranges(folder))
