"""The exported bundle: what is copied to the device, described by bundle.json (docs/FORMATS.md).

Backends write it, ``run`` and ``validate`` read it; the file is written last, so a partial folder never loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.toolchain.disk.files import (
    check_hashes,
    check_seal,
    read_json,
    read_tensors,
    seal,
    sha256,
    write_json,
)
from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.formats.bundle_checks import (
    STEP_VECTORS,
    file_fault,
    plain_name,
    ports_fault,
    reference_checks,
    samplings_fault,
    sites_fault,
)
from dq_toolchain.toolchain.formats.reference import FILE as REFERENCE
from dq_toolchain.toolchain.formats.reference import Reference
from dq_toolchain.toolchain.formats.schemas import first_fault
from dq_toolchain.toolchain.sampler.samplings import Sampling
from dq_toolchain.toolchain.sampler.step_groups import StepGroups, check_step_groups
from dq_toolchain.toolchain.sampler.table import SamplerTable

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA, VERSION = "dq-toolchain/bundle", 1
JSON = "bundle.json"
RANGES = "ranges.safetensors"
REMEDY = "run `dq-toolchain export` again"


@dataclass(frozen=True)
class Port:
    """An input or output of the lowered program: ``dtype`` is "float32" or "int64"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A row of the table of operations of one lowered program.

    Attributes:
        name: the runtime's word for the operation. count: over all methods.
        where: what executes it, e.g. "delegate", "portable" or "engine". arithmetic: e.g. "int8 x int8 -> int32" or "float32".
        why: what keeps it from running in integers or in the delegate; empty if nothing does.
    """

    name: str
    where: str
    arithmetic: str
    count: int
    why: str


@dataclass(frozen=True)
class OtherSampling:
    """A further sampler that a device may choose. ``reference``: file of its held-out rollouts. ``limits``: of ``validate``.
    ``step_vectors``: file of what the program takes in the place of the timestep; None: it takes the timestep."""

    sampling: Sampling
    reference: str
    limits: Mapping[str, Any]
    step_vectors: str | None = None

    def to_json(self) -> dict[str, Any]:
        vectors = {} if self.step_vectors is None else {"step_vectors": self.step_vectors}
        return {**self.sampling.to_json(), "reference": self.reference, "limits": dict(self.limits), **vectors}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OtherSampling:
        return cls(Sampling.from_json(data), str(data["reference"]), dict(data["limits"]), data.get("step_vectors"))


@dataclass(frozen=True)
class Bundle:
    """The content of bundle.json.

    Attributes:
        target, form: backend name and the form it was lowered in.
        model_id, weight_hash: copied from the artifact, for reports.
        versions: libraries that lowered it.
        program: file or folder name of the lowered model.
        inputs, outputs: of every method, in order.
        methods: one per step group, or one for all; ``method_of_step`` resolves it.
        limits: of ``validate``.
        operations: what runs in integers, what in float, and why.
        sites: every quantized tensor with bits, scheme and range per step group (``site_rows``).
        sizes: bytes by file name. files: sha256 by file name; of a folder, every file in it.
        steps: of the scheduler, by which a device names the calibrated table; only with ``samplings``.
        samplings: other step counts and guidance scales; ``at`` gives the bundle as a device uses it at one of them.
        reference_file, step_vectors_file: of ``table``.
    """

    target: str
    form: str
    model_id: str
    weight_hash: str
    versions: Mapping[str, str]
    program: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    step_groups: StepGroups
    methods: tuple[str, ...]
    table: SamplerTable
    guidance: float
    limits: Mapping[str, Any]
    operations: tuple[Operation, ...]
    sites: tuple[Mapping[str, Any], ...]
    sizes: Mapping[str, int]
    files: Mapping[str, str]
    steps: int | None = None
    samplings: tuple[OtherSampling, ...] = ()
    reference_file: str = field(default=REFERENCE, compare=False)
    step_vectors_file: str = field(default=STEP_VECTORS, compare=False)

    @property
    def group_of_step(self) -> tuple[int, ...]:
        """step -> step group index."""
        return tuple(g for g, steps in enumerate(self.step_groups) for _ in steps)

    def method_of_step(self, k: int) -> str:
        """Name of the method that network call k executes."""
        return self.methods[self.group_of_step[k] if len(self.methods) > 1 else 0]

    def at(self, steps: int | None = None, guidance: float | None = None) -> Bundle:
        """The bundle with the table, step groups, guidance, limits and reference of one of its samplers.

        Args:
            steps, guidance: None is the calibrated one.
        Raises:
            SamplerError: the bundle does not hold it; the text names those that it holds.
        """
        own = self.table.calls if self.steps is None else self.steps
        calibrated = Sampling(own, self.guidance, self.table, self.step_groups)
        wanted = (own if steps is None else steps, self.guidance if guidance is None else guidance)
        if calibrated.is_of(*wanted):
            return self
        found = next((each for each in self.samplings if each.sampling.is_of(*wanted)), None)
        if found is None:
            held = "; ".join(each.name for each in (calibrated, *(other.sampling for other in self.samplings)))
            raise SamplerError(
                f"--steps, --guidance: got {wanted[0]} steps, guidance {wanted[1]:g}, the bundle holds {held}; choose of these, or "
                "export with others (--steps, --guidance)"
            )
        sampling = found.sampling
        return replace(
            self, table=sampling.table, guidance=sampling.guidance, step_groups=sampling.step_groups, limits=found.limits,
            steps=sampling.steps, reference_file=found.reference, step_vectors_file=found.step_vectors or STEP_VECTORS
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write bundle.json. Raises ToolchainError."""
        content = {"schema": SCHEMA, "schema_version": VERSION, **asdict(self), "table": self.table.to_json()}
        del content["reference_file"], content["step_vectors_file"], content["steps"], content["samplings"]
        if self.samplings:
            content |= {"steps": self.steps, "samplings": [each.to_json() for each in self.samplings]}
        write_json(folder / JSON, seal(content))

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read bundle.json, check that its parts belong together, and compare every file it names with its hash.

        Raises:
            ArtifactError: missing, damaged, edited or of another schema version, or a file leads out of the folder or is no
                regular file; the text names the file.
        """
        path = folder / JSON
        data = read_json(path, SCHEMA, VERSION, REMEDY)
        check_seal(path, data, REMEDY)
        fault = first_fault("bundle", data)
        if fault is not None:
            raise ArtifactError(f"{path} is damaged: {fault}; {REMEDY}")
        try:
            bundle = cls(
                target=str(data["target"]),
                form=str(data["form"]),
                model_id=str(data["model_id"]),
                weight_hash=str(data["weight_hash"]),
                versions=dict(data["versions"]),
                program=str(data["program"]),
                inputs=_ports(data["inputs"]),
                outputs=_ports(data["outputs"]),
                step_groups=tuple(tuple(map(int, steps)) for steps in data["step_groups"]),
                methods=tuple(map(str, data["methods"])),
                table=SamplerTable.from_json(data["table"]),
                guidance=float(data["guidance"]),
                limits=dict(data["limits"]),
                operations=tuple(Operation(**row) for row in data["operations"]),
                sites=tuple(dict(row) for row in data["sites"]),
                sizes=dict(data["sizes"]),
                files=dict(data["files"]),
                steps=data.get("steps"),
                samplings=tuple(map(OtherSampling.from_json, data.get("samplings", ()))),
            )
        except (KeyError, TypeError, ValueError, AttributeError, SamplerError) as error:
            text = " ".join(str(error).split())[:300]
            raise ArtifactError(f"{path} is damaged: {type(error).__name__} {text}; {REMEDY}") from error
        bundle._check(path)
        fault = file_fault(folder, bundle.files, bundle.sizes)
        if fault is not None:
            raise ArtifactError(f"{fault}; {REMEDY}")
        check_hashes(folder, bundle.files, REMEDY)
        return bundle

    def _check(self, path: Path) -> None:
        check_step_groups(self.step_groups, self.table.calls, f"{path}: step groups")
        if not plain_name(self.program):
            raise ArtifactError(f"{path}: program is {self.program[:200]!r}, it must be a name in the folder; {REMEDY}")
        fault = ports_fault(self.inputs, self.outputs) or sites_fault(self.sites, len(self.step_groups))
        if fault is not None:
            raise ArtifactError(f"{path} is damaged: {fault}; {REMEDY}")
        if len(self.methods) not in (1, len(self.step_groups)):
            raise ArtifactError(
                f"{path} has {len(self.methods)} methods for {len(self.step_groups)} step groups, "
                f"allowed are 1 or {len(self.step_groups)}; {REMEDY}"
            )
        correction, shapes = self.table.correction, [port.shape for port in self.outputs]
        if correction is not None and [shape[1:2] for shape in shapes] != [(correction.channels,)]:
            raise ArtifactError(
                f"{path}: the correction has {correction.channels} channels, the output must have as many, got "
                f"{', '.join(map(str, shapes)) or 'no output'}; {REMEDY}"
            )
        takes_vectors = any(port.name == "step_vectors" for port in self.inputs)
        fault = samplings_fault(self.samplings, self.outputs[0].shape[1], len(self.step_groups), takes_vectors)
        if fault is not None:
            raise ArtifactError(f"{path} is damaged: {fault}; {REMEDY}")
        files = {"ranges": RANGES, "step_vectors": STEP_VECTORS}
        taken = [files[port.name] for port in self.inputs if port.name in files]
        taken += [each.step_vectors for each in self.samplings if each.step_vectors is not None]
        references = (REFERENCE, *(each.reference for each in self.samplings))
        for name in (self.program, *references, *taken):
            if not any(file == name or file.startswith(f"{name}/") for file in self.files):
                raise ArtifactError(f"{path} lists no file {name!r}; {REMEDY}")

    def ranges(self, folder: Path) -> Tensor | None:
        """What the program takes as its input ``ranges``, one row per step group; None if it has no such input.

        Raises:
            ArtifactError: the file is missing, its shape or dtype is another, or a number is not finite.
        """
        return self._rows(folder / RANGES, "ranges", len(self.step_groups))

    def step_vectors(self, folder: Path) -> Tensor | None:
        """What the program takes as its input ``step_vectors``, one row per network call; None if it takes the timestep.

        Raises:
            ArtifactError: as ``ranges``.
        """
        return self._rows(folder / self.step_vectors_file, "step_vectors", self.table.calls)

    def _rows(self, file: Path, name: str, count: int) -> Tensor | None:
        width = next((port.shape[-1] for port in self.inputs if port.name == name), None)
        if width is None:
            return None
        rows, want = read_tensors(file, REMEDY).get(name), (count, width)
        if rows is None or tuple(rows.shape) != want or str(rows.dtype) != "torch.float32":
            got = None if rows is None else f"{rows.dtype} {tuple(rows.shape)}"
            raise ArtifactError(f"{file} must hold {name!r} of shape {want}, float32, got {got}; {REMEDY}")
        if not bool(rows.isfinite().all()):
            raise ArtifactError(f"{file}: {name} hold NaN or infinity; {REMEDY}")
        return rows

    def reference(self, folder: Path) -> Reference:
        """The held-out rollouts in the bundle. Raises ArtifactError: damaged, or not of this program."""
        reference = Reference.load(folder / self.reference_file, REMEDY)
        for check in reference_checks(self, reference):
            if not check.passed:
                raise ArtifactError(f"{folder / self.reference_file} does not fit the bundle: {check.detail}; {REMEDY}")
        return reference


def _ports(rows: Any) -> tuple[Port, ...]:
    return tuple(Port(str(row["name"]), str(row["dtype"]), tuple(map(int, row["shape"]))) for row in rows)


def bundle_hash(folder: Path) -> str:
    """sha256 of bundle.json, by which a report names the bundle it ran."""
    return sha256(folder / JSON)
