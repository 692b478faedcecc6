"""A picture of a prompt by a bundle on this machine: what its programs on devices do, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.backends.base import Backend, RunPart, open_part_of
from dq_toolchain.backends.common.sampling import DeviceNetwork
from dq_toolchain.backends.common.threads import check_threads
from dq_toolchain.toolchain.disk.files import check_seal, read_json, read_tensors
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import REMEDY, Bundle
from dq_toolchain.toolchain.parts.beginning import from_picture
from dq_toolchain.toolchain.parts.generation import Picture, picture_of
from dq_toolchain.toolchain.parts.pipeline import BUNDLE_SCHEMA, BUNDLE_VERSION, JSON, Pipeline
from dq_toolchain.toolchain.parts.prompting import LABELS, Wish, check_wish, conditioning_of


def load_pipeline(folder: Path) -> Pipeline:
    """pipeline.json of a bundle whose hashes were checked.

    Raises:
        ArtifactError: damaged.
        BackendError: the bundle holds the network alone.
    """
    path = folder / JSON
    if not path.is_file():
        raise BackendError(
            f"{folder} holds the network alone, without text encoders and decoder; export it from a pipeline without --unet-only"
        )
    return read_pipeline(path)[0]


def read_pipeline(path: Path) -> tuple[Pipeline, dict[str, Any]]:
    """pipeline.json as it is used, and all of it. Raises ArtifactError: damaged."""
    data = read_json(path, BUNDLE_SCHEMA, BUNDLE_VERSION, REMEDY)
    check_seal(path, data, REMEDY)
    return Pipeline.from_json(data, str(path), REMEDY), data


class BundleParts:
    """Executes the parts of a bundle, each loaded when it is first used. ``keep``: loaded parts stay in memory."""

    def __init__(self, backend: Backend, pipeline: Pipeline, folder: Path, threads: int | None, *, keep: bool) -> None:
        open_part = open_part_of(backend)
        if open_part is None:
            raise BackendError(
                f"target {backend.describe().name!r} executes no text encoders and decoders; use another"
            )
        self._open, self._pipeline, self._folder = open_part, pipeline, folder
        self._threads, self._keep = threads, keep
        self._loaded: dict[str, RunPart] = {}

    def __call__(self, name: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if name not in self._loaded:
            if not self._keep:
                self._loaded.clear()
            program = self._folder / str(self._pipeline.program_of(name))
            outputs = self._pipeline.outputs_of(name)
            self._loaded[name] = self._open(program, tuple(given), outputs, threads=self._threads)
        return self._loaded[name](given)


def generate(
    backend: Backend,
    bundle: Bundle,
    folder: Path,
    wish: Wish,
    *,
    threads: int | None = None,
    warn: Callable[[str], None],
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picture:
    """The picture of a wish.

    Args:
        bundle: at the step count and guidance that are wanted.
    Raises:
        RecipeError: the wish does not fit the model.
        BackendError: a program does not load or execute, or the bundle holds the network alone.
        ArtifactError: a file of the bundle is damaged.
    """
    check_threads(threads)
    pipeline = load_pipeline(folder)
    sample = next(port for port in bundle.inputs if port.name == "sample")
    check_wish(wish, pipeline, takes_labels=any(port.name == LABELS for port in bundle.inputs))
    begun = from_picture(wish, pipeline, bundle.steps)
    parts = BundleParts(backend, pipeline, folder, threads, keep=False)
    constants = {} if pipeline.constants is None else read_tensors(folder / pipeline.constants, REMEDY)
    conditioning = conditioning_of(wish, pipeline, folder, constants, parts, guided=bundle.guidance != 1.0, warn=warn)
    order = [port.name for port in bundle.inputs if port.name in conditioning.cond]
    execute, _runtime = backend.open(bundle, folder, threads)
    network = DeviceNetwork(execute, bundle.table, bundle.guidance, conditioning.ordered(order))
    return picture_of(wish.seed, sample.shape, bundle.table, network, pipeline, parts, on_step, begun)
