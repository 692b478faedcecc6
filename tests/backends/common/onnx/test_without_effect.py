"""Squeezes that torch does not mean are taken out of a graph, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from dq_toolchain.backends.common.onnx.building import check_model
from dq_toolchain.backends.common.onnx.libraries import exporter
from dq_toolchain.backends.common.onnx.session import open_session
from dq_toolchain.backends.common.onnx.without_effect import remove_squeezes
from dq_toolchain.toolchain.errors import BackendError


class Network(nn.Module):
    """As PixArt's: one squeeze of an axis longer than one, behind it one that is meant."""

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x.squeeze(1) + 1).unsqueeze(1).squeeze(1) * 3


@pytest.fixture(scope="module")
def exported() -> Any:
    options = {"dynamo": True, "opset_version": 19, "optimize": True, "verbose": False}
    return exporter().export(Network().eval(), (torch.zeros(2, 3, 4),), **options).model


def test_only_those_without_effect_are_taken_out(exported: Any, tmp_path: Path) -> None:
    ir.save(exported, tmp_path / "before.onnx")
    with pytest.raises(BackendError, match="not valid ONNX"):
        check_model(tmp_path / "before.onnx")
    squeezes = [node for node in exported.graph if node.op_type == "Squeeze"]
    meant = [node for node in squeezes if node.inputs[0].shape != node.outputs[0].shape]
    assert len(squeezes) == len(meant) + 1
    remove_squeezes(exported)
    assert [node for node in exported.graph if node.op_type == "Squeeze"] == meant
    path = tmp_path / "after.onnx"
    ir.save(exported, path)
    check_model(path)
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    session = open_session(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    assert np.array_equal(got, Network()(torch.from_numpy(x)).numpy())
