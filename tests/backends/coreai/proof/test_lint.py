"""What devices are known to compute wrongly is refused, by the name of the layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dq_toolchain.backends.common.qdq.network import build
from dq_toolchain.backends.coreai import lowering
from dq_toolchain.backends.coreai.graph.activations import for_neural_engine
from dq_toolchain.backends.coreai.settings import Settings
from dq_toolchain.backends.coreai.support import check_supported
from dq_toolchain.toolchain.errors import BackendError
from tests import tiny, tiny_artifacts
from tests.backends.coreai.conftest import converted


@pytest.mark.slow
def test_a_gate_between_integers_is_refused(tmp_path: Path) -> None:
    """GEGLU multiplies two halves of one layer's output, which --quantize-outputs makes integers (coreai-torch #112)."""
    with pytest.raises(BackendError, match=r"ff\.net\.0\.proj:output enters an elementwise product in integers.*#112"):
        converted(tmp_path, {"quantize_outputs": True}, unet=tiny.tiny_condition_unet())


def test_an_activation_that_is_a_product_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Neural Engine's layout has x * sigmoid(x) for SiLU: there too no integers may come in."""
    monkeypatch.setattr(lowering, "build", lambda *arguments: for_neural_engine(build(*arguments)))
    with pytest.raises(BackendError, match=r"time_embedding\.linear_1:output enters an elementwise product .*#112"):
        converted(tmp_path, {"quantize_outputs": True}, unet=tiny.small_unet())


@pytest.mark.parametrize("layout", ["plain", pytest.param("neural-engine", marks=pytest.mark.slow)])
def test_integers_behind_layers_without_gates_are_allowed(layout: str, tmp_path: Path) -> None:
    made = converted(tmp_path, {"quantize_outputs": True, "layout": layout}, unet=tiny.small_unet())
    names = made.plan.expected.qparams.names
    assert sorted(made.audited.sites["steps_g0"].values()) == list(range(len(names)))
    assert sum(name.endswith(":output") for name in names) == len(made.artifact.layers)


def test_block_scales_are_refused_in_the_neural_engine_layout() -> None:
    artifact, _ = tiny_artifacts.lively_artifact(unet=tiny.small_unet())
    name, layer = next((name, one) for name, one in artifact.layers.items() if one.weight_q.dim() == 4)
    blocks = replace(layer, weight_scale=layer.weight_scale.repeat(2))
    artifact = replace(artifact, layers={**artifact.layers, name: blocks})
    with pytest.raises(BackendError, match=rf"{name} has a weight scale per block.*#279"):
        check_supported(artifact, Settings(layout="neural-engine"))
    check_supported(artifact, Settings())
