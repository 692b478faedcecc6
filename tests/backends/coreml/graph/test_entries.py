"""Run-time scales: a power of two and a ratio that fp16 holds give back every scale exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dq_toolchain.backends.common.qdq.layer import table_scale
from dq_toolchain.backends.common.ratios import ratio_table, reference_scales
from dq_toolchain.toolchain.errors import BackendError
from tests import tiny_artifacts

FP16 = st.floats(2.0**-14, 60000.0, width=16)


@given(st.lists(FP16, min_size=1, max_size=6))
def test_reference_times_ratio_is_the_scale(scales: list[float]) -> None:
    scale = torch.tensor(scales).unsqueeze(1)
    reference = reference_scales(scale)
    assert float(reference.log2()) == float(reference.log2().round())
    assert torch.equal(reference * (scale / reference), scale)


@given(st.lists(FP16, min_size=1, max_size=6))
def test_scale_of_a_table_is_a_power_of_two(scales: list[float]) -> None:
    common = table_scale(torch.tensor(scales))
    assert float(common.log2()) == float(common.log2().round())
    assert torch.equal(common * (torch.tensor(scales) / common), torch.tensor(scales))


def test_scales_too_far_apart_are_refused_by_name() -> None:
    artifact, _ = tiny_artifacts.lively_artifact()
    scale = artifact.scale.clone()
    scale[0, 3], scale[1, 3] = 2.0**-14 * (1 + 2.0**-10), 2.0**15
    assert torch.equal(
        ratio_table(artifact, "--step-groups-as input") * reference_scales(artifact.scale), artifact.scale
    )
    with pytest.raises(BackendError, match=f"{artifact.sites[3].name} differ too much between step groups"):
        ratio_table(replace(artifact, scale=scale), "--step-groups-as input")
