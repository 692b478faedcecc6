"""The exported bundle: bundle.json with its files' hashes checked, the sampler's table and the held-out reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from correction import Correction, read_correction
from errors import EXPORT_AGAIN, Refused, one_line
from safetensors_file import Array, Floats, parse_json, read_tensors

JSON, REFERENCE, RANGES = "bundle.json", "reference.safetensors", "ranges.safetensors"
SCHEMA, VERSION = "dq-toolchain/bundle", 1
PORT_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "int64": np.dtype(np.int64)}


@dataclass(frozen=True)
class Port:
    """An input or output of the lowered program."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """The sampler's coefficients, float32. N steps.

    Attributes:
        timesteps, input_scale, c: (N,). a, b: a row per step, newest first. correction: around the network, None for nothing.
    """

    timesteps: Floats
    input_scale: Floats
    a: tuple[Floats, ...]
    b: tuple[Floats, ...]
    c: Floats
    correction: Correction | None


@dataclass(frozen=True)
class Bundle:
    """What a program uses of bundle.json.

    Attributes:
        folder: of the bundle. sha256: of bundle.json. program: file or folder of the lowered model.
        inputs: in order. output: of the sample's shape.
        group_of_step: step group of every step. method_of_step: what to execute.
        ranges: (G, R) float32, the input ``ranges`` of every step group; None if it is no input.
    """

    folder: Path
    sha256: str
    target: str
    program: str
    inputs: tuple[Port, ...]
    output: Port
    group_of_step: tuple[int, ...]
    method_of_step: tuple[str, ...]
    table: Table
    guidance: np.float32
    ranges: Array | None

    @property
    def steps(self) -> int:
        return len(self.group_of_step)

    @property
    def methods(self) -> tuple[str, ...]:
        """Each once, in the order in which they come."""
        return tuple(dict.fromkeys(self.method_of_step))


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises Refused: it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}; {EXPORT_AGAIN}") from error
    return digest.hexdigest()


def read_bundle(folder: Path, target: str | None) -> Bundle:
    """Read bundle.json and check every file that it names.

    Args:
        target: the only one accepted; None takes any.
    Raises:
        Refused: missing, damaged or edited, of another schema, version or target.
    """
    path = folder / JSON
    digest = sha256(path)
    data = parse_json(path.read_bytes(), path)
    for key, want in (("schema", SCHEMA), ("schema_version", VERSION), ("target", target)):
        if want is not None and data.get(key) != want:
            raise Refused(one_line(f"{path}: {key} is {data.get(key)!r}, this program takes {want!r}; give it such a bundle"))
    try:
        _check_hashes(folder, data["files"])
        return _parse(folder, digest, data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise Refused(f"{path} is damaged: {type(error).__name__} {one_line(error)}; {EXPORT_AGAIN}") from error


def _check_hashes(folder: Path, files: Mapping[str, str]) -> None:
    for name, want in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"file {name!r} is not inside the bundle")
        if sha256(folder / name) != want:
            raise Refused(one_line(f"{folder / name} is not the file that was exported (SHA-256 differs); {EXPORT_AGAIN}"))
    if REFERENCE not in files:
        raise ValueError(f"{REFERENCE} is not in files")


def _parse(folder: Path, digest: str, data: Mapping[str, Any]) -> Bundle:
    table, inputs = _table(data["table"]), tuple(_port(row) for row in data["inputs"])
    outputs = [_port(row) for row in data["outputs"]]
    groups = [[int(step) for step in steps] for steps in data["step_groups"]]
    group_of = {step: group for group, steps in enumerate(groups) for step in steps}
    if sorted(step for steps in groups for step in steps) != list(range(len(table.timesteps))):
        raise ValueError(f"step_groups must list the steps 0-{len(table.timesteps) - 1}, each once")
    methods = [str(name) for name in data["methods"]]
    if len(methods) not in (1, len(groups)) or any(PurePosixPath(name).name != name or not name.isprintable() for name in methods):
        raise ValueError("methods must be one plain name, or one per step group")
    if [port.name for port in inputs][:2] != ["sample", "timestep"] or [port.shape for port in outputs] != [inputs[0].shape]:
        raise ValueError("inputs must begin with sample and timestep, and one output must have the sample's shape")
    if table.correction is not None and inputs[0].shape[1:2] != (table.correction.channels,):
        raise ValueError(f"correction must have a number for each channel of the sample, {list(inputs[0].shape)}, got "
                         f"{table.correction.channels}")
    program, guidance = str(data["program"]), np.float32(data["guidance"])
    if not any(file == program or file.startswith(f"{program}/") for file in data["files"]) or not np.isfinite(guidance):
        raise ValueError("program must be in files, and guidance finite")
    group_of_step = tuple(group_of[step] for step in range(len(group_of)))
    return Bundle(
        folder, digest, str(data["target"]), program, inputs, outputs[0], group_of_step,
        tuple(methods[group if len(methods) > 1 else 0] for group in group_of_step), table, guidance,
        _ranges(folder, data["files"], inputs, len(groups)))  # fmt: skip


def _port(row: Mapping[str, Any]) -> Port:
    shape = tuple(int(size) for size in row["shape"])
    if any(size < 1 for size in shape) or math.prod(shape) > 1 << 40:
        raise ValueError(f"shape {list(shape)} of {row['name']} is not allowed")
    return Port(str(row["name"]), PORT_DTYPES[row["dtype"]], shape)


def _table(row: Mapping[str, Any]) -> Table:
    def numbers(values: Any) -> Floats:
        with np.errstate(over="ignore"):  # refused below
            found = np.asarray(values, np.float64).reshape(-1).astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the table holds a number that is not finite in float32")
        return found

    a, b = (tuple(numbers(values) for values in row[name]) for name in ("a", "b"))
    timesteps = numbers(row["timesteps"])
    steps = len(timesteps)
    correction = read_correction(row["correction"], steps) if "correction" in row else None
    table = Table(timesteps, numbers(row["input_scale"]), a, b, numbers(row["c"]), correction)
    if not steps or {len(table.input_scale), len(a), len(b), len(table.c)} != {steps}:
        raise ValueError("timesteps, input_scale, a, b and c of the table must have one entry per step")
    for k in range(steps):
        if table.a[k][k + 1:].any() or table.b[k][k + 1:].any():
            raise ValueError(f"step {k} of the table needs latents or outputs from before the start")
    return table


def _ranges(folder: Path, files: Mapping[str, str], inputs: tuple[Port, ...], groups: int) -> Array | None:
    port = next((port for port in inputs if port.name == "ranges"), None)
    if port is None:
        return None
    if RANGES not in files:
        raise ValueError(f"{RANGES} is not in files")
    ranges, want = read_tensors(folder / RANGES).get("ranges"), (groups, *port.shape[1:])
    if ranges is None or ranges.shape != want or ranges.dtype != np.float32:
        raise ValueError(f"{RANGES} must hold float32 'ranges' of shape {want}")
    return ranges
