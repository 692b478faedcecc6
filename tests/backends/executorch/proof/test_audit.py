"""The audit finds every planted difference between the lowered file and the artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_toolchain.backends.common.outputs import output_qparams
from dq_toolchain.backends.executorch.graph.layers import range_table
from dq_toolchain.backends.executorch.proof.audit import StaticQParams, audit
from dq_toolchain.backends.executorch.proof.pte_file import Node, PteFile, read_pte
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from tests.backends.executorch.conftest import Lowered

LAYER = "up_blocks.0.resnets.0.conv_shortcut.parts.1"


def _flip_integer(artifact: Artifact) -> Artifact:
    layer = artifact.layers[LAYER]
    weight_q = layer.weight_q.clone()
    weight_q.view(-1)[7] ^= 1
    return replace(artifact, layers={**artifact.layers, LAYER: LayerWeights(weight_q, layer.weight_scale)})


def _move_weight_scale(artifact: Artifact) -> Artifact:
    layer = artifact.layers[LAYER]
    scale = layer.weight_scale.clone()
    scale[3] = torch.nextafter(scale[3], torch.tensor(1.0))
    return replace(artifact, layers={**artifact.layers, LAYER: LayerWeights(layer.weight_q, scale)})


def _move_bias(artifact: Artifact) -> Artifact:
    bias = artifact.float_parameters["conv_in.bias"].clone()
    bias[0] += 1e-2
    return replace(artifact, float_parameters={**artifact.float_parameters, "conv_in.bias": bias})


def _swap_sites(artifact: Artifact) -> Artifact:
    """Two layers of equal shape exchange their columns: every layer runs, with the other's ranges."""
    a, b = artifact.site_index("down_blocks.0.resnets.0.conv1"), artifact.site_index("down_blocks.0.resnets.0.conv2")
    sites = list(artifact.sites)
    sites[a], sites[b] = sites[b], sites[a]
    return replace(artifact, sites=tuple(sites))


@pytest.fixture(scope="module")
def file(small: Lowered) -> PteFile:
    return read_pte(small[4] / "model.pte")


def test_the_untouched_file_passes(file: PteFile, small: Lowered) -> None:
    audit(file, small[0], range_table(small[0].scale, small[0].zero_point))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_flip_integer, f"1 integer weights of {LAYER} differ"),
        (_move_weight_scale, f"a weight scale of {LAYER} differs"),
        (_move_bias, "the bias of conv_in differs"),
        (_swap_sites, "integer weights of down_blocks.0.resnets.0.conv. differ"),
    ],
)
def test_damage_is_found_by_layer(
    damage: Callable[[Artifact], Artifact], text: str, file: PteFile, small: Lowered
) -> None:
    with pytest.raises(BackendError, match=text):
        audit(file, damage(small[0]), range_table(small[0].scale, small[0].zero_point))


def test_damaged_ranges_are_found_by_step_group_and_site(file: PteFile, small: Lowered) -> None:
    artifact, ranges = small[0], range_table(small[0].scale, small[0].zero_point)
    ranges[1, 2 * artifact.site_index("conv_out")] *= 1.01
    text = "ranges of step group 1 do not give the scale and zero_point of conv_out:input"
    with pytest.raises(BackendError, match=text):
        audit(file, artifact, ranges)


def test_a_layer_in_float_is_found(file: PteFile, small: Lowered) -> None:
    method = file.methods[0]
    portable = replace(method, portable=(*method.portable, Node("aten::convolution.out", {})))
    with pytest.raises(BackendError, match=r"convolution\.out runs outside the delegate, in float"):
        audit(replace(file, methods=(portable,)), small[0])
    kept = tuple(
        replace(graph, nodes=tuple(node for node in graph.nodes if node.kind != "FullyConnected"))
        for graph in method.delegates
    )
    with pytest.raises(BackendError, match="is in method forward 0 times as an integer operation, expected once"):
        audit(replace(file, methods=(replace(method, delegates=kept),)), small[0])


def test_static_parameters_are_audited(static: Lowered) -> None:
    artifact, _, _, _, folder = static
    file = read_pte(folder / "model.pte")
    from dq_toolchain.toolchain.formats.artifact import load_reference

    outputs = output_qparams(artifact, load_reference(folder.parent / "calibration"))
    qparams = {f"step_group_{g}": StaticQParams.of_group(artifact, outputs, g) for g in range(2)}
    audit(file, artifact, static=qparams)
    swapped = {"step_group_0": qparams["step_group_1"], "step_group_1": qparams["step_group_0"]}
    with pytest.raises(BackendError, match="belong to no layer"):
        audit(file, artifact, static=swapped)
    entry = qparams["step_group_1"].entries["conv_in"]
    moved = replace(entry, zero_point=entry.zero_point + 1)
    damaged = StaticQParams({**qparams["step_group_1"].entries, "conv_in": moved}, qparams["step_group_1"].results)
    with pytest.raises(BackendError, match="method step_group_1"):
        audit(file, artifact, static={**qparams, "step_group_1": damaged})
    with pytest.raises(BackendError, match="belong to no layer"):
        audit(file, _move_bias(artifact), static=qparams)


def test_a_file_that_is_no_program_is_one_line(small: Lowered, tmp_path: Path) -> None:
    path = tmp_path / "broken.pte"
    path.write_bytes((small[4] / "model.pte").read_bytes()[:5000])
    with pytest.raises(BackendError, match="cannot be read back"):
        read_pte(path)
