"""Which bundle judges a report: the one whose bundle.json has the hash that the report gives, never just any at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import JSON, bundle_hash

SHORT = 12
"""Digits of a hash that tell bundles apart at a glance."""


@dataclass(frozen=True)
class Match:
    """Attributes: folder: where the bundle lies. sha256: of its bundle.json. given: with --bundle, else the report named it."""

    folder: Path
    sha256: str
    given: bool

    def describe(self) -> str:
        """Path, first digits of the hash, and who named it."""
        who = "given with --bundle" if self.given else "the place that the report names"
        return f"{self.folder.resolve()} (sha256 {self.sha256[:SHORT]}, {who})"


def find_bundle(report: Path, data: Mapping[str, Any], folders: Sequence[Path] = ()) -> Match:
    """The bundle that a report was made with.

    Args:
        report: path of report.json. data: its content.
        folders: bundle folders to choose from; none: the place that the report names, relative to it.
    Raises:
        ArtifactError: it is not there, or none has the hash; the text says what to do.
    """
    wanted = str(data["bundle_sha256"])
    named = report.parent / str(data["bundle"])
    if not folders and not _there(named):
        raise ArtifactError(
            f"{report}: the report's bundle is not at {named}; name its folder with --bundle (bundle.json with "
            f"sha256 {wanted[:SHORT]}...)"
        )
    for folder in folders:
        if not _there(folder):
            raise ArtifactError(f"--bundle {folder}: there is no {JSON} in it; name the folder that export wrote")
    hashes = {folder: bundle_hash(folder) for folder in folders or [named]}
    for folder, found in hashes.items():
        if found == wanted:
            return Match(folder, found, bool(folders))
    seen = ", ".join(f"{folder} ({found[:SHORT]}...)" for folder, found in hashes.items())
    raise ArtifactError(
        f"{report} was made with another bundle than {seen}: its bundle.json has sha256 {wanted[:SHORT]}...; name "
        "its own folder with --bundle, or run the program on the device again with the bundle that is there"
    )


def _there(folder: Path) -> bool:
    try:
        return (folder / JSON).is_file()
    except (OSError, ValueError):  # too long a name, a NUL in it
        return False
