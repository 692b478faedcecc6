"""The scores of a chain's pictures as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from dq_toolchain.toolchain.parts.chain import FP32, Chain

WITHOUT = "PSNR and SSIM only: no scores of a CLIP or LPIPS model (--clip FOLDER)"


def heads(chain: Chain) -> tuple[str, ...]:
    """What stands over the columns of ``rows``."""
    clip = chain.clip
    seen = (
        ()
        if clip is None
        else ("CLIP, FP32's picture",)
        if not clip.prompt
        else ("CLIP, prompt", "CLIP, FP32's picture")
    )
    return ("picture by the device's", "PSNR, dB", "SSIM", *seen)


def rows(chain: Chain) -> list[tuple[str, ...]]:
    """A row for each stage, in each cell one value per picture. With prompts FP32's own nearness to them comes first."""
    clip = chain.clip
    found: list[tuple[str, ...]] = []
    if clip is not None and clip.prompt:
        found.append(("(none: FP32)", "", "", _values(clip.prompt[FP32], ".4f"), ""))
    for stage in chain.stages:
        row = [stage.title, _values(stage.psnr, ".1f"), _values(stage.ssim, ".4f")]
        if clip is not None and clip.prompt:
            row.append(_values(clip.prompt[stage.name], ".4f"))
        if clip is not None:
            row.append(_values(clip.picture[stage.name], ".4f"))
        found.append(tuple(row))
    return found


def source(chain: Chain) -> str:
    """Where the scores come from, in a line."""
    if chain.clip is None:
        return WITHOUT
    return f"CLIP: cosines by {chain.clip.model}; they inform, the verdict does not depend on them"


def _values(values: Sequence[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)
