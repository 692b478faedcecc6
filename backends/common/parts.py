"""The other parts of a pipeline in a bundle: lowered by the target, executed on what FP32 was asked, judged, and described.

A part's program is compared with FP32's own answers: what a prompt or a picture becomes by cosine, pictures by PSNR. The limits
are those below which a picture visibly changes; what was reached stands in pipeline.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dq_toolchain.backends.base import PartProgram, RunPart, Say
from dq_toolchain.backends.common.cost import Cost
from dq_toolchain.backends.common.part_calls import picture_calls
from dq_toolchain.toolchain.disk.files import copy, seal, write_json, write_tensors
from dq_toolchain.toolchain.errors import BackendError
from dq_toolchain.toolchain.formats.bundle import Operation
from dq_toolchain.toolchain.metrics import psnr
from dq_toolchain.toolchain.parts.artifact import PartsArtifact
from dq_toolchain.toolchain.parts.assembly import assemble
from dq_toolchain.toolchain.parts.image_to_image import VAE_ENCODER
from dq_toolchain.toolchain.parts.part import DECODER, Part
from dq_toolchain.toolchain.parts.picture import pixels
from dq_toolchain.toolchain.parts.pipeline import (
    BUNDLE_SCHEMA,
    BUNDLE_VERSION,
    CONSTANTS,
    FOLDER,
    JSON,
    MASK,
    REFERENCE,
)
from dq_toolchain.toolchain.parts.tokens import FILE, Tokens

COSINE, PSNR, MEAN = 0.99, 30.0, 0.99
"""Least cosine of what a prompt becomes, PSNR of a picture in dB, and cosine of what a picture becomes, against FP32."""
REMEDY = "nothing was exported; export the network alone with --unet-only"

LowerPart = Callable[[Part, Path], PartProgram]
"""(part, folder "parts" of the bundle) -> what was written there, audited against the part."""
OpenPart = Callable[[Path, Sequence[str], Sequence[str]], RunPart]
"""``open_part`` of the target."""


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """What pipeline.json says of an exported part.

    Attributes:
        precision: in words, e.g. "int8 weights and activations". size: bytes of its program.
        cosine: of text encoders, least over prompts and inputs of the network; of the encoder of pictures, least over means.
        psnr: of the decoder, least over pictures, in dB.
    """

    name: str
    precision: str
    size: int
    operations: tuple[Operation, ...]
    cosine: float | None = None
    psnr: float | None = None


def add_parts(
    found: PartsArtifact | None,
    calibration: Path,
    bundle: Path,
    lower: LowerPart,
    open_part: OpenPart,
    say: Say,
    cost: Cost,
) -> None:
    """Write ``parts`` and pipeline.json into a bundle's folder that is not sealed yet; without parts nothing.

    Args:
        calibration: folder of the artifact. cost: of the target's lowering.
    Raises:
        BackendError: a part cannot be lowered, differs from its artifact, or from FP32 by more than the limits.
    """
    if found is None:
        return
    place = bundle / FOLDER
    place.mkdir()
    programs: dict[str, PartProgram] = {}
    for part in found.parts:
        say(f"lowering {part.name}: {part.integers / 1e6:.1f} million integer weights; needs {cost.of_part(part)}")
        programs[part.name] = lower(part, place)
    images = found.pipeline.image is not None
    say(f"executing the text encoders{', the encoder of pictures' if images else ''} and the decoder against FP32")

    def opened(part: Part) -> RunPart:
        names = ([port.name for port in ports] for ports in (part.inputs, part.outputs))
        return open_part(place / programs[part.name].file, *names)

    cosines = _cosines(found, calibration / FOLDER, opened)
    rows = []
    for part in found.parts:
        program = programs[part.name]
        reached = _psnr(found, part, opened(part)) if part.name == DECODER else None
        cosine = _mean_cosine(found, opened(part)) if part.name == VAE_ENCODER else cosines
        rows.append(
            PartRow(
                name=part.name,
                precision=program.precision,
                size=_size(place / program.file),
                operations=program.operations,
                cosine=None if part.name == DECODER else cosine,
                psnr=reached,
            )
        )
    _write(found, calibration / FOLDER, bundle, {n: f"{FOLDER}/{p.file}" for n, p in programs.items()}, rows)


def _cosines(found: PartsArtifact, tokenizers: Path, opened: Callable[[Part], RunPart]) -> float | None:
    """Least cosine of what prompts become against FP32. Raises BackendError below COSINE."""
    pipeline, reference = found.pipeline, found.reference
    if not pipeline.encoders:
        return None
    tokens = {each.name: Tokens(each, tokenizers) for each in pipeline.tokenizers}
    outputs: list[dict[str, Tensor]] = [
        {f"{name}.{MASK}": token(prompt)[1] for name, token in tokens.items()} for prompt in reference.prompts
    ]
    for encoder in pipeline.encoders:  # one in memory at a time
        execute = opened(found.part(encoder.name))
        for prompt, row in zip(reference.prompts, outputs, strict=True):
            ids, mask = tokens[encoder.tokenizer](prompt)
            given = {"ids": ids, "mask": mask} if encoder.mask else {"ids": ids}
            row |= {f"{encoder.name}.{name}": value for name, value in execute(given).items()}
    least, which = 1.0, ""
    for index, row in enumerate(outputs):
        for name, value in assemble(pipeline, row).items():
            want = reference.conditioning[name][index]
            cosine = float(torch.cosine_similarity(value.flatten().double(), want.flatten().double(), dim=0))
            if not cosine >= least:
                least, which = cosine, f"{name} of the prompt {reference.prompts[index][:40]!r}"
    if not least >= COSINE:
        raise BackendError(
            f"the text encoders differ from FP32: {which} has a cosine of {least:.4f}, allowed is {COSINE}; {REMEDY}"
        )
    return least


def _mean_cosine(found: PartsArtifact, execute: RunPart) -> float:
    """Least cosine of the pictures' means against FP32's. Raises BackendError below MEAN."""
    means = found.reference.means
    assert means is not None
    made = torch.cat([execute(call)["mean"] for call in picture_calls(found)])
    least = float(torch.cosine_similarity(made.flatten(1).double(), means.flatten(1).double(), dim=1).min())
    if not least >= MEAN:
        raise BackendError(
            f"the encoder of pictures differs from FP32: a mean has a cosine of {least:.4f}, allowed is {MEAN}; nothing was "
            "exported; leave --image-to-image out"
        )
    return least


def _psnr(found: PartsArtifact, part: Part, execute: RunPart) -> float:
    """Least PSNR of the pictures against FP32's. Raises BackendError below PSNR."""
    latents, pictures = found.reference.latents, found.reference.pictures
    assert latents is not None
    assert pictures is not None
    (name,) = (port.name for port in part.outputs)
    made = torch.cat([execute({"latents": row[None]})[name] for row in latents])
    least = float(psnr(made.clamp(-1, 1), pictures.clamp(-1, 1)).min())
    if not least >= PSNR:
        raise BackendError(f"the decoder differs from FP32: a picture has {least:.1f} dB, allowed is {PSNR}; {REMEDY}")
    return least


def _write(found: PartsArtifact, source: Path, bundle: Path, programs: Mapping[str, str], rows: list[PartRow]) -> None:
    about = found.pipeline.with_programs(programs)
    data = about.to_json()
    for tokenizer in data["tokenizers"]:
        name = tokenizer["folder"]
        tokenizer["folder"] = f"{FOLDER}/{name}"
        (bundle / FOLDER / name).mkdir()
        copy(source / name / FILE, bundle / FOLDER / name / FILE)
    if about.constants is not None:
        data["constants"] = f"{FOLDER}/{CONSTANTS}"
        write_tensors(bundle / FOLDER / CONSTANTS, found.constants)
    content: dict[str, Any] = {"schema": BUNDLE_SCHEMA, "schema_version": BUNDLE_VERSION, **data}
    content["parts"] = [asdict(row) for row in rows]
    content["limits"] = {"cosine": COSINE, "psnr": PSNR, **({} if about.image is None else {"mean": MEAN})}
    content["reference"] = {"prompts": list(found.reference.drawn), "negative": found.reference.negative}
    if found.reference.pictures is not None:
        write_tensors(bundle / FOLDER / REFERENCE, {"pictures": pixels(found.reference.pictures)})
    write_json(bundle / JSON, seal(content))


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else (path,)) if each.is_file())
