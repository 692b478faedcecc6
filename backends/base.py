"""What a target is to the rest of the project: a folder with a ``settings.py``, and four functions in its ``__init__``.

``backends.load(name)`` returns such a module; the command line calls nothing else of a backend. Nothing is imported here that
takes time: listing the targets and their settings reads this module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from dq_toolchain.toolchain.checks import Check
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle, Operation
    from dq_toolchain.toolchain.parts.artifact import PartsArtifact

Say = Callable[[str], None]
"""One line about what is going on; where it goes is the caller's business."""
Execute: TypeAlias = "Callable[[int, Tensor, Tensor, Mapping[str, Tensor]], Tensor]"
"""(k, sample (1, C, H, W), timestep (1,), conditioning) -> network output: one execution of the lowered program, with
what step k needs of methods, functions or ranges. Tensors are float32, labels int64."""


@dataclass(frozen=True)
class Runtime:
    """What executes a bundle: for the report.

    Attributes:
        unit: the compute unit that ran. emulated: the device named in ``device``, whose times and memory are unknown.
    """

    name: str
    version: str
    unit: str
    load_ms: float
    emulated: bool = False
    device: str = ""


@dataclass(frozen=True)
class TargetInfo:
    """What ``dq-toolchain targets`` prints.

    Attributes:
        library: distribution the backend needs. version: the installed one, None if it is missing.
        install: what to type to get it.
        schemes, weight_bits, activation_bits: what the target can hold.
        forms: of [quantize] what it takes together, setting -> allowed values, the best of them first; the best form first.
        verified: where its files were executed and compared.
        any_size: its programs bring a latent back to any size; otherwise both sides are multiples of the downsampling.
    """

    name: str
    library: str
    version: str | None
    install: str
    schemes: tuple[str, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    verified: str
    any_size: bool = False
    forms: tuple[Mapping[str, tuple[Any, ...]], ...] = ({},)


def installed_version(*libraries: str) -> str | None:
    """Version of the first of several distributions, None if one of them is missing."""
    try:
        return [version(library) for library in libraries][0]  # noqa: RUF015, all have to be there
    except PackageNotFoundError:
        return None


class Backend(Protocol):
    """A backend module. Importing it must import neither the vendor's library nor torch.

    Beside it, ``settings.py`` holds ``Settings``, a ``recipe.sections.TargetSection``: the recipe's section that is named after
    the target, and the flags of ``export``.
    """

    def describe(self) -> TargetInfo:
        """Facts about the target, without importing its library."""

    def lower(
        self,
        artifact: Artifact,
        artifact_folder: Path,
        out: Path,
        settings: Any,
        say: Say,
        parts: PartsArtifact | None = None,
    ) -> Bundle:
        """Write the bundle folder, bundle.json last, with what ``common.samplings`` writes of ``artifact.samplings``.

        Args:
            settings: an instance of the target's ``Settings``.
            parts: text encoders and decoder, which ``common.parts`` adds; None: the network alone.
        Raises:
            BackendError: the target cannot hold the artifact.
        """

    def methods(self, bundle: Bundle, bundle_folder: Path) -> Collection[str]:
        """Names of the methods, functions or graphs that the bundle's program holds; none is loaded.

        Raises:
            BackendError: the program cannot be opened.
        """

    def open(self, bundle: Bundle, bundle_folder: Path, threads: int | None) -> tuple[Execute, Runtime]:
        """What executes one step of the bundle on this machine; ``common.running.run`` does the rest.

        Args:
            threads: 1-256, None is the runtime's own choice.
        Raises:
            BackendError: the program does not load, or the runtime's threads cannot be set.
            ArtifactError: the bundle's ranges are missing or of another shape.
        """


RunPart: TypeAlias = "Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]"
"""Inputs by name (float32, ids int64) -> outputs by name, float32: one execution of a text encoder or a decoder."""


@dataclass(frozen=True)
class PartProgram:
    """What a target made of a part.

    Attributes:
        file: name of the file or folder in the bundle's ``parts``. precision: in words.
        operations: as of a bundle.
    """

    file: str
    precision: str
    operations: tuple[Operation, ...]


OpenPart: TypeAlias = "Callable[..., RunPart]"
"""(program, inputs, outputs, threads=None) -> what executes a text encoder or a decoder of a bundle on this machine.

program: its file or folder. inputs, outputs: names in the program's order. threads: as of ``open``. Raises BackendError: it does
not load."""


def open_part_of(backend: Backend) -> OpenPart | None:
    """``open_part`` of a backend module; None where the target has no other parts than the network yet."""
    found: OpenPart | None = getattr(backend, "open_part", None)
    return found


OpenEmulator: TypeAlias = "Callable[[Bundle, Path], tuple[Execute, Runtime]]"
"""(bundle, its folder) -> what executes one step of it on an emulator of the device, and a ``Runtime`` that is ``emulated`` and
names the device. Raises BackendError: the emulator is missing, or refuses the program."""


def emulator_of(backend: Backend) -> OpenEmulator | None:
    """``open_emulator`` of a backend module; None where the vendor of its device has no emulator that this machine can run."""
    found: OpenEmulator | None = getattr(backend, "open_emulator", None)
    return found


DeviceChecks: TypeAlias = "Callable[[Bundle, Path], Iterable[Check]]"
"""(bundle, its folder) -> what `doctor` asks beside what it asks of every bundle: what the target's devices trip over."""


def device_checks_of(backend: Backend) -> DeviceChecks:
    """``device_checks`` of a backend module; where it has none, what finds nothing."""
    found: DeviceChecks = getattr(backend, "device_checks", lambda _bundle, _folder: ())
    return found
