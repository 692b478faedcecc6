"""``dq.export`` and ``dq.run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dq_toolchain.api.results import Bundle, Calibration, OnNote, OnProgress, Report

if TYPE_CHECKING:
    from torch import nn

    from dq_toolchain.api.settings import Sections
    from dq_toolchain.toolchain.console.progress import Reporter
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.recipe.sections import ExportSection, Recipe, TargetSection


def export(
    artifact: Calibration | str | Path,
    target: str | None = None,
    *,
    out: str | Path | None = None,
    module: nn.Module | None = None,
    steps: Sequence[int] | None = None,
    guidance: Sequence[float] | None = None,
    image_to_image: bool | None = None,
    recipe: str | Path | Sections | Recipe | None = None,
    on_note: OnNote | None = None,
    **settings: Any,
) -> Bundle:
    """Lower a calibration artifact to a target's program, read it back, prove it against the artifact, and write the bundle.

    Args:
        artifact: what ``calibrate`` returned, or its folder.
        target: what `dq-toolchain targets` lists; default: [export] target of ``recipe``, else the one that is named there as such.
        out: the bundle's folder; default: TARGET beside the artifact's folder.
        module: of an artifact that is read from a folder and was calibrated from a module of yours: that module, for its
            architecture (its weights are not looked at). No code is ever loaded from an artifact.
        steps, guidance: what ``run`` and the programs on devices can choose beside what was calibrated; the artifact has
            held-out rollouts of what ``calibrate`` was given as ``more_steps`` and ``more_guidance``.
        image_to_image: put the encoder of pictures into the bundle, so that ``generate`` can begin with an image.
        recipe: a TOML file or sections, of which that of the target and [export] count.
        on_note: called with a line about what is noticed or done.
        settings: of the target, such as ``step_groups_as="input"``; the recipe reference lists them.
    Raises:
        DqError: ArtifactError for a damaged artifact or a module that is not its own, BackendError for a target that is not
            installed or cannot hold the artifact, SamplerError for steps or guidance that the artifact has no rollouts of,
            RecipeError for settings, and for ``image_to_image`` of a pipeline that cannot begin with an image.
    """
    from dq_toolchain import backends
    from dq_toolchain.api.reporting import Callbacks
    from dq_toolchain.api.settings import merged, target_settings
    from dq_toolchain.toolchain.errors import ArtifactError
    from dq_toolchain.toolchain.formats.artifact import Artifact

    chosen = target or merged(recipe, lambda _line: None).export.target or backends.DEFAULT
    backends.load(chosen)
    asked = {"steps": steps, "guidance": guidance, "image_to_image": image_to_image}
    checked, wanted = target_settings(recipe, chosen, settings, asked)
    if isinstance(artifact, Calibration) and module is not None:
        raise ArtifactError(
            "module: for an artifact that is read from a folder, got a Calibration, which has it; leave it out"
        )
    source = artifact.folder if isinstance(artifact, Calibration) else Path(artifact)
    loaded = artifact.artifact if isinstance(artifact, Calibration) else Artifact.load(source, module)
    folder = source.parent / chosen if out is None else Path(out)
    reporter = Callbacks(None, on_note)
    bundle = lowered(loaded, source, folder, chosen, checked, reporter, wanted)
    return Bundle(bundle.folder, bundle.description, tuple(reporter.notes))


SEEN = (
    "this artifact is of calibration seed 0 of an older version, which calibrated it on the held-out samples: its PSNR and its "
    "verdict on fidelity may be too good; calibrate again"
)


def was_seen(seeds: Mapping[str, Any]) -> bool:
    """Whether an artifact's held-out samples are its calibration samples.

    Args:
        seeds: of its record. Older ones do not name the first sample; with seed 0 it was that of held-out sample 0.
    """
    return seeds.get("calibration") == 0 and "first_sample" not in seeds


def lowered(
    artifact: Artifact | None,
    source: Path,
    folder: Path,
    target: str,
    settings: TargetSection | None,
    reporter: Reporter,
    wanted: ExportSection | None = None,
) -> Bundle:
    """The bundle of an artifact: what ``export`` and the command do with their settings.

    Args:
        artifact: None reads it from ``source``, its folder. folder: of the bundle.
        settings: of the target; None for the name of a target that there is not.
        wanted: step counts and guidance scales of the bundle; None is the calibrated ones alone.
    Raises:
        DqError: as ``export``.
    """
    from dq_toolchain import backends
    from dq_toolchain.toolchain.disk.lock import locked
    from dq_toolchain.toolchain.disk.staging import check_places
    from dq_toolchain.toolchain.errors import RecipeError
    from dq_toolchain.toolchain.formats.listing import chosen_in, read_header
    from dq_toolchain.toolchain.sampler.samplings import check_wanted

    backend = backends.load(target)
    counts, scales = (wanted.steps, wanted.guidance) if wanted is not None else ((), ())
    check_wanted(counts, scales, ("--steps", "--guidance"))
    if wanted is not None and wanted.unet_only and wanted.image_to_image:
        raise RecipeError("--unet-only leaves out what --image-to-image asks for; give one of them")
    with locked(folder.parent, "export", reporter.warn):
        check_places(folder, ())
        if artifact is None:
            header = read_header(source)  # a mistake in the path is told before torch and diffusers are imported
            chosen_in(header, counts, scales)
            from dq_toolchain.toolchain.formats.artifact import Artifact

            artifact = Artifact.load(source)
        from dq_toolchain.toolchain.parts.artifact import PartsArtifact, with_images

        artifact.require_module()
        if was_seen(artifact.record.get("seeds", {})):
            reporter.warn(SEEN)
        own, artifact = artifact.steps, artifact.holding(counts, scales)
        parts = None if wanted is not None and wanted.unet_only else PartsArtifact.load(source)
        if wanted is not None and wanted.image_to_image:
            parts = with_images(parts, None if own is None else {own, *counts})
        elif parts is not None:
            parts = parts.without_images()
        return Bundle(folder, backend.lower(artifact, source, folder, settings, reporter.say, parts))


def run(
    bundle: Bundle | str | Path,
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    threads: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    emulator: bool = False,
    progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Report:
    """Execute a bundle on this machine through the whole sampler and write the device report.

    Args:
        bundle: what ``export`` returned, or its folder.
        out: folder for the report; default: the bundle's.
        seeds: held-out seeds to run, default all; with fewer than 10 ``validate`` never says pass.
        threads: of the runtime, default its own choice.
        steps, guidance: of those that the bundle holds (``export``), default the calibrated ones.
        emulator: execute on the vendor's emulator of the device, for a target that has one; slow, and its times say nothing.
        progress: called with (task, done, total).
        on_note: called with a line about what is noticed.
    Raises:
        DqError: ArtifactError for a damaged bundle, BackendError for a program that does not execute or a wrong argument,
            SamplerError for steps or guidance that the bundle does not hold.
    """
    from dq_toolchain.api.reporting import Callbacks

    folder = bundle.folder if isinstance(bundle, Bundle) else Path(bundle)
    reporter = Callbacks(progress, on_note)
    place = Path(out) if out is not None else folder
    return executed(folder, place, seeds, threads, reporter, steps=steps, guidance=guidance, emulator=emulator)


def executed(
    folder: Path,
    out: Path,
    seeds: int | None,
    threads: int | None,
    reporter: Reporter,
    place: Path | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    emulator: bool = False,
) -> Report:
    """The report of a bundle's folder: what ``run`` and the command do with their settings.

    Args:
        place: folder that is locked meanwhile; default: ``out``.
    Raises:
        DqError: as ``run``.
    """
    from dq_toolchain import backends
    from dq_toolchain.toolchain.disk.lock import locked
    from dq_toolchain.toolchain.formats.bundle import Bundle as Description

    with locked(place or out, "run", reporter.warn), reporter.bar("sampling") as progress:
        loaded = Description.load(folder)
        loaded.at(steps, guidance)  # what it does not hold is told before torch is imported
        from dq_toolchain.backends.common.running import run as run_bundle  # torch, for a bundle that can be read

        backend = backends.load(loaded.target)
        path = run_bundle(
            backend,
            loaded,
            folder,
            out,
            seeds=seeds,
            threads=threads,
            steps=steps,
            guidance=guidance,
            emulator=emulator,
            progress=progress,
        )
    return Report(path, json.loads(path.read_text(encoding="utf-8")))
