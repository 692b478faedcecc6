"""An .mlpackage on disk: where its parts lie, and its specification as protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dq_toolchain.backends.coreml.vendor import coremltools, mil_proto
from dq_toolchain.toolchain.disk.files import write_bytes
from dq_toolchain.toolchain.errors import BackendError

MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights")
WEIGHT_FILE = WEIGHTS / "weight.bin"
SUFFIX = ".mlpackage"
PRODUCTS = ("conv", "conv_transpose", "linear")
"""Operations with integer weights."""
STRAY = "executorch_debug_handle_mapping.json"
"""Left in every package by coremltools' torch.export path; nothing reads it."""


def packages_in(program: Path) -> list[Path]:
    """The package itself, or the chunks in a folder, in the order in which they are executed."""
    return [program] if program.suffix == SUFFIX else sorted(program.glob(f"*{SUFFIX}"))


def load_spec(package: Path) -> Any:
    """The Model message of a package."""
    return coremltools().utils.load_spec(str(package))


def save_spec(package: Path, spec: Any) -> None:
    """Replace the Model message of a package. Raises ToolchainError: it cannot be written."""
    write_bytes(package / MODEL, spec.SerializeToString())


def operations_of(function: Any) -> Any:
    """The operations of an ML Program's function, a protobuf list that can be changed."""
    (block,) = function.block_specializations.values()
    return block.operations


def name_of(operation: Any) -> str:
    """The name attribute of an operation."""
    return str(operation.attributes["name"].immediateValue.tensor.strings.values[0])


def scalar_constant(name: str, dtype: str, data: bytes) -> Any:
    """A const operation that holds one number. ``dtype``: FLOAT16, FLOAT32 or INT8; ``data``: its bytes, little-endian."""
    proto = mil_proto()
    kind = proto.DataType.Value(dtype)
    operation = proto.Operation(type="const")
    output = operation.outputs.add(name=name)
    output.type.tensorType.dataType = kind
    text = operation.attributes["name"]
    text.type.tensorType.dataType = proto.DataType.Value("STRING")
    text.immediateValue.tensor.strings.values.append(name)
    value = operation.attributes["val"]
    value.type.tensorType.dataType = kind
    if dtype == "FLOAT32":
        import struct

        value.immediateValue.tensor.floats.values.append(struct.unpack("<f", data)[0])
    else:
        value.immediateValue.tensor.bytes.values = data
    return operation


def function_names(packages: Sequence[Path]) -> tuple[str, ...]:
    """Functions that every package holds. Raises BackendError: one is no ML Program."""
    found: list[set[str]] = []
    for package in packages:
        try:
            found.append(set(load_spec(package).mlProgram.functions))
        except Exception as error:  # protobuf, Core ML Tools and the file system have no common base
            raise BackendError(
                f"{package} cannot be opened: {' '.join(str(error).split())[:300]}; "
                "run `dq-toolchain export --target coreml` again"
            ) from error
    return tuple(sorted(set.intersection(*found))) if found else ()
