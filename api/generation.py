"""``dq.generate``: a picture of a prompt by a bundle, by the integer simulation of an artifact, or by the FP32 pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.api.results import Bundle, Calibration

if TYPE_CHECKING:
    from dq_toolchain.toolchain.parts.generation import Picture
    from dq_toolchain.toolchain.parts.prompting import Wish

OnStep = Callable[[int, int], None]


def generate(
    source: Bundle | Calibration | str | Path,
    prompt: str | None = None,
    *,
    negative_prompt: str = "",
    label: int | None = None,
    image: str | Path | None = None,
    strength: float | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    threads: int | None = None,
    on_note: Callable[[str], None] | None = None,
    progress: OnStep | None = None,
) -> Picture:
    """One picture. The same seed and settings give the same picture on every device, to what integers change.

    Args:
        source: what ``export`` returned, or its folder: the bundle's programs, executed on this machine. What ``calibrate``
            returned, or its folder: the integer simulation. A pipeline's folder: diffusers' own pipeline in FP32.
        label: of a model that draws a class in the place of a prompt.
        image: PNG file that the run begins with in the place of noise, of the size that the model draws; a bundle holds what this
            needs if it was exported with ``image_to_image``.
        strength: above 0 and at most 1: the share of the steps that run, default 0.8. 1 keeps next to nothing of the image.
        seed: of torch's generator on the CPU, as diffusers takes it.
        steps, guidance: of those that the bundle or the artifact holds, default the calibrated ones; of a pipeline its own.
        threads: of the bundle's runtime.
        on_note: called with a line about what is left out of a prompt. progress: called with network calls done and in all.
    Returns:
        ``pixels`` (3, H, W) uint8 and ``latents`` (1, C, h, w).
    Raises:
        DqError: RecipeError for a wish that the model cannot fulfil, ArtifactError or ModelError for what cannot be read,
            BackendError for a program that does not execute, SamplerError for steps or guidance that are not there.
    """
    from dq_toolchain.toolchain.parts.prompting import Wish

    begin = None if image is None else Path(image)
    wish = Wish(prompt=prompt, negative=negative_prompt, label=label, seed=seed, image=begin, strength=strength)
    warn, on_step = on_note or (lambda _line: None), progress or (lambda _done, _total: None)
    folder = source.folder if isinstance(source, Bundle | Calibration) else Path(source)
    kind = kind_of(folder)
    if kind == "bundle":
        return _by_bundle(folder, wish, steps, guidance, threads, warn, on_step)
    if kind == "calibration":
        return _by_simulation(folder, wish, steps, guidance, warn, on_step)
    return _by_pipeline(folder, wish, steps, guidance, on_step)


def kind_of(folder: Path) -> str:
    """What a folder is: "bundle", "calibration" or "pipeline". Raises RecipeError: none of them."""
    from dq_toolchain.toolchain.errors import RecipeError
    from dq_toolchain.toolchain.formats.bundle import JSON as BUNDLE
    from dq_toolchain.toolchain.formats.listing import JSON as CALIBRATION

    names = {"bundle": BUNDLE, "calibration": CALIBRATION, "pipeline": "model_index.json"}
    found = next((kind for kind, name in names.items() if (folder / name).is_file()), None)
    if found is None:
        raise RecipeError(
            f"{folder} is no bundle ({BUNDLE}), artifact ({CALIBRATION}) or pipeline (model_index.json); give the folder of one"
        )
    return found


def _by_bundle(
    folder: Path,
    wish: Wish,
    steps: int | None,
    guidance: float | None,
    threads: int | None,
    warn: Callable[[str], None],
    on_step: OnStep,
) -> Picture:
    from dq_toolchain import backends
    from dq_toolchain.toolchain.formats.bundle import Bundle as Description

    bundle = Description.load(folder).at(steps, guidance)
    from dq_toolchain.backends.common.generate import generate as by_bundle  # torch, for a bundle that can be read

    return by_bundle(backends.load(bundle.target), bundle, folder, wish, threads=threads, warn=warn, on_step=on_step)


def _by_simulation(
    folder: Path,
    wish: Wish,
    steps: int | None,
    guidance: float | None,
    warn: Callable[[str], None],
    on_step: OnStep,
) -> Picture:
    from dq_toolchain.toolchain.formats.artifact import Artifact
    from dq_toolchain.toolchain.parts.simulated import generate as by_simulation

    artifact = Artifact.load(folder)
    return by_simulation(artifact, folder, wish, steps=steps, guidance=guidance, warn=warn, on_step=on_step)


def _by_pipeline(folder: Path, wish: Wish, steps: int | None, guidance: float | None, on_step: OnStep) -> Picture:
    from dq_toolchain.calibrate.parts.fp32 import generate as by_pipeline

    return by_pipeline(folder, wish, steps=steps, guidance=guidance, on_step=on_step)
