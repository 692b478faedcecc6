"""The audit finds every planted difference between the saved package and the artifact."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dq_toolchain.backends.common.qdq.audit import Expected, audit
from dq_toolchain.backends.common.qdq.qparams import QParams
from dq_toolchain.backends.coreml.interpreter.program import Program, load
from dq_toolchain.backends.coreml.package import load_spec, operations_of, save_spec
from dq_toolchain.backends.coreml.proof.reading import MILReader
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from tests.backends.coreml.conftest import Converted

LAYER = "mid_block.resnets.0.conv1"


def _audit(programs: dict[str, Program], artifact: Artifact) -> None:
    audit(programs, artifact, Expected(QParams.of(artifact)), MILReader())


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
    bias = artifact.float_parameters[f"{LAYER}.bias"].clone()
    bias[0] += 1e-2
    return replace(artifact, float_parameters={**artifact.float_parameters, f"{LAYER}.bias": bias})


def _move_scale(artifact: Artifact) -> Artifact:
    scale = artifact.scale.clone()
    scale[1, artifact.site_index(LAYER)] *= 2
    return replace(artifact, scale=scale)


def _move_zero_point(artifact: Artifact) -> Artifact:
    zero_point = artifact.zero_point.clone()
    zero_point[0, artifact.site_index(LAYER)] += 1
    return replace(artifact, zero_point=zero_point)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_flip_integer, "has integers of no layer that is left"),
        (_move_weight_scale, f"the weight scales of {LAYER} differ"),
        (_move_bias, f"the bias of {LAYER} differs"),
        (_move_scale, rf"quantize of {LAYER}:input has scale and zero_point .* in step group 1"),
        (_move_zero_point, rf"quantize of {LAYER}:input has scale and zero_point .* in step group 0"),
    ],
)
def test_planted_differences_are_named(damage: Callable[[Artifact], Artifact], text: str, exact: Converted) -> None:
    with pytest.raises(BackendError, match=text):
        _audit(exact.functions, damage(exact.artifact))


def test_exchanged_functions_are_found(exact: Converted) -> None:
    first, second = exact.functions
    with pytest.raises(BackendError, match="has scale and zero_point"):
        _audit({first: exact.functions[second], second: exact.functions[first]}, exact.artifact)
    with pytest.raises(BackendError, match="1 functions, expected 2"):
        _audit({first: exact.functions[first]}, exact.artifact)


def _changed(package: Path, folder: Path, change: Callable[[Any], None]) -> dict[str, Program]:
    copy = folder / "model.mlpackage"
    shutil.copytree(package, copy)
    spec = load_spec(copy)
    change(operations_of(spec.mlProgram.functions["steps_g1"]))
    save_spec(copy, spec)
    functions = load(copy)
    return {name: functions[name] for name in ("steps_g0", "steps_g1")}


def test_a_scale_that_was_changed_in_the_file_is_found(exact: Converted, tmp_path: Path) -> None:
    def double(operations: Any) -> None:
        dequantize = next(op for op in operations if op.type == "dequantize")
        name = dequantize.inputs["scale"].arguments[0].name
        constant = next(op for op in operations if op.type == "const" and op.outputs[0].name == name)
        constant.attributes["val"].immediateValue.tensor.floats.values[0] *= 2

    with pytest.raises(BackendError, match=r"quantize of .* has scale and zero_point"):
        _audit(_changed(exact.program, tmp_path, double), exact.artifact)


def test_a_site_that_lost_its_quantization_is_found(exact: Converted, tmp_path: Path) -> None:
    def bypass(operations: Any) -> None:
        quantize = next(op for op in operations if op.type == "quantize")
        dequantize = next(
            op
            for op in operations
            if op.type == "dequantize" and op.inputs["input"].arguments[0].name == quantize.outputs[0].name
        )
        for op in operations:
            for value in op.inputs.values():
                for argument in value.arguments:
                    if argument.name == dequantize.outputs[0].name:
                        argument.name = quantize.inputs["input"].arguments[0].name

    with pytest.raises(BackendError, match="is not quantized"):
        _audit(_changed(exact.program, tmp_path, bypass), exact.artifact)


def test_the_table_counts_products_in_integers(exact: Converted) -> None:
    rows = {row.name: row for row in exact.audited.operations}
    products = sum(row.count for row in exact.audited.operations if row.arithmetic.startswith("int8"))
    assert products == len(exact.artifact.layers) * len(exact.functions)
    assert rows["layer_norm"].why.startswith("normalisation")
    assert all(row.why for row in exact.audited.operations if row.arithmetic == "float")
