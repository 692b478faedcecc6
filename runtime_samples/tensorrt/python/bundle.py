"""The exported bundle: bundle.json with its files' hashes checked, the sampler's table and the held-out reference."""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from correction import Correction, read_correction
from errors import EXPORT_AGAIN, Refused, one_line
from safetensors_file import Array, Floats, parse_json, read_tensors

JSON, REFERENCE, RANGES = "bundle.json", "reference.safetensors", "ranges.safetensors"
SCHEMA, VERSION = "dq-toolchain/bundle", 1
FIXED_INPUTS = ("sample", "timestep", "ranges")
"""Inputs of the program that are no conditioning."""
MOST_ELEMENTS, MOST_GUIDANCE = 2**31 - 1, 1e6
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
        with os.fdopen(
            os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb"
        ) as stream:  # a FIFO is not waited on
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Refused(f"cannot read {path}: it is no regular file; {EXPORT_AGAIN}")
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
        if want is not None and (data.get(key) != want or type(data.get(key)) is not type(want)):
            raise Refused(
                one_line(f"{path}: {key} is {data.get(key)!r}, this program takes {want!r}; give it such a bundle")
            )
    try:
        _check_hashes(folder, data["files"])
        return _parse(folder, digest, data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise Refused(f"{path} is damaged: {type(error).__name__} {one_line(error)}; {EXPORT_AGAIN}") from error


def _check_hashes(folder: Path, files: Any) -> None:
    if not isinstance(files, dict) or not all(isinstance(want, str) for want in files.values()):
        raise ValueError("files must be an object of SHA-256 by file name")
    for name, want in files.items():
        if not _stays_inside(name):
            raise ValueError(f"file {name!r} is not inside the bundle")
        path = folder
        for part in name.split("/"):
            path = path / part
            if path.is_symlink():
                raise ValueError(f"{path} is a link, it must be a file of the bundle's own")
        if not path.is_file():
            raise Refused(one_line(f"cannot read {path}: it is missing or no file; {EXPORT_AGAIN}"))
        if sha256(path) != want:
            raise Refused(one_line(f"{path} is not the file that was exported (SHA-256 differs); {EXPORT_AGAIN}"))
    if REFERENCE not in files:
        raise ValueError(f"{REFERENCE} is not in files")


def _stays_inside(name: str) -> bool:
    """Whether a name is one of a file in its folder, on every system."""
    return (
        not any(part in ("", ".", "..") for part in name.split("/"))
        and name.isprintable()
        and not set("\\:") & set(name)
    )


def _parse(folder: Path, digest: str, data: Mapping[str, Any]) -> Bundle:
    table, inputs = _table(data["table"]), tuple(_port(row) for row in _list(data["inputs"], "inputs"))
    outputs = [_port(row) for row in _list(data["outputs"], "outputs")]
    listed = _list(data["step_groups"], "step_groups")
    groups = [[_integer(step, "step_groups") for step in _list(steps, "step_groups")] for steps in listed]
    if [step for steps in groups for step in steps] != list(range(len(table.timesteps))) or not all(groups):
        raise ValueError(
            f"step_groups must list the steps 0-{len(table.timesteps) - 1} in order, each once, and no empty group"
        )
    methods = [_name(name, "methods") for name in _list(data["methods"], "methods")]
    if len(methods) not in (1, len(groups)):
        raise ValueError("methods must be one, or one per step group")
    sample = _check_ports(inputs, outputs)
    if table.correction is not None and sample.shape[1:2] != (table.correction.channels,):
        raise ValueError(
            f"correction must have a number for each channel of the sample, {list(sample.shape)}, got "
            f"{table.correction.channels}"
        )
    program, guidance = _text(data["program"], "program"), _number(data["guidance"], "guidance")
    if not _stays_inside(program) or not any(
        file == program or file.startswith(f"{program}/") for file in data["files"]
    ):
        raise ValueError("program must be in files")
    if not abs(guidance) <= MOST_GUIDANCE:
        raise ValueError(f"guidance must be within a million, got {guidance}")
    group_of_step = tuple(group for group, steps in enumerate(groups) for _ in steps)
    return Bundle(
        folder, digest, _text(data["target"], "target"), program, inputs, outputs[0], group_of_step,
        tuple(methods[group if len(methods) > 1 else 0] for group in group_of_step), table, np.float32(guidance),
        _ranges(folder, data["files"], inputs, len(groups)))  # fmt: skip


def _check_ports(inputs: tuple[Port, ...], outputs: list[Port]) -> Port:
    """The sample's input. Raises ValueError: inputs or outputs are not what a sampler gives and takes."""
    by_name = {port.name: port for port in inputs}
    if len(by_name) != len(inputs):
        raise ValueError("inputs must have a name each, got one twice")
    sample, timestep, ranges = (by_name.get(name) for name in FIXED_INPUTS)
    if sample is None or sample.dtype != np.float32 or len(sample.shape) != 4:
        raise ValueError("inputs must list sample, float32 (1, C, H, W)")
    if timestep is None or timestep.dtype != np.float32 or timestep.shape != (1,):
        raise ValueError("inputs must list timestep, float32 (1,)")
    if ranges is not None and (ranges.dtype != np.float32 or len(ranges.shape) != 2):
        raise ValueError("input ranges must be float32 (1, R)")
    if [(port.dtype, port.shape) for port in outputs] != [(sample.dtype, sample.shape)]:
        raise ValueError("there must be one output, of the sample's shape and dtype")
    return sample


def _port(row: Any) -> Port:
    shape = tuple(_integer(size, "shape") for size in _list(row["shape"], "shape"))
    if shape[:1] != (1,) or any(size < 1 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(
            f"shape {list(shape)} of {row['name']!r} is not allowed: batch 1, at most {MOST_ELEMENTS} numbers"
        )
    return Port(_name(row["name"], "name"), PORT_DTYPES[row["dtype"]], shape)


# JSON says what it means; Python's int(), float() and str() would take text for numbers and numbers for text.
def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list, got {type(value).__name__}")
    return value


def _integer(value: Any, what: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{what} must be integers, got {value!r}")
    return value


def _number(value: Any, what: str) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{what} must be a number, got {value!r}")
    return float(value)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {value!r}")
    return value


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(f"{what} must be a plain name of letters, digits, _ . and -, got {value!r}")
    return value


def _table(row: Any) -> Table:
    def numbers(values: Any) -> Floats:
        given = np.asarray(
            [_number(value, "the table's entries") for value in _list(values, "a row of the table")], np.float64
        )
        with np.errstate(over="ignore"):  # refused below
            found: Floats = given.astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the table holds a number that is not finite in float32")
        return found

    a, b = (tuple(numbers(values) for values in _list(row[name], name)) for name in ("a", "b"))
    timesteps = numbers(row["timesteps"])
    steps = len(timesteps)
    correction = read_correction(row["correction"], steps) if "correction" in row else None
    table = Table(timesteps, numbers(row["input_scale"]), a, b, numbers(row["c"]), correction)
    if not steps or {len(table.input_scale), len(a), len(b), len(table.c)} != {steps}:
        raise ValueError("timesteps, input_scale, a, b and c of the table must have one entry per step")
    if any(len({len(values) for values in rows}) != 1 or not len(rows[0]) for rows in (a, b)):
        raise ValueError("rows of a, and of b, must have as many numbers each, 1 or more")
    for k in range(steps):
        if table.a[k][k + 1 :].any() or table.b[k][k + 1 :].any():
            raise ValueError(f"step {k} of the table needs latents or outputs from before the start")
    return table


def _ranges(folder: Path, files: Mapping[str, str], inputs: tuple[Port, ...], groups: int) -> Array | None:
    port = next((port for port in inputs if port.name == "ranges"), None)
    if port is None:
        return None
    if RANGES not in files:
        raise ValueError(f"{RANGES} is not in files")
    ranges, want = read_tensors(folder / RANGES).get("ranges"), (groups, *port.shape[1:])
    if ranges is None or ranges.shape != want or ranges.dtype != np.float32 or not np.isfinite(ranges).all():
        raise ValueError(f"{RANGES} must hold float32 'ranges' of shape {want}, all finite")
    return ranges
