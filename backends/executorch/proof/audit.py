"""Proof, from the lowered file alone, that the program holds the artifact's integers and computes with them.

Every convolution and linear of the file is decoded and compared bit for bit; anything that is not as it must be stops
the export. The table of operations is counted in the same pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dq_toolchain.backends.common.outputs import OutputQParams
from dq_toolchain.backends.executorch.graph.layers import QParams, as_filter, xnnpack_qparams
from dq_toolchain.backends.executorch.proof.planted import check_planted
from dq_toolchain.backends.executorch.proof.products import (
    PRODUCTS,
    bias_of,
    check_types,
    decode_weights,
    fail,
    is_float,
    products,
)
from dq_toolchain.backends.executorch.proof.pte_file import NOTHING, Graph, Method, Node, PteFile, Value
from dq_toolchain.backends.executorch.proof.trace import entry_of
from dq_toolchain.toolchain.formats.artifact import Artifact, LayerWeights
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.quant.site import KEPT

PORTABLE_PRODUCTS = ("convolution", "linear", "addmm", "aten::mm")

NORMALISATION = "normalisation: statistics need float"
_WHY = {
    'attention products stay in float: attention = "float" in the recipe': ("BatchMatrixMultiply", "Softmax"),
    NORMALISATION: ("GlobalAvgPooling2d", "ReciprocalSquareRoot", "Subtract"),
    "activation functions, sums and products between layers": (
        "Sigmoid",
        "Gelu",
        "Tanh",
        "Add",
        "Multiply",
        "Div",
        "Sin",
        "Cos",
    ),
    "brings a layer's input to its range and to int8": ("Maximum", "Minimum", "Convert", "Clamp"),
    "moves data, no arithmetic": (
        "StaticTranspose",
        "StaticReshape",
        "StaticSlice",
        "StaticConstantPad",
        "Copy",
        "Concatenate2",
        "Concatenate3",
        "Concatenate4",
        "Concatenate5",
    ),
}
_PORTABLE_WHY = {
    "embedding": "table look-up, no arithmetic",
    "dim_order": "moves data, no arithmetic",
    "full": "writes a constant",
    "clone": "moves data, no arithmetic",
    "copy": "moves data, no arithmetic",
}


@dataclass(frozen=True)
class StaticQParams:
    """Input and output of every layer in one step group, by layer name."""

    entries: dict[str, QParams]
    results: dict[str, QParams]

    @classmethod
    def of_group(cls, artifact: Artifact, outputs: OutputQParams, group: int) -> StaticQParams:
        """Input and output parameters of one step group, by layer name."""
        layers = [site.layer for site in artifact.sites]

        def numbers(scale: Tensor, zero_point: Tensor) -> dict[str, QParams]:
            rows = zip(layers, scale[group], zero_point[group], strict=True)
            return {name: QParams(float(s), int(z)) for name, s, z in rows}

        return cls(numbers(artifact.scale, artifact.zero_point), numbers(outputs.scale, outputs.zero_point))


def audit(
    file: PteFile,
    artifact: Artifact,
    ranges: Tensor | None = None,
    static: dict[str, StaticQParams] | None = None,
    calls: Mapping[str, int] | None = None,
) -> tuple[Operation, ...]:
    """The table of operations of a file that holds exactly the artifact's integers.

    Args:
        ranges: (G, 2L) as it will be fed to the program; given for the sentinel form.
        static: by method name; given for the static form.
        calls: how often the network runs each layer; None is once. What it runs twice on the same input may be there once.
    Raises:
        BackendError: an integer, a scale, a zero_point or a bias differs, or a layer does not run in integers.
    """
    for method in file.methods:
        for node in method.portable:
            if any(word in node.kind for word in PORTABLE_PRODUCTS):
                raise fail(f"{node.kind} runs outside the delegate, in float")
        if static is None:
            _audit_sentinel(method, artifact, calls or {})
        else:
            _audit_static(method, artifact, static[method.name], calls or {})
    if ranges is not None:
        audit_ranges(ranges, artifact)
    return tuple(operations_of(file.methods))


def audit_ranges(ranges: Tensor, artifact: Artifact) -> None:
    """Raise BackendError unless XNNPACK derives exactly the artifact's scale and zero_point from every pair of ends."""
    scale, zero_point = xnnpack_qparams(ranges[:, 0::2], ranges[:, 1::2])
    wrong = (zero_point != artifact.zero_point) | ((scale - artifact.scale).abs() > artifact.scale * 2.0**-23)
    if wrong.any():
        group, site = wrong.nonzero()[0].tolist()
        raise fail(f"ranges of step group {group} do not give the scale and zero_point of {artifact.sites[site].name}")


def _audit_sentinel(method: Method, artifact: Artifact, calls: Mapping[str, int]) -> None:
    seen: Counter[str] = Counter()
    for graph, node in products(method):
        if is_float(graph, node):
            seen[_kept_layer(graph, node, artifact)] += 1
            continue
        entry = entry_of(graph, node, method.inputs[-1:], len(artifact.sites))
        site = artifact.sites[entry.site]
        seen[site.layer] += 1
        check_types(graph, node, site.layer, "qdint8", "fp32")
        weights = artifact.layers[site.layer]
        _check_weights(graph, node, site.layer, weights, entry.high.shape[-1])
        check_planted(graph, node, site.layer, entry, tuple(as_filter(weights.weight_q).shape))
        bias, got = artifact.float_parameters.get(f"{site.layer}.bias"), bias_of(graph, node)
        if (b"" if bias is None else bias.numpy().tobytes()) != (b"" if got is None else got.data):
            raise fail(f"the bias of {site.layer} differs")
    _check_counts(seen, artifact, method.name, calls)


def _audit_static(method: Method, artifact: Artifact, qparams: StaticQParams, calls: Mapping[str, int]) -> None:
    seen: Counter[str] = Counter()
    for graph, node in products(method):
        if is_float(graph, node):
            seen[_kept_layer(graph, node, artifact)] += 1
            continue
        entry = _per_tensor(graph.values[node.fields["input1_id"]])
        result = _per_tensor(graph.values[node.fields["output_id"]])
        for layer, weights in artifact.layers.items():
            if (
                seen[layer] < calls.get(layer, 1)
                and _same_weights(graph, node, weights)
                and entry == qparams.entries[layer]
                and (result == qparams.results[layer])
                and _same_static_bias(graph, node, artifact, layer, qparams)
            ):
                seen[layer] += 1
                check_types(graph, node, layer, "qint8", "qint8")
                break
        else:
            raise fail(
                f"method {method.name} has a {node.kind} whose integers, input and output parameters belong to no layer"
            )
    _check_counts(seen, artifact, method.name, calls)


def _check_counts(seen: Counter[str], artifact: Artifact, method: str, calls: Mapping[str, int]) -> None:
    for layers, kind in ((artifact.layers, "an integer"), (artifact.float_layers, "a float")):
        for layer in layers:
            most = calls.get(layer, 1)
            if not 1 <= seen[layer] <= most:
                raise fail(
                    f"{layer} is in method {method} {seen[layer]} times as {kind} operation, "
                    f"expected {'once' if most == 1 else f'1 to {most} times'}"
                )


def _kept_layer(graph: Graph, node: Node, artifact: Artifact) -> str:
    """The layer kept in float whose weights and bias a product has."""
    value, bias = graph.values[node.fields["filter_id"]], bias_of(graph, node)
    got, got_bias = decode_weights(value, node.kind, np.float32), b"" if bias is None else bias.data
    for layer in artifact.float_layers:
        weight, wanted = artifact.float_parameters[f"{layer}.weight"], artifact.float_parameters.get(f"{layer}.bias")
        # XNNPACK's own lowering of a float Conv1d makes pictures of width 1 of it, ours of integers pictures of height 1.
        same = got.size == weight.numel() and np.array_equal(got.reshape(weight.shape), weight.numpy())
        if same and got_bias == (b"" if wanted is None else wanted.numpy().tobytes()):
            return layer
    raise fail(f"a {node.kind} runs in float that no layer of keep_float is")


def _check_weights(graph: Graph, node: Node, layer: str, weights: LayerWeights, planted: int) -> None:
    value = graph.values[node.fields["filter_id"]]
    got, want = decode_weights(value, node.kind), as_filter(weights.weight_q).numpy()
    channels = want.shape[1]
    if got.shape != (len(want), channels + planted, *want.shape[2:]):
        raise fail(
            f"the weights of {layer} have shape {got.shape}, the artifact's {want.shape}, {planted} planted channels"
        )
    different = int((got[:, :channels] != want).sum()) + int((got[:, channels:] != 0).sum())
    if different:
        raise fail(f"{different} integer weights of {layer} differ from the artifact's")
    if value.scales != weights.weight_scale.numpy().tobytes():
        raise fail(f"a weight scale of {layer} differs from the artifact's")


def _same_weights(graph: Graph, node: Node, weights: LayerWeights) -> bool:
    value = graph.values[node.fields["filter_id"]]
    got = decode_weights(value, node.kind)
    return (
        np.array_equal(got, as_filter(weights.weight_q).numpy())
        and value.scales == weights.weight_scale.numpy().tobytes()
    )


def _same_static_bias(graph: Graph, node: Node, artifact: Artifact, layer: str, qparams: StaticQParams) -> bool:
    """The bias in int32 steps of input scale x weight scale, within half a step (and float32's own rounding)."""
    bias, value = artifact.float_parameters.get(f"{layer}.bias"), bias_of(graph, node)
    if bias is None or value is None:
        return bias is None and value is None
    step = qparams.entries[layer].scale * artifact.layers[layer].weight_scale.to(torch.float64)
    got = torch.frombuffer(bytearray(value.data), dtype=torch.int32).to(torch.float64)
    exact = bias.to(torch.float64) / step
    return value.dtype.endswith("int32") and bool(((got - exact).abs() <= 0.5 + exact.abs() * 2.0**-22).all())


def _per_tensor(value: Value) -> QParams | None:
    if value.quantization is None or value.quantization[0] != "PerTensorQuant":
        return None
    fields = value.quantization[1]
    return QParams(float(fields["scale"]), int(fields["zero_point"]))


def operations_of(methods: Iterable[Method]) -> Iterator[Operation]:
    rows: Counter[tuple[str, str, str, str]] = Counter()
    for method in methods:
        for graph in method.delegates:
            for node in graph.nodes:
                rows[(node.kind, "delegate", *_arithmetic(graph, node))] += 1
        for node in method.portable:
            why = next(
                (text for word, text in _PORTABLE_WHY.items() if word in node.kind), "XNNPACK has no kernel for it"
            )
            rows[node.kind, "portable", "float32", why] += 1
    for name, where, arithmetic, why in sorted(rows, key=lambda row: (row[1], row[2], row[0])):
        yield Operation(name, where, arithmetic, rows[name, where, arithmetic, why], why)


def _arithmetic(graph: Graph, node: Node) -> tuple[str, str]:
    if node.kind in PRODUCTS and is_float(graph, node):
        return "float32", KEPT
    if node.kind in PRODUCTS:
        bits = 4 if graph.values[node.fields["filter_id"]].dtype == "qcint4" else 8
        return f"int8 x int{bits} -> int32", ""
    if node.kind == "BatchMatrixMultiply" and graph.values[node.fields["input2_id"]].external != NOTHING:
        return "float32", NORMALISATION  # by a constant, which comes in from outside: the average of GroupNorm
    why = next((text for text, kinds in _WHY.items() if node.kind in kinds), "between layers")
    return "float32", why
