"""The planted values of a layer's input: what the lowering plants passes, and nothing that leaves a range to the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from dq_toolchain.backends.executorch.graph.layers import BEYOND
from dq_toolchain.backends.executorch.proof.audit import audit
from dq_toolchain.backends.executorch.proof.planted import check_planted
from dq_toolchain.backends.executorch.proof.pte_file import NOTHING, Graph, Node, PteFile, Value, read_pte
from dq_toolchain.backends.executorch.proof.trace import entry_of
from dq_toolchain.toolchain.errors import BackendError
from tests.backends.executorch.conftest import Lowered
from tests.backends.executorch.damaged import before, planted_of, product_of, with_node, with_values

Floats = npt.NDArray[np.float32]
POINTWISE = "up_blocks.0.resnets.0.conv_shortcut.parts.1"
KERNEL3, LINEAR = "down_blocks.0.resnets.0.conv1", "time_embedding.linear_2"
RANGES, DATA, OUT = 0, 1, 20


def _planes(*ends: float, side: int = 4) -> Floats:
    """(1, side, side, channels), channels filled with ``ends``."""
    return np.broadcast_to(np.asarray(ends, np.float32), (1, side, side, len(ends))).copy()


def _corner(planes: Floats) -> Floats:
    planes[0, 0, 0, 0] *= -1
    return planes


def _check(planted: Floats, shape: tuple[int, ...], dims: int) -> None:
    """A layer of one site whose data are joined with ``planted``, as XNNPACK reads them, and clamped."""

    def value(size: tuple[int, ...] = (), data: bytes = b"", dtype: str = "fp32") -> Value:
        return Value(dtype, size, data, NOTHING, ("PerTokenDynamicQuant", {"num_nonbatch_dims": dims}), b"")

    ends = [{"input_id": RANGES, "output_id": 3 + end, "offsets": [0, end], "sizes": [1, 1]} for end in (0, 1)]
    product = Node("FullyConnected" if len(shape) == 2 else "Conv2d", {"input1_id": 8, "output_id": OUT})
    nodes = (
        *(Node("StaticSlice", fields) for fields in ends),
        Node("Concatenate2", {"axis": planted.ndim - 1, "input1_id": DATA, "input2_id": 2, "output_id": 5}),
        Node("Maximum", {"input1_id": 5, "input2_id": 3, "output_id": 6}),
        Node("Minimum", {"input1_id": 6, "input2_id": 4, "output_id": 7}),
        Node("Convert", {"input_id": 7, "output_id": 8}),
        product,
    )
    values = {
        RANGES: value((1, 2)),
        DATA: value(),
        2: value(planted.shape, planted.tobytes()),
        8: value(dtype="qdint8"),
    }
    graph = Graph(values, nodes, {node.fields["output_id"]: node for node in nodes})
    check_planted(graph, product, "layer", entry_of(graph, product, [RANGES], 1), shape)


SHAPES = {"3x3": (8, 4, 3, 3), "1x1": (8, 4, 1, 1), "linear": (8, 4), "odd linear": (8, 3)}
TOKENS = np.asarray([-BEYOND, BEYOND], np.float32).repeat(6).reshape(2, 1, 6).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("layer", "planted"),
    [
        ("3x3", _corner(_planes(BEYOND))),
        ("3x3", _planes(-BEYOND, BEYOND, side=1)),
        ("1x1", _planes(-BEYOND, BEYOND)),
        ("linear", TOKENS),
        ("odd linear", np.concatenate([TOKENS, TOKENS[..., 1:]], -1)),
    ],
)
def test_both_ends_wherever_a_range_is_taken_pass(layer: str, planted: Floats) -> None:
    _check(planted, SHAPES[layer], 1 if planted.ndim == 3 else 3)


@pytest.mark.parametrize(
    ("layer", "planted", "text"),
    [
        ("1x1", _planes(0.0), "a planted value is no end of the range"),
        ("1x1", _corner(_planes(BEYOND)), "a pixel of the input of layer does not hold both ends"),
        ("1x1", _corner(_planes(-BEYOND, BEYOND)), "a pixel of the input of layer does not hold both ends"),
        ("1x1", _planes(-BEYOND, BEYOND, BEYOND), "3 channels are planted in the input of layer, expected 2"),
        ("3x3", _planes(BEYOND), "a picture of the input of layer does not hold both ends"),
        ("3x3", _planes(-BEYOND, BEYOND), "2 channels are planted in the input of layer, expected 1"),
        ("3x3", _corner(_planes(1e6)), "a planted value is no end of the range"),
        ("linear", TOKENS[..., :1], "a row of the input of layer does not hold both ends"),
        ("odd linear", TOKENS, "2 channels are planted in the input of layer, expected 3"),
    ],
)
def test_a_range_that_is_left_to_the_data_is_refused(layer: str, planted: Floats, text: str) -> None:
    with pytest.raises(BackendError, match=text):
        _check(planted, SHAPES[layer], 1 if planted.ndim == 3 else 3)


def test_a_range_over_other_dimensions_is_refused() -> None:
    with pytest.raises(BackendError, match="the range of layer is taken over 1 dimensions of its input, expected 3"):
        _check(_corner(_planes(BEYOND)), SHAPES["3x3"], 1)


@pytest.fixture(scope="module")
def file(small: Lowered) -> PteFile:
    return read_pte(small[4] / "model.pte")


@pytest.mark.parametrize("layer", [POINTWISE, KERNEL3, LINEAR])
@pytest.mark.parametrize("change", [np.zeros_like, np.abs, lambda x: -np.abs(x), lambda x: x * np.float32(1e-35)])
def test_other_planted_values_in_a_file_are_refused(
    layer: str, change: Callable[[Floats], Floats], file: PteFile, small: Lowered
) -> None:
    graph, node = product_of(file, small[0].layers[layer])
    number, old = planted_of(graph, node)
    data = change(np.frombuffer(old.data, np.float32)).tobytes()
    with pytest.raises(BackendError, match=r"no end of the range|does not hold both ends"):
        audit(with_values(file, {number: replace(old, data=data)}), small[0])


def test_one_planted_channel_before_a_1x1_convolution_of_a_file_is_refused(file: PteFile, small: Lowered) -> None:
    """Such a program runs, and its error against FP32 is of the simulation's size."""
    graph, node = product_of(file, small[0].layers[POINTWISE])
    (number, planted), weights = planted_of(graph, node), node.fields["filter_id"]
    old = graph.values[weights]
    integers = np.frombuffer(old.data, np.int8).reshape(old.dims)[..., :-1]
    changed = {
        number: replace(planted, dims=(1, 1, *planted.dims[2:]), data=planted.data[: len(planted.data) // 2]),
        weights: replace(old, dims=integers.shape, data=integers.tobytes()),
    }
    with pytest.raises(BackendError, match=f"a pixel of the input of {POINTWISE} does not hold both ends"):
        audit(with_values(file, changed), small[0])


def test_wiring_to_other_ends_or_another_input_is_refused(file: PteFile, small: Lowered) -> None:
    artifact, method = small[0], file.methods[0]
    graph, node = product_of(file, artifact.layers[POINTWISE])
    low, high = (before(graph, node, kind).fields["input2_id"] for kind in ("Maximum", "Minimum"))
    with pytest.raises(BackendError, match="not clamped to both ends of one site"):
        audit(with_node(file, before(graph, node, "Maximum"), input2_id=high), artifact)
    both = with_node(file, before(graph, node, "Minimum"), input2_id=low)
    with pytest.raises(BackendError, match="not clamped to both ends of one site"):
        audit(both, artifact)
    elsewhere = replace(method, inputs=method.inputs[:1])
    with pytest.raises(BackendError, match="cannot be traced to the ranges"):
        audit(replace(file, methods=(elsewhere,)), artifact)
