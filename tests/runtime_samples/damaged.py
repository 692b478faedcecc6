"""The golden recordings and the one list of damaged bundles (scripts/golden) as the tests of host and device programs use them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "runtime_samples" / "golden"
FOR_ALL, FOR_THE_HOST = "damaged-bundles", "damaged-for-the-host"

VECTORS = "step-vectors"
"""The golden case whose program takes step vectors in the place of the timestep."""
OTHER_VECTORS = {"samplers/two-vectors": ("--steps", "2")}
"""A run of such a program at another step count, with what chooses it."""


def recorded() -> list[str]:
    """The golden cases with a recording, at the calibrated sampler."""
    return sorted(path.parent.name for path in GOLDEN.glob("*/replay.safetensors"))


def listed(kind: str) -> list[str]:
    """CASE/NAME of every damaged bundle."""
    return sorted(path.relative_to(GOLDEN / kind).as_posix() for path in (GOLDEN / kind).glob("*/*"))


def laid_out(kind: str, name: str, folder: Path) -> Path:
    """The damaged bundle ``name``, whole, in ``folder``/bundle."""
    case = name.split("/")[0]
    bundle = Path(shutil.copytree(GOLDEN / case / "bundle", folder / "bundle"))
    shutil.copytree(GOLDEN / kind / name, bundle, dirs_exist_ok=True)
    return bundle


def _linked_file(bundle: Path) -> None:
    (bundle / "model.bin").rename(bundle.parent / "elsewhere.bin")
    (bundle / "model.bin").symlink_to(bundle.parent / "elsewhere.bin")


def _fifo(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    os.mkfifo(bundle / "model.bin")


def _folder(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    (bundle / "model.bin").mkdir()


def _fifo_as_json(bundle: Path) -> None:
    (bundle / "bundle.json").unlink()
    os.mkfifo(bundle / "bundle.json")


ON_DISK: dict[str, Callable[[Path], None]] = {
    "a file is a link": _linked_file,
    "a file is a FIFO": _fifo,
    "a file is a folder": _folder,
    "bundle.json is a FIFO": _fifo_as_json,
}
"""What no list of files can hold; done to a copy of ddim-guided."""
