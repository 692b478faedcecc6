"""How a pipeline's parts make a picture of a prompt: pipeline.json (docs/FORMATS.md), the same in an artifact and in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dq_toolchain.toolchain.errors import ArtifactError, SamplerError
from dq_toolchain.toolchain.parts.image_to_image import KEY, VAE_ENCODER, ImageToImage

FOLDER, JSON = "parts", "pipeline.json"
"""In the folder of an artifact, pipeline.json is inside FOLDER; in a bundle beside it."""
NONE = "none.json"
"""In the place of pipeline.json in an artifact whose pipeline cannot be exported: why."""
REFERENCE, CONSTANTS = "reference.safetensors", "constants.safetensors"
BUNDLE_SCHEMA, BUNDLE_VERSION = "dq-toolchain/pipeline", 1
MASK = "mask"
"""``TOKENIZER.mask`` in ``conditioning``: 1 for each token up to the end token."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Attributes:
    kind: "clip" or "t5". folder: holds its tokenizer.json.
    length: tokens that an encoder takes. begin, end, pad: ids; ``begin`` is None where there is none.
    lower: the text is put in lower case and stripped first, as PixArt's pipelines do.
    """

    name: str
    kind: str
    folder: str
    length: int
    begin: int | None
    end: int
    pad: int
    lower: bool = False


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A text encoder. ``outputs``: of its program, in order. ``mask``: it takes the tokenizer's mask beside the ids.
    ``program``: file or folder in a bundle; None in an artifact."""

    name: str
    tokenizer: str
    mask: bool
    outputs: tuple[str, ...]
    program: str | None = None


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """The decoder and the size of its pictures; ``program`` as of an encoder."""

    channels: int
    height: int
    width: int
    program: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Attributes:
    pipeline: diffusers' class.
    conditioning: input of the network -> rows of "PART.OUTPUT" (``assemble``).
    constants: file with what no prompt decides, ``cond.NAME`` and ``uncond.NAME``; None where there is nothing.
    zeros_without_negative: the unconditional tensors are zeros where the negative prompt is empty.
    decoder: None where the network makes pictures itself.
    image: the encoder of pictures, and where a run can begin with one; None where it cannot.
    """

    pipeline: str
    tokenizers: tuple[Tokenizer, ...]
    encoders: tuple[Encoder, ...]
    conditioning: Mapping[str, tuple[tuple[str, ...], ...]]
    constants: str | None
    zeros_without_negative: bool
    decoder: PictureSize | None
    image: ImageToImage | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order in which a picture needs them."""
        encoder = () if self.image is None else (VAE_ENCODER,)
        return (*(each.name for each in self.encoders), *encoder, *(() if self.decoder is None else ("decoder",)))

    def program_of(self, part: str) -> str | None:
        found = {each.name: each.program for each in self.encoders}
        if self.image is not None:
            found[VAE_ENCODER] = self.image.program
        return found.get(part, None if self.decoder is None else self.decoder.program)

    def tokenizer(self, name: str) -> Tokenizer:
        return next(each for each in self.tokenizers if each.name == name)

    def outputs_of(self, part: str) -> tuple[str, ...]:
        """Names of what a part's program gives, in order."""
        found = {each.name: each.outputs for each in self.encoders}
        if self.image is not None:
            found[VAE_ENCODER] = self.image.outputs
        return found.get(part, ("picture",))

    def with_programs(self, programs: Mapping[str, str]) -> Pipeline:
        """The same, of a bundle that holds these files or folders by part."""
        encoders = tuple(replace(each, program=programs[each.name]) for each in self.encoders)
        decoder = None if self.decoder is None else replace(self.decoder, program=programs["decoder"])
        image = None if self.image is None else replace(self.image, program=programs[VAE_ENCODER])
        return replace(self, encoders=encoders, decoder=decoder, image=image)

    def to_json(self) -> dict[str, Any]:
        data = asdict(replace(self, image=None))
        del data["image"]
        return data if self.image is None else {**data, KEY: self.image.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str, remedy: str) -> Pipeline:
        """Raises ArtifactError: a part is named that is not there, or a value is of another kind."""
        try:
            found = cls(
                pipeline=str(data["pipeline"]),
                tokenizers=tuple(Tokenizer(**row) for row in data["tokenizers"]),
                encoders=tuple(Encoder(**{**row, "outputs": tuple(row["outputs"])}) for row in data["encoders"]),
                conditioning={
                    str(name): tuple(tuple(map(str, row)) for row in rows)
                    for name, rows in data["conditioning"].items()
                },
                constants=data["constants"],
                zeros_without_negative=bool(data["zeros_without_negative"]),
                decoder=None if data["decoder"] is None else PictureSize(**data["decoder"]),
                image=ImageToImage.from_json(data[KEY]) if KEY in data else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, SamplerError) as error:
            raise ArtifactError(f"{where} is damaged: {type(error).__name__} {str(error)[:300]}; {remedy}") from error
        names = {each.name for each in found.tokenizers}
        wrong = next((each for each in found.encoders if each.tokenizer not in names), None)
        if wrong is not None:
            raise ArtifactError(
                f"{where}: {wrong.name} takes tokens of {wrong.tokenizer!r}, which is not there; {remedy}"
            )
        known = {f"{each.name}.{output}" for each in found.encoders for output in each.outputs}
        known |= {f"{name}.{MASK}" for name in names}
        for name, rows in found.conditioning.items():
            strange = next((source for row in rows for source in row if source not in known), None)
            if strange is not None or not rows or not all(rows):
                raise ArtifactError(f"{where}: {name} is made of {strange!r}, which is not there; {remedy}")
        return found
