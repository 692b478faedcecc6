"""From tokens to pixels: what each part of a bundle adds to the error of the final picture.

``run`` draws the first held-out samples in three ways, each with one part more of the device than the one before; ``validate``
compares them with FP32's pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dq_toolchain.toolchain.disk.files import check_hashes, read_json, read_tensors
from dq_toolchain.toolchain.errors import ArtifactError
from dq_toolchain.toolchain.formats.bundle import REMEDY as EXPORT
from dq_toolchain.toolchain.formats.report import PICTURES, REMEDY, DeviceReport
from dq_toolchain.toolchain.metrics import psnr, ssim
from dq_toolchain.toolchain.parts.pipeline import BUNDLE_SCHEMA, BUNDLE_VERSION, FOLDER, JSON, REFERENCE

if TYPE_CHECKING:
    from torch import Tensor

    from dq_toolchain.toolchain.parts.clip_scores import ClipScores

STAGES: Mapping[str, str] = {
    "decoder": "decoder, of FP32's latents",
    "network": "network and decoder, of FP32's text",
    "prompt": "text encoders, network and decoder",
}
"""In the order in which the device takes over from FP32."""
FP32 = "fp32"
"""FP32's own picture, among the stages of a score."""


@dataclass(frozen=True)
class Stage:
    """One way to draw. ``psnr`` (dB), ``ssim``: per picture against FP32's. ``pictures``: (S, 3, H, W) uint8."""

    name: str
    title: str
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    pictures: Tensor


@dataclass(frozen=True)
class Chain:
    """Attributes: ``prompts``: of each picture, empty where there are none. ``fp32``: (S, 3, H, W) uint8. ``clip``: where a user
    gave a model (``clip_scores.scored``)."""

    prompts: tuple[str, ...]
    fp32: Tensor
    stages: tuple[Stage, ...]
    clip: ClipScores | None = None

    def to_json(self) -> list[dict[str, object]]:
        return [
            {"stage": each.name, "title": each.title, "psnr": list(each.psnr), "ssim": list(each.ssim)}
            for each in self.stages
        ]


def load_chain(report: DeviceReport, bundle: Path) -> Chain | None:
    """The pictures of a report with what FP32 made; None if it holds none.

    Args:
        bundle: the bundle's folder, whose hashes were checked.
    Raises:
        ArtifactError: the pictures are damaged or of another bundle.
    """
    if PICTURES not in report.data["files"]:
        return None
    file = report.path.parent / PICTURES
    check_hashes(report.path.parent, {PICTURES: report.data["files"][PICTURES]}, REMEDY)
    drawn, wanted = read_tensors(file, REMEDY), read_tensors(bundle / FOLDER / REFERENCE, EXPORT).get("pictures")
    if wanted is None or not drawn or not set(drawn) <= set(STAGES):
        raise ArtifactError(
            f"{file} holds {', '.join(sorted(drawn)) or 'nothing'}, allowed are {', '.join(STAGES)}; {REMEDY}"
        )
    count = len(next(iter(drawn.values())))
    for name, pictures in drawn.items():
        if (
            str(pictures.dtype) != "torch.uint8"
            or tuple(pictures.shape) != (count, *wanted.shape[1:])
            or count > len(wanted)
        ):
            raise ArtifactError(
                f"{file}: {name} is {pictures.dtype} {tuple(pictures.shape)}, the bundle's pictures are uint8 "
                f"{tuple(wanted.shape)}; {REMEDY}"
            )
    prompts = read_json(bundle / JSON, BUNDLE_SCHEMA, BUNDLE_VERSION, EXPORT)["reference"]["prompts"]
    wanted = wanted[:count]
    return Chain(
        tuple(map(str, prompts))[:count], wanted, tuple(_stage(n, drawn[n], wanted) for n in STAGES if n in drawn)
    )


def _stage(name: str, pictures: Tensor, wanted: Tensor) -> Stage:
    ours, theirs = (each.float() / 127.5 - 1 for each in (pictures, wanted))
    return Stage(name, STAGES[name], tuple(psnr(ours, theirs).tolist()), tuple(ssim(ours, theirs).tolist()), pictures)
