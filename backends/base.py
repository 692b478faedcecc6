"""What a target is to the rest of the project: three functions in a module named after it.

``backends.load(name)`` returns such a module; the command line calls nothing else of a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.formats.bundle import Bundle
    from dq_toolchain.toolchain.recipe.sections import Recipe

Say = Callable[[str], None]
"""One line about what is going on; where it goes is the caller's business."""


@dataclass(frozen=True)
class TargetInfo:
    """What ``dq-toolchain targets`` prints.

    Attributes:
        library: distribution the backend needs. version: the installed one, None if it is missing.
        install: what to type to get it.
        schemes, weight_bits, activation_bits: what the target can hold.
        verified: where its files were executed and compared.
    """

    name: str
    library: str
    version: str | None
    install: str
    schemes: tuple[str, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    verified: str


def installed_version(*libraries: str) -> str | None:
    """Version of the first of several distributions, None if one of them is missing."""
    try:
        return [version(library) for library in libraries][0]  # noqa: RUF015, all have to be there
    except PackageNotFoundError:
        return None


class Backend(Protocol):
    """A backend module. Importing it must not import the vendor's library."""

    def describe(self) -> TargetInfo:
        """Facts about the target, without importing its library."""

    def lower(self, artifact: Artifact, artifact_folder: Path, out: Path, recipe: Recipe, progress: Say) -> Bundle:
        """Write the bundle folder, bundle.json last, as the recipe's section of the target says.

        Raises:
            BackendError: the target cannot hold the artifact.
        """

    def methods(self, bundle: Bundle, bundle_folder: Path) -> Collection[str]:
        """Names of the methods, functions or graphs that the bundle's program holds; none is loaded.

        Raises:
            BackendError: the program cannot be opened.
        """

    def run(
        self,
        bundle: Bundle,
        bundle_folder: Path,
        out: Path,
        seeds: int | None,
        threads: int | None,
        progress: Callable[[int, int], None],
    ) -> Path:
        """Execute the bundle's sampler and write the device report; returns the path of report.json."""
