"""What Qualcomm's compiler was given for each operation, as ``dump_json_qnn_graph`` writes it: types, scales and offsets.

Names: a QNN operation has the name of the ONNX node that it was made of, so a product's name is its site's. ONNX Runtime turns
convolutions into channels-last form first and gives the new node a unique name, the old one with ``_token_`` and a number behind. A
quantizer that was merged into the product leaves its name on the tensor, not on an operation. ``ops_of`` knows both forms.

The scales of per-channel weights are garbage in that file (pointers into a union); those are audited in the ONNX file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.disk.reading import read_json
from dq_toolchain.toolchain.errors import BackendError

OPTIONS = "dump_json_qnn_graph", "json_qnn_graph_dir"
SCALE_OFFSET = 0
"""``encoding`` of a tensor with one scale (Qnn_QuantizationEncoding_t)."""
DTYPES = {
    0x0304: "int4", 0x0308: "int8", 0x0316: "int16", 0x0332: "int32", 0x0404: "uint4", 0x0408: "uint8", 0x0416: "uint16",
    0x0432: "uint32", 0x0216: "float16", 0x0232: "float32",
}  # fmt: skip
"""Qnn_DataType_t of what takes part in products; 0x03 and 0x04 are quantized (fixed point)."""
_SUFFIX = r"(_token_\d+)?"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the compiled graph. ``scale`` and ``zero_point`` are None where it has none, or one per channel."""

    name: str
    dtype: str
    scale: float | None
    zero_point: int | None

    @property
    def is_integer(self) -> bool:
        return self.dtype.startswith(("int", "uint"))


@dataclass(frozen=True)
class Op:
    """An operation of the compiled graph; ``kind`` is QNN's word, such as Conv2d, FullyConnected or MatMul."""

    name: str
    kind: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def __str__(self) -> str:
        ins, outs = (", ".join(tensor.dtype for tensor in side) for side in (self.inputs, self.outputs))
        return f"{self.kind}({ins}) -> {outs}"


def provider_options(folder: Path) -> dict[str, str]:
    """What makes the provider write its file into a folder, which has to exist."""
    return dict(zip(OPTIONS, ("1", str(folder)), strict=True))


def read_dump(folder: Path) -> tuple[Op, ...]:
    """The operations of the graph that was compiled with ``provider_options(folder)``.

    Raises:
        BackendError: there is not one file, or it has another form than that of the version that this was written for.
    """
    files = sorted(path for path in folder.glob("*.json") if not path.name.endswith("_tensor_log.json"))
    if len(files) != 1:
        raise BackendError(
            f"Qualcomm's compiler made {len(files)} graphs of one (expected 1), so not all of it is on the NPU; nothing was "
            "exported; report it with calibration.json"
        )
    try:
        graph = read_json(files[0], error=BackendError, remedy="export again")["graph"]
        tensors = {name: _tensor(name, given) for name, given in graph["tensors"].items()}
        return tuple(_ops(graph["nodes"], tensors))
    except (KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"the graph that Qualcomm's compiler wrote has another form than that of version 2.7.0 ({error!r}); install the "
            "version that the extra [qnn] names"
        ) from error


def _tensor(name: str, given: Mapping[str, Any]) -> TensorInfo:
    code, params = int(given["data_type"]), given["quant_params"]
    dtype = DTYPES.get(code, hex(code))
    single = dtype.startswith(("int", "uint")) and int(params["encoding"]) == SCALE_OFFSET
    place = params["scale_offset"]
    return TensorInfo(name, dtype, float(place["scale"]) if single else None, -int(place["offset"]) if single else None)


def _ops(nodes: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Iterator[Op]:
    for name, node in nodes.items():
        ins, outs = (tuple(tensors[each] for each in node[side]) for side in ("input_names", "output_names"))
        yield Op(name, str(node["type"]), ins, outs)


def ops_of(ops: tuple[Op, ...], node: str) -> tuple[Op, ...]:
    """The operations that were made of an ONNX node, by its name."""
    pattern = re.compile(re.escape(node) + _SUFFIX)
    return tuple(op for op in ops if pattern.fullmatch(op.name))
