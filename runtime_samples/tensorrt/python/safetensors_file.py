"""Tensors in a file: safetensors, read with every bound checked, written for the report."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from errors import EXPORT_AGAIN, Refused, one_line

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8"), "I32": np.dtype("<i4")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES, LARGEST_HEADER, MOST_DIMENSIONS = 8, 100_000_000, 16


def parse_json(text: bytes, where: Path) -> dict[str, Any]:
    """A JSON object. Raises Refused: it is no JSON, no object, nested too deep, or has a name twice; NaN is no JSON."""
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where} is damaged: {type(error).__name__} {one_line(error)}; {EXPORT_AGAIN}") from error
    if not isinstance(value, dict):
        raise Refused(f"{where} must hold a JSON object, got {type(value).__name__}; {EXPORT_AGAIN}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in an object")
    return found


def read_tensors(path: Path) -> dict[str, Array]:
    """Tensors by name, read-only and mapped from the file: only what is used takes memory.

    Raises:
        Refused: the file is missing, or its header, an offset, a shape or a dtype is not allowed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(LENGTH_BYTES)
            length = int.from_bytes(start, "little")
            if len(start) < LENGTH_BYTES or length > min(LARGEST_HEADER, size - LENGTH_BYTES):
                raise _damaged(
                    path, f"a header of {length} bytes does not fit in {size} bytes or is larger than {LARGEST_HEADER}"
                )
            header = parse_json(stream.read(length), path)
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}; {EXPORT_AGAIN}") from error
    begin = LENGTH_BYTES + length
    return {name: _tensor(path, name, row, data, begin) for name, row in header.items() if name != "__metadata__"}


def _tensor(path: Path, name: str, row: Any, data: mmap.mmap, begin: int) -> Array:
    """One tensor of a mapped file whose data starts at byte ``begin``."""
    if not isinstance(row, dict) or not {"dtype", "shape", "data_offsets"} <= set(row):
        raise _damaged(path, f"tensor {name!r} needs dtype, shape and data_offsets")
    shape, offsets = row["shape"], row["data_offsets"]
    if not isinstance(row["dtype"], str) or row["dtype"] not in DTYPES:
        raise _damaged(path, f"tensor {name!r} has dtype {row['dtype']!r}, allowed are {', '.join(DTYPES)}")
    if not _sizes(shape) or len(shape) > MOST_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise _damaged(
            path,
            f"tensor {name!r} has shape {shape!r} and data_offsets {offsets!r}, allowed are lists of integers "
            "from 0 up",
        )
    dtype, count = DTYPES[row["dtype"]], math.prod(shape)
    size = count * dtype.itemsize  # Python's integers do not overflow
    first, last = offsets
    if not first <= last <= len(data) - begin or last - first != size:
        raise _damaged(
            path,
            f"tensor {name!r} of shape {shape} takes {size} bytes, its place is {first} to {last} of "
            f"{len(data) - begin}",
        )
    if count == 0:
        return np.zeros(shape, dtype)
    values: Array = np.frombuffer(data, dtype, count, begin + first)
    return values.reshape(tuple(shape))


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _damaged(path: Path, why: str) -> Refused:
    return Refused(one_line(f"{path} is damaged: {why}; {EXPORT_AGAIN}"))


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """A safetensors file of float32, int64 or int32 tensors; the caller renames it."""
    header, end = dict[str, Any](), 0
    for name, tensor in tensors.items():
        dtype = tensor.dtype.newbyteorder("<")
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors begin at a multiple of eight bytes
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for tensor in tensors.values():
            stream.write(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes())
