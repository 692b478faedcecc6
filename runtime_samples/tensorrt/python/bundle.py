"""The exported bundle: bundle.json with its files' hashes checked."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from errors import EXPORT_AGAIN, Refused, one_line
from safetensors_file import Array, parse_json, read_tensors
from samplings import Sampling, as_guidance, as_steps, groups_of, read_samplings
from table import Table, read_table
from values import as_integer, as_list, as_name, as_text

JSON, REFERENCE, RANGES, VECTORS = (
    "bundle.json",
    "reference.safetensors",
    "ranges.safetensors",
    "step_vectors.safetensors",
)
SCHEMA, VERSION = "dq-toolchain/bundle", 1
FIXED_INPUTS = ("sample", "timestep", "ranges", "step_vectors")
"""Inputs of the program that are no conditioning."""
MOST_ELEMENTS = 2**31 - 1
LEAST_AXES = 3
"""Of a sample: (1, C, H, W), or other axes behind the channels, such as (1, C, T)."""
PORT_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "int64": np.dtype(np.int64)}


@dataclass(frozen=True)
class Port:
    """An input or output of the lowered program."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Bundle:
    """What a program uses of bundle.json.

    Attributes:
        folder: of the bundle. sha256: of bundle.json. program: file or folder of the lowered model.
        inputs: in order. output: of the sample's shape.
        group_of_step: step group of every step. group_methods: what to execute, by step group, or one for all.
        ranges: (G, R) float32, the input ``ranges`` of every step group; None if it is no input.
        step_vectors: (N, V) float32, the input ``step_vectors`` of every step; None where ``timestep`` is the input.
        asked: steps of the scheduler, by which ``table`` is named; None where there is no other.
        samplings: other step counts and guidance scales. reference: file of the held-out rollouts of ``table``.
        files: SHA-256 by name of all that was checked.
    """

    folder: Path
    sha256: str
    target: str
    program: str
    inputs: tuple[Port, ...]
    output: Port
    group_of_step: tuple[int, ...]
    group_methods: tuple[str, ...]
    table: Table
    guidance: np.float32
    ranges: Array | None
    step_vectors: Array | None
    asked: int | None
    samplings: tuple[Sampling, ...]
    reference: str
    files: Mapping[str, str]

    @property
    def steps(self) -> int:
        return len(self.group_of_step)

    @property
    def method_of_step(self) -> tuple[str, ...]:
        """What to execute."""
        methods = self.group_methods
        return tuple(methods[group if len(methods) > 1 else 0] for group in self.group_of_step)

    def at(self, steps: int | None, guidance: float | None) -> Bundle:
        """The bundle at one of its step counts and guidance scales; None is the calibrated one.

        Raises:
            Refused: it does not hold it.
        """
        own = Sampling(self.asked or self.steps, self.guidance, self.table, self.group_of_step, self.reference, VECTORS)
        wanted = own.steps if steps is None else steps, float(own.guidance) if guidance is None else guidance
        for each in (own, *self.samplings):
            if each.is_of(*wanted):
                asked = each.steps if self.samplings else None
                file = self.folder / (each.step_vectors or VECTORS)
                try:
                    vectors = _rows(file, self.inputs, "step_vectors", len(each.table.timesteps))
                except ValueError as error:
                    raise Refused(f"{file} is damaged: {one_line(error)}; {EXPORT_AGAIN}") from error
                return replace(
                    self, table=each.table, guidance=each.guidance, group_of_step=each.group_of_step, asked=asked,
                    reference=each.reference, step_vectors=vectors
                )  # fmt: skip
        held = "; ".join(each.name for each in (own, *self.samplings))
        raise Refused(
            f"--steps, --guidance: got {wanted[0]} steps, guidance {wanted[1]:g}, the bundle holds {held}; choose of these, or "
            "export with others"
        )

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
    table, inputs = read_table(data["table"]), tuple(_port(row) for row in as_list(data["inputs"], "inputs"))
    outputs = [_port(row) for row in as_list(data["outputs"], "outputs")]
    groups = groups_of(data, len(table.timesteps))
    if not all(groups):
        raise ValueError("step_groups must hold no empty group")
    methods = [as_name(name, "methods") for name in as_list(data["methods"], "methods")]
    if len(methods) not in (1, len(groups)):
        raise ValueError("methods must be one, or one per step group")
    sample = _check_ports(inputs, outputs)
    files = data["files"]
    takes_vectors = any(port.name == "step_vectors" for port in inputs)
    samplings = read_samplings(data, len(groups), takes_vectors)
    for correction in (each.correction for each in (table, *(sampling.table for sampling in samplings))):
        if correction is not None and sample.shape[1:2] != (correction.channels,):
            raise ValueError(
                f"correction must have a number for each channel of the sample, {list(sample.shape)}, got "
                f"{correction.channels}"
            )
    named = [(what, getattr(each, what)) for each in samplings for what in ("reference", "step_vectors")]
    named += [("ranges", RANGES)] if any(port.name == "ranges" for port in inputs) else []
    named += [("step_vectors", VECTORS)] if takes_vectors else []
    for what, name in named:
        if name is not None and (not _stays_inside(name) or name not in files):
            raise ValueError(f"{what} {name!r} must be in files")
    program = as_text(data["program"], "program")
    if not _stays_inside(program) or not any(file == program or file.startswith(f"{program}/") for file in files):
        raise ValueError("program must be in files")
    group_of_step = tuple(group for group, steps in enumerate(groups) for _ in steps)
    return Bundle(
        folder, digest, as_text(data["target"], "target"), program, inputs, outputs[0], group_of_step,
        tuple(methods), table, as_guidance(data), _rows(folder / RANGES, inputs, "ranges", len(groups)),
        _rows(folder / VECTORS, inputs, "step_vectors", len(table.timesteps)),
        as_steps(data) if samplings else None, samplings, REFERENCE, files)  # fmt: skip


def _check_ports(inputs: tuple[Port, ...], outputs: list[Port]) -> Port:
    """The sample's input. Raises ValueError: inputs or outputs are not what a sampler gives and takes."""
    by_name = {port.name: port for port in inputs}
    if len(by_name) != len(inputs):
        raise ValueError("inputs must have a name each, got one twice")
    sample, timestep, ranges, vectors = (by_name.get(name) for name in FIXED_INPUTS)
    if sample is None or sample.dtype != np.float32 or len(sample.shape) < LEAST_AXES:
        raise ValueError("inputs must list sample, float32 (1, C, ...)")
    if (timestep is None) == (vectors is None):
        raise ValueError("inputs must list either timestep or step_vectors")
    if timestep is not None and (timestep.dtype != np.float32 or timestep.shape != (1,)):
        raise ValueError("input timestep must be float32 (1,)")
    if vectors is not None and (vectors.dtype != np.float32 or len(vectors.shape) != 2):
        raise ValueError("input step_vectors must be float32 (1, V)")
    if ranges is not None and (ranges.dtype != np.float32 or len(ranges.shape) != 2):
        raise ValueError("input ranges must be float32 (1, R)")
    if [(port.dtype, port.shape) for port in outputs] != [(sample.dtype, sample.shape)]:
        raise ValueError("there must be one output, of the sample's shape and dtype")
    return sample


def _port(row: Any) -> Port:
    shape = tuple(as_integer(size, "shape") for size in as_list(row["shape"], "shape"))
    if shape[:1] != (1,) or any(size < 1 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(
            f"shape {list(shape)} of {row['name']!r} is not allowed: batch 1, at most {MOST_ELEMENTS} numbers"
        )
    return Port(as_name(row["name"], "name"), PORT_DTYPES[row["dtype"]], shape)


def _rows(file: Path, inputs: tuple[Port, ...], name: str, count: int) -> Array | None:
    """The rows of an input, (count, width); None if the program has no such input. Raises ValueError: the file is damaged."""
    port = next((port for port in inputs if port.name == name), None)
    if port is None:
        return None
    rows, want = read_tensors(file).get(name), (count, *port.shape[1:])
    if rows is None or rows.shape != want or rows.dtype != np.float32 or not np.isfinite(rows).all():
        raise ValueError(f"{file.name} must hold float32 {name!r} of shape {want}, all finite")
    return rows
