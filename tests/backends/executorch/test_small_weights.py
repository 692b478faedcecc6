"""Weights whose scales fp16 does not hold: XNNPACK takes them as they are, in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.executorch import running
from dq_toolchain.backends.executorch.check import check_static_biases
from dq_toolchain.toolchain.bundle import Bundle
from dq_toolchain.toolchain.conformance import conformance
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.report import Report
from tests import tiny
from tests.backends.executorch.conftest import lower_into, small_artifact


def test_a_bias_that_is_too_many_steps_is_refused_by_name() -> None:
    artifact, _, _ = small_artifact()
    check_static_biases(artifact)
    name = "conv_out"
    small = replace(artifact.layers[name], weight_scale=artifact.layers[name].weight_scale * 2.0**-28)
    bias = {f"{name}.bias": torch.full_like(artifact.float_parameters[f"{name}.bias"], 0.5)}
    with pytest.raises(BackendError, match=rf"^{name} has weights so small beside its bias.*--form sentinel"):
        check_static_biases(replace(artifact, layers={**artifact.layers, name: small},
                                    float_parameters={**artifact.float_parameters, **bias}))
