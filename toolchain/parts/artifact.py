"""The folder ``parts`` in a calibration artifact: every part in integers, the tokenizers, and what FP32 makes of a few inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dq_toolchain.toolchain.disk.files import (
    check_hashes,
    check_seal,
    read_json,
    read_tensors,
    seal,
    sha256,
    write_json,
    write_tensors,
)
from dq_toolchain.toolchain.disk.staging import staged
from dq_toolchain.toolchain.errors import ArtifactError, RecipeError
from dq_toolchain.toolchain.formats import listing
from dq_toolchain.toolchain.formats.listing import JSON as CALIBRATION
from dq_toolchain.toolchain.models.image_to_image import LATENT_CONSISTENCY, begins_with_pictures
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.part import REMEDY, Part
from dq_toolchain.toolchain.parts.pipeline import FOLDER, JSON, NONE, REFERENCE, Pipeline

SCHEMA, VERSION = "dq-toolchain/parts", 1


@dataclass(frozen=True, kw_only=True)
class PartsReference:
    """What FP32 gives: the measure of every part that is exported. P prompts, S latents.

    Attributes:
        prompts: as they were encoded; the last is the negative prompt, where there is one.
        conditioning: input of the network -> (P, ...) float32, by the pipeline's own encoders.
        latents: (S, C, h, w) at the end of FP32 rollouts. pictures: (S, 3, H, W) that the pipeline's decoder makes of them.
        means: (S, C, h, w) that the pipeline's encoder makes of these pictures, clamped to [-1, 1].
        drawn: the prompt of each of them; empty where the conditioning came from a file. negative: of all.
    """

    prompts: tuple[str, ...]
    conditioning: Mapping[str, Tensor]
    latents: Tensor | None
    pictures: Tensor | None
    means: Tensor | None = None
    drawn: tuple[str, ...] = ()
    negative: str = ""

    @property
    def tensors(self) -> dict[str, Tensor]:
        found = {f"cond.{name}": value for name, value in self.conditioning.items()}
        if self.latents is not None and self.pictures is not None:
            found |= {"latents": self.latents, "pictures": self.pictures}
        if self.means is not None:
            found["means"] = self.means
        return found


@dataclass(frozen=True, kw_only=True)
class PartsArtifact:
    """Attributes: ``constants``: the tensors of ``Pipeline.constants``."""

    pipeline: Pipeline
    parts: tuple[Part, ...]
    constants: Mapping[str, Tensor]
    reference: PartsReference

    def part(self, name: str) -> Part:
        return next(each for each in self.parts if each.name == name)

    def without_images(self) -> PartsArtifact:
        """Without the encoder of pictures: what a bundle holds that was not asked for it."""
        parts = tuple(part for part in self.parts if part.name != VAE_ENCODER)
        return replace(self, parts=parts, pipeline=replace(self.pipeline, image=None))

    def write(self, folder: Path, calibration: Path) -> None:
        """Write everything but the tokenizers, whose files are in the folder already; pipeline.json last.

        Args:
            folder: staged. calibration: folder of the artifact that the parts belong to.
        Raises:
            ToolchainError: it cannot be written.
        """
        for part in self.parts:
            part.save(folder)
        write_tensors(folder / REFERENCE, self.reference.tensors)
        if self.pipeline.constants is not None:
            write_tensors(folder / self.pipeline.constants, self.constants)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "schema_version": VERSION,
            "calibration": sha256(calibration / CALIBRATION),
            "pipeline": self.pipeline.to_json(),
            "parts": [part.header() for part in self.parts],
            "prompts": list(self.reference.prompts),
            "drawn": list(self.reference.drawn),
            "negative": self.reference.negative,
            "files": {name: sha256(folder / name) for name in names},
        }
        write_json(folder / JSON, seal(content))

    @classmethod
    def load(cls, calibration: Path) -> PartsArtifact | None:
        """The parts of an artifact; None if it has none.

        Raises:
            ArtifactError: damaged, edited, of another calibration, or not written yet by one that was stopped; the text names the
                file.
        """
        folder = calibration / FOLDER
        path = folder / JSON
        if not path.exists():
            _check_finished(calibration)
            return None
        data = read_json(path, SCHEMA, VERSION, REMEDY)
        check_seal(path, data, REMEDY)
        try:
            if data["calibration"] != sha256(calibration / CALIBRATION):
                raise ArtifactError(f"{folder} was made with another {CALIBRATION} than the one beside it; {REMEDY}")
            check_hashes(folder, data["files"], REMEDY)
            pipeline = Pipeline.from_json(data["pipeline"], str(path), REMEDY)
            parts = tuple(Part.load(folder, header) for header in data["parts"])
            tensors = read_tensors(folder / REFERENCE, REMEDY)
            reference = PartsReference(
                prompts=tuple(map(str, data["prompts"])),
                conditioning={n.partition(".")[2]: v for n, v in tensors.items() if n.startswith("cond.")},
                latents=tensors.get("latents"),
                pictures=tensors.get("pictures"),
                means=tensors.get("means"),
                drawn=tuple(map(str, data["drawn"])),
                negative=str(data["negative"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path} is damaged: {type(error).__name__} {str(error)[:300]}; {REMEDY}") from error
        if tuple(part.name for part in parts) != pipeline.parts:
            raise ArtifactError(
                f"{path} holds the parts {', '.join(part.name for part in parts)}, its pipeline needs "
                f"{', '.join(pipeline.parts)}; {REMEDY}"
            )
        constants = {} if pipeline.constants is None else read_tensors(folder / pipeline.constants, REMEDY)
        return cls(pipeline=pipeline, parts=parts, constants=constants, reference=reference)


def write_none(calibration: Path, why: str) -> None:
    """Write that an artifact has no parts, and why: so that it is not taken for one whose parts are still to be written.

    Raises:
        ToolchainError: it cannot be written.
    """
    with staged(calibration / FOLDER, NONE) as folder:
        about = {
            "schema": SCHEMA,
            "schema_version": VERSION,
            "calibration": sha256(calibration / CALIBRATION),
            "why": why,
        }
        write_json(folder / NONE, about)


def _check_finished(calibration: Path) -> None:
    """Raise ArtifactError for an artifact whose parts were to follow, and neither they nor ``write_none`` did."""
    record = read_json(calibration / CALIBRATION, listing.SCHEMA, listing.VERSION, REMEDY).get("record")
    if not isinstance(record, Mapping) or record.get("parts") is not True:  # none follow, or it is an older artifact
        return
    none = calibration / FOLDER / NONE
    said = read_json(none, SCHEMA, VERSION, REMEDY) if none.is_file() else {}
    if said.get("calibration") != sha256(calibration / CALIBRATION):
        raise ArtifactError(
            f"{calibration}: `calibrate` was stopped before it wrote text encoders and decoder; run the same command again, which "
            "goes on from there, or export the network alone (--unet-only)"
        )


def with_images(found: PartsArtifact | None, counts: Collection[int] | None) -> PartsArtifact:
    """The parts of a bundle that is asked for image to image, with the starts of these step counts; None: of all.

    Args:
        found: of the artifact.
    Raises:
        RecipeError: the artifact has no encoder of pictures, or no parts.
    """
    if found is None:
        raise RecipeError(
            "--image-to-image: the artifact holds the network alone, without an encoder of pictures; calibrate the folder of a "
            "whole pipeline"
        )
    image = found.pipeline.image
    if image is None:
        raise RecipeError(f"--image-to-image: {_why_no_images(found.pipeline.pipeline)}")
    return found if counts is None else replace(found, pipeline=replace(found.pipeline, image=image.holding(counts)))


def _why_no_images(pipeline: str) -> str:
    if pipeline == LATENT_CONSISTENCY:
        return f"{pipeline} chooses other timesteps for each strength, which no bundle holds; leave the option out"
    if begins_with_pictures(pipeline) is None:
        return f"diffusers has no pipeline that begins with a picture for {pipeline}; leave the option out"
    return "the artifact has no encoder of pictures; calibrate again, and read what it says of image to image"
